"""Celery's commands as processes of their own, on a database and a Redis of the test's."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from kitaab_jobs.devstack.spawn import spawn

OPTIONS = {
    "worker": ("--concurrency", "2", "--loglevel", "INFO"),
    "beat": ("--loglevel", "INFO"),
}


class Celery:
    """What it takes to run `celery` on one platform, and what of it runs."""

    def __init__(self, folder: Path, database_url: str, redis_url: str, app: str) -> None:
        self.folder = folder
        self.app = app
        kept = {name: value for name, value in os.environ.items() if not name.startswith("KITAAB_")}
        self.env = kept | {
            "KITAAB_DATABASE_URL": database_url,
            "KITAAB_REDIS_URL": redis_url,
            "KITAAB_DATA_DIR": str(folder / "data"),
        }
        (folder / "data").mkdir(exist_ok=True)
        self.started: list[Process] = []

    def start(self, command: str, *options: str, **env: str) -> Process:
        """Start `worker` or `beat`."""
        process = Process(self, command, options, env)
        self.started.append(process)
        return process

    def ask(self, *words: str, seconds: float = 90, **env: str | None) -> subprocess.CompletedProcess[str]:
        """Run a command to its end; an environment variable that is None is taken away."""
        given = {name: value for name, value in (self.env | env).items() if value is not None}
        return subprocess.run(
            self.command(*words),
            env=given,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )

    def command(self, *words: str) -> list[str]:
        """Return the command line."""
        return [sys.executable, "-m", "celery", "-A", self.app, *words]

    def end(self) -> None:
        """Kill what still runs."""
        for process in self.started:
            process.kill()


class Process:
    """A running worker or beat."""

    def __init__(self, platform: Celery, command: str, options: tuple[str, ...], env: dict[str, str]) -> None:
        self.log = platform.folder / f"{command}-{len(platform.started)}.log"
        with self.log.open("wb") as log:
            # SIGQUIT where the tests are killed: a worker ends its children, which SIGKILL would leave behind.
            self.popen = spawn(
                platform.command(command, *OPTIONS[command], *options),
                log=log,
                env=platform.env | env,
                death_signal=signal.SIGQUIT,
                cwd=Path.cwd(),
            )
        self.pid = self.popen.pid

    @property
    def output(self) -> str:
        """What it has printed so far."""
        return self.log.read_text()

    @property
    def children(self) -> list[int]:
        """The processes that it has forked."""
        return [child.pid for child in psutil.Process(self.pid).children(recursive=True)]

    def kill(self) -> None:
        """End it with -9, if it runs."""
        if self.popen.poll() is None:
            self.popen.kill()
            self.popen.wait(timeout=10)

    def terminate(self, seconds: float = 60) -> int:
        """Ask it to stop, and return its exit code."""
        self.popen.send_signal(signal.SIGTERM)
        return self.popen.wait(timeout=seconds)


@contextmanager
def celery(folder: Path, database_url: str, redis_url: str, app: str) -> Iterator[Celery]:
    """Give a platform, and end what it has started. When a test fails, the logs are shown."""
    platform = Celery(folder, database_url, redis_url, app)
    try:
        yield platform
    except BaseException:
        for process in platform.started:
            print(f"--- {process.log.name}\n{process.output[-6000:]}")  # noqa: T201
        raise
    finally:
        platform.end()

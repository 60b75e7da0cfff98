"""What the two embedded servers have in common: a folder, a lock, a port, a child process.

A folder holds `data/`, `secrets.json` (passwords, mode 0600), `server.json` (last port and process) and
`lock`. Every wait has a deadline.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, ClassVar, Self

import psutil

from kitaab_jobs.devstack.account import server_account, user_name
from kitaab_jobs.devstack.folder import FolderLock, Secrets, explained, write_private
from kitaab_jobs.devstack.ports import HOST, free_port, is_free
from kitaab_jobs.devstack.spawn import ended, server_env, spawn
from kitaab_jobs.errors import StackError

_COMPLAINT = re.compile(r"FATAL|PANIC|[Ee]rror:|ERROR|No space left")
_PREFIX = re.compile(r"^[\d-]+ [\d:.]+ UTC \[\d+\] ")

Signals = tuple[tuple[signal.Signals, float], ...]


class EmbeddedServer(ABC):
    """A server of our own in `folder`, which is made where it does not exist.

    `port` insists on one port; without it the last one is used again where it is free. `log` is the
    file that takes the server's output (default: `server.log` in the folder).
    """

    name: ClassVar[str]
    start_within: ClassVar[float] = 120.0
    # What to send, and how many seconds to wait for its effect, before the next is sent.
    stop_signals: ClassVar[Signals]
    abort_signals: ClassVar[Signals]
    death_signal: ClassVar[signal.Signals]

    def __init__(self, folder: Path, *, port: int | None = None, log: Path | None = None) -> None:
        self.folder = folder.absolute()
        self.data = self.folder / "data"
        self.log = log.absolute() if log else self.folder / "server.log"
        self.secrets = Secrets(self.folder / "secrets.json")
        self.account = server_account()
        self._wanted_port = port
        self._port: int | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = FolderLock(self.folder / "lock")
        self._state = self.folder / "server.json"

    @abstractmethod
    def _prepare(self) -> None:
        """Make the data folder, or check the one that exists."""

    @abstractmethod
    def _launch(self, port: int) -> subprocess.Popen[bytes]:
        """Start the server process."""

    @abstractmethod
    def _is_ready(self) -> bool:
        """Whether the process that was launched takes connections."""

    @property
    def port(self) -> int:
        """The port it listens on; raises `StackError` where it was never started."""
        if self._port is None:
            raise StackError(f"the embedded {self.name} in {self.folder} was not started")
        return self._port

    @property
    def pid(self) -> int | None:
        """The process id of the running server, or None."""
        return self._process.pid if self._process and self._process.poll() is None else None

    @property
    def running(self) -> bool:
        """Whether the process that we started is alive."""
        return self.pid is not None

    def ending(self) -> str:
        """Say how it ended when it was not stopped, as in `(pid 12) was killed by SIGKILL`."""
        return ended(self._process) if self._process else "does not run"

    def start(self) -> None:
        """Start it and return when it takes connections. Does nothing where it runs.

        Raises `AlreadyRunning` where another process uses the folder, else `StackError` with the reason.
        """
        if self.running:
            return
        with explained("make", self.folder):
            self.folder.mkdir(mode=0o711 if self.account else 0o700, parents=True, exist_ok=True)
        self._lock.take()
        try:
            self._check_way()
            self._settle_leftover()
            self._prepare()
            self._start_on_a_port()
            self._lock.note(f"{self.name} on {HOST}:{self.port}")
        except BaseException:
            self.stop(immediate=True)
            raise

    def stop(self, *, immediate: bool = False) -> None:
        """Stop it: cleanly by default, or at once as a crash would. Does nothing where it is stopped."""
        process, self._process = self._process, None
        if process is not None:
            end(process, self.abort_signals if immediate else self.stop_signals)
        self._lock.free()

    def restart(self, *, immediate: bool = False) -> None:
        """Stop it where it runs, and start it on the same port."""
        self.stop(immediate=immediate)
        asked, self._wanted_port = self._wanted_port, self._port
        try:
            self.start()
        finally:
            self._wanted_port = asked

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _start_on_a_port(self) -> None:
        for _ in range(5):
            port = self._choose_port()
            since = self.log.stat().st_size if self.log.exists() else 0
            process = self._process = self._launch(port)
            self._port = port
            self._remember(process.pid)
            if self._wait_until_ready(process):
                return
            lines = self._log_since(since)
            end(process, self.abort_signals)
            in_use = any("Address already in use" in line for line in lines)
            # Memory of a server that was killed, while its children have yet to notice:
            left_over = any("is still in use" in line for line in lines)
            if not left_over and (not in_use or self._wanted_port is not None):
                break
            time.sleep(0.5 if left_over else 0)
        self._process = None
        raise self._failure(f"{self.name} did not start on {HOST}:{port}", lines)

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> bool:
        """Whether it got ready before it ended, or before the deadline."""
        deadline = time.monotonic() + self.start_within
        while time.monotonic() < deadline and process.poll() is None:
            if self._is_ready():
                return True
            time.sleep(0.01)
        return False

    def _choose_port(self) -> int:
        wanted = self._wanted_port
        if wanted is None:
            return free_port(self._remembered().get("port"))
        deadline = time.monotonic() + 1
        while not is_free(wanted):
            if time.monotonic() > deadline:
                raise StackError(
                    f"port {wanted} of {HOST} is in use, so {self.name} cannot listen there",
                    remedy="stop what uses it, or leave the port out to get a free one",
                )
            time.sleep(0.1)
        return wanted

    def _log_since(self, since: int) -> list[str]:
        try:
            with self.log.open("rb") as file:
                file.seek(max(since, self.log.stat().st_size - 20_000))
                return [line for line in file.read().decode("utf-8", "replace").splitlines() if line.strip()]
        except OSError as error:
            return [f"its log {self.log} cannot be read: {error.strerror}"]

    def _failure(self, what: str, lines: list[str]) -> StackError:
        """Return an error with those of the log lines that tell the reason."""
        full = any("No space left" in line or "disk full" in line.lower() for line in lines)
        remedy = "free some disk space" if full else f"its log is {self.log}"
        return StackError(f"{what} ({_reason(lines)})", remedy=remedy)

    def _check_way(self) -> None:
        """Refuse a folder that the server cannot get to, or that belongs to someone else."""
        if self.account and (barrier := self.account.stopped_at(self.folder)):
            raise StackError(
                f"the user {self.account.name!r}, as whom {self.name} runs, may not enter {barrier}",
                remedy=f"chmod o+x {barrier}, or choose another folder with --data-dir",
            )
        wanted = self.account.uid if self.account else os.geteuid()
        if self.data.exists() and (owner := self.data.stat().st_uid) != wanted:
            theirs, ours = user_name(owner), user_name(wanted)
            raise StackError(
                f"{self.data} belongs to {theirs!r}, but {self.name} would run as {ours!r}",
                remedy=f"start it as {theirs!r}, or choose another folder with --data-dir",
            )

    def _settle_leftover(self) -> None:
        """Wait for a server that a killed parent left behind: it got its death signal, and may be saving."""
        left = self._at_work(self._remembered().get("pid"))
        if left is None:
            return
        for number, seconds in ((None, 20.0), *self.stop_signals):
            with suppress(psutil.Error):
                if number is not None:
                    left.send_signal(number)
            deadline = time.monotonic() + seconds
            while time.monotonic() < deadline:
                if self._at_work(left.pid) is None:
                    return
                time.sleep(0.05)
        raise StackError(
            f"{self.name} of an earlier start still runs on {self.folder} (pid {left.pid})",
            remedy=f"end it with 'kill {left.pid}'",
        )

    def _at_work(self, pid: int | None) -> psutil.Process | None:
        """Return the process `pid` if it is alive and works in our data folder, as servers do."""
        try:
            found = psutil.Process(pid or 0)
            alive = found.status() != psutil.STATUS_ZOMBIE
            return found if alive and Path(found.cwd()) == self.data.resolve() else None
        except (psutil.Error, OSError):
            return None

    def _remember(self, pid: int) -> None:
        with explained("write", self._state):
            write_private(self._state, json.dumps({"port": self.port, "pid": pid}) + "\n")

    def _remembered(self) -> dict[str, int]:
        try:
            state = json.loads(self._state.read_text(encoding="utf-8"))
            return {key: int(state[key]) for key in ("port", "pid") if key in state}
        except (OSError, ValueError, TypeError, AttributeError):
            return {}

    @contextmanager
    def _log_file(self) -> Iterator[int]:
        with explained("write", self.log):
            handle = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            yield handle
        finally:
            os.close(handle)

    def _spawn(
        self, command: list[str | Path], *, cwd: Path, stdin: IO[bytes] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start one of the server's programs as its user, with its output in the log."""
        with self._log_file() as log:
            return spawn(
                command,
                log=log,
                env=server_env(),
                death_signal=self.death_signal,
                account=self.account,
                cwd=cwd,
                stdin=stdin,
                umask=0o077,
            )


def _reason(lines: list[str]) -> str:
    """Return the last complaint with the line that tells more: PostgreSQL's before it, Redis's after it."""
    last = len(lines) - 1
    told = next((i for i in range(last, -1, -1) if _COMPLAINT.search(lines[i])), last)
    after = told >= 0 and "*** FATAL" in lines[told]
    chosen = lines[told : told + 4] if after else lines[max(0, told - 1) : told + 1]
    return "; ".join(_PREFIX.sub("", line.strip())[:300] for line in chosen) or "no word"


def end(process: subprocess.Popen[bytes], signals: Signals) -> None:
    """Send each signal in turn until the process has ended; the last resort is SIGKILL to its group."""
    for number, seconds in signals:
        if process.poll() is not None:
            return
        process.send_signal(number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
            return
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(10)

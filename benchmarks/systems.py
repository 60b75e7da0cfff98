"""The systems that are measured: what each is, where it is installed, and how its processes are started."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from signal import SIGKILL, SIGTERM

from kitaab_jobs.devstack.spawn import ended, signal_group, spawn

ROOT = Path(__file__).parent.parent
PINS = Path(__file__).parent / "requirements-peers.txt"
INSTALL_WITHIN = 600.0
COMMAND_WITHIN = 900.0

OURS = ("-m", "celery", "-A", "benchmarks.peers.ours")


class NotMeasured(Exception):
    """Why a system has no figures."""


@dataclass(frozen=True, slots=True)
class System:
    """One system. `processes`: the words after `python` for each process that it runs."""

    name: str
    summary: str
    module: str
    processes: tuple[tuple[str, ...], ...]
    variant: str = ""
    installs: tuple[str, ...] = ()  # none: it runs in the project's own environment
    package: str = ""  # whose version is shown, where it is not called as the module
    python: tuple[int, int] = (3, 11)

    @property
    def is_ours(self) -> bool:
        """Whether it is this platform."""
        return self.module.startswith("ours")


def _alone(module: str, processes: int) -> tuple[tuple[str, ...], ...]:
    return (("-m", f"benchmarks.peers.{module}", "work"),) * processes


_OURS = ((*OURS, "worker", "--concurrency", "2"), (*OURS, "beat"))

SYSTEMS: dict[str, System] = {
    system.name: system
    for system in (
        System("ours", "this platform, one message for each job", "ours", _OURS, "one"),
        System("batched", "this platform, at most 100 jobs in a message", "ours", _OURS, "batched"),
        System("celery", "Celery prefork, as it comes", "celery", _alone("celery", 1), "default"),
        System("acks_late", "Celery prefork, acks late", "celery", _alone("celery", 1), "acks_late"),
        System(
            "procrastinate",
            "procrastinate on PostgreSQL",
            "procrastinate",
            _alone("procrastinate", 2),
            installs=("procrastinate", "psycopg[binary]"),
        ),
        System(
            "oban",
            "oban-py on PostgreSQL",
            "oban",
            _alone("oban", 2),
            installs=("oban",),
            python=(3, 12),
        ),
        System(
            "pgqueuer",
            "pgqueuer on PostgreSQL",
            "pgqueuer",
            _alone("pgqueuer", 2),
            installs=("pgqueuer[asyncpg]", "uvloop"),
        ),
        System(
            "dramatiq",
            "dramatiq on Redis",
            "dramatiq",
            _alone("dramatiq", 1),
            installs=("dramatiq[redis]", "psycopg[binary]"),
        ),
    )
}

_TIMETABLE = ("-m", "celery", "-A", "benchmarks.peers.ours_timetable")
_BEATS = ("-m", "celery", "-A", "benchmarks.peers.beats")
_QUIET = ("--loglevel", "WARNING")
_TWO = ("worker", "--concurrency", "2")
_REDBEAT = ("celery-redbeat", "celery[redis]", "psycopg[binary]")

_SCHEDULED = ((*_TIMETABLE, *_TWO), (*_TIMETABLE, "beat"))

# For these, the first process is the worker and the second the beat.
SCHEDULERS: dict[str, System] = {
    system.name: system
    for system in (
        System("ours", "this platform, one message for each job", "ours_timetable", _SCHEDULED, "one"),
        System(
            "batched", "this platform, at most 100 jobs in a message", "ours_timetable", _SCHEDULED, "batched"
        ),
        System(
            "celery",
            "celery beat, its PersistentScheduler",
            "beats",
            ((*_BEATS, *_TWO, *_QUIET), (*_BEATS, "beat", *_QUIET)),
            "celery",
        ),
        System(
            "redbeat",
            "celery-redbeat, looking every 5 s, so with a lock of 25 s",
            "beats",
            ((*_BEATS, *_TWO, *_QUIET), (*_BEATS, "beat", *_QUIET)),
            "redbeat",
            installs=_REDBEAT,
            package="celery-redbeat",
        ),
        System(
            "redbeat_default",
            "celery-redbeat as it comes, with a lock of 25 minutes",
            "beats",
            ((*_BEATS, *_TWO, *_QUIET), (*_BEATS, "beat", *_QUIET)),
            "redbeat_default",
            installs=_REDBEAT,
            package="celery-redbeat",
        ),
    )
}


@dataclass(frozen=True, slots=True)
class Installed:
    """A system that can be run: with which interpreter, and in which version."""

    system: System
    python: Path
    version: str

    def command(self, env: Mapping[str, str], *words: str) -> float:
        """Run `setup`, `fill` or `send` to its end and return the seconds that it says it took."""
        line: list[str | Path] = [self.python, "-m", f"benchmarks.peers.{self.system.module}", *words]
        try:
            done = subprocess.run(
                line,
                env=self._env(env),
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=COMMAND_WITHIN,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise NotMeasured(f"{' '.join(words)} did not end within {COMMAND_WITHIN:.0f} s") from None
        if done.returncode != 0:
            raise NotMeasured(f"{' '.join(words)} failed: {_last_line(done.stderr)}")
        return float(json.loads(done.stdout.splitlines()[-1])["seconds"])

    @contextmanager
    def running(self, env: Mapping[str, str], log: Path) -> Iterator[list[subprocess.Popen[bytes]]]:
        """Start its processes and end them afterwards. They end with us, however we die."""
        started: list[subprocess.Popen[bytes]] = []
        try:
            started.extend(self.start(words, env, log) for words in self.system.processes)
            yield started
            for process in started:
                if process.poll() is not None:
                    raise NotMeasured(f"a process {ended(process)}: {_last_line(log.read_text())}")
        finally:
            end(started)

    def start(self, words: Sequence[str], env: Mapping[str, str], log: Path) -> subprocess.Popen[bytes]:
        """Start one of its processes and return it; `end` it afterwards."""
        line: list[str | Path] = [self.python, *words]
        with log.open("ab") as output:
            return spawn(line, log=output, env=self._env(env), cwd=ROOT)

    def _env(self, env: Mapping[str, str]) -> dict[str, str]:
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("KITAAB_", "PYTHON", "VIRTUAL_ENV", "OBAN_", "PGQUEUER_"))
        }
        return kept | {"BENCH_VARIANT": self.system.variant} | dict(env)


def end(started: Sequence[subprocess.Popen[bytes]]) -> None:
    """Ask processes to stop, and after five seconds kill them with all that they have forked."""
    for process in started:
        if process.poll() is None:
            process.send_signal(SIGTERM)
    deadline = time.monotonic() + 5
    for process in started:
        try:
            process.wait(timeout=max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            pass
        finally:
            # Its own session: whatever it has forked goes too.
            signal_group(process, SIGKILL)
            process.wait(timeout=10)


def install(system: System, folder: Path) -> Installed:
    """Make the environment of a system where it is not yet made; raise `NotMeasured` with the reason."""
    if not system.installs:
        python = Path(sys.executable)
        return Installed(system, python, _version(python, "kitaab-jobs" if system.is_ours else "celery"))
    home = folder / (system.package or system.name)
    python = home / "bin" / "python"
    wanted = " ".join(system.installs) + "\n" + PINS.read_text()
    made = home / "made"
    if not made.exists() or made.read_text() != wanted:
        shutil.rmtree(home, ignore_errors=True)
        _run([_interpreter(system.python), "-m", "venv", "--without-pip", home])
        _run([*_pip(), "--python", python, "install", "-q", "-c", PINS, *system.installs])
        made.write_text(wanted)
    return Installed(system, python, _version(python, system.package or system.module))


def _pip() -> list[str | Path]:
    # The project's environment has no pip of its own: the one of the Python that it was made with.
    return [Path(sys.base_prefix) / "bin" / "python3", "-m", "pip", "--disable-pip-version-check"]


def _interpreter(needs: tuple[int, int]) -> Path:
    if sys.version_info[:2] >= needs:
        return Path(sys.executable)
    names = [shutil.which(f"python3.{minor}") for minor in range(needs[1], needs[1] + 4)]
    found = [Path(name) for name in names if name]
    found += sorted(Path.home().glob(".pyenv/versions/3.*/bin/python3"))
    for candidate in found:
        if _answers(candidate) >= needs:
            return candidate
    raise NotMeasured(f"it needs Python {needs[0]}.{needs[1]}, and none is on this machine")


def _answers(python: Path) -> tuple[int, ...]:
    try:
        said = _run([python, "-c", "import sys; print(*sys.version_info[:2])"])
    except NotMeasured:
        return ()
    return tuple(int(part) for part in said.split())


def _version(python: Path, package: str) -> str:
    found = _run([python, "-c", f"from importlib.metadata import version; print(version({package!r}))"])
    number = ".".join(str(part) for part in _answers(python))
    return f"{package} {found.strip()}, Python {number}"


def _run(line: list[str | Path]) -> str:
    try:
        done = subprocess.run(
            line,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=INSTALL_WITHIN,
            check=False,
            env={name: value for name, value in os.environ.items() if not name.startswith("PYTHON")},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotMeasured(str(error)) from None
    if done.returncode != 0:
        raise NotMeasured(_last_line(done.stderr))
    return done.stdout


def _last_line(output: str) -> str:
    lines = [line for line in output.splitlines() if line.strip()]
    return lines[-1].strip() if lines else "it said nothing"

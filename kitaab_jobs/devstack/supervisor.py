"""Keep child processes and the embedded servers alive, and stop them in order."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from kitaab_jobs.devstack.folder import explained
from kitaab_jobs.devstack.server import EmbeddedServer
from kitaab_jobs.devstack.spawn import ended, signal_group, spawn
from kitaab_jobs.errors import KitaabError

_LOOK_EVERY = 0.1
_LONGEST_PAUSE = 60.0
_STEADY_AFTER = 60.0


@dataclass(frozen=True, slots=True)
class Process:
    """A child to run: its name is that of its log. It has `stop_within` seconds to end on SIGTERM."""

    name: str
    command: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    stop_within: float = 20.0


class _Backoff:
    """A pause before the next start: 1 s, doubled at each failure, forgotten after a steady minute."""

    def __init__(self) -> None:
        self.failures = 0
        self.started = time.monotonic()
        self.due: float | None = None

    def failed(self) -> float:
        """Count a failure and return the pause before the next start, in seconds."""
        now = time.monotonic()
        self.failures = 1 if now - self.started > _STEADY_AFTER else self.failures + 1
        pause = min(_LONGEST_PAUSE, 2.0 ** (self.failures - 1))
        self.due = now + pause
        return pause

    @property
    def may_start(self) -> bool:
        """Whether the pause is over."""
        return self.due is not None and time.monotonic() >= self.due

    def starts(self) -> None:
        """Note that it is started now."""
        self.started, self.due = time.monotonic(), None


@dataclass(slots=True)
class _Child:
    process: Process
    log: Path
    running: subprocess.Popen[bytes]
    backoff: _Backoff = field(default_factory=_Backoff)


class Supervisor:
    """Runs children with their output in `logs`, and watches `servers`, until it is stopped.

    What dies is reported and started again; the servers keep their ports. `env` is the children's
    whole environment. `report` takes one line and may be called from another thread.
    """

    def __init__(
        self,
        *,
        logs: Path,
        env: Mapping[str, str],
        report: Callable[[str], None],
        servers: Sequence[EmbeddedServer] = (),
    ) -> None:
        self.logs = logs
        self.servers = list(servers)
        self._env = dict(env)
        self._report = report
        self._children: list[_Child] = []
        self._backoffs = {server.name: _Backoff() for server in self.servers}
        self._stopping = threading.Event()
        self._hurrying = threading.Event()
        self._guard = threading.Lock()
        self._watcher: threading.Thread | None = None

    @property
    def pids(self) -> dict[str, int]:
        """The process id of each child that runs, by name."""
        with self._guard:
            return {c.process.name: c.running.pid for c in self._children if c.running.poll() is None}

    def start(self, processes: Iterable[Process] = ()) -> None:
        """Start the children in this order, and the watch. May be called again to add some."""
        with explained("make", self.logs):
            self.logs.mkdir(mode=0o700, parents=True, exist_ok=True)
        for process in processes:
            log = self.logs / f"{process.name}.log"
            with explained("write", log):
                if log.exists() and log.stat().st_size:
                    log.replace(log.with_name(f"{log.name}.1"))
            with self._guard:
                self._children.append(_Child(process, log, self._spawn(process, log)))
        if self._watcher is None:
            self._watcher = threading.Thread(target=self._watch, name="kitaab-supervisor", daemon=True)
            self._watcher.start()

    def stop(self) -> None:
        """Stop the watch and then the children, the last one first; who overstays is killed."""
        self._stopping.set()
        if self._watcher is not None:
            self._watcher.join(15)
            self._watcher = None
        with self._guard:
            last_first = self._children[::-1]
            self._children = []
        for child in last_first:
            if child.running.poll() is None:
                child.running.send_signal(signal.SIGTERM)
        asked = time.monotonic()
        for child in last_first:
            self._wait(child, asked + child.process.stop_within)
            signal_group(child.running, signal.SIGKILL)  # whatever it left behind
            child.running.wait(10)

    def hurry(self) -> None:
        """Make a `stop` that goes on kill what still runs. Safe in a signal handler."""
        self._hurrying.set()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _wait(self, child: _Child, deadline: float) -> None:
        while child.running.poll() is None:
            if self._hurrying.is_set() or time.monotonic() > deadline:
                self._report(
                    f"{child.process.name} (pid {child.running.pid}) did not stop in time: it is killed"
                )
                return
            time.sleep(0.02)

    def _watch(self) -> None:
        while not self._stopping.wait(_LOOK_EVERY):
            try:
                self._look()
            except Exception as error:  # the watch must outlive whatever goes wrong in it
                self._report(f"the supervisor met an error and goes on: {type(error).__name__}: {error}")
                self._stopping.wait(5)

    def _look(self) -> None:
        for server in self.servers:
            self._heal(server, self._backoffs[server.name])
        with self._guard:
            children = list(self._children)
        for child in children:
            self._revive(child)

    def _heal(self, server: EmbeddedServer, backoff: _Backoff) -> None:
        """Start a server again that has died, on the same port, since everyone knows that one."""
        if server.running:
            return
        if backoff.due is None:
            self._report(f"{server.name} {server.ending()}: it is started again on port {server.port}")
            backoff.due = time.monotonic()
        if backoff.may_start:
            try:
                server.restart()
            except KitaabError as error:
                self._report(f"{error}; the next try is in {backoff.failed():.0f} s")
                return
            backoff.starts()
            self._report(f"{server.name} runs again (pid {server.pid})")

    def _revive(self, child: _Child) -> None:
        if child.running.poll() is None:
            return
        name = child.process.name
        if child.backoff.due is None:
            signal_group(child.running, signal.SIGKILL)  # its own children, if they outlived it
            what = ended(child.running)
            self._report(
                f"{name} {what}: it is started again in {child.backoff.failed():.0f} s; see {child.log}"
            )
        elif child.backoff.may_start:
            with self._guard, suppress(OSError, KitaabError):
                child.running = self._spawn(child.process, child.log)
            child.backoff.starts()

    def _spawn(self, process: Process, log: Path) -> subprocess.Popen[bytes]:
        with explained("write", log):
            handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            return spawn(process.command, log=handle, env={**self._env, **process.env}, cwd=self.logs.parent)
        finally:
            os.close(handle)

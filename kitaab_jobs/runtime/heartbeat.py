"""One thread in each worker process that says, every few seconds, what the process still runs.

It is in the process that runs the jobs, not in its parent: when that process is killed, the heartbeat stops
with it, and its jobs are rescued. One statement tells of all that run, writes how far they are, and brings back
who is to stop. A short job is over before the next beat, and costs no statement.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from kitaab_jobs.runtime import ledger
from kitaab_jobs.runtime.context import Context
from kitaab_jobs.runtime.logs import logger

log = logger(__name__)

# A job that is to stop has so long to do so by itself; then it is interrupted, and in the end its process killed.
GRACE_SECONDS = 20.0
KILL_SECONDS = 10.0


@dataclass(eq=False)
class Held:
    """Jobs that run together. `on_beat` is called at each beat, outside of the job's thread."""

    contexts: list[Context]
    on_beat: Callable[[], None] | None = None
    since: float = field(default_factory=time.monotonic)
    to_stop_since: float | None = None
    interrupted_at: float | None = None


class Heartbeat:
    """Keeps the claims of this process alive. The thread is there while something is held."""

    def __init__(
        self,
        engine: Engine,
        *,
        every: float | None = None,
        grace: float = GRACE_SECONDS,
        interrupt: Callable[[], None] | None = None,
        kill: Callable[[], None] | None = None,
    ) -> None:
        self._engine = engine
        self._every = ledger.HEARTBEAT_SECONDS if every is None else every
        self._grace = grace
        self._interrupt = interrupt
        self._kill = kill
        self._lock = threading.Lock()
        self._held: list[Held] = []
        self._thread: threading.Thread | None = None
        self._pid = os.getpid()

    @contextmanager
    def holding(
        self, contexts: Sequence[Context], on_beat: Callable[[], None] | None = None
    ) -> Iterator[Held]:
        """Keep these claims alive while the block runs."""
        held = Held(list(contexts), on_beat)
        with self._lock:
            if os.getpid() != self._pid:  # forked since: the thread stayed in the parent
                self._thread, self._held, self._pid = None, [], os.getpid()
            self._held.append(held)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
                self._thread.start()
        try:
            yield held
        finally:
            with self._lock:
                self._held.remove(held)

    def _run(self) -> None:
        while True:
            time.sleep(self._every)
            with self._lock:
                if not self._held:
                    self._thread = None
                    return
                # Half a beat old at least: most jobs are over by then.
                due = [held for held in self._held if time.monotonic() - held.since >= self._every / 2]
            for held in due:
                if held.on_beat is not None:
                    held.on_beat()
            try:
                self._beat(due)
            except SQLAlchemyError as error:
                log.warning("heartbeat failed", action="heartbeat_failed", error=str(error).splitlines()[0])
            for held in due:
                self._press(held)

    def _beat(self, due: Sequence[Held]) -> None:
        contexts = [context for held in due for context in held.contexts]
        if not contexts:
            return
        pulses = [ledger.Pulse(context.claim, context.done, context.total) for context in contexts]
        with self._engine.begin() as connection:
            ours = ledger.beat(connection, pulses)
        for held in due:
            for context in list(held.contexts):
                if context.is_to_stop:
                    continue
                if context.id not in ours:
                    # Or it has just finished, and its block is about to end: then nobody asks.
                    context.stop(f"job {context.id} was taken from this worker while it ran")
                    if held in self._held:
                        log.warning("job is no longer ours", action="job_lost", id=str(context.id))
                elif ours[context.id]:
                    context.stop(f"job {context.id} was cancelled while it ran")
                    log.info("job is to stop", action="job_to_stop", id=str(context.id))

    def _press(self, held: Held) -> None:
        """Interrupt what did not stop when it was asked to, and then kill the process."""
        if self._interrupt is None or not any(context.is_to_stop for context in held.contexts):
            return
        now = time.monotonic()
        with self._lock:
            if held not in self._held:
                return
            if held.to_stop_since is None:
                held.to_stop_since = now
            elif held.interrupted_at is None and now - held.to_stop_since >= self._grace:
                held.interrupted_at = now
                self._interrupt()
            elif (
                self._kill is not None
                and held.interrupted_at is not None
                and now - held.interrupted_at >= KILL_SECONDS
            ):
                log.error("job did not stop: its process ends", action="job_killed")
                self._kill()

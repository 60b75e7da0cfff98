"""The scheduler that `celery -A kitaab_jobs beat` runs.

It keeps nothing in memory: what is due is a query, a fire is a row written in one transaction with its
job, and any number of beats may run. Each also runs a relay, so that one beat and one worker are a
whole platform.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from types import FrameType
from typing import Any, ClassVar

from celery.beat import Scheduler
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from kitaab_jobs.db.engines import libpq_url, primary
from kitaab_jobs.db.migrate import sync_kinds
from kitaab_jobs.db.retries import is_connection_loss, is_contention
from kitaab_jobs.errors import KitaabError
from kitaab_jobs.runtime import fires, ledger, outbox
from kitaab_jobs.runtime.logs import logger
from kitaab_jobs.runtime.outcome import describe
from kitaab_jobs.runtime.relay import RESCUE_SECONDS, Relay
from kitaab_jobs.runtime.timetable import Schedule, timetable
from kitaab_jobs.settings import VERSION, settings

log = logger(__name__)

TOUCH_SECONDS = 5.0
# What is due may be another beat's to fire just now: look again soon, not at once.
SHORTEST_WAIT_SECONDS = 0.05


class LedgerScheduler(Scheduler):
    """Fires what jobs.schedules says, and publishes what the ledger holds."""

    patience: ClassVar[outbox.Patience] = outbox.PATIENCE
    rescue_seconds: ClassVar[float] = RESCUE_SECONDS

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.engine = primary("kitaab-jobs beat")
        self.name = f"beat@{socket.gethostname()}/{os.getpid()}"
        self._touched_at = 0.0
        self._synced = False
        self._ticked = False
        self._stopping = False
        self._relay: Relay | None = None
        self._thread: threading.Thread | None = None
        super().__init__(*args, **kwargs)

    def setup_schedule(self) -> None:
        """Read the timetable (a bad line ends beat here, with its reason) and start the relay."""
        try:
            self.lines = self.timetable()
        except KitaabError as error:
            sys.stderr.write(f"error: {error}\n")
            sys.exit(error.exit_code)
        self._relay = Relay(
            self.app,
            primary("kitaab-jobs relay", ping=False),
            libpq_url(settings().direct),
            f"relay@{socket.gethostname()}/{os.getpid()}",
            patience=self.patience,
            rescue_seconds=self.rescue_seconds,
        )
        self._thread = threading.Thread(target=self._relay.run, name="relay", daemon=True)
        self._thread.start()

    def timetable(self) -> list[Schedule]:
        """Return the lines that this beat brings along."""
        return timetable()

    def tick(self, *_: Any, **__: Any) -> float:
        """Fire what is due and return the seconds until the next look, one at most."""
        if not self._ticked:
            self._ticked = True
            self._stop_between_ticks()
        if self._stopping:
            raise SystemExit
        try:
            self._sync_once()
            self._fire_due()
            self._touch()
            with self.engine.connect() as connection:
                wait = fires.seconds_to_next(connection)
        except SQLAlchemyError as error:
            log.warning("beat waits for the database", action="beat_waits", error=str(error).splitlines()[0])
            return 1.0
        return 1.0 if wait is None else min(max(wait, SHORTEST_WAIT_SECONDS), 1.0)

    def close(self) -> None:
        """Stop the relay after the batch that it is at."""
        if self._relay is not None and self._thread is not None:
            self._relay.stop()
            self._thread.join(timeout=10)
            self._relay.engine.dispose()
        super().close()

    def _stop_between_ticks(self) -> None:
        """Let SIGTERM and SIGINT end beat at its next tick, and a second one at once.

        Celery's own handler raises wherever the main thread is. Inside a statement the database driver
        makes an error of its own of that, which beat would take for a database that is away, and go on.
        """
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, self._asked_to_stop)

    def _asked_to_stop(self, _number: int, _frame: FrameType | None) -> None:
        if self._stopping:
            raise SystemExit
        self._stopping = True

    def _sync_once(self) -> None:
        if self._synced:
            return
        with self.engine.begin() as connection:
            sync_kinds(connection)
            removed = fires.sync(connection, self.lines)
        self._synced = True
        log.info("timetable read", action="timetable_read", schedules=len(self.lines), removed=removed)

    def _fire_due(self) -> None:
        with self.engine.begin() as connection:
            for schedule in fires.due(connection):
                self._fire(connection, schedule)

    def _fire(self, connection: Connection, schedule: fires.Due) -> None:
        try:
            with connection.begin_nested():
                fired = fires.fire(connection, schedule)
        except (KitaabError, DBAPIError) as error:
            if is_connection_loss(error) or is_contention(error):
                raise
            # One schedule's trouble, such as a job that no longer exists, must not hold up the others.
            reason = describe(error)
            fires.skip(connection, schedule, reason)
            log.error(
                f"{schedule.name} failed", action="schedule_failed", schedule=schedule.name, error=reason
            )
            return
        log.info(
            f"{schedule.name} " + ("fired" if fired.job_id else "skipped"),
            action="schedule_fired" if fired.job_id else "schedule_skipped",
            schedule=schedule.name,
            job_id=str(fired.job_id) if fired.job_id else None,
            missed=fired.missed,
        )

    def _touch(self) -> None:
        if time.monotonic() - self._touched_at >= TOUCH_SECONDS:
            self._touched_at = time.monotonic()
            with self.engine.begin() as connection:
                ledger.touch(connection, self.name, "beat", VERSION)

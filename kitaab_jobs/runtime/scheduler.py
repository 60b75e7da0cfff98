"""The scheduler that `celery -A kitaab_jobs beat` runs.

It keeps nothing in memory: what is due is a query, a fire is a row written in one transaction with its
job, and any number of beats may run. Each also runs a relay, so that one beat and one worker are a
whole platform.
"""

from __future__ import annotations

import datetime as dt
import math
import os
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from types import FrameType
from typing import Any, ClassVar

from celery.beat import Scheduler
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from kitaab_jobs.db.engines import libpq_url, primary
from kitaab_jobs.db.migrate import sync_kinds
from kitaab_jobs.errors import KitaabError
from kitaab_jobs.runtime import editions, endings, fires, ledger, outbox, roster
from kitaab_jobs.runtime.fire_records import Ticked
from kitaab_jobs.runtime.logs import logger
from kitaab_jobs.runtime.relay import RESCUE_SECONDS, Relay
from kitaab_jobs.runtime.timetable import Schedule, timetable
from kitaab_jobs.settings import VERSION, settings

log = logger(__name__)

TOUCH_SECONDS = 5.0
LONGEST_TICK_SECONDS = 2.0
SETTLE_SECONDS = 1.0
# Less than this is how clocks are kept right.
SET_BACK = dt.timedelta(seconds=30)
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
        self._brought_at = -math.inf
        self._edition: str | None = None
        self._later: str | None = None
        self._seen_at: dt.datetime | None = None
        self._settled_at = 0.0
        self._beyond = endings.START
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
            self._bring_timetable()
            wait = self._fire_all()
            self._settle()
            self._touch()
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
        with suppress(SQLAlchemyError), self.engine.begin() as connection:
            editions.leave(connection, self.name)
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

    def clock(self, connection: Connection) -> dt.datetime:
        """Return the time by which it fires: the database's, so that all beats agree."""
        return roster.clock(connection)

    def _bring_timetable(self) -> None:
        """Write this beat's lines into jobs.schedules, when it starts or when no later timetable is at work any more."""
        if time.monotonic() - self._brought_at < TOUCH_SECONDS:
            return
        self._edition = self._edition or editions.edition_of(self.lines)
        with self.engine.begin() as connection:
            later = editions.bring(connection, self.name, VERSION, self._edition)
            if later is None and not self._synced:
                sync_kinds(connection)
                now = self.clock(connection)
                synced = roster.sync(connection, self.lines, now)
                moved = roster.replan(connection, now)
        self._brought_at = time.monotonic()
        if later is None and not self._synced:
            self._synced = True
            self._log_synced(synced, moved)
        elif later is not None and later != self._later:
            log.warning(
                f"the timetable of this beat is left out: {later} has a later one",
                action="timetable_left_out",
                beat=later,
            )
            self._synced = False
        self._later = later

    def _log_synced(self, synced: roster.Synced, moved: list[str]) -> None:
        for name in synced.added:
            log.info(f"{name} added", action="schedule_added", schedule=name)
        for name, fields in synced.changed.items():
            log.info(f"{name} changed", action="schedule_changed", schedule=name, fields=fields)
        for name in synced.removed:
            log.info(f"{name} removed", action="schedule_removed", schedule=name)
        self._log_moved(moved)
        log.info("timetable read", action="timetable_read", schedules=len(self.lines))

    def _fire_all(self) -> float | None:
        """Fire until nothing is due, and return the seconds until something is.

        With very much to do it returns in between, so that this beat is known to be alive.
        """
        began = time.monotonic()
        while True:
            with self.engine.begin() as connection:
                now = self._now(connection)
                ticked = fires.fire_due(connection, now)
                released = fires.release(connection, now)
                wait = fires.seconds_to_next(connection, now)
            # After the commit: where that fails, what was planned anew is planned as before, and looked at again.
            self._seen_at = now
            for each in (*ticked, *released):
                self._log(each)
            more = len(ticked) == fires.MOST_SCHEDULES and wait is not None and wait <= 0
            if self._stopping or not more or time.monotonic() - began > LONGEST_TICK_SECONDS:
                return wait

    def _now(self, connection: Connection) -> dt.datetime:
        """Return the time; where the clock was set back, plan anew what it had put too far ahead."""
        now = self.clock(connection)
        if self._seen_at is not None and now < self._seen_at - SET_BACK:
            log.warning(
                "the clock was set back",
                action="clock_set_back",
                seconds=(self._seen_at - now).total_seconds(),
            )
            self._log_moved(roster.replan(connection, now))
        return now

    def _settle(self) -> None:
        if time.monotonic() - self._settled_at < SETTLE_SECONDS:
            return
        self._settled_at = time.monotonic()
        with self.engine.begin() as connection:
            settled = endings.settle_some(connection, self._beyond, self.clock(connection))
        self._beyond = settled.beyond
        for name, reason in settled.paused.items():
            self._log_paused(name, reason)

    def _log(self, each: Ticked) -> None:
        name = each.name
        if each.error is not None:
            log.error(f"{name} failed", action="schedule_failed", schedule=name, error=each.error)
            return
        log.info(
            f"{name} " + ("fired" if each.job_ids else "waits" if each.waiting else "skipped"),
            action="schedule_fired"
            if each.job_ids
            else "schedule_waits"
            if each.waiting
            else "schedule_skipped",
            schedule=name,
            job_id=str(each.job_ids[-1]) if each.job_ids else None,
            fired=len(each.job_ids),
            skipped=each.skipped,
            missed=each.missed,
        )

    def _log_paused(self, name: str, reason: str) -> None:
        log.error(f"{name} is paused", action="schedule_paused", schedule=name, reason=reason)

    def _log_moved(self, names: list[str]) -> None:
        for name in names:
            log.warning(
                f"{name} was not planned, or too far ahead", action="schedule_replanned", schedule=name
            )

    def _touch(self) -> None:
        if time.monotonic() - self._touched_at >= TOUCH_SECONDS:
            self._touched_at = time.monotonic()
            with self.engine.begin() as connection:
                ledger.touch(connection, self.name, "beat", VERSION)

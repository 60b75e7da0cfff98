"""Beats on a clock that the test sets, as processes that can be killed: `python -m tests.faults.simulated`.

The clock is a row of the database, where the shipped scheduler asks the time too, so all beats go by it and nothing is
mocked. A word on stdin starts a beat (forked, since the imports take longer than its life) and its pid is printed; all end when
stdin does.

- beat: as it is shipped, but for the clock;
- blind: one that does not lock the schedules that it finds due, so that only the primary key of jobs.fires stands between it
  and the others.
"""

from __future__ import annotations

import datetime as dt
import os
import signal
import sys
import time
from typing import NoReturn

from celery import Celery
from sqlalchemy import Connection, text

from kitaab_jobs import contract
from kitaab_jobs.runtime import fires
from kitaab_jobs.runtime.scheduler import LedgerScheduler
from kitaab_jobs.runtime.timetable import Schedule

START = dt.datetime(2026, 9, 1, tzinfo=dt.UTC)  # with both clock changes of America/New_York within 200 days
CLOCK = "CREATE TABLE jobs.simulated_clock (at timestamptz); GRANT SELECT ON jobs.simulated_clock TO kitaab_worker"


def line(name: str, cron: str) -> Schedule:
    """Return a line of which each planned fire has a run of its own."""
    return Schedule(name, contract.PROGRESS_REFRESH, cron=cron, catch_up="all", overlap="allow")


LINES = [
    line("new.york", "30 1,2 * * * America/New_York"),
    line("lord.howe", "15 */3 * * * Australia/Lord_Howe"),
    line("kathmandu", "*/40 9-17 * * 1-5 Asia/Kathmandu"),
    line("month", "0 0 L * *"),
    line("hourly", "@hourly"),
    line("interval", "every 7h"),
]


class Simulated(LedgerScheduler):
    """The scheduler on the test's clock, without its relay."""

    def clock(self, connection: Connection) -> dt.datetime:
        """Return what the test says."""
        at = connection.scalar(text("SELECT at FROM jobs.simulated_clock"))
        assert isinstance(at, dt.datetime)
        return at


def beat(*, blind: bool) -> NoReturn:
    """Tick until killed."""
    os.dup2(2, 1)  # stdout is for pids
    if blind:
        fires._DUE_ANY = text(fires._DUE_ANY.text.replace("FOR UPDATE OF s SKIP LOCKED", ""))
        assert "FOR UPDATE" not in fires._DUE_ANY.text
    scheduler = Simulated(app=Celery("simulated", set_as_current=False), lazy=True)
    scheduler.lines = LINES
    while True:
        scheduler.tick()
        time.sleep(0.005)


def main() -> None:
    """Fork a beat for each word."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    started = []
    for word in sys.stdin:
        pid = os.fork()
        if not pid:
            beat(blind=word.strip() == "blind")
        started.append(pid)
        print(pid, flush=True)  # noqa: T201
    for pid in started:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


if __name__ == "__main__":
    main()

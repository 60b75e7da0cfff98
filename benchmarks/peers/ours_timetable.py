"""This platform with the timetable of the benchmark: one message for each job or, `batched`, for up to 100.

`tick DUE TIMES`: the median seconds of ticks, in this process.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import sys
import time
from dataclasses import dataclass
from statistics import median

from sqlalchemy import text
from sqlalchemy.orm import Session

from benchmarks.peers import timetable, work
from kitaab_jobs.contract import JOBS, Job, Payload
from kitaab_jobs.db.engines import primary
from kitaab_jobs.db.migrate import sync_kinds
from kitaab_jobs.runtime.job import job
from kitaab_jobs.runtime.scheduler import LedgerScheduler
from kitaab_jobs.runtime.timetable import Schedule
from kitaab_jobs.worker import app

__all__ = ["app"]


class Which(Payload):
    """The number of the schedule."""

    n: int


BATCH = 100 if os.environ.get("BENCH_VARIANT") == "batched" else 1
FIRE = Job("bench.fire", "one small statement for a fire", Which, batch=BATCH)
JOBS[FIRE.name] = FIRE
app.conf.update(
    beat_scheduler=f"{__name__ if __name__ != '__main__' else 'benchmarks.peers.ours_timetable'}:Loaded"
)

# They fire at New Year, unless they are made due.
_EXIST = """
INSERT INTO jobs.schedules (name, job, args, line, source, next_fire_at)
SELECT 'bench.' || lpad(n::text, 6, '0'), 'bench.fire', jsonb_build_object('n', n), '0 0 1 1 *', 'live',
       date_trunc('year', now()) + interval '1 year'
FROM generate_series(0, :schedules - 1) AS n
"""
_DUE = "UPDATE jobs.schedules SET next_fire_at = date_trunc('second', now()) WHERE name < :below"
_OVER = (
    "DELETE FROM jobs.jobs",
    "DELETE FROM jobs.fires",
    "UPDATE jobs.schedules SET next_fire_at = date_trunc('year', now()) + interval '1 year' WHERE name < :below",
)


class Loaded(LedgerScheduler):
    """The platform's own, with the timetable of the benchmark."""

    def timetable(self) -> list[Schedule]:
        """Return its lines."""
        lines = [
            Schedule(timetable.name(n), FIRE, cron=f"{timetable.minutes(n)} * * * *", args={"n": n})
            for n in range(timetable.SCHEDULES)
        ]
        every = f"every {timetable.WARM_SECONDS}s"
        return lines + [Schedule(timetable.name(n), FIRE, cron=every, args={"n": n}) for n in timetable.WARM]


class Alone(LedgerScheduler):
    """The platform's own without a relay and a timetable: what a tick does, and nothing else."""

    def setup_schedule(self) -> None:
        """Bring no lines along."""
        self.lines = []


@dataclass(frozen=True)
class Done:
    """What the job returns."""

    rows: int = 1


@job(FIRE)
def fire(session: Session, now: dt.datetime, payload: Which) -> Done:  # noqa: ARG001
    """Write that it was started."""
    at = time.time()
    session.execute(text(timetable.STARTED.format(":n", ":at")), {"n": payload.n, "at": at})
    return Done()


def setup() -> None:
    """Make the kind known to the database."""
    with primary().begin() as connection:
        sync_kinds(connection)


def exist() -> None:
    """Write the schedules, none of which is due."""
    with primary().begin() as connection:
        connection.execute(text(_EXIST), {"schedules": timetable.SCHEDULES})


def tick(due: int, times: int) -> list[float]:
    """Return the seconds that it takes to fire `due` schedules at once, as many ticks as it takes; once for 0."""
    scheduler = Alone(app=app)
    scheduler.tick()
    took = []
    for _ in range(times):
        with scheduler.engine.begin() as connection:
            connection.execute(text(_DUE), {"below": timetable.name(due)})
        began = time.perf_counter()
        scheduler.tick()
        while due and _fires(scheduler) < due:
            scheduler.tick()
        took.append(time.perf_counter() - began)
        with scheduler.engine.begin() as connection:
            for statement in _OVER if due else ():
                connection.execute(
                    text(statement), {"below": timetable.name(due)} if ":below" in statement else {}
                )
    return took


def _fires(scheduler: LedgerScheduler) -> int:
    with scheduler.engine.connect() as connection:
        return connection.scalar(text("SELECT count(*) FROM jobs.fires")) or 0


def main() -> None:
    verb, first, second = work.verb()
    began = time.monotonic()
    if verb == "setup":
        setup()
    elif verb == "exist":
        exist()
    elif verb == "tick":
        json.dump({"seconds": median(tick(int(first), int(second)))}, sys.stdout)
        return
    work.tell(began)


if __name__ == "__main__":
    main()

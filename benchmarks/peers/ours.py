"""This platform, with its own settings: `one` message for each job, or `batched`, up to 100 jobs in one.

`celery -A benchmarks.peers.ours worker` and `beat` are what runs; the commands here enqueue.
"""

from __future__ import annotations

import datetime as dt
import os
import time
from dataclasses import dataclass
from functools import cache

from sqlalchemy import TextClause, text
from sqlalchemy.orm import Session

from benchmarks.peers import work
from kitaab_jobs import client
from kitaab_jobs.contract import JOBS, Job, Payload
from kitaab_jobs.db.engines import primary
from kitaab_jobs.db.migrate import sync_kinds
from kitaab_jobs.runtime.job import job
from kitaab_jobs.runtime.scheduler import LedgerScheduler
from kitaab_jobs.runtime.timetable import Schedule
from kitaab_jobs.worker import app

__all__ = ["app"]

STATEMENT = 10_000


class Work(Payload):
    """Which row to touch, and when the job was sent where that is measured."""

    n: int
    sent: float | None = None


ONE = Job("bench.one", "one small statement, one message for each job", Work)
BATCHED = Job("bench.batched", "one small statement, many jobs in a message", Work, batch=100)
VARIANTS = {"one": ONE, "batched": BATCHED}

JOBS.update({each.name: each for each in VARIANTS.values()})
app.conf.update(beat_scheduler="benchmarks.peers.ours:QuietScheduler")


class QuietScheduler(LedgerScheduler):
    """The platform's own, with no line in its timetable: nothing else runs while we measure."""

    def timetable(self) -> list[Schedule]:
        """Return no lines."""
        return []


@dataclass(frozen=True)
class Done:
    """What the job returns."""

    rows: int = 1


@cache
def _statement(sql: str) -> TextClause:
    """Return the statement, made once in a process: features keep theirs as constants."""
    return text(sql)


def small(session: Session, now: dt.datetime, payload: Work) -> Done:  # noqa: ARG001
    """Do one small statement in the job's transaction."""
    sql, values = work.statement(payload.n, payload.sent, (":a", ":b"))
    session.execute(_statement(sql), dict(zip("ab", values, strict=False)))
    return Done()


job(ONE)(small)
job(BATCHED)(small)


def setup() -> None:
    """Make the two kinds known to the database."""
    with primary().begin() as connection:
        sync_kinds(connection)


def fill(kind: Job, jobs: int, *, priority: int = 0) -> None:
    """Enqueue jobs, ten thousand in a statement."""
    for low in range(0, jobs, STATEMENT):
        with primary().begin() as connection:
            many = [{"n": n} for n in range(low, min(low + STATEMENT, jobs))]
            client.enqueue_many(connection, kind, many, priority=priority)


def send(kind: Job, rate: float, seconds: float) -> None:
    """Enqueue at a pace; each statement is a transaction of its own."""
    began = time.monotonic()
    for at, count in work.ticks(rate, seconds):
        time.sleep(work.ahead(began, at))
        args = [{"n": n, "sent": time.time()} for n in range(count)]
        with primary().begin() as connection:
            if count == 1:
                client.enqueue(connection, kind, args[0])
            else:
                client.enqueue_many(connection, kind, args)


def main() -> None:
    verb, first, second = work.verb()
    kind = VARIANTS[os.environ["BENCH_VARIANT"]]
    began = time.monotonic()
    if verb == "setup":
        setup()
    elif verb == "fill":
        fill(kind, int(first))
    elif verb == "send":
        send(kind, first, second)
    work.tell(began)


if __name__ == "__main__":
    main()

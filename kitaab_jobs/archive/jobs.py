"""What the jobs of the archive do. They know nothing of Celery."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from sqlalchemy.orm import Session

from kitaab_jobs import contract
from kitaab_jobs.archive import queries, rules
from kitaab_jobs.client import enqueue


@dataclass(frozen=True, slots=True)
class Report:
    """What was made."""

    tables: int
    made: list[str]


@dataclass(frozen=True, slots=True)
class Purged:
    """How many rows were removed."""

    jobs: int
    fires: int
    processes: int


@dataclass(frozen=True, slots=True)
class Keep:
    """How many days the rows of what has ended stay."""

    jobs: int
    dead_jobs: int
    fires: int


def plan(session: Session, *, today: dt.date, ahead_days: int, by: str) -> dict[str, list[rules.Span]]:
    """Return for each partitioned table the partitions to make; `by` is for entries, the rest go by year."""
    return {
        table: rules.plan(
            queries.spans(session, table), today, ahead_days, by if table == "entries" else "year"
        )
        for table in queries.tables(session)
    }


def make_partitions(session: Session, *, now: dt.datetime, ahead_days: int, by: str) -> Report:
    """Make the partitions that the next `ahead_days` need; all of them, or none."""
    queries.take_turns(session)
    todo = plan(session, today=now.astimezone(dt.UTC).date(), ahead_days=ahead_days, by=by)
    made = [queries.make(session, table, s.lower, s.upper) for table, spans in todo.items() for s in spans]
    return Report(len(todo), made)


def purge_jobs(session: Session, *, now: dt.datetime, keep: Keep, limit: int) -> Purged:
    """Remove up to `limit` rows of each kind that are older than they are kept, and follow up while there are more."""
    jobs = queries.purge_jobs(
        session, now - dt.timedelta(days=keep.jobs), now - dt.timedelta(days=keep.dead_jobs), limit
    )
    fires = queries.purge_fires(session, now - dt.timedelta(days=keep.fires), limit)
    processes = queries.purge_processes(session, now - dt.timedelta(days=1))
    if limit in (jobs, fires):
        enqueue(session, contract.ARCHIVE_PURGE_JOBS, {"limit": limit})
    return Purged(jobs, fires, processes)

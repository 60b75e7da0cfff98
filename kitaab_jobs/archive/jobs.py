"""What the partition jobs do. They know nothing of Celery."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from sqlalchemy.orm import Session

from kitaab_jobs.archive import queries, rules


@dataclass(frozen=True, slots=True)
class Report:
    """What was made."""

    tables: int
    made: list[str]


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

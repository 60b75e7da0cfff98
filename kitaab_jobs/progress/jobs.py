"""What the progress jobs do. They know nothing of Celery."""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sqlalchemy.orm import Session

from kitaab_jobs import contract
from kitaab_jobs.client import enqueue
from kitaab_jobs.progress import history, notices, queries, rules

# Goals that one statement computes: enough to make its planning cheap, few enough for the server's memory.
BATCH = 1000
# Notices for one job: one slow job holds up few.
CHUNK = 500


@dataclass(frozen=True, slots=True)
class Report:
    """What a pass did; `lag_seconds` is the age of the oldest mark that it took."""

    marks: int
    goals: int
    changed: int
    merits_completed: int
    targets_completed: int
    lag_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Purged:
    """How many rows of history were removed."""

    rows: int


def refresh(session: Session, *, now: dt.datetime, limit: int) -> Report:
    """Compute the goals that up to `limit` marks concern, and follow up while marks remain.

    Marks, results and the follow-up job are one transaction: killed half-way, the marks stand.
    """
    marks = queries.take_marks(session, limit)
    goals = _concerned(session, marks)
    changed = _compute(session, goals, now)
    if len(marks) == limit:
        enqueue(session, contract.PROGRESS_REFRESH, {"limit": limit})
    lag = max([(now - mark.marked_at).total_seconds() for mark in marks], default=0.0)
    return _report(len(marks), sum(map(len, goals.values())), changed, max(lag, 0.0))


def reconcile(session: Session, *, now: dt.datetime) -> Report:
    """Compare every goal with the entries in bounded batches, and repair what differs.

    Comparing locks nothing, so that refresh goes on beside it; only what differs is locked and computed.
    """
    days = rules.today_everywhere(now)
    changed: list[queries.Changed] = []
    goals = 0
    for kind in ("merit", "target"):
        after = 0
        while ids := queries.goal_ids(session, kind, after, BATCH):
            if different := queries.different(session, kind, ids, days):
                changed += compute(session, kind, different, days, now)
            goals += len(ids)
            after = ids[-1]
    return _report(0, goals, changed)


def compute(
    session: Session, kind: str, ids: Iterable[int], days: Mapping[str, dt.date], now: dt.datetime
) -> list[queries.Changed]:
    """Compute these merits or targets, and write in the same transaction what follows from a change.

    That is their history, and for a completion its notice with the job that sends it.
    """
    changed = queries.compute(session, kind, list(ids), days, now)
    if changed:
        history.record(session, kind, [goal.id for goal in changed], days)
    if completed := [goal.id for goal in changed if goal.completed_now]:
        told = notices.record(session, kind, completed, days, now, rules.NOTICE_WITHIN_DAYS)
        for start in range(0, len(told), CHUNK):
            enqueue(session, contract.REMINDERS_NOTIFY, {"notice_ids": told[start : start + CHUNK]})
    return changed


def purge_history(session: Session, *, now: dt.datetime, limit: int) -> Purged:
    """Remove history that no chart of the last two years needs, and follow up while there is more."""
    first = now.date() - dt.timedelta(days=rules.HISTORY_DAYS)
    rows = [history.purge(session, kind, first, limit) for kind in ("merit", "target")]
    if limit in rows:
        enqueue(session, contract.PROGRESS_PURGE_HISTORY, {"limit": limit})
    return Purged(sum(rows))


def _concerned(session: Session, marks: Iterable[queries.Mark]) -> dict[str, set[int]]:
    named: dict[str, set[int]] = defaultdict(set)
    for mark in marks:
        named[mark.kind].add(mark.id)
    items = named.pop("item", set())
    for kind, goal in queries.goals_of_items(session, items) if items else ():
        named[kind].add(goal)
    return named


def _compute(session: Session, goals: dict[str, set[int]], now: dt.datetime) -> list[queries.Changed]:
    if not goals:
        return []
    days = rules.today_everywhere(now)
    # Merits before targets and both by id, always: whoever locks in one order cannot deadlock.
    return [
        changed
        for kind in sorted(goals)
        for ids in _batches(sorted(goals[kind]))
        for changed in compute(session, kind, ids, days, now)
    ]


def _batches(ids: list[int]) -> Iterable[list[int]]:
    return (ids[start : start + BATCH] for start in range(0, len(ids), BATCH))


def _report(marks: int, goals: int, changed: list[queries.Changed], lag: float = 0.0) -> Report:
    completed = [c.kind for c in changed if c.completed_now]
    return Report(
        marks, goals, len(changed), completed.count("merit"), completed.count("target"), round(lag, 3)
    )

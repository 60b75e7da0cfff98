"""What the progress jobs do. They know nothing of Celery."""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from dataclasses import dataclass

from sqlalchemy.orm import Session

from kitaab_jobs import contract
from kitaab_jobs.client import enqueue
from kitaab_jobs.progress import queries, rules

RECONCILE_BATCH = 5000


@dataclass(frozen=True, slots=True)
class Report:
    """What a pass did."""

    marks: int
    goals: int
    changed: int
    merits_completed: int
    targets_completed: int


def refresh(session: Session, *, now: dt.datetime, limit: int) -> Report:
    """Compute the goals that up to `limit` marks concern, and follow up while marks remain.

    Marks, results and the follow-up job are one transaction: killed half-way, the marks stand.
    """
    marks = queries.take_marks(session, limit)
    named: dict[str, set[int]] = defaultdict(set)
    for kind, subject in marks:
        named[kind].add(subject)
    for kind, goal in queries.goals_of_items(session, named.pop("item")) if "item" in named else ():
        named[kind].add(goal)
    changed = _compute(session, named, now)
    if len(marks) == limit:
        enqueue(session, contract.PROGRESS_REFRESH, {"limit": limit})
    return _report(len(marks), sum(map(len, named.values())), changed)


def reconcile(session: Session, *, now: dt.datetime) -> Report:
    """Compute every goal in bounded batches, and repair what differs."""
    changed: list[queries.Changed] = []
    goals = 0
    for kind in ("merit", "target"):
        after = 0
        while ids := queries.goal_ids(session, kind, after, RECONCILE_BATCH):
            changed += _compute(session, {kind: set(ids)}, now)
            goals += len(ids)
            after = ids[-1]
    return _report(0, goals, changed)


def _compute(session: Session, goals: dict[str, set[int]], now: dt.datetime) -> list[queries.Changed]:
    if not any(goals.values()):
        return []
    days = rules.today_in(queries.zones(session), now)
    # Merits before targets, always: whoever locks in one order cannot deadlock.
    return [c for kind in sorted(goals) for c in queries.compute(session, kind, goals[kind], days, now)]


def _report(marks: int, goals: int, changed: list[queries.Changed]) -> Report:
    completed = [c.kind for c in changed if c.completed_now]
    return Report(marks, goals, len(changed), completed.count("merit"), completed.count("target"))

"""What the reminder jobs do. They know nothing of Celery."""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from dataclasses import dataclass

from sqlalchemy.orm import Session

from kitaab_jobs import contract
from kitaab_jobs.client import enqueue
from kitaab_jobs.reminders import queries, rules

# People for one delivery job: a zone's load and lag stay visible, and one slow job holds up few.
CHUNK = 500
CHANNEL = "log"


@dataclass(frozen=True, slots=True)
class Dispatched:
    """What a dispatch did."""

    planned: int
    due: int
    to_send: int
    missed: int


def dispatch(session: Session, *, now: dt.datetime, limit: int) -> Dispatched:
    """Plan reminders that have no next occurrence, record those that are due, and enqueue delivery.

    One transaction: a reminder has moved on exactly when its delivery is recorded and enqueued.
    """
    new = queries.unresolved(session, limit)
    queries.advance(session, [_plan(row, now, was_due=False) for row in new])

    found = queries.due(session, now, limit)
    queries.advance(session, [_plan(row, now, was_due=True) for row, _ in found])
    deliveries = [_delivery(row, now) for row, wanted in found if wanted]
    to_send = queries.record(session, deliveries, CHANNEL, now)

    by_zone: dict[str, list[int]] = defaultdict(list)
    for delivery in deliveries:
        if delivery.notification_id in to_send:
            by_zone[delivery.zone].append(to_send[delivery.notification_id])
    for zone in sorted(by_zone):
        for start in range(0, len(by_zone[zone]), CHUNK):
            enqueue(
                session,
                contract.REMINDERS_DELIVER,
                {"zone": zone, "delivery_ids": by_zone[zone][start : start + CHUNK]},
            )
    if limit in (len(new), len(found)):
        enqueue(session, contract.REMINDERS_DISPATCH, {"limit": limit})
    missed = sum(d.reason is not None for d in deliveries)
    return Dispatched(planned=len(new), due=len(found), to_send=len(to_send), missed=missed)


def _plan(row: queries.Row, now: dt.datetime, *, was_due: bool) -> queries.Plan:
    last = row.next_due_date if was_due else row.last_due_date
    since = row.next_due_at if was_due else row.updated_at
    following = rules.next_due(row.time, row.zone, rules.look_from(since, now), last)
    return queries.Plan(
        row.notification_id,
        following.at,
        following.date,
        row.next_due_at if was_due else None,
        row.next_due_date if was_due else None,
    )


def _delivery(row: queries.Row, now: dt.datetime) -> queries.Delivery:
    assert row.next_due_at is not None
    assert row.next_due_date is not None
    due = rules.Due(row.next_due_at, row.next_due_date)
    reason = rules.too_late(due, row.zone, now)
    return queries.Delivery(row.notification_id, row.user_id, row.zone, due.at, due.date, reason)

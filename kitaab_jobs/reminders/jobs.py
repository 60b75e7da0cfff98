"""What the reminder jobs do. They know nothing of Celery."""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy.orm import Session

from kitaab_jobs import contract
from kitaab_jobs.client import enqueue_many
from kitaab_jobs.reminders import queries, rules
from kitaab_jobs.timing import is_zone

# People for one delivery job: a zone's load and lag stay visible, and one slow job holds up few.
CHUNK = 500
# Dispatchers that work side by side when one batch is not enough.
LANES = 2


@dataclass(frozen=True, slots=True)
class Dispatched:
    """What a dispatch did: reminders planned and due, deliveries by what becomes of them, zones that are none."""

    planned: int
    due: int
    to_send: int
    missed: int
    skipped: int = 0
    unknown_zones: int = 0


def dispatch(session: Session, *, now: dt.datetime, limit: int, lane: int = 0) -> Dispatched:
    """Plan reminders that have no next occurrence, record those that are due, and enqueue delivery.

    One transaction: a reminder has moved on exactly when its delivery is recorded and enqueued. Lane 0 is the one
    that the schedule starts. When one batch is not enough it starts the others, and each goes on until it finds
    less than a full one.
    """
    new = queries.cleared(session, limit)
    recorded = queries.settle(session, list(_resolved(new, now)), now)
    found = queries.due(session, now, limit)
    recorded += queries.settle(
        session,
        [(group.ids, rules.settle_due(group.rule, group.due, now)) for group in found],
        now,
    )
    _enqueue_delivery(session, recorded)
    due = sum(len(group.ids) for group in found)
    if limit in (len(new), due):
        lanes = range(1, LANES + 1) if lane == 0 else (lane,)
        enqueue_many(
            session, contract.REMINDERS_DISPATCH, [{"limit": limit, "lane": number} for number in lanes]
        )
    counts: dict[str, int] = defaultdict(int)
    for record in recorded:
        counts[record.state] += record.count
    return Dispatched(
        planned=len(new),
        due=due,
        to_send=counts[rules.PENDING],
        missed=counts[rules.MISSED],
        skipped=counts[rules.SKIPPED],
        unknown_zones=sum(not is_zone(row.rule.zone) for row in new)
        + sum(len(group.ids) for group in found if not is_zone(group.rule.zone)),
    )


def _resolved(new: Iterable[queries.Cleared], now: dt.datetime) -> Iterable[tuple[list[int], rules.Settled]]:
    """Decide on each, and bring together those for which the same was decided."""
    alike: dict[rules.Settled, list[int]] = defaultdict(list)
    for row in new:
        alike[rules.settle_edit(row.rule, row.edit, row.last, row.since, now)].append(row.id)
    return ((ids, settled) for settled, ids in alike.items())


def _enqueue_delivery(session: Session, recorded: Iterable[queries.Recorded]) -> None:
    """Enqueue jobs for what is to be sent: one for each zone and chunk of people."""
    by_zone: dict[str, list[int]] = defaultdict(list)
    for record in recorded:
        by_zone[record.zone] += record.pending_ids
    jobs = [
        {"zone": zone, "delivery_ids": ids[start : start + CHUNK]}
        for zone, ids in by_zone.items()
        for start in range(0, len(ids), CHUNK)
    ]
    if jobs:
        enqueue_many(session, contract.REMINDERS_DELIVER, jobs)

"""Notices of what people have completed: a delivery for each channel of the person, which goes the way of reminders."""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session

from kitaab_jobs import contract
from kitaab_jobs.client import enqueue
from kitaab_jobs.reminders import outgoing, rules


@dataclass(frozen=True, slots=True)
class Notified:
    """How many deliveries were made of the notices that were pending."""

    deliveries: int


def notify(session: Session, *, now: dt.datetime, notice_ids: Sequence[int]) -> Notified:
    """Record what is to be sent for the pending ones of these notices, and enqueue that; a second time finds none.

    Those of people who have left end as missed.
    """
    by_zone: dict[str, list[int]] = defaultdict(list)
    for zone, delivery_id in outgoing.fan_out(session, notice_ids, now, now + rules.NOTICE_WITHIN):
        by_zone[zone].append(delivery_id)
    for zone, ids in sorted(by_zone.items()):
        for start in range(0, len(ids), contract.MAX_DELIVERIES):
            args = {"zone": zone, "delivery_ids": ids[start : start + contract.MAX_DELIVERIES]}
            enqueue(session, contract.REMINDERS_DELIVER, args)
    return Notified(sum(map(len, by_zone.values())))

"""Notices of what people have completed, over the `log` channel: the report is the line in the worker's log."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ARRAY, BigInteger, bindparam, text
from sqlalchemy.orm import Session


@dataclass(frozen=True, slots=True)
class Notified:
    """What became of the notices that were pending."""

    sent: int
    missed: int


# A second job for the same rows finds none of them pending.
_NOTIFY = text(
    """
    UPDATE jobs.notices AS n
    SET state = CASE WHEN why.reason IS NULL THEN 'sent' ELSE 'missed' END::jobs.delivery_state,
        reason = why.reason, finished_at = :now
    FROM users AS u
    CROSS JOIN LATERAL (
        SELECT CASE WHEN u.deleted_at IS NOT NULL THEN 'the person was deleted'
                    WHEN NOT u.is_active THEN 'the person is not active' END
    ) AS why (reason)
    WHERE n.notice_id = ANY (:ids) AND n.state = 'pending' AND u.user_id = n.user_id
    RETURNING n.state = 'sent'
    """
).bindparams(bindparam("ids", type_=ARRAY(BigInteger)))


def notify(session: Session, *, now: dt.datetime, notice_ids: Sequence[int]) -> Notified:
    """Send the pending ones of these notices; those of people who have left are recorded as missed."""
    sent = list(session.scalars(_NOTIFY, {"ids": list(notice_ids), "now": now}))
    return Notified(sent=sent.count(True), missed=sent.count(False))

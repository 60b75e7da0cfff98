"""The SQL of reminders."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ARRAY, BigInteger, Date, DateTime, String, bindparam, text
from sqlalchemy.orm import Session

_INSTANTS = ARRAY(DateTime(timezone=True))


@dataclass(frozen=True, slots=True)
class Row:
    """A reminder to decide on."""

    notification_id: int
    user_id: int
    time: dt.time
    zone: str
    next_due_at: dt.datetime | None
    next_due_date: dt.date | None
    last_due_date: dt.date | None
    updated_at: dt.datetime


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be stored on a reminder: its next occurrence, and the last one where it was due."""

    notification_id: int
    next_at: dt.datetime
    next_date: dt.date
    last_at: dt.datetime | None
    last_date: dt.date | None


@dataclass(frozen=True, slots=True)
class Delivery:
    """One reminder to record; `reason` says why it is missed, None where it is to be sent."""

    notification_id: int
    user_id: int
    zone: str
    due_at: dt.datetime
    due_date: dt.date
    reason: str | None


_COLUMNS = """n.notification_id, n.user_id, n.notification_time, n.timezone,
        n.next_due_at, n.next_due_date, n.last_due_date, n.updated_at"""

# Another app changed the time or the zone (a trigger cleared the instant), or the reminder is new.
_UNRESOLVED = text(
    f"""
    SELECT {_COLUMNS} FROM notifications AS n
    WHERE n.is_active AND n.next_due_at IS NULL
    ORDER BY n.notification_id LIMIT :limit
    FOR UPDATE SKIP LOCKED
    """
)

# By the stored instant, so that a tick costs what is due and not what exists. People who left keep their
# place until they come back: their reminders move on without a delivery.
_DUE = text(
    f"""
    SELECT {_COLUMNS}, u.is_active AND u.deleted_at IS NULL AS wanted
    FROM notifications AS n JOIN users AS u USING (user_id)
    WHERE n.is_active AND n.next_due_at <= :now
    ORDER BY n.next_due_at LIMIT :limit
    FOR UPDATE OF n SKIP LOCKED
    """
)

_ADVANCE = text(
    """
    UPDATE notifications AS n
    SET next_due_at = p.next_at, next_due_date = p.next_date,
        last_due_at = coalesce(p.last_at, n.last_due_at), last_due_date = coalesce(p.last_date, n.last_due_date)
    FROM unnest(:ids, :next_ats, :next_dates, :last_ats, :last_dates)
        AS p (id, next_at, next_date, last_at, last_date)
    WHERE n.notification_id = p.id
    """
).bindparams(
    bindparam("ids", type_=ARRAY(BigInteger)),
    bindparam("next_ats", type_=_INSTANTS),
    bindparam("next_dates", type_=ARRAY(Date)),
    bindparam("last_ats", type_=_INSTANTS),
    bindparam("last_dates", type_=ARRAY(Date)),
)

# One for a person, day and channel: the unique index decides, whatever was edited in between. What was
# recorded is written to the audit log in the same statement.
_RECORD = text(
    """
    WITH recorded AS (
        INSERT INTO jobs.deliveries (notification_id, user_id, channel, zone, due_at, due_date, deadline, state, reason,
                                     finished_at)
        SELECT d.id, d.user_id, :channel, d.zone, d.due_at, d.due_date, d.due_at + interval '2 hours',
               CASE WHEN d.reason IS NULL THEN 'pending' ELSE 'missed' END::jobs.delivery_state,
               d.reason, CASE WHEN d.reason IS NOT NULL THEN CAST(:now AS timestamptz) END
        FROM unnest(:ids, :users, :zones, :due_ats, :due_dates, :reasons)
            AS d (id, user_id, zone, due_at, due_date, reason)
        ON CONFLICT DO NOTHING
        RETURNING delivery_id, notification_id, state, reason, due_at, due_date
    ), audited AS (
        INSERT INTO audit_log (action_type, table_name, record_id, new_values)
        SELECT 'reminder', 'notifications', notification_id,
               jsonb_build_object('delivery_id', delivery_id, 'state', state, 'reason', reason,
                                  'due_at', due_at, 'due_date', due_date)
        FROM recorded
    )
    SELECT delivery_id, notification_id FROM recorded WHERE state = 'pending'
    """
).bindparams(
    bindparam("ids", type_=ARRAY(BigInteger)),
    bindparam("users", type_=ARRAY(BigInteger)),
    bindparam("due_ats", type_=_INSTANTS),
    bindparam("due_dates", type_=ARRAY(Date)),
    bindparam("zones", type_=ARRAY(String)),
    bindparam("reasons", type_=ARRAY(String)),
)


def unresolved(session: Session, limit: int) -> list[Row]:
    """Lock and return reminders whose next occurrence is to be computed."""
    return [Row(*row) for row in session.execute(_UNRESOLVED, {"limit": limit})]


def due(session: Session, now: dt.datetime, limit: int) -> list[tuple[Row, bool]]:
    """Lock and return the reminders that are due, and whether the person is to get them."""
    rows = session.execute(_DUE, {"now": now, "limit": limit})
    return [(Row(*row[:-1]), bool(row.wanted)) for row in rows]


def advance(session: Session, plans: Sequence[Plan]) -> None:
    """Store the next occurrences."""
    if plans:
        session.execute(
            _ADVANCE,
            {
                "ids": [p.notification_id for p in plans],
                "next_ats": [p.next_at for p in plans],
                "next_dates": [p.next_date for p in plans],
                "last_ats": [p.last_at for p in plans],
                "last_dates": [p.last_date for p in plans],
            },
        )


def record(
    session: Session, deliveries: Sequence[Delivery], channel: str, now: dt.datetime
) -> dict[int, int]:
    """Record deliveries and return those to send: {notification id: delivery id}."""
    if not deliveries:
        return {}
    rows = session.execute(
        _RECORD,
        {
            "ids": [d.notification_id for d in deliveries],
            "users": [d.user_id for d in deliveries],
            "due_ats": [d.due_at for d in deliveries],
            "due_dates": [d.due_date for d in deliveries],
            "zones": [d.zone for d in deliveries],
            "reasons": [d.reason for d in deliveries],
            "channel": channel,
            "now": now,
        },
    )
    return {row.notification_id: row.delivery_id for row in rows}

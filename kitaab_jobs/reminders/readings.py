"""What the command line reads of reminders. Nothing here writes."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

from kitaab_jobs.errors import UsageError

# Bounded by what is due: a look at the index, whatever the table's size.
_DUE = text(
    """
    SELECT timezone AS zone, count(*) FILTER (WHERE next_due_at <= :now) AS due,
           min(next_due_at) FILTER (WHERE next_due_at <= :now) AS oldest,
           count(*) FILTER (WHERE next_due_at > :now) AS soon,
           min(next_due_at) FILTER (WHERE next_due_at > :now) AS next
    FROM notifications
    WHERE is_active AND next_due_at <= :until AND (CAST(:zone AS text) IS NULL OR timezone = :zone)
    GROUP BY timezone
    """
)
_UNPLANNED = text(
    """
    SELECT timezone AS zone, count(*) AS unplanned FROM notifications
    WHERE is_active AND next_due_at IS NULL AND (CAST(:zone AS text) IS NULL OR timezone = :zone) GROUP BY timezone
    """
)
_OPEN = text(
    """
    SELECT zone, count(*) AS open FROM jobs.deliveries
    WHERE state IN ('pending', 'sending') AND (CAST(:zone AS text) IS NULL OR zone = :zone) GROUP BY zone
    """
)

_REMINDERS = text(
    """
    SELECT notification_id, notification_time, timezone, weekdays, quiet_from, quiet_until, channels, skip_if_recorded,
           is_active, next_due_at, next_due_date, last_due_at, last_due_date, before_edit, updated_at
    FROM notifications WHERE user_id = :user ORDER BY is_active DESC, notification_id DESC
    """
)
_BY_EMAIL = text(
    """
    SELECT user_id FROM users WHERE lower(email) = lower(:email) ORDER BY deleted_at IS NOT NULL, user_id LIMIT 1
    """
)
_BY_ID = text("SELECT user_id FROM users WHERE user_id = :id")
_LARGEST_ID = 2**63 - 1
_PERSON = text("SELECT is_active, deleted_at FROM users WHERE user_id = :user")
_DECISIONS = text(
    """
    SELECT created_at, record_id, action_type, old_values, new_values FROM audit_log
    WHERE table_name = 'notifications' AND record_id = ANY (:ids) AND created_at >= :since
    ORDER BY created_at, audit_log_id LIMIT :limit
    """
)
_DELIVERIES = text(
    """
    SELECT notification_id, channel, zone, due_at, due_date, deadline, state::text AS state, reason, attempt, created_at,
           started_at, finished_at
    FROM jobs.deliveries WHERE notification_id = ANY (:ids) AND created_at >= :since
    ORDER BY created_at, delivery_id LIMIT :limit
    """
)


@dataclass(frozen=True, slots=True)
class Person:
    """Whether somebody is here, and the reminders that they have or had, the active one first."""

    is_here: bool
    reminders: list[dict[str, Any]]


def due(
    connection: Connection, now: dt.datetime, until: dt.datetime, zone: str | None
) -> list[dict[str, Any]]:
    """Return for each zone what is due and unclaimed, due until then, unplanned, and waiting to be sent."""
    zones: dict[str, dict[str, Any]] = {}
    given = {"now": now, "until": until, "zone": zone}
    blank = {"due": 0, "oldest": None, "soon": 0, "next": None, "unplanned": 0, "open": 0}
    for statement in (_DUE, _UNPLANNED, _OPEN):
        for row in connection.execute(statement, given).mappings():
            zones.setdefault(row["zone"], {"zone": row["zone"], **blank}).update(row)
    return sorted(
        zones.values(),
        key=lambda row: (-row["due"], -row["soon"], -row["unplanned"], -row["open"], row["zone"]),
    )


def find(connection: Connection, who: str) -> int:
    """Return the id of the person with that id or e-mail; raise `UsageError` where there is none."""
    who = who.strip()
    id = int(who) if who.isascii() and who.isdigit() and len(who) < 20 else 0
    if "@" not in who and not 0 < id <= _LARGEST_ID:
        raise UsageError(
            f"{who!r} is neither an id nor an e-mail", remedy="give one, such as 17 or a@example.org"
        )
    statement, given = (_BY_EMAIL, {"email": who}) if "@" in who else (_BY_ID, {"id": id})
    found = connection.scalar(statement, given) if "\0" not in who else None
    if found is None:
        has = "e-mail" if "@" in who else "id"
        raise UsageError(
            f"nobody has the {has} {who!r}", remedy="check it; ids and e-mails are in the table users"
        )
    return int(found)


def person(connection: Connection, user: int) -> Person:
    """Return a person's reminders."""
    row = connection.execute(_PERSON, {"user": user}).one()
    reminders = connection.execute(_REMINDERS, {"user": user}).mappings()
    return Person(row.is_active and row.deleted_at is None, [dict(reminder) for reminder in reminders])


def decisions(connection: Connection, ids: list[int], since: dt.datetime, limit: int) -> list[dict[str, Any]]:
    """Return what the audit log holds of these reminders, in order."""
    return [dict(row) for row in connection.execute(_DECISIONS, _of(ids, since, limit)).mappings()]


def deliveries(
    connection: Connection, ids: list[int], since: dt.datetime, limit: int
) -> list[dict[str, Any]]:
    """Return the deliveries of these reminders, in order."""
    return [dict(row) for row in connection.execute(_DELIVERIES, _of(ids, since, limit)).mappings()]


def _of(ids: list[int], since: dt.datetime, limit: int) -> dict[str, Any]:
    return {"ids": ids, "since": since, "limit": limit}

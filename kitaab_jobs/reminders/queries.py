"""The SQL of the dispatcher and of the zone data's update. What the command line reads is in readings.py."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ARRAY, BigInteger, Date, DateTime, Integer, String, bindparam, text
from sqlalchemy.orm import Session

from kitaab_jobs.reminders.rules import Due, Edit, Rule, Settled, iso_weekdays

_INSTANTS = ARRAY(DateTime(timezone=True))


@dataclass(frozen=True, slots=True)
class Cleared:
    """A reminder whose next occurrence is to be computed: new, or edited."""

    id: int
    rule: Rule
    edit: Edit | None
    last: Due | None
    since: dt.datetime


@dataclass(frozen=True, slots=True)
class Alike:
    """Reminders that are due and differ in nothing that decides when."""

    ids: Sequence[int]
    rule: Rule
    due: Due


@dataclass(frozen=True, slots=True)
class Recorded:
    """Deliveries of one zone and state."""

    zone: str
    state: str
    count: int
    pending_ids: list[int]


# A prepared statement's generic plan takes every array for ten rows, and then joins ten thousand with ten thousand
# in nested loops.
_PLAN_EACH = text("SET LOCAL plan_cache_mode = force_custom_plan")

# New, or edited by whatever app (a trigger cleared the instant). Somebody who turned one reminder off and made
# another was reminded by the first: only one of a person's is active.
_CLEARED = text(
    """
    SELECT n.notification_id, n.notification_time, n.timezone, n.weekdays, n.quiet_from, n.quiet_until,
           coalesce(n.last_due_at, other.last_due_at) AS last_at, n.last_due_date AS last_date,
           coalesce((n.before_edit ->> 'edited_at')::timestamptz, n.updated_at) AS since,
           (n.before_edit ->> 'at')::timestamptz AS old_at, (n.before_edit ->> 'date')::date AS old_date,
           (n.before_edit ->> 'time')::time AS old_time, n.before_edit ->> 'zone' AS old_zone,
           n.before_edit -> 'weekdays' AS old_weekdays
    FROM notifications AS n
    LEFT JOIN LATERAL (
        SELECT max(o.last_due_at) AS last_due_at FROM notifications AS o WHERE o.user_id = n.user_id
    ) AS other ON n.last_due_at IS NULL
    WHERE n.is_active AND n.next_due_at IS NULL
    ORDER BY n.notification_id LIMIT :limit
    FOR NO KEY UPDATE OF n SKIP LOCKED
    """
)

# By the stored instant, so that a tick costs what is due and not what exists. Most people share a few times in a
# few zones: what comes back is one row for all that are alike.
_DUE = text(
    """
    WITH claimed AS MATERIALIZED (
        SELECT notification_id, notification_time, timezone, weekdays, quiet_from, quiet_until, next_due_at,
               next_due_date
        FROM notifications
        WHERE is_active AND next_due_at <= :now
        ORDER BY next_due_at LIMIT :limit
        FOR NO KEY UPDATE SKIP LOCKED
    )
    SELECT notification_time, timezone, weekdays, quiet_from, quiet_until, next_due_at, next_due_date,
           array_agg(notification_id ORDER BY notification_id) AS ids
    FROM claimed GROUP BY 1, 2, 3, 4, 5, 6, 7
    """
)

# Delivery, audit row and next occurrence in one statement. People who left keep their place: their reminders move
# on, and each occurrence is recorded as skipped. What stands in the way of a delivery is one of the same person,
# date, zone and channel: under the notification's lock by last_due_date, and between two of a person's by the
# unique index. Only what is handed to delivery uses up the date.
_SETTLE = text(
    """
    WITH plan AS (
        SELECT * FROM unnest(CAST(:plan_numbers AS integer[]), :next_ats, :next_dates, :last_dates, :notes)
            AS p (plan, next_at, next_date, last_date, note)
    ), occurrence AS (
        SELECT * FROM unnest(CAST(:occurrence_plans AS integer[]), :due_ats, :due_dates, :deadlines, :states, :reasons)
            AS o (plan, due_at, due_date, deadline, state, reason)
    ), member AS MATERIALIZED (
        SELECT m.id, m.plan, n.user_id, n.timezone, n.channels, n.skip_if_recorded, n.last_due_date,
               u.is_active AND u.deleted_at IS NULL AS here
        FROM unnest(CAST(:ids AS bigint[]), CAST(:plans AS integer[])) AS m (id, plan)
        JOIN notifications AS n ON n.notification_id = m.id
        JOIN users AS u ON u.user_id = n.user_id
    ), refused AS (
        SELECT m.id, m.user_id, m.timezone, m.channels, o.due_at, o.due_date, o.deadline, o.state, o.reason,
               CASE WHEN NOT m.here THEN 'the account is not active'
                    WHEN o.state = 'pending' AND coalesce(p.last_date, m.last_due_date) >= o.due_date
                    THEN 'there was one for that date, or a later one, already'
                    WHEN o.state = 'pending' AND m.skip_if_recorded AND EXISTS (
                        SELECT FROM entries AS e WHERE e.user_id = m.user_id AND e.entry_date = o.due_date)
                    THEN 'an entry was recorded for that date already' END AS unwanted
        FROM member AS m JOIN plan AS p USING (plan) JOIN occurrence AS o USING (plan)
    ), judged AS MATERIALIZED (
        SELECT id, user_id, timezone, channels, due_at, due_date, deadline, coalesce(unwanted, reason) AS reason,
               CASE WHEN unwanted IS NULL THEN state ELSE 'skipped' END::jobs.delivery_state AS state
        FROM refused
    ), recorded AS (
        INSERT INTO jobs.deliveries (notification_id, user_id, channel, zone, due_at, due_date, deadline, state, reason,
                                     finished_at)
        SELECT j.id, j.user_id, c.channel, j.timezone, j.due_at, j.due_date, j.deadline, j.state, j.reason,
               CASE WHEN j.state <> 'pending' THEN CAST(:now AS timestamptz) END
        FROM judged AS j CROSS JOIN LATERAL unnest(j.channels) AS c (channel)
        ON CONFLICT DO NOTHING
        RETURNING delivery_id, notification_id, zone, channel, state, reason, due_at, due_date
    ), audited AS (
        INSERT INTO audit_log (action_type, table_name, record_id, new_values)
        SELECT 'reminder', 'notifications', notification_id,
               jsonb_build_object('delivery_id', delivery_id, 'channel', channel, 'state', state, 'reason', reason,
                                  'due_at', due_at, 'due_date', due_date, 'zone', zone)
        FROM recorded
        UNION ALL
        SELECT 'reminder', 'notifications', m.id,
               jsonb_build_object('decision', p.note, 'due_at', p.next_at, 'due_date', p.next_date, 'zone', m.timezone)
        FROM member AS m JOIN plan AS p USING (plan) WHERE p.note IS NOT NULL
    ), advanced AS (
        UPDATE notifications AS n
        SET next_due_at = p.next_at, next_due_date = p.next_date, before_edit = NULL,
            last_due_at = coalesce(sent.due_at, n.last_due_at),
            last_due_date = CASE WHEN coalesce(sent.due_at, n.last_due_at) IS NOT NULL
                                 THEN coalesce(sent.due_date, p.last_date, n.last_due_date) END
        FROM member AS m
        JOIN plan AS p USING (plan)
        LEFT JOIN (SELECT id, due_at, due_date FROM judged WHERE state = 'pending') AS sent ON sent.id = m.id
        WHERE n.notification_id = m.id
    )
    SELECT zone, state::text, count(*),
           coalesce(array_agg(delivery_id ORDER BY delivery_id) FILTER (WHERE state = 'pending'), '{}')
    FROM recorded GROUP BY zone, state ORDER BY zone, state
    """
).bindparams(
    bindparam("plan_numbers", type_=ARRAY(Integer)),
    bindparam("next_ats", type_=_INSTANTS),
    bindparam("next_dates", type_=ARRAY(Date)),
    bindparam("last_dates", type_=ARRAY(Date)),
    bindparam("notes", type_=ARRAY(String)),
    bindparam("occurrence_plans", type_=ARRAY(Integer)),
    bindparam("due_ats", type_=_INSTANTS),
    bindparam("due_dates", type_=ARRAY(Date)),
    bindparam("deadlines", type_=_INSTANTS),
    bindparam("states", type_=ARRAY(String)),
    bindparam("reasons", type_=ARRAY(String)),
    bindparam("ids", type_=ARRAY(BigInteger)),
    bindparam("plans", type_=ARRAY(Integer)),
)


def cleared(session: Session, limit: int) -> list[Cleared]:
    """Lock and return reminders whose next occurrence is to be computed."""
    return [_cleared(row) for row in session.execute(_CLEARED, {"limit": limit})]


def _cleared(row: Sequence[Any]) -> Cleared:
    (id, time, zone, weekdays, quiet_from, quiet_until, last_at, last_date, since, *old) = row
    old_at, old_date, old_time, old_zone, old_weekdays = old
    rule = Rule(time, zone, iso_weekdays(weekdays), (quiet_from, quiet_until) if quiet_from else None)
    edit = None
    if old_zone is not None:
        before = Rule(old_time, old_zone, iso_weekdays(old_weekdays))
        edit = Edit(Due(old_at, old_date) if old_at else None, before)
    return Cleared(id, rule, edit, Due(last_at, last_date) if last_at else None, since)


def due(session: Session, now: dt.datetime, limit: int) -> list[Alike]:
    """Lock the reminders that are due, the oldest first, and return them together with their like."""
    return [
        Alike(
            row.ids,
            Rule(
                row.notification_time,
                row.timezone,
                iso_weekdays(row.weekdays),
                (row.quiet_from, row.quiet_until) if row.quiet_from else None,
            ),
            Due(row.next_due_at, row.next_due_date),
        )
        for row in session.execute(_DUE, {"now": now, "limit": limit})
    ]


def settle(
    session: Session, decisions: Sequence[tuple[Sequence[int], Settled]], now: dt.datetime
) -> list[Recorded]:
    """Record what was decided for these reminders, plan the next ones, and return what was recorded."""
    if not decisions:
        return []
    plans = list(enumerate(settled for _, settled in decisions))
    occurrences = [(number, o) for number, settled in plans for o in settled.occurrences]
    session.execute(_PLAN_EACH)
    rows = session.execute(
        _SETTLE,
        {
            "now": now,
            "plan_numbers": [number for number, _ in plans],
            "next_ats": [p.next.at for _, p in plans],
            "next_dates": [p.next.date for _, p in plans],
            "last_dates": [p.last_date for _, p in plans],
            "notes": [p.note for _, p in plans],
            "occurrence_plans": [number for number, _ in occurrences],
            "due_ats": [o.at for _, o in occurrences],
            "due_dates": [o.date for _, o in occurrences],
            "deadlines": [o.deadline for _, o in occurrences],
            "states": [o.state for _, o in occurrences],
            "reasons": [o.reason for _, o in occurrences],
            "ids": [id for ids, _ in decisions for id in ids],
            "plans": [number for number, (ids, _) in enumerate(decisions) for _ in ids],
        },
    )
    return [Recorded(*row) for row in rows]

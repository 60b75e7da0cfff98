"""A new release of the zone data moves what is planned: the nominal date stays, the instant follows.

All planned reminders are looked at as groups of what is alike, some ten thousand of them, once for each release and
once a day besides: a worker with older data may have planned some since.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ARRAY, Date, DateTime, String, Time, bindparam, text
from sqlalchemy.orm import Session

from kitaab_jobs.reminders import rules
from kitaab_jobs.reminders.rules import Due, Rule

AGAIN_AFTER = dt.timedelta(hours=23)


@dataclass(frozen=True, slots=True)
class Reresolved:
    """What became of planned reminders: whether they were looked at, kinds that were compared, reminders moved."""

    looked: bool
    kinds: int = 0
    moved: int = 0


@dataclass(frozen=True, slots=True)
class Move:
    """Planned reminders that are alike, and the occurrence that they should have."""

    rule: Rule
    old: Due
    new: Due


_LAST = text("SELECT resolved_at FROM jobs.zone_data WHERE version = :version")

_PLANNED = text(
    """
    SELECT notification_time, timezone, next_due_at, next_due_date FROM notifications
    WHERE is_active AND next_due_at > :now GROUP BY 1, 2, 3, 4
    """
)

# The old instant is part of the condition: what was dispatched or edited meanwhile is left alone. Who waits for several
# reminders locks them in the order of their keys (the dispatch passes over what is held).
_MOVE = text(
    """
    WITH m AS MATERIALIZED (
        SELECT * FROM unnest(:zones, :times, :old_ats, :old_dates, :new_ats, :new_dates)
            AS m (zone, time, old_at, old_date, new_at, new_date)
    ), locked AS MATERIALIZED (
        SELECT n.notification_id FROM notifications AS n JOIN m
            ON n.next_due_at = m.old_at AND n.next_due_date = m.old_date
           AND n.timezone = m.zone AND n.notification_time = m.time
        WHERE n.is_active
        ORDER BY n.notification_id FOR NO KEY UPDATE OF n
    ), moved AS (
        UPDATE notifications AS n SET next_due_at = m.new_at, next_due_date = m.new_date
        FROM locked, m
        WHERE n.notification_id = locked.notification_id
          AND n.is_active AND n.next_due_at = m.old_at AND n.next_due_date = m.old_date
          AND n.timezone = m.zone AND n.notification_time = m.time
        RETURNING n.notification_id, n.timezone, m.old_at, m.new_at, m.new_date
    ), audited AS (
        INSERT INTO audit_log (action_type, table_name, record_id, new_values)
        SELECT 'reminder', 'notifications', notification_id,
               jsonb_build_object('decision', 'moved by release ' || CAST(:version AS text) || ' of the zone data, from '
                                      || to_char(old_at, 'YYYY-MM-DD HH24:MI') || 'Z',
                                  'due_at', new_at, 'due_date', new_date, 'zone', timezone)
        FROM moved
    )
    SELECT count(*) FROM moved
    """
).bindparams(
    bindparam("zones", type_=ARRAY(String)),
    bindparam("times", type_=ARRAY(Time)),
    bindparam("old_ats", type_=ARRAY(DateTime(timezone=True))),
    bindparam("old_dates", type_=ARRAY(Date)),
    bindparam("new_ats", type_=ARRAY(DateTime(timezone=True))),
    bindparam("new_dates", type_=ARRAY(Date)),
)

_DONE = text(
    """
    INSERT INTO jobs.zone_data (version, resolved_at, moved) VALUES (:version, :now, :moved)
    ON CONFLICT (version) DO UPDATE SET resolved_at = excluded.resolved_at, moved = excluded.moved
    """
)


def reresolve(session: Session, *, now: dt.datetime, version: str) -> Reresolved:
    """Move what is planned to where release `version` puts it, unless that was done already today."""
    last = session.scalar(_LAST, {"version": version})
    if last is not None and now - last < AGAIN_AFTER:
        return Reresolved(looked=False)
    kinds = 0
    moves = []
    for time, zone, at, date in session.execute(_PLANNED, {"now": now}):
        kinds += 1
        rule, old = Rule(time, zone), Due(at, date)
        new = rules.planned_anew(rule, old, now)
        if new != old:
            moves.append(Move(rule, old, new))
    moved = _move(session, moves, version) if moves else 0
    session.execute(_DONE, {"version": version, "now": now, "moved": moved})
    return Reresolved(True, kinds, moved)


def _move(session: Session, moves: Sequence[Move], version: str) -> int:
    moved = session.scalar(
        _MOVE,
        {
            "version": version,
            "zones": [m.rule.zone for m in moves],
            "times": [m.rule.time for m in moves],
            "old_ats": [m.old.at for m in moves],
            "old_dates": [m.old.date for m in moves],
            "new_ats": [m.new.at for m in moves],
            "new_dates": [m.new.date for m in moves],
        },
    )
    return int(moved or 0)

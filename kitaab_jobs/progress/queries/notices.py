"""The SQL of notices: the outbox row of each completion.

It is written in the transaction that sets `completed_at`, so one exists exactly when the other does. The
unique key on the goal decides if all else fails: nobody is told twice of one completion.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Mapping

from sqlalchemy import ARRAY, BigInteger, Date, DateTime, String, bindparam, text
from sqlalchemy.orm import Session

_RECORD = """
    INSERT INTO jobs.notices (user_id, kind, {key}, happened_on, state, reason, created_at, finished_at)
    SELECT g.user_id, '{kind}_completed', g.{key}, g.completed_on,
           CASE WHEN late.is_late THEN 'missed' ELSE 'pending' END::jobs.delivery_state,
           CASE WHEN late.is_late THEN 'seen on ' || today.day || ', more than ' || :within || ' days later' END,
           :now, CASE WHEN late.is_late THEN :now END
    FROM {table} AS g
    JOIN users AS u ON u.user_id = g.user_id
    LEFT JOIN unnest(:zones, :days) AS local (timezone, day) ON local.timezone = u.timezone
    CROSS JOIN LATERAL (SELECT coalesce(local.day, :utc)) AS today (day)
    CROSS JOIN LATERAL (SELECT g.completed_on < today.day - CAST(:within AS integer)) AS late (is_late)
    WHERE g.{key} = ANY (:ids)
    ORDER BY g.{key}
    ON CONFLICT ({key}, kind) DO NOTHING
    RETURNING notice_id, state = 'pending'
"""
_RECORDS = {
    kind: text(_RECORD.format(kind=kind, key=f"{kind}_id", table=f"{kind}s")).bindparams(
        bindparam("ids", type_=ARRAY(BigInteger)),
        bindparam("zones", type_=ARRAY(String)),
        bindparam("days", type_=ARRAY(Date)),
        bindparam("utc", type_=Date),
        bindparam("now", type_=DateTime(timezone=True)),
        bindparam("within", type_=String),
    )
    for kind in ("merit", "target")
}


def record(
    session: Session,
    kind: str,
    ids: Collection[int],
    days: Mapping[str, dt.date],
    now: dt.datetime,
    within: int,
) -> list[int]:
    """Record that these merits or targets were completed, and return the notices that are to be sent.

    Those that were reached more than `within` days before the person's today are recorded as missed.
    """
    values = {
        "ids": list(ids),
        "zones": list(days),
        "days": list(days.values()),
        "utc": days["UTC"],
        "now": now,
        "within": str(within),
    }
    return [id for id, pending in session.execute(_RECORDS[kind], values) if pending]

"""The SQL of history: what goals showed at the end of each day, for charts.

A row is written where something changed, so a day without a row showed what the day before did. It is a
record: an entry that is backdated changes what a goal shows from now on, and not what it showed then.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ARRAY, BigInteger, BindParameter, Date, String, TextClause, bindparam, text
from sqlalchemy.orm import Session


@dataclass(frozen=True, slots=True)
class Day:
    """What a goal showed at the end of a day."""

    day: dt.date
    percent: int
    is_satisfied: bool


# Whoever moves to a zone in the west may have a day twice: what was written of days that have yet to come
# again is taken back.
_RECORD = """
    WITH shown AS (
        SELECT g.{key}, coalesce(local.day, :utc) AS day, g.percent, g.is_satisfied
        FROM {table} AS g
        JOIN users AS u ON u.user_id = g.user_id
        LEFT JOIN unnest(:zones, :days) AS local (timezone, day) ON local.timezone = u.timezone
        WHERE g.{key} = ANY (:ids)
    ), taken_back AS (
        DELETE FROM jobs.{kind}_history AS h USING shown WHERE h.{key} = shown.{key} AND h.day > shown.day
    )
    INSERT INTO jobs.{kind}_history ({key}, day, percent, is_satisfied)
    SELECT {key}, day, percent, is_satisfied FROM shown
    ON CONFLICT ({key}, day) DO UPDATE SET percent = excluded.percent, is_satisfied = excluded.is_satisfied
"""

# The newest row before the first day that is kept stays: it says what was shown on that day. Rows that go with their
# goal, since somebody just deletes it, are passed over: they hold some, and may want others that are held here.
_PURGE = """
    DELETE FROM jobs.{kind}_history AS h
    USING (
        SELECT old.{key}, old.day FROM jobs.{kind}_history AS old
        WHERE old.day < :first AND EXISTS (
            SELECT FROM jobs.{kind}_history AS later
            WHERE later.{key} = old.{key} AND later.day > old.day AND later.day <= :first
        )
        LIMIT :limit
        FOR UPDATE SKIP LOCKED
    ) AS old
    WHERE h.{key} = old.{key} AND h.day = old.day
"""

_READ = """
    SELECT g.id, d.day::date AS day, coalesce(h.percent, 0), coalesce(h.is_satisfied, false)
    FROM unnest(:ids) AS g (id)
    CROSS JOIN generate_series(CAST(:first AS timestamp), CAST(:last AS timestamp), interval '1 day') AS d (day)
    LEFT JOIN LATERAL (
        SELECT percent, is_satisfied FROM jobs.{kind}_history
        WHERE {key} = g.id AND day <= d.day ORDER BY day DESC LIMIT 1
    ) AS h ON true
    ORDER BY g.id, d.day
"""


def _both(template: str) -> dict[str, TextClause]:
    binds: list[BindParameter[Any]] = [
        bindparam("ids", type_=ARRAY(BigInteger)),
        bindparam("zones", type_=ARRAY(String)),
        bindparam("days", type_=ARRAY(Date)),
        bindparam("utc", type_=Date),
    ]
    statements = {}
    for kind in ("merit", "target"):
        sql = template.format(kind=kind, key=f"{kind}_id", table=f"{kind}s")
        statements[kind] = text(sql).bindparams(*(bind for bind in binds if f":{bind.key}" in sql))
    return statements


_RECORDS, _PURGES, _READS = map(_both, (_RECORD, _PURGE, _READ))


def record(session: Session, kind: str, ids: Collection[int], days: Mapping[str, dt.date]) -> None:
    """Write what these merits or targets show now as what they show today, each in its person's zone."""
    values = {"ids": list(ids), "zones": list(days), "days": list(days.values()), "utc": days["UTC"]}
    session.execute(_RECORDS[kind], values)


def purge(session: Session, kind: str, first: dt.date, limit: int) -> int:
    """Remove up to `limit` rows that no day since `first` needs, and return how many there were."""
    deleted = session.execute(_PURGES[kind], {"first": first, "limit": limit})
    return int(getattr(deleted, "rowcount", 0))


def read(
    session: Session, kind: str, ids: Collection[int], first: dt.date, last: dt.date
) -> dict[int, list[Day]]:
    """Return what these merits or targets showed on each day from `first` to `last`."""
    found: dict[int, list[Day]] = {id: [] for id in ids}
    for id, *shown in session.execute(_READS[kind], {"ids": list(ids), "first": first, "last": last}):
        found[id].append(Day(*shown))
    return found

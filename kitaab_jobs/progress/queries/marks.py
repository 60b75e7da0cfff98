"""Marks: what is to be computed again."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import ARRAY, BigInteger, bindparam, text
from sqlalchemy.orm import Session

# Goals to compute, "merit" or "target" by id, each with the first day on which something changed; None: any day may have.
Concerned = dict[str, dict[int, dt.date | None]]


@dataclass(frozen=True, slots=True)
class Taken:
    """So many marks that were taken away, and the goals that they concern.

    `oldest` is when the oldest of them was made that somebody waits for; None where nobody waits for any.
    `background` are those of the goals that nobody waits for.
    """

    marks: int
    oldest: dt.datetime | None
    goals: Concerned
    background: dict[str, set[int]]


# The marks are taken away in the transaction that computes what they name: on a rollback they are back. Those that
# nobody waits for come last.
#
# An entry counts for its item and for all above it, so a marked item concerns the goals of its ancestors. Of
# several marks the earliest day holds, and a mark without one is earlier than any. The tree is read with the marks, in
# one statement: what moves in it meanwhile leaves a mark that is not among these.
_TAKE = text(
    """
    WITH RECURSIVE chosen AS (
        SELECT is_background, progress_mark_id FROM jobs.progress_marks
        ORDER BY is_background, progress_mark_id LIMIT :limit
        FOR UPDATE SKIP LOCKED
    ),
    taken AS (
        DELETE FROM jobs.progress_marks AS m USING chosen
        WHERE m.is_background = chosen.is_background AND m.progress_mark_id = chosen.progress_mark_id
        RETURNING m.kind, m.subject_id AS id, coalesce(m.since, '-infinity') AS since, m.marked_at, m.is_background
    ),
    above AS (
        SELECT i.deed_item_id, i.parent_deed_item_id, m.since, m.is_background
        FROM (
            SELECT id, min(since) AS since, bool_and(is_background) AS is_background
            FROM taken WHERE kind = 'item' GROUP BY id
        ) AS m
        JOIN deed_items AS i ON i.deed_item_id = m.id
        UNION
        SELECT i.deed_item_id, i.parent_deed_item_id, above.since, above.is_background
        FROM deed_items AS i JOIN above ON i.deed_item_id = above.parent_deed_item_id
    ),
    concerned AS (
        SELECT kind, id, since, is_background FROM taken WHERE kind <> 'item'
        UNION ALL
        SELECT 'merit', mi.merit_id, above.since, above.is_background
        FROM merit_items AS mi JOIN above USING (deed_item_id)
        UNION ALL
        SELECT 'target', ti.target_id, above.since, above.is_background
        FROM target_items AS ti JOIN above USING (deed_item_id)
    )
    SELECT number.marks, number.oldest, goal.kind, goal.ids, goal.sinces, goal.background
    FROM (SELECT count(*) AS marks, min(marked_at) FILTER (WHERE NOT is_background) AS oldest FROM taken) AS number
    LEFT JOIN (
        SELECT kind, array_agg(id ORDER BY id) AS ids, array_agg(nullif(since, '-infinity') ORDER BY id) AS sinces,
               array_agg(id) FILTER (WHERE is_background) AS background
        FROM (
            SELECT kind, id, min(since) AS since, bool_and(is_background) AS is_background
            FROM concerned GROUP BY kind, id
        ) AS folded
        GROUP BY kind
    ) AS goal ON true
    """
)

_MARK = text(
    """
    INSERT INTO jobs.progress_marks (kind, subject_id, is_background)
    SELECT :kind, id, :background FROM unnest(:ids) AS t (id)
    """
).bindparams(bindparam("ids", type_=ARRAY(BigInteger)))


def take(session: Session, limit: int) -> Taken:
    """Take up to `limit` marks away, and return the goals that they name, or that count the entries of the items that
    they name; what others are just taking is passed over."""
    rows = session.execute(_TAKE, {"limit": limit}).all()
    goals = {row.kind: dict(zip(row.ids, row.sinces, strict=True)) for row in rows if row.kind}
    background = {row.kind: set(row.background or ()) for row in rows if row.kind}
    return Taken(rows[0].marks, rows[0].oldest, goals, background)


def mark(session: Session, kind: str, ids: Collection[int], *, background: bool = False) -> None:
    """Mark merits or targets, so that they are computed again from all of their entries.

    `background`: nobody waits for them, so everything else comes first.
    """
    if ids:
        session.execute(_MARK, {"kind": kind, "ids": list(ids), "background": background})

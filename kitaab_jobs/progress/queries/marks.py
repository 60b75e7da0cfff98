"""Marks: what is to be computed again."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import ARRAY, BigInteger, Date, String, bindparam, text
from sqlalchemy.orm import Session

# Goals to compute, "merit" or "target" by id, each with the first day on which something changed; None: any day may have.
Concerned = dict[str, dict[int, dt.date | None]]


@dataclass(frozen=True, slots=True)
class Mark:
    """Something to compute again: an "item" (for the goals that count it), a "merit" or a "target".

    `since` is the first day of which an entry changed; None where more than entries did, and every day counts.
    """

    kind: str
    id: int
    since: dt.date | None
    marked_at: dt.datetime


# The marks are taken away in the transaction that computes what they name: on a rollback they are back.
_TAKE_MARKS = text(
    """
    WITH taken AS (
        SELECT progress_mark_id FROM jobs.progress_marks
        ORDER BY progress_mark_id LIMIT :limit
        FOR UPDATE SKIP LOCKED
    )
    DELETE FROM jobs.progress_marks AS m USING taken
    WHERE m.progress_mark_id = taken.progress_mark_id
    RETURNING m.kind, m.subject_id AS id, m.since, m.marked_at
    """
)

# An entry counts for its item and for all above it, so a marked item concerns the goals of its ancestors. Of
# several marks the earliest day holds, and a mark without one is earlier than any.
_CONCERNED = text(
    """
    WITH RECURSIVE mark AS (
        SELECT kind, id, coalesce(since, '-infinity') AS since FROM unnest(:kinds, :ids, :sinces) AS m (kind, id, since)
    ),
    above AS (
        SELECT i.deed_item_id, i.parent_deed_item_id, m.since
        FROM (SELECT id, min(since) AS since FROM mark WHERE kind = 'item' GROUP BY id) AS m
        JOIN deed_items AS i ON i.deed_item_id = m.id
        UNION
        SELECT i.deed_item_id, i.parent_deed_item_id, above.since
        FROM deed_items AS i JOIN above ON i.deed_item_id = above.parent_deed_item_id
    ),
    concerned AS (
        SELECT kind, id, since FROM mark WHERE kind <> 'item'
        UNION ALL
        SELECT 'merit', mi.merit_id, above.since FROM merit_items AS mi JOIN above USING (deed_item_id)
        UNION ALL
        SELECT 'target', ti.target_id, above.since FROM target_items AS ti JOIN above USING (deed_item_id)
    )
    SELECT kind, id, nullif(min(since), '-infinity') AS since FROM concerned GROUP BY kind, id ORDER BY kind, id
    """
).bindparams(
    bindparam("kinds", type_=ARRAY(String)),
    bindparam("ids", type_=ARRAY(BigInteger)),
    bindparam("sinces", type_=ARRAY(Date)),
)

_MARK = text(
    "INSERT INTO jobs.progress_marks (kind, subject_id) SELECT :kind, id FROM unnest(:ids) AS t (id)"
).bindparams(bindparam("ids", type_=ARRAY(BigInteger)))


def take_marks(session: Session, limit: int) -> list[Mark]:
    """Take up to `limit` marks away and return them; what others are just taking is passed over."""
    return [Mark(*row) for row in session.execute(_TAKE_MARKS, {"limit": limit})]


def concerned(session: Session, marks: Collection[Mark]) -> Concerned:
    """Return the goals that `marks` name, or that count the entries of the items that they name; in order."""
    found: Concerned = {}
    if marks:
        values = {
            "kinds": [mark.kind for mark in marks],
            "ids": [mark.id for mark in marks],
            "sinces": [mark.since for mark in marks],
        }
        for kind, id, since in session.execute(_CONCERNED, values):
            found.setdefault(kind, {})[id] = since
    return found


def mark(session: Session, kind: str, ids: Collection[int]) -> None:
    """Mark merits or targets, so that they are computed again from all of their entries."""
    if ids:
        session.execute(_MARK, {"kind": kind, "ids": list(ids)})

"""Marks: what is to be computed again."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import ARRAY, BigInteger, bindparam, text
from sqlalchemy.orm import Session

# A goal is a merit or a target: ("merit", 17).
Goal = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Mark:
    """Something to compute again: an "item" (for the goals that count it), a "merit" or a "target"."""

    kind: str
    id: int
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
    RETURNING m.kind, m.subject_id AS id, m.marked_at
    """
)

# An entry counts for its item and for all above it, so a marked item concerns the goals of its ancestors.
_GOALS_OF_ITEMS = text(
    """
    WITH RECURSIVE above AS (
        SELECT deed_item_id, parent_deed_item_id FROM deed_items WHERE deed_item_id = ANY (:items)
        UNION
        SELECT i.deed_item_id, i.parent_deed_item_id
        FROM deed_items AS i JOIN above ON i.deed_item_id = above.parent_deed_item_id
    )
    SELECT 'merit' AS kind, mi.merit_id AS id FROM merit_items AS mi JOIN above USING (deed_item_id)
    UNION
    SELECT 'target', ti.target_id FROM target_items AS ti JOIN above USING (deed_item_id)
    """
).bindparams(bindparam("items", type_=ARRAY(BigInteger)))


def take_marks(session: Session, limit: int) -> list[Mark]:
    """Take up to `limit` marks away and return them; what others are just taking is passed over."""
    return [Mark(*row) for row in session.execute(_TAKE_MARKS, {"limit": limit})]


def goals_of_items(session: Session, items: Collection[int]) -> set[Goal]:
    """Return the goals that count the entries of any of `items`."""
    return {(row.kind, row.id) for row in session.execute(_GOALS_OF_ITEMS, {"items": sorted(items)})}

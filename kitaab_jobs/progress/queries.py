"""The SQL of progress: one pass over the goals that it is given, however many."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from sqlalchemy import ARRAY, BigInteger, Date, String, TextClause, bindparam, text
from sqlalchemy.orm import Session

# A goal is a merit or a target: ("merit", 17).
Goal = tuple[str, int]

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
    RETURNING m.kind, m.subject_id
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

# Locked in the order of their ids, before the entries are read: two workers at one goal take turns, and
# the second one reads what the first one's marks had brought.
_LOCK_MERITS = text(
    """
    SELECT merit_id FROM merits WHERE merit_id = ANY (:ids) ORDER BY merit_id FOR NO KEY UPDATE
    """
).bindparams(bindparam("ids", type_=ARRAY(BigInteger)))
_LOCK_TARGETS = text(
    """
    SELECT target_id FROM targets WHERE target_id = ANY (:ids) ORDER BY target_id FOR NO KEY UPDATE
    """
).bindparams(bindparam("ids", type_=ARRAY(BigInteger)))

_ZONES = text("SELECT DISTINCT timezone FROM users")

_MERIT_IDS = text("SELECT merit_id FROM merits WHERE merit_id > :after ORDER BY merit_id LIMIT :limit")
_TARGET_IDS = text("SELECT target_id FROM targets WHERE target_id > :after ORDER BY target_id LIMIT :limit")

# In both: `goal` has one row a goal with its window, `item` one row an item of it.
_MERIT_GOALS = """
    goal AS (
        SELECT m.merit_id AS id, m.user_id, m.merit_type AS logic, m.duration_days AS days,
               CASE WHEN m.duration_days IS NULL THEN '-infinity'::date ELSE m.start_date END AS first_day,
               today.day AS last_day, today.day AS today
        FROM merits AS m JOIN users AS u USING (user_id) JOIN today ON today.zone = u.timezone
        WHERE m.merit_id = ANY (:ids) AND m.is_active AND m.deleted_at IS NULL
    ),
    item AS (
        SELECT merit_id AS goal_id, merit_item_id AS item_id, deed_item_id, scale_value_id, target_value
        FROM merit_items WHERE merit_id = ANY (:ids)
    )"""
_TARGET_GOALS = """
    goal AS (
        SELECT t.target_id AS id, t.user_id, t.target_type AS logic, NULL::integer AS days,
               t.start_date AS first_day, least(t.end_date, today.day) AS last_day, today.day AS today
        FROM targets AS t JOIN users AS u USING (user_id) JOIN today ON today.zone = u.timezone
        WHERE t.target_id = ANY (:ids) AND t.is_active AND t.frozen_at IS NULL AND t.deleted_at IS NULL
    ),
    item AS (
        SELECT target_id AS goal_id, target_item_id AS item_id, deed_item_id, scale_value_id, target_value
        FROM target_items WHERE target_id = ANY (:ids)
    )"""

# The window slides by adding each day's amount on its day and taking it away `days` later, so that one
# running sum holds, on each day on which anything changes, what the window ending that day contains.
# An item's state then changes only on those days, and a second running sum, over the goal, counts how
# many items are reached at once: all of them is AND, at least one is OR.
_STATE = """
    WITH RECURSIVE today AS (
        SELECT zone, day FROM unnest(:zones, :days) AS t (zone, day)
    ),{goals},
    tree AS (
        SELECT DISTINCT deed_item_id AS root, deed_item_id FROM item
        UNION
        SELECT tree.root, i.deed_item_id
        FROM tree JOIN deed_items AS i ON i.parent_deed_item_id = tree.deed_item_id
    ),
    daily AS (
        SELECT item.goal_id, item.item_id, e.entry_date AS day, goal.days, goal.today,
               sum(CASE WHEN item.scale_value_id IS NULL THEN e.count_value
                        WHEN e.scale_value_id = item.scale_value_id THEN 1 END) AS amount
        FROM goal
        JOIN item ON item.goal_id = goal.id
        JOIN tree ON tree.root = item.deed_item_id
        JOIN entries AS e ON e.user_id = goal.user_id AND e.deed_item_id = tree.deed_item_id
            AND e.entry_date BETWEEN goal.first_day AND goal.last_day
        GROUP BY item.goal_id, item.item_id, e.entry_date, goal.days, goal.today
    ),
    change AS (
        SELECT goal_id, item_id, day, sum(amount) AS amount
        FROM (
            SELECT goal_id, item_id, day, amount FROM daily WHERE amount > 0
            UNION ALL
            SELECT goal_id, item_id, day + days, -amount FROM daily WHERE amount > 0 AND day + days <= today
        ) AS steps
        GROUP BY goal_id, item_id, day
    ),
    running AS (
        SELECT goal_id, item_id, day, sum(amount) OVER (PARTITION BY item_id ORDER BY day) AS done FROM change
    ),
    turned AS (
        SELECT goal_id, day, reached::int - lag(reached::int, 1, 0) OVER (PARTITION BY item_id ORDER BY day) AS step
        FROM (
            SELECT r.goal_id, r.item_id, r.day, r.done >= item.target_value AS reached
            FROM running AS r JOIN item USING (item_id)
        ) AS states
    ),
    together AS (
        SELECT goal_id, day, sum(sum(step)) OVER (PARTITION BY goal_id ORDER BY day) AS reached
        FROM turned GROUP BY goal_id, day
    ),
    items AS (SELECT goal_id, count(*) AS total FROM item GROUP BY goal_id),
    verdict AS (
        SELECT goal.id AS goal_id,
               min(together.day) FILTER (WHERE together.reached >= needed.items) AS completed_on,
               coalesce((array_agg(together.reached ORDER BY together.day DESC))[1] >= needed.items, false) AS satisfied
        FROM goal
        LEFT JOIN items ON items.goal_id = goal.id
        -- Without items nothing is needed, and nothing is ever complete: NULL compares to neither.
        CROSS JOIN LATERAL (SELECT CASE goal.logic WHEN 'AND' THEN items.total ELSE least(items.total, 1) END) AS needed (items)
        LEFT JOIN together ON together.goal_id = goal.id
        GROUP BY goal.id, needed.items
    ),
    now_done AS (
        SELECT DISTINCT ON (item_id) item_id, done FROM running ORDER BY item_id, day DESC
    ),
    share AS (
        SELECT goal.id AS goal_id,
               CASE goal.logic WHEN 'AND' THEN avg(least(1, coalesce(done, 0) / target_value))
                               ELSE max(least(1, coalesce(done, 0) / target_value)) END AS part
        FROM goal JOIN item ON item.goal_id = goal.id LEFT JOIN now_done USING (item_id)
        GROUP BY goal.id, goal.logic
    ),
    state AS (
        SELECT verdict.goal_id, verdict.completed_on, verdict.satisfied,
               least(99, floor(100 * coalesce(share.part, 0)))::smallint AS percent
        FROM verdict LEFT JOIN share USING (goal_id)
    )"""

# completed_at is set once and never cleared; a goal that was complete stays at 100.
_WRITE = """
    UPDATE {table} AS g SET
        is_satisfied = state.satisfied,
        completed_on = coalesce(g.completed_on, state.completed_on),
        completed_at = coalesce(g.completed_at, CASE WHEN state.completed_on IS NOT NULL THEN :now END),
        percent = CASE WHEN g.completed_at IS NOT NULL OR state.completed_on IS NOT NULL THEN 100
                       ELSE state.percent END
    FROM state
    WHERE g.{key} = state.goal_id
      AND (g.is_satisfied, g.percent, g.completed_on) IS DISTINCT FROM (
          state.satisfied,
          CASE WHEN g.completed_at IS NOT NULL OR state.completed_on IS NOT NULL THEN 100 ELSE state.percent END,
          coalesce(g.completed_on, state.completed_on))
    RETURNING g.{key} AS id, g.completed_at = :now AS completed_now
"""


def _statement(goals: str, table: str, key: str) -> TextClause:
    return text(_STATE.format(goals=goals) + _WRITE.format(table=table, key=key)).bindparams(
        bindparam("ids", type_=ARRAY(BigInteger)),
        bindparam("zones", type_=ARRAY(String)),
        bindparam("days", type_=ARRAY(Date)),
    )


_COMPUTE = {
    "merit": _statement(_MERIT_GOALS, "merits", "merit_id"),
    "target": _statement(_TARGET_GOALS, "targets", "target_id"),
}


@dataclass(frozen=True, slots=True)
class Changed:
    """A goal whose stored progress was changed."""

    kind: str
    id: int
    completed_now: bool


def take_marks(session: Session, limit: int) -> list[tuple[str, int]]:
    """Take up to `limit` marks away and return what they name: ("item" | "merit" | "target", id)."""
    return [(row.kind, row.subject_id) for row in session.execute(_TAKE_MARKS, {"limit": limit})]


def goals_of_items(session: Session, items: Collection[int]) -> set[Goal]:
    """Return the goals that count the entries of any of `items`."""
    return {(row.kind, row.id) for row in session.execute(_GOALS_OF_ITEMS, {"items": sorted(items)})}


def zones(session: Session) -> list[str]:
    """Return the time zones that people have."""
    return list(session.scalars(_ZONES))


def goal_ids(session: Session, kind: str, after: int, limit: int) -> list[int]:
    """Return the next `limit` ids of all merits or all targets."""
    statement = _MERIT_IDS if kind == "merit" else _TARGET_IDS
    return list(session.scalars(statement, {"after": after, "limit": limit}))


def compute(
    session: Session, kind: str, ids: Collection[int], days: Mapping[str, dt.date], now: dt.datetime
) -> list[Changed]:
    """Compute these merits or targets from the entries, store the result, and return what changed.

    `days` holds today's date in each zone.
    """
    ordered = sorted(ids)
    session.execute(_LOCK_MERITS if kind == "merit" else _LOCK_TARGETS, {"ids": ordered})
    rows = session.execute(
        _COMPUTE[kind], {"ids": ordered, "zones": list(days), "days": list(days.values()), "now": now}
    )
    return [Changed(kind, row.id, bool(row.completed_now)) for row in rows]

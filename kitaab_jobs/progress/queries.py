"""The SQL of progress: one pass over the goals that it is given, however many."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from sqlalchemy import ARRAY, BigInteger, Date, String, TextClause, bindparam, text
from sqlalchemy.orm import Session

# A goal is a merit or a target: ("merit", 17).
Goal = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Mark:
    """Something to compute again: an "item" (for the goals that count it), a "merit" or a "target"."""

    kind: str
    id: int
    marked_at: dt.datetime


@dataclass(frozen=True, slots=True)
class Changed:
    """A goal whose stored progress was changed."""

    kind: str
    id: int
    completed_now: bool


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

# Locked in the order of their ids, before the entries are read: two workers at one goal take turns, and
# the second one reads what the first one's marks had brought.
_LOCK = {
    "merit": text("SELECT FROM merits WHERE merit_id = ANY (:ids) ORDER BY merit_id FOR NO KEY UPDATE"),
    "target": text("SELECT FROM targets WHERE target_id = ANY (:ids) ORDER BY target_id FOR NO KEY UPDATE"),
}

_MERIT_IDS = text("SELECT merit_id FROM merits WHERE merit_id > :after ORDER BY merit_id LIMIT :limit")
_TARGET_IDS = text("SELECT target_id FROM targets WHERE target_id > :after ORDER BY target_id LIMIT :limit")

# In both: `goal` has one row a goal and `item` one row an item of it. The entries from `first_day` to
# `last_day` may count; those since `window_from` are in the window that ends today. A goal that is
# complete stays so, and no other window of it is looked at. No entry is a million days away: a window
# as long as that is every window, and its ends are still dates.
_MERIT_GOALS = """
    goal AS (
        SELECT m.merit_id AS id, m.user_id, m.merit_type AS logic, m.completed_on, today.day AS today, length.days,
               CASE WHEN m.completed_on IS NULL AND length.days IS NOT NULL THEN m.start_date
                    ELSE recent.first_day END AS first_day,
               recent.first_day AS window_from, today.day AS last_day
        FROM merits AS m
        LEFT JOIN local ON local.timezone = (SELECT timezone FROM users WHERE user_id = m.user_id)
        CROSS JOIN LATERAL (SELECT coalesce(local.day, :utc)) AS today (day)
        CROSS JOIN LATERAL (
            SELECT CASE WHEN m.duration_days IS NOT NULL THEN least(m.duration_days, 1000000) END
        ) AS length (days)
        CROSS JOIN LATERAL (
            SELECT CASE WHEN length.days IS NULL THEN '-infinity'
                        ELSE greatest(m.start_date, today.day - length.days + 1) END
        ) AS recent (first_day)
        WHERE m.merit_id = ANY (:ids) AND m.is_active AND m.deleted_at IS NULL
    ),
    item AS (
        SELECT merit_id AS goal_id, merit_item_id AS item_id, deed_item_id, scale_value_id, target_value
        FROM merit_items WHERE merit_id = ANY (:ids)
    )"""
_TARGET_GOALS = """
    goal AS (
        SELECT t.target_id AS id, t.user_id, t.target_type AS logic, t.completed_on, today.day AS today,
               NULL::integer AS days, t.start_date AS first_day, t.start_date AS window_from,
               least(t.end_date, today.day) AS last_day
        FROM targets AS t
        LEFT JOIN local ON local.timezone = (SELECT timezone FROM users WHERE user_id = t.user_id)
        CROSS JOIN LATERAL (SELECT coalesce(local.day, :utc)) AS today (day)
        WHERE t.target_id = ANY (:ids) AND t.is_active AND t.frozen_at IS NULL AND t.deleted_at IS NULL
    ),
    item AS (
        SELECT target_id AS goal_id, target_item_id AS item_id, deed_item_id, scale_value_id, target_value
        FROM target_items WHERE target_id = ANY (:ids)
    )"""

# What stands now is a sum over the window that ends today (`part`). When a goal was first reached is asked
# only where it is not complete and its items have enough over all days. There the window slides by
# adding each amount on its day and taking it away `days` later (`step`), so that a running sum holds, on
# each day on which anything changes, what the window ending that day contains. Kept are the days that
# turn an item from not reached to reached or back (`turn`); a running sum over these, in a goal, counts
# how many of its items are reached at once (`together`).
#
# How all this is joined must not hang on the planner's guesses at what a step returns: one guess of "one
# row" makes the pass quadratic. So nested loops are off (_PLAIN_JOINS), and what is a lookup in a large
# table is written as one: a subquery for each row, with OFFSET 0 where it would be made a join.
_PLAIN_JOINS = text("SELECT set_config('enable_nestloop', 'off', true)")
_STATE = """
    WITH RECURSIVE local AS (
        SELECT timezone, day FROM unnest(:zones, :days) AS t (timezone, day)
    ),{goals},
    tree AS (
        SELECT item.deed_item_id AS root, item.deed_item_id, goal.user_id,
               min(goal.first_day) AS first_day, max(goal.last_day) AS last_day
        FROM goal JOIN item ON item.goal_id = goal.id GROUP BY item.deed_item_id, goal.user_id
        UNION
        SELECT tree.root, i.deed_item_id, tree.user_id, tree.first_day, tree.last_day
        FROM tree
        CROSS JOIN LATERAL (
            SELECT deed_item_id FROM deed_items WHERE parent_deed_item_id = tree.deed_item_id OFFSET 0
        ) AS i
    ),
    entry AS (
        SELECT tree.root, e.entry_date AS day, e.scale_value_id, e.count_value
        FROM tree
        CROSS JOIN LATERAL (
            SELECT entry_date, scale_value_id, count_value FROM entries
            WHERE user_id = tree.user_id AND deed_item_id = tree.deed_item_id
              AND entry_date BETWEEN tree.first_day AND tree.last_day
            OFFSET 0
        ) AS e
    ),
    counted AS (
        SELECT item.item_id, entry.day, entry.day >= goal.window_from AS in_window,
               CASE WHEN item.scale_value_id IS NULL THEN entry.count_value ELSE 1 END AS amount
        FROM goal
        JOIN item ON item.goal_id = goal.id
        JOIN entry ON entry.root = item.deed_item_id
            AND (item.scale_value_id IS NULL OR item.scale_value_id = entry.scale_value_id)
            AND entry.day BETWEEN goal.first_day AND goal.last_day
    ),
    part AS (
        SELECT item.goal_id, item.item_id, item.target_value,
               coalesce(sums.in_window, 0) AS done, coalesce(sums.in_all, 0) AS ever
        FROM item
        LEFT JOIN (
            SELECT item_id, sum(amount) FILTER (WHERE in_window) AS in_window, sum(amount) AS in_all
            FROM counted GROUP BY item_id
        ) AS sums USING (item_id)
    ),
    -- AND needs all of the items, OR one. Without items there is no row, and nothing is complete.
    present AS (
        SELECT goal.id AS goal_id, CASE goal.logic WHEN 'AND' THEN count(*) ELSE 1 END AS needed,
               count(*) FILTER (WHERE part.done >= part.target_value) AS reached,
               count(*) FILTER (WHERE part.ever >= part.target_value) AS reachable,
               CASE goal.logic WHEN 'AND' THEN avg(least(1, part.done / part.target_value))
                               ELSE max(least(1, part.done / part.target_value)) END AS share
        FROM goal JOIN part ON part.goal_id = goal.id GROUP BY goal.id, goal.logic
    ),
    step AS (
        SELECT part.goal_id, part.item_id, part.target_value, step.day, step.amount
        FROM goal
        JOIN present ON present.goal_id = goal.id AND present.reachable >= present.needed
        JOIN part ON part.goal_id = goal.id AND part.ever >= part.target_value
        JOIN counted ON counted.item_id = part.item_id AND counted.amount > 0
        CROSS JOIN LATERAL (
            VALUES (counted.day, counted.amount), (counted.day + goal.days, -counted.amount)
        ) AS step (day, amount)
        WHERE goal.completed_on IS NULL AND step.day <= goal.today
    ),
    -- Steps of one day are peers to the sum: each has the sum at the end of its day.
    turn AS (
        SELECT goal_id, day, reached::int - lag(reached::int, 1, 0) OVER (PARTITION BY item_id ORDER BY day) AS turned
        FROM (
            SELECT goal_id, item_id, day, sum(amount) OVER (PARTITION BY item_id ORDER BY day) >= target_value AS reached
            FROM step
        ) AS sums
    ),
    together AS (
        SELECT goal_id, day, sum(sum(turned)) OVER (PARTITION BY goal_id ORDER BY day) AS reached
        FROM turn WHERE turned <> 0 GROUP BY goal_id, day
    ),
    completion AS (
        SELECT goal_id, min(together.day) AS day
        FROM together JOIN present USING (goal_id)
        WHERE together.reached >= present.needed GROUP BY goal_id
    ),
    -- Thirds have no end in decimals: rounding first keeps 100 * (1/3 + 1/3 + 1/3 + 1) / 4 from being 49.
    state AS (
        SELECT goal.id, coalesce(present.reached >= present.needed, false) AS is_satisfied,
               coalesce(goal.completed_on, completion.day) AS completed_on,
               goal.completed_on IS NULL AND completion.day IS NOT NULL AS completes,
               CASE WHEN goal.completed_on IS NOT NULL OR completion.day IS NOT NULL THEN 100
                    ELSE least(99, floor(round(100 * coalesce(present.share, 0), 12))) END::smallint AS percent
        FROM goal
        LEFT JOIN present ON present.goal_id = goal.id
        LEFT JOIN completion ON completion.goal_id = goal.id
    )"""
_DIFFERS = """
    (g.is_satisfied, g.percent, g.completed_on)
        IS DISTINCT FROM (state.is_satisfied, state.percent, state.completed_on)"""

_DIFFERENT = (
    _STATE
    + """
    SELECT state.id FROM state JOIN {table} AS g ON g.{key} = state.id AND g.{key} = ANY (:ids)
    WHERE """
    + _DIFFERS
)

# completed_at is set once and never cleared; a goal that was complete stays at 100.
_WRITE = (
    _STATE
    + """
    UPDATE {table} AS g SET
        is_satisfied = state.is_satisfied,
        percent = state.percent,
        completed_on = state.completed_on,
        completed_at = CASE WHEN state.completes THEN :now ELSE g.completed_at END
    FROM state
    WHERE g.{key} = state.id AND g.{key} = ANY (:ids) AND """
    + _DIFFERS
    + """
    RETURNING state.id, state.completes
"""
)


def _statement(template: str, goals: str, table: str, key: str) -> TextClause:
    return text(template.format(goals=goals, table=table, key=key)).bindparams(
        bindparam("ids", type_=ARRAY(BigInteger)),
        bindparam("zones", type_=ARRAY(String)),
        bindparam("days", type_=ARRAY(Date)),
        bindparam("utc", type_=Date),
    )


def _both(template: str) -> dict[str, TextClause]:
    return {
        "merit": _statement(template, _MERIT_GOALS, "merits", "merit_id"),
        "target": _statement(template, _TARGET_GOALS, "targets", "target_id"),
    }


_COMPARE, _COMPUTE = _both(_DIFFERENT), _both(_WRITE)


def take_marks(session: Session, limit: int) -> list[Mark]:
    """Take up to `limit` marks away and return them; what others are just taking is passed over."""
    return [Mark(*row) for row in session.execute(_TAKE_MARKS, {"limit": limit})]


def goals_of_items(session: Session, items: Collection[int]) -> set[Goal]:
    """Return the goals that count the entries of any of `items`."""
    return {(row.kind, row.id) for row in session.execute(_GOALS_OF_ITEMS, {"items": sorted(items)})}


def goal_ids(session: Session, kind: str, after: int, limit: int) -> list[int]:
    """Return the next `limit` ids of all merits or all targets."""
    statement = _MERIT_IDS if kind == "merit" else _TARGET_IDS
    return list(session.scalars(statement, {"after": after, "limit": limit}))


def different(session: Session, kind: str, ids: Collection[int], days: Mapping[str, dt.date]) -> list[int]:
    """Return those of these merits or targets whose stored progress is not what the entries say.

    Locks nothing, so what it returns may be about to be computed by somebody else.
    """
    session.execute(_PLAIN_JOINS)
    return list(session.scalars(_COMPARE[kind], _values(ids, days)))


def compute(
    session: Session, kind: str, ids: Collection[int], days: Mapping[str, dt.date], now: dt.datetime
) -> list[Changed]:
    """Compute these merits or targets from the entries, store the result, and return what changed.

    `days` holds today's date in each zone; where a person's zone is not among them, UTC's counts.
    """
    session.execute(_LOCK[kind], {"ids": sorted(ids)})
    session.execute(_PLAIN_JOINS)
    rows = session.execute(_COMPUTE[kind], {**_values(ids, days), "now": now})
    return [Changed(kind, row.id, row.completes) for row in rows]


def _values(ids: Collection[int], days: Mapping[str, dt.date]) -> dict[str, object]:
    return {"ids": sorted(ids), "zones": list(days), "days": list(days.values()), "utc": days["UTC"]}

"""What a goal shows, from its entries: the SQL that the docstring of the package says in words.

It is made of pieces, common table expressions that follow each other: `goal` and `item` differ between
merits and targets, `today` between what holds now and what held when a goal was computed.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Mapping
from typing import Any

from sqlalchemy import ARRAY, BigInteger, Date, String, TextClause, bindparam, text
from sqlalchemy.orm import Session
from sqlalchemy.types import TypeEngine

KINDS = ("merit", "target")

# What holds now, and what held on the day that the goal was computed for.
NOW = "coalesce(local.day, :utc)"
STORED = "g.as_of"

# Which goals are looked at.
THESE = "= ANY (:ids)"

# The first day on which something changed that a goal has not seen: each goal's own, or all days.
SINCE = (
    "coalesce(asked.since, '-infinity')",
    "JOIN unnest(:ids, :sinces) AS asked (id, since) ON asked.id = g.{kind}_id",
)
EVER = ("'-infinity'::date", "")

# Today in each zone.
LOCAL = "local AS (SELECT timezone, day FROM unnest(:zones, :days) AS t (timezone, day))"

# In both: `goal` has one row a goal and `item` one row an item of it. A whole window has `total` days, and
# one that slides has `days`. No entry is a million days away: a window as long as that is every window, and
# its ends are still dates.
_MERIT_GOALS = """
    goal AS (
        SELECT g.merit_id AS id, g.user_id, g.merit_type AS logic, g.completed_on, today.day AS today,
               CASE WHEN g.duration_days IS NOT NULL THEN least(g.duration_days, 1000000) END AS days,
               g.duration_days AS total, g.start_date, NULL::date AS end_date,
               g.is_satisfied AS was_satisfied, g.percent AS was_percent, g.as_of AS was_as_of, {since} AS since
        FROM merits AS g {asked}
        LEFT JOIN local ON local.timezone = (SELECT timezone FROM users WHERE user_id = g.user_id)
        CROSS JOIN LATERAL (SELECT {today}) AS today (day)
        WHERE g.merit_id {which} AND g.is_active AND g.deleted_at IS NULL
    ),
    item AS (
        SELECT merit_id AS goal_id, merit_item_id AS item_id, deed_item_id, scale_value_id, target_value,
               direction = 'at_most' AS at_most
        FROM merit_items WHERE merit_id {which}
    )"""
_TARGET_GOALS = """
    goal AS (
        SELECT g.target_id AS id, g.user_id, g.target_type AS logic, g.completed_on, today.day AS today,
               NULL::integer AS days, g.end_date - g.start_date + 1 AS total, g.start_date, g.end_date,
               g.is_satisfied AS was_satisfied, g.percent AS was_percent, g.as_of AS was_as_of, {since} AS since
        FROM targets AS g {asked}
        LEFT JOIN local ON local.timezone = (SELECT timezone FROM users WHERE user_id = g.user_id)
        CROSS JOIN LATERAL (SELECT {today}) AS today (day)
        WHERE g.target_id {which} AND g.is_active AND g.frozen_at IS NULL AND g.deleted_at IS NULL
    ),
    item AS (
        SELECT target_id AS goal_id, target_item_id AS item_id, deed_item_id, scale_value_id, target_value,
               direction = 'at_most' AS at_most
        FROM target_items WHERE target_id {which}
    )"""
_GOALS = {"merit": _MERIT_GOALS, "target": _TARGET_GOALS}

# The window that is looked at now ends today; yesterday where it must be over, because an item asks for "at
# most", or because AND has one that does. Entries since `window_from` are in that window, those since
# `first_day` in one that may complete the goal: a goal that is complete stays so, and no other window of it
# is looked at. All of them end with `last_day`.
#
# What is stored has looked at every window until the day that it was computed for, with all that had changed by
# then. So windows that were over before that day, and before the first day that has changed since, are
# not looked at again: they are as they were, and were not enough. Yet the entries of a mark that is still to be taken may
# be there already. So where a window that is looked at may complete the goal, its first one is sought among all.
PARTS = """
    part AS (
        SELECT item.goal_id, item.item_id, item.deed_item_id, item.scale_value_id, item.target_value, item.at_most,
               goal.user_id, goal.days, goal.total, goal.start_date, goal.completed_on IS NOT NULL AS is_complete,
               until.day AS until,
               CASE WHEN goal.completed_on IS NOT NULL OR goal.total IS NULL THEN recent.first_day
                    WHEN goal.days IS NULL THEN goal.start_date
                    ELSE least(recent.first_day, greatest(goal.start_date, news.day - goal.days + 1)) END AS first_day,
               recent.first_day AS window_from, least(goal.end_date, until.day) AS last_day
        FROM goal
        JOIN (
            SELECT item.*, bool_or(item.at_most) OVER (PARTITION BY item.goal_id) AS any_at_most FROM item
        ) AS item ON item.goal_id = goal.id
        CROSS JOIN LATERAL (
            SELECT goal.today - (item.at_most OR (goal.logic = 'AND' AND item.any_at_most))::integer
        ) AS until (day)
        CROSS JOIN LATERAL (
            SELECT CASE WHEN goal.total IS NULL THEN '-infinity' WHEN goal.days IS NULL THEN goal.start_date
                        ELSE greatest(goal.start_date, until.day - goal.days + 1) END
        ) AS recent (first_day)
        CROSS JOIN LATERAL (SELECT least(goal.since, coalesce(goal.was_as_of, '-infinity'))) AS news (day)
    )"""

# What stands now is a sum over the window that is looked at (`done`), and `ever` one over all that may complete
# the goal. When a goal was first reached is asked only where it is not complete and its items have enough of
# that. There the window slides by adding each amount on its day and taking it away `days` later (`step`), so that a
# running sum holds, on each day on which anything changes, what the window ending that day contains. That is done for
# each item by itself, where its entries are read: all of them at once would be sorted on disk. Kept are the days that
# turn an item from not reached to reached or back (`turn`); a running sum over these, in a goal, counts how many of its
# items are reached at once (`together`).
#
# "At most" asks for a whole window as well, with something recorded on each day, whatever it was: besides
# the amounts, the recorded days are summed up.
#
# How all this is joined must not hang on the planner's guesses at what a step returns: one guess of "one
# row" makes the pass quadratic. So nested loops are off (PLAIN_JOINS), and what is a lookup in a large
# table is written as one: a subquery for each row, with OFFSET 0 where it would be made a join. Entries are added up
# where they are read.
PLAIN_JOINS = text("SELECT set_config('enable_nestloop', 'off', true)")

# `items` are all deed items whose entries a part counts: its own and those below. In the order of the index, so that
# its pages are read one after the other.
WHOLE = """
    tree AS (
        SELECT deed_item_id AS root, deed_item_id FROM part
        UNION
        SELECT tree.root, i.deed_item_id
        FROM tree
        CROSS JOIN LATERAL (
            SELECT deed_item_id FROM deed_items WHERE parent_deed_item_id = tree.deed_item_id OFFSET 0
        ) AS i
    ),
    whole AS (
        SELECT part.*, below.items
        FROM part JOIN (SELECT root, array_agg(deed_item_id) AS items FROM tree GROUP BY root) AS below
            ON below.root = part.deed_item_id
        ORDER BY part.user_id, part.deed_item_id
    )"""

# What is said of the entries of a part `p`, in words that stand for it in the statements.
_WORDS = {
    "THEIR": """user_id = p.user_id AND deed_item_id = ANY (p.items)
                  AND entry_date BETWEEN p.first_day AND p.last_day""",
    "AMOUNT": "CASE WHEN p.scale_value_id IS NULL THEN count_value ELSE 1 END",
    "VALUED": "(p.scale_value_id IS NULL OR scale_value_id = p.scale_value_id)",
    "WHATEVER": """CASE WHEN p.scale_value_id IS NULL THEN coalesce(count_value, 0)
                           WHEN p.scale_value_id = scale_value_id THEN 1 ELSE 0 END""",
}


def entries_of(sql: str) -> str:
    """Return a piece of SQL with the words for a part's entries replaced by what they mean."""
    for word, meaning in _WORDS.items():
        sql = sql.replace(word, meaning)
    return sql


_STATE = entries_of(
    """
    sums AS (
        SELECT p.*, coalesce(e.done, 0) AS done, coalesce(e.done, 0) + coalesce(e.before, 0) AS ever,
               0 AS recorded, 0 AS ever_recorded
        FROM whole AS p
        CROSS JOIN LATERAL (
            SELECT sum(AMOUNT) FILTER (WHERE entry_date >= p.window_from) AS done,
                   sum(AMOUNT) FILTER (WHERE entry_date < p.window_from) AS before
            FROM entries WHERE THEIR AND VALUED
        ) AS e
        WHERE NOT p.at_most
        UNION ALL
        SELECT p.*, coalesce(e.done, 0), coalesce(e.ever, 0), e.recorded, e.ever_recorded
        FROM whole AS p
        CROSS JOIN LATERAL (
            SELECT sum(WHATEVER) FILTER (WHERE entry_date >= p.window_from) AS done, sum(WHATEVER) AS ever,
                   count(DISTINCT entry_date) FILTER (WHERE entry_date >= p.window_from) AS recorded,
                   count(DISTINCT entry_date) AS ever_recorded
            FROM entries WHERE THEIR
        ) AS e
        WHERE p.at_most
    ),
    judged AS (
        SELECT sums.*,
               CASE WHEN at_most THEN coalesce(recorded = total AND done <= target_value, false)
                    ELSE done >= target_value END AS is_reached,
               CASE WHEN at_most THEN coalesce(ever_recorded >= total, false) ELSE ever >= target_value END AS may_be,
               CASE WHEN NOT at_most THEN least(1, done / target_value)
                    WHEN total IS NULL OR done > target_value THEN 0
                    ELSE recorded::numeric / total END AS share
        FROM sums
    ),
    -- AND needs all of the items, OR one. Without items there is no row, and nothing is complete.
    present AS (
        SELECT goal.id AS goal_id, CASE goal.logic WHEN 'AND' THEN count(*) ELSE 1 END AS needed,
               count(*) FILTER (WHERE judged.is_reached) AS reached,
               count(*) FILTER (WHERE judged.may_be) AS reachable,
               CASE goal.logic WHEN 'AND' THEN avg(judged.share) ELSE max(judged.share) END AS share
        FROM goal JOIN judged ON judged.goal_id = goal.id GROUP BY goal.id, goal.logic
    ),
    sliding AS (
        SELECT judged.goal_id, judged.user_id, judged.items, judged.scale_value_id, judged.target_value, judged.at_most,
               judged.days, judged.total, least(judged.first_day, judged.start_date) AS first_day, judged.last_day,
               judged.until
        FROM present JOIN judged ON judged.goal_id = present.goal_id
        WHERE (judged.may_be OR judged.first_day > judged.start_date) AND present.reachable >= present.needed
          AND NOT judged.is_complete
    ),
    -- Steps of one day are peers to the sum: each has the sum at the end of its day.
    turn AS (
        SELECT p.goal_id, turned.day, turned.by
        FROM sliding AS p
        CROSS JOIN LATERAL (
            SELECT day, reached::int - lag(reached::int, 1, 0) OVER (ORDER BY day) AS by
            FROM (
                SELECT step.day,
                       CASE WHEN p.at_most THEN sum(step.recorded) OVER so_far = p.total
                                AND sum(step.amount) OVER so_far <= p.target_value
                            ELSE sum(step.amount) OVER so_far >= p.target_value END AS reached
                FROM (
                    SELECT entry_date AS day, AMOUNT AS amount, 0 AS recorded
                    FROM entries WHERE THEIR AND VALUED AND AMOUNT > 0 AND NOT p.at_most
                    UNION ALL
                    SELECT entry_date, sum(WHATEVER), 1 FROM entries WHERE THEIR AND p.at_most GROUP BY entry_date
                ) AS counted
                CROSS JOIN LATERAL (
                    VALUES (counted.day, counted.amount, counted.recorded),
                           (counted.day + p.days, -counted.amount, -counted.recorded)
                ) AS step (day, amount, recorded)
                WHERE step.day <= p.until WINDOW so_far AS (ORDER BY step.day)
            ) AS running
        ) AS turned
        WHERE turned.by <> 0
    ),
    together AS (
        SELECT goal_id, day, sum(sum(turn.by)) OVER (PARTITION BY goal_id ORDER BY day) AS reached
        FROM turn GROUP BY goal_id, day
    ),
    completion AS (
        SELECT goal_id, min(together.day) AS day
        FROM together JOIN present USING (goal_id)
        WHERE together.reached >= present.needed GROUP BY goal_id
    ),
    state AS (
        SELECT shown.*, goal.today, goal.end_date, goal.was_percent, goal.was_satisfied, goal.was_as_of,
               goal.completed_on IS NULL AND shown.completed_on IS NOT NULL AS completes,
               (shown.is_satisfied, shown.percent, shown.completed_on)
                   IS DISTINCT FROM (goal.was_satisfied, goal.was_percent, goal.completed_on) AS differs
        FROM goal
        LEFT JOIN present ON present.goal_id = goal.id
        LEFT JOIN completion ON completion.goal_id = goal.id
        CROSS JOIN LATERAL (
            SELECT goal.id, coalesce(present.reached >= present.needed, false) AS is_satisfied,
                   coalesce(goal.completed_on, completion.day) AS completed_on,
                   {percent} AS percent
        ) AS shown
    )"""
)

# Thirds have no end in decimals: rounding first keeps 100 * (1/3 + 1/3 + 1/3 + 1) / 4 from being 49.
PERCENT = """CASE WHEN goal.completed_on IS NOT NULL OR completion.day IS NOT NULL THEN 100
                        ELSE least(99, floor(round(100 * coalesce(present.share, 0), 12))) END::smallint"""


def goals(kind: str, *, today: str = NOW, which: str = THESE, since: tuple[str, str] = EVER) -> str:
    """Return the common table expressions `goal` and `item`."""
    day, asked = since
    return _GOALS[kind].format(today=today, which=which, since=day, asked=asked.format(kind=kind))


def state(kind: str, *, today: str = NOW, since: tuple[str, str] = EVER) -> str:
    """Return the common table expressions that end in `state`, for the goals `:ids`."""
    return f"WITH RECURSIVE {LOCAL},{goals(kind, today=today, since=since)},{PARTS},{WHOLE},{_STATE.format(percent=PERCENT)}"


def statement(sql: str) -> TextClause:
    """Return a statement with the types of what it takes."""
    types: dict[str, TypeEngine[Any]] = {
        "ids": ARRAY(BigInteger),
        "zones": ARRAY(String),
        "days": ARRAY(Date),
        "utc": Date(),
        "items": ARRAY(BigInteger),
        "sinces": ARRAY(Date),
    }
    made = text(sql)
    return made.bindparams(
        *(bindparam(name, type_=type_) for name, type_ in types.items() if name in made._bindparams)
    )


def values(days: Mapping[str, dt.date], ids: Collection[int] | None = None) -> dict[str, object]:
    """Return the parameters: today's date in each zone, and the goals."""
    given: dict[str, object] = {"zones": list(days), "days": list(days.values()), "utc": days["UTC"]}
    return given if ids is None else {**given, "ids": sorted(ids)}


def plain_joins(session: Session) -> None:
    """Make what follows in this transaction be joined as `state` needs it."""
    session.execute(PLAIN_JOINS)

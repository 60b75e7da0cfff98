"""One scan over all entries that finds the goals worth comparing.

Reconcile has to look at every entry, and looking items up one by one costs a page for each entry. So this
reads the entries once, in the order in which they lie, and adds them up for all goals. What it returns is
compared by `goals.differences`, whose word counts: here a goal may be named too often, and never too seldom.
"""

from __future__ import annotations

import datetime as dt
from array import array
from collections.abc import Mapping

from sqlalchemy import ARRAY, String, bindparam, text
from sqlalchemy.orm import Session

from kitaab_jobs.progress.queries.state import KINDS, LOCAL, PARTS, PERCENT, goals, statement, values

# What one sort or hash of the scan may take before it goes to disk, in the server.
WORK_MEM = "64MB"
# The planner cannot know how many items an array holds, and takes it for ten. So it is told what becomes of that:
# scan the entries once instead of looking up items, and hash the sums of what comes instead of sorting it.
_SETTINGS = {
    "work_mem": WORK_MEM,
    "statement_timeout": "0",
    "enable_nestloop": "off",
    "enable_mergejoin": "off",
    "enable_sort": "off",
}
SET = text("SELECT set_config(name, value, true) FROM unnest(:names, :values) AS s (name, value)").bindparams(
    bindparam("names", list(_SETTINGS), ARRAY(String)),
    bindparam("values", list(_SETTINGS.values()), ARRAY(String)),
)
_RESET = text(
    "SELECT set_config(name, reset_val, true) FROM pg_settings WHERE name = ANY (:names)"
).bindparams(bindparam("names", list(_SETTINGS), ARRAY(String)))

# Named are:
# - goals that show another percent or satisfaction than the sums of the window that is looked at now;
# - goals that are not complete, though enough of their items have been reached at some time. For what slides
#   that is the largest sum of any window (`best`). The length of a window differs from item to item, and a
#   frame cannot; so days are counted in lengths, and a window is all that is less than one length ago;
# - goals that ask for "at most": of these the days would have to be counted.
_SUSPECTS = """
    WITH RECURSIVE {local},{goals},{parts},
    tree AS (
        SELECT deed_item_id AS root, deed_item_id FROM part WHERE NOT at_most
        UNION
        SELECT tree.root, i.deed_item_id FROM tree JOIN deed_items AS i ON i.parent_deed_item_id = tree.deed_item_id
    ),
    counting AS (
        SELECT tree.deed_item_id, part.item_id, part.scale_value_id, part.first_day, part.window_from, part.last_day,
               part.days, part.days IS NOT NULL AND NOT part.is_complete AS slides
        FROM part JOIN tree ON tree.root = part.deed_item_id WHERE NOT part.at_most
    ),
    -- What is counted goes to parallel workers as one value: they cannot read common table expressions.
    amounts AS MATERIALIZED (
        SELECT c.item_id, sum(amount.of) FILTER (WHERE e.entry_date >= c.window_from) AS done, sum(amount.of) AS best
        FROM unnest((SELECT array_agg(counting) FROM counting WHERE NOT slides)) AS c ({columns})
        JOIN entries AS e USING (deed_item_id)
        CROSS JOIN LATERAL (SELECT CASE WHEN c.scale_value_id IS NULL THEN e.count_value ELSE 1 END) AS amount (of)
        WHERE e.entry_date BETWEEN c.first_day AND c.last_day
          AND (c.scale_value_id IS NULL OR c.scale_value_id = e.scale_value_id)
        GROUP BY c.item_id
    ),
    sliding AS MATERIALIZED (
        SELECT item_id, sum(amount) FILTER (WHERE in_window) AS done, max(best) AS best
        FROM (
            SELECT c.item_id, amount.of AS amount, e.entry_date >= c.window_from AS in_window,
                   sum(amount.of) OVER (
                       PARTITION BY c.item_id ORDER BY (e.entry_date - date '2000-01-01') / c.days::float8
                       RANGE BETWEEN 0.9999999 PRECEDING AND CURRENT ROW
                   ) AS best
            FROM unnest((SELECT array_agg(counting) FROM counting WHERE slides)) AS c ({columns})
            JOIN entries AS e USING (deed_item_id)
            CROSS JOIN LATERAL (SELECT CASE WHEN c.scale_value_id IS NULL THEN e.count_value ELSE 1 END) AS amount (of)
            WHERE e.entry_date BETWEEN c.first_day AND c.last_day
              AND (c.scale_value_id IS NULL OR c.scale_value_id = e.scale_value_id)
        ) AS sums
        GROUP BY item_id
    ),
    sums AS (SELECT * FROM amounts UNION ALL SELECT * FROM sliding),
    present AS (
        SELECT goal.id AS goal_id, CASE goal.logic WHEN 'AND' THEN count(*) ELSE 1 END AS needed,
               count(*) FILTER (WHERE sums.done >= part.target_value) AS reached,
               count(*) FILTER (WHERE sums.best >= part.target_value) AS reachable,
               bool_or(part.at_most) AS any_at_most,
               CASE goal.logic WHEN 'AND' THEN avg(least(1, coalesce(sums.done, 0) / nullif(part.target_value, 0)))
                    ELSE max(least(1, sums.done / nullif(part.target_value, 0))) END AS share
        FROM goal JOIN part ON part.goal_id = goal.id LEFT JOIN sums USING (item_id) GROUP BY goal.id, goal.logic
    )
    SELECT goal.id
    FROM goal
    LEFT JOIN present ON present.goal_id = goal.id
    CROSS JOIN (SELECT NULL::date AS day) AS completion
    WHERE present.any_at_most
       OR (coalesce(present.reached >= present.needed, false), {percent})
              IS DISTINCT FROM (goal.was_satisfied, goal.was_percent)
       OR (goal.completed_on IS NULL AND present.reachable >= present.needed)
    ORDER BY goal.id
"""

_COLUMNS = """deed_item_id bigint, item_id bigint, scale_value_id bigint, first_day date, window_from date,
            last_day date, days integer, slides boolean"""

ALL = "> 0"
STATEMENTS = {
    kind: statement(
        _SUSPECTS.format(
            local=LOCAL,
            goals=goals(kind, which=ALL),
            parts=PARTS,
            percent=PERCENT,
            columns=_COLUMNS,
        )
    )
    for kind in KINDS
}


def suspects(session: Session, kind: str, days: Mapping[str, dt.date]) -> array[int]:
    """Return, in order, the ids of all merits or targets that may show something else than they should."""
    session.execute(SET)
    rows = session.scalars(STATEMENTS[kind], values(days), execution_options={"yield_per": 10_000})
    found = array("q", rows)
    session.execute(_RESET)
    return found

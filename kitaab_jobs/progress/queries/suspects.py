"""One scan over all entries that finds the goals worth comparing.

Reconcile has to look at every entry, and looking items up one by one costs a page for each entry. So this
reads the entries once, in the order in which they lie, and adds them up for all goals. What it returns is
compared by `goals.differences`, whose word counts: here a goal may be named too often, and never too seldom.
"""

from __future__ import annotations

import datetime as dt
from array import array
from collections.abc import Mapping

from sqlalchemy import text
from sqlalchemy.orm import Session

from kitaab_jobs.progress.queries.state import GOALS, LOCAL, NOW, PARTS, PERCENT, statement, values

# What one sort or hash of the scan may take before it goes to disk, in the server.
WORK_MEM = "64MB"
_SETTINGS = text(
    "SELECT set_config('work_mem', :work_mem, true), set_config('enable_nestloop', 'on', true),"
    " set_config('statement_timeout', '0', true)"
)

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
    sums AS (
        SELECT counting.item_id,
               sum(amount.of) FILTER (WHERE e.entry_date >= counting.window_from) AS done, sum(amount.of) AS best
        FROM counting
        JOIN entries AS e USING (deed_item_id)
        CROSS JOIN LATERAL (
            SELECT CASE WHEN counting.scale_value_id IS NULL THEN e.count_value ELSE 1 END
        ) AS amount (of)
        WHERE NOT counting.slides AND e.entry_date BETWEEN counting.first_day AND counting.last_day
          AND (counting.scale_value_id IS NULL OR counting.scale_value_id = e.scale_value_id)
        GROUP BY counting.item_id
        UNION ALL
        SELECT item_id, sum(amount) FILTER (WHERE in_window), max(best)
        FROM (
            SELECT counting.item_id, amount.of AS amount, e.entry_date >= counting.window_from AS in_window,
                   sum(amount.of) OVER (
                       PARTITION BY counting.item_id
                       ORDER BY (e.entry_date - date '2000-01-01') / counting.days::float8
                       RANGE BETWEEN 0.9999999 PRECEDING AND CURRENT ROW
                   ) AS best
            FROM counting
            JOIN entries AS e USING (deed_item_id)
            CROSS JOIN LATERAL (
                SELECT CASE WHEN counting.scale_value_id IS NULL THEN e.count_value ELSE 1 END
            ) AS amount (of)
            WHERE counting.slides AND e.entry_date BETWEEN counting.first_day AND counting.last_day
              AND (counting.scale_value_id IS NULL OR counting.scale_value_id = e.scale_value_id)
        ) AS sliding
        GROUP BY item_id
    ),
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

ALL = "> 0"
_STATEMENTS = {
    kind: statement(
        _SUSPECTS.format(local=LOCAL, goals=goals.format(today=NOW, which=ALL), parts=PARTS, percent=PERCENT)
    )
    for kind, goals in GOALS.items()
}


def suspects(session: Session, kind: str, days: Mapping[str, dt.date]) -> array[int]:
    """Return, in order, the ids of all merits or targets that may show something else than they should."""
    session.execute(_SETTINGS, {"work_mem": WORK_MEM})
    found = session.scalars(_STATEMENTS[kind], values(days), execution_options={"yield_per": 10_000})
    return array("q", found)

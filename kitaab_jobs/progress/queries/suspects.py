"""One pass over all goals that finds those worth comparing.

Reconcile has to look at every goal, and few are wrong. So this adds up what stands now and the best that any window
held, and no more: no steps, no days, no causes. What it returns is compared by `goals.differences`, whose word
counts: here a goal may be named too often, and never too seldom.
"""

from __future__ import annotations

import datetime as dt
from array import array
from collections.abc import Mapping

from sqlalchemy import ARRAY, String, bindparam, text
from sqlalchemy.orm import Session

from kitaab_jobs.progress.queries.state import (
    KINDS,
    LOCAL,
    PARTS,
    PERCENT,
    WHOLE,
    entries_of,
    goals,
    statement,
    values,
)

# What one sort or hash of the pass may take before it goes to disk, in the server.
WORK_MEM = "64MB"
_SETTINGS = {"work_mem": WORK_MEM, "statement_timeout": "0", "enable_nestloop": "off"}
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
#   that is the largest sum of any window (`best`);
# - goals that ask for "at most": of these the days would have to be counted.
_SUSPECTS = entries_of(
    """
    WITH RECURSIVE {local},{goals},{parts},{whole},
    sums AS (
        SELECT p.item_id, e.done, e.best
        FROM whole AS p
        CROSS JOIN LATERAL (
            SELECT sum(AMOUNT) FILTER (WHERE entry_date >= p.window_from) AS done, sum(AMOUNT) AS best
            FROM entries WHERE THEIR AND VALUED
        ) AS e
        WHERE NOT p.at_most AND (p.days IS NULL OR p.is_complete)
        UNION ALL
        SELECT p.item_id, e.done, e.best
        FROM whole AS p
        CROSS JOIN LATERAL (
            SELECT sum(amount) FILTER (WHERE entry_date >= p.window_from) AS done, max(best) AS best
            FROM (
                SELECT entry_date, AMOUNT AS amount,
                       sum(AMOUNT) OVER (
                           ORDER BY entry_date - date '2000-01-01' RANGE BETWEEN p.days - 1 PRECEDING AND CURRENT ROW
                       ) AS best
                FROM entries WHERE THEIR AND VALUED
            ) AS windows
        ) AS e
        WHERE NOT p.at_most AND p.days IS NOT NULL AND NOT p.is_complete
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
)

ALL = "> 0"
STATEMENTS = {
    kind: statement(
        _SUSPECTS.format(
            local=LOCAL,
            goals=goals(kind, which=ALL),
            parts=PARTS,
            whole=WHOLE,
            percent=PERCENT,
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

"""Storing what goals show, and comparing what is stored with the entries."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.orm import Session

from kitaab_jobs.progress.queries.state import (
    KINDS,
    LOCAL,
    SINCE,
    STORED,
    goals,
    plain_joins,
    state,
    statement,
    values,
)


@dataclass(frozen=True, slots=True)
class Changed:
    """A goal whose stored progress was changed."""

    kind: str
    id: int
    completed_now: bool


@dataclass(frozen=True, slots=True)
class Difference:
    """A goal that shows something else than its entries say, and what can be seen of why.

    `is_marked`: a mark for it waits; `is_marked_ahead`: it is of days after `as_of` only. `as_of`: the day that it was
    computed for; `today`: the person's today. `was_right`: what it shows is right for `as_of`. `is_dated_ahead`: entries
    were dated after `as_of`.
    """

    kind: str
    id: int
    is_marked: bool
    is_marked_ahead: bool
    as_of: dt.date | None
    today: dt.date
    was_right: bool
    is_dated_ahead: bool


# Locked before the entries are read: whoever has a goal reads all that was committed before. Nobody waits here: who
# waits for one goal while holding others waits, as likely as not, for somebody who wants one of those; and a person's
# transaction that is left open would hold up everybody's goals.
_LOCK = {
    kind: text(
        f"""
        SELECT array_agg(id ORDER BY id) FROM (
            SELECT {kind}_id AS id FROM {kind}s WHERE {kind}_id = ANY (:ids) ORDER BY {kind}_id
            FOR NO KEY UPDATE SKIP LOCKED
        ) AS locked
        """
    )
    for kind in KINDS
}
_EXIST = {kind: text(f"SELECT {kind}_id FROM {kind}s WHERE {kind}_id = ANY (:ids)") for kind in KINDS}

_COUNT = {
    "merit": text("SELECT count(*) FROM merits WHERE is_active AND deleted_at IS NULL"),
    "target": text(
        "SELECT count(*) FROM targets WHERE is_active AND frozen_at IS NULL AND deleted_at IS NULL"
    ),
}

# A target freezes when its end is more than two of the person's days ago. The index finds those of which
# that is so somewhere on earth.
_OVERDUE = statement(
    """
    WITH local AS (SELECT timezone, day FROM unnest(:zones, :days) AS t (timezone, day))
    SELECT t.target_id
    FROM targets AS t
    JOIN users AS u USING (user_id)
    LEFT JOIN local ON local.timezone = u.timezone
    WHERE t.is_active AND t.frozen_at IS NULL AND t.deleted_at IS NULL
      AND t.end_date < (SELECT max(day) FROM local) - 2 AND t.end_date < coalesce(local.day, :utc) - 2
    ORDER BY t.end_date LIMIT :limit
    """
)

# completed_at is set once and never cleared; a goal that was complete stays at 100. The day is stored even
# where nothing else has changed: reconcile compares with that day's state. {frozen} is for targets only.
_WRITE = """
    UPDATE {kind}s AS g SET
        is_satisfied = state.is_satisfied,
        percent = state.percent,
        completed_on = state.completed_on,
        completed_at = CASE WHEN state.completes THEN :now ELSE g.completed_at END,
        as_of = state.today{frozen}
    FROM state
    WHERE g.{kind}_id = state.id AND g.{kind}_id = ANY (:ids)
      AND (state.differs OR g.as_of IS DISTINCT FROM state.today{or_freezes})
    RETURNING state.id, state.completes, state.differs
"""
_FROZEN = ",\n        frozen_at = CASE WHEN state.end_date < state.today - 2 THEN :now END"
_OR_FREEZES = " OR state.end_date < state.today - 2"

# One statement, so one snapshot: a mark that is not seen here was not there when the goal was wrong.
_DIFFERENT = """
    , differs AS MATERIALIZED (SELECT * FROM state WHERE differs),
    looked_at AS (
        SELECT d.id, d.was_as_of, d.today, whole.user_id, whole.items
        FROM differs AS d JOIN whole ON whole.goal_id = d.id
    ),
    marked AS (
        SELECT id, min(coalesce(since, '-infinity')) AS since
        FROM (
            SELECT subject_id AS id, since FROM jobs.progress_marks WHERE kind = '{kind}'
            UNION ALL
            SELECT of.id, m.since
            FROM (SELECT id, unnest(items) AS item FROM looked_at) AS of
            JOIN jobs.progress_marks AS m ON m.kind = 'item' AND m.subject_id = of.item
        ) AS mark
        GROUP BY id
    ),
    ahead AS (
        SELECT p.id FROM looked_at AS p
        WHERE (SELECT true FROM entries
               WHERE user_id = p.user_id AND deed_item_id = ANY (p.items) AND entry_date > p.was_as_of
                 AND entry_date <= p.today LIMIT 1)
    )
    SELECT d.id, marked.id IS NOT NULL AS is_marked, coalesce(marked.since > d.was_as_of, false) AS is_marked_ahead,
           d.was_as_of AS as_of, d.today, d.id IN (SELECT id FROM ahead) AS is_dated_ahead
    FROM differs AS d LEFT JOIN marked ON marked.id = d.id
"""

_UNCOMPUTED = """
    SELECT id, today, id IN (SELECT subject_id FROM jobs.progress_marks WHERE kind = '{kind}') AS is_marked
    FROM goal WHERE was_as_of IS NULL
"""

_WAS_RIGHT = "SELECT id FROM state WHERE NOT differs"


def _write(kind: str) -> str:
    freezes = kind == "target"
    return state(kind, since=SINCE) + _WRITE.format(
        kind=kind, frozen=_FROZEN if freezes else "", or_freezes=_OR_FREEZES if freezes else ""
    )


COMPUTE = {kind: statement(_write(kind)) for kind in KINDS}
_COMPARE = {kind: statement(state(kind) + _DIFFERENT.format(kind=kind)) for kind in KINDS}
_NEW = {kind: statement(f"WITH {LOCAL},{goals(kind)}{_UNCOMPUTED.format(kind=kind)}") for kind in KINDS}
_AS_IT_WAS = {kind: statement(state(kind, today=STORED) + _WAS_RIGHT) for kind in KINDS}


def goal_count(session: Session, kind: str) -> int:
    """Return how many merits or targets are live."""
    return int(session.scalar(_COUNT[kind]) or 0)


def overdue(session: Session, days: Mapping[str, dt.date], limit: int) -> list[int]:
    """Return up to `limit` targets that are to be computed a last time, because they have been over for long."""
    return list(session.scalars(_OVERDUE, {**values(days), "limit": limit}))


def lock(session: Session, kind: str, ids: Collection[int]) -> tuple[list[int], list[int]]:
    """Lock these merits or targets, and return those that are now ours and those that somebody else holds, in order.

    What does not exist is neither.
    """
    ours: list[int] = session.scalar(_LOCK[kind], {"ids": list(ids)}) or []
    left = set(ids).difference(ours)
    return ours, sorted(session.scalars(_EXIST[kind], {"ids": list(left)})) if left else []


def compute(
    session: Session,
    kind: str,
    since: Mapping[int, dt.date | None],
    days: Mapping[str, dt.date],
    now: dt.datetime,
) -> list[Changed]:
    """Compute these merits or targets from the entries, store the result, and return what changed.

    They must be locked (`lock`). `since` says for each the first day on which something changed that it may not have
    seen; None: on any day. `days` holds today's date in each zone; where a person's zone is not among them, UTC's counts.
    """
    ids = sorted(since)
    plain_joins(session)
    given = {**values(days, ids), "sinces": [since[id] for id in ids], "now": now}
    rows = session.execute(COMPUTE[kind], given)
    return [Changed(kind, row.id, row.completes) for row in rows if row.differs]


def differences(
    session: Session, kind: str, ids: Collection[int], days: Mapping[str, dt.date]
) -> list[Difference]:
    """Return those of these merits or targets whose stored progress is not what the entries say.

    Those that were never computed are among them, without a look at their entries. Locks nothing, so what it
    returns may be about to be computed by somebody else.
    """
    new = [
        Difference(kind, row.id, row.is_marked, False, None, row.today, False, False)
        for row in session.execute(_NEW[kind], values(days, ids))
    ]
    if not (computed := set(ids).difference(one.id for one in new)):
        return new
    plain_joins(session)
    found = session.execute(_COMPARE[kind], values(days, computed)).all()
    ahead = {row.id for row in found if row.is_marked_ahead}
    marked = {row.id for row in found if row.is_marked}
    unexplained = {row.id for row in found if row.as_of is not None} - (marked - ahead)
    right: set[int] = set()
    if unexplained:
        right = set(session.scalars(_AS_IT_WAS[kind], values(days, unexplained)))
    if wrong := unexplained - right:
        # What has come between the two statements has left its mark, or been computed already.
        again = session.execute(_COMPARE[kind], values(days, wrong))
        explained = wrong - {row.id for row in again if row.is_marked_ahead or not row.is_marked}
        marked |= explained
        ahead -= explained
    return new + [
        Difference(
            kind,
            row.id,
            row.id in marked,
            row.id in ahead,
            row.as_of,
            row.today,
            row.id in right,
            row.is_dated_ahead,
        )
        for row in found
    ]

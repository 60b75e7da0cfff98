"""What a recompute would change: each goal that shows something else than its entries say, before and after."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.orm import Session

from kitaab_jobs.progress.queries.state import plain_joins, state, statement, values


@dataclass(frozen=True, slots=True)
class Look:
    """What a goal shows."""

    percent: int
    is_satisfied: bool
    completed_on: dt.date | None


@dataclass(frozen=True, slots=True)
class Planned:
    """A goal that is to be computed again, what it shows and what it will show."""

    kind: str
    id: int
    user_id: int
    shows: Look
    will_show: Look


_PLAN = {
    kind: statement(
        state(kind)
        + """
        SELECT goal.id, goal.user_id, goal.was_percent, goal.was_satisfied, goal.completed_on,
               state.percent, state.is_satisfied, state.completed_on
        FROM state JOIN goal USING (id) WHERE state.differs ORDER BY goal.id
        """
    )
    for kind in ("merit", "target")
}

_IDS = {
    kind: text(
        f"""
        SELECT {kind}_id FROM {kind}s
        WHERE {kind}_id > :after AND (CAST(:person AS bigint) IS NULL OR user_id = :person)
          AND is_active AND deleted_at IS NULL{frozen}
        ORDER BY {kind}_id LIMIT :limit
        """
    )
    for kind, frozen in (("merit", ""), ("target", " AND frozen_at IS NULL"))
}


def live_ids(session: Session, kind: str, person: int | None, after: int, limit: int) -> list[int]:
    """Return the next ids of the merits or targets that are computed at all, of one person or of everybody."""
    return list(session.scalars(_IDS[kind], {"person": person, "after": after, "limit": limit}))


def plan(session: Session, kind: str, ids: Collection[int], days: Mapping[str, dt.date]) -> list[Planned]:
    """Return what computing these merits or targets would change; locks nothing."""
    plain_joins(session)
    rows = session.execute(_PLAN[kind], values(days, ids))
    return [Planned(kind, id, user, Look(*looks[:3]), Look(*looks[3:])) for id, user, *looks in rows]

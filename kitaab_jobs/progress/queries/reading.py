"""The SQL behind `progress show` and `progress explain`: one person, or one goal, with the names of things.

It reads names, which workers may not: for the owner of the tables, or an analyst who may see them.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection
from dataclasses import dataclass
from decimal import Decimal

from sqlalchemy import ARRAY, BigInteger, bindparam, text
from sqlalchemy.orm import Session


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody, deleted or not."""

    id: int
    email: str
    name: str
    zone: str
    is_active: bool
    is_deleted: bool


@dataclass(frozen=True, slots=True)
class Goal:
    """A merit or a target and what it shows; `days` and `end` are a merit's and a target's."""

    kind: str
    id: int
    user_id: int
    name: str
    logic: str
    start: dt.date
    days: int | None
    end: dt.date | None
    percent: int
    is_satisfied: bool
    completed_on: dt.date | None
    completed_at: dt.datetime | None
    as_of: dt.date | None
    is_active: bool
    is_deleted: bool
    is_frozen: bool


@dataclass(frozen=True, slots=True)
class Part:
    """One item of a goal; `below` are the deed items whose entries it counts, itself included."""

    id: int
    item_id: int
    item: str
    target: Decimal
    at_most: bool
    value_id: int | None
    value: str | None
    below: frozenset[int]


@dataclass(frozen=True, slots=True)
class Entry:
    """What was recorded for an item and day."""

    day: dt.date
    item_id: int
    item: str
    count: Decimal | None
    value_id: int | None
    value: str | None


@dataclass(frozen=True, slots=True)
class Streak:
    """Days in a row on which an item, or one below it, was recorded."""

    item_id: int
    item: str
    current_days: int
    current_since: dt.date | None
    longest_days: int
    longest_since: dt.date | None
    last_day: dt.date | None


_PERSON = """
    SELECT user_id, email, full_name, timezone, is_active, deleted_at IS NOT NULL FROM users
    WHERE {} ORDER BY deleted_at IS NOT NULL, user_id LIMIT 1
"""
_PERSON_BY_ID = text(_PERSON.format("user_id = :id"))
_PERSON_BY_EMAIL = text(_PERSON.format("lower(email) = lower(:email)"))

_GOAL = """
    SELECT '{kind}', {kind}_id, user_id, name, {kind}_type::text, start_date, {days}, {end},
           percent, is_satisfied, completed_on, completed_at, as_of, is_active, deleted_at IS NOT NULL, {frozen}
    FROM {kind}s
"""
_MERIT = _GOAL.format(kind="merit", days="duration_days", end="NULL", frozen="false")
_TARGET = _GOAL.format(kind="target", days="NULL", end="end_date", frozen="frozen_at IS NOT NULL")
_GOAL_BY_ID = {
    "merit": text(_MERIT + "WHERE merit_id = :id"),
    "target": text(_TARGET + "WHERE target_id = :id"),
}
# What somebody is at comes first: what is deleted or switched off is only looked for.
_GOALS_OF = {
    kind: text(
        f"{goals} WHERE user_id = :person AND (:all OR (is_active AND deleted_at IS NULL))"
        f" ORDER BY deleted_at IS NOT NULL, NOT is_active, start_date DESC, {kind}_id DESC LIMIT :limit"
    )
    for kind, goals in (("merit", _MERIT), ("target", _TARGET))
}

# An item's name says where it is: deed / item / the one below it.
_NAMED = """
    named AS (
        SELECT i.deed_item_id, i.deed_id, i.deleted_at, i.display_order, d.name || ' / ' || i.name AS name
        FROM deed_items AS i JOIN deeds AS d USING (deed_id)
        WHERE i.parent_deed_item_id IS NULL AND {deeds}
        UNION ALL
        SELECT i.deed_item_id, i.deed_id, i.deleted_at, i.display_order, named.name || ' / ' || i.name
        FROM named JOIN deed_items AS i ON i.parent_deed_item_id = named.deed_item_id
    )"""

_PARTS = (
    """
    WITH RECURSIVE part AS (
        SELECT p.{kind}_item_id AS id, p.deed_item_id, p.target_value, p.direction = 'at_most' AS at_most,
               p.scale_value_id, v.value_name
        FROM {kind}_items AS p LEFT JOIN scale_values AS v USING (scale_value_id) WHERE p.{kind}_id = :id
    ),
    below AS (
        SELECT deed_item_id AS root, deed_item_id FROM part
        UNION
        SELECT below.root, i.deed_item_id FROM below JOIN deed_items AS i ON i.parent_deed_item_id = below.deed_item_id
    ),"""
    + _NAMED.format(deeds="d.deed_id IN (SELECT deed_id FROM part JOIN deed_items USING (deed_item_id))")
    + """
    SELECT part.id, part.deed_item_id, named.name, part.target_value, part.at_most, part.scale_value_id, part.value_name,
           array(SELECT below.deed_item_id FROM below WHERE below.root = part.deed_item_id) AS below
    FROM part JOIN named USING (deed_item_id) ORDER BY part.id
"""
)
_PARTS_OF = {kind: text(_PARTS.format(kind=kind)) for kind in ("merit", "target")}

_DEEDS_OF = {
    "merit": "d.deed_id = (SELECT deed_id FROM merits WHERE merit_id = :id)",
    "target": "d.deed_id IN (SELECT deed_id FROM target_items JOIN deed_items USING (deed_item_id) WHERE target_id = :id)",
}
# By item, and not by person: that is the index that begins with what is asked for here.
_ENTRIES = (
    """
    WITH RECURSIVE"""
    + _NAMED
    + """
    SELECT e.entry_date, e.deed_item_id, named.name, e.count_value, e.scale_value_id, v.value_name
    FROM named
    JOIN entries AS e ON e.deed_item_id = named.deed_item_id AND e.user_id = :person
    LEFT JOIN scale_values AS v ON v.scale_value_id = e.scale_value_id
    ORDER BY e.entry_date DESC, named.name
"""
)
_ENTRIES_OF = {kind: text(_ENTRIES.format(deeds=deeds)) for kind, deeds in _DEEDS_OF.items()}

_STREAKS = text(
    "WITH RECURSIVE"
    + _NAMED.format(deeds="d.user_id = :person AND d.deleted_at IS NULL")
    + """
    SELECT named.deed_item_id, named.name, s.current_days, s.current_since, s.longest_days, s.longest_since, s.last_day
    FROM item_streaks(array(SELECT deed_item_id FROM named WHERE deleted_at IS NULL), :today) AS s
    JOIN named USING (deed_item_id)
    ORDER BY named.name, named.deed_item_id
    """
)

_HAS_MARKS = text(
    """
    SELECT EXISTS (
        SELECT FROM jobs.progress_marks
        WHERE (kind = :kind AND subject_id = :id) OR (kind = 'item' AND subject_id = ANY (:items))
    )
    """
).bindparams(bindparam("items", type_=ARRAY(BigInteger)))


def person(session: Session, who: str) -> Person | None:
    """Return the person with this id or e-mail; of several with the e-mail, the one who was not deleted."""
    if "@" in who:
        found = session.execute(_PERSON_BY_EMAIL, {"email": who}).one_or_none()
    else:
        found = session.execute(_PERSON_BY_ID, {"id": int(who)}).one_or_none()
    return Person(*found) if found else None


def goal(session: Session, kind: str, id: int) -> Goal | None:
    """Return a merit or a target."""
    found = session.execute(_GOAL_BY_ID[kind], {"id": id}).one_or_none()
    return Goal(*found) if found else None


def goals(session: Session, kind: str, person: int, *, all: bool, limit: int) -> list[Goal]:
    """Return a person's merits or targets; with `all`, those too that are deleted or not active."""
    values = {"person": person, "all": all, "limit": limit}
    return [Goal(*row) for row in session.execute(_GOALS_OF[kind], values)]


def parts(session: Session, kind: str, id: int) -> list[Part]:
    """Return the items of a goal."""
    rows = session.execute(_PARTS_OF[kind], {"id": id})
    return [
        Part(
            row.id,
            row.deed_item_id,
            row.name,
            row.target_value,
            row.at_most,
            row.scale_value_id,
            row.value_name,
            frozenset(row.below),
        )
        for row in rows
    ]


def entries(session: Session, goal: Goal) -> list[Entry]:
    """Return all entries of the deeds that a goal is about, the newest first."""
    rows = session.execute(_ENTRIES_OF[goal.kind], {"id": goal.id, "person": goal.user_id})
    return [Entry(*row) for row in rows]


def streaks(session: Session, person: int, today: dt.date) -> list[Streak]:
    """Return the streaks of a person's items."""
    return [Streak(*row) for row in session.execute(_STREAKS, {"person": person, "today": today})]


def has_marks(session: Session, goal: Goal, items: Collection[int]) -> bool:
    """Tell whether a mark waits for a goal that counts these items."""
    values = {"kind": goal.kind, "id": goal.id, "items": sorted(items)}
    return bool(session.scalar(_HAS_MARKS, values))

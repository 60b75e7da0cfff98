"""Which entry counts for which item of a goal, and why another one does not. Pure decisions, one entry at a time.

It says in words for one goal what the SQL of progress does for all; a test holds the two together.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Protocol

_DAY = dt.timedelta(days=1)


class Goal(Protocol):
    """What decides about windows."""

    @property
    def kind(self) -> str: ...
    @property
    def logic(self) -> str: ...
    @property
    def start(self) -> dt.date: ...
    @property
    def days(self) -> int | None: ...
    @property
    def end(self) -> dt.date | None: ...


class Part(Protocol):
    """What decides about entries."""

    @property
    def target(self) -> Decimal: ...
    @property
    def at_most(self) -> bool: ...
    @property
    def value_id(self) -> int | None: ...
    @property
    def below(self) -> frozenset[int]: ...


class Entry(Protocol):
    """What was recorded."""

    @property
    def day(self) -> dt.date: ...
    @property
    def item_id(self) -> int: ...
    @property
    def count(self) -> Decimal | None: ...
    @property
    def value_id(self) -> int | None: ...


@dataclass(frozen=True, slots=True)
class Window:
    """The days whose entries count, both included; without `first`, all until `last`."""

    first: dt.date | None
    last: dt.date

    def __str__(self) -> str:
        return f"{self.first} to {self.last}" if self.first else f"all days until {self.last}"


def until(goal: Goal, part: Part, parts: Iterable[Part], today: dt.date) -> dt.date:
    """Return the day with which the window that is looked at today ends.

    What asks for "at most" is judged when a day is over, and AND looks at all of its items in one window.
    """
    over = part.at_most or (goal.logic == "AND" and any(other.at_most for other in parts))
    return today - _DAY if over else today


def window(goal: Goal, day: dt.date) -> Window:
    """Return the window that ends on `day`."""
    if goal.end is not None:
        return Window(goal.start, min(goal.end, day))
    if goal.days is None:
        return Window(None, day)
    try:
        first = day - (goal.days - 1) * _DAY
    except OverflowError:  # longer than any calendar
        first = dt.date.min
    return Window(max(goal.start, first), day)


def whole(goal: Goal) -> int | None:
    """Return how many days a whole window has; None where it never ends."""
    return goal.days if goal.end is None else (goal.end - goal.start).days + 1


def why_not(goal: Goal, part: Part, entry: Entry, window: Window, today: dt.date) -> str | None:
    """Return why an entry is not counted for an item of a goal; None where it is."""
    if entry.item_id not in part.below:
        return "another item"
    if entry.day > today:
        return "its day has yet to come"
    if goal.end is not None and entry.day > goal.end:
        return f"after the target's end on {goal.end}"
    if entry.day > window.last:
        return f"after {window.last}, the last day that is looked at"
    if window.first is not None and entry.day < window.first:
        begun = entry.day >= goal.start
        return f"before {window.first}" if begun else f"before the {goal.kind}'s start on {goal.start}"
    if part.at_most:
        return None  # whatever it is, its day was recorded
    if part.value_id is not None and entry.value_id != part.value_id:
        return "another scale value" if entry.value_id is not None else "no scale value"
    if part.value_id is None and entry.count is None:
        return "no count"
    return None


def amount(part: Part, entry: Entry) -> Decimal:
    """Return what a counted entry brings to an item."""
    if part.value_id is None:
        return entry.count or Decimal(0)
    return Decimal(int(entry.value_id == part.value_id))


def is_met(goal: Goal, part: Part, done: Decimal, recorded: int) -> bool:
    """Tell whether an item is reached by so much on so many recorded days of a window."""
    if not part.at_most:
        return done >= part.target
    return recorded == whole(goal) and done <= part.target

"""What progress must be, said a second time: dictionaries, and loops over days. Slow and plain.

It is written from the rules (the docstring of kitaab_jobs.progress), not from the SQL. Dates come from
zoneinfo, which carries other zone data than the platform; shares are fractions, which never round.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from math import floor
from zoneinfo import ZoneInfo

DAY = dt.timedelta(days=1)


@dataclass
class Entry:
    """What a person recorded for one item and day."""

    count: Decimal | None = None
    value: int | None = None


@dataclass
class Item:
    """A deed item: whose it is and what it is below."""

    person: int
    deed: int
    parent: int | None = None
    scale: bool = False


@dataclass
class Part:
    """One item of a goal; with a scale value it counts entries, else it sums counts.

    `at_most` asks for no more than `goal`, in a whole window that is over, with something recorded each day.
    """

    item: int
    goal: Decimal
    value: int | None = None
    at_most: bool = False


@dataclass
class Shown:
    """What the database shows of a goal."""

    percent: int = 0
    is_satisfied: bool = False
    completed_on: dt.date | None = None


@dataclass
class Goal:
    """A merit (`days` long, or without length) or a target (which has an `end`)."""

    person: int
    deed: int | None
    logic: str
    start: dt.date
    days: int | None = None
    end: dt.date | None = None
    parts: dict[int, Part] = field(default_factory=dict)
    live: bool = True
    frozen: bool = False
    shown: Shown = field(default_factory=Shown)


@dataclass
class World:
    """Everything that progress depends on."""

    zones: dict[int, str] = field(default_factory=dict)
    items: dict[int, Item] = field(default_factory=dict)
    entries: dict[tuple[int, dt.date], Entry] = field(default_factory=dict)
    goals: dict[tuple[str, int], Goal] = field(default_factory=dict)

    def today(self, person: int, now: dt.datetime) -> dt.date:
        """The date on the person's own calendar."""
        return now.astimezone(ZoneInfo(self.zones[person])).date()

    def is_below(self, item: int, top: int) -> bool:
        """Whether `item` is `top` or a descendant of it."""
        at: int | None = item
        while at is not None and at != top:
            at = self.items[at].parent
        return at == top

    def done(self, part: Part, first: dt.date, last: dt.date) -> Decimal:
        """What the entries from `first` to `last` bring to one part of a goal."""
        total = Decimal(0)
        for (item, day), entry in self.entries.items():
            if first <= day <= last and self.is_below(item, part.item):
                if part.value is None:
                    total += entry.count or 0
                elif entry.value == part.value:
                    total += 1
        return total

    def recorded(self, part: Part, first: dt.date, last: dt.date) -> int:
        """On how many of the days something was recorded for the part's item or below it, whatever it was."""
        return len({d for item, d in self.entries if first <= d <= last and self.is_below(item, part.item)})


def refresh(world: World, now: dt.datetime, goals: Iterable[Goal] | None = None) -> None:
    """Show for these goals, or all, what holds now; what was once complete stays complete, and what froze stays."""
    for goal in world.goals.values() if goals is None else goals:
        if goal.live and not goal.frozen:
            today = world.today(goal.person, now)
            goal.shown = _after(goal.shown, _judge(world, goal, today))
            goal.frozen = goal.end is not None and today > goal.end + 2 * DAY


def _after(before: Shown, found: Shown) -> Shown:
    completed_on = before.completed_on or found.completed_on
    percent = 100 if completed_on else found.percent
    return Shown(percent, found.is_satisfied, completed_on)


def _judge(world: World, goal: Goal, today: dt.date) -> Shown:
    completed_on = None
    for day in _days(world, goal, today):
        if completed_on is None and _reached(
            goal, [_met(world, goal, p, day, today) for p in goal.parts.values()]
        ):
            completed_on = day
    current = [(part, _current(goal, part, today)) for part in goal.parts.values()]
    states = [_met(world, goal, part, day, today) for part, day in current]
    shares = [_share(world, goal, part, day) for part, day in current]
    return Shown(_percent(goal, shares), _reached(goal, states), completed_on)


def _days(world: World, goal: Goal, today: dt.date) -> Iterator[dt.date]:
    """The last day of every window that the goal has had so far."""
    day = min([goal.start, today, *(day for _, day in world.entries)])
    while day <= today:
        if goal.end is None or day <= goal.end:
            yield day
        day += DAY


def _window_of(goal: Goal, day: dt.date) -> tuple[dt.date, dt.date]:
    """The first and the last date whose entries count on `day`."""
    if goal.end is not None:
        return goal.start, min(goal.end, day)
    if goal.days is None:
        return dt.date.min, day
    if (day - goal.start).days < goal.days:
        return goal.start, day
    return day - (goal.days - 1) * DAY, day


def _whole(goal: Goal) -> int | None:
    """How many days a whole window has; None where it never ends."""
    return goal.days if goal.end is None else (goal.end - goal.start).days + 1


def _current(goal: Goal, part: Part, today: dt.date) -> dt.date:
    """The day of the window that is looked at now.

    What asks for "at most" is judged when the day is over, and AND looks at all of its items in one window.
    """
    if part.at_most or (goal.logic == "AND" and any(p.at_most for p in goal.parts.values())):
        return today - DAY
    return today


def _met(world: World, goal: Goal, part: Part, day: dt.date, today: dt.date) -> bool:
    first, last = _window_of(goal, day)
    if not part.at_most:
        return world.done(part, first, last) >= part.goal
    if day >= today or (last - first).days + 1 != _whole(goal):
        return False
    days = [first + n * DAY for n in range((last - first).days + 1)]
    return all(world.recorded(part, d, d) for d in days) and world.done(part, first, last) <= part.goal


def _share(world: World, goal: Goal, part: Part, day: dt.date) -> Fraction:
    """How far one part is: of "at most" the recorded days, as long as it was not too much."""
    first, last = _window_of(goal, day)
    done, whole = world.done(part, first, last), _whole(goal)
    if not part.at_most:
        return min(Fraction(1), Fraction(done) / Fraction(part.goal))
    if whole is None or done > part.goal:
        return Fraction(0)
    return Fraction(world.recorded(part, first, last), whole)


def _reached(goal: Goal, states: list[bool]) -> bool:
    return bool(states) and (all(states) if goal.logic == "AND" else any(states))


def _percent(goal: Goal, shares: list[Fraction]) -> int:
    """The percentage of a goal that was never complete."""
    if not shares:
        return 0
    share = sum(shares) / len(shares) if goal.logic == "AND" else max(shares)
    return min(99, floor(share * 100))

"""Which partitions are to be made."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """The days of a partition, `upper` not included."""

    lower: dt.date
    upper: dt.date

    def overlaps(self, other: Span) -> bool:
        """Tell whether the two share a day."""
        return self.lower < other.upper and other.lower < self.upper


def month_of(day: dt.date) -> Span:
    """Return the calendar month of `day`."""
    lower = day.replace(day=1)
    return Span(lower, (lower + dt.timedelta(days=31)).replace(day=1))


def year_of(day: dt.date) -> Span:
    """Return the calendar year of `day`."""
    return Span(dt.date(day.year, 1, 1), dt.date(day.year + 1, 1, 1))


def plan(existing: Iterable[Span], today: dt.date, ahead_days: int, by: str) -> list[Span]:
    """Return the partitions to make, so that every day from today to `ahead_days` on has one.

    `by` is "year" or "month". A year of which some months exist already is filled up with months, and
    nothing that exists is touched: the setting may change at any time.
    """
    taken = list(existing)
    last = today + dt.timedelta(days=ahead_days)
    made: list[Span] = []
    day = today
    while day <= last:
        there = next((s for s in taken if s.lower <= day < s.upper), None)
        if there is None:
            wanted = year_of(day) if by == "year" else month_of(day)
            there = month_of(day) if any(wanted.overlaps(s) for s in taken) else wanted
            made.append(there)
        day = there.upper
    return made

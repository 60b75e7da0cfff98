"""The days that the sample covers, and the instants of local times on them.

A day is a number: 0 is the first one, `span` is `today`. The sample's "now" is midnight UTC at the
beginning of `today`, so that nothing in it lies in the future whenever on that date it is loaded.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from functools import cache

from kitaab_jobs.timing import local_date, local_time, to_utc

DAY_MINUTES = 1440


class Calendar:
    """The days from `years` before `today` up to `today`."""

    def __init__(self, today: date, years: int) -> None:
        try:
            self.start = today.replace(year=today.year - years)
        except ValueError:  # 29 February
            self.start = today.replace(year=today.year - years, day=28)
        self.span = (today - self.start).days
        self.now = datetime.combine(today, time(), UTC)
        self._midnight = datetime.combine(self.start, time(), UTC)
        self.offsets = cache(self._offsets)
        self.last = cache(self._last)

    def date(self, day: int) -> date:
        """Return the date of `day`."""
        return self.start + timedelta(days=day)

    def instant(self, zone: str, day: int, minute: int, second: int = 0) -> datetime:
        """Return the instant in UTC at which it is `minute` past midnight on `day` in `zone`."""
        ahead = self.offsets(zone)[min(max(day, 0), self.span)]
        return self._midnight + timedelta(days=day, minutes=minute - ahead, seconds=second)

    def past(self, zone: str, day: int, minute: int) -> datetime:
        """Return that instant, or "now" where it lies in the future."""
        return min(self.instant(zone, day, minute), self.now)

    def _offsets(self, zone: str) -> list[int]:
        """Return how many minutes `zone` is ahead of UTC at noon of each day."""
        found: list[int] = []
        while len(found) <= self.span:
            first = len(found)
            ahead = self._ahead(zone, first)
            # No zone changes twice within a week, so what is the same on both ends is so between.
            if self._ahead(zone, first + 6) == ahead:
                found += [ahead] * 7
            else:
                found += [self._ahead(zone, day) for day in range(first, first + 7)]
        return found[: self.span + 1]

    def _ahead(self, zone: str, day: int) -> int:
        instant = to_utc(self.date(day), time(12), zone)
        return round((self._midnight + timedelta(days=day, hours=12) - instant).total_seconds() / 60)

    def _last(self, zone: str) -> tuple[int, int]:
        """Return the day that it is "now" in `zone`, and how many minutes of it have passed."""
        clock = local_time(self.now, zone)
        return (local_date(self.now, zone) - self.start).days, clock.hour * 60 + clock.minute

"""A slow and plain second opinion on `kitaab_jobs.timing`, from other sources than the code has.

Zones come from the `tzdata` package through zoneinfo, never from pytz. Fires come from a walk over
every minute of UTC that does what the loop of Debian's cron does (`cron.c`: `timeRunning` is here
`shown`, the minute on the zone's clock; `virtual` is the minute up to which fixed jobs have run;
`entry.c`: a field is a star field if its first character is `*`).

It departs from `cron.c` in these points, all on purpose:
- several fixed times that one gap swallowed are one fire, since they are one instant;
- a gap of exactly three hours (Antarctica/Casey) is a clock change, as the manual says ("changes of
  more than 3 hours are corrections"), while the code counts 180 minutes forward as a correction, and
  180 minutes back as a clock change;
- Debian's cron has neither `L` nor `#`; here they are restricted day fields.
"""

from __future__ import annotations

import importlib
import importlib.resources
from calendar import monthrange
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from importlib.resources.abc import Traversable
from zoneinfo import ZoneInfo

RELEASE: str = importlib.import_module("tzdata").IANA_VERSION
MINUTE = timedelta(minutes=1)
WARM_UP = timedelta(hours=12)  # more than an overlap lasts, so that `virtual` is right when it counts
THREE_HOURS = 180

NAMES = {
    "jan": 1, "feb": 2, "mar": 3, "apr": 4, "may": 5, "jun": 6,
    "jul": 7, "aug": 8, "sep": 9, "oct": 10, "nov": 11, "dec": 12,
    "sun": 0, "mon": 1, "tue": 2, "wed": 3, "thu": 4, "fri": 5, "sat": 6,
}  # fmt: skip


@cache
def zone(name: str) -> ZoneInfo:
    with resource(name).open("rb") as file:
        return ZoneInfo.from_file(file, key=name)


def resource(name: str) -> Traversable:
    return importlib.resources.files("tzdata").joinpath("zoneinfo", *name.split("/"))


@cache
def zone_names() -> tuple[str, ...]:
    listed = importlib.resources.files("tzdata").joinpath("zones").read_text().split()
    return tuple(sorted(set(listed) - {"Factory"}))


@cache
def changes(name: str) -> tuple[datetime, ...]:
    """The instants from 2010 to 2037 at which the zone's offset changes, to the minute.

    Found by asking every few days; a change that is undone sooner would be missed.
    """
    where = zone(name)
    found = []
    low, step = datetime(2010, 1, 1, tzinfo=UTC), timedelta(days=5)
    before = offset(where, low)
    while low.year <= 2037:
        high = low + step
        now = offset(where, high)
        if now != before:
            early, late = low, high
            while late - early > MINUTE:
                middle = (early + (late - early) // 2).replace(second=0, microsecond=0)
                early, late = (middle, late) if offset(where, middle) == before else (early, middle)
            found.append(late)
        low, before = high, now
    return tuple(found)


def offset(where: ZoneInfo, instant: datetime) -> timedelta:
    found = instant.astimezone(where).utcoffset()
    assert found is not None
    return found


@cache
def different_zones() -> tuple[str, ...]:
    """One name for each clock that there is: aliases and zones that agreed all these years left out."""
    files = {resource(name).read_bytes(): name for name in zone_names()}
    clocks = {}
    for name in files.values():
        starts = (datetime(2010, 1, 1, tzinfo=UTC), *changes(name))
        clocks[tuple((start, offset(zone(name), start)) for start in starts)] = name
    return tuple(sorted(clocks.values()))


def to_utc(day: date, moment: time, name: str) -> datetime:
    """PEP 495 with fold=0: the offset from before a gap, and the first of two.

    But for a time with fold=0 that does not come back, and does with fold=1. In the hour after the last change that
    a zone lists, zoneinfo goes by the rule that holds from then on: it puts Nuuk's 23:30 of 2023-10-28 on 22:30.
    """
    local = datetime.combine(day, moment)
    first, second = (local.replace(fold=fold, tzinfo=zone(name)).astimezone(UTC) for fold in (0, 1))
    if first != second and comes_back(second, local, name) and not comes_back(first, local, name):
        return second
    return first


def comes_back(instant: datetime, local: datetime, name: str) -> bool:
    return instant.astimezone(zone(name)).replace(tzinfo=None, fold=0) == local.replace(fold=0)


def was_skipped(day: date, name: str) -> bool:
    """Whether no instant has that date there: neither its first nor its last moment come back."""
    first = datetime(day.year, day.month, day.day, tzinfo=zone(name))
    last = first + timedelta(hours=23, minutes=59)
    return all(t.astimezone(UTC).astimezone(zone(name)).date() != day for t in (first, last))


# --- cron ------------------------------------------------------------------------------------------


class Line:
    """A cron line as sets, each value asked whether it belongs."""

    def __init__(self, text: str) -> None:
        self.minute, self.hour, self.dom, self.month, self.dow = text.lower().split()
        self.wildcard = self.minute[0] == "*" or self.hour[0] == "*"
        self.minutes = {
            h * 60 + m
            for h in range(24)
            for m in range(60)
            if in_field(self.minute, m, 0, 59) and in_field(self.hour, h, 0, 23)
        }
        self.days: dict[int, bool] = {}

    def matches(self, minute: int) -> bool:
        """`minute` counts from the first midnight of the year 1, on the zone's clock."""
        day, of_day = divmod(minute, 1440)
        if of_day not in self.minutes:
            return False
        if day not in self.days:
            self.days[day] = self.has_day(date.fromordinal(day + 1))
        return self.days[day]

    def has_day(self, day: date) -> bool:
        if not in_field(self.month, day.month, 1, 12):
            return False
        dom, dow = self.has_day_of_month(day), self.has_day_of_week(day)
        if self.dom[0] == "*" or self.dow[0] == "*":
            return dom and dow
        return dom or dow

    def has_day_of_month(self, day: date) -> bool:
        parts = self.dom.split(",")
        last = monthrange(day.year, day.month)[1]
        if "l" in parts and day.day == last:
            return True
        parts = [part for part in parts if part != "l"]
        return bool(parts) and in_field(",".join(parts), day.day, 1, 31)

    def has_day_of_week(self, day: date) -> bool:
        weekday = day.isoweekday() % 7
        for part in self.dow.split(","):
            if "#" in part:
                wanted, nth = part.split("#")
                if number(wanted) % 7 == weekday and (day.day - 1) // 7 + 1 == int(nth):
                    return True
            elif part[0] == "l":
                if int(part[1:]) % 7 == weekday and (day + timedelta(days=7)).month != day.month:
                    return True
            elif in_field(part, weekday, 0, 6) or (weekday == 0 and in_field(part, 7, 0, 6)):
                return True
        return False


def number(word: str) -> int:
    return NAMES[word] if word in NAMES else int(word)


def in_field(text: str, value: int, low: int, high: int) -> bool:
    for part in text.split(","):
        body, _, step = part.partition("/")
        first, _, last = body.partition("-")
        if first == "*":
            start, end = low, high
        else:
            start = number(first)
            end = number(last) if last else high if step else start
        while end < start:  # over the end: fri-mon
            end += high - low + 1
        for member in range(start, end + 1, int(step or 1)):
            if value in (member, member - (high - low + 1)):
                return True
    return False


def walk(text: str, name: str, after: datetime, until: datetime, dst: str = "cron") -> Iterator[datetime]:
    """Every fire after `after`, up to and with `until`."""
    line, where = Line(text), zone(name)
    now = after.replace(second=0, microsecond=0) - WARM_UP
    virtual = shown_at(where, now)
    while now + MINUTE <= until:
        now += MINUTE
        shown = shown_at(where, now)
        ahead = shown - virtual
        if dst == "literal" or line.wildcard:
            due = line.matches(shown)
        elif ahead == 1 or ahead > THREE_HOURS + 1 or ahead < -THREE_HOURS + 1:  # as usual, or a correction
            due = line.matches(shown)
            virtual = shown
        elif ahead > 1:  # a gap: what it swallowed, and this minute's own
            due = any(line.matches(minute) for minute in range(virtual + 1, shown + 1))
            virtual = shown
        else:  # an overlap: run already, until the clock has caught up
            due = False
        if due and now > after:
            yield now


def shown_at(where: ZoneInfo, instant: datetime) -> int:
    local = instant.astimezone(where)
    return (local.toordinal() - 1) * 1440 + local.hour * 60 + local.minute

"""When a schedule fires: cron lines in a zone, and intervals.

    30 2 * * *                  minute, hour, day of month, month, day of week
    0 21 * * 1-5 Asia/Karachi   a zone as the sixth word
    @daily Europe/Dublin        @hourly @daily @midnight @weekly @monthly @yearly @annually
    every 30s                   s, m, h or d; counted from the Unix epoch, so that every process agrees

Fields take `*`, numbers, names (jan, mon), ranges, lists and steps; a range may run over the end
(`fri-mon`, `22-2`). Day of month also takes `L` (the last), day of week `5#2` (the second Friday) and
`L5` (the last Friday). 0 and 7 are Sunday. When both day fields are restricted, either matches; a
field that begins with `*` is unrestricted, so `0 9 */2 * 1` means Mondays on odd days (Vixie cron).

At a clock change, `dst` decides.
- `cron`: the rule of Debian's cron (`cron.c`, `entry.c`). A job is wildcard if its minute or its
  hour field begins with `*`, else fixed. A fixed time that does not exist fires at the first moment
  after the gap, once, however many fell into it; a fixed time that happens twice fires the first
  time only; a wildcard job fires whenever its zone's clock shows a time that matches. As in
  Debian's manual, a change of more than three hours (Apia skipped a whole day) is no clock change
  but a correction: the new time counts at once.
- `literal`: a time that does not exist is skipped, one that happens twice fires twice.

The search runs over the calendar, with croniter and naive dates; the clock changes are resolved
here. croniter with a zone fires fixed times twice in an overlap, and inserts fires on days that
the zone never had.
"""

from __future__ import annotations

import copy
import re
from bisect import bisect_right
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Literal, NamedTuple, cast, get_args

from croniter import CroniterBadDateError, croniter

from kitaab_jobs.errors import BadCron, NoSuchInstant
from kitaab_jobs.timing import fields, zones

Dst = Literal["cron", "literal"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND = timedelta(seconds=1)
_CLOCK_CHANGE = timedelta(hours=3)  # more than this is a correction of the clock, says Debian's cron(8)
_LONGEST = timedelta(days=3660)
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_SHORTHANDS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}


_INTERVAL = re.compile(r"(?P<count>[0-9]{1,9})(?P<unit>[smhd])")
_ZONE_SHAPED = re.compile(r"[A-Za-z_]{4,}|[A-Za-z]+/[A-Za-z0-9_+/-]+")


# --- the schedule ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Cadence:
    """A schedule that was read and can fire: make one with `parse`.

    `line` is the schedule without its zone, `zone` an IANA name, `dst` the rule at clock changes (the
    last two say nothing to an interval). Raises BadCron and UnknownZone.
    """

    line: str
    zone: str = "UTC"
    dst: Dst = "cron"

    def __post_init__(self) -> None:
        if self.dst not in get_args(Dst):
            raise BadCron(f"dst is {self.dst!r}", remedy="it takes 'cron' or 'literal'")
        zones.zone(self.zone)
        _plan(self.line)

    def __str__(self) -> str:
        return self.line if self.is_interval else f"{self.line} {self.zone}"

    @property
    def is_interval(self) -> bool:
        """Whether it is an `every ...`: real time apart, whatever the zone's clock does."""
        return isinstance(_plan(self.line), timedelta)

    def next_fire(self, after: datetime) -> datetime:
        """The first fire strictly after `after` (aware), in UTC.

        Raises UsageError for a time without a zone, and NoSuchInstant if there is none before the
        year 9999.
        """
        plan = _plan(self.line)
        moment = zones.utc_of(after)
        try:
            if isinstance(plan, timedelta):
                return _EPOCH + ((moment.replace(tzinfo=UTC) - _EPOCH) // plan + 1) * plan
            fixed = plan.fixed and self.dst == "cron"
            return _next_in_zone(plan, zones.clock(self.zone), fixed, moment).replace(tzinfo=UTC)
        except (OverflowError, ValueError):  # croniter's own error is a ValueError
            raise NoSuchInstant(
                f"{str(self)!r} does not fire after {after.isoformat()}", remedy="look from an earlier time"
            ) from None


def parse(line: str, zone: str = "UTC", *, dst: str = "cron") -> Cadence:
    """Read a schedule: five cron fields, a shorthand such as `@daily`, or an interval `every 30s`.

    A zone as the last word of the line wins over `zone`. Raises BadCron, which names the part that
    cannot be read and what is accepted there, also for what can never fire (30 February); UnknownZone
    for the zone.
    """
    words = line.split()
    own = 1 if words and words[0].startswith("@") else 5
    if words and words[0].lower() == "every":
        if len(words) == 3 and zones.is_zone(words[2]):
            raise BadCron(
                f"{line!r} gives an interval a zone",
                remedy="intervals are the same everywhere: leave the zone out, or write @daily and the zone",
            )
    elif len(words) == own + 1 and (zones.is_zone(words[-1]) or _ZONE_SHAPED.fullmatch(words[-1])):
        zone = words.pop()
    return Cadence(" ".join(words), zone, cast(Dst, dst))


def next_fires(cadence: Cadence, after: datetime, count: int) -> list[datetime]:
    """The next `count` fires strictly after `after`, in UTC, in order."""
    fires: list[datetime] = []
    while len(fires) < count:
        after = cadence.next_fire(after)
        fires.append(after)
    return fires


def fires_between(cadence: Cadence, after: datetime, until: datetime, limit: int) -> list[datetime]:
    """The fires after `after` and up to `until`, which is included, in order; at most `limit`.

    A full answer may thus have been cut: go on from its last fire.
    """
    fires: list[datetime] = []
    last = zones.utc_of(until).replace(tzinfo=UTC)
    while len(fires) < limit and (after := cadence.next_fire(after)) <= last:
        fires.append(after)
    return fires


# --- the search ------------------------------------------------------------------------------------


class _Plan(NamedTuple):
    searches: tuple[croniter, ...]  # over the calendar; the earliest answer counts
    fixed: bool


def _next_in_zone(plan: _Plan, wall: zones.Clock, fixed: bool, after: datetime) -> datetime:
    """The first fire after `after`, both naive in UTC, by walking the stretches of one offset."""
    stretch = bisect_right(wall.starts, after) - 1
    begin = _begin(wall, stretch, fixed)
    found = _next_on_calendar(plan, max(after + wall.offsets[stretch], begin - _SECOND))
    while found >= wall.ends[stretch]:
        stretch += 1
        begin = _begin(wall, stretch, fixed)
        if not wall.ends[stretch - 1] <= begin <= found:  # the clock was set back, or beyond what was found
            found = _next_on_calendar(plan, begin - _SECOND)
    return max(found - wall.offsets[stretch], wall.starts[stretch])


def _begin(wall: zones.Clock, stretch: int, fixed: bool) -> datetime:
    """The local time from which a stretch counts: the first that its clock shows.

    For a fixed time after a clock change it is the time at which the stretch before ended, as cron's
    virtual time runs on: what a gap swallowed then counts in this stretch (and fires at its start),
    and what an overlap shows a second time does not.
    """
    shown = wall.begins[stretch]
    if stretch and fixed and abs(shown - wall.ends[stretch - 1]) <= _CLOCK_CHANGE:
        return wall.ends[stretch - 1]
    return shown


def _next_on_calendar(plan: _Plan, after: datetime) -> datetime:
    """The first whole minute after `after` that the fields match, as if every day had 24 hours."""
    found = []
    for search in plan.searches:
        try:
            # A copy, since croniter keeps its position in itself and schedules are shared by threads.
            found.append(copy.copy(search).get_next(datetime, start_time=after.replace(microsecond=0)))
        except CroniterBadDateError:
            continue
    if not found:
        raise CroniterBadDateError
    return cast(datetime, min(found))


# --- reading ---------------------------------------------------------------------------------------


@lru_cache(maxsize=16_384)
def _plan(line: str) -> _Plan | timedelta:
    words = line.split()
    if words and words[0].lower() == "every":
        return _interval(line, words[1:])
    if words and words[0].startswith("@"):
        if len(words) > 1 or words[0].lower() not in _SHORTHANDS:
            raise BadCron(f"{line!r} is not a known shorthand", remedy=f"use {', '.join(_SHORTHANDS)}")
        words = _SHORTHANDS[words[0].lower()].split()
    read = fields.read(line, words)
    searches = [croniter(plain, _NAIVE_2000, day_or=False) for plain in read.calendar]
    firing = tuple(search for search in searches if _ever(search))
    if not firing:
        raise BadCron(f"{line!r} never fires", remedy="no month that it names has such a day")
    return _Plan(firing, fixed=not read.wildcard)


# 50 years from here hold a 29 February on each day of the week, and croniter looks 50 years ahead.
_NAIVE_2000 = datetime(2000, 1, 1)  # noqa: DTZ001


def _ever(search: croniter) -> bool:
    try:
        copy.copy(search).get_next(datetime)
    except CroniterBadDateError:
        return False
    return True


def span(text: str) -> timedelta | None:
    """Return the time in "30s", "5m", "2h" or "7d"; None where it is none, or no longer than nothing."""
    match = _INTERVAL.fullmatch(text.strip().lower())
    step = timedelta(seconds=int(match["count"]) * _UNITS[match["unit"]]) if match else timedelta(0)
    return step if _SECOND <= step <= _LONGEST else None


def _interval(line: str, words: list[str]) -> timedelta:
    step = span(words[0]) if len(words) == 1 else None
    if step is None:
        raise BadCron(
            f"{line!r} is not an interval",
            remedy=f"write 'every' and a whole number of s, m, h or d, from 1s to {_LONGEST.days}d: every 30s",
        )
    return step

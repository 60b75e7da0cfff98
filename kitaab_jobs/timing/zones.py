"""Zones by name, the local day of an instant, and the instant of a local time.

All instants that come out are aware and in UTC. Zones are pytz's: it carries its own copy of the
IANA data, so that every machine gives the same answer.

The rule from local time to UTC: a time in a gap keeps the offset from before the gap (02:30 becomes
03:30 on the clock); a time that happens twice is the first of the two; a date that the zone skipped
has no instant. A result may thus lie on the next local date; it still belongs to the date asked for.

pytz's data ends with the year 2037. After that every zone keeps the offset of its last change: most
of the northern hemisphere stays on standard time, most of the southern on summer time. Nothing
fails there, but a local time in summer (north) or winter (south) may be an hour off.
"""

from __future__ import annotations

import importlib
from bisect import bisect_right
from contextlib import suppress
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from difflib import get_close_matches
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import pytz
from pytz.tzinfo import DstTzInfo

from kitaab_jobs.errors import NoSuchInstant, UnknownZone, UsageError

_DAY = timedelta(days=1)
_FIRST, _LAST = datetime.min, datetime.max  # noqa: DTZ901
_NOT_ZONES = frozenset({"Factory", "localtime", "posixrules"})  # no place's time: files of the tz database
_EVERY_WEEKDAY = frozenset(range(7))


# --- names -----------------------------------------------------------------------------------------


@cache
def zone_names() -> frozenset[str]:
    """Every accepted name: the IANA zones and their aliases, exactly as IANA spells them."""
    return frozenset(pytz.all_timezones) - _NOT_ZONES


def is_zone(name: str) -> bool:
    """Whether `name` is an IANA zone or alias. Case counts: `asia/karachi` is not one."""
    return name in zone_names()


def zone(name: str) -> tzinfo:
    """The zone of that exact IANA name, for `instant.astimezone(zone(name))`.

    Never pass the result as `tzinfo=`: a pytz zone then stands for its oldest local mean time.
    Raises UnknownZone, with the nearest names as its remedy.
    """
    return _pytz_zone(name)


def zone_or_utc(name: str) -> tuple[tzinfo, bool]:
    """For a name that is stored already: its zone and True, or UTC and False if it is unknown."""
    return (zone(name), True) if is_zone(name) else (pytz.utc, False)


def _pytz_zone(name: str) -> pytz.BaseTzInfo:
    if not is_zone(name):  # asked first: pytz itself accepts any case
        raise UnknownZone(f"{name!r} is not an IANA time zone", remedy=_near(str(name)))
    return pytz.timezone(name)


def _near(name: str) -> str:
    wanted = name.strip().replace(" ", "_").lower()
    spelled = {known.rsplit("/", 1)[-1].lower(): known for known in sorted(zone_names())}
    spelled |= {known.lower(): known for known in zone_names()}
    close = [wanted] if wanted in spelled else get_close_matches(wanted, spelled, n=4, cutoff=0.7)
    near = dict.fromkeys(spelled[name] for name in close)
    if near:
        return f"did you mean {' or '.join(list(near)[:3])}?"
    return "give a name such as Asia/Karachi or UTC, in exactly that spelling"


# --- the clock of a zone ---------------------------------------------------------------------------


class Clock(NamedTuple):
    """The stretches of constant offset of one zone, in order. All times here are naive.

    `starts` are in UTC, the first being the beginning of time; stretch i runs until `starts[i + 1]`
    and is `offsets[i]` ahead of UTC. `begins[i]` and `ends[i]` are the same bounds on the zone's own
    clock. So change i (from stretch i-1 to i) is a gap if `ends[i-1] < begins[i]`, else an overlap.
    """

    starts: tuple[datetime, ...]
    offsets: tuple[timedelta, ...]
    begins: tuple[datetime, ...]
    ends: tuple[datetime, ...]


@cache
def clock(zone_name: str) -> Clock:
    """The clock of a zone. Changes of name or of DST flag alone are left out. Raises UnknownZone."""
    starts, offsets = [_FIRST], []
    where = _pytz_zone(zone_name)
    if isinstance(where, DstTzInfo):
        # pytz has no public way to its transitions. If these names ever vanish this must fail, not
        # fall back: a zone without its changes would look like one with a constant offset.
        times: list[datetime] = where._utc_transition_times  # type: ignore[attr-defined]
        infos: list[tuple[timedelta, Any, Any]] = where._transition_info  # type: ignore[attr-defined]
        offsets.append(infos[0][0])
        for moment, info in zip(times[1:], infos[1:], strict=True):
            if info[0] != offsets[-1]:
                starts.append(moment)
                offsets.append(info[0])
    else:
        offsets.append(where.utcoffset(None) or timedelta(0))
    begins = [_FIRST + _DAY, *(start + offset for start, offset in zip(starts[1:], offsets[1:], strict=True))]
    ends = [*(start + offset for start, offset in zip(starts[1:], offsets[:-1], strict=True)), _LAST]
    return Clock(tuple(starts), tuple(offsets), tuple(begins), tuple(ends))


def utc_of(instant: datetime) -> datetime:
    """The same instant as a naive datetime in UTC. Raises UsageError for one without a zone."""
    if instant.tzinfo is UTC:
        return instant.replace(tzinfo=None)
    if instant.utcoffset() is None:
        raise UsageError(
            f"{instant.isoformat()} has no time zone, so it is no instant",
            remedy="give it one, such as the Z in 2026-03-08T12:00Z",
        )
    return instant.astimezone(UTC).replace(tzinfo=None)


def _local(instant: datetime, zone_name: str) -> datetime:
    moment, wall = utc_of(instant), clock(zone_name)
    offset = wall.offsets[bisect_right(wall.starts, moment) - 1]
    try:
        return moment + offset
    except OverflowError:
        raise _outside(moment, zone_name) from None


def _outside(naive: datetime, zone_name: str) -> NoSuchInstant:
    return NoSuchInstant(
        f"{naive.isoformat()} in {zone_name} lies outside the years 1 to 9999",
        remedy="give a date within them",
    )


# --- local days ------------------------------------------------------------------------------------


def local_date(instant: datetime, zone_name: str) -> date:
    """The date that a calendar on the wall in that zone shows at `instant` (aware).

    Raises UnknownZone, and UsageError for an instant without a zone.
    """
    return _local(instant, zone_name).date()


def local_time(instant: datetime, zone_name: str) -> time:
    """What a clock on the wall in that zone shows at `instant` (aware), to the microsecond."""
    return _local(instant, zone_name).time()


def to_utc(local_date: date, local_time: time, zone_name: str) -> datetime:
    """The instant, in UTC, at which it is that time on that date in the zone.

    A time in a gap keeps the offset from before the gap; a time that happens twice is the first; one
    on a date that the zone skipped (Apia, 30 December 2011) raises NoSuchInstant. Raises UnknownZone
    too, and UsageError for a time that carries a zone of its own.
    """
    instant = _instant(local_date, local_time, zone_name)
    if instant is None:
        raise NoSuchInstant(
            f"there was no {local_date.isoformat()} in {zone_name}: the zone skipped that date",
            remedy="use the date before or after it",
        )
    return instant


# On nearly every date of a zone one offset holds all day, for whatever time somebody chose.
@lru_cache(maxsize=65_536)
def _offset_all_day(local_date: date, zone_name: str) -> timedelta | None:
    """The offset that holds for every time of a date; None where there is none such, or at the ends of time.

    A date that ends within an overlap has one: what comes twice is the first of the two.
    """
    wall = clock(zone_name)
    try:
        midnight = datetime.combine(local_date, time())
        after = midnight + _DAY
    except OverflowError:
        return None
    stretch = bisect_right(wall.ends, midnight)  # the first that is not over by then
    if not wall.begins[stretch] <= midnight < after <= wall.ends[stretch]:
        return None
    offset = wall.offsets[stretch]
    return offset if _FIRST + 2 * _DAY < midnight < _LAST - 2 * _DAY else None


# Most people share a few times in a few zones: 5 million reminders are some 100,000 entries here.
@lru_cache(maxsize=131_072)
def _instant(local_date: date, local_time: time, zone_name: str) -> datetime | None:
    if local_time.tzinfo is not None:
        raise UsageError(f"the local time {local_time} carries a zone", remedy="give a time of day alone")
    naive = datetime.combine(local_date, local_time.replace(fold=0))
    if (offset := _offset_all_day(local_date, zone_name)) is not None:
        return (naive - offset).replace(tzinfo=UTC)
    where = _pytz_zone(zone_name)
    try:
        return where.localize(naive, is_dst=None).astimezone(UTC)
    except pytz.AmbiguousTimeError:
        wall = clock(zone_name)
        first = bisect_right(wall.ends, naive)  # the first stretch that is not over by then
        return (naive - wall.offsets[first]).replace(tzinfo=UTC)
    except pytz.NonExistentTimeError:
        wall = clock(zone_name)
        after = bisect_right(wall.ends, naive)
        midnight = datetime.combine(local_date, time())
        if wall.ends[after - 1] <= midnight and wall.begins[after] >= midnight + _DAY:
            return None
        return (naive - wall.offsets[after - 1]).replace(tzinfo=UTC)
    except OverflowError:
        raise _outside(naive, zone_name) from None


def next_local(
    after: datetime,
    local_time: time,
    zone_name: str,
    *,
    not_before_date: date | None = None,
    weekdays: frozenset[int] | None = None,
) -> tuple[date, datetime]:
    """The next local date whose `local_time` lies strictly after `after`, and its instant in UTC.

    The date is the nominal one: where a gap moves the instant past midnight, it is still the date
    before. Dates that the zone skipped are passed over. `not_before_date` is the earliest date
    wanted; `weekdays` limits the dates (0 is Monday, as in `date.weekday()`; None means every day).
    Raises UnknownZone, UsageError for weekdays that name no day, and NoSuchInstant past the year 9999.
    """
    if weekdays is not None and (not weekdays or not weekdays <= _EVERY_WEEKDAY):
        raise UsageError(
            f"weekdays {sorted(weekdays)} do not name days of the week",
            remedy="give at least one of 0 (Monday) to 6 (Sunday), or None for every day",
        )
    moment, wall = utc_of(after), clock(zone_name)
    stretch = bisect_right(wall.starts, moment) - 1
    try:
        day = (moment + wall.offsets[stretch]).date()
        if moment - wall.starts[stretch] < _DAY:  # a gap just now can have pushed yesterday's past midnight
            day -= _DAY
        if not_before_date is not None and day < not_before_date:
            day = not_before_date
        while True:
            if weekdays is None or day.weekday() in weekdays:
                instant = _instant(day, local_time, zone_name)
                if instant is not None and instant > after:
                    return day, instant
            day += _DAY
    except OverflowError:
        raise _outside(moment, zone_name) from None


# --- versions --------------------------------------------------------------------------------------


def zone_data_versions(system: Path = Path("/usr/share/zoneinfo")) -> dict[str, str]:
    """The IANA release, such as `2026f`, of each copy of the zone data that this machine carries.

    `pytz` is the one that counts here; `tzdata` is Python's package, left out if not installed;
    `system` is the operating system's folder, `unknown` where that does not say.
    """
    versions = {"pytz": pytz.OLSON_VERSION}  # type: ignore[attr-defined]
    with suppress(ModuleNotFoundError):
        versions["tzdata"] = str(importlib.import_module("tzdata").IANA_VERSION)
    versions["system"] = _system_version(system)
    return versions


def _system_version(folder: Path) -> str:
    for name in ("tzdata.zi", "+VERSION"):
        try:
            with (folder / name).open(encoding="utf-8", errors="replace") as file:
                words = file.readline().removeprefix("# version").split()
        except OSError:
            continue
        if words:
            return words[0]
    return "unknown"

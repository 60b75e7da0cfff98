"""Times as people type them: 90s, 12h, 30d; and 2026-11-23T07:00Z."""

from __future__ import annotations

import datetime as dt
import re

from kitaab_jobs import timing
from kitaab_jobs.errors import UsageError

_SPAN = re.compile(r"(\d+)\s*([smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
# Longer ago than anything here; far below what PostgreSQL and Python can count.
LONGEST = dt.timedelta(days=36_500)


def span(text: str, option: str) -> dt.timedelta:
    """Return the time in "90s", "15m", "12h", "30d" or "4w"; raise `UsageError` where it is none or too long."""
    match = _SPAN.fullmatch(text.strip().lower())
    if match is None:
        raise UsageError(f"{option} {text!r} is not a time", remedy="write it like 90s, 15m, 12h, 30d or 4w")
    try:
        found = dt.timedelta(**{_UNITS[match[2]]: int(match[1])})
    except (OverflowError, ValueError):
        found = dt.timedelta.max
    if found > LONGEST:
        raise UsageError(f"{option} {text[:40]!r} is too long", remedy=f"at most {LONGEST.days}d")
    return found


def instant(text: str, option: str, zone: str | None = None) -> dt.datetime:
    """Return the time in `text`, in UTC; raise `UsageError` where it cannot be read.

    It carries its offset; with `zone`, a time without one, or a date alone, is of that zone.
    """
    try:
        found = dt.datetime.fromisoformat(text.strip())
    except ValueError:
        raise UsageError(
            f"{option} {text!r} is not a time", remedy="write it like 2026-11-23T07:00Z"
        ) from None
    try:
        if found.tzinfo is not None:
            return found.astimezone(dt.UTC)
        if zone is not None:
            return timing.to_utc(found.date(), found.time(), zone)
    except OverflowError:
        raise UsageError(f"{option} {text!r} is beyond the calendar", remedy="give a nearer time") from None
    # A date alone takes no offset.
    moment = found.isoformat(timespec="seconds" if found.second else "minutes")
    raise UsageError(f"{option} {text!r} has no offset", remedy=f"write {moment}Z or {moment}+05:00")


def day(text: str, option: str) -> dt.date:
    """Return the date in `text`; raise `UsageError` where it is none, or so far off that no zone has it."""
    try:
        found = dt.date.fromisoformat(text.strip())
    except ValueError:
        raise UsageError(f"{option} {text!r} is not a date", remedy="write it like 2026-11-25") from None
    if not 1900 <= found.year <= 9000:
        raise UsageError(f"{option} {text!r} is beyond the zone data", remedy="give a year from 1900 to 9000")
    return found


def now() -> dt.datetime:
    """Return the time: commands are doors, and below them it is an argument."""
    return dt.datetime.now(dt.UTC)

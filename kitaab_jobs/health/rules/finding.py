"""What a check comes to."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

Level = Literal["ok", "warn", "fail", "skip"]

OK: Level = "ok"
WARN: Level = "warn"
FAIL: Level = "fail"
SKIP: Level = "skip"

# The first part of a check's name, and its heading; in the order in which they are shown.
AREAS = {
    "settings": "Settings and this machine",
    "postgres": "PostgreSQL",
    "schema": "Schema",
    "redis": "Redis",
    "channels": "Channels",
    "time": "Time",
    "processes": "Processes",
}


class Verdict(NamedTuple):
    """A level, what was seen, and what to do about it where that is not in order."""

    level: Level
    what: str
    remedy: str | None = None


class Finding(NamedTuple):
    """The verdict of one check. `check` is `<area>.<what is checked>`, and never changes its meaning."""

    check: str
    level: Level
    what: str
    remedy: str | None = None

    @property
    def area(self) -> str:
        """The key in AREAS."""
        return self.check.partition(".")[0]

    @classmethod
    def of(cls, check: str, verdict: Verdict) -> Finding:
        """Return the verdict with the name of its check."""
        return cls(check, *verdict)


def ok(what: str) -> Verdict:
    """It is as it should be."""
    return Verdict(OK, what)


def warn(what: str, remedy: str) -> Verdict:
    """It works, and will hurt one day."""
    return Verdict(WARN, what, remedy)


def fail(what: str, remedy: str) -> Verdict:
    """It does not work, or is unsafe."""
    return Verdict(FAIL, what, remedy)


def skip(why: str) -> Verdict:
    """It could not be checked."""
    return Verdict(SKIP, why)


def worst(levels: Iterable[Level]) -> Level:
    """Return the most serious level of `levels`, or ok where there are none."""
    return max(levels, key=(OK, SKIP, WARN, FAIL).index, default=OK)


def listed(names: Iterable[str], most: int = 5) -> str:
    """Return the names with commas, and how many more there are where they are many."""
    known = list(names)
    rest = f" and {len(known) - most} more" if len(known) > most else ""
    return ", ".join(known[:most]) + rest

"""The next occurrences of a rule, with what the clock does to each in words. No database."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from kitaab_jobs.errors import NoSuchInstant
from kitaab_jobs.reminders.rules import Rule
from kitaab_jobs.timing import local_date, local_time, to_utc

_DAY = dt.timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Line:
    """One local date: its instant, None where the zone has no such date, and what is special about it."""

    date: dt.date
    at: dt.datetime | None
    local: str
    offset: str
    note: str

    @property
    def utc(self) -> str:
        """The instant as it is shown."""
        return f"{self.at:%Y-%m-%d %H:%MZ}" if self.at else "none"

    def as_dict(self) -> dict[str, str | None]:
        """The same for JSON."""
        return {
            "date": self.date.isoformat(),
            "utc": self.at.isoformat() if self.at else None,
            "local": self.local or None,
            "offset": self.offset or None,
            "note": self.note or None,
        }


def occurrences(rule: Rule, start: dt.date, count: int) -> list[Line]:
    """Return so many local dates from `start` on, of the days of the week that the rule names."""
    found: list[Line] = []
    date = start
    while len(found) < count:
        if rule.weekdays is None or date.weekday() in rule.weekdays:
            found.append(_line(rule, date))
        date += _DAY
    return found


def _line(rule: Rule, date: dt.date) -> Line:
    try:
        at = to_utc(date, rule.time, rule.zone)
    except NoSuchInstant:
        return Line(date, None, "", "", "the zone never had this date")
    shown, day = local_time(at, rule.zone), local_date(at, rule.zone)
    notes = []
    if shown != rule.time:
        notes.append(f"{rule.time:%H:%M} does not exist on this date")
    if day != date:
        notes.append(f"the clock shows {day} already; it belongs to {date}")
    if _happens_again(at, rule, day):
        notes.append("happens twice: the first")
    minutes = int((dt.datetime.combine(day, shown) - at.replace(tzinfo=None)).total_seconds() // 60)
    sign, minutes = ("-", -minutes) if minutes < 0 else ("+", minutes)
    return Line(date, at, f"{shown:%H:%M}", f"{sign}{minutes // 60:02}:{minutes % 60:02}", "; ".join(notes))


def _happens_again(at: dt.datetime, rule: Rule, day: dt.date) -> bool:
    """Whether the clock shows the same time on the same date again within a day."""
    for minutes in (20, 30, 60, 90, 120, 180, 1440):
        again = at + dt.timedelta(minutes=minutes)
        if local_time(again, rule.zone) == local_time(at, rule.zone) and local_date(again, rule.zone) == day:
            return True
    return False

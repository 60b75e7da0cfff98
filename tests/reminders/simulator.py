"""What reminders owe to a person, said slowly: it walks over dates and knows nothing of the code.

Instants come from zoneinfo with the `tzdata` package. A date is accounted for when it has a delivery row, when the
reminder was off or an edit came between, or when it is no day of the week that was chosen.
"""

from __future__ import annotations

import datetime as dt
import itertools
from dataclasses import dataclass, field

from tests.timing import oracle

DAY = dt.timedelta(days=1)


@dataclass
class Setting:
    """How the reminder was set, from `since` on."""

    since: dt.datetime
    time: dt.time
    zone: str
    active: bool = True
    weekdays: frozenset[int] | None = None
    # What nobody had claimed when it was turned off is owed no more.
    until: dt.datetime | None = None

    def instant(self, date: dt.date) -> dt.datetime | None:
        if self.weekdays is not None and date.weekday() not in self.weekdays:
            return None
        if oracle.was_skipped(date, self.zone):
            return None
        return oracle.to_utc(date, self.time, self.zone)


@dataclass
class Row:
    """A delivery, as the database has it."""

    at: dt.datetime
    date: dt.date
    zone: str
    state: str
    made: dt.datetime


@dataclass
class History:
    """All settings of one reminder, in order, and what was delivered."""

    settings: list[Setting]
    rows: list[Row] = field(default_factory=list)
    dispatched: dt.datetime | None = None

    def edit(self, changed: Setting) -> None:
        """Take note of an edit; a setting that no dispatcher has seen leaves its place to the next one."""
        if self.dispatched and self.settings[-1].since <= self.dispatched:
            self.settings.append(changed)
        else:
            self.settings[-1] = changed
        if not changed.active:
            self.settings[-2].until = self.settings[-2].until or self.dispatched

    def owed(self, until: dt.datetime) -> list[tuple[dt.datetime, dt.date, str]]:
        """Every occurrence that came while its setting held: (instant, nominal date, zone)."""
        found = []
        ends = [setting.since for setting in self.settings[1:]] + [until]
        for setting, end in zip(self.settings, ends, strict=True):
            if not setting.active:
                continue
            end = min(end, setting.until or end)
            date = (setting.since - 2 * DAY).date()
            while date <= (end + 2 * DAY).date():
                at = setting.instant(date)
                if at is not None and setting.since < at <= end:
                    found.append((at, date, setting.zone))
                date += DAY
        return found

    def sent(self) -> list[Row]:
        return [row for row in self.rows if row.state == "pending"]

    def complaints(self, until: dt.datetime) -> list[str]:
        """What is wrong with the rows; none where the promises were kept."""
        wrong = []
        sent = self.sent()
        # Never two for one local date: as the row says it, and as any of the zones would have it for two in a row.
        for one, two in itertools.pairwise(sent):
            if (one.date, one.zone) == (two.date, two.zone):
                wrong.append(f"two for {one.date} in {one.zone}")
            if two.at - one.at < dt.timedelta(hours=20) and two.date == local_date(one.at, two.zone):
                wrong.append(f"{one.at} and {two.at} are both {two.date} in {two.zone}")
        for row in sent:
            if row.made - row.at >= dt.timedelta(hours=2):
                wrong.append(f"{row.at} was handed to delivery at {row.made}")
        # Every occurrence that came while its setting held has a row, or its date was used.
        at_row = {row.at for row in self.rows}
        for at, date, zone in self.owed(until):
            used = any(
                local_date(row.at, zone) == date or (row.date, row.zone) == (date, zone) for row in sent
            )
            if at not in at_row and not used:
                wrong.append(f"nothing accounts for {date} in {zone}, {at}")
        return wrong


def local_date(at: dt.datetime, zone: str) -> dt.date:
    return at.astimezone(oracle.zone(zone)).date()

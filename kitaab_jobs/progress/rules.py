"""The decisions of progress that need no database."""

from __future__ import annotations

import datetime as dt
from typing import Protocol

from kitaab_jobs.timing import local_date, zone_names

# A completion that is seen later than this is recorded and not told: an import of old entries is no storm.
NOTICE_WITHIN_DAYS = 2
# Two years, which is how long entries stay at hand, and a leap day.
HISTORY_DAYS = 731


def today_everywhere(now: dt.datetime) -> dict[str, dt.date]:
    """Return the local date at `now` in UTC and in each zone that has another one; all others have UTC's.

    Whichever zones people have: somebody may take a new one while a job runs. Yet most have UTC's date for most of the
    day, and a statement that is given six hundred zones takes them apart before it begins.
    """
    utc = local_date(now, "UTC")
    days = ((name, local_date(now, name)) for name in zone_names())
    return {"UTC": utc} | {name: day for name, day in days if day != utc}


# Why a goal shows something else than its entries say, as far as can be seen. Only the last one is a defect:
# days begin and windows slide without a mark.
MARKED, NEW, DAY_BEGAN, SLID, DEFECT = "mark_waits", "never_computed", "day_began", "window_slid", "defect"
CAUSES = (MARKED, NEW, DAY_BEGAN, SLID, DEFECT)


class Difference(Protocol):
    """What is known of a goal that is not as it should be."""

    @property
    def is_marked(self) -> bool: ...  # a mark for it waits
    @property
    def is_marked_ahead(
        self,
    ) -> bool: ...  # all that is marked are days after the one that it was computed for
    @property
    def as_of(self) -> dt.date | None: ...  # the person's day that it was computed for
    @property
    def today(self) -> dt.date: ...  # the person's today
    @property
    def was_right(self) -> bool: ...  # what it shows is right for that day
    @property
    def is_dated_ahead(self) -> bool: ...  # entries were dated after that day, and their day has come


def cause(found: Difference) -> str:
    """Return why a goal differs, one of `CAUSES`."""
    if found.is_marked and not found.is_marked_ahead:
        return MARKED
    if found.as_of is None:
        return NEW
    if not found.was_right:
        return DEFECT
    if found.is_marked:
        return MARKED
    if found.as_of == found.today:
        return DEFECT
    return DAY_BEGAN if found.is_dated_ahead else SLID

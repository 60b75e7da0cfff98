"""The decisions of progress that need no database."""

from __future__ import annotations

import datetime as dt

from kitaab_jobs.timing import local_date, zone_names

# A completion that is seen later than this is recorded and not told: an import of old entries is no storm.
NOTICE_WITHIN_DAYS = 2
# Two years, which is how long entries stay at hand, and a leap day.
HISTORY_DAYS = 731


def today_everywhere(now: dt.datetime) -> dict[str, dt.date]:
    """Return the local date at `now` in each zone that there is.

    All of them, not those that people have: somebody may take a new one while a job runs.
    """
    return {name: local_date(now, name) for name in zone_names()}

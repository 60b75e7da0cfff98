"""The decisions of progress that need no database."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable

from kitaab_jobs.timing import local_date, zone_or_utc


def today_in(zones: Iterable[str], now: dt.datetime) -> dict[str, dt.date]:
    """Return the local date at `now` in each zone; a stored name that is no zone counts as UTC."""
    return {name: local_date(now, name if zone_or_utc(name)[1] else "UTC") for name in zones}

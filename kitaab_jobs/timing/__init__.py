"""Time zones, local days, and schedules with a zone and a rule for the clock changes.

The only part of the platform that imports pytz or croniter. Pure functions: the time is always an
argument, and must carry a zone; what comes out is in UTC. `zones` says how a local time becomes an
instant, `cron` when a schedule fires.
"""

from __future__ import annotations

from kitaab_jobs.timing.cron import Cadence, Dst, fires_between, next_fires, parse, span
from kitaab_jobs.timing.zones import (
    is_zone,
    local_date,
    local_time,
    next_local,
    to_utc,
    zone,
    zone_data_versions,
    zone_names,
    zone_or_utc,
)

__all__ = [
    "Cadence",
    "Dst",
    "fires_between",
    "is_zone",
    "local_date",
    "local_time",
    "next_fires",
    "next_local",
    "parse",
    "span",
    "to_utc",
    "zone",
    "zone_data_versions",
    "zone_names",
    "zone_or_utc",
]

"""Two copies of the zone data, compared at the instants where they can differ."""

from __future__ import annotations

import datetime as dt
from bisect import bisect_right
from collections.abc import Mapping, Sequence

from kitaab_jobs.health.facts import ZoneData
from kitaab_jobs.timing import zone_names
from kitaab_jobs.timing.zones import clock

_SECOND = dt.timedelta(seconds=1)


def samples(now: dt.datetime) -> dict[str, list[dt.datetime]]:
    """Return for each zone the instants to ask about, from a year ago until two years from now.

    They are both sides of each change that we know of, and the middle of each season, where a change
    shows that only the other copy knows of.
    """
    years = range(now.year - 1, now.year + 3)
    seasons = [dt.datetime(year, month, 15, tzinfo=dt.UTC) for year in years for month in (1, 4, 7, 10)]
    return {name: sorted({*seasons, *_changes(name, years)}) for name in sorted(zone_names())}


def compare(asked: Mapping[str, Sequence[dt.datetime]], told: Mapping[str, Sequence[int]]) -> ZoneData:
    """Return where the offsets `told` (seconds) are not ours; a zone that is left out is unknown there."""
    return ZoneData(
        compared=len(asked),
        unknown=[name for name in asked if name not in told],
        different=[name for name in asked if name in told and list(told[name]) != _ours(name, asked[name])],
    )


def _changes(name: str, years: range) -> list[dt.datetime]:
    starts = [start.replace(tzinfo=dt.UTC) for start in clock(name).starts if start.year in years]
    return [instant for start in starts for instant in (start - _SECOND, start)]


def _ours(name: str, instants: Sequence[dt.datetime]) -> list[int]:
    known = clock(name)
    moments = [instant.astimezone(dt.UTC).replace(tzinfo=None) for instant in instants]
    return [int(known.offsets[bisect_right(known.starts, m) - 1].total_seconds()) for m in moments]

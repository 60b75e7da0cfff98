"""Time: do all agree on what time it is, here and in people's zones?"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet

from kitaab_jobs.health.facts import StoredZone, ZoneData
from kitaab_jobs.health.rules.finding import OK, Verdict, listed, ok, warn
from kitaab_jobs.health.rules.limits import CLOCK_DIFFERENCE_SECONDS, ZONE_DATA_AGE_YEARS


def difference(server: str, seconds: float, uncertainty: float) -> Verdict:
    """Do two clocks agree? `seconds` is how far the server's is ahead, give or take `uncertainty`."""
    sure = max(abs(seconds) - uncertainty, 0)
    level = CLOCK_DIFFERENCE_SECONDS.level(sure)
    if level == OK:
        return ok(f"{server}'s clock and this machine's agree within {abs(seconds) + uncertainty:.1f} s")
    side = "ahead of" if seconds > 0 else "behind"
    return Verdict(
        level,
        f"{server}'s clock is {abs(seconds):.0f} s {side} this machine's",
        "let both keep time by NTP (chrony, systemd-timesyncd)",
    )


def zone_versions(versions: Mapping[str, str], today: dt.date) -> Verdict:
    """Is pytz's copy of the zone data, which decides, recent and no older than the others?"""
    text = ", ".join(f"{name} {release}" for name, release in versions.items())
    ours = versions["pytz"]
    newer = [name for name, release in versions.items() if release[:1].isdigit() and release > ours]
    if newer:
        return warn(f"pytz's zone data is older than that of {' and '.join(newer)}: {text}", "upgrade pytz")
    if ours[:4].isdigit() and today.year - int(ours[:4]) > ZONE_DATA_AGE_YEARS:
        return warn(f"pytz's zone data is {ours}, and it is {today.year}", "upgrade pytz")
    return ok(f"zone data: {text}; pytz's decides")


def zone_data(found: ZoneData) -> Verdict:
    """Does PostgreSQL know the zones as we do, from a year ago until two years from now?"""
    if not found.unknown and not found.different:
        return ok(f"PostgreSQL agrees with pytz on all {found.compared} zones")
    parts = [
        f"{text} {len(names)} of {found.compared} zones ({listed(names)})"
        for text, names in (("other offsets for", found.different), ("does not know", found.unknown))
        if names
    ]
    return warn(
        f"PostgreSQL {' and '.join(parts).replace('other', 'has other', 1)}: "
        "what SQL shows as local time there is wrong; jobs are not, they ask pytz",
        "update the server's tzdata (its package, or PostgreSQL itself) and restart it",
    )


def stored_zones(found: Iterable[StoredZone], known: AbstractSet[str]) -> Verdict:
    """Does every zone that somebody chose exist?"""
    rows = list(found)
    strays = [row for row in rows if row.zone not in known]
    if not strays:
        return ok(f"the {len({row.zone for row in rows})} zones in use exist")
    names = listed(f"{row.zone!r} in {row.rows} of {row.table}" for row in strays)
    return warn(
        f"unknown time zones, which count as UTC: {names}", "correct them to names such as Asia/Karachi"
    )

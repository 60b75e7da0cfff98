"""Every zone, a dozen times of day, 2010 to 2037, against zoneinfo with tzdata: no date without an instant or a reason.

An ordinary run takes one in sixteen of each zone's clock changes with the days around them, and some days elsewhere;
KITAAB_TEST_SOAK=1 walks over every date.
"""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Iterator

import pytest

from kitaab_jobs.reminders.rules import Rule, first_after
from tests.timing import oracle

SOAK = os.environ.get("KITAAB_TEST_SOAK") == "1"
DAY = dt.timedelta(days=1)
TIMES = tuple(
    dt.time.fromisoformat(time)
    for time in (
        "00:00",
        "00:30",
        "01:00",
        "01:30",
        "02:00",
        "02:30",
        "03:00",
        "07:00",
        "12:00",
        "20:00",
        "23:30",
        "23:59",
    )
)
PARTS = 4


def spans(zone: str, number: int) -> Iterator[tuple[dt.date, dt.date]]:
    if SOAK:
        yield dt.date(2010, 1, 1), dt.date(2037, 12, 30)
        return
    for change in oracle.changes(zone)[number % 16 :: 16]:
        middle = change.date()
        yield middle - 3 * DAY, middle + 3 * DAY
    start = dt.date(2010 + number % 27, 1 + number % 12, 1)
    yield start, start + 10 * DAY


@pytest.mark.parametrize("part", range(PARTS))
def test_strictly_increasing_and_no_date_without_a_reason(part: int) -> None:
    for number, zone in enumerate(oracle.different_zones()[part::PARTS]):
        for first, last in spans(zone, number):
            for time in TIMES:
                walk(zone, time, first, last)


def walk(zone: str, time: dt.time, first: dt.date, last: dt.date) -> None:
    """Go from one occurrence to the next; each date is the next one, unless the zone never had those between."""
    rule = Rule(time, zone)
    due = first_after(rule, dt.datetime.combine(first - 2 * DAY, dt.time(), dt.UTC), first - DAY)
    expected = first
    while expected <= last:
        if oracle.was_skipped(expected, zone):
            expected += DAY
            continue
        assert (due.date, due.at) == (expected, oracle.to_utc(expected, time, zone)), (zone, time)
        following = first_after(rule, due.at, due.date)
        assert following.at > due.at, (zone, time, due)
        due, expected = following, expected + DAY

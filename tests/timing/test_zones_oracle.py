"""Every zone and every clock change from 2010 to 2037, against zoneinfo with the tzdata package."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kitaab_jobs import timing
from kitaab_jobs.errors import NoSuchInstant
from kitaab_jobs.timing import zones
from tests.timing import oracle
from tests.timing.examples import bounded

TIMES = [
    time(0), time(0, 1), time(0, 30), time(1), time(1, 30), time(2), time(2, 15), time(2, 30), time(3),
    time(7), time(12), time(21, 30), time(23), time(23, 30), time(23, 59, 59),
]  # fmt: skip
DAY = timedelta(days=1)


def test_pytz_and_tzdata_agree_on_every_zone() -> None:
    """If this fails they carry different releases: for those zones the other tests then mean nothing."""
    differing = []
    for name in oracle.zone_names():
        clock, where = zones.clock(name), oracle.zone(name)
        moments = [datetime(2010, 1, 1, tzinfo=UTC) + timedelta(days=91) * n for n in range(112)]
        ours = [start.replace(tzinfo=UTC) for start in clock.starts if 2010 <= start.year <= 2037]
        moments += [moment + near for moment in ours for near in (-timedelta(seconds=1), timedelta(0))]
        if any(timing.local_time(m, name) != m.astimezone(where).time() for m in moments):
            differing.append(name)
    versions = timing.zone_data_versions()
    assert not differing, f"pytz {versions['pytz']} and tzdata {oracle.RELEASE} differ in {differing}"


@pytest.mark.parametrize("part", range(4))
def test_local_time_to_utc_around_every_change(part: int) -> None:
    for name in oracle.different_zones()[part::4]:
        for change in oracle.changes(name):
            for day in days_around(change, name):
                check_day(day, name)


def days_around(change: datetime, name: str) -> list[date]:
    middle = change.astimezone(oracle.zone(name)).date()
    return [middle + DAY * n for n in (-2, -1, 0, 1)]


def check_day(day: date, name: str) -> None:
    if oracle.was_skipped(day, name):
        for moment in TIMES:
            with pytest.raises(NoSuchInstant):
                timing.to_utc(day, moment, name)
        return
    for moment in TIMES:
        assert timing.to_utc(day, moment, name) == oracle.to_utc(day, moment, name), (name, day, moment)


def test_only_two_dates_were_skipped_in_these_years() -> None:
    skipped = {
        (name, day)
        for name in oracle.different_zones()
        for change in oracle.changes(name)
        for day in days_around(change, name)
        if oracle.was_skipped(day, name)
    }
    assert {day for _, day in skipped} == {date(2011, 12, 30)}
    assert {name for name, _ in skipped} <= {"Pacific/Apia", "Pacific/Fakaofo"}
    assert oracle.was_skipped(date(2011, 12, 30), "Pacific/Fakaofo")


@pytest.mark.parametrize("moment", [time(0), time(0, 30), time(2, 15), time(2, 30), time(23, 30)])
def test_the_next_ones_increase_and_account_for_every_date(moment: time) -> None:
    for name in oracle.different_zones():
        for change in oracle.changes(name):
            walk_dates(name, moment, change - 3 * DAY, change + 3 * DAY)


@pytest.mark.parametrize(
    "name", ["Africa/Casablanca", "Pacific/Apia", "America/Scoresbysund", "Australia/Lord_Howe"]
)
def test_every_date_of_28_years(name: str) -> None:
    walk_dates(name, time(2, 30), datetime(2010, 1, 1, tzinfo=UTC), datetime(2037, 12, 30, tzinfo=UTC))


def walk_dates(name: str, moment: time, start: datetime, end: datetime) -> None:
    day, instant = timing.next_local(start, moment, name)
    while instant < end:
        assert instant == oracle.to_utc(day, moment, name)
        expected = day + DAY
        while oracle.was_skipped(expected, name):
            expected += DAY
        following = timing.next_local(instant, moment, name)
        assert following[0] == expected, (name, day)
        assert following[1] > instant, (name, day)
        day, instant = following


@bounded
@given(
    name=st.sampled_from(oracle.zone_names()),
    after=st.datetimes(datetime(2010, 1, 2), datetime(2037, 12, 1)),  # noqa: DTZ001
    nudge=st.integers(-36 * 60, 12 * 60),
    moment=st.times(),
    weekdays=st.none() | st.frozensets(st.integers(0, 6), min_size=1),
    later=st.none() | st.integers(-5, 20),
)
def test_the_next_is_the_first_one_that_qualifies(
    name: str,
    after: datetime,
    nudge: int,
    moment: time,
    weekdays: frozenset[int] | None,
    later: int | None,
) -> None:
    start = after.replace(tzinfo=UTC)
    near = [change for change in oracle.changes(name) if change >= start]
    if near:  # rather than anywhere, around the next change
        start = near[0] + timedelta(minutes=nudge)
    not_before = None if later is None else timing.local_date(start, name) + later * DAY
    found = timing.next_local(start, moment, name, not_before_date=not_before, weekdays=weekdays)

    day = start.astimezone(oracle.zone(name)).date() - 3 * DAY
    while (
        (not_before is not None and day < not_before)
        or (weekdays is not None and day.weekday() not in weekdays)
        or oracle.was_skipped(day, name)
        or oracle.to_utc(day, moment, name) <= start
    ):
        day += DAY
    assert found == (day, oracle.to_utc(day, moment, name))


@bounded
@given(name=st.sampled_from(oracle.zone_names()), when=st.integers(1_262_304_000, 2_145_830_400))
def test_the_local_day_of_any_instant(name: str, when: int) -> None:
    instant = datetime.fromtimestamp(when, UTC)
    local = instant.astimezone(oracle.zone(name))
    assert timing.local_date(instant, name) == local.date()
    assert timing.local_time(instant, name) == local.time()
    assert instant.astimezone(timing.zone(name)).utcoffset() == local.utcoffset()

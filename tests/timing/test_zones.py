"""Names of zones, local days, and local time to UTC, by named cases."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, date, datetime, time, timedelta, timezone
from pathlib import Path

import pytest
import pytz

from kitaab_jobs import timing
from kitaab_jobs.errors import NoSuchInstant, UnknownZone, UsageError
from kitaab_jobs.timing import zones
from tests.timing import oracle

PYTZ = pytz.OLSON_VERSION  # type: ignore[attr-defined]


def at(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


# --- names -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["UTC", "Asia/Karachi", "US/Eastern", "EST", "GB", "Asia/Calcutta", "Etc/GMT+5"]
)
def test_zones_and_aliases_are_accepted(name: str) -> None:
    assert timing.is_zone(name)
    assert timing.zone_or_utc(name) == (timing.zone(name), True)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "utc",
        "asia/karachi",
        "Asia/Karachi ",
        "Asia",
        "+05:00",
        "PKT",
        "Factory",
        "localtime",
        "posixrules",
    ],
)
def test_what_is_no_zone_is_refused_where_it_enters_and_is_utc_where_it_is_stored(name: str) -> None:
    assert not timing.is_zone(name)
    with pytest.raises(UnknownZone) as caught:
        timing.zone(name)
    assert repr(name) in caught.value.message
    assert caught.value.remedy
    found, known = timing.zone_or_utc(name)
    assert not known
    assert at("2026-07-01T12:00Z").astimezone(found).utcoffset() == timedelta(0)


@pytest.mark.parametrize(
    ("name", "near"),
    [("asia/karachi", "Asia/Karachi"), ("Karachi", "Asia/Karachi"), ("Amerika/New York", "America/New_York")],
)
def test_an_unknown_zone_names_the_nearest(name: str, near: str) -> None:
    with pytest.raises(UnknownZone, match=f"did you mean {near}"):
        timing.local_date(at("2026-07-01T12:00Z"), name)


def test_the_names_are_those_of_the_iana_release() -> None:
    assert sorted(timing.zone_names()) == list(oracle.zone_names())


# --- local days ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("instant", "name", "day", "clock"),
    [
        ("2026-11-22T18:59:59Z", "Asia/Karachi", "2026-11-22", "23:59:59"),
        ("2026-11-22T19:00Z", "Asia/Karachi", "2026-11-23", "00:00"),
        ("2026-11-22T09:59Z", "Pacific/Honolulu", "2026-11-21", "23:59"),
        ("2011-12-30T09:59:59Z", "Pacific/Apia", "2011-12-29", "23:59:59"),
        ("2011-12-30T10:00Z", "Pacific/Apia", "2011-12-31", "00:00"),
        ("2026-07-01T00:00+05:00", "UTC", "2026-06-30", "19:00"),
    ],
)
def test_the_local_day_and_time_of_an_instant(instant: str, name: str, day: str, clock: str) -> None:
    assert timing.local_date(at(instant), name) == date.fromisoformat(day)
    assert timing.local_time(at(instant), name) == time.fromisoformat(clock)


def test_a_time_without_a_zone_is_no_instant() -> None:
    naive = datetime(2026, 11, 22, 12)  # noqa: DTZ001
    with pytest.raises(UsageError, match="2026-11-22T12:00:00 has no time zone"):
        timing.local_date(naive, "UTC")
    with pytest.raises(UsageError, match="no time zone"):
        timing.next_local(naive, time(7), "UTC")
    with pytest.raises(UsageError, match="carries a zone"):
        timing.to_utc(date(2026, 11, 22), time(7, tzinfo=UTC), "UTC")


# --- local time to UTC -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "local", "instant"),
    [
        ("America/New_York", "2026-03-08T02:30", "2026-03-08T07:30Z"),  # in a gap
        ("America/New_York", "2026-11-01T01:30", "2026-11-01T05:30Z"),  # twice
        ("America/New_York", "2026-11-01T02:00", "2026-11-01T07:00Z"),  # the first time after both
        ("Europe/Dublin", "2026-03-29T01:30", "2026-03-29T01:30Z"),  # summer is the standard time there
        ("Europe/Dublin", "2026-10-25T01:30", "2026-10-25T00:30Z"),
        ("Australia/Lord_Howe", "2026-10-04T02:15", "2026-10-03T15:45Z"),  # half an hour
        ("Australia/Lord_Howe", "2026-04-05T01:45", "2026-04-04T14:45Z"),
        ("Africa/Casablanca", "2026-02-15T02:30", "2026-02-15T01:30Z"),  # Ramadan
        ("Africa/Casablanca", "2026-11-22T07:00", "2026-11-22T07:00Z"),  # since 2026f; 06:00 before
        ("Africa/Cairo", "2026-04-24T00:30", "2026-04-23T22:30Z"),  # a gap at midnight
        ("Asia/Beirut", "2026-03-29T00:00", "2026-03-28T22:00Z"),
        ("America/Scoresbysund", "2026-03-28T23:30", "2026-03-29T01:30Z"),  # lands on the next local date
        ("Asia/Kathmandu", "2026-07-01T05:00", "2026-06-30T23:15Z"),
        ("Antarctica/Casey", "2020-10-04T01:30", "2020-10-03T17:30Z"),  # a gap of three hours
        ("Antarctica/Casey", "2021-03-13T22:30", "2021-03-13T11:30Z"),  # an overlap of three
        ("Antarctica/Troll", "2026-03-29T02:30", "2026-03-29T02:30Z"),  # a gap of two
        ("Pacific/Apia", "2011-12-29T23:59", "2011-12-30T09:59Z"),
        ("Pacific/Apia", "2011-12-31T00:00", "2011-12-30T10:00Z"),
        ("Pacific/Kwajalein", "1993-08-20T23:59", "1993-08-21T11:59Z"),
        ("Pacific/Kwajalein", "1993-08-22T00:00", "1993-08-21T12:00Z"),
        ("Pacific/Kwajalein", "1969-09-30T12:00", "1969-09-30T01:00Z"),  # 23 hours came twice
        ("Etc/GMT+5", "2026-07-01T05:00", "2026-07-01T10:00Z"),
    ],
)
def test_a_local_time_and_its_instant(name: str, local: str, instant: str) -> None:
    wanted = datetime.fromisoformat(local)
    found = timing.to_utc(wanted.date(), wanted.time(), name)
    assert found == at(instant)
    assert found.tzinfo is UTC
    assert timing.to_utc(wanted.date(), wanted.time().replace(fold=1), name) == found


@pytest.mark.parametrize(
    ("name", "day"),
    [
        ("Pacific/Apia", "2011-12-30"),
        ("Pacific/Fakaofo", "2011-12-30"),
        ("Pacific/Kwajalein", "1993-08-21"),
        ("Pacific/Kiritimati", "1994-12-31"),
        ("Pacific/Enderbury", "1994-12-31"),
    ],
)
@pytest.mark.parametrize("clock", [time(0), time(7), time(23, 59, 59, 999999)])
def test_a_date_that_the_zone_skipped_has_no_instant(name: str, day: str, clock: time) -> None:
    with pytest.raises(NoSuchInstant, match=f"no {day} in {name}") as caught:
        timing.to_utc(date.fromisoformat(day), clock, name)
    assert caught.value.remedy


def test_after_2037_the_last_offset_stays_and_nothing_fails() -> None:
    assert timing.to_utc(date(2037, 7, 1), time(7), "Europe/Paris") == at("2037-07-01T05:00Z")
    assert timing.to_utc(date(2500, 7, 1), time(7), "Europe/Paris") == at("2500-07-01T06:00Z")
    assert timing.next_local(at("2099-06-30T23:00Z"), time(7), "Australia/Sydney") == (
        date(2099, 7, 2),
        at("2099-07-01T20:00Z"),
    )


@pytest.mark.parametrize("day", [date.min, date.max])
def test_the_ends_of_the_calendar_are_refused_in_words(day: date) -> None:
    name, clock = ("Asia/Tokyo", time(0)) if day == date.min else ("America/New_York", time(23))
    with pytest.raises(NoSuchInstant, match="outside the years"):
        timing.to_utc(day, clock, name)
    with pytest.raises(NoSuchInstant, match="outside the years"):
        timing.next_local(datetime(9999, 12, 31, 23, tzinfo=UTC), time(7), "UTC")


# --- the next one ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("after", "clock", "name", "day", "instant"),
    [
        ("2026-11-22T01:59:59Z", "07:00", "Asia/Karachi", "2026-11-22", "2026-11-22T02:00Z"),
        ("2026-11-22T02:00Z", "07:00", "Asia/Karachi", "2026-11-23", "2026-11-23T02:00Z"),  # strictly after
        ("2011-12-29T18:00Z", "07:00", "Pacific/Apia", "2011-12-31", "2011-12-30T17:00Z"),  # no 30th
        (
            "2026-03-29T01:00Z",
            "23:30",
            "America/Scoresbysund",
            "2026-03-28",
            "2026-03-29T01:30Z",
        ),  # still the 28th
        ("2026-03-29T01:30Z", "23:30", "America/Scoresbysund", "2026-03-29", "2026-03-30T00:30Z"),
        (
            "2026-11-01T05:45Z",
            "01:30",
            "America/New_York",
            "2026-11-02",
            "2026-11-02T06:30Z",
        ),  # not the second
        ("2026-11-01T06:10Z", "01:30", "America/New_York", "2026-11-02", "2026-11-02T06:30Z"),
        ("2026-11-22T07:00+05:00", "07:00", "Asia/Karachi", "2026-11-23", "2026-11-23T02:00Z"),
    ],
)
def test_the_next_local_time(after: str, clock: str, name: str, day: str, instant: str) -> None:
    found = timing.next_local(at(after), time.fromisoformat(clock), name)
    assert found == (date.fromisoformat(day), at(instant))


@pytest.mark.parametrize(
    ("sent", "name", "clock", "now", "instant"),
    [
        ("2026-11-23T12:00Z", "America/Los_Angeles", "07:00", "2026-11-23T13:00Z", "2026-11-24T15:00Z"),
        ("2026-11-21T18:00Z", "Pacific/Honolulu", "07:00", "2026-11-21T20:00Z", "2026-11-22T17:00Z"),
        ("2026-11-22T02:00Z", "Asia/Karachi", "20:00", "2026-11-22T05:00Z", "2026-11-23T15:00Z"),
    ],
)
def test_after_an_edit_the_date_already_served_is_not_served_again(
    sent: str, name: str, clock: str, now: str, instant: str
) -> None:
    tomorrow = timing.local_date(at(sent), name) + timedelta(days=1)
    found = timing.next_local(at(now), time.fromisoformat(clock), name, not_before_date=tomorrow)
    assert found == (tomorrow, at(instant))


def test_only_on_some_days_of_the_week() -> None:
    friday = timing.next_local(at("2026-11-22T12:00Z"), time(7), "UTC", weekdays=frozenset({4}))
    assert friday == (date(2026, 11, 27), at("2026-11-27T07:00Z"))
    later = timing.next_local(
        at("2026-11-22T12:00Z"), time(7), "UTC", weekdays=frozenset({4}), not_before_date=date(2026, 11, 28)
    )
    assert later == (date(2026, 12, 4), at("2026-12-04T07:00Z"))


@pytest.mark.parametrize("weekdays", [frozenset[int](), frozenset({7}), frozenset({-1, 2})])
def test_days_of_the_week_that_are_none(weekdays: frozenset[int]) -> None:
    with pytest.raises(UsageError, match="do not name days"):
        timing.next_local(at("2026-11-22T12:00Z"), time(7), "UTC", weekdays=weekdays)


# --- versions, and what the module may not do ------------------------------------------------------


def test_the_versions_of_the_zone_data(tmp_path: Path) -> None:
    found = timing.zone_data_versions(tmp_path)
    assert found == {"pytz": PYTZ, "tzdata": oracle.RELEASE, "system": "unknown"}
    (tmp_path / "+VERSION").write_text("2024a\n")
    assert timing.zone_data_versions(tmp_path)["system"] == "2024a"
    (tmp_path / "tzdata.zi").write_text("# version 2025b\n# ddeps backzone\n")
    assert timing.zone_data_versions(tmp_path)["system"] == "2025b"


def test_without_the_tzdata_package_its_version_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tzdata", None)
    assert timing.zone_data_versions(tmp_path) == {"pytz": PYTZ, "system": "unknown"}


def test_nothing_heavy_is_imported_and_nothing_else_imports_pytz_or_croniter() -> None:
    code = (
        "import sys, kitaab_jobs.timing\n"
        "print([m for m in ('celery', 'sqlalchemy', 'redis', 'psycopg', 'kombu') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    package = Path(timing.__file__).parent
    for file in package.parent.rglob("*.py"):
        imports = [
            line.split()
            for line in file.read_text().splitlines()
            if line.lstrip().startswith(("import ", "from "))
        ]
        if package not in file.parents:
            assert not [words for words in imports if words[1].split(".")[0] in ("pytz", "croniter")], file


def test_the_clock_of_a_zone_refuses_to_look_constant_when_pytz_hides_its_transitions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    zones.clock.cache_clear()
    monkeypatch.delattr(type(pytz.timezone("Europe/Paris")), "_utc_transition_times")
    monkeypatch.delattr(pytz.tzinfo.DstTzInfo, "_utc_transition_times")
    with pytest.raises(AttributeError):
        zones.clock("Europe/Paris")


def test_a_fixed_offset_is_an_instant_too() -> None:
    five = timezone(timedelta(hours=5))
    assert timing.local_time(datetime(2026, 1, 1, 12, tzinfo=five), "UTC") == time(7)

"""Schedules by named cases: reading them, clock changes under both rules, days, intervals, ranges."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import FrozenInstanceError
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kitaab_jobs.errors import BadCron, NoSuchInstant, UnknownZone, UsageError
from kitaab_jobs.timing import Cadence, fires_between, next_fires, parse
from tests.timing.examples import bounded


def at(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def check(line: str, zone: str, dst: str, after: str, fires: str) -> None:
    """`fires` as `03-08T07:00 03-09T06:30`, within the year of `after` or the one that follows."""
    cadence = parse(line, zone, dst=dst)
    found = next_fires(cadence, at(after), len(fires.split()))
    assert " ".join(f"{fire:%m-%dT%H:%M}" for fire in found) == fires
    assert all(fire.tzinfo is UTC for fire in found)
    assert all(later - earlier < timedelta(days=400) for earlier, later in pairwise([at(after), *found]))


# --- clock changes ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "zone", "after", "fires"),
    [
        # a fixed time in a gap: at the first moment after it
        ("30 2 * * *", "America/New_York", "2026-03-07T12:00Z", "03-08T07:00 03-09T06:30 03-10T06:30"),
        ("15 2 * * *", "Australia/Lord_Howe", "2026-10-03T00:00Z", "10-03T15:30 10-04T15:15 10-05T15:15"),
        ("30 0 * * *", "Africa/Cairo", "2026-04-22T12:00Z", "04-22T22:30 04-23T22:00 04-24T21:30"),
        ("0 0 * * *", "Asia/Beirut", "2026-03-27T12:00Z", "03-27T22:00 03-28T22:00 03-29T21:00"),
        ("30 1 * * *", "Europe/Dublin", "2026-03-28T12:00Z", "03-29T01:00 03-30T00:30"),
        ("30 23 28 3 *", "America/Scoresbysund", "2026-03-28T00:00Z", "03-29T01:00"),
        ("30 1 * * *", "Antarctica/Casey", "2020-10-02T20:00Z", "10-03T16:01 10-04T14:30"),  # of three hours
        # several in one gap are one fire; one that falls on its end anyway is no second
        ("0,15,30,45 2 * * *", "America/New_York", "2026-03-07T12:00Z", "03-08T07:00 03-09T06:00"),
        ("0 2,3 * * *", "America/New_York", "2026-03-08T00:00Z", "03-08T07:00 03-09T06:00 03-09T07:00"),
        ("30 1-3 * * *", "America/New_York", "2026-03-08T00:00Z", "03-08T06:30 03-08T07:00 03-08T07:30"),
        # a fixed time that comes twice: the first
        ("30 1 * * *", "America/New_York", "2026-10-31T12:00Z", "11-01T05:30 11-02T06:30 11-03T06:30"),
        ("30 1 * * *", "America/New_York", "2026-11-01T05:30Z", "11-02T06:30"),
        ("30 1 * * *", "America/New_York", "2026-11-01T06:10Z", "11-02T06:30"),  # asked from the second pass
        ("0,30 1,2 * * *", "America/New_York", "2026-11-01T05:00Z", "11-01T05:30 11-01T07:00 11-01T07:30"),
        ("45 1 * * *", "Australia/Lord_Howe", "2026-04-04T00:00Z", "04-04T14:45 04-05T15:15"),
        ("30 2 * * *", "Africa/Casablanca", "2026-02-14T12:00Z", "02-15T01:30 02-16T02:30"),
        ("30 22 * * *", "Antarctica/Casey", "2021-03-13T00:00Z", "03-13T11:30 03-14T14:30"),
        # wildcard minutes or hours: whatever the clock shows
        ("*/30 * * * *", "America/New_York", "2026-11-01T05:15Z", "11-01T05:30 11-01T06:00 11-01T06:30"),
        ("*/20 * * * *", "Australia/Lord_Howe", "2026-04-04T14:35Z", "04-04T14:40 04-04T15:10 04-04T15:30"),
        ("*/30 2 * * *", "America/New_York", "2026-03-08T00:00Z", "03-09T06:00 03-09T06:30"),
        ("30 */2 * * *", "America/New_York", "2026-03-08T04:00Z", "03-08T05:30 03-08T08:30"),
        ("30 */1 * * *", "America/New_York", "2026-11-01T05:00Z", "11-01T05:30 11-01T06:30 11-01T07:30"),
        ("@hourly", "America/New_York", "2026-11-01T04:30Z", "11-01T05:00 11-01T06:00 11-01T07:00"),
        ("30 0-23 * * *", "America/New_York", "2026-11-01T05:00Z", "11-01T05:30 11-01T07:30"),  # fixed
        # a skipped day is a correction: nothing is made up for
        ("0 7 * * *", "Pacific/Apia", "2011-12-29T18:00Z", "12-30T17:00 12-31T17:00 01-01T17:00"),
        ("0 7 * * *", "Pacific/Kwajalein", "1993-08-20T00:00Z", "08-20T19:00 08-21T19:00 08-22T19:00"),
    ],
)  # fmt: skip
def test_the_rule_of_cron(line: str, zone: str, after: str, fires: str) -> None:
    check(line, zone, "cron", after, fires)


@pytest.mark.parametrize(
    ("line", "zone", "after", "fires"),
    [
        ("30 2 * * *", "America/New_York", "2026-03-07T06:00Z", "03-07T07:30 03-09T06:30 03-10T06:30"),
        ("30 1 * * *", "America/New_York", "2026-10-31T12:00Z", "11-01T05:30 11-01T06:30 11-02T06:30"),
        ("15 2 * * *", "Australia/Lord_Howe", "2026-10-03T00:00Z", "10-04T15:15 10-05T15:15"),
        ("45 1 * * *", "Australia/Lord_Howe", "2026-04-04T00:00Z", "04-04T14:45 04-04T15:15 04-05T15:15"),
        ("30 0 * * *", "Africa/Cairo", "2026-04-22T12:00Z", "04-22T22:30 04-24T21:30"),
        ("0 7 * * *", "Pacific/Apia", "2011-12-29T18:00Z", "12-30T17:00 12-31T17:00 01-01T17:00"),
        ("*/30 * * * *", "America/New_York", "2026-11-01T05:15Z", "11-01T05:30 11-01T06:00 11-01T06:30"),
    ],
)
def test_the_literal_rule(line: str, zone: str, after: str, fires: str) -> None:
    check(line, zone, "literal", after, fires)


def test_a_date_that_never_was_waits_for_the_next_year() -> None:
    for dst in ("cron", "literal"):
        cadence = parse("0 7 30 12 *", "Pacific/Apia", dst=dst)
        assert cadence.next_fire(at("2011-12-01T00:00Z")) == at("2012-12-29T17:00Z")


# --- days ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "after", "fires"),
    [
        ("0 0 31 2 0", "2026-11-22T00:00Z", "02-07T00:00 02-14T00:00 02-21T00:00"),  # either
        ("0 9 13 * 5", "2026-02-01T00:00Z", "02-06T09:00 02-13T09:00 02-20T09:00"),
        (
            "0 9 */2 * 1",
            "2026-06-01T00:00Z",
            "06-01T09:00 06-15T09:00 06-29T09:00",
        ),  # both: Mondays, odd days
        (
            "0 9 13 * */5",
            "2026-01-01T00:00Z",
            "02-13T09:00 03-13T09:00 09-13T09:00",
        ),  # both: Sunday or Friday
        ("0 9 1-31 * 1", "2026-06-01T10:00Z", "06-02T09:00 06-03T09:00"),  # 1-31 has no star: either
        ("0 9 1 * 1#1", "2026-06-01T10:00Z", "07-01T09:00 07-06T09:00 08-01T09:00"),  # either, with #
        ("0 9 * * 5#2", "2026-06-01T00:00Z", "06-12T09:00 07-10T09:00"),
        ("0 9 * * fri#5", "2026-06-01T00:00Z", "07-31T09:00 10-30T09:00"),
        ("0 9 * * L5", "2026-06-01T00:00Z", "06-26T09:00 07-31T09:00"),
        ("0 9 * * 7#1,L0", "2026-06-01T00:00Z", "06-07T09:00 06-28T09:00 07-05T09:00"),
        ("0 9 * * 1,5#2", "2026-06-08T10:00Z", "06-12T09:00 06-15T09:00 06-22T09:00"),
        ("0 9 3-1,L * *", "2026-05-31T10:00Z", "06-01T09:00 06-03T09:00 06-04T09:00"),  # croniter: every day
        ("0 9 L * *", "2026-01-31T10:00Z", "02-28T09:00 03-31T09:00 04-30T09:00"),
        ("0 9 15,L 2 *", "2028-01-01T00:00Z", "02-15T09:00 02-29T09:00"),
        ("0 9 L * 1", "2026-06-23T00:00Z", "06-29T09:00 06-30T09:00 07-06T09:00"),
        ("0 0 * * sat-sun", "2026-06-01T00:00Z", "06-06T00:00 06-07T00:00 06-13T00:00"),
        ("0 0 * * 6-7", "2026-06-01T00:00Z", "06-06T00:00 06-07T00:00 06-13T00:00"),
        ("0 0 1 NOV-Feb/2 *", "2026-10-01T00:00Z", "11-01T00:00 01-01T00:00"),
        ("0 22-2/3 * * *", "2026-06-01T12:00Z", "06-01T22:00 06-02T01:00 06-02T22:00"),
        ("5-5 3-3 * * *", "2026-06-01T12:00Z", "06-02T03:05 06-03T03:05"),  # croniter: every minute
        ("50/20 12 * * *", "2026-06-01T00:00Z", "06-01T12:50 06-02T12:50"),
        ("@daily", "2026-06-01T00:00Z", "06-02T00:00"),
        ("@midnight", "2026-06-01T00:00Z", "06-02T00:00"),
        ("@weekly", "2026-06-01T00:00Z", "06-07T00:00"),
        ("@monthly", "2026-06-01T00:00Z", "07-01T00:00"),
        ("@yearly", "2026-06-01T00:00Z", "01-01T00:00"),
        ("@annually", "2026-06-01T00:00Z", "01-01T00:00"),
    ],
)
def test_days_and_fields(line: str, after: str, fires: str) -> None:
    check(line, "UTC", "cron", after, fires)


def test_leap_days_that_are_far_apart() -> None:
    assert parse("0 0 29 2 *").next_fire(at("2096-03-01T00:00Z")) == at("2104-02-29T00:00Z")
    assert parse("0 0 29 2 */7").next_fire(at("2060-03-01T00:00Z")) == at("2088-02-29T00:00Z")


def test_seconds_of_the_question_do_not_matter_but_strictly_after_does() -> None:
    every = parse("* * * * *")
    assert every.next_fire(at("2026-06-01T00:00:59.999999Z")) == at("2026-06-01T00:01Z")
    assert every.next_fire(at("2026-06-01T00:01Z")) == at("2026-06-01T00:02Z")
    assert every.next_fire(at("2026-06-01T05:30:30+05:00")) == at("2026-06-01T00:31Z")


# --- reading ---------------------------------------------------------------------------------------


def test_the_zone_as_the_last_word_wins() -> None:
    assert parse("0 21 * * * Asia/Karachi", "UTC") == Cadence("0 21 * * *", "Asia/Karachi", "cron")
    assert parse("@daily  GB").zone == "GB"
    assert parse("0  21 * * *", "Asia/Karachi", dst="literal") == Cadence(
        "0 21 * * *", "Asia/Karachi", "literal"
    )


@pytest.mark.parametrize("line", ["0 21 * * *", "@daily", "every 90s", "0 0 * JAN mon-FRI"])
def test_a_cadence_is_a_value_that_reads_back(line: str) -> None:
    cadence = parse(line, "Asia/Karachi")
    assert parse(str(cadence), "Asia/Karachi") == cadence
    assert hash(parse(line, "Asia/Karachi")) == hash(cadence)
    assert pickle.loads(pickle.dumps(cadence)) == cadence
    with pytest.raises(FrozenInstanceError):
        cadence.line = "* * * * *"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("line", "names", "says"),
    [
        ("", "''", "has 0 fields"),
        ("* * * *", "4 fields", "minute, hour, day of month"),
        ("0 0 * * * 30", "6 fields", "every 30s"),
        ("0 0 0 * * * 2026", "7 fields", "no years"),
        ("0 0 * * * MON", "6 fields", "then a zone"),
        ("60 * * * *", "minute '60'", "0 to 59"),
        ("* 24 * * *", "hour '24'", "0 to 23"),
        ("0 0 0 * *", "day of month '0'", "1 to 31"),
        ("0 0 * 13 *", "month '13'", "1 to 12 or jan to dec"),
        ("0 0 * jam *", "month 'jam'", "1 to 12 or jan to dec"),
        ("0 0 * * 8", "day of week '8'", "0 to 7 or sun to sat"),
        ("0 mon * * *", "hour 'mon'", "0 to 23"),
        ("0 0 15W * *", "day of month '15W'", "W, the nearest weekday, is not supported"),
        ("0 0 LW * *", "day of month 'LW'", "W, the nearest weekday, is not supported"),
        ("0 0 L-3 * *", "day of month 'L-3'", "L is the last day"),
        ("0 0 * * 5L", "day of week '5L'", "the last Friday is L5"),
        ("0 0 * * 5#6", "day of week '5#6'", "5#2 is the second Friday"),
        ("0 0 ? * *", "day of month '?'", "write *"),
        ("H * * * *", "minute 'H'", "H and R"),
        ("R(0-9) * * * *", "minute 'R(0-9)'", "H and R"),
        ("h/5 * * * *", "minute 'h/5'", "H and R"),
        ("*/0 * * * *", "minute '*/0'", "a step is 1 or more"),
        ("1,,2 * * * *", "'' in minute '1,,2'", "0 to 59"),
        ("1- * * * *", "minute '1-'", "0 to 59"),
        ("*-5 * * * *", "minute '*-5'", "0 to 59"),
        ("-5 * * * *", "minute '-5'", "0 to 59"),
        ("1.5 * * * *", "minute '1.5'", "0 to 59"),
        ("٣ * * * *", "minute '٣'", "0 to 59"),
        (f"{'9' * 5000} * * * *", "minute '999", "0 to 59"),
        ("@reboot", "'@reboot'", "@hourly"),
        ("@every 5m", "'@every 5m'", "@hourly"),
        ("every", "'every'", "every 30s"),
        ("every 0s", "'every 0s'", "from 1s"),
        ("every 500ms", "'every 500ms'", "every 30s"),
        ("every 1.5h", "'every 1.5h'", "whole number"),
        ("every 5 minutes", "'every 5 minutes'", "whole number"),
        ("every 999999999d", "'every 999999999d'", "to 3660d"),
        ("every 1d Asia/Karachi", "gives an interval a zone", "@daily"),
        ("0 0 30 2 *", "'0 0 30 2 *' never fires", "such a day"),
        ("0 0 31 4,6,9,11 *", "never fires", "such a day"),
        ("0 0 */31 2 5#5", "never fires", "such a day"),
    ],
)
def test_what_cannot_be_read_is_refused_by_its_part_and_says_what_is_accepted(
    line: str, names: str, says: str
) -> None:
    with pytest.raises(BadCron) as caught:
        parse(line)
    assert names in caught.value.message
    assert says in str(caught.value)
    assert caught.value.remedy


def test_a_zone_or_rule_that_is_none() -> None:
    with pytest.raises(UnknownZone, match="did you mean Asia/Karachi"):
        parse("0 21 * * * Asia/Karatchi")
    with pytest.raises(UnknownZone, match="Karachi"):
        parse("0 21 * * * Karachi")
    with pytest.raises(UnknownZone):
        parse("every 30s", "Mars/Olympus")
    with pytest.raises(BadCron, match="'cron' or 'literal'"):
        parse("0 21 * * *", dst="vixie")
    with pytest.raises(BadCron):
        Cadence("0 25 * * *")


@bounded
@given(st.text(alphabet="0123456789*/,-#LWHR?@ jansuevry\t", max_size=30) | st.text(max_size=12))
def test_any_text_is_read_or_refused_never_a_crash(line: str) -> None:
    with suppress(BadCron, UnknownZone):
        assert parse(line).next_fire(at("2026-11-22T12:00Z")) > at("2026-11-22T12:00Z")


# --- intervals, ranges, ends -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "after", "fire"),
    [
        ("every 30s", "2026-11-22T12:00:00Z", "2026-11-22T12:00:30Z"),
        ("every 30s", "2026-11-22T12:00:29.999999Z", "2026-11-22T12:00:30Z"),
        ("every 7s", "1970-01-01T00:00Z", "1970-01-01T00:00:07Z"),
        ("every 7s", "1969-12-31T23:59:58Z", "1970-01-01T00:00Z"),
        ("every 5m", "2026-11-22T12:03Z", "2026-11-22T12:05Z"),
        ("every 2h", "2026-11-22T12:03Z", "2026-11-22T14:00Z"),
        ("EVERY 1D", "2026-11-22T12:03Z", "2026-11-23T00:00Z"),
        ("every 7d", "2026-11-22T12:03Z", "2026-11-26T00:00Z"),  # Thursdays, as 1 January 1970
    ],
)
def test_intervals_are_counted_from_the_epoch(line: str, after: str, fire: str) -> None:
    cadence = parse(line, "America/New_York")
    assert cadence.is_interval
    assert cadence.next_fire(at(after)) == at(fire)


def test_an_interval_takes_no_notice_of_clock_changes() -> None:
    fires = next_fires(parse("every 2h", "America/New_York"), at("2026-11-01T00:00Z"), 24)
    assert {later - earlier for earlier, later in pairwise(fires)} == {timedelta(hours=2)}


def test_fires_between_excludes_the_start_includes_the_end_and_keeps_to_its_limit() -> None:
    hourly = parse("@hourly")
    start, end = at("2026-06-01T00:00Z"), at("2026-06-01T03:00Z")
    hours = [start + timedelta(hours=n) for n in (1, 2, 3)]
    assert fires_between(hourly, start, end, 10) == hours
    assert fires_between(hourly, start, end - timedelta(microseconds=1), 10) == hours[:2]
    assert fires_between(hourly, start, end, 2) == hours[:2]
    assert fires_between(hourly, end, start, 10) == []
    assert fires_between(hourly, start, end, 0) == next_fires(hourly, start, 0) == []


def test_after_2037_and_at_the_end_of_the_calendar() -> None:
    assert parse("30 2 * * *", "America/New_York").next_fire(at("2090-07-01T12:00Z")) == at(
        "2090-07-02T07:30Z"
    )
    for line in ("0 0 1 1 *", "every 1d"):
        with pytest.raises(NoSuchInstant, match="does not fire after 9999-12-31T23:00"):
            parse(line).next_fire(at("9999-12-31T23:00Z"))


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(UsageError, match="no time zone"):
        parse("@daily").next_fire(datetime(2026, 6, 1))  # noqa: DTZ001


def test_threads_share_a_cadence() -> None:
    cadence = parse("*/7 3,9 13 * 5", "Europe/Dublin")
    starts = [at("2026-01-01T00:00Z") + timedelta(days=n) for n in range(400)]
    alone = [cadence.next_fire(start) for start in starts]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(cadence.next_fire, starts)) == alone

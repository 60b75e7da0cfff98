"""When a reminder is due, until when it is sent, and what an edit does to it: by example."""

from __future__ import annotations

import datetime as dt

import pytest

from kitaab_jobs.errors import NoSuchInstant
from kitaab_jobs.reminders.rules import (
    MISSED_ROWS,
    SEND_WITHIN,
    Due,
    Edit,
    Rule,
    Settled,
    deadline,
    first_after,
    iso_weekdays,
    judge,
    settle_due,
    settle_edit,
)
from kitaab_jobs.timing import to_utc

EIGHT = dt.time(8)
NIGHT = (dt.time(22), dt.time(6))
SECOND = dt.timedelta(seconds=1)
DAY = dt.timedelta(days=1)


def utc(day: int, hour: int, minute: int = 0, month: int = 3) -> dt.datetime:
    return dt.datetime(2026, month, day, hour, minute, tzinfo=dt.UTC)


def at(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text.replace("Z", "+00:00"))


def date(day: int, month: int = 3) -> dt.date:
    return dt.date(2026, month, day)


# The issue's: zone, local date and time, instant.
VECTORS = {
    "New York springs forward": ("America/New_York", "2026-03-08 02:30", "2026-03-08T07:30Z"),
    "New York falls back": ("America/New_York", "2026-11-01 01:30", "2026-11-01T05:30Z"),
    "Dublin, whose winter is the exception": ("Europe/Dublin", "2026-03-29 01:30", "2026-03-29T01:30Z"),
    "Lord Howe moves by half an hour": ("Australia/Lord_Howe", "2026-10-04 02:15", "2026-10-03T15:45Z"),
    "Casablanca before Ramadan": ("Africa/Casablanca", "2026-02-15 02:30", "2026-02-15T01:30Z"),
    "Casablanca as 2026f has it": ("Africa/Casablanca", "2026-11-22 07:00", "2026-11-22T07:00Z"),
    "Cairo skips midnight": ("Africa/Cairo", "2026-04-24 00:30", "2026-04-23T22:30Z"),
    "Scoresbysund, past midnight": ("America/Scoresbysund", "2026-03-28 23:30", "2026-03-29T01:30Z"),
    "Kathmandu": ("Asia/Kathmandu", "2026-07-01 05:00", "2026-06-30T23:15Z"),
}


@pytest.mark.parametrize("name", VECTORS)
def test_vector(name: str) -> None:
    zone, local, instant = VECTORS[name]
    wall = dt.datetime.fromisoformat(local)
    expected = Due(at(instant), wall.date())
    assert to_utc(wall.date(), wall.time(), zone) == expected.at
    assert first_after(Rule(wall.time(), zone), expected.at - SECOND, None) == expected
    assert first_after(Rule(wall.time(), zone), expected.at - 12 * SEND_WITHIN, wall.date() - DAY) == expected


def test_vector_apia_had_no_30_december_2011() -> None:
    with pytest.raises(NoSuchInstant):
        to_utc(dt.date(2011, 12, 30), EIGHT, "Pacific/Apia")
    last = Due(at("2011-12-29T18:00Z"), dt.date(2011, 12, 29))
    following = first_after(Rule(EIGHT, "Pacific/Apia"), last.at, last.date)
    assert following == Due(at("2011-12-30T18:00Z"), dt.date(2011, 12, 31))


class TestStateVectors:
    """The issue's: sent, then moved."""

    def test_new_york_to_los_angeles(self) -> None:
        last = Due(at("2026-11-23T12:00Z"), date(23, 11))
        planned = Due(at("2026-11-24T12:00Z"), date(24, 11))
        settled = edited(
            "07:00 America/Los_Angeles", "07:00 America/New_York", planned, last, "2026-11-23T13:00Z"
        )
        assert settled.next == Due(at("2026-11-24T15:00Z"), date(24, 11))
        assert settled.occurrences == ()

    def test_auckland_to_honolulu(self) -> None:
        """Two 22 Novembers: the one in Auckland was used, the one in Honolulu is still to come."""
        last = Due(at("2026-11-21T18:00Z"), date(22, 11))
        planned = Due(at("2026-11-22T18:00Z"), date(23, 11))
        settled = edited(
            "07:00 Pacific/Honolulu", "07:00 Pacific/Auckland", planned, last, "2026-11-21T20:00Z"
        )
        assert settled.next == Due(at("2026-11-22T17:00Z"), date(22, 11))
        assert settled.last_date == date(21, 11)

    def test_karachi_to_the_evening(self) -> None:
        last = Due(at("2026-11-22T02:00Z"), date(22, 11))
        planned = Due(at("2026-11-23T02:00Z"), date(23, 11))
        settled = edited("20:00 Asia/Karachi", "07:00 Asia/Karachi", planned, last, "2026-11-22T05:00Z")
        assert settled.next == Due(at("2026-11-23T15:00Z"), date(23, 11))


def edited(
    new: str, old: str, planned: Due | None, last: Due | None, since: str, now: str | None = None
) -> Settled:
    rules = []
    for text in (new, old):
        time, zone = text.split()
        rules.append(Rule(dt.time.fromisoformat(time), zone))
    return settle_edit(rules[0], Edit(planned, rules[1]), last, at(since), at(now or since))


class TestTimeEdited:
    planned = Due(utc(1, 8), date(1))

    def test_later_today_and_unsent(self) -> None:
        settled = edited("20:00 UTC", "08:00 UTC", self.planned, None, "2026-03-01T07:00Z")
        assert settled.next == Due(utc(1, 20), date(1))
        assert "there was none for 2026-03-01 yet" in str(settled.note)

    def test_earlier_than_now(self) -> None:
        settled = edited("06:00 UTC", "08:00 UTC", self.planned, None, "2026-03-01T07:00Z")
        assert settled.next == Due(utc(2, 6), date(2))
        assert "06:00 of 2026-03-01 is no more to come" in str(settled.note)

    def test_sent_already(self) -> None:
        last = self.planned
        planned = Due(utc(2, 8), date(2))
        settled = edited("20:00 UTC", "08:00 UTC", planned, last, "2026-03-01T09:00Z")
        assert settled.next == Due(utc(2, 20), date(2))
        assert "there was one for 2026-03-01 already" in str(settled.note)

    def test_due_and_not_claimed_stays_due(self) -> None:
        settled = edited("20:00 UTC", "08:00 UTC", self.planned, None, "2026-03-01T08:00:20Z")
        assert [(o.at, o.state) for o in settled.occurrences] == [(utc(1, 8), "pending")]
        assert settled.next == Due(utc(2, 20), date(2))

    def test_due_and_missed_leaves_the_evening(self) -> None:
        settled = edited(
            "20:00 UTC", "08:00 UTC", self.planned, None, "2026-03-01T08:30Z", "2026-03-01T11:00Z"
        )
        assert [(o.at, o.state) for o in settled.occurrences] == [(utc(1, 8), "missed")]
        assert settled.next == Due(utc(1, 20), date(1))

    def test_both_times_due_when_the_dispatcher_is_back(self) -> None:
        settled = edited(
            "08:40 UTC", "08:00 UTC", self.planned, None, "2026-03-01T08:30Z", "2026-03-01T09:00Z"
        )
        assert [(o.at, o.state) for o in settled.occurrences] == [
            (utc(1, 8), "missed"),
            (utc(1, 8, 40), "pending"),
        ]
        assert settled.next == Due(utc(2, 8, 40), date(2))

    def test_an_outage_of_days_under_the_old_time(self) -> None:
        settled = edited(
            "20:00 UTC", "08:00 UTC", self.planned, None, "2026-03-03T12:00Z", "2026-03-03T21:00Z"
        )
        assert [(o.at, o.state) for o in settled.occurrences] == [
            *((utc(day, 8), "missed") for day in (1, 2, 3)),
            (utc(3, 20), "pending"),
        ]
        assert settled.next == Due(utc(4, 20), date(4))

    def test_turned_on_again_nothing_is_owed(self) -> None:
        settled = edited("08:00 UTC", "08:00 UTC", None, None, "2026-03-01T08:00:30Z")
        assert settled.occurrences == ()
        assert settled.next == Due(utc(2, 8), date(2))
        assert "turned on" in str(settled.note)


class TestZoneEdited:
    def test_todays_new_instant_has_passed_so_the_old_one_is_kept(self) -> None:
        planned = Due(at("2026-11-23T15:00Z"), date(23, 11))  # 07:00 in Los Angeles
        settled = edited(
            "07:00 America/New_York", "07:00 America/Los_Angeles", planned, None, "2026-11-23T13:00Z"
        )
        assert settled.next == planned
        assert "is kept" in str(settled.note)
        after = settle_due(Rule(dt.time(7), "America/New_York"), settled.next, planned.at)
        assert after.next == Due(at("2026-11-24T12:00Z"), date(24, 11))

    def test_not_when_the_old_one_falls_on_another_date(self) -> None:
        planned = Due(at("2026-11-24T07:30Z"), date(23, 11))  # 23:30 in Los Angeles, 02:30 in New York
        settled = edited("23:30 Asia/Tokyo", "23:30 America/Los_Angeles", planned, None, "2026-11-23T14:45Z")
        assert settled.next == Due(at("2026-11-24T14:30Z"), date(24, 11))

    def test_due_and_not_claimed_stays_due(self) -> None:
        planned = Due(at("2026-11-23T12:00Z"), date(23, 11))
        settled = edited(
            "07:00 America/Los_Angeles", "07:00 America/New_York", planned, None, "2026-11-23T12:00:10Z"
        )
        assert [(o.at, o.date, o.state) for o in settled.occurrences] == [
            (planned.at, date(23, 11), "pending")
        ]
        assert settled.next == Due(at("2026-11-24T15:00Z"), date(24, 11))

    def test_an_unknown_one_counts_as_utc(self) -> None:
        last = Due(utc(1, 8), date(1))
        settled = edited(
            "08:00 Mars/Olympus", "08:00 UTC", Due(utc(2, 8), date(2)), last, "2026-03-01T09:00Z"
        )
        assert settled.next == Due(utc(2, 8), date(2))
        assert settled.last_date is None  # it is no other zone


class TestNext:
    @pytest.mark.parametrize(
        ("after", "last", "expected"),
        [
            (utc(1, 7, 59), None, Due(utc(1, 8), date(1))),
            (utc(1, 8), None, Due(utc(2, 8), date(2))),
            (utc(1, 7), date(1), Due(utc(2, 8), date(2))),
            (utc(5, 9), date(1), Due(utc(6, 8), date(6))),
            (utc(1, 7), date(3), Due(utc(4, 8), date(4))),
        ],
    )
    def test_in_utc(self, after: dt.datetime, last: dt.date | None, expected: Due) -> None:
        assert first_after(Rule(EIGHT, "UTC"), after, last) == expected

    @pytest.mark.parametrize("zone", ["Mars/Olympus", "karachi", ""])
    def test_a_zone_that_is_none_counts_as_utc(self, zone: str) -> None:
        assert first_after(Rule(EIGHT, zone), utc(1, 7), None) == Due(utc(1, 8), date(1))

    def test_on_some_days_of_the_week(self) -> None:
        fridays_and_mondays = Rule(EIGHT, "UTC", iso_weekdays([1, 5]))
        due = first_after(fridays_and_mondays, utc(3, 0), None)  # a Tuesday
        assert due == Due(utc(6, 8), date(6))
        assert first_after(fridays_and_mondays, due.at, due.date) == Due(utc(9, 8), date(9))

    def test_a_new_one_in_the_minute_before_it_is_due(self) -> None:
        settled = settle_edit(Rule(EIGHT, "UTC"), None, None, utc(1, 7, 59), utc(1, 8, 1))
        assert [(o.at, o.state) for o in settled.occurrences] == [(utc(1, 8), "pending")]

    def test_one_that_was_made_before_the_platform_ran_starts_now(self) -> None:
        settled = settle_edit(Rule(EIGHT, "UTC"), None, None, utc(1, 0), utc(20, 12))
        assert settled.occurrences == ()
        assert settled.next == Due(utc(21, 8), date(21))
        assert "planned for the first time now" in str(settled.note)

    def test_the_writers_clock_is_ahead(self) -> None:
        settled = settle_edit(Rule(EIGHT, "UTC"), None, None, utc(1, 9), utc(1, 7))
        assert settled.next == Due(utc(1, 8), date(1))


class TestDeadline:
    def test_two_hours(self) -> None:
        assert deadline(Due(utc(1, 8), date(1)), "UTC", None)[0] == utc(1, 8) + SEND_WITHIN

    def test_the_end_of_its_local_day(self) -> None:
        assert deadline(Due(utc(1, 18, 59), date(1)), "Asia/Karachi", None)[0] == utc(1, 19)

    def test_the_quiet_hours(self) -> None:
        assert deadline(Due(utc(1, 21), date(1)), "UTC", NIGHT)[0] == utc(1, 22)

    def test_pushed_past_midnight_by_the_clock_it_is_not_late_at_once(self) -> None:
        """Scoresbysund's 23:30 of the 28th is 00:30 of the 29th; it has its two hours."""
        due = Due(at("2026-03-29T01:30Z"), date(28))
        assert deadline(due, "America/Scoresbysund", None)[0] == due.at + SEND_WITHIN

    def test_before_a_date_that_there_never_was(self) -> None:
        due = Due(at("2011-12-30T09:30Z"), dt.date(2011, 12, 29))  # 23:30 in Apia; midnight is the 31st
        assert deadline(due, "Pacific/Apia", None)[0] == at("2011-12-30T10:00Z")


class TestJudge:
    @pytest.mark.parametrize(
        ("now", "state", "reason"),
        [
            (utc(1, 8), "pending", None),
            (utc(1, 10) - SECOND, "pending", None),
            (utc(1, 10), "missed", "found 120 minutes late: it is sent within 2 hours"),
            (utc(4, 8), "missed", "found 4320 minutes late: it is sent within 2 hours"),
        ],
    )
    def test_late(self, now: dt.datetime, state: str, reason: str | None) -> None:
        (found,) = judge(Rule(EIGHT, "UTC"), [Due(utc(1, 8), date(1))], now)
        assert (found.state, found.reason) == (state, reason)

    def test_quiet_hours_over_midnight(self) -> None:
        rule = Rule(dt.time(5, 30), "UTC", None, NIGHT)
        (found,) = judge(rule, [Due(utc(1, 5, 30), date(1))], utc(1, 5, 30))
        assert (found.state, found.reason) == ("skipped", "it falls into the quiet hours 22:00 to 06:00")

    @pytest.mark.parametrize(
        ("time", "quiet"),
        [("05:59", True), ("06:00", False), ("21:59", False), ("22:00", True), ("00:00", True)],
    )
    def test_the_edges_of_quiet_hours(self, time: str, quiet: bool) -> None:
        rule = Rule(dt.time.fromisoformat(time), "UTC", None, NIGHT)
        due = first_after(rule, utc(1, 0) - SECOND, None)
        assert (judge(rule, [due], due.at)[0].state == "skipped") == quiet

    def test_found_in_the_quiet_hours(self) -> None:
        rule = Rule(dt.time(21, 30), "UTC", None, NIGHT)
        (found,) = judge(rule, [Due(utc(1, 21, 30), date(1))], utc(1, 22, 10))
        assert found.state == "missed"
        assert found.reason == "found 40 minutes late: the quiet hours 22:00 to 06:00 had begun"


class TestOutage:
    rule = Rule(EIGHT, "UTC")

    def test_the_latest_is_sent_and_each_older_one_missed(self) -> None:
        settled = settle_due(self.rule, Due(utc(1, 8), date(1)), utc(4, 9))
        assert [(o.date.day, o.state) for o in settled.occurrences] == [
            (1, "missed"),
            (2, "missed"),
            (3, "missed"),
            (4, "pending"),
        ]
        assert settled.next == Due(utc(5, 8), date(5))

    def test_of_months_the_oldest_row_counts_what_is_before_it(self) -> None:
        settled = settle_due(self.rule, Due(utc(1, 8), date(1)), utc(1, 12, month=6))
        assert len(settled.occurrences) == MISSED_ROWS
        first = settled.occurrences[0]
        assert first.date == date(2, 5)
        assert "the 62 before it, from 2026-03-01 to 2026-05-01, were missed too" in str(first.reason)
        assert {o.state for o in settled.occurrences} == {"missed"}

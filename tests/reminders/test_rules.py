"""When a reminder is due, and when it is too late."""

from __future__ import annotations

import datetime as dt

import pytest

from kitaab_jobs.reminders.rules import SEND_WITHIN, Due, look_from, next_due, too_late

EIGHT = dt.time(8)


def utc(day: int, hour: int, minute: int = 0, month: int = 3) -> dt.datetime:
    return dt.datetime(2026, month, day, hour, minute, tzinfo=dt.UTC)


def date(day: int, month: int = 3) -> dt.date:
    return dt.date(2026, month, day)


class TestNextDue:
    @pytest.mark.parametrize(
        ("after", "last", "expected"),
        [
            (utc(1, 7, 59), None, Due(utc(1, 8), date(1))),
            (utc(1, 8), None, Due(utc(2, 8), date(2))),
            (utc(1, 7), date(1), Due(utc(2, 8), date(2))),  # had one today already: the time was edited
            (utc(1, 9), date(1), Due(utc(2, 8), date(2))),
            (utc(5, 9), date(1), Due(utc(6, 8), date(6))),
            (utc(1, 7), date(3), Due(utc(4, 8), date(4))),  # moved west over the date line
        ],
    )
    def test_in_utc(self, after: dt.datetime, last: dt.date | None, expected: Due) -> None:
        assert next_due(EIGHT, "UTC", after, last) == expected

    @pytest.mark.parametrize(
        ("time", "zone", "after", "expected"),
        [
            (EIGHT, "Asia/Karachi", utc(1, 2), Due(utc(1, 3), date(1))),
            (dt.time(23, 30), "America/Los_Angeles", utc(1, 0), Due(utc(1, 7, 30), date(28, 2))),
            # 02:30 does not exist on 8 March in New York: it is 03:30 then.
            (dt.time(2, 30), "America/New_York", utc(8, 5), Due(utc(8, 7, 30), date(8))),
        ],
    )
    def test_in_a_zone(self, time: dt.time, zone: str, after: dt.datetime, expected: Due) -> None:
        assert next_due(time, zone, after, None) == expected

    @pytest.mark.parametrize("zone", ["Mars/Olympus", "karachi", ""])
    def test_a_zone_that_is_none_counts_as_utc(self, zone: str) -> None:
        assert next_due(EIGHT, zone, utc(1, 7), None) == Due(utc(1, 8), date(1))


class TestTooLate:
    @pytest.mark.parametrize(
        ("now", "reason"),
        [
            (utc(1, 8), None),
            (utc(1, 8) + SEND_WITHIN, None),
            (utc(1, 8) + SEND_WITHIN + dt.timedelta(minutes=1), "found 121 minutes late"),
            (utc(4, 8), "found 4320 minutes late"),
        ],
    )
    def test_two_hours(self, now: dt.datetime, reason: str | None) -> None:
        assert (too_late(Due(utc(1, 8), date(1)), "UTC", now) or "").startswith(reason or "")
        assert (too_late(Due(utc(1, 8), date(1)), "UTC", now) is None) == (reason is None)

    def test_its_local_day_is_over(self) -> None:
        late = Due(utc(1, 18, 59), date(1))  # 23:59 in Karachi
        assert too_late(late, "Asia/Karachi", utc(1, 18, 59)) is None
        assert too_late(late, "Asia/Karachi", utc(1, 19)) == "found after the end of its local day"

    def test_pushed_past_midnight_by_the_clock_it_is_not_late_at_once(self) -> None:
        """Beirut skips from 00:00 to 01:00 on 29 March: 00:30 is 01:30."""
        found = next_due(dt.time(0, 30), "Asia/Beirut", utc(28, 12), None)
        assert too_late(found, "Asia/Beirut", found.at) is None


@pytest.mark.parametrize(
    ("since", "expected"),
    [
        (utc(1, 7, 59), utc(1, 7, 59)),
        (utc(1, 5), utc(1, 6)),  # longer ago than it may be sent
        (utc(1, 9), utc(1, 8)),  # the writer's clock is ahead
        (None, utc(1, 8)),
    ],
)
def test_looks_from_when_it_was_set(since: dt.datetime | None, expected: dt.datetime) -> None:
    assert look_from(since, utc(1, 8)) == expected

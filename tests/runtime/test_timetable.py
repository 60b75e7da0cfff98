"""The timetable: what beat_schedule.py says can be read, and what it must not say is refused."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from kitaab_jobs import contract
from kitaab_jobs.contract import JOBS
from kitaab_jobs.errors import BadCron, BadPayload, UnknownZone, UsageError
from kitaab_jobs.runtime.timetable import Schedule, timetable, unique
from kitaab_jobs.timing import next_fires

NOW = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)


def line(**given: Any) -> Schedule:
    values: dict[str, Any] = {"name": "a", "job": contract.PROGRESS_REFRESH, "cron": "0 2 * * *"} | given
    return Schedule(**values)


class TestRefused:
    @pytest.mark.parametrize(
        ("given", "error", "message"),
        [
            ({"cron": "61 * * * *"}, BadCron, "minute '61' of '61 .*' cannot be read"),
            ({"cron": "0 2 * *"}, BadCron, "has 4 fields instead of 5"),
            ({"cron": "0 0 30 2 *"}, BadCron, "never fires"),
            ({"cron": "every 0s"}, BadCron, "is not an interval"),
            ({"cron": ""}, BadCron, "has 0 fields"),
            ({"zone": "Europe/Mekka"}, UnknownZone, "Europe/Mekka"),
            ({"args": {"limti": 5}}, BadPayload, r"progress\.refresh: limti: "),
            ({"args": {"limit": 0}}, BadPayload, r"progress\.refresh: limit: .*it was 0"),
            ({"job": contract.REMINDERS_DELIVER}, BadPayload, r"reminders\.deliver: zone: Field required"),
        ],
    )
    def test_where_it_is_written(self, given: dict[str, Any], error: type[UsageError], message: str) -> None:
        with pytest.raises(error, match=message) as refused:
            line(**given)
        assert "\n" not in str(refused.value)

    def test_two_of_one_name(self) -> None:
        with pytest.raises(
            UsageError, match=r"two schedules are called 'a': rename one in beat_schedule\.py"
        ):
            unique([line(), line(name="b"), line(cron="@daily")])


def test_lines_keep_their_order() -> None:
    assert [each.name for each in unique([line(name="b"), line(name="a")])] == ["b", "a"]


class TestOurs:
    """beat_schedule.py as it stands."""

    def test_can_be_read(self) -> None:
        assert len(timetable()) >= 4

    @pytest.mark.parametrize("schedule", timetable(), ids=lambda schedule: schedule.name)
    def test_each_line(self, schedule: Schedule) -> None:
        assert JOBS[schedule.job.name] is schedule.job
        assert schedule.note, "why it runs"
        first, second = next_fires(schedule.cadence, NOW, 2)
        assert NOW < first < second
        assert schedule.job.parse(dict(schedule.args))

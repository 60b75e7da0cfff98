"""The timetable: what beat_schedule.py says can be read, and what it must not say is refused."""

from __future__ import annotations

import datetime as dt
import sys
from pathlib import Path
from typing import Any

import pytest

from kitaab_jobs import contract
from kitaab_jobs.contract import JOBS
from kitaab_jobs.errors import BadCron, BadPayload, UnknownZone, UsageError
from kitaab_jobs.runtime.policies import Policy
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
            ({"args": {"limit": 5, "note": "x" * 70_000}}, BadPayload, "bytes, and 65536 are allowed"),
            ({"args": {"limit": {1, 2}}}, BadPayload, "a: the arguments are not JSON: Object of type set"),
            ({"name": ""}, UsageError, "'' is no name for a schedule"),
            ({"name": "two words"}, UsageError, "'two words' is no name"),
            ({"name": "a" * 129}, UsageError, "at most 128"),
            ({"catch_up": "some"}, UsageError, "a: catch_up is 'some': it takes 'skip', 'latest', 'all'"),
            (
                {"overlap": "wait"},
                UsageError,
                "a: overlap is 'wait': it takes 'skip', 'queue', 'allow', 'cancel_running'",
            ),
            ({"dst": "vixie"}, BadCron, "dst is 'vixie'"),
            ({"catch_up": "skip", "catch_up_window": "3h"}, UsageError, "catch_up='skip' has no window"),
            (
                {"catch_up_window": "3 hours"},
                UsageError,
                "catch_up_window '3 hours' is not a length of time: write it like",
            ),
            ({"catch_up_window": dt.timedelta(0)}, UsageError, "is not a length of time"),
            ({"jitter": "25h"}, UsageError, "jitter is '25h': it is at most 24h"),
            ({"cron": "every 30s", "jitter": "30s"}, UsageError, "let it be shorter than the interval"),
            ({"pause_after_failures": 0}, UsageError, "pause_after_failures is 0: it is 1 or more"),
            ({"pause_after_failures": 10**7}, UsageError, "is 10000000: it is 1 or more, to 1,000,000"),
            ({"pause_after_failures": "3"}, UsageError, "a: pause_after_failures is '3': it is a number"),
            ({"pause_after_failures": True}, UsageError, "is True: it is a number"),
            ({"cron": 5}, UsageError, "a: cron is 5: it is a text"),
            ({"cron": f"{','.join(map(str, range(60)))} * * * {'0,' * 60}1"}, UsageError, "at most 255"),
            ({"zone": None}, UsageError, "a: zone is None: it is a text"),
            (
                {"job": "progress.refresh"},
                UsageError,
                "a: job is 'progress.refresh': it is one of .*contract",
            ),
            ({"args": [1]}, UsageError, r"a: args is \[1\]: write it like"),
            ({"jitter": 5}, UsageError, "a: jitter is 5: write it like '30s'"),
            ({"starts_at": 5}, UsageError, "a: starts_at is 5: write it like '2026"),
            ({"name": 5}, UsageError, "'5' is no name"),
            ({"note": "\ud800"}, UsageError, "the note cannot be stored"),
            ({"starts_at": "tomorrow"}, UsageError, "starts_at 'tomorrow' is not a time: write"),
            ({"starts_at": dt.datetime(2026, 1, 1)}, UsageError, "has no time zone"),  # noqa: DTZ001
            (
                {"zone": "Pacific/Apia", "starts_at": "2011-12-30 09:00"},
                UsageError,
                "does not exist in Pacific/Apia",
            ),
            ({"starts_at": "0001-01-01"}, UsageError, "is not between 1970 and 9998"),
            ({"ends_at": dt.datetime.max.replace(tzinfo=dt.UTC)}, UsageError, "is not between 1970 and 9998"),
            ({"catch_up_window": dt.timedelta.max}, UsageError, "is not a length of time"),
            ({"starts_at": "2026-02-01", "ends_at": "2026-01-01"}, UsageError, "is before starts_at"),
            ({"starts_at": "2026-01-01", "ends_at": "2026-01-01 01:00"}, UsageError, "never fires until"),
            ({"note": "a\0b"}, UsageError, "the note cannot be stored"),
        ],
    )
    def test_where_it_is_written(self, given: dict[str, Any], error: type[UsageError], message: str) -> None:
        with pytest.raises(error, match=message) as refused:
            line(**given)
        assert "\n" not in str(refused.value)
        assert "name" in given or refused.value.message.startswith("a: "), "by the line's name"

    def test_two_of_one_name(self) -> None:
        with pytest.raises(
            UsageError, match=r"two schedules are called 'a': rename one in beat_schedule\.py"
        ):
            unique([line(), line(name="b"), line(cron="@daily")])


class TestTheFile:
    """What somebody who knows cron and no Python gets wrong in beat_schedule.py."""

    @pytest.mark.parametrize(
        ("written", "says"),
        [
            ("Schedule('a', contract.PROGRESS_REFRESH, cron='@daily', catchup='all')", "line 5, .*'catchup'"),
            ("Schedule('a', contract.PROGRES_REFRESH, cron='@daily')", "line 5, .*'PROGRES_REFRESH'"),
            ("Schedule('a' contract.PROGRESS_REFRESH)", "line 5, cannot be read: .*comma"),
            ("Schedule('a', contract.PROGRESS_REFRESH, cron='61 * * * *')", "^a: minute '61'"),
            ("('a', contract.PROGRESS_REFRESH, '@daily')", "is no schedule: lines of beat_schedule.py begin"),
        ],
    )
    def test_is_said_in_one_line(
        self, written: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        head = "from kitaab_jobs import contract\nfrom kitaab_jobs.runtime.timetable import Schedule\n\n"
        (tmp_path / "beat_schedule.py").write_text(f"{head}TIMETABLE = [\n{written}\n]\n")
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "beat_schedule", raising=False)
        with pytest.raises(UsageError, match=says) as refused:
            timetable()
        assert "\n" not in str(refused.value)
        monkeypatch.delitem(sys.modules, "beat_schedule", raising=False)

    def test_is_not_there(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "beat_schedule", None)
        with pytest.raises(UsageError, match=r"beat_schedule\.py cannot be read: "):
            timetable()


class TestRead:
    def test_what_is_not_said(self) -> None:
        schedule = line()
        assert schedule.policy == Policy("latest", None, "skip")
        assert (schedule.longest_jitter, schedule.plan.starts_at, schedule.plan.ends_at) == (
            dt.timedelta(0),
            None,
            None,
        )

    def test_catching_up_on_all_does_not_skip_all_but_the_first(self) -> None:
        assert line(catch_up="all").policy.overlap == "queue"
        assert line(catch_up="all", overlap="skip").policy.overlap == "skip"

    @pytest.mark.parametrize(
        "start", ["2026-12-01 09:00", "2026-12-01T04:00Z", dt.datetime(2026, 12, 1, 4, tzinfo=dt.UTC)]
    )
    def test_a_time_without_an_offset_is_in_the_zone_of_the_line(self, start: Any) -> None:
        schedule = line(cron="0 9 * * * Asia/Karachi", starts_at=start)
        assert schedule.plan.starts_at == dt.datetime(2026, 12, 1, 4, tzinfo=dt.UTC)
        assert schedule.plan.next_fire(NOW) == dt.datetime(2026, 12, 1, 4, tzinfo=dt.UTC)

    def test_lengths_of_time(self) -> None:
        for window in ("90m", dt.timedelta(minutes=90)):
            assert line(catch_up_window=window).policy.window == dt.timedelta(minutes=90)
        assert line(jitter="24h").longest_jitter == dt.timedelta(days=1)


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

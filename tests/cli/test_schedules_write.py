"""`kitaab-jobs schedules add|edit` as an operator sees them."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from sqlalchemy import Engine

from tests.cli.conftest import Command, Start
from tests.cli.schedules import count, put, row, utc

ADD = ("schedules", "add", "nightly", "progress.refresh")
YEARLY = "0 21 1 1 *"


class TestAdd:
    def test_it_shows_five_fires_and_saves(self, command: Command, timetable: Engine) -> None:
        code, out, err = command(*ADD, "0 21 * * 1-5", "--zone", "Asia/Karachi", "--yes")
        assert (code, err) == (0, "")
        lines = out.splitlines()
        assert lines[0].split() == ["Asia/Karachi", "offset", "UTC"]
        assert len(lines) == 1 + 5 + 1
        assert all(" 21:00  +05:00  " in line and " 16:00" in line for line in lines[1:6])
        assert lines[-1] == "nightly added"
        saved = row(timetable, "nightly")
        assert (saved.job, saved.line, saved.zone, saved.source) == (
            "progress.refresh", "0 21 * * 1-5", "Asia/Karachi", "live",
        )  # fmt: skip
        assert f"{saved.next_fire_at:%Y-%m-%d %H:%M}" in lines[1]

    def test_the_zone_of_the_line(self, command: Command, timetable: Engine) -> None:
        assert command(*ADD, "@daily Europe/Dublin", "--yes")[0] == 0
        assert (row(timetable, "nightly").line, row(timetable, "nightly").zone) == ("@daily", "Europe/Dublin")

    def test_each_option(self, command: Command, timetable: Engine) -> None:
        options = {
            "--zone": "Asia/Karachi", "--dst": "literal", "--args": '{"limit": 5}', "--catch-up": "all",
            "--window": "3h", "--overlap": "allow", "--jitter": "5m", "--starts-at": "2090-01-01 09:00",
            "--ends-at": "2099-01-01T00:00Z", "--pause-after-failures": "3", "--note": "for the report",
        }  # fmt: skip
        words = [word for option in options.items() for word in option]
        assert command(*ADD, YEARLY, *words, "--yes")[0] == 0
        saved = row(timetable, "nightly")._mapping
        expected: dict[str, Any] = {
            "zone": "Asia/Karachi", "dst": "literal", "args": {"limit": 5}, "catch_up": "all",
            "catch_up_window": dt.timedelta(hours=3), "overlap": "allow", "jitter": dt.timedelta(minutes=5),
            "starts_at": utc("2090-01-01T04:00"), "ends_at": utc("2099-01-01"), "pause_after_failures": 3,
            "note": "for the report", "next_fire_at": utc("2090-01-01T16:00"),
        }  # fmt: skip
        assert {key: saved[key] for key in expected} == expected

    def test_dry_run(self, command: Command, timetable: Engine) -> None:
        code, out, err = command(*ADD, YEARLY, "--dry-run")
        assert (code, err, len(out.splitlines())) == (0, "", 6)
        assert count(timetable, "schedules") == 0

    def test_without_an_answer_nothing_is_saved(self, start: Start, timetable: Engine) -> None:
        adds = start(*ADD, YEARLY)
        out, err = adds.communicate(timeout=60)
        assert adds.returncode == 2
        assert len(out.splitlines()) == 7  # the fires, and the question
        assert err.endswith("error: nobody answered 'add nightly?': say --yes\n")
        assert count(timetable, "schedules") == 0

    def test_a_name_that_is_taken(self, command: Command, timetable: Engine) -> None:
        put(timetable, "nightly", "0 1 * * *")
        for words in (["--yes"], ["--dry-run"]):
            code, out, err = command(*ADD, YEARLY, *words)
            assert (code, out) == (2, "")
            assert err.startswith("error: a schedule is called 'nightly' already: ")
        assert row(timetable, "nightly").line == "0 1 * * *"

    @pytest.mark.parametrize(
        ("words", "why"),
        [
            (["0 0 30 2 *"], "error: '0 0 30 2 *' never fires: no month that it names has such a day"),
            (["0 0 31 4,6,9,11 *"], "error: '0 0 31 4,6,9,11 *' never fires"),
            ([YEARLY, "--ends-at", "2020-01-01"], "error: nightly: '0 21 1 1 *' will not fire any more: let it end later"),
            (["0 9 1W * *"], "error: day of month '1W' of '0 9 1W * *' cannot be read (W, the nearest weekday"),
            ([YEARLY, "--zone", "Asia/Krachi"], "error: 'Asia/Krachi' is not an IANA time zone: did you mean"),
            ([f"{YEARLY} UTC", "--zone", "Asia/Tokyo"], "error: '0 21 1 1 * UTC' names a zone, and --zone names Asia/Tokyo"),
            ([YEARLY, "--dst", "x"], "error: dst is 'x': it takes"),
            ([YEARLY, "--args", "{"], "error: --args '{' is not JSON"),
            ([YEARLY, "--args", '{"limi": 5}'], "error: nightly: progress.refresh: limi: Extra inputs are not permitted"),
            ([YEARLY, "--catch-up", "some"], "error: nightly: catch_up is 'some': it takes 'skip', 'latest', 'all'"),
            ([YEARLY, "--window", "soon"], "error: nightly: catch_up_window 'soon' is not a length of time: write"),
            ([YEARLY, "--window", "1h", "--catch-up", "skip"], "error: nightly: catch_up='skip' has no window"),
            ([YEARLY, "--overlap", "x"], "error: nightly: overlap is 'x': it takes"),
            ([YEARLY, "--jitter", "2d"], "error: nightly: jitter is '2d': it is at most 24h"),
            (["every 30s", "--jitter", "1m"], "error: nightly: jitter is '1m', and it fires 'every 30s'"),
            ([YEARLY, "--starts-at", "soon"], "error: nightly: starts_at 'soon' is not a time: write"),
            ([YEARLY, "--starts-at", "2031-01-01", "--ends-at", "2030-01-01"], "error: nightly: ends_at 2030-01-01 is before"),
            ([YEARLY, "--pause-after-failures", "0"], "error: --pause-after-failures is '0': give a number from 1"),
            ([YEARLY, "--pause-after-failures", "³"], "error: --pause-after-failures is '³': give a number from 1"),
            ([YEARLY, "--note", "a\0b"], "error: nightly: the note cannot be stored"),
            ([], "Usage"),
        ],
    )  # fmt: skip
    def test_what_is_refused(self, command: Command, timetable: Engine, words: list[str], why: str) -> None:
        code, out, err = command(*ADD, *words, *(["--yes"] if words else []))
        assert (code, out) == (2, "")
        assert err.startswith(why)
        assert count(timetable, "schedules") == 0

    @pytest.mark.parametrize(
        ("name", "job", "why"),
        [
            ("a b", "progress.refresh", "error: 'a b' is no name for a schedule: use letters"),
            (
                "a",
                "progres.refresh",
                "error: no job is called 'progres.refresh': did you mean progress.refresh?",
            ),
        ],
    )
    def test_names(self, command: Command, timetable: Engine, name: str, job: str, why: str) -> None:
        code, out, err = command("schedules", "add", name, job, "@daily", "--yes")
        assert (code, out) == (2, "")
        assert err.startswith(why)
        assert count(timetable, "schedules") == 0


class TestEdit:
    def test_what_is_not_named_stays(self, command: Command, timetable: Engine) -> None:
        put(
            timetable,
            "a",
            "0 21 * * *",
            zone="Asia/Karachi",
            note="keep",
            overlap="queue",
            next_fire_at=utc("2099-01-01"),
        )
        code, out, err = command("schedules", "edit", "a", "--jitter", "5m", "--yes")
        assert (code, err) == (0, "")
        lines = out.splitlines()
        assert lines[0] == "jitter: none becomes 0:05:00"
        assert len(lines) == 1 + 6 + 1
        assert lines[-1] == "a changed"
        saved = row(timetable, "a")
        assert (saved.jitter, saved.zone, saved.note, saved.overlap) == (
            dt.timedelta(minutes=5), "Asia/Karachi", "keep", "queue",
        )  # fmt: skip
        assert saved.next_fire_at == utc("2099-01-01")  # when it fires has not been changed

    @pytest.mark.parametrize(
        ("words", "told", "column", "value"),
        [
            (["--job", "progress.reconcile"], "job: 'progress.refresh' becomes 'progress.reconcile'", "job",
             "progress.reconcile"),
            (["--cron", YEARLY], "line: '0 9 * * *' becomes '0 21 1 1 *'", "line", YEARLY),
            (["--cron", "0 9 * * * UTC"], "zone: 'Asia/Karachi' becomes 'UTC'", "zone", "UTC"),
            (["--zone", "UTC"], "zone: 'Asia/Karachi' becomes 'UTC'", "zone", "UTC"),
            (["--dst", "literal"], "dst: 'cron' becomes 'literal'", "dst", "literal"),
            (["--args", '{"limit": 5}'], 'args: {} becomes {"limit": 5}', "args", {"limit": 5}),
            (["--catch-up", "all"], "catch_up: 'latest' becomes 'all'", "catch_up", "all"),
            (["--window", "none"], "catch_up_window: 3:00:00 becomes none", "catch_up_window", None),
            (["--window", "1h"], "catch_up_window: 3:00:00 becomes 1:00:00", "catch_up_window", dt.timedelta(hours=1)),
            (["--overlap", "allow"], "overlap: 'queue' becomes 'allow'", "overlap", "allow"),
            (["--jitter", "none"], "jitter: 0:05:00 becomes none", "jitter", dt.timedelta(0)),
            (["--starts-at", "none"], "starts_at: 2026-01-01T00:00:00+00:00 becomes none", "starts_at", None),
            (["--ends-at", "none"], "ends_at: 2099-01-01T00:00:00+00:00 becomes none", "ends_at", None),
            (["--pause-after-failures", "none"], "pause_after_failures: 3 becomes none", "pause_after_failures", None),
            (["--note", ""], "note: 'old' becomes ''", "note", ""),
        ],
    )  # fmt: skip
    def test_each_option(
        self, command: Command, timetable: Engine, words: list[str], told: str, column: str, value: object
    ) -> None:
        put(
            timetable, "a", "0 9 * * *", zone="Asia/Karachi", overlap="queue", pause_after_failures=3, note="old",
            catch_up_window=dt.timedelta(hours=3), jitter=dt.timedelta(minutes=5), starts_at=utc("2026-01-01"),
            ends_at=utc("2099-01-01"),
        )  # fmt: skip
        before = row(timetable, "a")
        code, out, err = command("schedules", "edit", "a", *words, "--dry-run")
        assert (code, err) == (0, "")
        assert told in out.splitlines()
        assert row(timetable, "a") == before
        assert command("schedules", "edit", "a", *words, "--yes") == (0, f"{out}a changed\n", "")
        assert row(timetable, "a")._mapping[column] == value
        assert command("schedules", "edit", "a", *words, "--yes") == (0, "a says so already\n", "")

    def test_a_new_line_is_planned_from_now(self, command: Command, timetable: Engine) -> None:
        put(timetable, "a", "0 21 * * *", zone="Asia/Karachi", next_fire_at=utc("2099-01-01"))
        assert command("schedules", "edit", "a", "--cron", "* * * * *", "--yes")[0] == 0
        assert row(timetable, "a").next_fire_at < dt.datetime.now(dt.UTC) + dt.timedelta(minutes=2)

    def test_one_of_the_file(self, command: Command, timetable: Engine) -> None:
        put(timetable, "a", source="file")
        code, out, err = command("schedules", "edit", "a", "--note", "x", "--yes")
        assert (code, out) == (2, "")
        assert err == (
            "error: a stands in beat_schedule.py, and cannot be edited live: change its line there, and beat reads it "
            "at its next start; until then it can be paused\n"
        )

    @pytest.mark.parametrize(
        ("words", "why"),
        [
            ([], "error: it was not said what to change: see 'kitaab-jobs schedules edit --help'"),
            (["--cron", "0 0 30 2 *"], "error: '0 0 30 2 *' never fires"),
            (["--zone", "Mars"], "error: 'Mars' is not an IANA time zone"),
            (["--cron", "@daily UTC", "--zone", "Asia/Tokyo"], "error: '@daily UTC' names a zone, and --zone names"),
            (["--ends-at", "2020-01-01"], "error: a: '0 21 * * *' will not fire any more"),
            (["--job", "progress.refesh"], "error: no job is called 'progress.refesh': did you mean progress.refresh?"),
            (["--job", "archive.purge_jobs", "--args", '{"x": 1}'], "error: a: archive.purge_jobs: x: Extra inputs"),
            (["--overlap", "x"], "error: a: overlap is 'x'"),
        ],
    )  # fmt: skip
    def test_what_is_refused(self, command: Command, timetable: Engine, words: list[str], why: str) -> None:
        put(timetable, "a")
        before = row(timetable, "a")
        code, out, err = command("schedules", "edit", "a", *words, "--yes")
        assert (code, out) == (2, "")
        assert err.startswith(why)
        assert row(timetable, "a") == before

    def test_without_an_answer_nothing_is_saved(self, start: Start, timetable: Engine) -> None:
        put(timetable, "a")
        edits = start("schedules", "edit", "a", "--note", "x")
        _, err = edits.communicate(timeout=60)
        assert edits.returncode == 2
        assert err.endswith("error: nobody answered 'change a?': say --yes\n")
        assert row(timetable, "a").note == ""

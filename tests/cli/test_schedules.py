"""`kitaab-jobs schedules list|show|next|history` as an operator sees it."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable
from itertools import pairwise

import pytest
from sqlalchemy import Engine, text

from tests.cli.conftest import Command
from tests.cli.rows import add
from tests.cli.schedules import fire, put, utc

# cron, zone, after, and the next three in UTC: times that a clock change skips or repeats, zones that move by half an
# hour, a date that never was.
NAMED = (
    ("30 2 * * *", "America/New_York", "2026-03-07T12:00", ("03-08T07:00", "03-09T06:30", "03-10T06:30")),
    ("30 1 * * *", "America/New_York", "2026-10-31T12:00", ("11-01T05:30", "11-02T06:30", "11-03T06:30")),
    ("*/30 * * * *", "America/New_York", "2026-11-01T05:15", ("11-01T05:30", "11-01T06:00", "11-01T06:30")),
    ("15 2 * * *", "Australia/Lord_Howe", "2026-10-03T00:00", ("10-03T15:30", "10-04T15:15", "10-05T15:15")),
    ("*/20 * * * *", "Australia/Lord_Howe", "2026-04-04T14:35", ("04-04T14:40", "04-04T15:10", "04-04T15:30")),
    ("30 0 * * *", "Africa/Cairo", "2026-04-22T12:00", ("04-22T22:30", "04-23T22:00", "04-24T21:30")),
    ("0 0 31 2 0", "UTC", "2026-11-22T00:01", ("02-07T00:00", "02-14T00:00", "02-21T00:00")),
)  # fmt: skip


class TestNext:
    @pytest.mark.parametrize(("line", "zone", "after", "fires"), NAMED)
    def test_named_cases(
        self, command: Command, line: str, zone: str, after: str, fires: tuple[str, ...]
    ) -> None:
        code, out, err = command(
            "schedules", "next", line, "--zone", zone, "--after", f"{after}Z", "--count", 3, "--json"
        )
        assert (code, err) == (0, "")
        found = json.loads(out)
        assert (found["line"], found["zone"], found["dst"], found["schedule"]) == (line, zone, "cron", None)
        assert [each["utc"][5:16] for each in found["fires"]] == list(fires)
        for each in found["fires"]:
            assert dt.datetime.fromisoformat(each["local"]) == dt.datetime.fromisoformat(each["utc"])

    def test_the_table_shows_the_zone_and_utc_and_what_the_clock_did(self, command: Command) -> None:
        code, out, _ = command(
            "schedules", "next", "30 2 * * * America/New_York", "--after", "2026-03-06T12:00Z", "--count", 3
        )
        assert code == 0
        lines = [line.rstrip() for line in out.splitlines()]
        assert lines == [
            "America/New_York      offset  UTC",
            "Sat 2026-03-07 02:30  -05:00  Sat 2026-03-07 07:30",
            "Sun 2026-03-08 03:00  -04:00  Sun 2026-03-08 07:00  the clock was set forward by 01:00",
            "Mon 2026-03-09 02:30  -04:00  Mon 2026-03-09 06:30",
        ]

    def test_the_clock_set_back_before_the_first_fire(self, command: Command) -> None:
        words = ("0 9 * * *", "--zone", "Australia/Lord_Howe", "--after", "2026-04-03T23:00Z", "--count", 1)
        _, out, _ = command("schedules", "next", *words)
        assert "+10:30" in out
        assert "the clock was set back by 00:30" in out

    def test_the_rule_is_chosen(self, command: Command) -> None:
        words = ("30 2 * * *", "--zone", "America/New_York", "--after", "2026-03-07T12:00Z", "--count", 1)
        for rule, first in (("cron", "2026-03-08T07:00"), ("literal", "2026-03-09T06:30")):
            out = command("schedules", "next", *words, "--dst", rule, "--json")[1]
            assert json.loads(out)["fires"][0]["utc"].startswith(first)

    def test_without_after_it_looks_from_now(self, command: Command) -> None:
        began = dt.datetime.now(dt.UTC)
        fires = json.loads(command("schedules", "next", "every 30s", "--json")[1])["fires"]
        found = [dt.datetime.fromisoformat(each["utc"]) for each in fires]
        assert len(found) == 5
        assert began < found[0] <= dt.datetime.now(dt.UTC) + dt.timedelta(seconds=30)
        assert {later - earlier for earlier, later in pairwise(found)} == {dt.timedelta(seconds=30)}

    def test_seconds_are_shown_where_there_are_any(self, command: Command) -> None:
        out = command("schedules", "next", "every 40s", "--after", "2026-01-01T00:00Z", "--count", 2)[1]
        assert [line.rstrip() for line in out.splitlines()] == [
            "UTC", "Thu 2026-01-01 00:00:40", "Thu 2026-01-01 00:01:20",
        ]  # fmt: skip

    def test_a_line_needs_no_database(self, command: Command, named: Callable[[str], None]) -> None:
        named("postgresql://kitaab_worker:secret@127.0.0.1:1/kitaab")
        assert command("schedules", "next", "@daily")[0] == 0
        assert command("schedules", "next", "nightly")[0] == 1

    def test_a_schedule_by_its_name(self, command: Command, timetable: Engine) -> None:
        put(timetable, "nightly", "0 21 * * *", zone="Asia/Karachi", dst="literal")
        words = ("schedules", "next", "nightly", "--after", "2026-11-22T16:00Z", "--count", 2)
        found = json.loads(command(*words, "--json")[1])
        assert (found["schedule"], found["zone"], found["dst"]) == ("nightly", "Asia/Karachi", "literal")
        assert [each["local"] for each in found["fires"]] == [
            "2026-11-23T21:00:00+05:00", "2026-11-24T21:00:00+05:00",
        ]  # fmt: skip
        _, out, err = command(*words, "--zone", "Asia/Tokyo")
        assert out.splitlines()[1].startswith("Tue 2026-11-24 01:00  +09:00  Mon 2026-11-23 16:00")
        assert err == ""

    def test_of_one_that_is_paused_or_ends(self, command: Command, timetable: Engine) -> None:
        put(timetable, "nightly", ends_at=utc("2026-11-23T22:00"), paused_at=utc("2026-11-22T00:00"),
            paused_by="amal@host", paused_note="import")  # fmt: skip
        _, out, err = command("schedules", "next", "nightly", "--after", "2026-11-22T00:00Z")
        assert len(out.splitlines()) == 1 + 2
        assert err == "nightly is paused by amal@host: import\n"
        code, out, err = command("schedules", "next", "nightly", "--after", "2026-11-24T00:00Z")
        assert (code, out) == (0, "")
        assert err.endswith("nightly does not fire after 2026-11-24T00:00:00+00:00\n")

    @pytest.mark.parametrize(
        ("words", "why"),
        [
            (["0 0 30 2 *"], "error: '0 0 30 2 *' never fires: no month that it names has such a day"),
            (["0 9 15W * *"], "error: day of month '15W' of '0 9 15W * *' cannot be read (W, the nearest weekday"),
            (["0 9 * *"], "error: '0 9 * *' has 4 fields instead of 5: give minute"),
            (["@dayly"], "error: '@dayly' is not a known shorthand: use @hourly, @daily"),
            (["every 0s"], "error: 'every 0s' is not an interval: write 'every' and"),
            (["0 9 * * *", "--zone", "Asia/Krachi"], "error: 'Asia/Krachi' is not an IANA time zone: did you mean Asia/K"),
            (["nightly", "--zone", "Mars"], "error: 'Mars' is not an IANA time zone"),
            (["0 9 * * * UTC", "--zone", "Asia/Tokyo"], "error: '0 9 * * * UTC' names a zone, and --zone names Asia/Tokyo"),
            (["0 9 * * *", "--dst", "summer"], "error: dst is 'summer': it takes 'cron' or 'literal'"),
            (["nightly", "--dst", "cron"], "error: nightly has its own rule at clock changes: leave --dst out"),
            (["0 9 * * *", "--after", "soon"], "error: --after 'soon' is not a time: write it like"),
            (["0 9 * * *", "--after", "2026-11-23"], "error: --after '2026-11-23' has no offset: write 2026-11-23T00:00Z or"),
            (["0 9 * * *", "--count", "0"], "Usage"),
            ([], "Usage"),
        ],
    )  # fmt: skip
    def test_wrong_usage(self, command: Command, words: list[str], why: str) -> None:
        code, out, err = command("schedules", "next", *words)
        assert (code, out) == (2, "")
        assert err.startswith(why)

    def test_a_name_that_is_unknown(self, command: Command, timetable: Engine) -> None:
        put(timetable, "nightly")
        code, out, err = command("schedules", "next", "nigtly")
        assert (code, out, err) == (2, "", "error: no schedule is called 'nigtly': did you mean 'nightly'?\n")


class TestList:
    def test_the_next_to_fire_comes_first(self, command: Command, timetable: Engine) -> None:
        put(
            timetable, "late", zone="Asia/Karachi", next_fire_at=utc("2099-01-02T16:00"), note="of\nthe night"
        )
        put(timetable, "soon", "every 3s", next_fire_at=utc("2099-01-01T00:00:03"), source="file", failures=2,
            pause_after_failures=3)  # fmt: skip
        put(timetable, "over", next_fire_at=None)
        code, out, err = command("schedules", "list")
        assert (code, err) == (0, "")
        assert [" ".join(line.split()) for line in out.splitlines()] == [
            "name when next (UTC) from what",
            "soon every 3s 01-01 00:00:03 file failed 2 of 3 times in a row",
            "late 0 21 * * * Asia/Karachi 01-02 16:00:00 live of the night",
            "over 0 21 * * * UTC live has ended",
        ]

    def test_filters(self, command: Command, timetable: Engine) -> None:
        put(timetable, "a.one")
        put(
            timetable, "a.two", paused_at=utc("2026-11-22T00:00"), paused_by="amal@host", paused_note="import"
        )
        put(timetable, "a_three")

        def names(*words: str) -> set[str]:
            return {each["name"] for each in json.loads(command("schedules", "list", "--json", *words)[1])}

        assert names() == {"a.one", "a.two", "a_three"}
        assert names("--paused") == {"a.two"}
        assert names("--name", "a.*") == {"a.one", "a.two"}
        assert names("--name", "a_*") == {"a_three"}
        assert names("--name", "*.two", "--paused") == {"a.two"}
        assert names("--name", "a") == set()
        assert "paused by amal@host: import" in command("schedules", "list", "--paused")[1]

    def test_json(self, command: Command, timetable: Engine) -> None:
        put(
            timetable,
            "a",
            args={"limit": 5},
            jitter=dt.timedelta(minutes=5),
            next_fire_at=utc("2099-01-01T00:00"),
        )
        (found,) = json.loads(command("schedules", "list", "--json")[1])
        assert found == {
            "name": "a", "job": "progress.refresh", "args": {"limit": 5}, "line": "0 21 * * *", "zone": "UTC",
            "dst": "cron", "catch_up": "latest", "catch_up_window_seconds": None, "overlap": "skip",
            "jitter_seconds": 300.0, "starts_at": None, "ends_at": None, "pause_after_failures": None, "note": "",
            "source": "live", "next_fire_at": "2099-01-01T00:00:00+00:00", "failures": 0, "paused_at": None,
            "paused_by": None, "paused_note": None,
        }  # fmt: skip


class TestShow:
    def test_all_that_there_is(self, command: Command, timetable: Engine) -> None:
        put(timetable, "nightly", zone="Asia/Karachi", args={"limit": 5}, catch_up_window=dt.timedelta(hours=3),
            paused_at=utc("2026-11-22T00:00"), paused_by="amal@host", paused_note="import")  # fmt: skip
        with timetable.begin() as connection:
            connection.execute(
                text(
                    "INSERT INTO jobs.waiting_fires (schedule, fire_at) VALUES ('nightly', '2026-11-20 16:00Z')"
                )
            )
        code, out, err = command("schedules", "show", "nightly", "--count", 2)
        assert (code, err) == (0, "")
        facts, _, fires = out.partition("\n\n")
        said = {line.split()[0]: " ".join(line.split()[1:]) for line in facts.splitlines()}
        assert said["args"] == '{"limit": 5}'
        assert said["catch_up_window"] == "3:00:00"
        assert said["paused_by"] == "amal@host"
        assert said["waiting"] == "1 fire, since 2026-11-20T16:00:00+00:00"
        assert {"jitter", "ends_at", "failures"}.isdisjoint(said)
        assert len(fires.splitlines()) == 1 + 2
        assert fires.startswith("Asia/Karachi")
        shown = json.loads(command("schedules", "show", "nightly", "--count", 2, "--json")[1])
        assert shown["catch_up_window_seconds"] == 10800
        assert [each["local"][11:] for each in shown["next_fires"]] == ["21:00:00+05:00"] * 2
        assert shown["waiting"] == [
            {"fire_at": "2026-11-20T16:00:00+00:00", "backfill": False, "reason": None}
        ]

    def test_one_that_was_spoiled_by_hand_can_be_looked_at(self, command: Command, timetable: Engine) -> None:
        put(timetable, "odd", "61 * * * *")
        code, out, err = command("schedules", "show", "odd")
        assert code == 0
        assert "61 * * * *" in out
        assert err.startswith("its line cannot be read: minute '61' of '61 * * * *'")
        assert command("schedules", "list")[0] == 0
        code, _, err = command("schedules", "next", "odd")
        assert code == 2
        assert err.startswith("error: minute '61'")

    @pytest.mark.usefixtures("timetable")
    def test_one_that_is_unknown(self, command: Command) -> None:
        assert command("schedules", "show", "x") == (
            2, "", "error: no schedule is called 'x': see 'kitaab-jobs schedules list'\n",
        )  # fmt: skip


class TestHistory:
    def test_the_latest_first_with_its_run(self, command: Command, timetable: Engine) -> None:
        put(timetable, "nightly")
        ran = fire(timetable, "nightly", utc("2026-11-20T21:00"), "fired")
        add(timetable, "dead", id=ran, error="ValueError: oh\n  and more")
        gone = fire(timetable, "nightly", utc("2026-11-21T21:00"), "fired", ended_as="succeeded",
                    ended_at=utc("2026-11-21T21:01"))  # fmt: skip
        fire(timetable, "nightly", utc("2026-11-22T21:00"), "missed", reason="no beat ran",
             recorded_at=utc("2026-11-23T23:00"))  # fmt: skip
        fire(timetable, "other", utc("2026-11-22T21:00"), "skipped")
        code, out, err = command("schedules", "history", "nightly")
        assert (code, err) == (0, "")
        assert [" ".join(line.split()) for line in out.splitlines()] == [
            "planned (UTC) outcome late run job why",
            "11-22 21:00:00 missed 26:00:00 no beat ran",
            f"11-21 21:00:00 fired 0.5 s succeeded {gone}",
            f"11-20 21:00:00 fired 0.5 s dead {ran} ValueError: oh and more",
        ]
        found = json.loads(command("schedules", "history", "nightly", "--json", "--limit", 1)[1])
        assert [(each["fire_at"], each["outcome"], each["lateness"]) for each in found] == [
            ("2026-11-22T21:00:00+00:00", "missed", 93600.0)
        ]

    def test_filters(self, command: Command, timetable: Engine) -> None:
        for day, outcome in ((19, "fired"), (20, "skipped"), (21, "backfilled"), (22, "missed")):
            fire(timetable, "gone", utc(f"2026-11-{day}T21:00"), outcome)

        def days(*words: object) -> list[str]:
            code, out, _ = command("schedules", "history", "gone", "--json", *words)
            assert code == 0
            return [each["fire_at"][8:10] for each in json.loads(out)]

        assert days() == ["22", "21", "20", "19"]
        assert days("--limit", 2) == ["22", "21"]
        assert days("--before", "2026-11-21T21:00Z") == ["20", "19"]
        for outcome, only in (("fired", "19"), ("skipped", "20"), ("backfilled", "21"), ("missed", "22")):
            assert days("--outcome", outcome) == [only]

    def test_wrong_usage(self, command: Command, timetable: Engine) -> None:
        put(timetable, "nightly")
        assert command("schedules", "history", "nightly") == (0, "no fire is on record\n", "")
        code, _, err = command("schedules", "history", "nightly", "--outcome", "odd")
        assert code == 2
        assert err == "error: 'odd' is not an outcome: a fire is fired, skipped, missed or backfilled\n"
        code, _, err = command("schedules", "history", "x")
        assert code == 2
        assert err.startswith("error: no schedule is called 'x'")
        assert command("schedules", "history", "nightly", "--before", "soon")[0] == 2

"""The file's lines come into jobs.schedules, and what operators did there stays."""

from __future__ import annotations

import datetime as dt
import threading
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, text

from kitaab_jobs import contract
from kitaab_jobs.runtime import fires, roster, schedules
from kitaab_jobs.runtime.timetable import Schedule
from tests.runtime.test_fires import (
    HOUR,
    MINUTE,
    NOON,
    add_schedule,
    explained,
    fired_jobs,
    names,
    recorded,
    schedule,
    waiting,
)

NOW = NOON + dt.timedelta(minutes=10)
LATER = NOW + dt.timedelta(minutes=20)


def line(name: str, cron: str = "0 * * * *", **given: Any) -> Schedule:
    return Schedule(name, given.pop("job", contract.PROGRESS_REFRESH), cron=given.pop("cron", cron), **given)


class TestSync:
    def test_adds_what_is_new(self, connection: Connection) -> None:
        new = line("a", "30 9 * * *", zone="Asia/Karachi", args={"limit": 7}, note="why")
        assert roster.sync(connection, [new], NOW).added == ["a"]
        row = schedule(connection, "a")
        assert (row.job, row.args, row.line, row.zone, row.note, row.source) == (
            "progress.refresh", {"limit": 7}, "30 9 * * *", "Asia/Karachi", "why", "file",
        )  # fmt: skip
        assert row.next_fire_at == new.cadence.next_fire(NOW)

    def test_leaves_what_is_as_it_was(self, connection: Connection) -> None:
        roster.sync(connection, [line("a")], NOW)
        connection.execute(
            text("UPDATE jobs.schedules SET next_fire_at = :at, updated_at = :at"), {"at": NOON}
        )
        was = schedule(connection, "a")
        roster.sync(connection, [line("a")], NOW)
        assert schedule(connection, "a") == was

    @pytest.mark.parametrize(
        "change",
        [
            {"cron": "5 * * * *"},
            {"zone": "Asia/Kathmandu"},
            {"cron": "0 * * * * Asia/Kathmandu"},
            {"dst": "literal"},
            {"starts_at": "2026-03-02 09:00"},
            {"ends_at": "2027-01-01"},
        ],
    )
    def test_a_change_of_when_is_planned_anew_from_now(
        self, connection: Connection, change: dict[str, Any]
    ) -> None:
        roster.sync(connection, [line("a")], NOW)
        changed = line("a", **change)
        synced = roster.sync(connection, [changed], LATER)
        assert list(synced.changed) == ["a"]
        row = schedule(connection, "a")
        assert row.next_fire_at == changed.plan.next_fire(LATER)
        assert (row.line, row.zone) == (changed.cadence.line, changed.cadence.zone)

    def test_what_was_due_before_the_change_is_on_record(self, connection: Connection) -> None:
        roster.sync(connection, [line("a")], NOW)
        roster.sync(connection, [line("a", "5 * * * *")], NOW + 2.5 * HOUR)
        assert explained(connection, "a") == [
            (NOON + HOUR, "missed", "changed"), (NOON + 2 * HOUR, "missed", "changed"),
        ]  # fmt: skip

    def test_what_was_due_is_on_record_after_hours_without_a_beat_too(self, connection: Connection) -> None:
        roster.sync(connection, [line("a", "every 3s")], NOON)
        roster.sync(connection, [line("a", "every 5s")], NOON + 5 * HOUR)
        found = recorded(connection, "a")
        assert list(found) == [NOON + n * dt.timedelta(seconds=3) for n in range(1, 6001)]
        assert set(found.values()) == {"missed"}

    @pytest.mark.parametrize(
        "change",
        [
            {"args": {"limit": 9}},
            {"note": "why"},
            {"job": contract.REMINDERS_DISPATCH},
            {"overlap": "queue"},
            {"catch_up": "skip"},
            {"jitter": "5m"},
            {"pause_after_failures": 3},
            {"catch_up_window": "2h"},
        ],
    )
    def test_other_changes_keep_the_plan(self, connection: Connection, change: dict[str, Any]) -> None:
        roster.sync(connection, [line("a")], NOW)
        connection.execute(text("UPDATE jobs.schedules SET next_fire_at = :at"), {"at": NOON})
        roster.sync(connection, [line("a", **change)], NOW)
        row = schedule(connection, "a")
        assert row.next_fire_at == NOON
        assert roster.changed(schedules.get(connection, "a"), line("a", **change), "file") == []
        assert roster.changed(schedules.get(connection, "a"), line("a"), "file") == list(change)

    def test_removes_what_left_the_file_and_keeps_its_record(self, connection: Connection) -> None:
        roster.sync(connection, [line("a"), line("b"), line("c")], NOW)
        first = NOON + HOUR
        fires.fire_due(connection, first)
        assert roster.sync(connection, [line("b")], NOW).removed == ["a", "c"]
        assert names(connection) == ["b"]
        assert recorded(connection, "a") == {first: "fired"}

    def test_an_empty_file_removes_all_of_the_file(self, connection: Connection) -> None:
        add_schedule(connection, "live")
        roster.sync(connection, [line("a")], NOW)
        assert roster.sync(connection, [], NOW).removed == ["a"]
        assert names(connection) == ["live"]

    def test_keeps_what_operators_added(self, connection: Connection) -> None:
        add_schedule(connection, "live")
        was = schedule(connection, "live")
        assert roster.sync(connection, [line("a")], NOW).removed == []
        assert schedule(connection, "live") == was

    def test_a_name_that_comes_into_the_file_is_the_files(self, connection: Connection) -> None:
        add_schedule(connection, "a")
        roster.sync(connection, [line("a", note="why")], NOW)
        row = schedule(connection, "a")
        assert (row.source, row.note, row.next_fire_at) == ("file", "why", NOON)
        assert roster.sync(connection, [], NOW).removed == ["a"]

    @pytest.mark.parametrize("change", [{}, {"cron": "5 * * * *"}, {"note": "other"}])
    def test_an_operators_pause_survives(self, connection: Connection, change: dict[str, Any]) -> None:
        roster.sync(connection, [line("a")], NOW)
        connection.execute(text("UPDATE jobs.schedules SET paused_at = now(), paused_note = 'holiday'"))
        roster.sync(connection, [line("a", **change)], NOW)
        row = schedule(connection, "a")
        assert row.paused_note == "holiday"
        assert row.paused_at is not None

    def test_many_beats_start_at_once(self, effects: Engine, worker_engine: Engine) -> None:
        lines = [line(f"s{n}") for n in range(10)]
        barrier = threading.Barrier(4)
        added: list[str] = []

        def start() -> None:
            barrier.wait()
            with worker_engine.begin() as connection:
                added.extend(roster.sync(connection, lines, NOW).added)

        threads = [threading.Thread(target=start) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with effects.connect() as connection:
            assert names(connection) == sorted(added) == [line.name for line in lines]


class TestWhatWaits:
    def test_is_skipped_when_its_schedule_goes(self, connection: Connection) -> None:
        roster.sync(connection, [line("a", overlap="queue")], NOW)
        for n in (1, 2):
            fires.fire_due(connection, NOON + n * HOUR)
        assert waiting(connection, "a") == [NOON + 2 * HOUR]
        roster.sync(connection, [], NOW + 2 * HOUR)
        assert explained(connection, "a") == [
            (NOON + HOUR, "fired", None),
            (NOON + 2 * HOUR, "skipped", "removed"),
        ]


class TestReplan:
    def test_a_clock_that_was_far_ahead_for_a_moment(self, connection: Connection) -> None:
        """It fires early what it took for due, once, and then goes on as if nothing had been."""
        add_schedule(connection, "a", overlap="allow")
        add_schedule(connection, "b", line="* * * * *", next_fire_at=NOON)
        fires.fire_due(connection, NOON)
        ahead = NOON + dt.timedelta(days=3650)
        connection.execute(
            text("UPDATE jobs.schedules SET next_fire_at = :at WHERE name = 'a'"), {"at": ahead}
        )
        assert roster.replan(connection, NOON + HOUR / 2) == ["a"]
        for n in (1, 2):
            fires.fire_due(connection, NOON + n * HOUR)
        assert fired_jobs(connection, "a") == [NOON, NOON + HOUR, NOON + 2 * HOUR]

    def test_an_hour_back_fires_nothing_twice_and_loses_nothing(self, connection: Connection) -> None:
        add_schedule(connection, "a", overlap="allow")
        for n in range(3):
            fires.fire_due(connection, NOON + n * HOUR)
        assert roster.replan(connection, NOON + 1.5 * HOUR) == ["a"]
        fires.fire_due(connection, NOON + 2 * HOUR)
        fires.fire_due(connection, NOON + 3 * HOUR)
        assert fired_jobs(connection, "a") == [NOON + n * HOUR for n in range(4)]
        assert list(recorded(connection, "a").values()) == ["fired"] * 4

    def test_what_waits_by_a_clock_that_was_ahead_is_planned_anew(self, connection: Connection) -> None:
        add_schedule(connection, "a", overlap="queue", catch_up="all")
        for n in range(4):
            fires.fire_due(connection, NOON + n * HOUR)
        assert waiting(connection, "a") == [NOON + n * HOUR for n in (1, 2, 3)]
        assert roster.replan(connection, NOON + 1.5 * HOUR) == ["a"]
        assert waiting(connection, "a") == [NOON + HOUR]
        fires.fire_due(connection, NOON + 2 * HOUR)
        assert waiting(connection, "a") == [NOON + HOUR, NOON + 2 * HOUR]

    def test_what_was_added_by_sql_is_planned(self, connection: Connection) -> None:
        add_schedule(connection, "a", next_fire_at=None)
        assert roster.replan(connection, NOW) == ["a"]
        assert schedule(connection, "a").next_fire_at == NOON + HOUR

    def test_a_plan_that_was_made_meanwhile_stays(
        self, connection: Connection, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        add_schedule(connection, "a", next_fire_at=NOON + 100 * HOUR)
        read = roster.entries

        def then_edited(there: Connection) -> list[roster.Entry]:
            found = read(there)
            schedules.edit(there, "a", {"cron": "5 * * * *"}, now=NOW)
            return found

        monkeypatch.setattr(roster, "entries", then_edited)
        roster.replan(connection, NOW)
        assert schedule(connection, "a").next_fire_at == NOON + HOUR + 5 * MINUTE

    def test_what_is_in_order_stays(self, connection: Connection) -> None:
        add_schedule(connection, "due")
        add_schedule(connection, "starts", starts_at=NOON + 48 * HOUR, next_fire_at=NOON + 48 * HOUR)
        add_schedule(connection, "ended", next_fire_at=None, ends_at=NOON)
        add_schedule(connection, "unreadable", next_fire_at=None, paused_at=NOON, paused_by="beat")
        add_schedule(connection, "spoiled", line="61 * * * *", next_fire_at=NOON + 48 * HOUR)
        assert roster.replan(connection, NOON + HOUR) == []

"""Every planned fire has one row, and one job at most, whatever is down, changed or doubled."""

from __future__ import annotations

import datetime as dt
import threading
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, text

from kitaab_jobs import contract
from kitaab_jobs.runtime import fires
from kitaab_jobs.runtime.timetable import Schedule
from tests.runtime import rows

NOON = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)
HOUR = dt.timedelta(hours=1)


def line(name: str, cron: str = "0 * * * *", **given: Any) -> Schedule:
    return Schedule(name, given.pop("job", contract.PROGRESS_REFRESH), cron=cron, **given)


def due(name: str, *, planned: dt.datetime = NOON, now: dt.datetime | None = None, **given: Any) -> fires.Due:
    """A schedule as a beat finds it."""
    values: dict[str, Any] = {
        "name": name,
        "job": "progress.refresh",
        "args": {"limit": 7},
        "line": "0 * * * *",
        "zone": "UTC",
        "next_fire_at": planned,
        "now": now or planned,
        "running": None,
    }
    return fires.Due(**values | given)


def add_schedule(connection: Connection, name: str, *, source: str = "live", **given: Any) -> None:
    values = {"line": "0 * * * *", "zone": "UTC", "next_fire_at": NOON, "job": "progress.refresh"} | given
    connection.execute(
        text(
            """
            INSERT INTO jobs.schedules (name, job, line, zone, source, next_fire_at)
            VALUES (:name, :job, :line, :zone, :source, :next_fire_at)
            """
        ),
        values | {"name": name, "source": source},
    )


def schedule(connection: Connection, name: str) -> Any:
    return connection.execute(text("SELECT * FROM jobs.schedules WHERE name = :name"), {"name": name}).one()


def names(connection: Connection) -> list[str]:
    return list(connection.scalars(text("SELECT name FROM jobs.schedules ORDER BY name")))


def recorded(connection: Connection, name: str) -> dict[dt.datetime, str]:
    found = connection.execute(
        text("SELECT fire_at, outcome::text FROM jobs.fires WHERE schedule = :name ORDER BY fire_at"),
        {"name": name},
    )
    return {row.fire_at: row.outcome for row in found}


def fired_jobs(connection: Connection, name: str) -> list[dt.datetime]:
    return list(
        connection.scalars(
            text("SELECT fire_at FROM jobs.jobs WHERE schedule = :name ORDER BY fire_at"), {"name": name}
        )
    )


def now_of(connection: Connection) -> dt.datetime:
    now = connection.scalar(text("SELECT now()"))
    assert isinstance(now, dt.datetime)
    return now


class TestSync:
    def test_adds_what_is_new(self, connection: Connection) -> None:
        new = line("a", "30 9 * * *", zone="Asia/Karachi", args={"limit": 7}, note="why")
        assert fires.sync(connection, [new]) == []
        row = schedule(connection, "a")
        assert (row.job, row.args, row.line, row.zone, row.note, row.source) == (
            "progress.refresh", {"limit": 7}, "30 9 * * *", "Asia/Karachi", "why", "file",
        )  # fmt: skip
        assert row.next_fire_at == new.cadence.next_fire(now_of(connection))

    def test_leaves_what_is_as_it_was(self, connection: Connection) -> None:
        fires.sync(connection, [line("a")])
        connection.execute(
            text("UPDATE jobs.schedules SET next_fire_at = :at, updated_at = :at"), {"at": NOON}
        )
        was = schedule(connection, "a")
        fires.sync(connection, [line("a")])
        assert schedule(connection, "a") == was

    @pytest.mark.parametrize("change", [{"cron": "5 * * * *"}, {"zone": "Asia/Kathmandu"}])
    def test_a_changed_line_is_planned_anew_from_now(
        self, connection: Connection, change: dict[str, Any]
    ) -> None:
        fires.sync(connection, [line("a")])
        connection.execute(text("UPDATE jobs.schedules SET next_fire_at = :at"), {"at": NOON})
        changed = line("a", **change)
        fires.sync(connection, [changed])
        row = schedule(connection, "a")
        assert row.next_fire_at == changed.cadence.next_fire(now_of(connection))
        assert (row.line, row.zone) == (changed.cron, changed.zone)

    @pytest.mark.parametrize(
        "change", [{"args": {"limit": 9}}, {"note": "why"}, {"job": contract.REMINDERS_DISPATCH}]
    )
    def test_other_changes_keep_the_plan(self, connection: Connection, change: dict[str, Any]) -> None:
        fires.sync(connection, [line("a")])
        connection.execute(text("UPDATE jobs.schedules SET next_fire_at = :at"), {"at": NOON})
        fires.sync(connection, [line("a", **change)])
        row = schedule(connection, "a")
        assert row.next_fire_at == NOON
        assert {"args": row.args, "note": row.note, "job": row.job}.items() >= {
            key: getattr(value, "name", value) for key, value in change.items()
        }.items()

    def test_removes_what_left_the_file_and_keeps_its_record(self, connection: Connection) -> None:
        fires.sync(connection, [line("a"), line("b"), line("c")])
        fires.fire(connection, due("a"))
        assert sorted(fires.sync(connection, [line("b")])) == ["a", "c"]
        assert names(connection) == ["b"]
        assert recorded(connection, "a") == {NOON: "fired"}

    def test_an_empty_file_removes_all_of_the_file(self, connection: Connection) -> None:
        add_schedule(connection, "live")
        fires.sync(connection, [line("a")])
        assert fires.sync(connection, []) == ["a"]
        assert names(connection) == ["live"]

    def test_keeps_what_operators_added(self, connection: Connection) -> None:
        add_schedule(connection, "live")
        was = schedule(connection, "live")
        assert fires.sync(connection, [line("a")]) == []
        assert schedule(connection, "live") == was

    def test_a_name_that_comes_into_the_file_is_the_files(self, connection: Connection) -> None:
        add_schedule(connection, "a")
        fires.sync(connection, [line("a", note="why")])
        row = schedule(connection, "a")
        assert (row.source, row.note, row.next_fire_at) == ("file", "why", NOON)
        assert fires.sync(connection, []) == ["a"]

    @pytest.mark.parametrize("change", [{}, {"cron": "5 * * * *"}, {"note": "other"}])
    def test_an_operators_pause_survives(self, connection: Connection, change: dict[str, Any]) -> None:
        fires.sync(connection, [line("a")])
        connection.execute(text("UPDATE jobs.schedules SET paused_at = now(), paused_note = 'holiday'"))
        fires.sync(connection, [line("a", **change)])
        row = schedule(connection, "a")
        assert row.paused_note == "holiday"
        assert row.paused_at is not None

    def test_many_beats_start_at_once(self, effects: Engine, worker_engine: Engine) -> None:
        lines = [line(f"s{n}") for n in range(10)]
        barrier = threading.Barrier(4)

        def start() -> None:
            barrier.wait()
            with worker_engine.begin() as connection:
                fires.sync(connection, lines)

        threads = [threading.Thread(target=start) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with effects.connect() as connection:
            assert len(names(connection)) == 10


class TestDue:
    def test_only_what_has_come_and_runs(self, connection: Connection) -> None:
        now = now_of(connection)
        add_schedule(connection, "past", next_fire_at=now - HOUR)
        add_schedule(connection, "now", next_fire_at=now)
        add_schedule(connection, "ahead", next_fire_at=now + HOUR)
        add_schedule(connection, "never", next_fire_at=None)
        add_schedule(connection, "paused", next_fire_at=now - HOUR)
        connection.execute(text("UPDATE jobs.schedules SET paused_at = now() WHERE name = 'paused'"))
        assert [found.name for found in fires.due(connection)] == ["past", "now"]
        assert [found.name for found in fires.due(connection, limit=1)] == ["past"]

    @pytest.mark.parametrize("state", rows.STATES)
    def test_tells_whether_the_run_before_is_over(self, connection: Connection, state: str) -> None:
        add_schedule(connection, "a")
        rows.add(connection, state, schedule="a")
        (found,) = fires.due(connection)
        assert found.running == (None if state in rows.ENDED else state)

    def test_passes_over_what_another_beat_holds(self, effects: Engine) -> None:
        with effects.begin() as connection:
            add_schedule(connection, "a")
            add_schedule(connection, "b")
        with effects.connect() as one, effects.connect() as other:
            other.execute(text("SET lock_timeout = '1s'"))
            assert [found.name for found in fires.due(one, limit=1)] == ["a"]
            assert [found.name for found in fires.due(other)] == ["b"]

    def test_the_wait_for_the_next(self, connection: Connection) -> None:
        assert fires.seconds_to_next(connection) is None
        add_schedule(connection, "a", next_fire_at=now_of(connection) + HOUR)
        assert fires.seconds_to_next(connection) == pytest.approx(3600)
        add_schedule(connection, "b", next_fire_at=now_of(connection) - HOUR)
        assert fires.seconds_to_next(connection) == pytest.approx(-3600)
        connection.execute(text("UPDATE jobs.schedules SET paused_at = now() WHERE name = 'b'"))
        assert fires.seconds_to_next(connection) == pytest.approx(3600)


class TestFire:
    def test_one_row_one_job_and_the_next_is_planned(self, connection: Connection) -> None:
        add_schedule(connection, "a")
        fired = fires.fire(connection, due("a"))
        assert fired.missed == 0
        assert fired.job_id is not None
        job = rows.get(connection, fired.job_id)
        assert (job.name, job.args, job.schedule, job.fire_at) == (
            "progress.refresh",
            {"limit": 7},
            "a",
            NOON,
        )
        assert recorded(connection, "a") == {NOON: "fired"}
        assert schedule(connection, "a").next_fire_at == NOON + HOUR

    def test_found_late_within_the_hour(self, connection: Connection) -> None:
        add_schedule(connection, "a")
        fires.fire(connection, due("a", now=NOON + 0.9 * HOUR))
        assert recorded(connection, "a") == {NOON: "fired"}
        assert schedule(connection, "a").next_fire_at == NOON + HOUR

    def test_after_five_hours_without_a_beat_the_latest_fires(self, connection: Connection) -> None:
        add_schedule(connection, "a")
        fired = fires.fire(connection, due("a", now=NOON + 5.5 * HOUR))
        assert fired.missed == 5
        assert recorded(connection, "a") == {NOON + n * HOUR: "missed" for n in range(5)} | {
            NOON + 5 * HOUR: "fired"
        }
        assert fired_jobs(connection, "a") == [NOON + 5 * HOUR]
        assert schedule(connection, "a").next_fire_at == NOON + 6 * HOUR

    @pytest.mark.parametrize("count", [9, 10, 11, 12, 25])
    def test_more_than_one_tick_records(
        self, connection: Connection, count: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(fires, "CATCH_UP_LIMIT", 10)
        add_schedule(connection, "a")
        now = NOON + (count - 1) * HOUR
        while (planned := schedule(connection, "a").next_fire_at) <= now:
            fires.fire(connection, due("a", planned=planned, now=now))
        assert recorded(connection, "a") == {NOON + n * HOUR: "missed" for n in range(count - 1)} | {
            now: "fired"
        }
        assert fired_jobs(connection, "a") == [now]

    def test_is_skipped_while_the_run_before_is_not_over(self, connection: Connection) -> None:
        add_schedule(connection, "a")
        fired = fires.fire(connection, due("a", now=NOON + HOUR, running="published"))
        assert (fired.job_id, fired.missed) == (None, 1)
        assert recorded(connection, "a") == {NOON: "missed", NOON + HOUR: "skipped"}
        reason = connection.scalar(text("SELECT reason FROM jobs.fires WHERE outcome = 'skipped'"))
        assert reason == "the run before it is still published"
        assert fired_jobs(connection, "a") == []
        assert schedule(connection, "a").next_fire_at == NOON + 2 * HOUR

    def test_job_and_record_are_one_transaction(self, effects: Engine) -> None:
        with effects.begin() as connection:
            add_schedule(connection, "a")
        with effects.connect() as connection:
            assert fires.fire(connection, due("a")).job_id
            connection.rollback()
        with effects.connect() as connection:
            assert recorded(connection, "a") == {}
            assert fired_jobs(connection, "a") == []
            assert schedule(connection, "a").next_fire_at == NOON

    def test_zone_of_the_line(self, connection: Connection) -> None:
        """The hour that New York skips: at the first moment after it."""
        add_schedule(connection, "a", line="30 2 * * *", zone="America/New_York")
        before = dt.datetime(2026, 3, 7, 7, 30, tzinfo=dt.UTC)
        fires.fire(connection, due("a", planned=before, line="30 2 * * *", zone="America/New_York"))
        assert schedule(connection, "a").next_fire_at == dt.datetime(2026, 3, 8, 7, tzinfo=dt.UTC)


class TestPrimaryKey:
    """What decides when everything else has failed to."""

    def test_of_many_beats_that_hold_the_same_fire_one_fires(
        self, effects: Engine, worker_engine: Engine
    ) -> None:
        with effects.begin() as connection:
            add_schedule(connection, "a")
        barrier = threading.Barrier(6)
        won: list[Any] = []

        def fire() -> None:
            with worker_engine.begin() as connection:
                barrier.wait()
                won.append(fires.fire(connection, due("a")).job_id)

        threads = [threading.Thread(target=fire) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len([id for id in won if id]) == 1
        with effects.connect() as connection:
            assert recorded(connection, "a") == {NOON: "fired"}
            assert fired_jobs(connection, "a") == [NOON]

    def test_a_clock_that_is_set_back_fires_nothing_twice(self, connection: Connection) -> None:
        add_schedule(connection, "a")
        for n in range(3):
            fires.fire(connection, due("a", planned=NOON + n * HOUR))
        # Back by two hours; an edit of the line then plans from what the clock says.
        for n in (1, 2, 3):
            fires.fire(connection, due("a", planned=NOON + n * HOUR))
        assert recorded(connection, "a") == {NOON + n * HOUR: "fired" for n in range(4)}
        assert fired_jobs(connection, "a") == [NOON + n * HOUR for n in range(4)]

    def test_what_was_recorded_does_not_hide_what_was_not(self, connection: Connection) -> None:
        add_schedule(connection, "a")
        fires.fire(connection, due("a"))
        fires.fire(connection, due("a", planned=NOON + HOUR, running="running"))
        fired = fires.fire(connection, due("a", planned=NOON, now=NOON + 3.5 * HOUR))
        assert fired.job_id
        assert recorded(connection, "a") == {
            NOON: "fired",
            NOON + HOUR: "skipped",
            NOON + 2 * HOUR: "missed",
            NOON + 3 * HOUR: "fired",
        }
        assert fired_jobs(connection, "a") == [NOON, NOON + 3 * HOUR]


class TestSkip:
    def test_a_fire_that_failed_is_on_record_and_the_next_is_planned(self, connection: Connection) -> None:
        add_schedule(connection, "a")
        fires.skip(connection, due("a"), "no job is called 'gone.job'")
        assert recorded(connection, "a") == {NOON: "skipped"}
        row = schedule(connection, "a")
        assert (row.next_fire_at, row.paused_at) == (NOON + HOUR, None)

    def test_a_line_that_cannot_be_read_is_paused_with_the_reason(self, connection: Connection) -> None:
        add_schedule(connection, "a", line="61 * * * *")
        fires.skip(connection, replace(due("a"), line="61 * * * *"), "minute '61' cannot be read")
        row = schedule(connection, "a")
        assert row.paused_at is not None
        assert row.paused_note == "paused by beat: minute '61' cannot be read"
        assert recorded(connection, "a") == {NOON: "skipped"}

"""Every planned fire has one row, and one job at most, whatever is down, changed or doubled."""

from __future__ import annotations

import datetime as dt
import threading
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, bindparam, text
from sqlalchemy.dialects.postgresql import JSONB

from kitaab_jobs.runtime import fires, schedules
from kitaab_jobs.runtime.fire_records import Ticked
from kitaab_jobs.runtime.fires import Due
from tests.runtime import rows

NOON = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)
HOUR = dt.timedelta(hours=1)
MINUTE = dt.timedelta(minutes=1)


def add_schedule(connection: Connection, name: str, **given: Any) -> None:
    """Write a live schedule, hourly from NOON, with any column as `given`."""
    values = {
        "name": name,
        "job": "progress.refresh",
        "args": {"limit": 7},
        "line": "0 * * * *",
        "zone": "UTC",
        "source": "live",
        "next_fire_at": NOON,
    } | given
    statement = text(
        f"INSERT INTO jobs.schedules ({', '.join(values)}) VALUES ({', '.join(f':{name}' for name in values)})"
    ).bindparams(bindparam("args", type_=JSONB))
    connection.execute(statement, values)


def schedule(connection: Connection, name: str) -> Any:
    return connection.execute(text("SELECT * FROM jobs.schedules WHERE name = :name"), {"name": name}).one()


def names(connection: Connection) -> list[str]:
    return list(connection.scalars(text("SELECT name FROM jobs.schedules ORDER BY name")))


def tick(connection: Connection, name: str, now: dt.datetime) -> Ticked:
    """Fire what is due of one schedule, as a beat does at `now`."""
    found = fires.due(connection, now, only=[name])
    done = fires.fire(connection, found, now) if found else []
    return done[0] if done else Ticked(name)


def end_runs(
    connection: Connection, name: str, state: str = "succeeded", at: dt.datetime | None = None
) -> int:
    """End all runs of a schedule, and return how many there were."""
    return connection.execute(
        text(
            """
            UPDATE jobs.jobs SET state = CAST(:state AS jobs.job_state), finished_at = coalesce(:at, clock_timestamp())
            WHERE schedule = :name AND finished_at IS NULL
            """
        ),
        {"name": name, "state": state, "at": at},
    ).rowcount


def recorded(connection: Connection, name: str) -> dict[dt.datetime, str]:
    return {at: outcome for at, outcome, _ in explained(connection, name)}


def explained(connection: Connection, name: str) -> list[tuple[dt.datetime, str, str | None]]:
    """Return the planned fires with their outcome and rule."""
    found = connection.execute(
        text("SELECT fire_at, outcome::text, rule FROM jobs.fires WHERE schedule = :name ORDER BY fire_at"),
        {"name": name},
    )
    return [(row.fire_at, row.outcome, row.rule) for row in found]


def reason(connection: Connection, name: str, at: dt.datetime) -> str:
    said = connection.scalar(
        text("SELECT reason FROM jobs.fires WHERE schedule = :name AND fire_at = :at"),
        {"name": name, "at": at},
    )
    return str(said)


def waiting(connection: Connection, name: str) -> list[dt.datetime]:
    return [row["fire_at"] for row in schedules.waiting(connection, name)]


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


class TestDue:
    def test_only_what_has_come(self, connection: Connection) -> None:
        add_schedule(connection, "past", next_fire_at=NOON - HOUR)
        add_schedule(connection, "now", next_fire_at=NOON)
        add_schedule(connection, "ahead", next_fire_at=NOON + HOUR)
        add_schedule(connection, "never", next_fire_at=None)
        add_schedule(connection, "paused", next_fire_at=NOON - MINUTE, paused_at=NOON)
        found = [each.entry.name for each in fires.due(connection, NOON)]
        assert found == ["past", "paused", "now"]
        assert [each.entry.name for each in fires.due(connection, NOON, limit=1)] == ["past"]

    @pytest.mark.parametrize("state", rows.STATES)
    def test_tells_whether_the_run_before_is_over(self, connection: Connection, state: str) -> None:
        add_schedule(connection, "a")
        rows.add(connection, state, schedule="a")
        (found,) = fires.due(connection, NOON)
        assert found.running == (None if state in rows.ENDED else state)

    def test_passes_over_what_another_beat_holds(self, effects: Engine) -> None:
        with effects.begin() as connection:
            add_schedule(connection, "a")
            add_schedule(connection, "b")
        with effects.connect() as one, effects.connect() as other:
            other.execute(text("SET lock_timeout = '1s'"))
            assert [found.entry.name for found in fires.due(one, NOON, limit=1)] == ["a"]
            assert [found.entry.name for found in fires.due(other, NOON)] == ["b"]

    def test_the_wait_for_the_next(self, connection: Connection) -> None:
        assert fires.seconds_to_next(connection, NOON) is None
        add_schedule(connection, "a", next_fire_at=NOON + HOUR)
        assert fires.seconds_to_next(connection, NOON) == pytest.approx(3600)
        add_schedule(connection, "b", next_fire_at=NOON - HOUR)
        assert fires.seconds_to_next(connection, NOON) == pytest.approx(-3600)


class TestCost:
    """Of many schedules, those that are not due are not looked at."""

    @pytest.mark.parametrize("statement", [fires._DUE_ANY.text, fires._NEXT.text])
    def test_due_ones_come_from_the_index(self, connection: Connection, statement: str) -> None:
        many = (
            "INSERT INTO jobs.schedules (name, job, line, source, next_fire_at)"
            " SELECT 'a' || n, 'progress.refresh', '@daily', 'live', CAST(:noon AS timestamptz) + n * interval '1 minute'"
            " FROM generate_series(1, 5000) AS n"
        )
        connection.execute(text(many), {"noon": NOON})
        connection.execute(text("ANALYZE jobs.schedules"))
        values = {"now": NOON + 7 * MINUTE, "limit": 500}
        used = {name: value for name, value in values.items() if f":{name}" in statement}
        plan = "\n".join(connection.scalars(text(f"EXPLAIN (ANALYZE) {statement}"), used))
        assert "idx_schedules_next_fire" in plan
        assert "Seq Scan on schedules" not in plan
        assert "Rows Removed by Filter" not in plan
        assert len(fires.due(connection, NOON + 7 * MINUTE)) == 7


class TestFire:
    def test_one_row_one_job_and_the_next_is_planned(self, connection: Connection) -> None:
        add_schedule(connection, "a")
        fired = tick(connection, "a", NOON + 1.5 * MINUTE)
        assert (fired.missed, fired.skipped) == (0, 0)
        (id,) = fired.job_ids
        job = rows.get(connection, id)
        assert (job.name, job.args, job.schedule, job.fire_at, job.state) == (
            "progress.refresh", {"limit": 7}, "a", NOON, "ready",
        )  # fmt: skip
        row = connection.execute(text("SELECT * FROM jobs.fires")).one()
        assert (row.outcome, row.rule, row.reason, row.job_id) == ("fired", None, None, id)
        assert row.lateness == 1.5 * MINUTE
        assert schedule(connection, "a").next_fire_at == NOON + HOUR

    def test_many_in_one_transaction_and_each_by_its_own_policy(self, connection: Connection) -> None:
        add_schedule(connection, "latest")
        add_schedule(connection, "all", catch_up="all", overlap="allow")
        add_schedule(connection, "skip", catch_up="skip")
        add_schedule(connection, "paused", paused_at=NOON, paused_by="amira", paused_note="holiday")
        add_schedule(connection, "ends", ends_at=NOON + HOUR)
        now = NOON + 2 * HOUR + MINUTE
        fires.fire_due(connection, now)
        three = [NOON, NOON + HOUR, NOON + 2 * HOUR]
        assert list(recorded(connection, "latest").values()) == ["missed", "missed", "fired"]
        assert fired_jobs(connection, "all") == three
        assert list(recorded(connection, "skip").values()) == ["missed", "missed", "fired"]
        assert list(recorded(connection, "paused").values()) == ["skipped"] * 3
        assert reason(connection, "paused", NOON) == "paused by amira: holiday"
        assert recorded(connection, "ends") == {NOON: "missed", NOON + HOUR: "fired"}
        assert schedule(connection, "ends").next_fire_at is None
        assert fires.due(connection, now) == []

    def test_found_late_within_the_hour(self, connection: Connection) -> None:
        add_schedule(connection, "a")
        tick(connection, "a", NOON + 0.9 * HOUR)
        assert recorded(connection, "a") == {NOON: "fired"}
        assert schedule(connection, "a").next_fire_at == NOON + HOUR

    def test_after_five_hours_without_a_beat_the_latest_fires(self, connection: Connection) -> None:
        add_schedule(connection, "a")
        assert tick(connection, "a", NOON + 5.5 * HOUR).missed == 5
        assert recorded(connection, "a") == {NOON + n * HOUR: "missed" for n in range(5)} | {
            NOON + 5 * HOUR: "fired"
        }
        assert fired_jobs(connection, "a") == [NOON + 5 * HOUR]
        assert schedule(connection, "a").next_fire_at == NOON + 6 * HOUR

    @pytest.mark.parametrize("catch_up", ["latest", "all"])
    @pytest.mark.parametrize("count", [9, 10, 11, 12, 25])
    def test_more_than_one_tick_records(
        self, connection: Connection, count: int, catch_up: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(fires, "MOST_FIRES", 10)
        add_schedule(connection, "a", catch_up=catch_up, overlap="allow")
        now = NOON + (count - 1) * HOUR
        ticks = 0
        while schedule(connection, "a").next_fire_at <= now:
            tick(connection, "a", now)
            ticks += 1
        assert ticks == -(-count // 10)
        planned = [NOON + n * HOUR for n in range(count)]
        assert list(recorded(connection, "a")) == planned
        assert fired_jobs(connection, "a") == (planned if catch_up == "all" else [now])

    def test_jitter_puts_off_the_run_and_not_the_fire(self, connection: Connection) -> None:
        add_schedule(connection, "a", jitter=HOUR)
        (id,) = tick(connection, "a", NOON).job_ids
        assert recorded(connection, "a") == {NOON: "fired"}
        job = rows.get(connection, id)
        assert (job.fire_at, NOON < job.run_at < NOON + HOUR) == (NOON, True)

    def test_a_job_with_the_same_key_is_no_run_of_this_fire(self, connection: Connection) -> None:
        connection.execute(
            text(
                "INSERT INTO jobs.kinds (name, queue, max_attempts, time_limit, unique_args, summary)"
                " VALUES ('sample.unique', 'default', 1, 1, true, '')"
            )
        )
        there = connection.scalar(text("SELECT jobs.enqueue('sample.unique', '{\"limit\": 7}')"))
        add_schedule(connection, "a", job="sample.unique")
        assert tick(connection, "a", NOON).job_ids == []
        assert explained(connection, "a") == [(NOON, "skipped", "unique")]
        assert str(there) in reason(connection, "a", NOON)

    def test_job_and_record_are_one_transaction(self, effects: Engine) -> None:
        with effects.begin() as connection:
            add_schedule(connection, "a")
        with effects.connect() as connection:
            assert tick(connection, "a", NOON).job_ids
            connection.rollback()
        with effects.connect() as connection:
            assert recorded(connection, "a") == {}
            assert fired_jobs(connection, "a") == []
            assert schedule(connection, "a").next_fire_at == NOON

    @pytest.mark.parametrize(("dst", "second"), [("cron", "08 07:00"), ("literal", "09 06:30")])
    def test_zone_of_the_line_and_its_rule(self, connection: Connection, dst: str, second: str) -> None:
        """The hour that New York skips: at the first moment after it, or not at all."""
        before = dt.datetime(2026, 3, 7, 7, 30, tzinfo=dt.UTC)
        given = {"line": "30 2 * * *", "zone": "America/New_York", "next_fire_at": before, "dst": dst}
        add_schedule(connection, "a", **given)
        tick(connection, "a", before)
        assert f"{schedule(connection, 'a').next_fire_at:%d %H:%M}" == second


class TestOverlap:
    """The run of NOON is not over when the next fire comes."""

    def start(self, connection: Connection, overlap: str, state: str = "running") -> Any:
        add_schedule(connection, "a", overlap=overlap)
        (id,) = tick(connection, "a", NOON).job_ids
        connection.execute(
            text("UPDATE jobs.jobs SET state = CAST(:state AS jobs.job_state) WHERE id = :id"),
            {"id": id, "state": state},
        )
        tick(connection, "a", NOON + HOUR)
        return id

    def test_skip(self, connection: Connection) -> None:
        self.start(connection, "skip", "published")
        assert explained(connection, "a") == [(NOON, "fired", None), (NOON + HOUR, "skipped", "overlap")]
        assert reason(connection, "a", NOON + HOUR) == "the run before it is still published"
        assert fired_jobs(connection, "a") == [NOON]

    def test_allow(self, connection: Connection) -> None:
        self.start(connection, "allow")
        assert fired_jobs(connection, "a") == [NOON, NOON + HOUR]

    def test_queue(self, connection: Connection) -> None:
        self.start(connection, "queue")
        tick(connection, "a", NOON + 2 * HOUR)
        assert waiting(connection, "a") == [NOON + HOUR, NOON + 2 * HOUR]
        assert fires.release(connection, NOON + 2 * HOUR) == []
        end_runs(connection, "a")
        (done,) = fires.release(connection, NOON + 2.5 * HOUR)
        assert len(done.job_ids) == 1
        assert fired_jobs(connection, "a") == [NOON, NOON + HOUR]
        assert reason(connection, "a", NOON + HOUR) == "it waited 1:30:00 for the run before it"
        assert fires.release(connection, NOON + 2.5 * HOUR) == [], "one after the other"
        end_runs(connection, "a")
        fires.release(connection, NOON + 3 * HOUR)
        assert fired_jobs(connection, "a") == [NOON, NOON + HOUR, NOON + 2 * HOUR]
        assert waiting(connection, "a") == []

    def test_the_queue_keeps_its_order_when_the_run_is_over_just_before_a_fire(
        self, connection: Connection
    ) -> None:
        self.start(connection, "queue")
        end_runs(connection, "a")
        tick(connection, "a", NOON + 2 * HOUR)
        assert waiting(connection, "a") == [NOON + HOUR, NOON + 2 * HOUR]

    def test_what_waits_and_fails_is_on_record(self, connection: Connection) -> None:
        self.start(connection, "queue")
        end_runs(connection, "a")
        add_schedule(connection, "b", overlap="queue")
        connection.execute(
            text("INSERT INTO jobs.waiting_fires (schedule, fire_at) VALUES ('b', :at)"), {"at": NOON}
        )
        connection.execute(text("UPDATE jobs.schedules SET job = 'gone.job' WHERE name = 'a'"))
        fires.release(connection, NOON + 2 * HOUR)
        assert explained(connection, "a")[1:] == [(NOON + HOUR, "skipped", "error")]
        assert "no job is called 'gone.job'" in reason(connection, "a", NOON + HOUR)
        assert fired_jobs(connection, "b") == [NOON]

    def test_cancel_running_asks_the_run_to_stop_and_waits_until_it_has(self, connection: Connection) -> None:
        id = self.start(connection, "cancel_running")
        assert rows.get(connection, id).cancel_requested_at is not None
        assert waiting(connection, "a") == [NOON + HOUR]
        tick(connection, "a", NOON + 2 * HOUR)
        assert waiting(connection, "a") == [NOON + 2 * HOUR], "only the latest waits"
        assert explained(connection, "a")[1:] == [(NOON + HOUR, "skipped", "overlap")]
        end_runs(connection, "a", "cancelled")
        fires.release(connection, NOON + 2 * HOUR)
        assert fired_jobs(connection, "a") == [NOON, NOON + 2 * HOUR]

    def test_cancel_running_cancels_at_once_what_does_not_run_yet(self, connection: Connection) -> None:
        id = self.start(connection, "cancel_running", "published")
        job = rows.get(connection, id)
        assert (job.state, job.error) == ("cancelled", "the next fire of a took its place")
        assert fired_jobs(connection, "a") == [NOON, NOON + HOUR]
        assert recorded(connection, "a") == {NOON: "fired", NOON + HOUR: "fired"}


class TestPrimaryKey:
    """What decides when everything else has failed to."""

    def test_of_many_beats_that_hold_the_same_fire_one_fires(
        self, effects: Engine, worker_engine: Engine
    ) -> None:
        with effects.begin() as connection:
            add_schedule(connection, "a")
            entry = schedules.get(connection, "a")
        barrier = threading.Barrier(6)
        won: list[Any] = []

        def fire() -> None:
            with worker_engine.begin() as connection:
                barrier.wait()
                for ticked in fires.fire(
                    connection, [Due(entry)], NOON
                ):  # none, where it sees the first one's row
                    won.extend(ticked.job_ids)

        threads = [threading.Thread(target=fire) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1
        with effects.connect() as connection:
            assert recorded(connection, "a") == {NOON: "fired"}
            assert fired_jobs(connection, "a") == [NOON]

    def test_a_clock_that_is_set_back_fires_nothing_twice(self, connection: Connection) -> None:
        add_schedule(connection, "a", overlap="allow")
        for n in range(3):
            tick(connection, "a", NOON + n * HOUR)
        connection.execute(text("UPDATE jobs.schedules SET next_fire_at = :at"), {"at": NOON + HOUR})
        for n in (1, 2, 3):
            tick(connection, "a", NOON + n * HOUR)
        assert recorded(connection, "a") == {NOON + n * HOUR: "fired" for n in range(4)}
        assert fired_jobs(connection, "a") == [NOON + n * HOUR for n in range(4)]

    def test_what_was_recorded_does_not_hide_what_was_not(self, connection: Connection) -> None:
        add_schedule(connection, "a")
        tick(connection, "a", NOON)
        tick(connection, "a", NOON + HOUR)
        end_runs(connection, "a")
        connection.execute(text("UPDATE jobs.schedules SET next_fire_at = :at"), {"at": NOON})
        assert tick(connection, "a", NOON + 3.5 * HOUR).job_ids
        assert recorded(connection, "a") == {
            NOON: "fired",
            NOON + HOUR: "skipped",
            NOON + 2 * HOUR: "missed",
            NOON + 3 * HOUR: "fired",
        }
        assert fired_jobs(connection, "a") == [NOON, NOON + 3 * HOUR]


class TestTrouble:
    """One schedule's is not the others'."""

    def test_a_fire_that_failed_is_on_record_and_the_next_is_planned(self, connection: Connection) -> None:
        add_schedule(connection, "a", job="gone.job")
        add_schedule(connection, "b")
        done = {each.name: each for each in fires.fire_due(connection, NOON)}
        assert done["a"].error == "no job is called 'gone.job'"
        assert recorded(connection, "b") == {NOON: "fired"}
        assert explained(connection, "a") == [(NOON, "skipped", "error")]
        row = schedule(connection, "a")
        assert (row.next_fire_at, row.paused_at) == (NOON + HOUR, None)

    def test_a_line_that_cannot_be_read_is_paused_with_the_reason(self, connection: Connection) -> None:
        add_schedule(connection, "a", line="61 * * * *")
        add_schedule(connection, "b")
        fires.fire_due(connection, NOON)
        row = schedule(connection, "a")
        assert (row.paused_at, row.paused_by, row.next_fire_at) == (NOON, "beat", None)
        assert "minute '61'" in row.paused_note
        assert recorded(connection, "a") == {NOON: "skipped"}
        assert recorded(connection, "b") == {NOON: "fired"}

    def test_arguments_that_are_too_large(self, connection: Connection) -> None:
        add_schedule(connection, "a", args={"note": "x" * 70_000})
        add_schedule(connection, "b")
        fires.fire_due(connection, NOON)
        assert "65536 are allowed" in reason(connection, "a", NOON)
        assert recorded(connection, "b") == {NOON: "fired"}


class TestInTheWay:
    """Somebody holds what a schedule needs: it is late, and the others are not."""

    def test_a_job_with_the_same_key_that_is_not_committed(self, effects: Engine) -> None:
        with effects.begin() as connection:
            connection.execute(
                text(
                    "INSERT INTO jobs.kinds (name, queue, max_attempts, time_limit, unique_args, summary)"
                    " VALUES ('sample.unique', 'default', 1, 1, true, '')"
                )
            )
            add_schedule(connection, "a", job="sample.unique")
            add_schedule(connection, "b")
        with effects.connect() as other:
            other.execute(text("""SELECT jobs.enqueue('sample.unique', '{"limit": 7}')"""))
            with effects.begin() as connection:
                done = {each.name: each for each in fires.fire_due(connection, NOON)}
            assert "lock timeout" in str(done["a"].error)
            other.rollback()
        with effects.begin() as connection:
            assert (recorded(connection, "a"), recorded(connection, "b")) == ({}, {NOON: "fired"})
            fires.fire_due(connection, NOON)
            assert recorded(connection, "a") == {NOON: "fired"}

    def test_a_run_that_is_to_be_cancelled_and_cannot_be_reached(self, effects: Engine) -> None:
        """A relay holds the rows of a batch while it publishes, which takes as long as Redis does."""
        with effects.begin() as connection:
            add_schedule(connection, "a", overlap="cancel_running")
            add_schedule(connection, "b", overlap="allow")
            fires.fire_due(connection, NOON)
        with effects.connect() as relay:
            relay.execute(text("SELECT FROM jobs.jobs FOR UPDATE"))
            with effects.begin() as connection:
                fires.fire_due(connection, NOON + HOUR)
                fires.release(connection, NOON + HOUR)
                assert waiting(connection, "a") == [NOON + HOUR]
                assert fired_jobs(connection, "b") == [NOON, NOON + HOUR]
        with effects.begin() as connection:
            fires.release(connection, NOON + HOUR)
            assert waiting(connection, "a") == []
            assert fired_jobs(connection, "a") == [NOON, NOON + HOUR]
            states = connection.scalars(
                text("SELECT state::text FROM jobs.jobs WHERE schedule = 'a' ORDER BY fire_at")
            )
            assert list(states) == ["cancelled", "ready"]

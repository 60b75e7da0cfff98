"""How runs ended is on record, and a schedule that fails again and again is paused."""

from __future__ import annotations

import datetime as dt

import pytest
from sqlalchemy import Connection, Engine, text

from kitaab_jobs.runtime import endings, fires, schedules
from tests.runtime.test_fires import HOUR, NOON, add_schedule, end_runs, explained, fired_jobs, schedule, tick


def ended(connection: Connection, name: str) -> list[str | None]:
    found = connection.execute(
        text("SELECT ended_as::text, ended_at FROM jobs.fires WHERE schedule = :name ORDER BY fire_at"),
        {"name": name},
    )
    return [row.ended_as if row.ended_at else "open" for row in found]


def settle(connection: Connection, limit: int = 500) -> dict[str, str]:
    """Look at all open fires once, and return which schedules were paused."""
    paused: dict[str, str] = {}
    beyond = endings.START
    for _ in range(100):
        found = endings.settle_some(connection, beyond, NOON, limit)
        paused |= found.paused
        beyond = found.beyond
        if beyond == endings.START:
            break
    return paused


class TestEnded:
    @pytest.mark.parametrize("state", ["succeeded", "dead", "cancelled"])
    def test_as_the_run_ended(self, connection: Connection, state: str) -> None:
        add_schedule(connection, "a")
        tick(connection, "a", NOON)
        settle(connection)
        assert ended(connection, "a") == ["open"]
        end_runs(connection, "a", state, NOON + HOUR / 2)
        settle(connection)
        assert ended(connection, "a") == [state]

    def test_a_run_whose_row_is_gone(self, connection: Connection) -> None:
        add_schedule(connection, "a")
        tick(connection, "a", NOON)
        connection.execute(text("DELETE FROM jobs.jobs"))
        settle(connection)
        assert ended(connection, "a") == [None]

    @pytest.mark.parametrize("limit", [1, 2, 3, 7, 100])
    def test_each_look_takes_some_and_none_is_left_out(self, connection: Connection, limit: int) -> None:
        for name in "abc":
            add_schedule(connection, name, overlap="allow")
            for n in range(3):
                tick(connection, name, NOON + n * HOUR)
            end_runs(connection, name)
        settle(connection, limit)
        assert [ended(connection, name) for name in "abc"] == [["succeeded"] * 3] * 3

    def test_a_schedule_that_a_tick_holds_is_left_for_the_next_time(self, effects: Engine) -> None:
        with effects.begin() as connection:
            add_schedule(connection, "a")
            tick(connection, "a", NOON)
            end_runs(connection, "a")
        with effects.connect() as holder, effects.begin() as connection:
            connection.execute(text("SET LOCAL lock_timeout = '1s'"))
            assert len(fires.due(holder, NOON + HOUR)) == 1
            settle(connection)
            assert ended(connection, "a") == ["open"]
            holder.rollback()
            settle(connection)
            assert ended(connection, "a") == ["succeeded"]


class TestPauseAfterFailures:
    def run(self, connection: Connection, states: str) -> None:
        """Fire each hour, and end each run: d dead, s succeeded, c cancelled."""
        words = {"d": "dead", "s": "succeeded", "c": "cancelled"}
        at = schedule(connection, "a").next_fire_at
        for state in states:
            tick(connection, "a", at)
            end_runs(connection, "a", words[state], at + HOUR / 2)
            at += HOUR

    @pytest.mark.parametrize(
        ("states", "failures", "paused"),
        [
            ("dd", 2, False), ("ddd", 3, True), ("ddsd", 1, False), ("ddsdd", 2, False), ("ddcd", 3, True), ("s", 0, False),
            ("sddd", 3, True),
        ],
    )  # fmt: skip
    def test_in_a_row(self, connection: Connection, states: str, failures: int, paused: bool) -> None:
        add_schedule(connection, "a", pause_after_failures=3)
        self.run(connection, states)
        found = settle(connection)
        row = schedule(connection, "a")
        assert (row.failures, row.paused_at is not None) == (failures, paused)
        assert found == ({"a": "3 runs in a row ended dead"} if paused else {})
        assert row.paused_by == ("beat" if paused else None)

    def test_several_that_ended_since_the_last_look_count_in_their_order(
        self, connection: Connection
    ) -> None:
        add_schedule(connection, "a", pause_after_failures=2, overlap="allow")
        for n in range(3):
            tick(connection, "a", NOON + n * HOUR)
        for n, (state, minutes) in enumerate([("dead", 30), ("succeeded", 20), ("dead", 10)]):
            connection.execute(
                text(
                    "UPDATE jobs.jobs SET state = CAST(:state AS jobs.job_state), finished_at = :at WHERE fire_at = :fire"
                ),
                {"state": state, "at": NOON + dt.timedelta(minutes=minutes), "fire": NOON + n * HOUR},
            )
        settle(connection)
        assert schedule(connection, "a").failures == 1, "dead, succeeded, dead"

    def test_the_next_fire_is_skipped_though_nobody_has_looked_before(self, connection: Connection) -> None:
        add_schedule(connection, "a", pause_after_failures=3)
        self.run(connection, "ddd")
        tick(connection, "a", NOON + 3 * HOUR)
        assert explained(connection, "a")[-1] == (NOON + 3 * HOUR, "skipped", "paused")
        assert len(fired_jobs(connection, "a")) == 3

    def test_resuming_counts_anew(self, connection: Connection) -> None:
        add_schedule(connection, "a", pause_after_failures=3)
        self.run(connection, "ddd")
        settle(connection)
        schedules.resume(connection, "a", now=NOON + 2.5 * HOUR)
        self.run(connection, "dd")
        settle(connection)
        row = schedule(connection, "a")
        assert (row.failures, row.paused_at) == (2, None)

    def test_what_ended_before_it_was_resumed_does_not_count(self, connection: Connection) -> None:
        add_schedule(connection, "a", pause_after_failures=3)
        self.run(connection, "dd")
        schedules.pause(connection, "a", now=NOON + 1.5 * HOUR, by="amira", note="")
        schedules.resume(connection, "a", now=NOON + 1.6 * HOUR)
        self.run(connection, "d")
        settle(connection)
        row = schedule(connection, "a")
        assert (row.failures, row.paused_at) == (1, None)

    def test_what_waits_is_skipped_with_the_pause(self, connection: Connection) -> None:
        add_schedule(connection, "a", pause_after_failures=1, overlap="queue")
        for n in range(3):
            tick(connection, "a", NOON + n * HOUR)
        end_runs(connection, "a", "dead")
        settle(connection)
        assert explained(connection, "a")[1:] == [(NOON + n * HOUR, "skipped", "paused") for n in (1, 2)]
        assert fires.release(connection, NOON + 3 * HOUR) == []

    def test_without_the_policy_failures_are_counted_and_nothing_more(self, connection: Connection) -> None:
        add_schedule(connection, "a")
        self.run(connection, "dddd")
        settle(connection)
        row = schedule(connection, "a")
        assert (row.failures, row.paused_at) == (4, None)

    def test_an_operators_pause_keeps_its_note(self, connection: Connection) -> None:
        add_schedule(connection, "a", pause_after_failures=1)
        self.run(connection, "d")
        schedules.pause(connection, "a", now=NOON, by="amira", note="holiday")
        assert settle(connection) == {}
        assert schedules.get(connection, "a").pause == "paused by amira: holiday"

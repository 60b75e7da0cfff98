"""What operators do with schedules, on their own and together with a beat."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, text

from kitaab_jobs import contract
from kitaab_jobs.errors import BadCron, KitaabError, UsageError
from kitaab_jobs.runtime import backfills, fires, roster, schedules
from kitaab_jobs.runtime.timetable import Schedule
from tests.runtime import rows
from tests.runtime.test_fires import (
    HOUR,
    NOON,
    add_schedule,
    end_runs,
    explained,
    fired_jobs,
    names,
    reason,
    recorded,
    schedule,
    tick,
    waiting,
)

NOW = NOON + HOUR / 2


def line(name: str = "a", cron: str = "0 * * * *", **given: Any) -> Schedule:
    return Schedule(name, given.pop("job", contract.PROGRESS_REFRESH), cron=cron, **given)


class TestLook:
    def test_the_next_to_fire_comes_first(self, connection: Connection) -> None:
        add_schedule(connection, "later", next_fire_at=NOON + HOUR)
        add_schedule(connection, "over", next_fire_at=None)
        add_schedule(connection, "next")
        assert [entry.name for entry in schedules.find(connection)] == ["next", "later", "over"]
        assert [entry.name for entry in schedules.find(connection, "*e*r")] == ["later", "over"]
        assert [entry.name for entry in schedules.find(connection, "n_xt")] == []

    def test_a_name_that_is_nearly_right(self, connection: Connection) -> None:
        add_schedule(connection, "progress.refresh")
        with pytest.raises(
            UsageError, match=r"no schedule is called 'progress.refrsh': did you mean 'progress.refresh'"
        ):
            schedules.get(connection, "progress.refrsh")

    def test_the_next_fires_end_with_the_schedule(self, connection: Connection) -> None:
        add_schedule(connection, "a", ends_at=NOON + 2 * HOUR)
        found = schedules.next_fires(schedules.get(connection, "a"), NOW, 5)
        assert found == [NOON + HOUR, NOON + 2 * HOUR]
        assert schedules.next_fires(line(), NOW, 2) == [NOON + HOUR, NOON + 2 * HOUR]

    def test_history_says_what_became_of_each_fire_and_its_run(self, connection: Connection) -> None:
        add_schedule(connection, "a")
        tick(connection, "a", NOON + dt.timedelta(seconds=2))
        tick(connection, "a", NOON + HOUR)
        end_runs(connection, "a", "dead")
        skipped, fired = schedules.history(connection, "a", 10)
        assert (fired["fire_at"], fired["outcome"], fired["lateness"], fired["job_state"]) == (
            NOON,
            "fired",
            2,
            "dead",
        )
        assert (skipped["outcome"], skipped["rule"], skipped["job_state"]) == ("skipped", "overlap", None)
        assert schedules.history(connection, "a", 10, outcome="fired") == [fired]
        assert schedules.history(connection, "a", 10, before=NOON + HOUR) == [fired]
        assert schedules.history(connection, "a", 1) == [skipped]

    def test_history_outlives_the_schedule_and_the_run(self, connection: Connection) -> None:
        add_schedule(connection, "a", pause_after_failures=9)
        tick(connection, "a", NOON)
        end_runs(connection, "a")
        tick(connection, "a", NOON + HOUR)
        connection.execute(text("DELETE FROM jobs.jobs"))
        schedules.remove(connection, "a", now=NOON + HOUR)
        assert [each["job_state"] for each in schedules.history(connection, "a", 10)] == [None, "succeeded"]
        with pytest.raises(UsageError, match="no schedule is called 'b'"):
            schedules.history(connection, "b", 10)


class TestAdd:
    def test_is_planned_from_now_and_fires(self, connection: Connection) -> None:
        given = {"catch_up": "all", "catch_up_window": "3h", "jitter": "5m", "dst": "literal", "note": "why"}
        entry = schedules.add(connection, line(cron="30 9 * * * Asia/Karachi", **given), now=NOW)
        assert (entry.source, entry.line, entry.zone) == ("live", "30 9 * * *", "Asia/Karachi")
        assert entry.next_fire_at == dt.datetime(2026, 3, 2, 4, 30, tzinfo=dt.UTC)
        assert (entry.overlap, entry.catch_up_window, entry.jitter) == ("queue", 3 * HOUR, HOUR / 12)
        assert (
            schedules.as_line(entry).cadence == line(cron="30 9 * * *", zone="Asia/Karachi", **given).cadence
        )
        assert roster.changed(entry, schedules.as_line(entry), "live") == []

    def test_a_name_that_is_taken(self, connection: Connection) -> None:
        schedules.add(connection, line(), now=NOW)
        with pytest.raises(UsageError, match="a schedule is called 'a' already"):
            schedules.add(connection, line(), now=NOW)

    def test_what_is_over_already(self, connection: Connection) -> None:
        with pytest.raises(UsageError, match="will not fire any more"):
            schedules.add(connection, line(ends_at="2026-03-01T12:15Z"), now=NOW)


class TestEdit:
    @pytest.fixture(autouse=True)
    def _live(self, connection: Connection) -> None:
        schedules.add(connection, line(), now=NOW)

    def test_when_it_fires(self, connection: Connection) -> None:
        entry = schedules.edit(connection, "a", {"cron": "45 * * * *"}, now=NOW + HOUR)
        assert entry.next_fire_at == NOON + 1.75 * HOUR
        assert explained(connection, "a") == [(NOON + HOUR, "missed", "changed")]

    def test_what_it_does(self, connection: Connection) -> None:
        entry = schedules.edit(connection, "a", {"args": {"limit": 9}, "overlap": "allow"}, now=NOW + HOUR)
        assert (entry.args, entry.overlap, entry.next_fire_at) == ({"limit": 9}, "allow", NOON + HOUR)
        assert recorded(connection, "a") == {}

    @pytest.mark.parametrize(
        ("change", "error", "says"),
        [
            ({"cron": "0 0 30 2 *"}, BadCron, "never fires"),
            ({"colour": "red"}, UsageError, "a schedule has no 'colour'"),
            ({"name": "b"}, UsageError, "a schedule has no 'name'"),
            ({"ends_at": "2026-01-01"}, UsageError, "will not fire any more"),
            ({"jitter": "soon"}, UsageError, "jitter 'soon' is not a length of time"),
        ],
    )
    def test_a_mistake_changes_nothing(
        self, connection: Connection, change: dict[str, Any], error: type[Exception], says: str
    ) -> None:
        was = schedule(connection, "a")
        with pytest.raises(error, match=says):
            schedules.edit(connection, "a", change, now=NOW)
        assert schedule(connection, "a") == was


class TestTheFiles:
    """What stands in the file is changed there."""

    @pytest.fixture(autouse=True)
    def _file(self, connection: Connection) -> None:
        roster.sync(connection, [line()], NOW)

    def test_is_neither_edited_nor_removed(self, connection: Connection) -> None:
        with pytest.raises(UsageError, match=r"a stands in beat_schedule\.py, and cannot be edited live"):
            schedules.edit(connection, "a", {"note": "x"}, now=NOW)
        with pytest.raises(UsageError, match=r"cannot be removed live: take its line out there"):
            schedules.remove(connection, "a", now=NOW)
        assert names(connection) == ["a"]

    def test_is_paused_over_a_deploy_that_changes_it(self, connection: Connection) -> None:
        schedules.pause(connection, "a", now=NOW, by="amira", note="holiday")
        roster.sync(connection, [line(cron="*/30 * * * *")], NOW)
        fires.fire_due(connection, NOON + HOUR)
        assert explained(connection, "a") == [(NOON + HOUR, "skipped", "paused")]
        assert schedules.get(connection, "a").pause == "paused by amira: holiday"


class TestPause:
    def test_until_it_is_resumed_each_fire_is_recorded_as_skipped(self, connection: Connection) -> None:
        add_schedule(connection, "a", failures=2)
        schedules.pause(connection, "a", now=NOW - HOUR, by="amira", note="holiday")
        tick(connection, "a", NOON)
        entry = schedules.resume(connection, "a", now=NOON + 2.5 * HOUR)
        assert (entry.paused_at, entry.paused_note, entry.failures) == (None, None, 0)
        assert explained(connection, "a") == [(NOON + n * HOUR, "skipped", "paused") for n in range(3)]
        assert reason(connection, "a", NOON + HOUR) == "paused by amira: holiday"
        tick(connection, "a", NOON + 3 * HOUR)
        assert fired_jobs(connection, "a") == [NOON + 3 * HOUR]

    def test_is_not_caught_up_on_however_much_was_planned(
        self, connection: Connection, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(fires, "MOST_FIRES", 10)
        add_schedule(connection, "a", catch_up="all", overlap="allow")
        schedules.pause(connection, "a", now=NOW - HOUR, by="amira", note="no beat ran either")
        now = NOON + 30.5 * HOUR
        assert schedules.resume(connection, "a", now=now).next_fire_at == NOON + 31 * HOUR
        tick(connection, "a", now)
        assert explained(connection, "a") == [(NOON + n * HOUR, "skipped", "paused") for n in range(31)]

    def test_what_waits_is_skipped_but_for_backfills(self, connection: Connection) -> None:
        add_schedule(connection, "a", overlap="queue")
        for n in range(2):
            tick(connection, "a", NOON + n * HOUR)
        backfills.run(connection, "a", NOON - HOUR, NOON - HOUR, now=NOON + HOUR, by="amira")
        schedules.pause(connection, "a", now=NOON + HOUR, by="amira", note="")
        assert waiting(connection, "a") == [NOON - HOUR]
        assert explained(connection, "a")[1:] == [(NOON + HOUR, "skipped", "paused")]
        end_runs(connection, "a")
        fires.release(connection, NOON + HOUR)
        assert explained(connection, "a")[0] == (NOON - HOUR, "backfilled", "overlap")

    def test_what_is_not_paused_cannot_be_resumed(self, connection: Connection) -> None:
        add_schedule(connection, "a")
        with pytest.raises(UsageError, match="a is not paused"):
            schedules.resume(connection, "a", now=NOW)


class TestRunNow:
    def test_leaves_a_row_and_does_not_touch_the_plan(self, connection: Connection) -> None:
        add_schedule(connection, "a", jitter=HOUR, paused_at=NOON)
        id = schedules.run_now(connection, "a", now=NOON, by="amira")
        job = rows.get(connection, id)
        assert (job.schedule, job.state, job.args) == ("a", "ready", {"limit": 7})
        ((at, outcome, rule),) = explained(connection, "a")
        assert (outcome, rule, reason(connection, "a", at)) == ("fired", "run_now", "amira asked for it")
        assert at != NOON, "the planned fire of that instant is another"
        assert schedule(connection, "a").next_fire_at == NOON

    def test_not_beside_a_run_that_is_not_over(self, connection: Connection) -> None:
        add_schedule(connection, "a")
        tick(connection, "a", NOON)
        with pytest.raises(KitaabError, match=r"a run of a is not over: .* is ready"):
            schedules.run_now(connection, "a", now=NOW, by="amira")
        assert schedules.run_now(connection, "a", now=NOW, by="amira", beside=True)
        assert len(fired_jobs(connection, "a")) == 2

    def test_a_planned_fire_is_left_out_while_it_runs(self, connection: Connection) -> None:
        add_schedule(connection, "a")
        schedules.run_now(connection, "a", now=NOW - HOUR, by="amira")
        tick(connection, "a", NOON)
        assert recorded(connection, "a")[NOON] == "skipped"


class TestBackfill:
    def missed(self, connection: Connection, overlap: str = "skip") -> None:
        """Four fires, of which beat missed three."""
        add_schedule(connection, "a", overlap=overlap)
        tick(connection, "a", NOON + 3 * HOUR)
        end_runs(connection, "a")

    def test_what_was_missed_runs_and_what_ran_is_left(self, connection: Connection) -> None:
        self.missed(connection, "allow")
        done = backfills.run(connection, "a", NOON, NOON + 3 * HOUR, now=NOON + 3.5 * HOUR, by="amira")
        assert done.runs == [NOON, NOON + HOUR, NOON + 2 * HOUR]
        assert done.done == {NOON + 3 * HOUR: "fired"}
        assert recorded(connection, "a") == dict.fromkeys(done.runs, "backfilled") | {
            NOON + 3 * HOUR: "fired"
        }
        assert fired_jobs(connection, "a") == [NOON + n * HOUR for n in range(4)]
        assert "amira backfilled from 2026-03-01T12:00:00+00:00" in reason(connection, "a", NOON)
        again = backfills.run(connection, "a", NOON, NOON + 3 * HOUR, now=NOON + 3.5 * HOUR, by="amira")
        assert again.runs == []
        assert len(fired_jobs(connection, "a")) == 4

    def test_one_after_the_other_unless_they_may_overlap(self, connection: Connection) -> None:
        self.missed(connection)
        backfills.run(connection, "a", NOON, NOON + 3 * HOUR, now=NOON + 3.5 * HOUR, by="amira")
        assert waiting(connection, "a") == [NOON, NOON + HOUR, NOON + 2 * HOUR]
        assert recorded(connection, "a")[NOON] == "missed", "until it runs"
        for n in range(3):
            fires.release(connection, NOON + 3.5 * HOUR)
            assert recorded(connection, "a")[NOON + n * HOUR] == "backfilled"
            assert fires.release(connection, NOON + 3.5 * HOUR) == []
            end_runs(connection, "a")
        assert waiting(connection, "a") == []
        assert len(fired_jobs(connection, "a")) == 4

    def test_from_before_the_schedule_was_there(self, connection: Connection) -> None:
        add_schedule(connection, "a")
        done = backfills.run(connection, "a", NOON - 3 * HOUR, NOON, now=NOON, by="amira", overlap="allow")
        assert done.runs == [NOON - 3 * HOUR, NOON - 2 * HOUR, NOON - HOUR]
        assert done.done == {NOON: "due"}, "that one is beat's to fire"
        tick(connection, "a", NOON)
        assert len(explained(connection, "a")) == 4

    def test_a_plan_changes_nothing(self, connection: Connection) -> None:
        self.missed(connection)
        plan = backfills.plan(connection, "a", NOON, NOON + 3 * HOUR, now=NOON + 3.5 * HOUR)
        assert (len(plan.runs), plan.unrecorded, plan.one_by_one) == (3, [], True)
        connection.execute(text("DELETE FROM jobs.fires WHERE fire_at = :at"), {"at": NOON})
        plan = backfills.plan(connection, "a", NOON, NOON + 3 * HOUR, now=NOON + 3.5 * HOUR)
        assert (len(plan.runs), plan.unrecorded) == (3, []), "the schedule was not there then"
        connection.execute(text("UPDATE jobs.schedules SET created_at = :at"), {"at": NOON - HOUR})
        plan = backfills.plan(connection, "a", NOON, NOON + 3 * HOUR, now=NOON + 3.5 * HOUR)
        assert (len(plan.runs), plan.unrecorded) == (3, [NOON])
        assert waiting(connection, "a") == []

    @pytest.mark.parametrize(
        ("since", "until", "says"),
        [
            (NOON, NOON - HOUR, "is empty"),
            (NOON, NOON + 9 * HOUR, "is still to come: backfill up to 2026-03-01T15:30:00"),
            (NOON - 10_001 * HOUR, NOON, "more than 10000 fires"),
            (NOON - 2000 * HOUR, NOON, "and 1000 may wait"),
        ],
    )
    def test_ranges_that_are_refused(
        self, connection: Connection, since: dt.datetime, until: dt.datetime, says: str
    ) -> None:
        self.missed(connection)
        with pytest.raises(UsageError, match=says):
            backfills.run(connection, "a", since, until, now=NOON + 3.5 * HOUR, by="amira")
        assert waiting(connection, "a") == []


def test_remove_leaves_the_record_and_the_runs(connection: Connection) -> None:
    schedules.add(connection, line(), now=NOW)
    tick(connection, "a", NOON + HOUR)
    schedules.remove(connection, "a", now=NOON + 2.5 * HOUR)
    assert names(connection) == []
    assert explained(connection, "a") == [
        (NOON + HOUR, "fired", None),
        (NOON + 2 * HOUR, "missed", "removed"),
    ]
    assert fired_jobs(connection, "a") == [NOON + HOUR]


def test_a_worker_has_the_rights_for_all_of_it(effects: Engine, worker_engine: Engine) -> None:
    """The command line connects as the worker does."""
    with worker_engine.connect() as connection:
        schedules.add(connection, line(overlap="queue"), now=NOW)
        schedules.edit(connection, "a", {"note": "x"}, now=NOW)
        tick(connection, "a", NOON + HOUR)
        backfills.run(connection, "a", NOON, NOON, now=NOON + HOUR, by="amira")
        end_runs(connection, "a")
        fires.release(connection, NOON + HOUR)
        schedules.pause(connection, "a", now=NOON + HOUR, by="amira", note="")
        schedules.resume(connection, "a", now=NOON + HOUR)
        schedules.run_now(connection, "a", now=NOON + HOUR, by="amira", beside=True)
        schedules.remove(connection, "a", now=NOON + 2 * HOUR)
        assert len(schedules.history(connection, "a", 10)) == 4
        connection.rollback()

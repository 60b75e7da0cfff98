"""jobs.enqueue, for every caller in SQL."""

from __future__ import annotations

import datetime as dt
import hashlib
import threading
import time
import uuid
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine

from kitaab_jobs.contract import JOBS, MAX_PAYLOAD_BYTES, PROGRESS_REFRESH, REMINDERS_DELIVER
from kitaab_jobs.db.engines import libpq_url
from tests.models.world import CHECK, DENIED, NOT_NULL, World

ENQUEUE = "SELECT jobs.enqueue('progress.refresh', unique_key => :key)"


def job(world: World, id: uuid.UUID) -> Any:
    return world.row("SELECT * FROM jobs.jobs WHERE id = :id", id=id)


@pytest.mark.parametrize("name", JOBS)
def test_what_is_left_out_comes_from_the_kind(name: str, world: World) -> None:
    kind = JOBS[name]
    row = job(world, world.one("SELECT jobs.enqueue(:name)", name=name))
    assert (row.name, row.args, row.queue, row.max_attempts) == (name, {}, kind.queue, kind.max_attempts)
    key = hashlib.md5(b"{}").hexdigest() if kind.unique_args else None
    assert (row.state, row.priority, row.attempt, row.unique_key) == ("ready", 0, 0, key)
    assert row.run_at == row.created_at == world.one("SELECT now()")


def test_everything_may_be_given(world: World) -> None:
    at = dt.datetime(2100, 1, 1, tzinfo=dt.UTC)
    id = world.one(
        """SELECT jobs.enqueue('reminders.deliver', '{"zone": "UTC", "delivery_ids": [1]}', 'a key', :at, 7, 3,
                               'long', 'a schedule', :at)""",
        at=at,
    )
    row = job(world, id)
    assert row.args == {"zone": "UTC", "delivery_ids": [1]}
    assert (row.state, row.run_at, row.fire_at) == ("scheduled", at, at)
    assert (row.priority, row.max_attempts, row.queue) == (7, 3, "long")
    assert (row.unique_key, row.schedule) == ("a key", "a schedule")
    assert REMINDERS_DELIVER.queue != "long"


def test_a_time_that_has_come_is_ready_at_once(world: World) -> None:
    for when, state in (
        ("now()", "ready"),
        ("now() - interval '1 day'", "ready"),
        ("now() + interval '1 s'", "scheduled"),
    ):
        id = world.one(f"SELECT jobs.enqueue('progress.refresh', run_at => {when})")
        assert job(world, id).state == state


@pytest.mark.parametrize("name", ["progress.unknown", "", "Progress.Refresh", None])
def test_an_unknown_name_is_refused(name: str, world: World) -> None:
    with world.refused(
        "22023", f"no job is called {name!r}" if name is not None else "no job is called NULL"
    ):
        world.one("SELECT jobs.enqueue(:name)", name=name)


def test_arguments_that_are_too_large_are_refused(world: World) -> None:
    fits = MAX_PAYLOAD_BYTES - len('{"text": ""}')
    world.one("SELECT jobs.enqueue('progress.refresh', jsonb_build_object('text', repeat('x', :n)))", n=fits)
    with world.refused("54000", "have 65537 bytes, and 65536 are allowed"):
        world.one(
            "SELECT jobs.enqueue('progress.refresh', jsonb_build_object('text', repeat('x', :n)))", n=fits + 1
        )


@pytest.mark.parametrize("args", ["[]", "1", "null", '"text"'])
def test_arguments_are_an_object(args: str, world: World) -> None:
    with world.refused(CHECK, "jobs_args_is_object"):
        world.one("SELECT jobs.enqueue('progress.refresh', CAST(:args AS jsonb))", args=args)


def test_other_values_that_cannot_be(world: World) -> None:
    with world.refused(NOT_NULL):
        world.one("SELECT jobs.enqueue('progress.refresh', NULL)")
    with world.refused(CHECK, "jobs_max_attempts_check"):
        world.one("SELECT jobs.enqueue('progress.refresh', max_attempts => 0)")
    with world.refused("22001"):
        world.one("SELECT jobs.enqueue('progress.refresh', unique_key => repeat('k', 256))")


def test_many_in_one_statement(world: World) -> None:
    ids = world.all(
        "SELECT jobs.enqueue('progress.refresh', jsonb_build_object('limit', n)) FROM generate_series(1, 500) AS n"
    )
    assert len(set(ids)) == 500
    assert world.one("SELECT count(*) FROM jobs.jobs") == 500


# Unique keys


def test_a_key_that_is_active_returns_the_same_job(world: World) -> None:
    first = world.one(ENQUEUE, key="k")
    for state in ("scheduled", "ready", "published", "running"):
        world.run("UPDATE jobs.jobs SET state = CAST(:state AS jobs.job_state)", state=state)
        assert world.one(ENQUEUE, key="k") == first
    assert world.one("SELECT count(*) FROM jobs.jobs") == 1


@pytest.mark.parametrize("ended", ["succeeded", "dead", "cancelled"])
def test_a_key_whose_job_ended_is_free_again(ended: str, world: World) -> None:
    first = world.one(ENQUEUE, key="k")
    world.run("UPDATE jobs.jobs SET state = CAST(:state AS jobs.job_state), finished_at = now()", state=ended)
    assert world.one(ENQUEUE, key="k") != first


def test_keys_are_of_one_name_and_none_is_no_key(world: World) -> None:
    ids = {
        world.one(ENQUEUE, key="k"),
        world.one("SELECT jobs.enqueue('progress.reconcile', unique_key => 'k')"),
        world.one(ENQUEUE, key="other"),
        world.one(ENQUEUE, key=None),
        world.one(ENQUEUE, key=None),
    }
    assert len(ids) == 5


def test_one_statement_with_one_key_makes_one_job(world: World) -> None:
    ids = world.all("SELECT jobs.enqueue('progress.refresh', unique_key => 'k') FROM generate_series(1, 5)")
    assert len(set(ids)) == 1


def test_two_at_once_get_the_same_job(database: Engine) -> None:
    results: list[Any] = []
    with database.connect() as first:
        id = World(first).one(ENQUEUE, key="k")

        def enqueue() -> None:
            with database.begin() as second:
                results.append(World(second).one(ENQUEUE, key="k"))

        others = [threading.Thread(target=enqueue) for _ in range(3)]
        for other in others:
            other.start()
        time.sleep(0.2)
        assert results == [], "they wait for the first one to commit or not"
        first.commit()
        for other in others:
            other.join(10)
    assert results == [id] * 3


def test_who_waits_for_one_that_is_rolled_back_gets_its_own(database: Engine) -> None:
    results: list[Any] = []
    with database.connect() as first:
        id = World(first).one(ENQUEUE, key="k")

        def enqueue() -> None:
            with database.begin() as second:
                results.append(World(second).one(ENQUEUE, key="k"))

        other = threading.Thread(target=enqueue)
        other.start()
        time.sleep(0.1)
        first.rollback()
        other.join(10)
    assert len(results) == 1
    assert results != [id]


def test_a_key_that_ends_all_the_time(database: Engine) -> None:
    """Callers and a finisher race; each caller gets a job that was active when it asked, and none hangs."""
    stop = threading.Event()

    def finish() -> None:
        while not stop.is_set():
            with database.begin() as connection:
                World(connection).run(
                    "UPDATE jobs.jobs SET state = 'succeeded', finished_at = now() WHERE state = 'ready'"
                )

    def ask() -> None:
        for _ in range(30):
            with database.begin() as connection:
                assert World(connection).one(ENQUEUE, key="k") is not None
                done.append(1)

    done: list[int] = []
    finisher = threading.Thread(target=finish)
    callers = [threading.Thread(target=ask) for _ in range(3)]
    for thread in (finisher, *callers):
        thread.start()
    for caller in callers:
        caller.join(30)
    stop.set()
    finisher.join(10)
    assert len(done) == 90
    with database.begin() as connection:
        active = "SELECT count(*) FROM jobs.jobs WHERE unique_key = 'k' AND state = 'ready'"
        assert World(connection).one(active) <= 1


# The transaction


def test_it_exists_exactly_if_the_caller_commits(world: World) -> None:
    with world.connection.begin_nested() as savepoint:
        world.one(ENQUEUE, key=None)
        savepoint.rollback()
    assert world.one("SELECT count(*) FROM jobs.jobs") == 0


def test_listeners_hear_of_it_at_the_commit_and_not_before(database: Engine) -> None:
    with psycopg.connect(
        libpq_url(str(database.url.render_as_string(hide_password=False))), autocommit=True
    ) as ear:
        ear.execute("LISTEN kitaab_jobs")
        with database.connect() as connection:
            World(connection).all("SELECT jobs.enqueue('progress.refresh') FROM generate_series(1, 10)")
            assert list(ear.notifies(timeout=0.1)) == []
            connection.commit()
        heard = list(ear.notifies(timeout=5, stop_after=1))
        assert [note.channel for note in heard] == ["kitaab_jobs"]
        assert list(ear.notifies(timeout=0.1)) == [], "one wake-up for a transaction"


# Who may


@pytest.mark.parametrize("role", ["kitaab_app", "kitaab_worker"])
def test_apps_and_workers_may(role: str, world: World) -> None:
    with world.acting(role):
        id = world.one("SELECT jobs.enqueue('progress.refresh')")
    assert job(world, id).name == PROGRESS_REFRESH.name


def test_readers_may_not(world: World) -> None:
    with world.acting("kitaab_readonly"), world.refused(DENIED, "permission denied for function enqueue"):
        world.one("SELECT jobs.enqueue('progress.refresh')")


def test_an_app_does_not_reach_the_table_itself(world: World) -> None:
    with world.acting("kitaab_app"):
        for statement in (
            "SELECT * FROM jobs.jobs",
            "UPDATE jobs.jobs SET state = 'dead'",
            "DELETE FROM jobs.jobs",
            "INSERT INTO jobs.jobs (id, name) VALUES (jobs.new_id(), 'x')",
        ):
            with world.refused(DENIED, "permission denied for table jobs"):
                world.run(statement)


# The rest of the jobs schema


@pytest.mark.parametrize(
    ("sql", "rule"),
    [
        (
            "INSERT INTO jobs.kinds (name, queue, max_attempts, time_limit, summary) VALUES ('a', 'q', 0, 1, 's')",
            "kinds_max_attempts_check",
        ),
        (
            "INSERT INTO jobs.kinds (name, queue, max_attempts, time_limit, summary) VALUES ('a', 'q', 1, 0, 's')",
            "kinds_time_limit_check",
        ),
        (
            "INSERT INTO jobs.processes (name, kind, version) VALUES ('a', 'other', '1')",
            "processes_kind_check",
        ),
        (
            "INSERT INTO jobs.schedules (name, job, args, line, source) VALUES ('a', 'b', '[]', 'c', 'file')",
            "schedules_args_check",
        ),
        (
            "INSERT INTO jobs.schedules (name, job, line, source, ends_at) VALUES ('a', 'b', 'c', 'file', 'infinity')",
            "schedules_times_check",
        ),
        (
            "INSERT INTO jobs.schedules (name, job, line, source, catch_up_window) VALUES ('a', 'b', 'c', 'file', '0')",
            "schedules_window_check",
        ),
        (
            "INSERT INTO jobs.schedules (name, job, line, source, jitter) VALUES ('a', 'b', 'c', 'file', '25 hours')",
            "schedules_jitter_check",
        ),
        (
            "INSERT INTO jobs.schedules (name, job, line, source, starts_at, ends_at)"
            " VALUES ('a', 'b', 'c', 'file', now(), now() - interval '1 s')",
            "schedules_ends_after_start",
        ),
        (
            "INSERT INTO jobs.schedules (name, job, line, source, pause_after_failures) VALUES ('a', 'b', 'c', 'file', 0)",
            "schedules_failures_check",
        ),
        (
            "INSERT INTO jobs.fires (schedule, fire_at, outcome, reason, ended_as) VALUES ('a', now(), 'missed', 'r', 'dead')",
            "fires_ended_as_something",
        ),
        (
            "INSERT INTO jobs.fires (schedule, fire_at, outcome) VALUES ('a', now(), 'fired')",
            "fires_job_when_fired",
        ),
        (
            "INSERT INTO jobs.fires (schedule, fire_at, outcome, job_id) VALUES ('a', now(), 'missed', jobs.new_id())",
            "fires_job_when_fired",
        ),
        (
            "INSERT INTO jobs.fires (schedule, fire_at, outcome) VALUES ('a', now(), 'skipped')",
            "fires_reason_when_not_fired",
        ),
    ],
)
def test_rows_that_cannot_be(sql: str, rule: str, world: World) -> None:
    with world.refused(CHECK, rule):
        world.run(sql)


def test_a_job_has_ended_exactly_when_it_has_an_end(world: World) -> None:
    world.one(ENQUEUE, key=None)
    with world.refused(CHECK, "jobs_finished_when_ended"):
        world.run("UPDATE jobs.jobs SET state = 'dead'")
    with world.refused(CHECK, "jobs_finished_when_ended"):
        world.run("UPDATE jobs.jobs SET finished_at = now()")


def test_a_planned_fire_has_one_row(world: World) -> None:
    fire = "INSERT INTO jobs.fires (schedule, fire_at, outcome, reason) VALUES ('a', now(), 'missed', 'r')"
    world.run(fire)
    with world.refused("23505", "fires_pkey"):
        world.run(fire)


def test_one_reminder_for_a_person_day_and_channel(world: World) -> None:
    user = world.person()
    reminder = world.notification(user)
    deliver = (
        "INSERT INTO jobs.deliveries (notification_id, user_id, channel, due_at, due_date, zone, deadline, state,"
        " reason, finished_at)"
        " VALUES (:reminder, :user, :channel, now() + CAST(:later AS interval), current_date, :zone,"
        " now() + interval '2 hours', CAST(:state AS jobs.delivery_state), :reason,"
        " CASE WHEN :state IN ('pending', 'sending') THEN NULL ELSE now() END)"
    )
    given = {
        "reminder": reminder,
        "user": user,
        "channel": "email",
        "zone": "UTC",
        "later": "0",
        "state": "sent",
        "reason": None,
    }
    world.run(deliver, **given)
    with world.refused("23505", "uq_deliveries_d"):
        world.run(deliver, **given | {"later": "1 minute", "state": "pending"})
    with world.refused("23505", "uq_deliveries_due"):
        world.run(deliver, **given | {"state": "missed", "reason": "late"})
    world.run(deliver, **given | {"channel": "push"})
    world.run(deliver, **given | {"zone": "Pacific/Honolulu", "later": "1 day"})  # the same date, a day later
    world.run(deliver, **given | {"later": "1 minute", "state": "missed", "reason": "late"})
    world.run(deliver, **given | {"later": "2 minutes", "state": "skipped", "reason": "quiet hours"})
    with world.refused(CHECK, "deliveries_reason_when_not_sent"):
        world.run(deliver, **given | {"later": "3 minutes", "state": "skipped"})

"""Schedules, their fires and the kinds of jobs: beats, operators and the purge do not wait for each other in a circle.

Each case holds something between the locks of two that are live at once, lets them come so far that they wait, and lets
go: PostgreSQL would end one of two that wait for each other.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from unittest import mock

import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.orm import Session

from kitaab_jobs.archive import jobs as archive
from kitaab_jobs.contract import QUEUES
from kitaab_jobs.db import migrate
from kitaab_jobs.db.migrate import sync_kinds
from kitaab_jobs.runtime import endings, roster, schedules
from tests.conftest import in_transaction
from tests.devstack.observe import wait_for
from tests.runtime.doing import blocked, waiting
from tests.runtime.test_fires import HOUR, NOON, add_schedule

LONG_AGO = NOON - 400 * 24 * HOUR
_FIRE = text(
    "INSERT INTO jobs.fires (schedule, fire_at, outcome, rule, reason, recorded_at, job_id)"
    " VALUES (:schedule, :at, CAST(:outcome AS jobs.fire_outcome), 'on_time', 'it was so', :at,"
    " CASE WHEN :outcome = 'fired' THEN gen_random_uuid() END)"
)
_HOLD = text("SELECT FROM jobs.fires WHERE schedule = :name FOR UPDATE")


def two_old_fires(engine: Engine) -> None:
    """Two fires of schedules that are no more, whose runs are gone."""
    with engine.begin() as connection:
        for name in ("high", "low"):
            connection.execute(_FIRE, {"schedule": name, "at": LONG_AGO, "outcome": "fired"})


def end_them(connection: Connection) -> int:
    endings.settle_some(connection, endings.START, NOON)
    ended = "SELECT count(*) FROM jobs.fires WHERE ended_at IS NOT NULL"
    return int(connection.scalar(text(ended)) or 0)


def purge(connection: Connection) -> int:
    with Session(connection) as session:
        return archive.purge_jobs(session, now=NOON, keep=archive.Keep(1, 1, 1), limit=10).fires


@pytest.mark.parametrize("work", [end_them, purge])
def test_a_fire_that_somebody_holds_is_left_for_the_next_time(
    effects: Engine, worker_engine: Engine, work: Callable[[Connection], int]
) -> None:
    """Of a schedule that is no more, nothing else keeps two beats and the purge apart."""
    two_old_fires(effects)
    with effects.connect() as other:
        other.execute(_HOLD, {"name": "low"})
        assert in_transaction(worker_engine, work)() == 1
    assert in_transaction(worker_engine, work)() == (2 if work is end_them else 1)


def test_queues_and_kinds_are_written_by_name_whatever_their_order_in_the_contract(
    database: Engine, pool: ThreadPoolExecutor
) -> None:
    """In the midst of a deploy: a worker of one version and a beat of another start at once."""
    middle = list(QUEUES)[1]
    with database.connect() as holder:
        holder.execute(text("SELECT FROM jobs.queues WHERE name = :name FOR UPDATE"), {"name": middle})
        one = pool.submit(in_transaction(database, sync_kinds))
        wait_for(lambda: blocked(database))

        def other_version(connection: Connection) -> None:
            with mock.patch.object(migrate, "QUEUES", {name: QUEUES[name] for name in reversed(QUEUES)}):
                sync_kinds(connection)

        other = pool.submit(in_transaction(database, other_version))
        wait_for(lambda: waiting(database) == 2)
        holder.rollback()
    one.result(30)
    other.result(30)


def test_an_operator_who_pauses_while_a_beat_takes_back_what_was_too_early(
    effects: Engine, worker_engine: Engine, pool: ThreadPoolExecutor
) -> None:
    """The schedule first, and then what waits of it."""
    with effects.begin() as connection:
        add_schedule(connection, "a", next_fire_at=NOON + 5 * HOUR)
        connection.execute(
            text(
                "INSERT INTO jobs.waiting_fires (schedule, fire_at, backfill, reason, waits_since)"
                " VALUES ('a', :at, false, 'it runs', :at)"
            ),
            {"at": NOON + 4 * HOUR},
        )
    with worker_engine.begin() as operator:
        schedules.locked(operator, "a")
        moving = pool.submit(in_transaction(worker_engine, lambda c: roster.replan(c, NOON)))
        wait_for(lambda: blocked(effects))
        operator.execute(text("SET LOCAL lock_timeout = '5s'"))
        schedules.pause(operator, "a", now=NOON, by="amal", note="import")
    assert moving.result(30) == ["a"]
    with effects.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM jobs.waiting_fires")) == 0


def test_one_at_a_time_plans_several_schedules_anew(
    effects: Engine, worker_engine: Engine, pool: ThreadPoolExecutor
) -> None:
    """A beat that starts has locked those that its file changes when it comes to the others."""
    with effects.begin() as connection:
        for name in ("a", "b"):
            add_schedule(connection, name, next_fire_at=NOON + 9 * HOUR)
    with worker_engine.begin() as starting:
        roster.sync(starting, [], NOON)
        roster.locked(starting, ["b"])
        moving = pool.submit(in_transaction(worker_engine, lambda c: roster.replan(c, NOON)))
        wait_for(lambda: blocked(effects))
        starting.execute(text("SET LOCAL lock_timeout = '5s'"))
        assert roster.replan(starting, NOON) == ["a", "b"]
    assert moving.result(30) == []

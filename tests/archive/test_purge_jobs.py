"""Rows of what ended long ago go, in batches, and nothing else does."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable

import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.orm import Session

from kitaab_jobs.archive import jobs
from kitaab_jobs.testing import enqueued

NOW = dt.datetime.now(dt.UTC)
KEEP = jobs.Keep(jobs=7, dead_jobs=90, fires=30)


def purge(connection: Connection, limit: int = 1000) -> jobs.Purged:
    with Session(connection, join_transaction_mode="create_savepoint") as session, session.begin():
        return jobs.purge_jobs(session, now=NOW, keep=KEEP, limit=limit)


def add(
    connection: Connection, state: str, days: float, name: str = "progress.refresh", group: str | None = None
) -> None:
    ended = state in ("succeeded", "dead", "cancelled")
    connection.execute(
        text(
            "INSERT INTO jobs.jobs (id, name, queue, state, max_attempts, created_at, finished_at, group_name)"
            " VALUES (jobs.new_id(), :name, 'default', CAST(:state AS jobs.job_state), 1, :at, :ended, :group)"
        ),
        {
            "name": name,
            "state": state,
            "at": NOW - dt.timedelta(days=days),
            "ended": NOW - dt.timedelta(days=days) if ended else None,
            "group": group,
        },
    )


def left(connection: Connection) -> list[tuple[str, int]]:
    age = "CAST(round(extract(epoch FROM CAST(:now AS timestamptz) - created_at) / 86400) AS integer)"
    rows = connection.execute(
        text(f"SELECT CAST(state AS text), {age} FROM jobs.jobs ORDER BY 1, 2"), {"now": NOW}
    )
    return [(state, days) for state, days in rows]


def test_what_goes_and_what_stays(connection: Connection) -> None:
    for state in ("scheduled", "ready", "published", "running", "succeeded", "dead", "cancelled"):
        for days in (6, 8, 89, 91):
            add(connection, state, days)
    assert purge(connection).jobs == 3 + 3 + 1
    active = [
        (state, days) for state in ("published", "ready", "running", "scheduled") for days in (6, 8, 89, 91)
    ]
    assert left(connection) == sorted(
        [*active, ("succeeded", 6), ("cancelled", 6), ("dead", 6), ("dead", 8), ("dead", 89)]
    )


def test_a_dead_job_for_whose_group_another_waits_stays(connection: Connection) -> None:
    add(connection, "dead", 100, group="import")
    connection.execute(text("SELECT jobs.enqueue('progress.refresh', after_group => 'import')"))
    assert purge(connection).jobs == 0
    connection.execute(text("UPDATE jobs.jobs SET after_group = NULL"))
    assert purge(connection).jobs == 1


def test_in_batches_the_oldest_first_and_a_follow_up_while_there_are_more(connection: Connection) -> None:
    for days in (10, 9, 12, 8, 11):
        add(connection, "succeeded", days)
    assert purge(connection, limit=3).jobs == 3
    assert [days for state, days in left(connection) if state == "succeeded"] == [8, 9]
    with Session(connection) as session:
        assert [job.args for job in enqueued(session, "archive.purge_jobs")] == [{"limit": 3}]
    assert purge(connection, limit=3).jobs == 2
    with Session(connection) as session:
        assert len(enqueued(session, "archive.purge_jobs")) == 1, "no other one"


def test_fires_and_processes(connection: Connection) -> None:
    connection.execute(
        text(
            "INSERT INTO jobs.fires (schedule, fire_at, outcome, reason, recorded_at)"
            " SELECT 's', :now - n * interval '1 day', 'missed', 'r', :now - n * interval '1 day'"
            " FROM generate_series(25, 35) AS n"
        ),
        {"now": NOW},
    )
    connection.execute(
        text(
            "INSERT INTO jobs.processes (name, kind, version, seen_at)"
            " VALUES ('a', 'worker', '1', :then), ('b', 'beat', '1', :now)"
        ),
        {"now": NOW, "then": NOW - dt.timedelta(days=2)},
    )
    purged = purge(connection)
    assert (purged.fires, purged.processes) == (5, 1)
    assert connection.scalar(text("SELECT count(*) FROM jobs.fires")) == 6
    assert list(connection.scalars(text("SELECT name FROM jobs.processes"))) == ["b"]


@pytest.mark.usefixtures("database")
def test_the_worker_may(engine_as: Callable[[str], Engine], database: Engine) -> None:
    with database.begin() as connection:
        add(connection, "succeeded", 30)
    with engine_as("kitaab_worker").begin() as connection:
        assert purge(connection).jobs == 1

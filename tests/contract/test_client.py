"""Enqueueing is transactional, and the same from SQL and from Python."""

from __future__ import annotations

import asyncio
import datetime as dt
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg.rows import dict_row, namedtuple_row
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from kitaab_jobs import contract
from kitaab_jobs.client import enqueue, enqueue_async, enqueue_many, enqueue_many_async
from kitaab_jobs.contract import MAX_PAYLOAD_BYTES, Job, Payload
from kitaab_jobs.db.engines import libpq_url
from kitaab_jobs.errors import BadPayload, UnknownJob

LATER = dt.datetime(2100, 1, 1, 8, tzinfo=dt.UTC)
OPTIONS: dict[str, Any] = {
    "unique_key": "person 7",
    "run_at": LATER,
    "priority": 3,
    "max_attempts": 2,
    "queue": "long",
}

# What a caller has a say in. The rest are the id and times of the row itself.
ROW = """
    SELECT name, args, queue, priority, state::text, unique_key, run_at, attempt, max_attempts, schedule, fire_at,
           published_at, started_at, finished_at, heartbeat_at, worker, error, result
    FROM jobs.jobs WHERE id = :id
"""


def row(connection: Connection, id: UUID) -> dict[str, Any]:
    return dict(connection.execute(text(ROW), {"id": id}).mappings().one())


def count(connection: Connection) -> int:
    return int(connection.scalar(text("SELECT count(*) FROM jobs.jobs")) or 0)


@pytest.fixture
def raw(database: Engine) -> Iterator[psycopg.Connection]:
    """A psycopg connection to `database`."""
    with psycopg.connect(
        libpq_url(database.url.render_as_string(hide_password=False)), options="-c timezone=UTC"
    ) as connection:
        yield connection


class TestEqualRows:
    def test_sqlalchemy_connection_session_and_sql(self, connection: Connection) -> None:
        by_sql = connection.scalar(text("""SELECT jobs.enqueue('progress.refresh', '{"limit": 500}')"""))
        by_connection = enqueue(connection, "progress.refresh", {"limit": 500})
        by_session = enqueue(Session(connection), contract.PROGRESS_REFRESH, {"limit": 500})
        assert by_sql is not None
        assert row(connection, by_connection) == row(connection, by_sql) == row(connection, by_session)
        assert row(connection, by_connection)["args"] == {"limit": 500}

    def test_with_every_option(self, connection: Connection) -> None:
        made = []
        for key in ("a", "b", "c"):
            options = OPTIONS | {"unique_key": key}
            if key == "a":
                statement = """SELECT jobs.enqueue('progress.refresh', '{"limit": 5}', unique_key => :unique_key,
                    run_at => :run_at, priority => :priority, max_attempts => :max_attempts, queue => :queue)"""
                made.append(connection.scalar(text(statement), options))
            else:
                made.append(
                    enqueue(
                        connection if key == "b" else Session(connection),
                        "progress.refresh",
                        {"limit": 5},
                        **options,
                    )
                )
        rows = [row(connection, id) | {"unique_key": "-"} for id in made if id]
        assert rows[0] == rows[1] == rows[2]
        assert rows[0]["state"] == "scheduled"
        assert (rows[0]["run_at"], rows[0]["queue"], rows[0]["priority"]) == (LATER, "long", 3)
        assert rows[0]["max_attempts"] == 2

    @pytest.mark.parametrize("factory", [None, dict_row, namedtuple_row])
    def test_psycopg_whatever_it_makes_of_rows(
        self, database: Engine, raw: psycopg.Connection, factory: Any
    ) -> None:
        if factory is not None:
            raw.row_factory = factory
        plain = enqueue(raw, "progress.refresh", {"limit": 500})
        full = enqueue(raw, "progress.refresh", {"limit": 500}, **OPTIONS)
        raw.commit()
        with database.begin() as connection:
            by_sqlalchemy = enqueue(connection, "progress.refresh", {"limit": 500})
            at = {"run_at": None}
            assert row(connection, plain) | at == row(connection, by_sqlalchemy) | at
            assert row(connection, full)["unique_key"] == "person 7"
            assert row(connection, full)["run_at"] == LATER

    def test_psycopg_subclass_from_elsewhere(self, database: Engine) -> None:
        class Ours(psycopg.Connection[Any]):
            pass

        url = libpq_url(database.url.render_as_string(hide_password=False))
        with Ours.connect(url) as connection:
            assert enqueue(connection, "progress.refresh")

    @pytest.mark.parametrize("role", ["kitaab_app", "kitaab_worker"])
    def test_an_app_may_enqueue(self, engine_as: Callable[[str], Engine], role: str) -> None:
        with engine_as(role).begin() as connection:
            assert enqueue(connection, "progress.refresh")


class TestTransaction:
    def test_rolled_back_means_no_job(self, database: Engine) -> None:
        with database.connect() as connection:
            enqueue(connection, "progress.refresh")
            connection.rollback()
        with database.connect() as connection:
            assert count(connection) == 0

    def test_nobody_sees_it_before_the_commit(self, database: Engine) -> None:
        with database.connect() as connection, database.connect() as other:
            enqueue(connection, "progress.refresh")
            assert count(other) == 0
            connection.commit()
            assert count(other) == 1

    def test_psycopg_rolls_back_too(self, database: Engine, raw: psycopg.Connection) -> None:
        enqueue(raw, "progress.refresh")
        raw.rollback()
        with database.connect() as connection:
            assert count(connection) == 0

    def test_a_savepoint_takes_it_back(self, connection: Connection) -> None:
        before = count(connection)
        with connection.begin_nested() as savepoint:
            enqueue(connection, "progress.refresh")
            savepoint.rollback()
        assert count(connection) == before


class TestRefused:
    """Before the database is asked: an error there would abort the caller's transaction."""

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"run_at": dt.datetime(2100, 1, 1)}, "run_at 2100-01-01 00:00:00 has no time zone"),  # noqa: DTZ001
            ({"unique_key": ""}, "unique_key '' has 0 characters"),
            ({"unique_key": "k" * 256}, "has 256 characters"),
            ({"unique_key": "a\0b"}, "NUL"),
            ({"priority": 2**31}, "priority 2147483648 is out of range"),
            ({"max_attempts": 0}, "max_attempts is 0"),
            (
                {"queue": "lnog"},
                "no queue is called 'lnog': the queues are default, reminders, sending, long",
            ),
        ],
    )
    def test_option(self, connection: Connection, options: dict[str, Any], message: str) -> None:
        with pytest.raises(BadPayload, match=message):
            enqueue(connection, "progress.refresh", **options)
        assert connection.scalar(text("SELECT 1")) == 1

    def test_name_and_payload(self, connection: Connection) -> None:
        with pytest.raises(UnknownJob, match=r"no job is called 'progress\.refesh'"):
            enqueue(connection, "progress.refesh")
        with pytest.raises(BadPayload, match="limti"):
            enqueue(connection, "progress.refresh", {"limti": 5})
        assert connection.scalar(text("SELECT 1")) == 1

    def test_sql_refuses_a_name_with_a_hint(self, connection: Connection) -> None:
        with pytest.raises(DBAPIError, match=r"no job is called 'progress\.refesh'"):
            connection.execute(text("SELECT jobs.enqueue('progress.refesh')"))

    def test_both_sides_count_the_same_bytes(self, connection: Connection) -> None:
        class Note(Payload):
            text: str
            tags: list[int]

        kind = Job("progress.refresh", "a name that the database knows", Note)
        tags = list(range(500))
        spare = MAX_PAYLOAD_BYTES - len(f'{{"tags": {tags}, "text": ""}}')
        id = enqueue(connection, kind, {"text": "ا" * (spare // 2), "tags": tags})
        stored = connection.scalar(
            text("SELECT octet_length(args::text) FROM jobs.jobs WHERE id = :id"), {"id": id}
        )
        assert stored in (MAX_PAYLOAD_BYTES, MAX_PAYLOAD_BYTES - 1)
        with pytest.raises(BadPayload, match="65536 are allowed"):
            enqueue(connection, kind, {"text": "ا" * (spare // 2 + 1), "tags": tags})
        with pytest.raises(DBAPIError, match="and 65536 are allowed"):
            connection.execute(
                text(
                    "SELECT jobs.enqueue('progress.refresh', jsonb_build_object('text', repeat('x', 65530)))"
                )
            )


class TestUniqueKey:
    def test_while_it_waits_the_same_job_is_returned(self, connection: Connection) -> None:
        first = enqueue(connection, "progress.refresh", {"limit": 1}, unique_key="k")
        assert enqueue(connection, "progress.refresh", {"limit": 2}, unique_key="k") == first
        assert row(connection, first)["args"] == {"limit": 1}

    def test_another_key_or_name_is_another_job(self, connection: Connection) -> None:
        first = enqueue(connection, "progress.refresh", unique_key="k")
        assert enqueue(connection, "progress.refresh", unique_key="l") != first
        assert enqueue(connection, "reminders.dispatch", unique_key="k") != first
        assert enqueue(connection, "progress.refresh") != first

    @pytest.mark.parametrize("state", ["scheduled", "ready", "published", "running"])
    def test_active_states_hold_the_key(self, connection: Connection, state: str) -> None:
        first = enqueue(connection, "progress.refresh", unique_key="k")
        connection.execute(
            text("UPDATE jobs.jobs SET state = CAST(:state AS jobs.job_state) WHERE id = :id"),
            {"state": state, "id": first},
        )
        assert enqueue(connection, "progress.refresh", unique_key="k") == first

    @pytest.mark.parametrize("state", ["succeeded", "dead", "cancelled"])
    def test_ended_states_free_it(self, connection: Connection, state: str) -> None:
        first = enqueue(connection, "progress.refresh", unique_key="k")
        connection.execute(
            text(
                "UPDATE jobs.jobs SET state = CAST(:state AS jobs.job_state), finished_at = now() WHERE id = :id"
            ),
            {"state": state, "id": first},
        )
        assert enqueue(connection, "progress.refresh", unique_key="k") != first

    def test_many_at_once_make_one(self, database: Engine) -> None:
        barrier = threading.Barrier(8)
        made: list[UUID] = []

        def add() -> None:
            with database.begin() as connection:
                connection.execute(text("SELECT 1"))
                barrier.wait()
                made.append(enqueue(connection, "progress.refresh", unique_key="k"))
                time.sleep(0.01)

        threads = [threading.Thread(target=add) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(made) == 8
        assert len(set(made)) == 1
        with database.connect() as connection:
            assert count(connection) == 1


def test_the_client_imports_neither_celery_nor_the_models() -> None:
    program = (
        "import sys, kitaab_jobs.client\n"
        "heavy = ('celery', 'kombu', 'redis', 'sqlalchemy', 'psycopg', 'kitaab_jobs.models', 'kitaab_jobs.runtime')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


class TestMany:
    def test_ids_come_in_the_order_of_the_arguments(self, connection: Connection) -> None:
        ids = enqueue_many(connection, "progress.refresh", [{"limit": n + 1} for n in range(50)], priority=2)
        assert [row(connection, id)["args"] for id in ids] == [{"limit": n + 1} for n in range(50)]
        assert {row(connection, id)["priority"] for id in ids} == {2}

    def test_psycopg_and_sqlalchemy_write_the_same(self, database: Engine, raw: psycopg.Connection) -> None:
        options: dict[str, Any] = {k: v for k, v in OPTIONS.items() if k != "unique_key"} | {"group": "g"}
        [by_psycopg] = enqueue_many(raw, "progress.refresh", [{"limit": 5}], **options)
        raw.commit()
        with database.begin() as connection:
            [by_session] = enqueue_many(Session(connection), "progress.refresh", [{"limit": 5}], **options)
            assert row(connection, by_psycopg) == row(connection, by_session)

    def test_keys(self, connection: Connection) -> None:
        first = enqueue(connection, "progress.refresh", unique_key="a")
        ids = enqueue_many(connection, "progress.refresh", [{}, {}, {}], unique_keys=["b", "a", None])
        assert ids[1] == first
        assert count(connection) == 3

    def test_one_wrong_one_refuses_all_before_the_database_is_asked(self, connection: Connection) -> None:
        with pytest.raises(BadPayload, match="limit"):
            enqueue_many(connection, "progress.refresh", [{"limit": 1}, {"limit": "x"}])
        with pytest.raises(BadPayload, match="2 jobs have 1 unique keys"):
            enqueue_many(connection, "progress.refresh", [{}, {}], unique_keys=["a"])
        assert count(connection) == 0

    def test_many_are_checked_as_each_is(self, connection: Connection) -> None:
        """However many are checked and encoded together."""

        class Free(Payload):
            text: str = ""
            share: float = 0

        kind = Job("progress.refresh", "", Free)
        many = [{"text": "ä" * 1000 + "\\u0000", "share": n / 7} for n in range(205)]
        ids = enqueue_many(connection, kind, many)
        stored = [
            connection.scalar(text("SELECT args FROM jobs.jobs WHERE id = :id"), {"id": id}) for id in ids
        ]
        assert stored == many
        for wrong in ({"text": "x" * 70_000}, {"text": "a\0b"}, {"share": float("nan")}, {"txet": "x"}):
            with pytest.raises(BadPayload) as alone:
                enqueue(connection, kind, wrong)
            with pytest.raises(BadPayload) as among:
                enqueue_many(connection, kind, [*many, wrong, *many])
            assert str(among.value) == str(alone.value)
        assert count(connection) == 205

    def test_none(self, connection: Connection) -> None:
        assert enqueue_many(connection, "progress.refresh", []) == []


class TestAsync:
    def test_sqlalchemy(self, database: Engine) -> None:
        async def go() -> tuple[UUID, list[UUID]]:
            engine = create_async_engine(
                database.url.set(drivername="postgresql+psycopg_async"), poolclass=NullPool
            )
            async with engine.begin() as connection:
                one = await enqueue_async(connection, "progress.refresh", {"limit": 5}, **OPTIONS)
            async with AsyncSession(engine) as session, session.begin():
                many = await enqueue_many_async(session, "progress.refresh", [{"limit": 6}, {"limit": 7}])
            return one, many

        one, many = asyncio.run(go())
        with database.begin() as connection:
            same = enqueue(connection, "progress.refresh", {"limit": 5}, **OPTIONS | {"unique_key": "other"})
            assert row(connection, one) | {"unique_key": "other"} == row(connection, same)
            assert [row(connection, id)["args"]["limit"] for id in many] == [6, 7]

    def test_psycopg(self, database: Engine) -> None:
        url = libpq_url(database.url.render_as_string(hide_password=False))

        async def go() -> list[UUID]:
            async with await psycopg.AsyncConnection.connect(url, row_factory=dict_row) as connection:
                one = await enqueue_async(connection, "progress.refresh", unique_key="a")
                many = await enqueue_many_async(connection, "progress.refresh", [{}], unique_keys=["a"])
                return [one, *many]

        one, same = asyncio.run(go())
        assert one == same

    def test_an_option_that_is_none_is_refused(self) -> None:
        with pytest.raises(TypeError, match="unexpected keyword argument 'prioriy'"):
            asyncio.run(enqueue_async(None, "progress.refresh", prioriy=1))  # type: ignore[arg-type]


class TestGroupsAndLimits:
    def test_they_reach_the_row(self, connection: Connection) -> None:
        id = enqueue(connection, "progress.refresh", group="b", after_group="a")
        found = connection.execute(
            text("SELECT group_name, after_group FROM jobs.jobs WHERE id = :id"), {"id": id}
        )
        assert tuple(found.one()) == ("b", "a")

    def test_a_key_within_its_period(self, connection: Connection) -> None:
        hour = dt.timedelta(hours=1)
        first = enqueue(connection, "progress.refresh", unique_key="k", unique_for=hour)
        connection.execute(text("UPDATE jobs.jobs SET state = 'succeeded', finished_at = now()"))
        assert enqueue(connection, "progress.refresh", unique_key="k", unique_for=hour) == first
        assert enqueue(connection, "progress.refresh", unique_key="k") != first

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"group": ""}, "group '' has 0 characters: it has 1 to 128"),
            ({"after_group": "g" * 129}, "after_group .* has 129 characters"),
            ({"group": "g", "after_group": "g"}, "group 'g' would wait for itself"),
            ({"limit_key": "k"}, "limit_key 'k' limits nothing: give the job a max_running"),
            ({"run_at": dt.datetime(9999, 1, 1, tzinfo=dt.UTC)}, "run_at 9999-01-01 .* is out of range"),
        ],
    )
    def test_what_cannot_be(self, options: dict[str, Any], message: str) -> None:
        with pytest.raises(BadPayload, match=message):
            enqueue(None, "progress.refresh", **options)  # type: ignore[arg-type]  # it is not asked

"""Partitions are made by a worker, who owns nothing, and by two at once."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from kitaab_jobs.archive import jobs, queries
from kitaab_jobs.archive.rules import Span, month_of, year_of
from tests.devstack.observe import wait_for

# Far from the years for which the migrations made partitions.
NOW = dt.datetime(2041, 11, 20, 0, 15, tzinfo=dt.UTC)


def make(engine: Engine, by: str = "year", ahead_days: int = 60, now: dt.datetime = NOW) -> jobs.Report:
    with Session(engine) as session, session.begin():
        return jobs.make_partitions(session, now=now, ahead_days=ahead_days, by=by)


def spans(engine: Engine, table: str) -> list[Span]:
    with Session(engine) as session:
        return sorted(queries.spans(session, table))


@pytest.fixture
def worker(engine_as: Callable[[str], Engine]) -> Engine:
    """An engine for the role that workers have."""
    return engine_as("kitaab_worker")


def test_all_tables_get_theirs(database: Engine, worker: Engine) -> None:
    report = make(worker)
    assert report.tables == 3
    assert sorted(report.made) == sorted(
        f"{table}_{year}" for table in ("audit_log", "entries", "entry_history") for year in (2041, 2042)
    )
    for table in ("audit_log", "entries", "entry_history"):
        assert {year_of(dt.date(2041, 1, 1)), year_of(dt.date(2042, 1, 1))} <= set(spans(database, table))


def test_a_second_time_there_is_nothing_to_do(worker: Engine) -> None:
    make(worker)
    assert make(worker).made == []


def test_by_month_is_for_entries_only(worker: Engine) -> None:
    made = make(worker, by="month").made
    assert [name for name in made if name.startswith("entries")] == [
        "entries_2041_11", "entries_2041_12", "entries_2042_01",
    ]  # fmt: skip
    assert "audit_log_2041" in made


def test_the_setting_may_change_at_any_time(database: Engine, worker: Engine) -> None:
    make(worker, by="month", ahead_days=31)
    before = spans(database, "entries")
    made = make(worker, by="year", ahead_days=120).made
    after = spans(database, "entries")
    assert set(before) <= set(after)
    assert [name for name in made if name.startswith("entries")] == ["entries_2042"]
    assert month_of(dt.date(2041, 12, 1)) in after
    assert make(worker, by="month", ahead_days=120).made == []


def test_rows_find_their_partition_and_its_rules(database: Engine, worker: Engine) -> None:
    make(worker)
    with database.connect() as connection:
        secured = connection.scalar(
            text("SELECT relrowsecurity FROM pg_class WHERE relname = 'entries_2041'")
        )
        bounds = connection.scalar(
            text("SELECT pg_get_expr(relpartbound, oid) FROM pg_class WHERE relname = 'entry_history_2041'")
        )
    assert secured is True
    assert str(bounds) == ("FOR VALUES FROM ('2041-01-01 00:00:00+00') TO ('2042-01-01 00:00:00+00')")


def test_two_at_once(database: Engine, worker: Engine) -> None:
    for month in range(6):  # the later rounds find some there already
        now = NOW + dt.timedelta(days=31 * month)
        barrier = threading.Barrier(3)
        made: list[list[str]] = []

        def run(
            now: dt.datetime = now, barrier: threading.Barrier = barrier, made: list[list[str]] = made
        ) -> None:
            with Session(worker) as session, session.begin():
                session.execute(text("SELECT 1"))
                barrier.wait()
                made.append(jobs.make_partitions(session, now=now, ahead_days=31, by="month").made)

        threads = [threading.Thread(target=run) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(made) == 3, "one of them failed"
        assert sum(bool(names) for names in made) == 1


def test_all_or_none(database: Engine, worker: Engine) -> None:
    with database.begin() as connection:
        connection.execute(text("CREATE TABLE entry_history_2042 (taken bool)"))
    before = {table: spans(database, table) for table in ("audit_log", "entries", "entry_history")}
    with pytest.raises(DBAPIError, match="entry_history_2042"):
        make(worker)
    assert {table: spans(database, table) for table in before} == before


def test_a_table_that_is_in_use_is_waited_for_and_then_left(database: Engine, worker: Engine) -> None:
    hasty = create_engine(worker.url, connect_args={"options": "-c timezone=UTC -c lock_timeout=200ms"})
    try:
        with database.begin() as connection:
            connection.execute(text("LOCK TABLE entries IN ACCESS EXCLUSIVE MODE"))
            with pytest.raises(DBAPIError, match="lock timeout"):
                make(hasty)
        assert make(hasty).made
    finally:
        hasty.dispose()


def test_a_worker_makes_nothing_else(worker: Engine) -> None:
    with worker.connect() as connection, pytest.raises(DBAPIError, match="permission denied"):
        connection.execute(text("CREATE TABLE public.mine (id int)"))


def test_an_app_that_writes_to_what_entries_refer_to_is_not_the_one_to_give_way(
    database: Engine, worker: Engine
) -> None:
    """A partition of entries locks users, then deed_items; the app has written to deed_items, and goes on with users.

    After a second PostgreSQL would look who waits for whom, and end the app's transaction.
    """
    since = text(
        "SELECT extract(epoch FROM clock_timestamp() - min(waitstart)) FROM pg_locks JOIN pg_stat_activity USING (pid)"
        " WHERE datname = current_database() AND NOT granted"
    )
    failed: list[DBAPIError] = []

    def make_one() -> None:
        with pytest.raises(DBAPIError, match="lock timeout") as error:
            make(worker)
        failed.append(error.value)

    making = threading.Thread(target=make_one)
    with database.connect() as app, database.connect() as looks:
        app.execute(text("DELETE FROM deed_items"))
        making.start()
        wait_for(lambda: not making.is_alive() or (looks.scalar(since) or 0) > 1.2)
        app.execute(text("DELETE FROM users"))
        app.commit()
    making.join(30)
    assert len(failed) == 1
    assert make(worker).made


def test_nor_where_one_lock_after_the_other_is_waited_for(database: Engine, worker: Engine) -> None:
    """What is waited for in all must stay below the second after which PostgreSQL ends the app's transaction."""
    waits = text(
        "SELECT count(*), coalesce(extract(epoch FROM clock_timestamp() - min(waitstart)), 0) FROM pg_locks"
        " JOIN pg_stat_activity USING (pid) WHERE datname = current_database() AND NOT granted"
    )

    def make_one() -> None:
        with pytest.raises(DBAPIError, match="lock timeout"):
            make(worker)

    making = threading.Thread(target=make_one)
    with database.connect() as app, database.connect() as other, database.connect() as looks:

        def go_on() -> None:
            app.execute(text("DELETE FROM users"))
            app.commit()

        app.execute(text("DELETE FROM scales"))
        other.execute(text("DELETE FROM deed_items"))
        with ThreadPoolExecutor(1) as pool:
            making.start()
            wait_for(
                lambda: not making.is_alive() or looks.execute(waits).one()[0]
            )  # it has users, not deed_items
            going = pool.submit(go_on)
            wait_for(lambda: not making.is_alive() or looks.execute(waits).one()[1] > 0.5)
            other.rollback()
            going.result(30)
    making.join(30)
    assert make(worker).made

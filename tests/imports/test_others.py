"""What others do while a file is imported: write the same entries, hold locks, delete, detach."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from kitaab_jobs.db.retries import is_contention
from kitaab_jobs.imports import jobs, queries
from kitaab_jobs.imports.report import Report
from tests.imports.world import HEADER, counts, history, imported, reasons, stored

AMINA, BILAL = "amina@example.org", "bilal@example.org"
DAYS = [f"2026-01-{day:02d}" for day in range(1, 21)]
CONTENT = HEADER + "".join(f"{AMINA},Salah,Fajr,{day},3,\n" for day in DAYS)
# As another app writes an entry.
WRITE = text(
    """
    INSERT INTO entries (user_id, deed_item_id, entry_date, count_value)
    SELECT u.user_id, i.deed_item_id, :day, 7
    FROM users AS u JOIN deeds AS d USING (user_id) JOIN deed_items AS i USING (deed_id)
    WHERE lower(u.email) = :email AND i.name = 'Fajr'
    """
)
HOLD = text("UPDATE entries SET count_value = 8 WHERE entry_date = :day")


@contextmanager
def beside(action: Callable[[], Report]) -> Iterator[Future[Report]]:
    """Run an import in a thread of its own."""
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(action)


def import_all(engine: Engine, lock_timeout: str = "5s", **options: object) -> Report:
    with engine.begin() as connection:
        connection.execute(text(f"SET LOCAL lock_timeout = '{lock_timeout}'"))
        return imported(connection, CONTENT, **options)


def once(action: Callable[[], object]) -> Callable[[str, int, int | None], None]:
    """Return a progress callback that acts while the file is being read."""
    done: list[object] = []

    def on_progress(doing: str, _done: int, _total: int | None) -> None:
        if doing == "reading" and not done:
            done.append(action())

    return on_progress


def entries(engine: Engine) -> dict[str, str]:
    with engine.connect() as connection:
        return {row[2]: row[3] for row in stored(connection) if row[0] == AMINA}


def test_two_imports_of_one_file_at_once_add_each_entry_once(shared_world: Engine) -> None:
    start = threading.Barrier(2)

    def one() -> Report:
        start.wait(10)
        return import_all(shared_world)

    with ThreadPoolExecutor(2) as pool:
        reports = [future.result(60) for future in [pool.submit(one), pool.submit(one)]]
    assert entries(shared_world) == dict.fromkeys(DAYS, "3.00")
    with shared_world.connect() as connection:
        assert len(history(connection)) == len(DAYS)
    assert sum(report.added for report in reports) == len(DAYS)
    assert all(report.refused == report.changed == 0 for report in reports)


def test_an_entry_that_another_app_adds_meanwhile_is_written_over(shared_world: Engine) -> None:
    with shared_world.connect() as other, beside(lambda: import_all(shared_world)) as importing:
        other.execute(WRITE, {"day": "2026-01-05", "email": AMINA})
        time.sleep(0.4)
        assert not importing.done()
        other.commit()
        report = importing.result(30)
    assert (report.read, report.refused) == (20, 0)
    assert entries(shared_world) == dict.fromkeys(DAYS, "3.00")
    with shared_world.connect() as connection:
        assert history(connection).count(("update", "7.00", "3.00")) == 1


def test_a_lock_that_is_held_for_a_while_is_waited_for(shared_world: Engine) -> None:
    with shared_world.begin() as connection:
        connection.execute(WRITE, {"day": "2026-01-05", "email": AMINA})
    with shared_world.connect() as other, beside(lambda: import_all(shared_world, "50ms")) as importing:
        other.execute(HOLD, {"day": "2026-01-05"})
        time.sleep(0.6)
        assert not importing.done()
        other.commit()
        report = importing.result(30)
    assert counts(report) == (20, 19, 1, 0, 0)
    assert entries(shared_world) == dict.fromkeys(DAYS, "3.00")


def test_a_lock_that_is_never_given_back_ends_the_import_with_nothing_written(
    shared_world: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "ATTEMPTS", 2)
    with shared_world.begin() as connection:
        connection.execute(WRITE, {"day": "2026-01-20", "email": AMINA})
    with shared_world.connect() as other:
        other.execute(HOLD, {"day": "2026-01-20"})
        with pytest.raises(DBAPIError) as refused:
            import_all(shared_world, "50ms")
    assert is_contention(refused.value)
    assert entries(shared_world) == {"2026-01-20": "7.00"}


def test_a_deadlock_is_solved_by_trying_again(
    shared_world: Engine, engine_as: Callable[[str], Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "WRITE_BATCH", 1)
    with shared_world.begin() as connection:
        for day in (DAYS[0], DAYS[-1]):
            connection.execute(WRITE, {"day": day, "email": AMINA})
    with ThreadPoolExecutor(1) as pool, engine_as("postgres").connect() as other:
        other.execute(text("SET LOCAL deadlock_timeout = '60s'"))  # so that the import is the one to give way
        other.execute(HOLD, {"day": DAYS[-1]})
        crossed: list[Future[None]] = []

        def cross() -> None:
            other.execute(HOLD, {"day": DAYS[0]})
            other.commit()

        def on_progress(doing: str, done: int, _total: int | None) -> None:
            if doing == "writing" and done == 1 and not crossed:
                crossed.append(pool.submit(cross))
                time.sleep(0.3)

        report = import_all(shared_world, "20s", on_progress=on_progress)
        crossed[0].result(10)
    assert counts(report) == (20, 18, 2, 0, 0)
    assert entries(shared_world) == dict.fromkeys(DAYS, "3.00")


@pytest.mark.parametrize(
    ("deletion", "strict"),
    [
        ("DELETE FROM users WHERE email ILIKE 'amina%'", False),
        ("DELETE FROM users WHERE email ILIKE 'amina%'", True),
        ("UPDATE users SET deleted_at = now() WHERE email ILIKE 'amina%'", False),
        ("UPDATE deeds SET deleted_at = now() WHERE name = 'Salah'", False),
        ("UPDATE deed_items SET deleted_at = now() WHERE name = 'Fajr'", True),
    ],
)
def test_what_is_deleted_while_the_file_is_read_is_refused(
    shared_world: Engine, deletion: str, strict: bool
) -> None:
    def delete() -> None:
        with shared_world.begin() as other:
            other.execute(text(deletion))

    with shared_world.begin() as connection:
        content = CONTENT + f"{BILAL},Quran,Pages,2026-01-01,5,\n"
        if not strict:  # which would have been refused for this line alone
            content += f"{AMINA},Salah,Fajr,{DAYS[0]},4,\n"
        report = imported(connection, content, strict=strict, on_progress=once(delete))
    assert counts(report) == ((21, 1, 0, 0, 20) if strict else (22, 1, 0, 0, 21))
    assert report.written is not strict
    assert "was deleted while the file was read" in reasons(report)[2]
    with shared_world.connect() as connection:
        assert len(stored(connection)) == (0 if strict else 1)


def detach(engine: Engine) -> None:
    with engine.begin() as other:
        other.execute(text("ALTER TABLE entries DETACH PARTITION entries_2025"))


def with_old_line(connection: Connection, **options: object) -> Report:
    return imported(connection, CONTENT + f"{AMINA},Salah,Fajr,2025-05-05,3,\n", **options)


def test_a_partition_that_is_detached_while_the_file_is_read_costs_its_lines(shared_world: Engine) -> None:
    with shared_world.begin() as connection:
        report = with_old_line(connection, on_progress=once(lambda: detach(shared_world)))
    assert counts(report) == (21, 20, 0, 0, 1)
    assert "make_partition('entries', '2025-01-01', '2026-01-01')" in reasons(report)[22]


def test_a_partition_whose_detaching_begins_in_the_last_moment_costs_its_lines(
    shared_world: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    drop_gone = queries.drop_gone
    detaching: list[Future[None]] = []

    def detach_concurrently() -> None:
        with shared_world.connect().execution_options(isolation_level="AUTOCOMMIT") as other:
            other.execute(text("ALTER TABLE entries DETACH PARTITION entries_2025 CONCURRENTLY"))

    def pending() -> bool:
        with shared_world.connect() as other:
            return bool(other.scalar(text("SELECT count(*) FROM pg_inherits WHERE inhdetachpending")))

    def then_detach(connection: Connection) -> object:
        gone = drop_gone(connection)
        if not detaching:
            detaching.append(pool.submit(detach_concurrently))
            deadline = time.monotonic() + 30
            while not pending() and time.monotonic() < deadline:
                time.sleep(0.02)
        return gone

    monkeypatch.setattr(queries, "drop_gone", then_detach)
    with ThreadPoolExecutor(1) as pool:
        with shared_world.begin() as connection:
            report = with_old_line(connection)
        detaching[0].result(30)
    assert counts(report) == (21, 20, 0, 0, 1)
    assert list(reasons(report)) == [22]


def test_the_named_people_cannot_be_erased_between_the_last_look_and_the_writing(
    shared_world: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    drop_gone = queries.drop_gone
    waited: list[bool] = []

    def then_erase(connection: Connection) -> object:
        gone = drop_gone(connection)
        with shared_world.connect() as other:
            other.execute(text("SET LOCAL lock_timeout = '50ms'"))
            with pytest.raises(DBAPIError) as refused:
                other.execute(text("DELETE FROM users WHERE email ILIKE 'amina%'"))
            waited.append(is_contention(refused.value))
        return gone

    monkeypatch.setattr(queries, "drop_gone", then_erase)
    assert counts(import_all(shared_world)) == (20, 20, 0, 0, 0)
    assert waited == [True]

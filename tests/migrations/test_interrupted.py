"""Migrations that are killed, blocked, or run twice at once leave a whole revision, and the next one finishes."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import IO

import pytest
from alembic.runtime.migration import HeadMaintainer, StampStep
from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.pool import NullPool

from kitaab_jobs.db import locks, migrate
from kitaab_jobs.db.engines import sqlalchemy_url
from kitaab_jobs.errors import ServerError
from tests.migrations.catalog import Catalog, difference
from tests.migrations.conftest import Server, execute, read, revision_of, revisions

UPGRADE = """
import sys
from kitaab_jobs.db import migrate
print("ready", flush=True)
sys.stdin.readline()
migrate.upgrade(sys.argv[1])
print("done", flush=True)
"""

OTHERS = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()
"""
WAITING = OTHERS + " AND wait_event_type = 'Lock'"


@pytest.fixture
def watch(url_for: Server, empty: str) -> Iterator[Connection]:
    """A superuser's look at the empty database."""
    url = url_for("postgres", empty.rpartition("/")[2])
    engine = create_engine(sqlalchemy_url(url), isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with engine.connect() as connection:
        yield connection


def until(question: Callable[[], object], seconds: float = 30) -> None:
    """Wait for something to become true."""
    deadline = time.monotonic() + seconds
    while not question():
        assert time.monotonic() < deadline, "it never became true"
        time.sleep(0.01)


class Migrator:
    """Another process that upgrades a database when it is told to."""

    def __init__(self, url: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", UPGRADE, url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._pipe(self.process.stdout).readline() == "ready\n"

    def go(self) -> None:
        """Begin to upgrade."""
        pipe = self._pipe(self.process.stdin)
        pipe.write("\n")
        pipe.flush()

    def kill(self) -> None:
        """End it with kill -9."""
        self.process.kill()
        self.process.communicate()

    @staticmethod
    def _pipe(pipe: IO[str] | None) -> IO[str]:
        assert pipe is not None
        return pipe


@pytest.fixture
def migrator(empty: str) -> Iterator[Callable[[], Migrator]]:
    """Start processes that will upgrade the empty database."""
    made: list[Migrator] = []

    def make() -> Migrator:
        made.append(Migrator(empty))
        return made[-1]

    yield make
    for each in made:
        each.kill()


def test_killed_at_any_moment(
    empty: str,
    watch: Connection,
    migrator: Callable[[], Migrator],
    catalog_at: dict[str | None, Catalog],
) -> None:
    """Processes are killed in turn, each somewhere else on the way."""
    seen: list[str | None] = []
    for _ in range(3):
        upgrading = migrator()
        upgrading.go()
        time.sleep(random.uniform(0.02, 0.4))
        upgrading.kill()
        until(lambda: watch.scalar(text(OTHERS)) == 0)
        seen.append(revision_of(empty))
        assert difference(catalog_at[seen[-1]], read(empty)) == []
    assert seen == sorted(seen, key=lambda revision: revision or "")
    migrate.upgrade(empty)
    assert difference(catalog_at[migrate.head()], read(empty)) == []


def test_killed_at_the_end_of_each_revision(
    empty: str, watch: Connection, catalog_at: dict[str | None, Catalog]
) -> None:
    """The connection breaks off when all is written and nothing is committed."""
    below = None
    for revision in revisions():
        with _breaking_before_commit(watch), pytest.raises(ServerError):
            migrate.upgrade(empty)
        until(lambda: watch.scalar(text(OTHERS)) == 0)
        assert revision_of(empty) == below
        assert difference(catalog_at[below], read(empty)) == []
        assert migrate.upgrade(empty, revision) == [revision]
        below = revision


@contextmanager
def _breaking_before_commit(watch: Connection) -> Iterator[None]:
    """Break the migrator's connection when it has written down the revision, its last statement."""
    update = HeadMaintainer.update_to_step

    def broken(self: HeadMaintainer, step: StampStep) -> None:
        update(self, step)
        watch.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND state = 'idle in transaction'"
            )
        )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(HeadMaintainer, "update_to_step", broken)
        yield


def test_killed_before_the_first_revision_as_a_superuser(
    empty: str, url_for: Server, catalog_at: dict[str | None, Catalog]
) -> None:
    """Alembic commits its own table first; it is still the superuser's when the next upgrade comes."""
    superuser = url_for("postgres", empty.rpartition("/")[2])
    execute(
        superuser,
        "CREATE TABLE alembic_version (version_num varchar(32) NOT NULL CONSTRAINT alembic_version_pkc PRIMARY KEY)",
    )
    assert migrate.upgrade(superuser) == revisions()


def test_killed_while_it_waits_for_a_lock(
    empty: str,
    watch: Connection,
    migrator: Callable[[], Migrator],
    catalog_at: dict[str | None, Catalog],
) -> None:
    migrate.upgrade(empty, "0003")
    with _holding(empty, "LOCK users IN ACCESS EXCLUSIVE MODE"):
        upgrading = migrator()
        upgrading.go()
        until(lambda: watch.scalar(text(WAITING)))
        upgrading.kill()
    until(lambda: watch.scalar(text(OTHERS)) == 0)
    assert revision_of(empty) == "0003"
    assert difference(catalog_at["0003"], read(empty)) == []
    assert migrate.upgrade(empty) == revisions()[3:]


def test_killed_while_it_waits_for_another_migrator(
    empty: str, watch: Connection, migrator: Callable[[], Migrator]
) -> None:
    with _holding(empty, f"SELECT pg_advisory_lock({locks.MIGRATE})"):
        upgrading = migrator()
        upgrading.go()
        until(lambda: watch.scalar(text(WAITING)))
        upgrading.kill()
        assert revision_of(empty) is None
    assert migrate.upgrade(empty) == revisions()


def test_two_at_once(empty: str, catalog_at: dict[str | None, Catalog]) -> None:
    """One does the work; the other waits, and finds nothing to do."""
    with ThreadPoolExecutor(2) as both:
        results = list(both.map(migrate.upgrade, [empty, empty]))
    assert sorted(results) == [[], revisions()]
    assert difference(catalog_at[migrate.head()], read(empty)) == []


@contextmanager
def _holding(url: str, lock: str) -> Iterator[Engine]:
    """Let another session hold a lock in an open transaction."""
    engine = create_engine(sqlalchemy_url(url), poolclass=NullPool)
    with engine.connect() as other:
        other.execute(text(lock))
        yield engine


@pytest.fixture
def attempts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Shorten the waits, and note each attempt."""
    monkeypatch.setattr(migrate, "LOCK_TIMEOUT", "100ms")
    monkeypatch.setattr(migrate, "ATTEMPTS", 4)
    made: list[str] = []
    attempt = migrate._attempt

    def noted(
        engine: Engine, revision: str, *, up: bool, began: list[str | None]
    ) -> tuple[str | None, str | None]:
        made.append(revision)
        return attempt(engine, revision, up=up, began=began)

    monkeypatch.setattr(migrate, "_attempt", noted)
    return made


# A reader blocks 0003, which adds policies to deeds; a writer's lock on users blocks 0004, which refers to it;
# a writer of entries blocks 0006, which adds triggers to them, and what came before it is kept.
@pytest.mark.parametrize(
    ("at", "lock", "stays_at"),
    [
        ("0002", "LOCK deeds IN ACCESS SHARE MODE", "0002"),
        ("0003", "LOCK users IN ACCESS EXCLUSIVE MODE", "0003"),
        ("0004", "LOCK entries IN ROW EXCLUSIVE MODE", "0005"),
    ],
)
def test_a_lock_that_stays_is_one_clear_error(
    at: str,
    lock: str,
    stays_at: str,
    empty: str,
    attempts: list[str],
    catalog_at: dict[str | None, Catalog],
) -> None:
    migrate.upgrade(empty, at)
    attempts.clear()
    with _holding(empty, lock), pytest.raises(ServerError) as caught:
        migrate.upgrade(empty)
    assert len(attempts) == 4
    assert "canceling statement due to lock timeout" in str(caught.value)
    assert "pg_locks" in (caught.value.remedy or "")
    assert "\n" not in str(caught.value)
    assert revision_of(empty) == stays_at
    assert difference(catalog_at[stays_at], read(empty)) == []
    assert migrate.upgrade(empty) == revisions()[revisions().index(stays_at) + 1 :]


def test_a_lock_that_goes_is_waited_for(empty: str, attempts: list[str]) -> None:
    """What was applied before the lock, by the first attempt, is told too."""
    migrate.upgrade(empty, "0004")
    attempts.clear()
    held = threading.Event()

    def hold() -> None:
        with _holding(empty, "LOCK entries IN ROW EXCLUSIVE MODE"):  # 0006 adds triggers to entries
            held.set()
            until(lambda: len(attempts) == 2)

    other = threading.Thread(target=hold)
    other.start()
    held.wait(30)
    assert migrate.upgrade(empty) == revisions()[4:]
    assert len(attempts) > 1
    other.join()

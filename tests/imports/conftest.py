"""A database with people in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.pool import NullPool

from kitaab_jobs.db.engines import sqlalchemy_url
from tests.imports.world import settle


@pytest.fixture
def world(connection: Connection) -> Connection:
    """A connection to a database with people, in a transaction that is rolled back."""
    settle(connection)
    return connection


@pytest.fixture
def shared_world(database: Engine) -> Engine:
    """An engine on a database with people that others may use at the same time."""
    with database.begin() as connection:
        settle(connection)
    return database


@pytest.fixture(scope="module")
def _kept_world(_cloned: Callable[[], str], url_for: Callable[[str, str], str]) -> Engine:
    engine = create_engine(sqlalchemy_url(url_for("kitaab_admin", _cloned())), poolclass=NullPool)
    with engine.begin() as connection:
        settle(connection)
    return engine


@pytest.fixture
def kept_world(_kept_world: Engine) -> Iterator[Engine]:
    """As `shared_world`, for tests that leave nothing but entries, which are taken away: far cheaper."""
    yield _kept_world
    with _kept_world.begin() as connection:
        connection.execute(text("DELETE FROM entries"))

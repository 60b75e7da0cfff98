"""The migrated schema under a World whose connection may become any role, rolled back at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import Engine, create_engine, text

from kitaab_jobs.db.engines import sqlalchemy_url
from tests.models.world import World


@pytest.fixture(scope="session")
def _superuser(_shared_engine: Engine, url_for: Callable[[str, str], str]) -> Iterator[Engine]:
    assert _shared_engine.url.database is not None
    url = sqlalchemy_url(url_for("postgres", _shared_engine.url.database))
    engine = create_engine(url, connect_args={"options": "-c timezone=UTC"})
    yield engine
    engine.dispose()


@pytest.fixture
def world(_superuser: Engine) -> Iterator[World]:
    """A world on this worker's database: it acts as the owner unless it says otherwise."""
    with _superuser.connect() as connection:
        transaction = connection.begin()
        connection.execute(text("SET LOCAL SESSION AUTHORIZATION kitaab_admin"))
        yield World(connection)
        transaction.rollback()

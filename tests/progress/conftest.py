"""A diary for each test: in a transaction that is rolled back, or committed in a database of its own."""

from __future__ import annotations

import pytest
from sqlalchemy import Connection, Engine

from tests.progress.diary import Diary, make_years


@pytest.fixture
def diary(connection: Connection) -> Diary:
    """The diary of a person in UTC, rolled back at the end."""
    make_years(connection)
    return Diary(connection)


@pytest.fixture
def kept(database: Engine) -> Engine:
    """An engine on a database of its own, for diaries that are committed."""
    with database.begin() as connection:
        make_years(connection)
    return database

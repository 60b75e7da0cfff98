"""A post office for each test, and the providers it writes to."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import Engine

from tests.conftest import pooled_engine_for
from tests.reminders.channels.mailserver import MailServer
from tests.reminders.channels.pushserver import PushServer
from tests.reminders.postoffice import PostOffice


@pytest.fixture
def mail() -> Iterator[MailServer]:
    server = MailServer()
    yield server
    server.stop()


@pytest.fixture
def push() -> Iterator[PushServer]:
    server = PushServer()
    yield server
    server.stop()


@pytest.fixture
def office(
    database: Engine,
    url_for: Callable[[str, str], str],
    redis_url: str,
    mail: MailServer,
    push: PushServer,
) -> Iterator[PostOffice]:
    # With a pool, as workers have one: most of what these tests do is many small transactions.
    assert database.url.database is not None
    name = database.url.database
    owner = pooled_engine_for(url_for("kitaab_admin", name))
    worker = pooled_engine_for(url_for("kitaab_worker", name))
    yield PostOffice(owner, worker, redis_url, mail, push)
    owner.dispose()
    worker.dispose()

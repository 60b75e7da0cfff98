"""A post office for each test, and the providers it writes to."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import Engine

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
    engine_as: Callable[[str], Engine],
    redis_url: str,
    mail: MailServer,
    push: PushServer,
) -> PostOffice:
    return PostOffice(database, engine_as("kitaab_worker"), redis_url, mail, push)

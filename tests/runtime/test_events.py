"""Events of tasks are told where somebody listens, and not even made where nobody does."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery
from redis import Redis

from kitaab_jobs.runtime import events
from tests.devstack.observe import wait_for


@pytest.fixture
def dispatcher(app: Celery, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """What a worker tells its events with, without its loop: each is sent at once."""
    monkeypatch.setattr(events, "get_event_loop", lambda: None)
    with app.connection_for_write() as connection:
        made: Any = events.Events(app=app).Dispatcher(connection, buffer_group=["task"])
        made._flush_soon, made.on_send_buffered = made.flush, made._buffered
        yield made


def tell(dispatcher: Any, *ids: str) -> None:
    for id in ids:
        dispatcher.send("task-received", uuid=id, name="sample")


@pytest.fixture
def listener(redis_url: str) -> Iterator[Any]:
    """Who listens, as Flower does, once asked to."""
    client: Any = Redis.from_url(redis_url)
    with client.pubsub() as made:
        yield made
    client.close()


def listen(listener: Any) -> None:
    database = listener.connection_pool.connection_kwargs.get(
        "db", 0
    )  # the tests beside this one have theirs
    listener.psubscribe(f"/{database}.celeryev/task.*")
    assert listener.get_message(timeout=5)["type"] == "psubscribe"


def heard(listener: Any) -> list[str]:
    """Return the ids of what was told since."""
    ids: list[str] = []
    while (message := listener.get_message(timeout=0.5)) is not None:
        body = json.loads(base64.b64decode(json.loads(message["data"])["body"]))
        ids += [event["uuid"] for event in body]
    return ids


def test_nobody_listens(dispatcher: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "ASK_SECONDS", 3600.0)
    assert not dispatcher.is_unheard(), "it is not known yet"
    tell(dispatcher, "first")
    assert dispatcher.is_unheard()
    made = dispatcher.clock.value
    tell(dispatcher, "second", "third")
    assert dispatcher.clock.value == made, "an event was made"


def test_somebody_listens(dispatcher: Any, listener: Any) -> None:
    listen(listener)
    tell(dispatcher, "first", "second")
    assert not dispatcher.is_unheard()
    assert heard(listener) == ["first", "second"]


def test_somebody_begins_to_listen(dispatcher: Any, listener: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "ASK_SECONDS", 0.2)
    tell(dispatcher, "first")
    listen(listener)
    wait_for(lambda: not dispatcher.is_unheard())
    tell(dispatcher, "second", "third")
    assert heard(listener) == ["second", "third"]

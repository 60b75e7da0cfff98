"""What the Redis transport notes of messages that are handed out, and how they come back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from celery import Celery
from redis import Redis

from kitaab_jobs.contract import PROGRESS_REFRESH
from kitaab_jobs.runtime.envelope import pack
from kitaab_jobs.runtime.messages import Message
from tests.runtime.relaying import messages

QUEUE = PROGRESS_REFRESH.queue


@pytest.fixture
def redis(redis_url: str) -> Iterator[Redis]:
    client = Redis.from_url(redis_url)
    yield client
    client.close()


@pytest.fixture
def channel(app: Celery) -> Iterator[Any]:
    """The channel of somebody who takes messages, as a worker does."""
    with app.connection_for_read() as connection:
        yield connection.channel()


def of_ledger(canvas: dict[str, Any] | None = None) -> Message:
    return Message(uuid4(), PROGRESS_REFRESH.name, QUEUE, {"limit": 1}, canvas)


def noted(redis: Redis) -> int:
    return int(str(redis.hlen("unacked"))) + int(str(redis.zcard("unacked_index")))


def sent(redis: Redis, *given: Message) -> None:
    for message in given:
        redis.lpush(QUEUE, pack(message))


def take(channel: Any) -> Any:
    message = channel.basic_get(QUEUE)
    assert message is not None
    return message


def test_a_message_of_the_ledger_is_not_noted(channel: Any, redis: Redis) -> None:
    sent(redis, of_ledger())
    taken = take(channel)
    assert noted(redis) == 0
    taken.ack()
    assert noted(redis) == 0
    channel.close()
    assert not redis.exists(QUEUE)


def test_those_of_clients_and_with_a_canvas_are_noted(app: Celery, channel: Any, redis: Redis) -> None:
    app.send_task(PROGRESS_REFRESH.name, kwargs={"limit": 1}, queue=QUEUE)
    sent(redis, of_ledger({"chain": []}))
    for _ in range(2):
        taken = take(channel)
        assert noted(redis) == 2
        taken.ack()
        assert noted(redis) == 0


def test_one_that_is_rejected_is_the_next(channel: Any, redis: Redis, redis_url: str) -> None:
    """A worker does so when the process that ran it has died."""
    first, second = of_ledger(), of_ledger()
    sent(redis, first, second)
    taken = take(channel)
    assert taken.headers["id"] == str(first.id)
    taken.reject(requeue=True)
    waiting = messages(redis_url)
    assert {each["headers"]["id"] for each in waiting} == {str(first.id), str(second.id)}
    assert [each["headers"].get("redelivered") for each in waiting].count(True) == 1


def test_one_that_is_refused_is_gone(channel: Any, redis: Redis) -> None:
    sent(redis, of_ledger())
    take(channel).reject(requeue=False)
    channel.close()
    assert not redis.exists(QUEUE)


def test_what_a_worker_has_not_begun_is_given_back_when_it_stops(
    channel: Any, redis: Redis, redis_url: str
) -> None:
    """And what it has acknowledged is not."""
    given = [of_ledger() for _ in range(4)]
    sent(redis, *given)
    taken = [take(channel) for _ in given]
    taken[1].ack()
    channel.close()
    assert {each["headers"]["id"] for each in messages(redis_url)} == {
        str(given[place].id) for place in (0, 2, 3)
    }

"""A relay in a thread, and what it has published."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from redis import Redis
from sqlalchemy import Engine, text

from kitaab_jobs import contract
from kitaab_jobs.client import enqueue
from kitaab_jobs.contract import QUEUES
from kitaab_jobs.runtime.relay import Relay

MakeRelay = Callable[..., Relay]


@contextmanager
def running(relay: Relay) -> Iterator[threading.Thread]:
    """Run the relay's loop in a thread."""
    thread = threading.Thread(target=relay.run, daemon=True)  # one that hangs fails its test, and no more
    thread.start()
    try:
        yield thread
    finally:
        relay.stop()
        thread.join(timeout=20)
        assert not thread.is_alive()


def messages(redis_url: str, queues: Iterable[str] = QUEUES) -> list[dict[str, Any]]:
    """Return what waits in the queues, in the order in which it would be taken."""
    client = Redis.from_url(redis_url)
    try:
        return [json.loads(raw) for queue in queues for raw in reversed(client.lrange(queue, 0, -1))]
    finally:
        client.close()


def ids(redis_url: str, queues: Iterable[str] = QUEUES) -> list[UUID]:
    return [UUID(message["headers"]["id"]) for message in messages(redis_url, queues)]


def add_ready(engine: Engine, count: int) -> list[UUID]:
    with engine.begin() as connection:
        return [enqueue(connection, contract.PROGRESS_REFRESH, {"limit": n + 1}) for n in range(count)]


def states(engine: Engine) -> dict[str, int]:
    with engine.connect() as connection:
        return dict(Counter(connection.scalars(text("SELECT state::text FROM jobs.jobs"))))


def take_messages(redis_url: str, queue: str = "default") -> None:
    """Take all messages away, as workers do."""
    client = Redis.from_url(redis_url)
    client.delete(queue)
    client.close()


def listening(superuser_engine: Engine) -> bool:
    """Whether a relay listens, and does nothing else just now: one that has only connected would miss what is told."""
    with superuser_engine.connect() as connection:
        return bool(
            connection.scalar(
                text(
                    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                    " AND application_name = 'kitaab-jobs relay' AND state = 'idle' AND query LIKE 'LISTEN%'"
                )
            )
        )

"""The relay: every ready row becomes a message, once, whatever server goes away; and the rescue."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from celery import Celery
from kombu.exceptions import OperationalError
from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy import Engine, text
from structlog.testing import capture_logs

from kitaab_jobs import contract
from kitaab_jobs.client import enqueue
from kitaab_jobs.contract import QUEUES
from kitaab_jobs.db.engines import libpq_url
from kitaab_jobs.devstack.redis import EmbeddedRedis
from kitaab_jobs.runtime import ledger
from kitaab_jobs.runtime import relay as relay_module
from kitaab_jobs.runtime.relay import Relay
from tests.devstack.observe import wait_for
from tests.runtime import rows
from tests.runtime.conftest import celery_on, closing

MakeRelay = Callable[..., Relay]


@pytest.fixture
def app(redis_url: str) -> Iterator[Celery]:
    """A Celery app on an empty Redis database."""
    with closing(celery_on(redis_url)) as app:
        yield app


@pytest.fixture
def make_relay(app: Celery, worker_engine: Engine) -> MakeRelay:
    """Make a relay as a beat does, in the role that it has."""

    def make(app: Celery = app, **options: Any) -> Relay:
        url = libpq_url(worker_engine.url.render_as_string(hide_password=False))
        return Relay(app, worker_engine, url, "relay@here/1", **options)

    return make


@contextmanager
def running(relay: Relay) -> Iterator[threading.Thread]:
    """Run the relay's loop in a thread."""
    thread = threading.Thread(target=relay.run)
    thread.start()
    try:
        yield thread
    finally:
        relay.stop()
        thread.join(timeout=20)
        assert not thread.is_alive()


def messages(redis_url: str) -> list[dict[str, Any]]:
    """Return what waits in all queues, in the order in which it would be taken."""
    client = Redis.from_url(redis_url)
    try:
        return [json.loads(raw) for queue in QUEUES for raw in reversed(client.lrange(queue, 0, -1))]
    finally:
        client.close()


def ids(redis_url: str) -> list[UUID]:
    return [UUID(message["headers"]["id"]) for message in messages(redis_url)]


def add_ready(engine: Engine, count: int) -> list[UUID]:
    with engine.begin() as connection:
        return [enqueue(connection, contract.PROGRESS_REFRESH, {"limit": n + 1}) for n in range(count)]


def states(engine: Engine) -> dict[str, int]:
    with engine.connect() as connection:
        return dict(Counter(connection.scalars(text("SELECT state::text FROM jobs.jobs"))))


class TestPublish:
    def test_the_message_is_the_row(self, effects: Engine, make_relay: MakeRelay, redis_url: str) -> None:
        with effects.begin() as connection:
            id = enqueue(connection, "reminders.deliver", {"zone": "UTC", "delivery_ids": [1]})
        assert make_relay().publish() is False
        (message,) = messages(redis_url)
        assert (message["headers"]["id"], message["headers"]["task"]) == (str(id), "reminders.deliver")
        assert message["properties"]["delivery_info"]["routing_key"] == "reminders"
        assert message["headers"]["kwargsrepr"] == "{'zone': 'UTC', 'delivery_ids': [1]}"
        assert states(effects) == {"published": 1}

    def test_batches(
        self, effects: Engine, make_relay: MakeRelay, redis_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(relay_module, "BATCH", 3)
        made = add_ready(effects, 7)
        relay = make_relay()
        assert [relay.publish() for _ in range(4)] == [True, True, False, False]
        assert sorted(ids(redis_url)) == sorted(made)

    def test_what_matters_most_is_sent_first(
        self, effects: Engine, make_relay: MakeRelay, redis_url: str
    ) -> None:
        with effects.begin() as connection:
            made = {n: enqueue(connection, "progress.refresh", priority=n) for n in (1, 3, 2)}
        make_relay().publish()
        assert ids(redis_url) == [made[3], made[2], made[1]]

    def test_a_later_time_waits(self, effects: Engine, make_relay: MakeRelay, redis_url: str) -> None:
        with effects.begin() as connection:
            rows.add(connection, "scheduled", due=-60)
        make_relay().publish()
        assert ids(redis_url) == []

    def test_two_at_once_publish_each_row_once(
        self, effects: Engine, make_relay: MakeRelay, redis_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(relay_module, "BATCH", 10)
        made = add_ready(effects, 200)
        barrier = threading.Barrier(2)

        def drain(relay: Relay) -> None:
            barrier.wait()
            while relay.publish():
                pass

        threads = [threading.Thread(target=drain, args=(make_relay(),)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert Counter(ids(redis_url)) == Counter(made)

    def test_one_that_hangs_holds_up_no_other(
        self, effects: Engine, make_relay: MakeRelay, redis_url: str
    ) -> None:
        first, *others = add_ready(effects, 3)
        with effects.begin() as hanging:
            hanging.execute(text("SELECT FROM jobs.jobs WHERE id = :id FOR UPDATE"), {"id": first})
            with capture_logs() as logs, running(make_relay(poll_seconds=0.1)):
                wait_for(lambda: len(ids(redis_url)) == 2, seconds=4)  # its lock_timeout would be five
        assert sorted(ids(redis_url)) == sorted(others)
        assert logs == []

    def test_a_batch_that_another_has_taken_is_passed_over(self, effects: Engine) -> None:
        made = add_ready(effects, 5)
        with effects.connect() as one, effects.connect() as other:
            other.execute(text("SET lock_timeout = '1s'"))
            taken = {row.id for row in ledger.take_ready(one, 3)}
            assert {row.id for row in ledger.take_ready(other, 3)} == set(made) - taken


class TestFailedPublish:
    def test_rows_stay_ready_and_doubles_are_harmless(
        self,
        effects: Engine,
        app: Celery,
        make_relay: MakeRelay,
        redis_url: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        made = add_ready(effects, 5)
        break_after(2, app, monkeypatch)
        relay = make_relay()
        with pytest.raises(OperationalError):
            relay.publish()
        assert states(effects) == {"ready": 5}
        assert len(ids(redis_url)) == 2
        monkeypatch.undo()
        relay.publish()
        counted = Counter(ids(redis_url))
        assert sorted(counted) == sorted(made)
        assert sorted(counted.values()) == [1, 1, 1, 2, 2]
        with effects.begin() as connection:
            claims = [ledger.claim(connection, id, "w") for id in ids(redis_url)]
        assert sum(claim is not None for claim in claims) == 5

    def test_an_unforeseen_error_is_no_end(
        self,
        effects: Engine,
        app: Celery,
        make_relay: MakeRelay,
        redis_url: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        add_ready(effects, 1)
        break_after(0, app, monkeypatch, ZeroDivisionError())
        with capture_logs() as logs, running(make_relay(poll_seconds=0.1)):
            wait_for(lambda: logs)
            monkeypatch.undo()
            wait_for(lambda: len(ids(redis_url)) == 1)
        assert (logs[0]["action"], logs[0]["exc_info"]) == ("relay_waits", True)

    def test_a_queue_that_nobody_knows_holds_up_nothing(
        self, effects: Engine, make_relay: MakeRelay, redis_url: str
    ) -> None:
        with effects.begin() as connection:
            odd = connection.scalar(
                text("SELECT jobs.enqueue('progress.refresh', queue => 'lnog', priority => 9)")
            )
        (good,) = add_ready(effects, 1)
        relay = make_relay()
        with capture_logs() as logs:
            relay.publish()
            relay.publish()
        assert ids(redis_url) == [good]
        assert [line["action"] for line in logs] == ["job_waits"]
        assert odd is not None
        with effects.connect() as connection:
            row = rows.get(connection, odd)
        assert (row.state, row.attempt) == ("scheduled", 0)
        assert row.error == "no queue is called 'lnog': the queues are default, reminders, long"


def break_after(
    count: int, app: Celery, monkeypatch: pytest.MonkeyPatch, error: Exception | None = None
) -> None:
    """Make the publishing of the message after the next `count` fail, as a broker that goes away does."""
    send = app.send_task
    sent = 0

    def flaky(*args: Any, **options: Any) -> Any:
        nonlocal sent
        sent += 1
        if sent > count:
            raise error or OperationalError("Connection reset by peer")
        return send(*args, **options)

    monkeypatch.setattr(app, "send_task", flaky)


class TestRedisAway:
    def test_and_back(
        self,
        effects: Engine,
        make_relay: MakeRelay,
        own_redis: EmbeddedRedis,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(relay_module, "LONGEST_PAUSE_SECONDS", 0.2)
        url = own_redis.url(0)
        with closing(celery_on(url)) as app, capture_logs() as logs:
            with running(make_relay(app, poll_seconds=0.1)):
                before = add_ready(effects, 2)
                wait_for(lambda: len(ids(url)) == 2)
                own_redis.stop()
                meanwhile = add_ready(effects, 3)
                wait_for(lambda: len(logs) >= 2)
                assert states(effects) == {"published": 2, "ready": 3}
                own_redis.start()
                wait_for(lambda: states(effects) == {"published": 5})
            assert set(before + meanwhile) == set(ids(url))
        assert {line["action"] for line in logs} == {"relay_waits"}
        assert not any(line["exc_info"] for line in logs)

    def test_at_the_start(
        self,
        effects: Engine,
        make_relay: MakeRelay,
        own_redis: EmbeddedRedis,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(relay_module, "LONGEST_PAUSE_SECONDS", 0.2)
        with (
            stopped(own_redis) as start,
            closing(celery_on(own_redis.url(1))) as app,
            capture_logs() as logs,
            running(make_relay(app, poll_seconds=0.1)),
        ):
            add_ready(effects, 1)
            wait_for(lambda: logs)
            start()
            wait_for(lambda: states(effects) == {"published": 1})

    def test_lost_workers_are_still_rescued(
        self, effects: Engine, make_relay: MakeRelay, own_redis: EmbeddedRedis
    ) -> None:
        with effects.begin() as connection:
            lost = rows.add(connection, "running", age=60)
            rows.add(connection, "published", age=60)
        with (
            stopped(own_redis),
            closing(celery_on(own_redis.url(2))) as app,
            pytest.raises((OperationalError, RedisError)),
        ):
            make_relay(app).rescue()
        with effects.connect() as connection:
            assert rows.state(connection, lost) == "ready"


@contextmanager
def stopped(server: EmbeddedRedis) -> Iterator[Callable[[], None]]:
    """Stop the server, and start it at the end, or when what this yields is called."""
    server.stop()
    stack = ExitStack()
    stack.callback(server.start)
    with stack:
        yield stack.close


class TestWakeUp:
    def test_notify_is_faster_than_the_poll(
        self, effects: Engine, superuser_engine: Engine, make_relay: MakeRelay, redis_url: str
    ) -> None:
        poll = 8.0
        relay = make_relay(poll_seconds=poll)
        with running(relay):
            wait_for(lambda: listening(superuser_engine))
            started = time.monotonic()
            add_ready(effects, 1)
            wait_for(lambda: ids(redis_url))
            assert time.monotonic() - started < poll / 2
            relay.stop()
            add_ready(effects, 1)  # which wakes it, so that it sees that it is to stop

    def test_without_a_notification_the_poll_finds_it(
        self, effects: Engine, superuser_engine: Engine, make_relay: MakeRelay, redis_url: str
    ) -> None:
        with running(make_relay(poll_seconds=0.2)):
            wait_for(lambda: listening(superuser_engine))
            with effects.begin() as connection:
                connection.execute(text("ALTER TABLE jobs.jobs DISABLE TRIGGER jobs_announce"))
                enqueue(connection, "progress.refresh")
                connection.execute(text("ALTER TABLE jobs.jobs ENABLE TRIGGER jobs_announce"))
            wait_for(lambda: ids(redis_url))

    def test_rolled_back_is_never_sent(self, effects: Engine, make_relay: MakeRelay, redis_url: str) -> None:
        with running(make_relay(poll_seconds=0.1)):
            with effects.connect() as connection:
                enqueue(connection, "progress.refresh")
                time.sleep(0.3)
                connection.rollback()
            last = add_ready(effects, 1)
            wait_for(lambda: ids(redis_url))
        assert ids(redis_url) == last


def test_connections_that_are_cut_are_made_anew(
    effects: Engine, superuser_engine: Engine, make_relay: MakeRelay, redis_url: str
) -> None:
    with capture_logs() as logs, running(make_relay(poll_seconds=0.2)):
        for round in range(1, 4):
            wait_for(lambda: listening(superuser_engine))
            with superuser_engine.begin() as connection:
                connection.execute(
                    text(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                        " WHERE usename = 'kitaab_worker' AND datname = current_database()"
                    )
                )
            add_ready(effects, 1)
            wait_for(partial(has, redis_url, round))
    assert {line["action"] for line in logs} == {"relay_waits"}
    assert len(set(ids(redis_url))) == 3


def has(redis_url: str, count: int) -> bool:
    return len(ids(redis_url)) == count


def listening(superuser_engine: Engine) -> bool:
    """Whether a relay listens, and does nothing else just now."""
    with superuser_engine.connect() as connection:
        return bool(
            connection.scalar(
                text(
                    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                    " AND application_name = 'kitaab-jobs relay' AND state = 'idle'"
                )
            )
        )


class TestRescue:
    def test_a_wiped_queue_is_published_again(
        self, effects: Engine, make_relay: MakeRelay, redis_url: str
    ) -> None:
        made = add_ready(effects, 3)
        relay = make_relay(patience=ledger.Patience(published=0))
        relay.publish()
        client = Redis.from_url(redis_url)
        client.flushdb()
        client.close()
        assert relay.rescue() == 3
        relay.publish()
        assert sorted(ids(redis_url)) == sorted(made)
        with effects.connect() as connection:
            assert {rows.get(connection, id).attempt for id in made} == {0}

    def test_a_queue_in_which_messages_wait_is_left(self, effects: Engine, make_relay: MakeRelay) -> None:
        add_ready(effects, 3)
        relay = make_relay(patience=ledger.Patience(published=0))
        relay.publish()
        assert relay.rescue() == 0
        assert states(effects) == {"published": 3}

    def test_the_loop_rescues(self, effects: Engine, make_relay: MakeRelay, redis_url: str) -> None:
        with effects.begin() as connection:
            lost = rows.add(connection, "running", age=60)
            forgotten = rows.add(connection, "published", age=60)
            poison = rows.add(connection, "running", age=60, attempt=5)
        with capture_logs() as logs, running(make_relay(poll_seconds=0.1)):
            wait_for(lambda: len(ids(redis_url)) == 2)
        assert set(ids(redis_url)) == {lost, forgotten}
        with effects.connect() as connection:
            assert rows.state(connection, poison) == "dead"
        assert [line["action"] for line in logs] == ["job_rescued"] * 3

    def test_says_that_it_is_alive(self, effects: Engine, make_relay: MakeRelay) -> None:
        with running(make_relay(poll_seconds=0.1)):
            wait_for(lambda: processes(effects) == [("relay@here/1", "relay")])


def processes(engine: Engine) -> list[tuple[str, str]]:
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text("SELECT name, kind FROM jobs.processes"))]


def test_stops_when_told(make_relay: MakeRelay) -> None:
    relay = make_relay()
    with running(relay) as thread:
        started = time.monotonic()
        relay.stop()
        thread.join(timeout=10)
        assert time.monotonic() - started < 5

"""The relay when a server goes away, and the rescue of what was lost with it or with a worker."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

import pytest
from kombu.exceptions import OperationalError
from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy import Engine, text
from structlog.testing import capture_logs

from kitaab_jobs.devstack.redis import EmbeddedRedis
from kitaab_jobs.runtime import ledger, outbox
from kitaab_jobs.runtime import relay as relay_module
from tests.devstack.observe import wait_for
from tests.runtime import rows
from tests.runtime.conftest import celery_on, closing
from tests.runtime.relaying import MakeRelay, add_ready, ids, listening, running, states


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
        with stopped(own_redis), closing(celery_on(own_redis.url(2))) as app:
            relay = make_relay(app)
            for _ in range(2):
                with pytest.raises((OperationalError, RedisError)):
                    relay.rescue()
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
    return len(set(ids(redis_url))) >= count


class TestRescue:
    def test_a_job_is_silent_at_two_looks_before_it_is_taken_for_lost(
        self, effects: Engine, make_relay: MakeRelay
    ) -> None:
        """Somebody held its row, or the server stood still: then the first look is sooner than the next beat."""
        with effects.begin() as connection:
            alive, lost = (rows.add(connection, "running", age=60) for _ in range(2))
        relay = make_relay()
        assert relay.rescue() == 0
        with effects.begin() as connection:
            ledger.beat(connection, [ledger.Pulse(rows.claim_of(connection, alive))])
        assert relay.rescue() == 1
        assert relay.rescue() == 0
        with effects.connect() as connection:
            assert (rows.state(connection, alive), rows.state(connection, lost)) == ("running", "ready")

    def test_a_wiped_queue_is_published_again(
        self, effects: Engine, make_relay: MakeRelay, redis_url: str
    ) -> None:
        made = add_ready(effects, 3)
        relay = make_relay(patience=outbox.Patience(published=0))
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
        relay = make_relay(patience=outbox.Patience(published=0))
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

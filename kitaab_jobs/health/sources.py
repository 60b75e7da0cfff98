"""What the checks look at: this machine, a connection to PostgreSQL, a client of Redis."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from urllib.parse import urlsplit

import redis.exceptions
from redis import Redis
from sqlalchemy import Connection, create_engine
from sqlalchemy.pool import NullPool

from kitaab_jobs.db.engines import connect_args, sqlalchemy_url
from kitaab_jobs.health import redis as broker
from kitaab_jobs.health.addresses import is_local, reason, shown
from kitaab_jobs.health.facts import Partition, Process, RedisDoor, RedisServer, Wire
from kitaab_jobs.health.probes import NotRun
from kitaab_jobs.health.queries import schema, server
from kitaab_jobs.health.rules import postgres as postgres_rules
from kitaab_jobs.settings import Settings

# In seconds. Together they stay below the deadline of a probe, so that a server that hangs is told apart
# from one that is slow.
CONNECT_SECONDS = 5
STATEMENT_SECONDS = 5
LOCK_SECONDS = 1

Clock = Callable[[], dt.datetime]


def clock_from(now: dt.datetime) -> Clock:
    """Return a clock that shows `now` at this moment, and goes on from there."""
    started = time.monotonic()
    return lambda: now + dt.timedelta(seconds=time.monotonic() - started)


def difference(ask: Callable[[], dt.datetime], clock: Clock) -> tuple[float, float]:
    """Return how many seconds another clock is ahead, and the uncertainty: the best of three answers."""
    answers = []
    for _ in range(3):
        before, there, after = clock(), ask(), clock()
        half = (after - before) / 2
        answers.append((half.total_seconds(), (there - before - half).total_seconds()))
    uncertainty, seconds = min(answers)
    return seconds, uncertainty


@dataclass(frozen=True)
class Machine:
    """This machine, and its environment variables."""

    environ: Mapping[str, str]
    now: dt.datetime


@dataclass(frozen=True)
class Database:
    """A connection to one of the PostgreSQL addresses. What several checks need is asked once."""

    connection: Connection
    settings: Settings
    url: str
    clock: Clock

    @property
    def now(self) -> dt.datetime:
        """What time it is here."""
        return self.clock()

    @cached_property
    def values(self) -> dict[str, str]:
        """The server's settings in our session."""
        return server.settings(self.connection, [wanted.name for wanted in postgres_rules.SETTINGS])

    @cached_property
    def migrated(self) -> bool:
        """Whether our tables are there."""
        return schema.migrated(self.connection)

    @cached_property
    def partitions(self) -> list[Partition]:
        """The partitions of all partitioned tables."""
        return schema.partitions(self.connection)

    @cached_property
    def processes(self) -> list[Process]:
        """The platform's processes."""
        return schema.processes(self.connection)

    @property
    def told_backend(self) -> int:
        """The process id that the server, or a pooler, told at the start."""
        return int(self.connection.connection.dbapi_connection.info.backend_pid)  # type: ignore[union-attr]

    @property
    def wire(self) -> Wire:
        """How the connection travels."""
        driver = self.connection.connection.dbapi_connection
        assert driver is not None
        return Wire(shown(self.url), is_local(driver.info.host), bool(driver.pgconn.ssl_in_use))

    @contextmanager
    def main(self) -> Iterator[Database]:
        """Yield another connection, to KITAAB_DATABASE_URL; raise `NotRun` where it cannot be had."""
        url = self.settings.database
        opened = database(self.settings, url, self.clock)
        try:
            other = opened.__enter__()
        except Exception as error:
            raise NotRun(f"KITAAB_DATABASE_URL cannot be used: {reason(error, url)}") from None
        try:
            yield other
        finally:
            opened.__exit__(None, None, None)


@contextmanager
def database(settings: Settings, url: str, clock: Clock) -> Iterator[Database]:
    """Connect as the platform does, but for shorter waits, and without transactions."""
    limited = settings.model_copy(
        update={
            "connect_timeout": min(settings.connect_timeout, CONNECT_SECONDS),
            "statement_timeout": STATEMENT_SECONDS,
            "lock_timeout": LOCK_SECONDS,
        }
    )
    engine = create_engine(
        sqlalchemy_url(url),
        poolclass=NullPool,
        isolation_level="AUTOCOMMIT",
        connect_args=connect_args(limited, name="kitaab-jobs doctor"),
    )
    with engine.connect() as connection:
        yield Database(connection, settings, url, clock)


@dataclass(frozen=True)
class Broker:
    """A client of the Redis server."""

    client: Redis
    url: str
    clock: Clock

    @cached_property
    def server(self) -> RedisServer:
        """What INFO tells."""
        return broker.server(self.client)

    @cached_property
    def door(self) -> RedisDoor:
        """Who gets in."""
        return broker.door(self.client, local=self.wire.local)

    @property
    def wire(self) -> Wire:
        """How the connection travels."""
        parts = urlsplit(self.url)
        host = parts.hostname if parts.scheme.startswith("redis") and "socket" not in parts.scheme else None
        return Wire(shown(self.url), is_local(host), parts.scheme == "rediss")


@contextmanager
def redis_server(url: str, clock: Clock) -> Iterator[Broker]:
    """Connect to Redis."""
    with broker.connected(url, CONNECT_SECONDS) as client:
        yield Broker(client, url, clock)


def is_redis_loss(error: Exception) -> bool:
    """Tell whether the connection to Redis broke, or it did not answer in time."""
    return isinstance(error, redis.exceptions.ConnectionError | redis.exceptions.TimeoutError)

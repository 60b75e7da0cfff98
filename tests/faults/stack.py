"""A platform of a test's own: PostgreSQL, Redis, workers and beats, of which anything may be killed."""

from __future__ import annotations

import datetime as dt
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from unittest import mock

import psutil
from redis import Redis
from sqlalchemy import ARRAY, DateTime, Engine, Uuid, bindparam, text

from kitaab_jobs.contract import JOBS, QUEUES
from kitaab_jobs.db import migrate
from kitaab_jobs.db.engines import libpq_url
from kitaab_jobs.devstack.postgres import DATABASE, EmbeddedPostgres
from kitaab_jobs.devstack.redis import EmbeddedRedis
from tests.conftest import engine_for
from tests.devstack.folders import make_folder
from tests.devstack.observe import wait_for
from tests.faults import answers
from tests.faults.answers import Problem
from tests.faults.kinds import KINDS
from tests.faults.load import Orders
from tests.faults.timing import ENDS_WITHIN
from tests.runtime.processes import Celery, Process, celery

APP = "tests.faults.app"
STARTS_WITHIN = 40.0

_TABLES = """
    CREATE TABLE jobs.orders (key bigint PRIMARY KEY);
    CREATE TABLE jobs.effects (
        id bigint GENERATED ALWAYS AS IDENTITY, key bigint NOT NULL, answer bigint NOT NULL, kind text NOT NULL,
        job uuid NOT NULL, attempt integer NOT NULL, worker integer NOT NULL,
        at timestamptz NOT NULL DEFAULT clock_timestamp()
    );
    GRANT INSERT ON jobs.effects TO kitaab_worker;
    GRANT SELECT, INSERT ON jobs.orders TO kitaab_app
"""

_RUNNING = text("SELECT id, started_at, worker FROM jobs.jobs WHERE state = 'running' ORDER BY id")
_ENDED_OR_STARTED = text(
    """
    SELECT j.id FROM jobs.jobs AS j JOIN unnest(:ids, :starts) AS held (id, started_at) USING (id)
    WHERE j.finished_at IS NOT NULL OR j.state = 'running' AND j.started_at > held.started_at
    """
).bindparams(bindparam("ids", type_=ARRAY(Uuid)), bindparam("starts", type_=ARRAY(DateTime(timezone=True))))
_FINISHED = text(
    "SELECT extract(epoch FROM finished_at) FROM jobs.jobs WHERE finished_at IS NOT NULL ORDER BY 1"
)


class Stack:
    """What a test holds in its hands."""

    def __init__(
        self,
        commands: Celery,
        owner: Engine,
        caller_url: str,
        redis: EmbeddedRedis,
        postgres: EmbeddedPostgres | None,
        without: str,
    ) -> None:
        self.commands = commands
        self.owner = owner
        self.caller_url = caller_url
        self.redis = redis
        self._postgres = postgres
        self._without = without

    @property
    def postgres(self) -> EmbeddedPostgres:
        """The PostgreSQL that is this test's alone."""
        assert self._postgres is not None, "this stack is on the PostgreSQL of all tests"
        return self._postgres

    def worker(self, name: str = "w", **env: str) -> Process:
        """Start a worker of two processes."""
        options = ("--without-mingle", "--without-gossip", "--hostname", f"{name}@%h")
        return self.commands.start("worker", *options, **self._env(env))

    def beat(self, **env: str) -> Process:
        """Start a beat, with its relay."""
        return self.commands.start("beat", **self._env(env))

    def ready(self, worker: Process) -> Process:
        """Return the worker when it takes messages."""
        wait_for(lambda: " ready." in worker.output, seconds=STARTS_WITHIN)
        return worker

    def _env(self, env: dict[str, str]) -> dict[str, str]:
        given = {f"KITAAB_TEST_{name.upper()}": value for name, value in env.items()}
        return {"KITAAB_TEST_WITHOUT": self._without} | given

    def query(self, sql: str, **values: Any) -> list[Any]:
        """Return the rows of a query."""
        with self.owner.begin() as connection:
            return list(connection.execute(text(sql), values))

    def scalar(self, sql: str, **values: Any) -> Any:
        """Return the value of a query."""
        with self.owner.begin() as connection:
            return connection.scalar(text(sql), values)

    def running(self) -> list[Any]:
        """Return id, started_at and worker of each job that runs."""
        with self.owner.connect() as connection:
            return list(connection.execute(_RUNNING))

    def wait_until_running(self, key: int) -> int:
        """Wait until the job of that key runs, and return its process."""
        sql = "SELECT worker FROM jobs.jobs WHERE args ->> 'key' = :key AND state = 'running'"
        return pid_of(wait_for(lambda: self.scalar(sql, key=str(key)), seconds=STARTS_WITHIN))

    def started_again(self, held: list[Any]) -> bool:
        """Whether each of these rows of `running` has started anew, or has ended."""
        values = {"ids": [row.id for row in held], "starts": [row.started_at for row in held]}
        with self.owner.connect() as connection:
            return len(connection.execute(_ENDED_OR_STARTED, values).all()) == len(held)

    def problems(
        self, accepted: Orders, dead: frozenset[int] = frozenset(), *, within: float = ENDS_WITHIN
    ) -> list[Problem]:
        """Wait until every job has ended, at most so long, and return what is wrong with the answers."""
        with suppress(AssertionError):
            wait_for(lambda: not self.open_jobs(), seconds=within)
        with self.owner.connect() as connection:
            return answers.problems(connection, accepted, dead)

    def open_jobs(self) -> int:
        """Return how many jobs have not ended."""
        with self.owner.connect() as connection:
            return answers.open_jobs(connection)

    def finished(self) -> list[float]:
        """Return the instants at which jobs have ended, in seconds since 1970."""
        with self.owner.connect() as connection:
            return [float(at) for at in connection.scalars(_FINISHED)]

    def waiting_messages(self) -> int:
        """Return how many messages nobody has taken."""
        with Redis.from_url(self.redis.url(0)) as client:
            return sum(int(str(client.llen(queue))) for queue in QUEUES)

    def unacknowledged_messages(self) -> int:
        """Return how many messages a worker has taken and is not done with."""
        with Redis.from_url(self.redis.url(0)) as client:
            return int(str(client.hlen("unacked")))

    def open_transactions(self) -> int:
        """Return in how many transactions there is an answer that is not yet committed."""
        found = self.scalar(
            "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE datname = current_database()"
            " AND relation = 'jobs.effects'::regclass AND mode = 'RowExclusiveLock'"
        )
        return int(found)

    def flush_redis(self) -> None:
        """Empty it, as somebody's FLUSHALL does."""
        client = Redis.from_url(self.redis.url(0))
        client.flushall()
        client.close()

    def lose_redis(self) -> None:
        """Kill it with -9 and start it with nothing on its disk."""
        self.redis.stop(immediate=True)
        for left in self.redis.data.iterdir():
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        port = self.redis.port
        self.redis.start()
        assert self.redis.port == port

    def freeze_redis(self, seconds: float) -> None:
        """Stop it with SIGSTOP for so long: connections stay open, and nobody answers."""
        pid = self.redis.pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        try:
            time.sleep(seconds)
        finally:
            os.kill(pid, signal.SIGCONT)

    def end(self) -> None:
        """Kill every process that was started here, and what it has forked, even one that is stopped."""
        for process in self.commands.started:
            with suppress(psutil.NoSuchProcess):
                for child in process.children:
                    os.kill(child, signal.SIGKILL)
            process.kill()


def pid_of(worker: str) -> int:
    """Return the process id in the name of a worker, as the ledger has it."""
    return int(worker.rpartition("/")[2])


def say(line: str) -> None:
    """Print a line: `make soak` shows it at once, and a test that fails shows it then."""
    sys.stdout.write(f"{dt.datetime.now(dt.UTC):%H:%M:%S}  {line}\n")
    sys.stdout.flush()


def rate(finished: list[float], since: float, until: float) -> float:
    """Return how many jobs ended in a second between two instants."""
    return sum(since <= at < until for at in finished) / max(until - since, 0.001)


def seconds_until_back(finished: list[float], usual: float, since: float) -> float | None:
    """Return how long after `since` the next second brought 95 % of the usual rate; None: it never did."""
    for step in range(3000):
        start = since + step / 10
        if rate(finished, start, start + 1) >= 0.95 * usual:
            return round(start - since, 1)
    return None


@contextmanager
def stack(
    *,
    postgres: EmbeddedPostgres | None = None,
    cloned: Callable[[], str] | None = None,
    url_for: Callable[[str, str], str] | None = None,
    without: str = "",
) -> Iterator[Stack]:
    """Give a platform without processes, on a new PostgreSQL or on a new database of the run's one."""
    folder = make_folder()
    redis = EmbeddedRedis(folder / "redis")
    redis.start()
    try:
        if postgres is not None:
            name, url_for = DATABASE, postgres.url
        else:
            assert cloned is not None
            name = cloned()
        assert url_for is not None
        owner = engine_for(url_for("kitaab_admin", name))
        with owner.begin() as connection:
            connection.exec_driver_sql(_TABLES)
            with mock.patch.dict(JOBS, KINDS):
                migrate.sync_kinds(connection)
        worker_url = url_for("kitaab_worker", name)
        with celery(folder, worker_url, redis.url(0), APP) as commands:
            made = Stack(commands, owner, libpq_url(url_for("kitaab_app", name)), redis, postgres, without)
            try:
                yield made
            finally:
                made.end()
                owner.dispose()
    finally:
        redis.stop(immediate=True)
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def durable_postgres() -> Iterator[EmbeddedPostgres]:
    """Give a PostgreSQL that loses nothing when it is killed, with the platform's schema."""
    folder: Path = make_folder()
    server = EmbeddedPostgres(folder / "postgres", durable=True)
    try:
        server.start()
        server.provision()
        migrate.upgrade(server.url("kitaab_admin", DATABASE))
        yield server
    finally:
        server.stop(immediate=True)
        shutil.rmtree(folder, ignore_errors=True)

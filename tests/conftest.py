"""One PostgreSQL cluster and one Redis for a test run, and a database of its own for whoever writes.

The servers are the embedded ones, real and started once, by the process that started the run. A test
takes the cheapest fixture that will do:

- `connection`: a transaction on this worker's database, rolled back at the end (about a millisecond);
- `database`: a database cloned from the migrated template, for a test that commits (about 50 ms);
- `redis_url`: an empty Redis database.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.pool import NullPool

from kitaab_jobs.db import migrate
from kitaab_jobs.db.engines import sqlalchemy_url
from kitaab_jobs.devstack.postgres import ROLES, EmbeddedPostgres
from kitaab_jobs.devstack.redis import EmbeddedRedis

TEMPLATE = "kitaab_template"
SERVERS = pytest.StashKey["Servers"]()
ADDRESSES = pytest.StashKey[dict[str, str]]()


class Servers:
    """The servers of a run."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="kitaab-tests-"))
        self.folder.chmod(0o755)
        self.postgres = EmbeddedPostgres(self.folder / "postgres", durable=False)
        self.redis = EmbeddedRedis(self.folder / "redis")

    def start(self) -> dict[str, str]:
        """Start both, migrate the template, and return the addresses."""
        self.postgres.start()
        self.redis.start()
        self.postgres.provision(TEMPLATE)
        migrate.upgrade(self.postgres.url("kitaab_admin", TEMPLATE))
        roles = {role: self.postgres.url(role, "{database}") for role in (*ROLES, "postgres")}
        return {**roles, "redis": self.redis.url(0)}

    def stop(self) -> None:
        """Stop both and remove their data."""
        self.redis.stop()
        self.postgres.stop(immediate=True)
        shutil.rmtree(self.folder, ignore_errors=True)


def pytest_configure(config: pytest.Config) -> None:
    """Keep the developer's own settings and servers out of the tests."""
    for name in [n for n in os.environ if n.startswith("KITAAB_") and not n.startswith("KITAAB_TEST_")]:
        del os.environ[name]


def pytest_sessionstart(session: pytest.Session) -> None:
    """Start the servers in the process that leads the run; workers are given the addresses."""
    config = session.config
    if hasattr(config, "workerinput"):
        config.stash[ADDRESSES] = json.loads(config.workerinput["addresses"])
    elif not config.option.collectonly:
        servers = Servers()
        config.stash[SERVERS] = servers
        config.stash[ADDRESSES] = servers.start()


def pytest_configure_node(node: Any) -> None:
    """Hand the addresses to an xdist worker."""
    node.workerinput["addresses"] = json.dumps(node.config.stash[ADDRESSES])


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop what was started here, however the run ended."""
    if (servers := config.stash.get(SERVERS, None)) is not None:
        servers.stop()


@pytest.fixture(scope="session")
def addresses(pytestconfig: pytest.Config) -> dict[str, str]:
    """The addresses of the run's servers by role; `{database}` stands for a name."""
    return pytestconfig.stash[ADDRESSES]


@pytest.fixture(scope="session")
def url_for(addresses: dict[str, str]) -> Callable[[str, str], str]:
    """Return the address of a database for a role: `url_for("kitaab_worker", name)`."""
    return lambda role, database: addresses[role].replace("{database}", database)


def in_transaction(engine: Engine, work: Callable[[Connection], Any]) -> Callable[[], Any]:
    """Return what does that in a transaction of its own, in which nobody is waited for very long."""

    def done() -> Any:
        with engine.begin() as connection:
            connection.execute(text("SET LOCAL lock_timeout = '20s'"))
            return work(connection)

    return done


def engine_for(url: str) -> Engine:
    """Return an engine without a pool, so that a database can be dropped when its test ends."""
    return create_engine(sqlalchemy_url(url), poolclass=NullPool, connect_args={"options": "-c timezone=UTC"})


def pooled_engine_for(url: str) -> Engine:
    """Return an engine that keeps its connections; dispose of it before the database is dropped."""
    return create_engine(sqlalchemy_url(url), connect_args={"options": "-c timezone=UTC"})


@pytest.fixture(scope="session")
def _cloned(url_for: Callable[[str, str], str], worker_id: str) -> Iterator[Callable[[], str]]:
    """Return a function that clones the template and gives the new database's name."""
    server = create_engine(
        sqlalchemy_url(url_for("postgres", "postgres")), isolation_level="AUTOCOMMIT", poolclass=NullPool
    )
    count = itertools.count()

    def clone() -> str:
        name = f"test_{worker_id}_{next(count)}"
        with server.connect() as connection:
            # The default strategy, WAL_LOG: FILE_COPY needs two checkpoints, and takes three times as long.
            connection.execute(text(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE} OWNER kitaab_admin"))
        return name

    yield clone
    server.dispose()  # the databases go with the cluster


@pytest.fixture
def database_factory(
    _cloned: Callable[[], str], url_for: Callable[[str, str], str]
) -> Iterator[Callable[[], Engine]]:
    """Return a function that gives engines, as the owner, on fresh migrated databases."""
    engines: list[Engine] = []

    def make() -> Engine:
        engines.append(engine_for(url_for("kitaab_admin", _cloned())))
        return engines[-1]

    yield make
    for engine in engines:
        engine.dispose()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    """Threads for two sessions that are at work at once."""
    with ThreadPoolExecutor(2) as pool:
        yield pool


@pytest.fixture
def database(database_factory: Callable[[], Engine]) -> Engine:
    """An engine, as the owner, on a fresh migrated database."""
    return database_factory()


@pytest.fixture
def engine_as(database: Engine, url_for: Callable[[str, str], str]) -> Iterator[Callable[[str], Engine]]:
    """Return a function that gives engines on `database` for another role."""
    engines: list[Engine] = []

    def make(role: str) -> Engine:
        assert database.url.database is not None
        engines.append(engine_for(url_for(role, database.url.database)))
        return engines[-1]

    yield make
    for engine in engines:
        engine.dispose()


@pytest.fixture(scope="session")
def _shared_engine(_cloned: Callable[[], str], url_for: Callable[[str, str], str]) -> Iterator[Engine]:
    engine = pooled_engine_for(url_for("kitaab_admin", _cloned()))
    yield engine
    engine.dispose()


@pytest.fixture
def connection(_shared_engine: Engine) -> Iterator[Connection]:
    """A connection, as the owner, in a transaction that is rolled back."""
    with _shared_engine.connect() as connection:
        transaction = connection.begin()
        yield connection
        transaction.rollback()


@pytest.fixture
def redis_url(addresses: dict[str, str], worker_id: str) -> str:
    """The address of an empty Redis database."""
    number = 1 + int(worker_id.removeprefix("gw")) if worker_id.startswith("gw") else 0
    url = addresses["redis"].removesuffix("/0") + f"/{number}"
    client = Redis.from_url(url)
    client.flushdb()
    client.close()
    return url

"""Ways to examine: one check against one address, or everything at once."""

from __future__ import annotations

import datetime as dt
import os
import shutil
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from redis import Redis
from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.pool import NullPool

from kitaab_jobs.db.engines import sqlalchemy_url
from kitaab_jobs.devstack.redis import EmbeddedRedis
from kitaab_jobs.health import checks, jobs, sources
from kitaab_jobs.health.probes import Check, Probe
from kitaab_jobs.health.probes import run as run_probes
from kitaab_jobs.health.rules import Finding
from kitaab_jobs.health.sources import Machine
from kitaab_jobs.settings import Settings
from tests.devstack.folders import make_folder


@dataclass
class Doctor:
    """The doctor of one database and one Redis. `settings` are those that the next question uses."""

    settings: Settings
    environ: dict[str, str] = field(default_factory=dict)
    now: dt.datetime | None = None

    def set(self, **values: Any) -> None:
        """Change settings."""
        given = self.settings.model_dump(exclude_none=True)
        self.settings = Settings.load({}, **{**given, **values})

    def check(self, name: str) -> Finding:
        """Run one check, as the doctor does, and return what it found."""
        opened, check = next(
            (opened, check) for opened, there in self._tables() for check in there if check.name == name
        )
        probe: Probe[Any] = Probe("it", opened, [check], lost=lambda _: False, reason=str)
        run_probes([probe], 20)
        assert probe.failure is None, probe.failure
        return probe.findings[0]

    def _tables(self) -> Iterator[tuple[Callable[[], Any], Sequence[Check[Any]]]]:
        """Yield how each server is opened, and its checks."""
        given, clock = self.settings, sources.clock_from(self._now)
        machine = Machine(self.environ, self._now)
        yield lambda: nullcontext(machine), [*checks.MACHINE, *checks.configured(given)]
        addresses: list[tuple[SecretStr | None, Sequence[Check[Any]]]] = [
            (given.database_url, checks.database_checks(given)),
            (given.direct_url, checks.DIRECT),
            (given.admin_url, checks.ADMIN),
            (given.replica_url, checks.REPLICA),
        ]
        for secret, there in addresses:
            if secret is not None:
                yield partial(sources.database, given, secret.get_secret_value(), clock), there
        yield lambda: sources.redis_server(given.redis, clock), checks.REDIS

    def examine(self, **options: Any) -> dict[str, Finding]:
        """Run everything."""
        found = jobs.examine(self.settings, now=self._now, environ=self.environ, **options)
        assert len({finding.check for finding in found}) == len(found), "a check has two findings"
        return {finding.check: finding for finding in found}

    @property
    def _now(self) -> dt.datetime:
        return self.now or dt.datetime.now(dt.UTC)


@pytest.fixture
def doctor_of(
    redis_url: str, url_for: Callable[[str, str], str], tmp_path: Path
) -> Callable[[Engine], Doctor]:
    """Return a function that gives the doctor of a database, which jobs enter as kitaab_worker."""

    def made(engine: Engine) -> Doctor:
        name = engine.url.database or ""
        return Doctor(
            Settings.load(
                {},
                data_dir=tmp_path,
                database_url=url_for("kitaab_worker", name),
                admin_url=url_for("kitaab_admin", name),
                redis_url=redis_url,
            )
        )

    return made


@pytest.fixture
def doctor(connection: Connection, doctor_of: Callable[[Engine], Doctor]) -> Doctor:
    """A doctor of a migrated database that all tests share, so it must not be changed."""
    return doctor_of(connection.engine)


@pytest.fixture
def own_doctor(database: Engine, doctor_of: Callable[[Engine], Doctor]) -> Doctor:
    """A doctor of a migrated database that the test may spoil."""
    return doctor_of(database)


@pytest.fixture
def run_sql(database: Engine) -> Callable[..., None]:
    """Return a function that runs statements on that database as the owner, each in its own transaction."""

    def run(*statements: str) -> None:
        with database.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            for statement in statements:
                connection.execute(text(statement))

    return run


@pytest.fixture
def run_as_superuser(url_for: Callable[[str, str], str]) -> Iterator[Callable[..., None]]:
    """Return a function that runs statements as the superuser, in the database that is named first."""
    engines: list[Engine] = []

    def run(name: str | None, *statements: str) -> None:
        engines.append(create_engine(sqlalchemy_url(url_for("postgres", name or "")), poolclass=NullPool))
        with engines[-1].connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            for statement in statements:
                connection.execute(text(statement))

    yield run
    for engine in engines:
        engine.dispose()


@pytest.fixture
def login(
    connection: Connection, run_as_superuser: Callable[..., None], worker_id: str
) -> Iterator[Callable[[str], str]]:
    """Return a function that makes a role with the given rights, and gives its address at the shared database."""
    made: list[str] = []

    def make(rights: str) -> str:
        name = f"doctor_{worker_id}_{len(made)}"
        run_as_superuser(
            "postgres", f"DROP ROLE IF EXISTS {name}", f"CREATE ROLE {name} LOGIN PASSWORD 'pw' {rights}"
        )
        made.append(name)
        url = connection.engine.url.set(username=name, password="pw", drivername="postgresql")
        return url.render_as_string(hide_password=False)

    yield make
    run_as_superuser("postgres", *(f"DROP ROLE {name}" for name in made))


@pytest.fixture(scope="module")
def own_redis() -> Iterator[EmbeddedRedis]:
    """A Redis that a module may spoil."""
    folder = make_folder()
    with EmbeddedRedis(folder / "redis") as server:
        yield server
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def broker(own_redis: EmbeddedRedis, doctor: Doctor) -> Iterator[Redis]:
    """A client of that Redis, to which the doctor is sent; the settings are restored afterwards."""
    client = Redis.from_url(own_redis.url(), decode_responses=True)
    names = ("maxmemory", "maxmemory-policy", "appendonly", "protected-mode")
    before: dict[Any, Any] = {}
    for name in names:
        before |= client.config_get(name)
    doctor.set(redis_url=own_redis.url())
    yield client
    for name, value in before.items():
        client.config_set(name, value)
    client.close()


@contextmanager
def silent_port() -> Iterator[int]:
    """Yield a port that takes connections and never says a word."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(16)
        yield int(listener.getsockname()[1])


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Stop a process, so that it takes connections (the kernel does) and never says a word."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)

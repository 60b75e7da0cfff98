"""What the tests of the runtime share: a table for effects, a Redis of their own, a Celery app on it."""

from __future__ import annotations

import gc
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from celery import Celery
from kombu import pools
from sqlalchemy import Engine, text

from kitaab_jobs.db.engines import libpq_url
from kitaab_jobs.devstack.redis import EmbeddedRedis
from kitaab_jobs.runtime import batch
from kitaab_jobs.runtime.app import configuration
from kitaab_jobs.runtime.relay import Relay
from kitaab_jobs.settings import Settings
from tests.conftest import engine_for
from tests.runtime import rows
from tests.runtime.batches import Add, RunBatch, batch_adder, batch_runner
from tests.runtime.relaying import MakeRelay


@pytest.fixture(scope="module")
def _database_of_module(
    _cloned: Callable[[], str], url_for: Callable[[str, str], str]
) -> Iterator[dict[str, Engine]]:
    """Engines, by role, on one database for all tests of a module: to clone one for each takes longer."""
    name = _cloned()
    engines = {
        role: engine_for(url_for(role, name)) for role in ("kitaab_admin", "kitaab_worker", "postgres")
    }
    with engines["kitaab_admin"].begin() as connection:
        connection.execute(text("CREATE TABLE jobs.effects (id bigserial, job text, note text)"))
        connection.execute(text("GRANT ALL ON jobs.effects, jobs.effects_id_seq TO kitaab_worker"))
    yield engines
    for engine in engines.values():
        engine.dispose()


@pytest.fixture
def effects(_database_of_module: dict[str, Engine]) -> Engine:
    """An engine, as the owner, on an empty ledger beside a table in which jobs leave traces to count."""
    engine = _database_of_module["kitaab_admin"]
    with engine.begin() as connection:
        for table in ("jobs", "fires", "waiting_fires", "schedules", "processes", "effects"):
            connection.execute(text(f"DELETE FROM jobs.{table}"))
        connection.execute(text("DELETE FROM jobs.kinds WHERE name LIKE 'sample.%'"))
    return engine


@pytest.fixture
def worker_engine(effects: Engine, _database_of_module: dict[str, Engine]) -> Engine:
    """An engine on the database of `effects` for the role that workers have."""
    return _database_of_module["kitaab_worker"]


@pytest.fixture
def superuser_engine(effects: Engine, _database_of_module: dict[str, Engine]) -> Engine:
    """An engine on the database of `effects` for who may do everything."""
    return _database_of_module["postgres"]


@pytest.fixture
def add(effects: Engine) -> Callable[..., UUID]:
    """Commit a job in a state."""

    def add(state: str = "published", **given: Any) -> UUID:
        with effects.begin() as connection:
            return rows.add(connection, state, **given)

    return add


@pytest.fixture
def get(effects: Engine) -> Callable[[UUID], Any]:
    """Read a job's row."""

    def get(id: UUID) -> Any:
        with effects.connect() as connection:
            return rows.get(connection, id)

    return get


@pytest.fixture
def run_batch(worker_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> RunBatch:
    """Run jobs from one message, as a worker would, but with time enough for all of them on a slow machine too."""
    monkeypatch.setattr(batch, "BUDGET_SECONDS", 600.0)
    return batch_runner(worker_engine)


@pytest.fixture
def jobs(add: Add) -> Callable[..., dict[str, UUID]]:
    """Add the jobs of a batch, from words."""
    return batch_adder(add)


@pytest.fixture(scope="module")
def own_redis() -> Iterator[EmbeddedRedis]:
    """A Redis that a test may stop and empty, since nobody else is on it."""
    folder = Path(tempfile.mkdtemp(prefix="kitaab-redis-"))
    folder.chmod(0o755)
    server = EmbeddedRedis(folder)
    server.start()
    yield server
    server.stop()
    shutil.rmtree(folder, ignore_errors=True)


def celery_on(redis_url: str) -> Celery:
    """Return a Celery app with the platform's own configuration, on that broker."""
    app = Celery("tests", set_as_current=False)
    app.conf.update(configuration(Settings.load({}, redis_url=redis_url)))
    app.conf.update(task_publish_retry_policy={"max_retries": 0}, broker_connection_timeout=1)
    return app


@contextmanager
def closing(app: Celery) -> Iterator[Celery]:
    """Close the app's connections at the end."""
    try:
        yield app
    finally:
        gc.collect()  # what is left of results says good-bye to their backend
        backend: Any = app.backend
        backend.result_consumer.stop()
        backend.client.connection_pool.disconnect()
        app.close()
        pools.reset()  # they are Kombu's, for all apps of the process


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

"""The platform, for the modules that run it: they import these fixtures, so that no other module pays for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from kitaab_jobs.devstack.redis import EmbeddedRedis
from tests.conftest import engine_for
from tests.devstack.observe import wait_for
from tests.runtime.platform import A_WHILE, Platform, knows
from tests.runtime.processes import celery
from tests.runtime.sample_jobs import WRITE


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("platform")


@pytest.fixture(scope="module")
def database_name(_cloned: Callable[[], str]) -> str:
    return _cloned()


@pytest.fixture(scope="module")
def _platform(
    folder: Path, database_name: str, url_for: Callable[[str, str], str], own_redis: EmbeddedRedis
) -> Iterator[Platform]:
    database = engine_for(url_for("kitaab_admin", database_name))
    with database.begin() as connection:
        connection.execute(text("CREATE TABLE jobs.effects (id bigserial, job text, note text)"))
        connection.execute(text("GRANT ALL ON jobs.effects, jobs.effects_id_seq TO kitaab_worker"))
    worker_url = url_for("kitaab_worker", database_name)
    with celery(folder, worker_url, own_redis.url(0), "tests.runtime.sample_app") as commands:
        # Beat writes the sample jobs into jobs.kinds, which enqueueing asks.
        platform = Platform(commands, database, own_redis)
        _ = platform.beat, platform.worker
        wait_for(lambda: knows(database, WRITE.name), seconds=A_WHILE)
        yield platform
    database.dispose()


@pytest.fixture
def platform(_platform: Platform) -> Platform:
    """The platform, running; what the last test killed is started again."""
    _platform.ready()
    return _platform

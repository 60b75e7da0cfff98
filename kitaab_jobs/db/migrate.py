"""Run the Alembic migrations, from the command line, the embedded stack and the tests alike."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from kitaab_jobs.contract import JOBS, QUEUES
from kitaab_jobs.db import locks
from kitaab_jobs.db.engines import sqlalchemy_url
from kitaab_jobs.db.retries import is_connection_loss, is_contention, sqlstate
from kitaab_jobs.errors import ServerError
from kitaab_jobs.settings import redacted

# A waiting DDL statement holds up every query after it: it gives up soon, and is tried again.
LOCK_TIMEOUT = "5s"
STATEMENT_TIMEOUT = "15min"
ATTEMPTS = 6

OLDEST_SERVER = 15
NEWEST_SERVER = 18

# One migrator at a time: a second one waits here, then finds nothing to do.


def scripts() -> Path:
    """Return the folder of the migrations: beside the package in a checkout, inside it in a wheel."""
    package = Path(__file__).parent.parent
    beside = package.parent / "migrations"
    return beside if (beside / "env.py").exists() else package / "_migrations"


def config() -> Config:
    """Return Alembic's configuration; there is no alembic.ini to keep in step with it."""
    made = Config()
    made.set_main_option("script_location", str(scripts()))
    made.set_main_option("path_separator", "os")
    return made


def head() -> str:
    """Return the newest revision that this version of the package knows."""
    revision = ScriptDirectory.from_config(config()).get_current_head()
    assert revision is not None, "the migrations folder is empty"
    return revision


def current(connection: Connection) -> str | None:
    """Return the revision of the database, or None where it was never migrated."""
    return MigrationContext.configure(connection).get_current_revision()


def upgrade(url: str, revision: str = "head") -> list[str]:
    """Migrate the database at `url` up to `revision` and return the revisions that were applied.

    Safe to repeat and to kill: each migration is one transaction. Raises `ServerError` for a server
    that is out of reach, too old, or migrated by a newer version.
    """
    return _run(url, revision, up=True)


def pending(url: str) -> list[str]:
    """Return the revisions that `upgrade` would apply; raises what it raises."""
    with _reporting(url), _engine(url).connect() as connection:
        check_version(connection)
        return _between(current(connection), head())


def print_sql() -> None:
    """Print the SQL of all migrations to stdout, for a reviewer or a DBA."""
    command.upgrade(config(), "head", sql=True)


def downgrade(url: str, revision: str) -> list[str]:
    """Take migrations back, down to `revision` ("base" for all), and return those taken back."""
    return _run(url, revision, up=False)


_QUEUES = text(
    """
    INSERT INTO jobs.queues (name, max_running, summary) VALUES (:name, :max_running, :summary)
    ON CONFLICT (name) DO UPDATE SET (max_running, summary, updated_at)
        = (excluded.max_running, excluded.summary, now())
    WHERE (queues.max_running, queues.summary) IS DISTINCT FROM (excluded.max_running, excluded.summary)
    """
)

_KINDS = text(
    """
    INSERT INTO jobs.kinds (name, queue, max_attempts, time_limit, max_running, unique_args, unique_seconds, summary)
    VALUES (:name, :queue, :max_attempts, :time_limit, :max_running, :unique_args, :unique_seconds, :summary)
    ON CONFLICT (name) DO UPDATE SET
        (queue, max_attempts, time_limit, max_running, unique_args, unique_seconds, summary, updated_at)
        = (excluded.queue, excluded.max_attempts, excluded.time_limit, excluded.max_running, excluded.unique_args,
           excluded.unique_seconds, excluded.summary, now())
    WHERE (kinds.queue, kinds.max_attempts, kinds.time_limit, kinds.max_running, kinds.unique_args,
           kinds.unique_seconds, kinds.summary)
        IS DISTINCT FROM (excluded.queue, excluded.max_attempts, excluded.time_limit, excluded.max_running,
                          excluded.unique_args, excluded.unique_seconds, excluded.summary)
    """
)
_KIND_COLUMNS = (
    "name",
    "queue",
    "max_attempts",
    "time_limit",
    "max_running",
    "unique_args",
    "unique_seconds",
    "summary",
)


def sync_kinds(connection: Connection) -> None:
    """Write contract.py's queues and jobs into jobs.queues and jobs.kinds, where callers in SQL read them.

    What this version does not know is left: another version may be deployed beside it. It may have them in another
    order, so they are written by name: two processes that start at once would wait for each other.
    """
    queues = [QUEUES[name] for name in sorted(QUEUES)]
    connection.execute(
        _QUEUES, [{"name": q.name, "max_running": q.max_running, "summary": q.summary} for q in queues]
    )
    jobs = [JOBS[name] for name in sorted(JOBS)]
    connection.execute(_KINDS, [{column: getattr(job, column) for column in _KIND_COLUMNS} for job in jobs])


def check_version(connection: Connection) -> int:
    """Return the server's major version; raise `ServerError` where it is too old."""
    number = int(connection.scalar(text("SHOW server_version_num")) or 0)
    if number // 10_000 < OLDEST_SERVER:
        raise ServerError(
            f"PostgreSQL {number // 10_000} is too old", remedy=f"use {OLDEST_SERVER} to {NEWEST_SERVER}"
        )
    return number // 10_000


def _engine(url: str) -> Engine:
    return create_engine(sqlalchemy_url(url), poolclass=NullPool, connect_args={"connect_timeout": 10})


def _run(url: str, revision: str, *, up: bool) -> list[str]:
    engine = _engine(url)
    began: list[str | None] = []
    with _reporting(url):
        for attempt in Retrying(
            retry=retry_if_exception(is_contention),
            stop=stop_after_attempt(ATTEMPTS),
            wait=wait_random_exponential(multiplier=0.2, max=5),
            reraise=True,
        ):
            with attempt:
                return _between(*_attempt(engine, revision, up=up, began=began))
    raise AssertionError("unreachable")


@contextmanager
def _reporting(url: str) -> Iterator[None]:
    """Turn what a server or Alembic says into one line."""
    try:
        yield
    except DBAPIError as error:
        reason = str(error.orig).strip().splitlines()[0]
        raise ServerError(
            f"PostgreSQL at {redacted(url)} cannot be migrated: {reason}", remedy=_remedy(error)
        ) from error
    except CommandError as error:
        raise ServerError(
            f"the database at {redacted(url)} is at a revision that this version does not know: {error}",
            remedy="migrate with the newest version that is deployed",
        ) from error


def _remedy(error: DBAPIError) -> str:
    """Return what to do about it, by the kind of the reason."""
    if is_contention(error):
        return "try again when whoever holds the lock is done; pg_stat_activity and pg_locks show who"
    if sqlstate(error) == "42501":
        return "connect as kitaab_admin or as a superuser (KITAAB_ADMIN_URL)"
    if sqlstate(error) is None or is_connection_loss(error):
        return "check the address, the user and the password in KITAAB_ADMIN_URL, and that the server runs"
    return "nothing of the failed migration is kept; mend the cause and migrate again"


def _attempt(
    engine: Engine, revision: str, *, up: bool, began: list[str | None]
) -> tuple[str | None, str | None]:
    """Migrate once; return where the first attempt began, which `began` keeps, and where this one ended."""
    with engine.connect() as guard:
        check_version(guard)
        guard.execute(text("SELECT pg_advisory_lock(:key)"), {"key": locks.MIGRATE})
        guard.commit()
        if not began:
            began.append(current(guard))
        guard.commit()
        made = config()
        with engine.connect() as connection:
            made.attributes["connection"] = connection
            (command.upgrade if up else command.downgrade)(made, revision)
            connection.commit()
            if up and revision == "head":
                sync_kinds(connection)
                connection.commit()
        after = current(guard)
        guard.commit()
    return began[0], after


def _between(before: str | None, after: str | None) -> list[str]:
    order = [s.revision for s in reversed(list(ScriptDirectory.from_config(config()).walk_revisions()))]
    for revision in filter(None, (before, after)):
        if revision not in order:
            raise CommandError(f"Can't locate revision identified by {revision!r}")
    low, high = sorted(0 if r is None else order.index(r) + 1 for r in (before, after))
    return order[low:high]

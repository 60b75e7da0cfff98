"""How migrations run: as kitaab_admin, one transaction each, with short waits for locks.

A waiting DDL statement holds up every query that comes after it, so it gives up soon
(`lock_timeout`) and `kitaab_jobs.db.migrate` tries again. One transaction for each migration means
that a kill in the middle leaves the last whole one, and the next `upgrade` goes on from there.
"""

from collections.abc import MutableMapping
from typing import Any

from alembic import context
from sqlalchemy import Connection, create_engine, pool, text

from kitaab_jobs.db.migrate import LOCK_TIMEOUT, STATEMENT_TIMEOUT
from kitaab_jobs.models import Base


def include_name(name: str | None, kind: str, _: MutableMapping[Any, str | None]) -> bool:
    """Leave partitions out: they are data, made by `archive.make_partitions`, not by migrations.

    By name, so that a comparison does not read all of them first.
    """
    return kind != "table" or name not in context.config.attributes.get("partitions", frozenset())


def partitions(connection: Connection) -> frozenset[str]:
    """Return the names of all partitions."""
    return frozenset(connection.scalars(text("SELECT relname FROM pg_class WHERE relispartition")))


def configure_session(connection: Connection) -> None:
    """Set the limits, and become the owner where the login may: objects get one owner, whoever migrates."""
    connection.execute(text(f"SET lock_timeout = '{LOCK_TIMEOUT}'"))
    connection.execute(text(f"SET statement_timeout = '{STATEMENT_TIMEOUT}'"))
    connection.execute(text("SET timezone = 'UTC'"))
    # Not before the first migration has given kitaab_admin the version table, which a kill may separate.
    owned = connection.scalar(
        text(
            """
            SELECT pg_has_role(current_user, relowner, 'MEMBER') FROM pg_class
            WHERE oid = to_regclass('public.alembic_version') AND relowner::regrole::text = 'kitaab_admin'
            """
        )
    )
    if owned:
        connection.execute(text("SET ROLE kitaab_admin"))
    connection.commit()


def run_online(connection: Connection) -> None:
    """Migrate over `connection`."""
    configure_session(connection)
    context.config.attributes["partitions"] = partitions(connection)
    connection.commit()
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        include_schemas=True,
        include_name=include_name,
        compare_server_default=False,  # compared by tests/migrations in the catalog, which sees all of it
        transaction_per_migration=True,
    )
    with context.begin_transaction():
        context.run_migrations()


def run_offline() -> None:
    """Print the SQL, for a reviewer, a linter, or a DBA."""
    context.configure(dialect_name="postgresql", transaction_per_migration=True, literal_binds=True)
    context.execute(f"SET lock_timeout = '{LOCK_TIMEOUT}'")
    context.execute(f"SET statement_timeout = '{STATEMENT_TIMEOUT}'")
    with context.begin_transaction():
        context.run_migrations()


if context.is_offline_mode():
    run_offline()
elif (given := context.config.attributes.get("connection")) is not None:
    run_online(given)
else:
    from kitaab_jobs.db.engines import sqlalchemy_url
    from kitaab_jobs.settings import settings

    engine = create_engine(sqlalchemy_url(settings().admin), poolclass=pool.NullPool)
    with engine.connect() as connection:
        run_online(connection)

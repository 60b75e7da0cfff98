"""How migrations run: as kitaab_admin, one transaction each, with short waits for locks.

A waiting DDL statement holds up every query that comes after it, so it gives up soon
(`lock_timeout`) and `kitaab_jobs.db.migrate` tries again. One transaction for each migration means
that a kill in the middle leaves the last whole one, and the next `upgrade` goes on from there.
"""

from alembic import context
from sqlalchemy import Connection, create_engine, pool, text
from sqlalchemy.sql.schema import SchemaItem

from kitaab_jobs.models import Base

LOCK_TIMEOUT = "5s"
STATEMENT_TIMEOUT = "15min"


def include_object(
    _: SchemaItem, name: str | None, kind: str, reflected: bool, compare_to: SchemaItem | None
) -> bool:
    """Leave partitions out: they are data, made by `archive.make_partitions`, not by migrations."""
    if kind == "table" and reflected and compare_to is None:
        return name not in context.config.attributes.get("partitions", frozenset())
    return True


def partitions(connection: Connection) -> frozenset[str]:
    """Return the names of all partitions."""
    return frozenset(connection.scalars(text("SELECT relname FROM pg_class WHERE relispartition")))


def configure_session(connection: Connection) -> None:
    """Set the limits, and become the owner where the login may: objects get one owner, whoever migrates."""
    connection.execute(text(f"SET lock_timeout = '{LOCK_TIMEOUT}'"))
    connection.execute(text(f"SET statement_timeout = '{STATEMENT_TIMEOUT}'"))
    connection.execute(text("SET timezone = 'UTC'"))
    owner = connection.scalar(
        text("SELECT pg_has_role(current_user, oid, 'MEMBER') FROM pg_roles WHERE rolname = 'kitaab_admin'")
    )
    stamped = connection.scalar(text("SELECT to_regclass('public.alembic_version') IS NOT NULL"))
    if owner and stamped:
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
        include_object=include_object,
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

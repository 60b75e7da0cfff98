"""What the load asks of the database before and after the rows: who may, which keys, which partitions."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from itertools import pairwise

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from kitaab_jobs.db import locks
from kitaab_jobs.db.engines import libpq_url
from kitaab_jobs.db.refusals import explain, reason
from kitaab_jobs.db.retries import sqlstate
from kitaab_jobs.devstack.sample.lanes import Connection
from kitaab_jobs.devstack.sample.rows import COLUMNS, Keys
from kitaab_jobs.errors import KitaabError, ServerError

# Rows of audit_log: the first is committed with the first lane, the second with the last rows.
BEGUN = "sample begun"
COMPLETE = "sample complete"

# Keys left free for others who add rows while a sample is added to a database in use.
_SLACK = 1_000


@contextmanager
def connected(engine_or_url: Engine | str) -> Iterator[Connection]:
    """Yield a connection that commits only when told to; what is not committed at the end is not kept."""
    if isinstance(engine_or_url, str):
        opened = psycopg.connect(
            libpq_url(engine_or_url), connect_timeout=10, application_name="kitaab-jobs seed"
        )
        try:
            yield opened
        finally:
            opened.close()
        return
    pooled = engine_or_url.raw_connection()
    try:
        connection = pooled.driver_connection
        assert isinstance(connection, psycopg.Connection), "the engine must use psycopg 3"
        connection.rollback()
        before = connection.autocommit
        connection.autocommit = False
        try:
            yield connection
        finally:
            if not connection.closed:
                connection.rollback()
                connection.autocommit = before
    finally:
        pooled.close()


@contextmanager
def explained(engine_or_url: Engine | str) -> Iterator[None]:
    """Raise what PostgreSQL refuses as a `KitaabError` that says in one line what it means here."""
    try:
        yield
    except (psycopg.Error, DBAPIError) as error:
        url = engine_or_url if isinstance(engine_or_url, str) else engine_or_url.url.render_as_string()
        raise _meaning(error, url) from error


def _meaning(error: psycopg.Error | DBAPIError, url: str) -> KitaabError:
    if sqlstate(error) == "23505":  # unique violation
        return ServerError(
            f"another program wrote to the same tables: {reason(error)}",
            remedy="stop it, or wait, and try again",
        )
    return explain(error, url, setting="KITAAB_ADMIN_URL")


@contextmanager
def alone(connection: Connection) -> Iterator[None]:
    """Keep other loads out of this database until the block is left; raise `KitaabError` if one runs."""
    found = connection.execute("SELECT pg_try_advisory_lock(%s)", (locks.LOAD_SAMPLE,)).fetchone()
    connection.commit()
    if not (found and found[0]):
        raise KitaabError(
            "another load of sample data runs in this database", remedy="wait until it has ended"
        )
    try:
        yield
    finally:
        if not connection.closed:
            connection.rollback()
            connection.execute("SELECT pg_advisory_unlock(%s)", (locks.LOAD_SAMPLE,))
            connection.commit()


def refuse_unfit(connection: Connection, *, add: bool) -> None:
    """Raise `KitaabError` for a database that has people, unless the sample is to be added to them."""
    found = connection.execute(
        """
        SELECT (SELECT count(*) FROM public.users),
               (SELECT action_type FROM public.audit_log
                WHERE table_name = 'users' AND record_id = 0 AND action_type = ANY (%s)
                ORDER BY created_at DESC, audit_log_id DESC LIMIT 1)
        """,
        ([BEGUN, COMPLETE],),
    ).fetchone()
    assert found is not None
    people, last_note = found
    if people and last_note == BEGUN:
        raise KitaabError(
            "the database holds a part of a sample: its load was cut off",
            remedy="make the database anew and seed it",
        )
    if people and not add:
        raise KitaabError(
            f"the database already has {people} people, so no sample data was loaded",
            remedy="use an empty database, or --add to add the sample to them",
        )


def note(connection: Connection, action: str, content: Jsonb) -> None:
    """Write into the audit log how far a load has come; `record_id` 0 stands for no single person."""
    connection.execute(
        "INSERT INTO public.audit_log (action_type, table_name, record_id, new_values) VALUES (%s, 'users', 0, %s)",
        (action, content),
    )


def _sequence(table: str) -> sql.Identifier:
    return sql.Identifier("public", f"{table}_{COLUMNS[table][0]}_seq")


def first_keys(connection: Connection, *, add: bool) -> dict[str, int]:
    """Return the key that each table gives next, or one some way further on, clear of other writers."""
    query = sql.SQL(" UNION ALL ").join(
        sql.SQL("SELECT {}, last_value + is_called::integer + {} FROM {}").format(
            table, _SLACK if add else 0, _sequence(table)
        )
        for table in COLUMNS
    )
    return dict(connection.execute(query).fetchall())


def advance_sequences(connection: Connection, keys: Keys) -> None:
    """Make the tables give keys after the last one of the sample. No rollback takes that back."""
    for table in COLUMNS:
        last = keys.last(table)
        if last is not None:
            name = _sequence(table).as_string(connection)
            connection.execute("SELECT setval(%s, %s)", (name, last))


def make_partitions(connection: Connection, start: date, today: date) -> None:
    """Make the partitions of entries that are missing between the two dates: whole years where none is there."""
    found = connection.execute(
        "SELECT pg_get_expr(c.relpartbound, c.oid) FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid"
        " WHERE i.inhparent = 'public.entries'::regclass"
    ).fetchall()
    bounds = [re.findall(r"\('([0-9-]+)'\)", bound) for (bound,) in found]
    for year in range(start.year, today.year + 1):
        firsts = [date(year + month // 12, month % 12 + 1, 1) for month in range(13)]
        missing = [
            pair
            for pair in pairwise(firsts)
            if not any(low <= pair[0].isoformat() < high for low, high in bounds)
        ]
        for low, high in [(firsts[0], firsts[-1])] if len(missing) == 12 else missing:
            connection.execute("SELECT jobs.make_partition('entries', %s, %s)", (low, high))


def analyze(connection: Connection) -> None:
    """Let the planner know what is there now, before the first job asks."""
    with connection.transaction():
        connection.execute("SET LOCAL statement_timeout = 0")
        tables = sql.SQL(", ").join(sql.Identifier("public", table) for table in COLUMNS)
        connection.execute(sql.SQL("ANALYZE {}").format(tables))

"""Statements that go to the server together, and answers that are fetched when they are wanted.

A trip to the server costs more than the statement that it carries, and what is done for each job is done thousands of
times a second. The driver has a pipeline, but no way to leave with an answer outstanding, nor to end one transaction
and begin the next in the same trip. So these are sent as text (the simple protocol: many statements in one message, of
which an error ends the rest), and the larger ones are functions, whose plans the server keeps.
"""

from __future__ import annotations

import select
from collections.abc import Mapping
from typing import Any

import psycopg
from psycopg import generators
from psycopg.errors import error_from_result
from psycopg.pq import Escaping, ExecStatus
from psycopg.pq.abc import PGresult
from sqlalchemy import Connection

_SEND_WITHIN = 30.0


def driver_of(connection: Connection) -> psycopg.Connection[Any]:
    """Return the driver's connection. What is done for each job goes past SQLAlchemy, which would double its cost."""
    driver = connection.connection.driver_connection
    assert isinstance(driver, psycopg.Connection)
    return driver


def at_once(connection: Connection, statement: str, given: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    """Run the driver's statement in one trip with the BEGIN before it, where that is still to come."""
    driver = driver_of(connection)
    with driver.pipeline():
        cursor = driver.execute(statement, given)
    return cursor.fetchall()


def filled(connection: Connection, statement: str, **values: object) -> str:
    """Return a statement with values in its {places}, as literals."""
    escape = Escaping(driver_of(connection).pgconn).escape_literal
    literals = {
        name: "NULL" if value is None else escape(str(value).encode()).decode()
        for name, value in values.items()
    }
    return statement.format(**literals)


def send(connection: Connection, *statements: str) -> None:
    """Send statements; their answers must be fetched before anything else is done with the connection."""
    pgconn = driver_of(connection).pgconn
    pgconn.send_query("; ".join(statements).encode())
    writable = select.poll()  # select() refuses file numbers from 1024 on
    writable.register(pgconn.socket, select.POLLOUT)
    while pgconn.flush():
        if not writable.poll(_SEND_WITHIN * 1000):
            raise psycopg.OperationalError(f"the server has taken nothing for {_SEND_WITHIN:.0f} s")


def answers(connection: Connection) -> list[PGresult]:
    """Return the answers to what was sent; raise the first error among them."""
    driver = driver_of(connection)
    found: list[PGresult] = driver.wait(generators.fetch_many(driver.pgconn))
    for answer in found:
        if answer.status not in (ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK):
            raise error_from_result(answer)
    return found

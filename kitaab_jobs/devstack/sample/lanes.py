"""Copy the lanes of a sample side by side: one connection and one transaction for each.

PostgreSQL runs a connection on one core, and checking and recording an entry costs it more than
making one costs Python. Two lanes keep two cores busy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import chain, islice
from queue import SimpleQueue
from threading import Event
from typing import Any

import psycopg
from psycopg import sql

from kitaab_jobs.devstack.sample.plan import Lane
from kitaab_jobs.devstack.sample.rows import COLUMNS, Tables

Connection = psycopg.Connection[Any]

# The triggers of a COPY work on all of its rows at once and leave one progress mark for each item in
# it: few large ones leave few marks, many small ones need less memory.
_PIECES_IN_COPY = 20

# The engine's limits suit jobs; here one statement may take long. What a load that was just killed
# has written is in the way until the server notices that it is gone, hence the wait.
SETTINGS = """
    SET LOCAL statement_timeout = 0;
    SET LOCAL lock_timeout = '30s';
    SET LOCAL idle_in_transaction_session_timeout = 0;
    SET LOCAL work_mem = '64MB';
    SET LOCAL jit = off
"""


def copy_tables(connection: Connection, tables: Tables) -> None:
    """Copy the rows of the small tables, in the order of their foreign keys."""
    with connection.cursor() as cursor:
        for table in COLUMNS:
            if lines := tables.lines.get(table):
                with cursor.copy(_copy(table)) as copy:
                    copy.write("".join(lines))


def copy_lanes(
    connections: Sequence[Connection], lanes: Sequence[Lane], on_rows: Callable[[int], None]
) -> None:
    """Copy each lane on its connection and leave the transactions open.

    `on_rows` is called, in this thread, with the number of entries sent since its last call. What a
    lane raises, or `on_rows`, ends all lanes and is raised.
    """
    news: SimpleQueue[int | BaseException | None] = SimpleQueue()
    stop = Event()

    def work(connection: Connection, lane: Lane) -> None:
        try:
            connection.execute(SETTINGS)
            copy_tables(connection, lane.tables)
            for rows in _copied_entries(connection, lane, stop):
                news.put(rows)
        except BaseException as error:
            news.put(error)
        else:
            news.put(None)

    with ThreadPoolExecutor(len(lanes), "sample lane") as pool:
        try:
            for connection, lane in zip(connections, lanes, strict=True):
                pool.submit(work, connection, lane)
            running = len(lanes)
            while running:
                told = news.get()
                if isinstance(told, BaseException):
                    raise told
                if told is None:
                    running -= 1
                else:
                    on_rows(told)
        except BaseException:
            stop.set()
            for connection in connections:
                with suppress(psycopg.Error):
                    connection.cancel_safe(timeout=5)
            raise


class _Stopped(Exception):
    """The other lane has failed, or the load was interrupted: nothing of this one is wanted any more."""


def _copied_entries(connection: Connection, lane: Lane, stop: Event) -> Iterator[int]:
    """Copy the entries and return how many each piece had, as it is sent."""
    pieces = lane.pieces()
    with connection.cursor() as cursor:
        for first in pieces:
            with cursor.copy(_copy("entries")) as copy:
                for piece in chain((first,), islice(pieces, _PIECES_IN_COPY - 1)):
                    if stop.is_set():
                        raise _Stopped
                    copy.write(piece.text)
                    yield piece.rows


def _copy(table: str) -> sql.Composed:
    columns: Iterable[sql.Identifier] = map(sql.Identifier, COLUMNS[table])
    return sql.SQL("COPY {} ({}) FROM STDIN").format(
        sql.Identifier("public", table), sql.SQL(", ").join(columns)
    )

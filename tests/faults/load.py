"""Callers: threads that enqueue jobs with known answers, each transaction beside a row of the caller's own.

They outlive a database that goes away. Where the answer to a commit is lost they do not know whether it was done;
that is looked up afterwards, in the caller's own table, as a caller would.
"""

from __future__ import annotations

import itertools
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import psycopg

from kitaab_jobs.client import enqueue, enqueue_many
from kitaab_jobs.contract import Job
from tests.faults.kinds import MANY, PARENT, SINGLE

# Which of the transactions is rolled back by its caller, and which caller hangs up before it has heard of its commit.
ROLLED_BACK = 7
HANGS_UP = 11

Orders = dict[int, str]


class Load:
    """Callers on the database at `url`. `accepted` is complete after `stop`."""

    def __init__(
        self, url: str, *, pause: float, wait: float, seed: int, room: Callable[[], bool] | None
    ) -> None:
        self.url = url
        self.pause = pause
        self.wait = wait
        self.room = room
        self.accepted: Orders = {}
        self.refused: Orders = {}
        self.in_doubt: list[Orders] = []
        self.found_of_doubt = 0
        self._keys = itertools.count(1)
        self._random = random.Random(seed)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)
        self._failure: BaseException | None = None

    def start(self) -> None:
        """Start to enqueue."""
        self._thread.start()

    def stop(self) -> Orders:
        """Stop, look up what is in doubt, and return what was accepted, kinds by key."""
        self._stop.set()
        self._thread.join(timeout=60)
        assert not self._thread.is_alive(), "the load does not stop"
        if self._failure is not None:
            raise self._failure
        with psycopg.connect(self.url, connect_timeout=10) as connection:
            rows = connection.execute("SELECT key FROM jobs.orders").fetchall()
        there = {key for (key,) in rows}
        assert self.accepted.keys() <= there, "the database has lost what it had committed"
        assert not self.refused.keys() & there, "the database has kept what was never committed"
        for orders in self.in_doubt:
            kept = orders.keys() & there
            assert kept in (set(), orders.keys()), "half of a transaction was committed"
            if kept:
                self.found_of_doubt += 1
                self.accepted |= orders
        return self.accepted

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                try:
                    with psycopg.connect(self.url, connect_timeout=2) as connection:
                        self._enqueue_on(connection)
                except psycopg.OperationalError:  # it is away, or ended our connection
                    self._stop.wait(0.05)
        except BaseException as error:
            self._failure = error

    def _enqueue_on(self, connection: psycopg.Connection) -> None:
        for number in itertools.count(1):
            if self._stop.is_set():
                return
            if self.room is not None and not self.room():
                self._stop.wait(self.pause)
                continue
            orders: Orders = {}
            commits = False
            try:
                self._order(connection, orders)
                if number % ROLLED_BACK == 0:
                    connection.rollback()
                    self.refused |= orders
                    continue
                commits = True
                if number % HANGS_UP == 0:
                    connection.pgconn.send_query(b"COMMIT")
                    connection.pgconn.flush()
                    connection.close()
                connection.commit()
            except psycopg.Error:
                if commits:
                    self.in_doubt.append(orders)
                else:
                    self.refused |= orders
                raise
            self.accepted |= orders
            self._stop.wait(self.pause)

    def _order(self, connection: psycopg.Connection, orders: Orders) -> None:
        for job, count in ((SINGLE, 2), (PARENT, 1), (MANY, 5)):
            keys = list(itertools.islice(self._keys, count))
            orders |= dict.fromkeys(keys, job.name)
            order(connection, job, keys, self._random.uniform(0, self.wait / count))


def order(
    connection: psycopg.Connection, job: Job, keys: Sequence[int], wait: float = 0, times: int = 1
) -> None:
    """Enqueue one job for each key beside rows of the caller's own; the caller commits."""
    connection.execute("INSERT INTO jobs.orders SELECT unnest(%s::bigint[])", [list(keys)])
    many = [{"key": key, "wait": wait, "times": times} for key in keys]
    if len(many) == 1:
        enqueue(connection, job, many[0])
    else:
        enqueue_many(connection, job, many)


def place(url: str, job: Job, keys: Sequence[int], wait: float = 0, times: int = 1) -> Orders:
    """Enqueue these in one transaction, and return what was accepted."""
    with psycopg.connect(url, connect_timeout=10) as connection:
        order(connection, job, keys, wait, times)
    return dict.fromkeys(keys, job.name)


@contextmanager
def load(
    url: str,
    *,
    pause: float = 0.15,
    wait: float = 0.05,
    seed: int = 1,
    room: Callable[[], bool] | None = None,
) -> Iterator[Load]:
    """Enqueue while the block runs, and, with `room`, while it says so."""
    callers = Load(url, pause=pause, wait=wait, seed=seed, room=room)
    callers.start()
    try:
        yield callers
    finally:
        callers._stop.set()

"""Workers on real connections, each with a thread: what one runs may have to wait for another."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import TypeVar

from sqlalchemy import Connection, Engine, text

from kitaab_jobs.progress import jobs
from tests.progress.diary import NOW, session_on

PATIENCE = 20.0

T = TypeVar("T")


class Worker:
    """A connection that works in its own thread, until it commits."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.connection = engine.connect()
        self.connection.execute(text(f"SET statement_timeout = '{PATIENCE:.0f}s'"))
        self.connection.commit()
        self.pid = int(self.connection.scalar(text("SELECT pg_backend_pid()")) or 0)
        self.connection.commit()
        self._thread = ThreadPoolExecutor(1)

    def start(self, call: Callable[[Connection], T]) -> Future[T]:
        """Begin with something, and return at once."""
        return self._thread.submit(call, self.connection)

    def do(self, call: Callable[[Connection], T]) -> T:
        """Do something and wait for its end."""
        return self.start(call).result(PATIENCE)

    def refresh(self, limit: int = 1000) -> jobs.Report:
        """Refresh, and leave the transaction open."""
        return self.do(lambda connection: refresh_once(connection, limit))

    def commit(self) -> None:
        """Commit what was done."""
        self.do(lambda connection: connection.commit())

    def rollback(self) -> None:
        """Undo what was done."""
        self.do(lambda connection: connection.rollback())

    def wait_until_blocked(self, future: Future[T]) -> None:
        """Wait until this worker waits for somebody's lock."""
        assert self.wait_until_blocked_or_done(future), "it did not have to wait"

    def wait_until_blocked_or_done(self, future: Future[T]) -> bool:
        """Wait until this worker waits for somebody's lock, or is done; tell whether it waits."""
        deadline = time.monotonic() + PATIENCE
        with self.engine.connect() as other:
            blocked = text("SELECT cardinality(pg_blocking_pids(:pid)) > 0")
            while not other.scalar(blocked, {"pid": self.pid}):
                if future.done():
                    return False
                assert time.monotonic() < deadline, "it neither waits nor ends"
                time.sleep(0.01)
        return True

    def crash(self) -> None:
        """End the connection as if its process had been killed."""
        with self.engine.begin() as other:
            other.execute(text("SELECT pg_terminate_backend(:pid, 10000)"), {"pid": self.pid})

    def close(self) -> None:
        """Let go of everything."""
        self._thread.shutdown()
        self.connection.invalidate()
        self.connection.close()


def refresh_once(connection: Connection, limit: int = 1000) -> jobs.Report:
    """Refresh one batch of marks in the connection's transaction, which is left open."""
    if not connection.in_transaction():
        connection.begin()
    with session_on(connection) as session:
        return jobs.refresh(session, now=NOW, limit=limit)


@contextmanager
def workers(engine: Engine, number: int = 2) -> Iterator[list[Worker]]:
    """So many workers."""
    with ExitStack() as stack:
        made = [Worker(engine) for _ in range(number)]
        for worker in made:
            stack.callback(worker.close)
        yield made

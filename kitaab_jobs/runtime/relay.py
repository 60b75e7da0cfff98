"""The relay: takes ready rows and publishes them to Celery; and the rescue of what was lost.

Any number may run, one in every beat process: they pass over each other's rows. It wakes on NOTIFY
and looks every second anyway, since a notification is a hint that may be lost.
"""

from __future__ import annotations

import threading
import time

import psycopg
from celery import Celery
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from kitaab_jobs.contract import QUEUES
from kitaab_jobs.runtime import ledger
from kitaab_jobs.runtime.logs import logger
from kitaab_jobs.settings import VERSION

log = logger(__name__)

BATCH = 500
POLL_SECONDS = 1.0
RESCUE_SECONDS = 5.0
LONGEST_PAUSE_SECONDS = 10.0

_AWAY = (SQLAlchemyError, psycopg.Error, OperationalError, RedisError, OSError)


class Relay:
    """Publishes until `stop` is called. `engine` is pooled, `listen_url` goes past the pooler."""

    def __init__(
        self,
        app: Celery,
        engine: Engine,
        listen_url: str,
        name: str,
        *,
        patience: ledger.Patience = ledger.PATIENCE,
        poll_seconds: float = POLL_SECONDS,
        rescue_seconds: float = RESCUE_SECONDS,
    ) -> None:
        self.app = app
        self.engine = engine
        self.listen_url = listen_url
        self.name = name
        self.patience = patience
        self.poll_seconds = poll_seconds
        self.rescue_seconds = rescue_seconds
        self._stop = threading.Event()
        self._listening: psycopg.Connection | None = None
        self._rescued_at = 0.0

    def stop(self) -> None:
        """Ask the loop to end after the batch that it is at."""
        self._stop.set()

    def run(self) -> None:
        """Publish and rescue until stopped. No error is an end, since every job waits for this loop."""
        pause = self.poll_seconds
        while not self._stop.is_set():
            try:
                busy = self.publish()
                self._rescue_when_due()
                pause = self.poll_seconds
                if not busy:
                    self._wait()
            except Exception as error:
                unforeseen = not isinstance(error, _AWAY)
                log.warning(
                    "relay waits",
                    action="relay_waits",
                    seconds=pause,
                    error=_first_line(error),
                    exc_info=unforeseen,
                )
                self._hang_up()
                self._stop.wait(pause)
                pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
        self._hang_up()

    def publish(self) -> bool:
        """Publish one batch and tell whether there may be more."""
        with self.engine.begin() as connection:
            batch = ledger.take_ready(connection, BATCH)
            known = [row for row in batch if row.queue in QUEUES]
            if known:
                self._send(known)
            for row in batch:
                if row.queue not in QUEUES:
                    self._postpone(connection, row)
        return len(batch) == BATCH

    def rescue(self) -> int:
        """Make ready again what a dead worker held and what a wiped broker forgot; return how many."""
        with self.engine.begin() as connection:
            rescued = ledger.rescue_running(connection, self.patience)
            queues = ledger.queues_with_unstarted(connection, self.patience)
        # Between two transactions: none is open, with rows locked, while a Redis that hangs is asked.
        empty = self._empty(queues)
        if queues:
            with self.engine.begin() as connection:
                rescued += ledger.rescue_published(connection, empty, self.patience)
        for id, name, state in rescued:
            log.warning("job rescued", action="job_rescued", id=str(id), job=name, state=state)
        return len(rescued)

    def _send(self, batch: list[ledger.Ready]) -> None:
        with self.app.producer_or_acquire() as producer:
            for row in batch:
                self.app.send_task(
                    row.name, kwargs=row.args, task_id=str(row.id), queue=row.queue, producer=producer
                )

    def _postpone(self, connection: Connection, row: ledger.Ready) -> None:
        reason = f"no queue is called {row.queue!r}: the queues are {', '.join(QUEUES)}"
        ledger.postpone(connection, row.id, reason)
        log.warning("job waits", action="job_waits", id=str(row.id), job=row.name, reason=reason)

    def _empty(self, queues: list[str]) -> list[str]:
        """Return those of `queues` in which no message waits."""
        if not queues:
            return []
        with self.app.connection_or_acquire() as connection:
            client = connection.default_channel.client
            return [queue for queue in queues if client.llen(queue) == 0]

    def _rescue_when_due(self) -> None:
        if time.monotonic() - self._rescued_at >= self.rescue_seconds:
            self._rescued_at = time.monotonic()
            self.rescue()
            with self.engine.begin() as connection:
                ledger.touch(connection, self.name, "relay", VERSION)

    def _wait(self) -> None:
        """Sleep until something is announced, or for a poll's length."""
        if self._listening is None or self._listening.closed:
            self._listening = psycopg.connect(
                self.listen_url, autocommit=True, connect_timeout=10, application_name="kitaab-jobs relay"
            )
            self._listening.execute("LISTEN kitaab_jobs")
        for _ in self._listening.notifies(timeout=self.poll_seconds, stop_after=1):
            pass

    def _hang_up(self) -> None:
        if self._listening is not None:
            self._listening.close()
            self._listening = None


def _first_line(error: BaseException) -> str:
    lines = str(getattr(error, "orig", None) or error).splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"

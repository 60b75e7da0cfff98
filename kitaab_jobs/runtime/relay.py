"""The relay: takes ready rows and publishes them to Celery; and the rescue of what was lost.

Any number may run, one in every beat process: they pass over each other's rows. It wakes on NOTIFY
and looks every second anyway, since a notification is a hint that may be lost.

While messages still wait in a queue it holds back, so that small jobs gather into fuller messages: a message costs
Celery about a millisecond, whatever it carries.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection
from contextlib import suppress
from uuid import UUID

import psycopg
from celery import Celery
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from kitaab_jobs.contract import JOBS, QUEUES
from kitaab_jobs.runtime import ledger, outbox
from kitaab_jobs.runtime.envelope import pack, sent_event
from kitaab_jobs.runtime.events import GatheringDispatcher
from kitaab_jobs.runtime.logs import logger
from kitaab_jobs.runtime.messages import MANY, Message, fill
from kitaab_jobs.settings import VERSION

log = logger(__name__)

# Rows of one pass, in each queue.
BATCH = 1000
POLL_SECONDS = 1.0
RESCUE_SECONDS = 5.0
PROMOTE_SECONDS = 0.2
# So often it is looked how long small jobs take, and so how many go into one message.
LEARN_SECONDS = 1.0
# Sooner, while some are on their way of whose kind nobody knows it.
LEARN_SOON_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 10.0
# A queue is filled up again when half of what was sent last has been taken, or when nearly nothing waits.
FEW_MESSAGES = 4
HOLD_SECONDS = 0.005
LONGEST_HOLD_SECONDS = 0.03

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
        patience: outbox.Patience = outbox.PATIENCE,
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
        self._silent: list[UUID] = []
        self._promoted_at = 0.0
        self._learned_at = 0.0
        self._put_off = False
        self._seconds: dict[str, float] = {}
        self._is_unknown = False
        self._sent: dict[str, int] = {}
        self._waiting: dict[str, int] = {}
        self._held = False
        self._limited = True

    def stop(self) -> None:
        """Ask the loop to end after the batch that it is at."""
        self._stop.set()

    def run(self) -> None:
        """Publish and rescue until stopped. No error is an end, since every job waits for this loop."""
        pause = self.poll_seconds
        hold = HOLD_SECONDS
        while not self._stop.is_set():
            try:
                # First what somebody has just enqueued and waits for; then the chores.
                busy = self.publish()
                busy |= self._rescue_when_due()
                self._learn_when_due()
                pause = self.poll_seconds
                if busy:
                    hold = HOLD_SECONDS
                elif self._held:
                    self._stop.wait(hold)
                    hold = min(hold * 1.5, LONGEST_HOLD_SECONDS)
                else:
                    hold = HOLD_SECONDS
                    self._ask_ahead()
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
        """Publish one batch and tell whether there may be more that could go out now."""
        ready = self._publish_ready()
        moved = self._promote_when_due()
        if moved:
            ready += self._publish_ready()
        return moved > 0 or ready >= BATCH

    def _publish_ready(self) -> int:
        rooms = self._rooms()
        with self.engine.begin() as connection:
            ready = outbox.take(connection, rooms, QUEUES.values(), limited_kinds=self._limited)
            messages = fill(ready, JOBS, self._seconds)
            if messages:
                self._send(messages)
        # After the commit, for which the workers that have these messages wait.
        if messages:
            self._is_unknown = any(MANY in each.args and each.name not in self._seconds for each in messages)
            self._tell(messages)
        for queue in rooms:
            if count := sum(message.queue == queue for message in messages):
                self._sent[queue] = count
                self._waiting[queue] += count
        return len(ready)

    def _promote_when_due(self) -> int:
        """Make ready what was scheduled for now, or waited for a group that has finished; a few times a second."""
        self._put_off = time.monotonic() - self._promoted_at < PROMOTE_SECONDS
        if self._put_off:
            return 0
        self._promoted_at = time.monotonic()
        with self.engine.begin() as connection:
            moved = outbox.promote(connection, BATCH) + outbox.release_groups(connection, BATCH)
        if moved:
            self._promoted_at = 0.0  # there may be more
        return moved

    def rescue(self) -> int:
        """Make ready again what a dead worker held and what a wiped broker forgot; return how many."""
        with self.engine.begin() as connection:
            rescued = outbox.rescue_running(connection, self.patience, self._silent)
            self._silent = outbox.silent(connection, self.patience.running - self.rescue_seconds)
            queues = outbox.queues_with_unstarted(connection, self.patience)
        # Between two transactions: none is open, with rows locked, while a Redis that hangs is asked.
        waiting = self._messages(queues)
        if queues:
            empty = [queue for queue in queues if not waiting[queue]]
            with self.engine.begin() as connection:
                rescued += outbox.rescue_published(connection, empty, self.patience)
        for job in rescued:
            log.warning("job rescued", action="job_rescued", id=str(job.id), job=job.name, state=job.state)
        return len(rescued)

    def _rooms(self) -> dict[str, int]:
        """Return how many rows may go out in each queue; queues where enough messages wait are left out."""
        # A queue is asked only where what was sent since it was last asked may have filled it.
        unsure = [queue for queue in QUEUES if self._waiting.get(queue, FEW_MESSAGES + 1) > FEW_MESSAGES]
        self._waiting |= self._messages(unsure)
        full = {q for q in QUEUES if self._waiting[q] > max(FEW_MESSAGES, self._sent.get(q, 0) // 2)}
        self._held = bool(full)
        return {queue: BATCH for queue in QUEUES if queue not in full}

    def _ask_ahead(self) -> None:
        """Ask now what would have to be asked before the next job is taken, while that waits for it."""
        self._waiting |= self._messages([q for q, count in self._waiting.items() if count > FEW_MESSAGES])

    def _send(self, messages: list[Message]) -> None:
        """Put all messages into their queues in one trip."""
        waiting: dict[str, list[str]] = {}
        for message in messages:
            waiting.setdefault(message.queue, []).append(pack(message))
        with self.app.connection_or_acquire() as connection:
            pipeline = connection.default_channel.client.pipeline(transaction=False)
            for queue, packed in waiting.items():
                pipeline.lpush(queue, *packed)  # one by one from the left; workers take from the right
            pipeline.execute()

    def _tell(self, messages: list[Message]) -> None:
        """Tell Flower of them. They are on their way whatever becomes of it."""
        with (
            suppress(*_AWAY),
            self.app.connection_or_acquire() as connection,
            GatheringDispatcher(
                app=self.app,
                channel=connection.default_channel,
                buffer_group=["task"],
                buffer_limit=len(messages) + 1,
            ) as events,
        ):
            # The first goes ahead, to see whether anybody listens; then the others in one event message.
            for place, message in enumerate(messages):
                if events.is_unheard():
                    return
                events.send("task-sent", **sent_event(message))
                if place == 0:
                    events.flush(errors=False)
            events.flush(errors=False)

    def _messages(self, queues: Collection[str]) -> dict[str, int]:
        """Return how many messages wait in each queue."""
        if not queues:
            return {}
        with self.app.connection_or_acquire() as connection:
            pipeline = connection.default_channel.client.pipeline(transaction=False)
            for queue in queues:
                pipeline.llen(queue)
            return dict(zip(queues, pipeline.execute(), strict=True))

    def _rescue_when_due(self) -> bool:
        if time.monotonic() - self._rescued_at < self.rescue_seconds:
            return False
        self._rescued_at = time.monotonic()
        rescued = self.rescue()
        with self.engine.begin() as connection:
            ledger.touch(connection, self.name, "relay", VERSION)
            strangers = outbox.strangers(connection, QUEUES)
            # Also where no kind has a limit any more: what was enqueued under one still waits for its turn.
            self._limited = _limited_kinds() or outbox.has_limited(connection)
        for queue, jobs in strangers.items():
            reason = f"no queue is called {queue!r}: the queues are {', '.join(QUEUES)}"
            log.warning("jobs wait", action="jobs_wait", queue=queue, jobs=jobs, reason=reason)
        return rescued > 0

    def _learn_when_due(self) -> None:
        due = LEARN_SOON_SECONDS if self._is_unknown else LEARN_SECONDS
        if time.monotonic() - self._learned_at < due:
            return
        self._learned_at = time.monotonic()
        with self.engine.begin() as connection:
            self._seconds = outbox.seconds_each(connection, (job for job in JOBS.values() if job.batch > 1))

    def _wait(self) -> None:
        """Sleep until something is announced, or for a poll's length: shorter, where it put a look off."""
        due = max(0.0, self._promoted_at + PROMOTE_SECONDS - time.monotonic())
        seconds = min(self.poll_seconds, due) if self._put_off else self.poll_seconds
        if self._listening is None or self._listening.closed:
            self._listening = psycopg.connect(
                self.listen_url, autocommit=True, connect_timeout=10, application_name="kitaab-jobs relay"
            )
            self._listening.execute("LISTEN kitaab_jobs")
        for _ in self._listening.notifies(timeout=seconds, stop_after=1):
            pass

    def _hang_up(self) -> None:
        if self._listening is not None:
            self._listening.close()
            self._listening = None


def _limited_kinds() -> bool:
    return any(job.max_running is not None for job in JOBS.values())


def _first_line(error: BaseException) -> str:
    lines = str(getattr(error, "orig", None) or error).splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"

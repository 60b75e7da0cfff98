"""One attempt at a claimed job: run in a transaction, and ended with it.

The job is marked as succeeded in that same transaction, so its effects happen once. On an error all is rolled back, and
the error and what follows are recorded in a transaction of their own. A job that is stopped with its worker is given
back instead.

The COMMIT is sent, and its answer need not be waited for at once: a process that has sent it may ask for its next
message meanwhile (`Last`). Whatever comes of it is recorded as if it had been waited for.
"""

from __future__ import annotations

import inspect
import os
import random
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, NoReturn, Protocol
from uuid import UUID

import psycopg
from billiard import common
from celery.exceptions import SoftTimeLimitExceeded
from psycopg.pq import TransactionStatus
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from kitaab_jobs.contract import Job
from kitaab_jobs.db.retries import is_connection_loss
from kitaab_jobs.errors import Cancelled, UsageError
from kitaab_jobs.runtime import ledger
from kitaab_jobs.runtime.context import Context
from kitaab_jobs.runtime.heartbeat import Heartbeat
from kitaab_jobs.runtime.logs import logger
from kitaab_jobs.runtime.outcome import RELEASED, SUCCEEDED, Outcome, describe, is_out_of_time, weigh
from kitaab_jobs.runtime.trips import driver_of

log = logger(__name__)

# A commit that nobody has asked for meanwhile is looked at after so long, so that its log line is not late.
LOOK_SECONDS = 0.01


class Report(Protocol):
    """What a job returns: a dataclass of counts."""

    __dataclass_fields__: ClassVar[dict[str, Any]]


class JobFunction(Protocol):
    """What the decorator registers: (session, now, payload), and the context where the function wants it."""

    def __call__(self, *arguments: Any) -> Report:
        """Run the job."""


class JobSession(Session):
    """A session whose transaction is not the job's to end: its work is committed once, together with its state."""

    def commit(self) -> NoReturn:
        """Refuse: what was committed here would be done again when the job is tried again."""
        raise UsageError("a job does not commit", remedy="return, and its work is committed with its state")

    def rollback(self) -> NoReturn:
        """Refuse: the work of other jobs may be in the same transaction."""
        raise UsageError("a job does not roll back", remedy="raise an error, or use session.begin_nested()")


@dataclass(frozen=True, slots=True)
class Runner:
    """What a worker process runs one kind of job with."""

    job: Job
    function: JobFunction
    engine: Engine
    worker: str
    heartbeat: Heartbeat
    wants_context: bool = False

    def call(self, session: Session, context: Context) -> dict[str, Any]:
        """Run the function on an open transaction and return what it counted."""
        claim = context.claim
        payload = self.job.parse(claim.args)
        context.check()
        more = (context,) if self.wants_context else ()
        return asdict(self.function(session, claim.started_at, payload, *more))


def wants_context(function: Callable[..., Any]) -> bool:
    """Tell whether a job's function asks for a fourth argument."""
    return len(inspect.signature(function).parameters) > 3


@dataclass(frozen=True, slots=True)
class Ended:
    """What became of one message's job. `outcome` is None where there was nothing to claim."""

    outcome: Outcome | None
    result: dict[str, Any] | None = None
    error: BaseException | None = None


class Attempt:
    """One attempt at a claimed job, in a transaction of its own: run it, and then see that it ends."""

    def __init__(self, runner: Runner, claim: ledger.Claim, connection: Connection | None = None) -> None:
        self.runner = runner
        self.claim = claim
        self.result: dict[str, Any] = {}
        self._connection = connection
        self._context = Context(claim, runner.engine.begin)
        self._started = time.monotonic()
        self._sent = False
        self._answer: bool | BaseException | None = None
        self._ended: Ended | None = None
        self._open = ExitStack()

    def run(self) -> bool:
        """Run the job and send its COMMIT; False where it has failed."""
        runner, claim, context = self.runner, self.claim, self._context
        try:
            with ExitStack() as stack:
                session = stack.enter_context(
                    JobSession(self._connection if self._connection is not None else runner.engine)
                )
                stack.enter_context(session.begin())
                stack.push(self._cut)
                with runner.heartbeat.holding([context]):
                    connection = self._connection = session.connection()
                    transaction = connection.get_transaction()
                    self.result = runner.call(session, context)
                    while (nested := session.get_nested_transaction()) is not None:
                        nested.commit()  # the job has left it open; after the COMMIT it would be missed
                    session.flush()
                    if connection.get_transaction() is not transaction:
                        raise UsageError(
                            "a job does not end its transaction", remedy="return, and it is committed"
                        )
                    self._sent = True
                    ledger.send_finish(connection, claim, self.result, context.done, context.total)
                self._open = stack.pop_all()
        except BaseException as error:
            self._fail(error)
            return False
        return True

    def _cut(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        """Close a connection whose answer is still to come: its rollback would fail, in place of what has happened."""
        connection = self._connection
        if error is None or connection is None or connection.closed or connection.invalidated:
            return
        if driver_of(connection).pgconn.transaction_status == TransactionStatus.ACTIVE:
            connection.invalidate()

    def hear(self) -> None:
        """Wait for the answer to the COMMIT. A time limit that interrupts this is raised, and it can be called again."""
        if self._ended is None and self._answer is None:
            assert self._connection is not None
            try:
                self._answer = ledger.await_finish(self._connection)
            except SoftTimeLimitExceeded:
                raise
            except BaseException as error:
                self._answer = error

    def end(self) -> Ended:
        """Wait for the commit and return how the job ended."""
        if self._ended is None:
            try:
                # SQLAlchemy ends the transaction then too, and finds nothing left to do.
                with self._open:
                    self.hear()
                    if isinstance(self._answer, BaseException):
                        raise self._answer
                    if not self._answer:
                        raise Cancelled(
                            f"job {self.claim.id} was taken from this worker while it ran: its work is rolled back"
                        )
            except BaseException as error:
                self._fail(error)
            else:
                self._succeed()
        assert self._ended is not None
        return self._ended

    def raise_exit(self) -> None:
        """Raise what told this process to end while the answer was waited for."""
        if isinstance(self._answer, BaseException) and not isinstance(self._answer, Exception):
            raise self._answer

    def _succeed(self, error: BaseException | None = None) -> None:
        seconds = round(time.monotonic() - self._started, 3)
        tell_success(self.runner.job, self.claim, seconds, self.result)
        self._ended = Ended(SUCCEEDED, self.result, error)

    def _fail(self, error: BaseException) -> None:
        connection, context = self._connection, self._context
        if connection is not None:
            if connection.in_transaction():
                connection.invalidate()  # the job has tampered with it, and what it holds would be in the way
            connection.close()  # the pool may have no other for what is recorded
        outcome = RELEASED if stops() else weigh_attempt(self.runner.job, context, error)
        state = record_failures(
            self.runner.engine, [ledger.Settled(self.claim, outcome, progress=(context.done, context.total))]
        )
        if self._sent and not state and has_succeeded(self.runner.engine, self.claim):
            # The COMMIT arrived, and only its answer was lost. What told the process to end is still to be heard.
            self._succeed(None if isinstance(error, Exception) else error)
            return
        tell_failure(self.runner.job, self.claim, outcome, state.get(self.claim.id), error)
        self._ended = Ended(outcome, error=error)


def run_claimed(runner: Runner, claim: ledger.Claim) -> Ended:
    """Run a claimed job in a transaction of its own, and record how it ended."""
    attempt = Attempt(runner, claim)
    attempt.run()
    return attempt.end()


class Last:
    """The last job of this process, while its COMMIT is on its way: the next message is fetched meanwhile."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: tuple[Attempt, ExitStack] | None = None
        self._wake = threading.Event()
        self._pid: int | None = None

    def keep(self, attempt: Attempt, held: ExitStack) -> None:
        """Leave an attempt to be ended; `held` is closed then."""
        with self._lock:
            self._end()  # of another thread, where a worker has several (`--pool threads`)
            self._kept = (attempt, held)
        if self._pid != os.getpid():
            self._pid = os.getpid()
            threading.Thread(target=self._watch, name="last", daemon=True).start()
        self._wake.set()

    def end(self) -> None:
        """See that the kept attempt has ended, if there is one.

        What interrupts this is meant for others, and raised: a time limit for the job that comes next (the thread waits
        on, then), an exit for the process.
        """
        with self._lock:
            self._end()

    def _end(self) -> None:
        if self._kept is None:
            return
        attempt, held = self._kept
        attempt.hear()
        self._kept = None
        with held:
            attempt.end()
        attempt.raise_exit()

    def wait(self, seconds: float) -> None:
        """Give the thread so long to see to the kept attempt: this process is about to end, and it with it."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0 and self._lock.acquire(timeout=left):
            is_over = self._kept is None
            self._lock.release()
            if is_over:
                return
            time.sleep(LOOK_SECONDS / 2)

    def _watch(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            time.sleep(LOOK_SECONDS)
            try:
                self.end()
            except Exception as error:
                # This thread must outlive it; the rescue finds the job if it has not ended.
                log.error("a job's end is not known", action="end_not_known", error=describe(error))


def stops() -> bool:
    """Tell whether this process was told to end. The error at hand may be what came of unwinding."""
    return bool(common.terminate_handler_fired())  # type: ignore[attr-defined]  # new in billiard 4.3


def weigh_attempt(job: Job, context: Context, error: BaseException) -> Outcome:
    """Return what follows from an error of this job."""
    if context.is_to_stop and is_out_of_time(error):
        error = Cancelled(context.why)  # the heartbeat interrupts with the signal of the time limit
    return weigh(error, job, context.attempt, context.max_attempts, random.random())


def record_failures(engine: Engine, settled: Sequence[ledger.Settled]) -> dict[UUID, str]:
    """Record how these jobs ended in a transaction of its own, and return their states."""
    if not settled:
        return {}
    for last in (False, True):
        try:
            with engine.begin() as connection:
                return ledger.settle(connection, settled)
        except (SQLAlchemyError, psycopg.Error) as error:
            # A connection that broke while nobody used it gives way to a new one.
            if is_connection_loss(error) and not last:
                continue
            # The database is away. The heartbeat has stopped, so the rescue takes it from here.
            ids = [str(s.claim.id) for s in settled]
            log.error("failure not recorded", action="failure_not_recorded", ids=ids, error=describe(error))
            break
    return {}


def has_succeeded(engine: Engine, claim: ledger.Claim) -> bool:
    """Whether this attempt is on record as the one that succeeded; False where nobody can be asked."""
    try:
        with engine.connect() as connection:
            return ledger.has_succeeded(connection, claim)
    except SQLAlchemyError:
        return False


def tell_success(job: Job, claim: ledger.Claim, seconds: float, result: dict[str, Any]) -> None:
    """Log a job that succeeded."""
    log.info(
        f"{job.name} succeeded",
        action="job_succeeded",
        job=job.name,
        id=str(claim.id),
        seconds=seconds,
        result=result,
    )


def tell_failure(
    job: Job, claim: ledger.Claim, outcome: Outcome, state: str | None, error: BaseException
) -> None:
    """Log a job that did not succeed."""
    released = outcome is RELEASED
    log.warning(
        f"{job.name} stopped with its worker" if released else f"{job.name} failed",
        action="job_released" if released else "job_failed",
        job=job.name,
        id=str(claim.id),
        attempt=claim.attempt,
        state=state,
        error=describe(error),
    )

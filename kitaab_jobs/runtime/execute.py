"""One job, from its message to its end.

1. Claim the row (or drop the message: somebody else has it, or it has ended).
2. Check the payload against the contract.
3. Run the job in a transaction, with the heartbeat beside it.
4. Mark it succeeded in that same transaction, so its effects happen once.
5. On an error: roll back, then record the error and what follows in a transaction of its own. A job
   that is stopped with its worker is given back instead.

Killed between any two of these, the row says `running` with a heartbeat that has stopped, and the
relay's rescue makes it ready again.
"""

from __future__ import annotations

import inspect
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, NoReturn, Protocol
from uuid import UUID

import psycopg
from billiard import common
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError, TimeoutError
from sqlalchemy.orm import Session

from kitaab_jobs.contract import Job
from kitaab_jobs.db.retries import is_connection_loss, is_contention
from kitaab_jobs.errors import Cancelled, ServerError, UsageError
from kitaab_jobs.runtime import ledger
from kitaab_jobs.runtime.context import Context
from kitaab_jobs.runtime.heartbeat import Heartbeat
from kitaab_jobs.runtime.logs import logger
from kitaab_jobs.runtime.outcome import RELEASED, SUCCEEDED, Outcome, describe, is_out_of_time, weigh

log = logger(__name__)


class Report(Protocol):
    """What a job returns: a dataclass of counts."""

    __dataclass_fields__: ClassVar[dict[str, Any]]


class JobFunction(Protocol):
    """What the decorator registers: (session, now, payload), and the context where the function wants it."""

    def __call__(self, *arguments: Any) -> Report:
        """Run the job."""


class NotStarted(ServerError):
    """The database cannot be reached, so the job was not started"""


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


def execute(
    runner: Runner,
    id: UUID,
    args: dict[str, Any],
    canvas: dict[str, Any] | None = None,
    *,
    from_ledger: bool = False,
) -> Ended:
    """Run the job with that id and say how it ended.

    A message that is not `from_ledger` was sent by a plain Celery client: its row is written first. Raises
    `NotStarted` where nothing is known of the job yet, so that its message must be kept.
    """
    with connected(runner.engine, f"{runner.job.name} {id}") as connection:
        claims = claim_or_record(connection, runner, id, None if from_ledger else args, canvas)
        if not claims:
            log.info("message dropped: its job has started or ended", action="message_dropped", id=str(id))
            return Ended(None)
        return run_claimed(runner, claims[0], connection)


def run_claimed(runner: Runner, claim: ledger.Claim, connection: Connection | None = None) -> Ended:
    """Run a claimed job in a transaction of its own, and record how it ended."""
    context = Context(claim, runner.engine.begin)
    started = time.monotonic()
    try:
        with (
            runner.heartbeat.holding([context]),
            JobSession(connection if connection is not None else runner.engine) as session,
            session.begin(),
        ):
            result = runner.call(session, context)
            if not ledger.finish(session.connection(), claim, result, context.done, context.total):
                raise Cancelled(
                    f"job {claim.id} was taken from this worker while it ran: its work is rolled back"
                )
    except BaseException as error:
        if connection is not None and connection.in_transaction():
            connection.invalidate()  # the job has tampered with it, and what it holds would be in the way
        outcome = RELEASED if stops() else weigh_attempt(runner.job, context, error)
        state = record_failures(
            runner.engine, [ledger.Settled(claim, outcome, progress=(context.done, context.total))]
        )
        tell_failure(runner.job, claim, outcome, state.get(claim.id), error)
        return Ended(outcome, error=error)
    tell_success(runner.job, claim, round(time.monotonic() - started, 3), result)
    return Ended(SUCCEEDED, result)


def claim_or_record(
    connection: Connection,
    runner: Runner,
    id: UUID,
    args: dict[str, Any] | None,
    canvas: dict[str, Any] | None,
) -> list[ledger.Claim]:
    """Claim a job; with `args` it came as a message only, so its row is written where there is none."""
    claims = claim_at_once(connection, runner, [id])
    if not claims and args is not None:
        with connection.begin():
            ledger.record(connection, id, runner.job, args, canvas)
            claims = ledger.claim(connection, [id], runner.worker)
    return claims


def claim_at_once(connection: Connection, runner: Runner, ids: Sequence[UUID]) -> list[ledger.Claim]:
    """Claim jobs in one trip to the server: the statement is its own transaction.

    The connection may be one that broke since it was last used (nobody asks it first, which would be a trip for each
    job), so there is a second try. Had the first been committed unheard, the rescue finds those jobs.
    """
    driver: psycopg.Connection = connection.connection.driver_connection  # type: ignore[assignment]  # SQLAlchemy's own type
    try:
        driver.autocommit = True
        claims = ledger.claim(connection, ids, runner.worker, quick=True)
        driver.autocommit = False
        return claims
    except BaseException as error:
        connection.invalidate()  # whatever it was, nobody may take this connection for one that opens transactions
        if not isinstance(error, psycopg.Error) or not is_connection_loss(error):
            raise
    with connection.begin():
        return ledger.claim(connection, ids, runner.worker)


class connected:  # reads as a verb: with connected(...)
    """A connection for one message. What goes wrong before the claim is committed is `NotStarted`."""

    def __init__(self, engine: Engine, what: str) -> None:
        self._engine = engine
        self._what = what
        self._connection: Connection | None = None

    def __enter__(self) -> Connection:
        try:
            self._connection = self._engine.connect()
        except SQLAlchemyError as error:
            raise self._not_started(error) from error
        return self._connection

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        assert self._connection is not None
        self._connection.close()
        # Whatever comes after the claim is recorded there, and does not come up to here.
        if isinstance(error, SQLAlchemyError | psycopg.Error) and (
            is_connection_loss(error) or is_contention(error) or isinstance(error, TimeoutError)
        ):
            raise self._not_started(error) from error

    def _not_started(self, error: BaseException) -> NotStarted:
        return NotStarted(f"{self._what} was not started: {describe(error)}")


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

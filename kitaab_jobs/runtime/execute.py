"""One delivered message, from claim to finish.

1. Claim the row (or drop the message: somebody else has it, or it has ended).
2. Check the payload against the contract.
3. Run the job in a transaction, with a heartbeat beside it.
4. Mark it succeeded in that same transaction, so its effects happen once.
5. On an error: roll back, then record the error and the next attempt in a transaction of its own. A job
   that is stopped with its worker is given back instead.

Killed between any two of these, the row says `running` with a heartbeat that has stopped, and the
relay's rescue makes it ready again.
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, ClassVar, Protocol
from uuid import UUID

from billiard import common
from celery.exceptions import SoftTimeLimitExceeded
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError, TimeoutError
from sqlalchemy.orm import Session

from kitaab_jobs.contract import Job, Payload
from kitaab_jobs.db.retries import is_connection_loss, is_contention
from kitaab_jobs.errors import Cancelled, KitaabError, ServerError, UsageError
from kitaab_jobs.runtime import ledger
from kitaab_jobs.runtime.heartbeat import beating
from kitaab_jobs.runtime.logs import logger

log = logger(__name__)


class Report(Protocol):
    """What a job returns: a dataclass of counts."""

    __dataclass_fields__: ClassVar[dict[str, Any]]


JobFunction = Callable[[Session, dt.datetime, Any], Report]


class NotStarted(ServerError):
    """The database cannot be reached, so the job was not started"""


def execute(
    job: Job, function: JobFunction, id: UUID, args: dict[str, Any], *, engine: Engine, worker: str
) -> dict[str, Any] | None:
    """Run the job with that id and return its result, or None where there was nothing to claim.

    Raises what the job raised, after it was recorded, so that Celery and Flower show it too, and
    `NotStarted` where nothing is known of the job yet, so that its message must be kept.
    """
    claim = _claim(job, id, args, engine, worker)
    if claim is None:
        log.info("message dropped: its job has started or ended", action="message_dropped", id=str(id))
        return None
    started = time.monotonic()
    try:
        result = _run(job, function, claim, engine)
    except BaseException as error:
        stopped = _stops()
        state = _record_failure(claim, error, engine, stopped=stopped)
        log.warning(
            f"{job.name} stopped with its worker" if stopped else f"{job.name} failed",
            action="job_released" if stopped else "job_failed",
            job=job.name,
            id=str(id),
            attempt=claim.attempt,
            state=state,
            error=describe(error),
        )
        raise
    seconds = round(time.monotonic() - started, 3)
    log.info(
        f"{job.name} succeeded",
        action="job_succeeded",
        job=job.name,
        id=str(id),
        seconds=seconds,
        result=result,
    )
    return result


def _claim(job: Job, id: UUID, args: dict[str, Any], engine: Engine, worker: str) -> ledger.Claim | None:
    try:
        with engine.begin() as connection:
            claim = ledger.claim(connection, id, worker)
            if claim is None:
                ledger.record(connection, id, job, args)
                claim = ledger.claim(connection, id, worker)
            return claim
    except SQLAlchemyError as error:
        if is_connection_loss(error) or is_contention(error) or isinstance(error, TimeoutError):
            raise NotStarted(f"{job.name} {id} was not started: {describe(error)}") from error
        raise


def _run(job: Job, function: JobFunction, claim: ledger.Claim, engine: Engine) -> dict[str, Any]:
    payload: Payload = job.parse(claim.args)
    with beating(engine, claim), Session(engine) as session, session.begin():
        result = asdict(function(session, claim.started_at, payload))
        if not ledger.finish(session, claim, result):
            raise Cancelled(
                f"job {claim.id} was taken from this worker while it ran: its work is rolled back"
            )
    return dict(result)


def _stops() -> bool:
    """Tell whether this process was told to end. The error at hand may be what came of unwinding."""
    return bool(common.terminate_handler_fired())  # type: ignore[attr-defined]  # new in billiard 4.3


def _record_failure(
    claim: ledger.Claim, error: BaseException, engine: Engine, *, stopped: bool
) -> str | None:
    try:
        with engine.begin() as connection:
            if stopped:
                return ledger.release(connection, claim, "its worker was stopped while it ran")
            return ledger.fail(connection, claim, describe(error), permanent=isinstance(error, UsageError))
    except SQLAlchemyError as second:
        # The database is away. The heartbeat has stopped, so the rescue takes it from here.
        log.error("failure not recorded", action="failure_not_recorded", id=str(claim.id), error=str(second))
        return None


def describe(error: BaseException) -> str:
    """Return one line for the ledger: the type and the message.

    Without SQLAlchemy's echo of the SQL, and without PostgreSQL's DETAIL: both quote people's data.
    """
    if isinstance(error, KitaabError):
        return str(error)
    if isinstance(error, SoftTimeLimitExceeded):
        return "the job ran longer than its time limit"
    origin = getattr(error, "orig", None) or error
    message = next(iter(str(origin).strip().splitlines()), "")
    return f"{type(origin).__name__}: {message}".strip().removesuffix(":")

"""The decorator that makes a function a job.

    @job(contract.PROGRESS_REFRESH)
    def refresh(session: Session, now: datetime, payload: Batch) -> Report: ...

The function gets an open transaction, the instant at which it started (the database's clock) and its payload, and
returns a dataclass of counts. One that asks for a fourth argument gets its `Context`: its id, its attempt, a place
to say how far it is, and whether it is to stop. Everything else about the job is in contract.py.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any
from uuid import NAMESPACE_OID, UUID, uuid5

from celery import Task
from celery.exceptions import Ignore, Reject, Retry, SoftTimeLimitExceeded
from sqlalchemy.exc import SQLAlchemyError

from kitaab_jobs.contract import Job
from kitaab_jobs.db.engines import primary
from kitaab_jobs.errors import BadPayload, KitaabError
from kitaab_jobs.runtime import arrival, canvas, ledger
from kitaab_jobs.runtime.app import app
from kitaab_jobs.runtime.attempt import Ended, Last, Runner, wants_context
from kitaab_jobs.runtime.batch import execute_batch
from kitaab_jobs.runtime.execute import NotStarted, execute
from kitaab_jobs.runtime.heartbeat import Heartbeat
from kitaab_jobs.runtime.messages import FROM_LEDGER, MANY
from kitaab_jobs.runtime.outcome import describe

# After the soft limit a job has this long to end before its process is killed.
HARD_LIMIT_GRACE_SECONDS = 30
# Without the database nothing can run: a message goes back to the queue, but not in a tight loop.
NOT_STARTED_PAUSE_SECONDS = 2.0

LAST = Last()
REGISTERED: dict[str, Callable[..., Any]] = {}


class JobFailed(KitaabError):
    """The job ended without success"""


def job(kind: Job) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a function as the job `kind` with Celery."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        with_context = wants_context(function)

        def task(self: Task[Any, Any], /, *given: Any, **args: Any) -> Any:
            worker = f"{self.request.hostname}/{os.getpid()}"
            engine = primary("kitaab-jobs job", ping=False)
            runner = Runner(kind, function, engine, worker, heartbeat(), with_context)
            try:
                _end_last(kind)
                if MANY in args:
                    return execute_batch(runner, [UUID(id) for id in args[MANY]])
                id = job_id(str(self.request.id))
                if given and not self.request.parent_id:
                    return _refuse_positional(runner, id, given)
                from_ledger = bool((self.request.headers or {}).get(FROM_LEDGER))
                after = canvas.of_request(self.request)
                last = LAST if from_ledger and self.request.ignore_result and not after else None
                ended = execute(runner, id, args, after, from_ledger=from_ledger, last=last)
                return _tell_celery(runner, id, ended)
            except NotStarted as error:
                time.sleep(NOT_STARTED_PAUSE_SECONDS)
                raise Reject(str(error), requeue=True) from None

        task.__doc__ = function.__doc__
        app.task(
            name=kind.name,
            bind=True,
            soft_time_limit=kind.time_limit,
            time_limit=kind.time_limit + HARD_LIMIT_GRACE_SECONDS,
        )(task)
        REGISTERED[kind.name] = function
        return function

    return register


def _end_last(kind: Job) -> None:
    """See to the last job of this process; the time limit of the next runs meanwhile, and may be over before it began."""
    try:
        LAST.end()
    except SoftTimeLimitExceeded:
        raise NotStarted(f"{kind.name} was not started: the end of the job before it is not known") from None


def job_id(given: str) -> UUID:
    """Return the ledger's id for a message's. Celery's ids are UUIDs, but a client may choose any text."""
    try:
        return UUID(given)
    except ValueError:
        return uuid5(NAMESPACE_OID, given)


@lru_cache(maxsize=1)
def heartbeat() -> Heartbeat:
    """Return the heartbeat of this process."""
    return Heartbeat(primary("kitaab-jobs worker"), interrupt=_interrupt, kill=_kill)


def _interrupt() -> None:
    """Raise in the job, wherever it is: the signal with which a worker tells that the time is over."""
    if callable(signal.getsignal(signal.SIGUSR1)):
        os.kill(os.getpid(), signal.SIGUSR1)


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _tell_celery(runner: Runner, id: UUID, ended: Ended) -> dict[str, Any] | None:
    """Return or raise what makes Celery and Flower show what the ledger says, and its canvas go on or not."""
    if ended.outcome is None:
        return _ended_before(runner, id)
    if ended.error is None:
        return ended.result
    if not isinstance(ended.error, Exception):
        raise ended.error
    # Celery logs what is raised, with its causes, and Flower shows it: only the ledger's line goes there, since
    # errors of the database quote people's data.
    if ended.outcome.is_over:
        raise JobFailed(describe(ended.error)) from None
    raise Retry(describe(ended.error), when=ended.outcome.wait) from None  # type: ignore[arg-type]  # seconds


def _ended_before(runner: Runner, id: UUID) -> dict[str, Any] | None:
    """Answer a second message of one job: with the first one's result where there is one, so that a chain that was
    cut between the commit and the next message goes on."""
    try:
        with runner.engine.connect() as connection:
            found = ledger.ended(connection, id)
    except SQLAlchemyError:
        raise Ignore from None
    if found is None or found[0] != "succeeded":
        raise Ignore
    return found[1]


def _refuse_positional(runner: Runner, id: UUID, given: tuple[Any, ...]) -> None:
    error = BadPayload(
        f"{runner.job.name}: arguments have names, and {len(given)} came without",
        remedy="send them as kwargs",
    )
    with runner.engine.begin() as connection:
        arrival.refuse(connection, id, runner.job, str(error))
    raise error

"""How an attempt ended, and what follows: the one place where errors are weighed."""

from __future__ import annotations

from dataclasses import dataclass

import psycopg
from celery.exceptions import SoftTimeLimitExceeded
from sqlalchemy.exc import DBAPIError

from kitaab_jobs.contract import Job
from kitaab_jobs.db.retries import is_connection_loss, is_contention
from kitaab_jobs.errors import Cancelled, KitaabError, Permanent, Retryable, Snooze, UsageError, causes


@dataclass(frozen=True, slots=True)
class Outcome:
    """The state that follows, whether the attempt counts, and after how many seconds it is tried again."""

    state: str
    counts: bool = True
    wait: float | None = None
    error: str | None = None

    @property
    def is_over(self) -> bool:
        """Whether the job has ended."""
        return self.state in ("succeeded", "dead", "cancelled")


SUCCEEDED = Outcome("succeeded")
# The work is rolled back, or was not begun: that is nobody's failure, so it is no attempt, and it keeps its place.
RELEASED = Outcome("ready", counts=False, error="its worker gave it back")


def weigh(error: BaseException, job: Job, attempt: int, max_attempts: int, luck: float) -> Outcome:
    """Return what follows from `error` in attempt number `attempt`; `luck` is from 0 to 1.

    A database error is tried again only where somebody else was in the way or the connection broke:
    whatever else the database refuses, it refuses the next time too.
    """
    said = describe(error)
    if isinstance(error, Cancelled):
        return Outcome("cancelled", error=said)
    if isinstance(error, Snooze):
        return Outcome("scheduled", counts=False, wait=error.after, error=said)
    hopeless = isinstance(error, Permanent | UsageError) or (
        isinstance(error, DBAPIError | psycopg.Error)
        and not (is_contention(error) or is_connection_loss(error) or is_out_of_time(error))
    )
    if hopeless or attempt >= max_attempts:
        return Outcome("dead", error=said)
    wait = error.after if isinstance(error, Retryable) else None
    return Outcome("scheduled", wait=backoff(job, attempt, luck) if wait is None else wait, error=said)


def is_out_of_time(error: BaseException) -> bool:
    """Tell whether the time limit is behind it: in the middle of a statement, the driver stumbles over it and
    raises an error of its own."""
    return any(isinstance(behind, SoftTimeLimitExceeded) for behind in causes(error))


def backoff(job: Job, attempt: int, luck: float) -> float:
    """Return the seconds from attempt number `attempt` to the next."""
    whole = min(job.backoff.cap, job.backoff.base * 2.0 ** min(attempt - 1, 60))
    return whole * (0.5 + luck / 2)


def describe(error: BaseException) -> str:
    """Return one line for the ledger: the type and the message.

    Without SQLAlchemy's echo of the SQL, and without PostgreSQL's DETAIL: both quote people's data.
    """
    if isinstance(error, KitaabError):
        return str(error)
    if is_out_of_time(error):
        return "the job ran longer than its time limit"
    origin = getattr(error, "orig", None) or error
    message = next(iter(str(origin).strip().splitlines()), "")
    return f"{type(origin).__name__}: {message}".strip().removesuffix(":")

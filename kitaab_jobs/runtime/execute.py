"""One job, from its message to its end.

1. Claim the row (or drop the message: somebody else has it, or it has ended).
2. Check the payload against the contract.
3. Run the job in a transaction, with the heartbeat beside it.
4. Mark it succeeded in that same transaction, so its effects happen once.
5. On an error: roll back, then record the error and what follows in a transaction of its own. A job
   that is stopped with its worker is given back instead.

Killed between any two of these, the row says `running` with a heartbeat that has stopped, and the
relay's rescue makes it ready again. What comes after the claim is in attempt.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any
from uuid import UUID

import psycopg
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError, TimeoutError

from kitaab_jobs.db.retries import is_connection_loss, is_contention
from kitaab_jobs.errors import ServerError
from kitaab_jobs.runtime import arrival, ledger
from kitaab_jobs.runtime.attempt import Attempt, Ended, Last, Runner
from kitaab_jobs.runtime.logs import logger
from kitaab_jobs.runtime.outcome import SUCCEEDED, describe
from kitaab_jobs.runtime.trips import driver_of

log = logger(__name__)

# The transaction of a job is begun with its claim, unless the job may take so long before its first statement that the
# server would take the session for forgotten (idle_in_transaction_session_timeout, ten minutes).
STAY_SECONDS = 300


class NotStarted(ServerError):
    """The database cannot be reached, so the job was not started"""


def execute(
    runner: Runner,
    id: UUID,
    args: dict[str, Any],
    canvas: dict[str, Any] | None = None,
    *,
    from_ledger: bool = False,
    last: Last | None = None,
) -> Ended:
    """Run the job with that id and say how it ended. With `last` a commit that is on its way counts as a success: what
    becomes of it is seen to when `last` is asked to end.

    A message that is not `from_ledger` was sent by a plain Celery client: its row is written first. Raises
    `NotStarted` where nothing is known of the job yet, so that its message must be kept.
    """
    with ExitStack() as stack:
        connection = stack.enter_context(connected(runner.engine, f"{runner.job.name} {id}"))
        claims = claim_or_record(connection, runner, id, None if from_ledger else args, canvas)
        if not claims:
            log.info("message dropped: its job has started or ended", action="message_dropped", id=str(id))
            return Ended(None)
        attempt = Attempt(runner, claims[0], connection)
        if not attempt.run() or last is None:
            return attempt.end()
        last.keep(attempt, stack.pop_all())
        return Ended(SUCCEEDED, attempt.result)


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
            arrival.record(connection, id, runner.job, args, canvas)
            claims = ledger.claim(connection, [id], runner.worker)
    return claims


def claim_at_once(connection: Connection, runner: Runner, ids: Sequence[UUID]) -> list[ledger.Claim]:
    """Claim jobs in one trip to the server: the statement is its own transaction.

    The connection may be one that broke since it was last used (nobody asks it first, which would be a trip for each
    job), so there is a second try. Had the first been committed unheard, the rescue finds those jobs.
    """
    try:
        if len(ids) == 1:
            claim = ledger.start(
                connection, ids[0], runner.worker, stay=runner.job.time_limit <= STAY_SECONDS
            )
            if claim is not None:
                return [claim]
        driver = driver_of(connection)
        driver.rollback()
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

"""Many small jobs of one kind from one message: claimed in one statement, finished in one commit.

One that fails is set aside with its own error, and the rest commit. A savepoint for each job would do it, and cost a
trip to the server for each, a fifth of what a small job costs; so a few of them share one. When one of these
fails, the others are taken back with it and run again, from there on with a savepoint each. Jobs that ask for their
context may have written apart what they did outside: they have a savepoint each from the start, and run once.

What breaks the transaction (a lost connection, a job that was taken away, a result that cannot be stored) rolls all
of it back, and the jobs are run one by one, under the same claims. Jobs that a slow one keeps waiting are given back.

Killed half-way, all effects are rolled back with the transaction. Which job was at work nobody knows then, so the
rescue counts no attempt, and starts each of them alone the next time: that one is to blame which dies again.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from uuid import UUID

from psycopg.pq import ExecStatus, TransactionStatus
from sqlalchemy import Connection

from kitaab_jobs.db.retries import is_connection_loss
from kitaab_jobs.runtime import ledger
from kitaab_jobs.runtime.attempt import (
    JobSession,
    Runner,
    record_failures,
    run_claimed,
    stops,
    tell_failure,
    tell_success,
    weigh_attempt,
)
from kitaab_jobs.runtime.context import Context
from kitaab_jobs.runtime.execute import claim_at_once, connected
from kitaab_jobs.runtime.heartbeat import Held
from kitaab_jobs.runtime.logs import logger
from kitaab_jobs.runtime.outcome import SUCCEEDED, describe
from kitaab_jobs.runtime.trips import driver_of

log = logger(__name__)

# After so many seconds of work a batch is closed, and what has not begun goes back to the ledger.
BUDGET_SECONDS = 1.0
# So many jobs share a savepoint while none has failed. (More than 64 savepoints in a transaction would also make
# everybody else's look at its rows slower.)
STRETCH = 10


class Broken(Exception):
    """The transaction of a batch cannot be committed"""


class Waiting:
    """Jobs of a batch that have not begun. The heartbeat takes them away when one ahead of them is slow."""

    def __init__(self, contexts: Sequence[Context]) -> None:
        self._left = deque(contexts)
        self._lock = threading.Lock()
        self._began = time.monotonic()

    def next(self) -> Context | None:
        """Return the next job to begin, or None."""
        with self._lock:
            if time.monotonic() - self._began > BUDGET_SECONDS or stops():
                return None
            return self._left.popleft() if self._left else None

    def take_back(self) -> list[Context]:
        """Return all that have not begun; they will not begin here."""
        with self._lock:
            left = list(self._left)
            self._left.clear()
            return left

    @property
    def seconds(self) -> float:
        """How long the batch has been at work."""
        return time.monotonic() - self._began


def execute_batch(runner: Runner, ids: Sequence[UUID]) -> dict[str, int]:
    """Run these jobs and return how many ended in which state; a job that somebody else has is left out.

    Raises `NotStarted` where nothing could be claimed because the database is away.
    """
    with connected(runner.engine, f"{len(ids)} {runner.job.name}") as connection:
        claims = claim_at_once(connection, runner, ids)
        contexts = [Context(claim, runner.engine.begin) for claim in claims]
        try:
            states = _together(runner, contexts, connection) if contexts else {}
        except Exception as error:
            log.warning(
                "batch broken: its jobs run one by one",
                action="batch_broken",
                job=runner.job.name,
                jobs=len(claims),
                error=describe(error),
            )
            # Whatever the job has done to the transaction, what it still holds would be in the way.
            connection.invalidate()
            states = _one_by_one(runner, claims)
    counts: dict[str, int] = {}
    for state in states.values():
        counts[state] = counts.get(state, 0) + 1
    return counts


def _together(runner: Runner, contexts: Sequence[Context], connection: Connection) -> dict[UUID, str]:
    waiting = Waiting(contexts)
    with runner.heartbeat.holding(contexts) as held:
        held.on_beat = lambda: _free_what_waits(runner, waiting, held)
        try:
            with connection.begin(), _Sessions(connection) as sessions:
                settled, failures = _all(runner, sessions, waiting)
                settled += ledger.released(context.claim for context in waiting.take_back())
                states = ledger.settle(connection, settled)
                if len(states) < len(settled):
                    raise Broken(f"{len(settled) - len(states)} jobs were taken from this worker")
        except BaseException as error:
            if isinstance(error, Exception) and not stops():
                raise
            # Told to stop: everything is rolled back, so everything goes back, at no attempt.
            record_failures(runner.engine, ledger.released(context.claim for context in held.contexts))
            raise
    for done in settled:
        if done.outcome is SUCCEEDED and done.result is not None:
            seconds = round((done.ended or 0) - (done.started or 0), 3)
            tell_success(runner.job, done.claim, seconds, done.result)
    for failed, why in failures:
        tell_failure(runner.job, failed.claim, failed.outcome, states.get(failed.claim.id), why)
    return states


class _Sessions:
    """The session of a batch's jobs: each finds it empty, and after an error there is a new one.

    The transaction is not the session's to end: neither its close nor an error in it touches the batch's.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._session: JobSession | None = None

    def __enter__(self) -> _Sessions:
        return self

    def __exit__(self, *_: object) -> None:
        self.renew()

    @property
    def status(self) -> int:
        """In what state the transaction is, as the driver knows it: the server is not asked."""
        return driver_of(self.connection).pgconn.transaction_status

    def get(self) -> JobSession:
        """Return the session for the next job."""
        if self._session is None:
            self._session = JobSession(self.connection, join_transaction_mode="rollback_only")
        return self._session

    def renew(self) -> None:
        """Let go of the session, in whatever state a job has left it."""
        if self._session is not None:
            self._session.close()
            self._session = None


def _all(
    runner: Runner, sessions: _Sessions, waiting: Waiting
) -> tuple[list[ledger.Settled], list[tuple[ledger.Settled, BaseException]]]:
    """Run what waits, and return how each job ended, and those that failed with their errors."""
    settled: list[ledger.Settled] = []
    failures: list[tuple[ledger.Settled, BaseException]] = []
    most = 1 if runner.wants_context else STRETCH
    stretch: list[tuple[Context, ledger.Settled]] = []
    again: deque[Context] = deque()
    _savepoint(sessions.connection, "BEGIN; SAVEPOINT job")
    while (context := again.popleft() if again else waiting.next()) is not None:
        done, error = _one(runner, sessions, context, waiting)
        if error is None:
            stretch.append((context, done))
            if len(stretch) >= most:
                _savepoint(sessions.connection, "RELEASE SAVEPOINT job; SAVEPOINT job")
                settled += (done for _, done in stretch)
                stretch.clear()
        else:
            _savepoint(sessions.connection, "ROLLBACK TO SAVEPOINT job")
            settled.append(done)
            failures.append((done, error))
            again.extend(context for context, _ in stretch)
            stretch.clear()
            most = 1
    settled += (done for _, done in stretch)
    return settled, failures


def _one(
    runner: Runner, sessions: _Sessions, context: Context, waiting: Waiting
) -> tuple[ledger.Settled, BaseException | None]:
    """Run one job; its own error is its own, also where that would end the process."""
    context.done = context.total = None
    started = waiting.seconds
    try:
        session = sessions.get()
        result = runner.call(session, context)
        session.flush()
        session.expunge_all()
    except BaseException as error:
        if stops():
            raise
        if is_connection_loss(error):
            raise Broken(f"{runner.job.name} lost its connection: {describe(error)}") from error
        sessions.renew()
        outcome = weigh_attempt(runner.job, context, error)
        progress = (context.done, context.total)
        return ledger.Settled(context.claim, outcome, None, started, waiting.seconds, progress), error
    # Known without asking the server.
    if sessions.status != TransactionStatus.INTRANS:
        raise Broken(f"{runner.job.name} left the transaction unusable")
    progress = (context.done, context.total)
    return ledger.Settled(context.claim, SUCCEEDED, result, started, waiting.seconds, progress), None


def _savepoint(connection: Connection, command: str) -> None:
    """Do something with the savepoint in one trip and at once: it is as frequent as the jobs."""
    done = driver_of(connection).pgconn.exec_(command.encode())
    if done.status != ExecStatus.COMMAND_OK:
        raise Broken(
            f"a job left the transaction unusable: {done.error_message.decode(errors='replace').strip()}"
        )


def _free_what_waits(runner: Runner, waiting: Waiting, held: Held) -> None:
    """Give back what a slow job keeps waiting. Where that fails, the rescue finds it: nobody beats for it."""
    if waiting.seconds <= BUDGET_SECONDS:
        return
    left = waiting.take_back()
    if left:
        held.contexts = [context for context in held.contexts if context not in left]
        record_failures(runner.engine, ledger.released(context.claim for context in left))
        log.info(
            "batch closed: a job in it is slow", action="batch_closed", job=runner.job.name, jobs=len(left)
        )


def _one_by_one(runner: Runner, claims: Sequence[ledger.Claim]) -> dict[UUID, str]:
    """Run each job in a transaction of its own, under the claim that it has."""
    states: dict[UUID, str] = {}
    contexts = {claim.id: Context(claim, runner.engine.begin) for claim in claims}
    left = deque(claims)
    while left and not stops():
        claim = left.popleft()
        # What waits for its turn keeps its claim too.
        with runner.heartbeat.holding([contexts[other.id] for other in left]):
            ended = run_claimed(runner, claim)
        if ended.outcome is not None:
            states[claim.id] = ended.outcome.state
        if stops() and ended.error is not None:
            record_failures(runner.engine, ledger.released(left))
            raise ended.error
    return states | record_failures(runner.engine, ledger.released(left))

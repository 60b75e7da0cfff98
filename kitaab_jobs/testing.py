"""For the tests of applications that enqueue: what was enqueued, and running it in the test's own transaction.

    def test_registration(session):
        register(session, "person@example.org")
        assert_enqueued(session, "reminders.deliver", {"zone": "Asia/Karachi"})
        run_jobs(session)                     # runs what was enqueued; rolled back with the test
        assert session.scalar(...) == ...

What a job does outside the database (an e-mail that it sends) it does here too, with the settings of the process.

All of it takes a SQLAlchemy connection or session that sees the transaction under test, and needs the rights of
`kitaab_worker` or of the owner: an application's role may enqueue, but not read the ledger.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Engine, text
from sqlalchemy.orm import Session

from kitaab_jobs.contract import JOBS, Job, job_named
from kitaab_jobs.runtime import ledger, outbox
from kitaab_jobs.runtime.attempt import Runner, wants_context, weigh_attempt
from kitaab_jobs.runtime.context import Context
from kitaab_jobs.runtime.heartbeat import Heartbeat
from kitaab_jobs.runtime.job import REGISTERED
from kitaab_jobs.runtime.outcome import SUCCEEDED

_WAITING = text(
    """
    SELECT id, name, args, queue, priority, unique_key, run_at, state::text AS state, group_name, after_group
    FROM jobs.jobs WHERE state IN ('scheduled', 'ready') AND (CAST(:name AS text) IS NULL OR name = :name)
    ORDER BY created_at, id
    """
)
_NEXT = text(
    """
    SELECT id, name FROM jobs.jobs WHERE state = 'ready' AND NOT id = ANY (:but)
    ORDER BY priority DESC, run_at, id LIMIT 1
    """
)


@dataclass(frozen=True, slots=True)
class Enqueued:
    """A job that waits."""

    id: UUID
    name: str
    args: dict[str, Any]
    queue: str
    priority: int
    unique_key: str | None
    run_at: dt.datetime
    state: str
    group: str | None
    after_group: str | None


@dataclass(frozen=True, slots=True)
class Ran:
    """A job that was run here, and how it ended."""

    id: UUID
    name: str
    state: str
    result: dict[str, Any] | None
    error: str | None


def enqueued(session: Session | Connection, job: Job | str | None = None) -> list[Enqueued]:
    """Return the jobs that wait, of one kind or all, in the order in which they were enqueued."""
    name = job.name if isinstance(job, Job) else job
    return [Enqueued(*row) for row in session.execute(_WAITING, {"name": name})]


def assert_enqueued(
    session: Session | Connection,
    job: Job | str,
    args: Mapping[str, Any] | None = None,
    *,
    count: int | None = None,
    **expected: Any,
) -> list[Enqueued]:
    """Fail unless such a job waits, and return those that do.

    `args`: what its arguments contain at least. `count`: exactly so many. Anything else is a field of `Enqueued`:
    `queue="reminders"`, `priority=5`, `unique_key="..."`.
    """
    kind = job if isinstance(job, Job) else job_named(job)
    waiting = enqueued(session, kind)
    found = [
        one
        for one in waiting
        if all(one.args.get(key) == value for key, value in (args or {}).items())
        and all(getattr(one, name) == value for name, value in expected.items())
    ]
    wanted = f"{kind.name} with {dict(args or {})}" + "".join(f", {k} {v!r}" for k, v in expected.items())
    there = "\n".join(f"  {one.args} {one.state} in {one.queue}" for one in waiting) or "  none"
    if count is None:
        assert found, f"no {wanted} waits; of {kind.name} there are:\n{there}"
    else:
        assert len(found) == count, (
            f"{len(found)} of {wanted} wait, not {count}; of {kind.name} there are:\n{there}"
        )
    return found


def assert_not_enqueued(
    session: Session | Connection, job: Job | str, args: Mapping[str, Any] | None = None, **expected: Any
) -> None:
    """Fail if such a job waits."""
    assert_enqueued(session, job, args, count=0, **expected)


def run_jobs(session: Session, *, limit: int = 1000) -> list[Ran]:
    """Run the jobs that are ready, and those that they enqueue, in the session's transaction.

    Each has a savepoint; one that fails is recorded as a worker would. What is scheduled for later stays. Raises
    `AssertionError` after `limit` jobs: they enqueue each other without end.
    """
    for feature in sorted({job.feature for job in JOBS.values()}):
        import_module(f"kitaab_jobs.{feature}.tasks")
    connection = session.connection()
    ran: list[Ran] = []
    skipped: list[UUID] = []
    while True:
        outbox.release_groups(connection, limit)
        outbox.promote(connection, limit)
        row = connection.execute(_NEXT, {"but": skipped}).one_or_none()
        if row is None:
            return ran
        assert len(ran) < limit, f"{limit} jobs ran, and {row.name} is ready again"
        if row.name not in REGISTERED:
            skipped.append(row.id)
            continue
        ran.append(_run(session, connection.engine, row.id, JOBS[row.name]))


@contextmanager
def _inside(session: Session) -> Iterator[Connection]:
    """Yield the test's own transaction, for what a job commits apart from its work: nothing of it stays either."""
    with session.begin_nested():
        yield session.connection()


def _run(session: Session, engine: Engine, id: UUID, kind: Job) -> Ran:
    function = REGISTERED[kind.name]
    runner = Runner(kind, function, engine, "here", Heartbeat(engine), wants_context(function))
    session.connection().execute(text("UPDATE jobs.jobs SET state = 'published' WHERE id = :id"), {"id": id})
    [claim] = ledger.claim(session.connection(), [id], runner.worker)
    context = Context(claim, lambda: _inside(session))
    try:
        with session.begin_nested():
            result = runner.call(session, context)
    except Exception as error:
        outcome = weigh_attempt(kind, context, error)
        states = ledger.settle(
            session.connection(), [ledger.Settled(claim, outcome, progress=(context.done, context.total))]
        )
        return Ran(id, kind.name, states[id], None, outcome.error)
    states = ledger.settle(
        session.connection(),
        [ledger.Settled(claim, SUCCEEDED, result, progress=(context.done, context.total))],
    )
    return Ran(id, kind.name, states[id], result, None)

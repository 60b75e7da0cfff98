"""All SQL on jobs.jobs. Each change of state is one statement that names the state it comes from.

scheduled ─┐
enqueue ───┴▶ ready ─▶ published ─▶ running ─▶ succeeded
                ▲                      │
                └── scheduled (retry) ◀┼─▶ dead
                                       └─▶ cancelled
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, String, bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.dialects.postgresql import UUID as Uuid
from sqlalchemy.orm import Session

from kitaab_jobs.contract import Job

HEARTBEAT_SECONDS: float = 5

RETRY_BASE_SECONDS = 2
RETRY_CAP_SECONDS = 3600
POSTPONE_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Patience:
    """After how many seconds the rescue takes something for lost."""

    # Several beats late: a pause of the machine is not yet a death.
    running: float = 30
    # A message that is not started by then may be lost; where messages still wait, it is only late.
    published: float = 30
    published_for_sure: float = 600


PATIENCE = Patience()


@dataclass(frozen=True, slots=True)
class Ready:
    """A job to publish."""

    id: UUID
    name: str
    args: dict[str, Any]
    queue: str


@dataclass(frozen=True, slots=True)
class Claim:
    """A job that this process may run: nobody else has it until its heartbeat stops."""

    id: UUID
    name: str
    args: dict[str, Any]
    attempt: int
    max_attempts: int
    started_at: dt.datetime
    schedule: str | None
    fire_at: dt.datetime | None


# Locks what it takes and passes over what another relay has taken. The rows are published to Celery
# before this commits: a relay that dies in between leaves them ready, and the second message of the
# same job will find nothing to claim.
_TAKE_READY = text(
    """
    WITH due AS (
        SELECT id FROM jobs.jobs
        WHERE state IN ('scheduled', 'ready') AND run_at <= now()
        ORDER BY priority DESC, run_at, id
        LIMIT :limit
        FOR UPDATE SKIP LOCKED
    ), taken AS (
        UPDATE jobs.jobs AS j SET state = 'published', published_at = now()
        FROM due WHERE j.id = due.id
        RETURNING j.id, j.name, j.args, j.queue, j.priority, j.run_at
    )
    -- RETURNING keeps no order, and the first message is the first to run.
    SELECT id, name, args, queue FROM taken ORDER BY priority DESC, run_at, id
    """
)

# For a queue that this version does not know: another one may, so the job waits and says why.
_POSTPONE = text(
    """
    UPDATE jobs.jobs SET state = 'scheduled', run_at = now() + :seconds * interval '1 second', error = :reason
    WHERE id = :id AND state = 'published'
    """
)

# Compare-and-swap: only one delivery finds the row in a state to start from. A message that overtakes the
# commit of the relay that sent it waits here for the row; 'ready' is what it finds where that relay died.
_CLAIM = text(
    """
    UPDATE jobs.jobs
    SET state = 'running', attempt = attempt + 1, started_at = now(), heartbeat_at = now(),
        worker = :worker, error = NULL, progress_done = NULL, progress_total = NULL
    WHERE id = :id AND state IN ('ready', 'published')
    RETURNING id, name, args, attempt, max_attempts, started_at, schedule, fire_at
    """
)

# In the job's own transaction. No row: the job was rescued or cancelled meanwhile, so its work must not
# be committed either.
_FINISH = text(
    """
    UPDATE jobs.jobs SET state = 'succeeded', finished_at = clock_timestamp(), result = :result
    WHERE id = :id AND state = 'running' AND attempt = :attempt
    """
).bindparams(bindparam("result", type_=JSONB))

# Exponential, between half and the whole of it at random, so that jobs that failed together do not
# come back together.
_FAIL = text(
    """
    UPDATE jobs.jobs
    SET error = :error,
        state = CASE WHEN :permanent OR attempt >= max_attempts THEN 'dead' ELSE 'scheduled' END::jobs.job_state,
        finished_at = CASE WHEN :permanent OR attempt >= max_attempts THEN clock_timestamp() END,
        run_at = clock_timestamp()
            + least(:cap, :base * power(2, attempt - 1)) * (0.5 + random() / 2) * interval '1 second'
    WHERE id = :id AND state = 'running' AND attempt = :attempt
    RETURNING state
    """
)

# The worker was told to stop, and the work is rolled back: that is nobody's failure, so it is no attempt.
_RELEASE = text(
    """
    UPDATE jobs.jobs SET state = 'ready', attempt = attempt - 1, run_at = clock_timestamp(), error = :reason
    WHERE id = :id AND state = 'running' AND attempt = :attempt
    RETURNING state
    """
)

_BEAT = text(
    """
    UPDATE jobs.jobs SET heartbeat_at = now()
    WHERE id = :id AND state = 'running' AND attempt = :attempt
    """
)

# The worker is gone: its attempt counts, so a job that kills its worker each time ends dead.
_RESCUE_RUNNING = text(
    """
    UPDATE jobs.jobs
    SET state = CASE WHEN attempt >= max_attempts THEN 'dead' ELSE 'ready' END::jobs.job_state,
        finished_at = CASE WHEN attempt >= max_attempts THEN now() END,
        error = 'the worker ' || coalesce(worker, '?') || ' stopped while it ran this job (attempt '
            || attempt || ' of ' || max_attempts || ')'
    WHERE state = 'running' AND heartbeat_at < now() - :lost_after * interval '1 second'
    RETURNING id, name, state::text
    """
)

_UNSTARTED = text(
    """
    SELECT DISTINCT queue FROM jobs.jobs
    WHERE state = 'published' AND published_at < now() - :after * interval '1 second'
    """
)

# The message is gone (Redis was wiped), so the row is published again.
_RESCUE_PUBLISHED = text(
    """
    UPDATE jobs.jobs SET state = 'ready'
    WHERE state = 'published'
      AND (published_at < now() - :for_sure * interval '1 second'
           OR (queue = ANY (:queues) AND published_at < now() - :after * interval '1 second'))
    RETURNING id, name, state::text
    """
).bindparams(bindparam("queues", type_=ARRAY(String)))

# Sent by a plain Celery client, so there is no row yet: recorded on arrival, then treated alike. The limits
# are those of the worker's own contract: jobs.kinds may not yet have a job that was just deployed.
_RECORD = text(
    """
    INSERT INTO jobs.jobs (id, name, args, queue, state, max_attempts, published_at)
    VALUES (:id, :name, :args, :queue, 'published', :max_attempts, now())
    ON CONFLICT (id) DO NOTHING
    """
).bindparams(bindparam("args", type_=JSONB), bindparam("id", type_=Uuid))


def take_ready(connection: Connection, limit: int) -> list[Ready]:
    """Mark up to `limit` due jobs as published and return them; the caller publishes, then commits."""
    return [Ready(*row) for row in connection.execute(_TAKE_READY, {"limit": limit})]


def postpone(connection: Connection, id: UUID, reason: str) -> None:
    """Put a job that was taken back for a minute, with the reason."""
    connection.execute(_POSTPONE, {"id": id, "reason": reason, "seconds": POSTPONE_SECONDS})


def record(connection: Connection, id: UUID, job: Job, args: dict[str, Any]) -> None:
    """Write the row of a job that came as a message only."""
    connection.execute(
        _RECORD,
        {"id": id, "name": job.name, "args": args, "queue": job.queue, "max_attempts": job.max_attempts},
    )


def claim(connection: Connection, id: UUID, worker: str) -> Claim | None:
    """Start the job for this worker, or return None where somebody else did, or nobody may."""
    row = connection.execute(_CLAIM, {"id": id, "worker": worker}).one_or_none()
    return Claim(*row) if row else None


def finish(session: Session, claim: Claim, result: dict[str, Any]) -> bool:
    """Mark the job as succeeded in the caller's transaction; False where it is no longer this claim's."""
    done = session.execute(_FINISH, {"id": claim.id, "attempt": claim.attempt, "result": result})
    return bool(done.rowcount)  # type: ignore[attr-defined]


def fail(connection: Connection, claim: Claim, error: str, *, permanent: bool) -> str | None:
    """Record the error; the job waits for its next attempt or is dead. Return its state, or None."""
    state: str | None = connection.scalar(
        _FAIL,
        {
            "id": claim.id,
            "attempt": claim.attempt,
            "error": _storable(error),
            "permanent": permanent,
            "base": RETRY_BASE_SECONDS,
            "cap": RETRY_CAP_SECONDS,
        },
    )
    return state


def release(connection: Connection, claim: Claim, reason: str) -> str | None:
    """Give back a job whose work was rolled back because its worker stops. Return its state, or None."""
    state: str | None = connection.scalar(
        _RELEASE, {"id": claim.id, "attempt": claim.attempt, "reason": _storable(reason)}
    )
    return state


def beat(connection: Connection, claim: Claim) -> bool:
    """Say that the job still runs; False where it is no longer this claim's."""
    done = connection.execute(_BEAT, {"id": claim.id, "attempt": claim.attempt})
    return bool(done.rowcount)


def rescue_running(connection: Connection, patience: Patience) -> list[tuple[UUID, str, str]]:
    """Free the jobs whose worker is gone, and return (id, name, new state) of each."""
    rows = connection.execute(_RESCUE_RUNNING, {"lost_after": patience.running})
    return [(row.id, row.name, row.state) for row in rows]


def queues_with_unstarted(connection: Connection, patience: Patience) -> list[str]:
    """Return the queues that have published jobs which should have started by now."""
    return list(connection.scalars(_UNSTARTED, {"after": patience.published}))


def rescue_published(
    connection: Connection, empty_queues: list[str], patience: Patience
) -> list[tuple[UUID, str, str]]:
    """Free published jobs whose message is lost: nothing waits in their queue, or it is very long ago."""
    rows = connection.execute(
        _RESCUE_PUBLISHED,
        {
            "queues": empty_queues,
            "after": patience.published,
            "for_sure": patience.published_for_sure,
        },
    )
    return [(row.id, row.name, row.state) for row in rows]


_TOUCH = text(
    """
    INSERT INTO jobs.processes (name, kind, version) VALUES (:name, :kind, :version)
    ON CONFLICT (name) DO UPDATE SET seen_at = now(), version = excluded.version
    """
)


def touch(connection: Connection, name: str, kind: str, version: str) -> None:
    """Say that a process is alive."""
    connection.execute(_TOUCH, {"name": name, "kind": kind, "version": version})


def _storable(message: str) -> str:
    """Return `message` as PostgreSQL can store it: no NUL, no half of a surrogate pair, not endless."""
    return message.replace("\0", "").encode("utf-8", "replace").decode()[:10_000]

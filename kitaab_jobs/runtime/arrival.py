"""What a worker writes on jobs.jobs when a message has no row: it was sent by a plain Celery client.

It is recorded on arrival and then treated like any other job; refused where it cannot be run at all; and put off where
this version does not know the job.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import Boolean, Connection, Integer, bindparam, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.dialects.postgresql import UUID as Uuid

from kitaab_jobs.client import payload
from kitaab_jobs.contract import QUEUES, Job, encode
from kitaab_jobs.errors import BadPayload
from kitaab_jobs.runtime import ledger

# The limits are those of the worker's own contract: jobs.kinds may not yet have a job that was just deployed. What has a
# limit on how many run waits for the relay, and what is there already under its key, or was within its period, is
# cancelled: the same rule as in jobs.enqueue.
_RECORD = text(
    """
    WITH known AS (
        SELECT md5(CAST(CAST(:unique_args AS jsonb) AS text)) AS key
    ), recent AS (
        SELECT FROM jobs.jobs, known
        WHERE :period > 0 AND name = :name AND unique_key = known.key AND state <> 'cancelled' AND id <> :id
          AND created_at > now() - :period * interval '1 second'
        LIMIT 1
    ), added AS (
        INSERT INTO jobs.jobs (id, name, args, queue, state, max_attempts, unique_key, limit_key, published_at, canvas)
        SELECT :id, :name, :args, :queue, CASE WHEN :limited THEN 'ready' ELSE 'published' END::jobs.job_state,
               :max_attempts, known.key, :limit_key, CASE WHEN NOT :limited THEN now() END, :canvas
        FROM known WHERE NOT EXISTS (SELECT FROM recent)
        ON CONFLICT DO NOTHING
        RETURNING id
    )
    INSERT INTO jobs.jobs (id, name, args, queue, state, max_attempts, finished_at, error)
    SELECT :id, :name, :args, :queue, 'cancelled', :max_attempts, now(),
           CASE WHEN EXISTS (SELECT FROM recent)
                THEN 'one with the same arguments was enqueued within ' || :period || ' s'
                ELSE 'one with the same arguments has not ended' END
    FROM known WHERE known.key IS NOT NULL AND NOT EXISTS (SELECT FROM added)
    ON CONFLICT DO NOTHING
    """
).bindparams(
    bindparam("id", type_=Uuid),
    bindparam("args", type_=JSONB),
    bindparam("canvas", type_=JSONB(none_as_null=True)),
    bindparam("limited", type_=Boolean),
    bindparam("period", type_=Integer),
)

# Nobody else decides about this key until the caller commits: the lock that jobs.enqueue takes. A statement of its own,
# so that the next one sees what was committed while this one waited.
_LOCK_KEY = text(
    """
    SELECT pg_advisory_xact_lock(
        hashtextextended(:name || '/' || md5(CAST(CAST(:unique_args AS jsonb) AS text)), 7))
    """
)

_REFUSE = text(
    """
    INSERT INTO jobs.jobs (id, name, queue, state, max_attempts, finished_at, error)
    VALUES (:id, :name, :queue, 'dead', :max_attempts, now(), :error)
    ON CONFLICT (id) DO NOTHING
    """
).bindparams(bindparam("id", type_=Uuid))

# For what no worker of this version knows: another one may, so the job waits and says why.
_POSTPONE = text(
    """
    INSERT INTO jobs.jobs AS j (id, name, args, queue, state, max_attempts, run_at, error)
    VALUES (:id, :name, :args, :queue, 'scheduled', 5, now() + :seconds * interval '1 second', :reason)
    ON CONFLICT (id) DO UPDATE SET state = 'scheduled', run_at = excluded.run_at, error = excluded.error
    WHERE j.state IN ('ready', 'published')
    """
).bindparams(bindparam("id", type_=Uuid), bindparam("args", type_=JSONB))


def is_limited(job: Job) -> bool:
    """Tell whether only some jobs of this kind or its queue may run at once."""
    return job.max_running is not None or QUEUES[job.queue].max_running is not None


def record(
    connection: Connection, id: UUID, job: Job, args: dict[str, Any], canvas: dict[str, Any] | None = None
) -> None:
    """Write the row of a job that came as a message only."""
    if reason := unstorable(args):
        refuse(connection, id, job, reason)
        return
    unique_args, period = _unique_args(job, args), job.unique_seconds if job.unique_args else 0
    if period:
        connection.execute(_LOCK_KEY, {"name": job.name, "unique_args": unique_args})
    connection.execute(
        _RECORD,
        {
            "id": id,
            "name": job.name,
            "queue": job.queue,
            "max_attempts": job.max_attempts,
            "args": args,
            "limited": is_limited(job),
            "limit_key": job.name if job.max_running is not None else None,
            "unique_args": unique_args,
            "period": period,
            "canvas": canvas,
        },
    )


def _unique_args(job: Job, args: dict[str, Any]) -> str | None:
    """Return the JSON that a job's key is made of: with what was left out, as the client would have stored it."""
    if not job.unique_args:
        return None
    try:
        return payload(job, args)
    except BadPayload:  # it will end dead, with the reason
        return encode(args)


def refuse(connection: Connection, id: UUID, job: Job, reason: str) -> None:
    """Write the row of a message that cannot be run at all: dead, with the reason."""
    connection.execute(
        _REFUSE,
        {
            "id": id,
            "name": job.name,
            "queue": job.queue,
            "max_attempts": job.max_attempts,
            "error": ledger.storable(reason),
        },
    )


def postpone(
    connection: Connection,
    id: UUID,
    name: str,
    args: dict[str, Any],
    queue: str,
    reason: str,
    seconds: float = 60,
) -> None:
    """Put off a job that this version does not know, with the reason."""
    if why := unstorable(args):
        refuse(connection, id, Job(name[:128], "unknown", queue=queue), f"{reason}; {why}")
        return
    connection.execute(
        _POSTPONE,
        {
            "id": id,
            "name": name[:128],
            "args": args,
            "queue": queue,
            "seconds": seconds,
            "reason": ledger.storable(reason),
        },
    )


def unstorable(args: dict[str, Any]) -> str | None:
    """Return why these arguments cannot be kept in the ledger, or None. A message may carry whatever JSON can say,
    and some things that it cannot."""
    try:
        encode(args)
    except BadPayload as error:
        return error.message
    return None

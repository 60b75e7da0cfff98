"""What the relay does with jobs.jobs: which jobs are due, which may go out, and which were lost on the way."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, Connection, Integer, String, bindparam, text
from sqlalchemy.dialects.postgresql import UUID as Uuid

from kitaab_jobs.contract import Job, Queue
from kitaab_jobs.db import locks
from kitaab_jobs.runtime.trips import at_once


@dataclass(frozen=True, slots=True)
class Patience:
    """After how many seconds the rescue takes something for lost."""

    # Ten beats late: a pause of the machine is not yet a death. With the time to the next look of the rescue it
    # stays below half a minute.
    running: float = 20
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
    alone: bool
    canvas: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class Rescued:
    """A job that was lost and is found."""

    id: UUID
    name: str
    state: str


_PROMOTE = text(
    """
    WITH due AS (
        SELECT id FROM jobs.jobs
        WHERE state = 'scheduled' AND after_group IS NULL AND run_at <= now()
        ORDER BY run_at LIMIT :limit
        FOR UPDATE SKIP LOCKED
    )
    UPDATE jobs.jobs AS j SET state = 'ready' FROM due WHERE j.id = due.id
    """
)


def _each(column: str, where: str, first: str) -> str:
    """Return SQL that gives each value of a column once, in `waits`, however many rows have it.

    The recursion steps from one value to the next along the index that begins with it. The last one is NULL.
    """
    return f"""
    WITH RECURSIVE waits AS (
        (SELECT {column} FROM jobs.jobs WHERE {where} AND {first} ORDER BY {column} LIMIT 1)
        UNION ALL
        SELECT (SELECT j.{column} FROM jobs.jobs AS j
                WHERE {where} AND j.{column} > waits.{column} ORDER BY j.{column} LIMIT 1)
        FROM waits WHERE waits.{column} IS NOT NULL
    )"""


# Each group that is waited for is asked once. A dead job keeps its group open until it is replayed or cancelled.
_OPEN_GROUPS = text(
    _each("after_group", "state = 'scheduled'", "after_group IS NOT NULL")
    + """
    SELECT after_group FROM waits
    WHERE after_group IS NOT NULL AND NOT EXISTS (
        SELECT FROM jobs.jobs AS member
        WHERE member.group_name = waits.after_group AND member.state NOT IN ('succeeded', 'cancelled')
    )
    """
)

_RELEASE_GROUPS = text(
    """
    WITH freed AS (
        SELECT id FROM jobs.jobs
        WHERE state = 'scheduled' AND after_group = ANY (:groups)
        LIMIT :limit FOR UPDATE SKIP LOCKED
    )
    UPDATE jobs.jobs AS j SET after_group = NULL FROM freed WHERE j.id = freed.id
    """
).bindparams(bindparam("groups", type_=ARRAY(String)))

# Of two relays one decides about what has a limit, so that they do not both fill the same room.
_COUNTS_LIMITS = text("SELECT pg_try_advisory_xact_lock(:key)")

_ACTIVE = text(
    """
    SELECT q.name, (SELECT count(*) FROM jobs.jobs AS j WHERE j.state = 'published' AND j.queue = q.name)
                 + (SELECT count(*) FROM jobs.jobs AS j WHERE j.state = 'running' AND j.queue = q.name) AS active
    FROM unnest(:queues) AS q (name)
    """
).bindparams(bindparam("queues", type_=ARRAY(String)))

# Locks what it takes and passes over what another relay has taken. The rows are published to Celery
# before this commits: a relay that dies in between leaves them ready, and the second message of the
# same job will find nothing to claim.
#
# The commit does not wait for the disk: had it been lost, the rows were ready, and would be published again. A worker
# that has the message already waits for it.
_TAKE = """
    WITH quick AS MATERIALIZED (
        SELECT set_config('synchronous_commit', 'off', true)
    ), due AS (
        {due}
    ), taken AS (
        UPDATE jobs.jobs AS j SET state = 'published', published_at = now()
        -- An array, not a join: the planner takes a limit that it cannot know for a tenth of the table, and would
        -- read all of a large one.
        FROM quick WHERE j.id = ANY (ARRAY(SELECT id FROM due))
        RETURNING j.id, j.name, j.args, j.queue, j.alone, j.canvas, j.priority, j.run_at
    )
    -- RETURNING keeps no order, and the first message is the first to run.
    SELECT id, name, args, queue, alone, canvas FROM taken ORDER BY priority DESC, run_at, id
"""

# As many of each queue as there is room for.
_FREE = """
        SELECT picked.id FROM unnest({queues}, {rooms}) AS q (name, room)
        CROSS JOIN LATERAL (
            SELECT j.id FROM jobs.jobs AS j
            WHERE j.state = 'ready' AND j.limit_key IS NULL AND j.queue = q.name
            ORDER BY j.priority DESC, j.run_at, j.id
            LIMIT q.room
            FOR UPDATE SKIP LOCKED
        ) AS picked"""

_TAKE_FREE = text(_TAKE.format(due=_FREE.format(queues=":queues", rooms=":rooms"))).bindparams(
    bindparam("queues", type_=ARRAY(String)), bindparam("rooms", type_=ARRAY(Integer))
)

# Nothing where something with a limit waits: that is asked first. (In an order, so that it is looked up in its index.)
_TAKE_IF_ALL_ARE_FREE = _TAKE.format(
    due=_FREE.format(queues="CAST(%(queues)s AS text[])", rooms="CAST(%(rooms)s AS integer[])")
    + """
        WHERE (SELECT limit_key FROM jobs.jobs WHERE state = 'ready' AND limit_key IS NOT NULL
               ORDER BY limit_key LIMIT 1) IS NULL"""
)

# The keys of what waits, some at a time.
_LIMIT_KEYS = text(
    _each("limit_key", "state = 'ready'", "limit_key > :after")
    + """
    SELECT limit_key FROM waits WHERE limit_key IS NOT NULL LIMIT :limit
    """
)
KEYS_AT_ONCE = 200

# For each key as many as there is room for; and of these, no more than there is room for in the queue. A kind that
# has no limit any more lets all of them go.
_TAKE_LIMITED = text(
    _TAKE.format(
        due="""
        SELECT id FROM jobs.jobs WHERE id = ANY (ARRAY(
            SELECT ranked.id
            FROM (
                SELECT picked.id, picked.queue,
                       row_number() OVER (PARTITION BY picked.queue
                                          ORDER BY picked.priority DESC, picked.run_at, picked.id) AS place
                FROM unnest(:keys) AS k (limit_key)
                JOIN jobs.kinds AS kind ON kind.name = split_part(k.limit_key, '/', 1)
                CROSS JOIN LATERAL (
                    SELECT j.id, j.queue, j.priority, j.run_at
                    FROM jobs.jobs AS j WHERE j.state = 'ready' AND j.limit_key = k.limit_key
                    ORDER BY j.priority DESC, j.run_at, j.id
                    LIMIT CASE WHEN kind.max_running IS NOT NULL THEN greatest(0, kind.max_running - (
                        SELECT count(*) FROM jobs.jobs AS a
                        WHERE a.limit_key = k.limit_key AND a.state IN ('published', 'running'))) END
                ) AS picked
            ) AS ranked
            JOIN unnest(:queues, :rooms) AS q (name, room) ON q.name = ranked.queue AND ranked.place <= q.room
        ))
        FOR UPDATE SKIP LOCKED"""
    )
).bindparams(
    bindparam("keys", type_=ARRAY(String)),
    bindparam("queues", type_=ARRAY(String)),
    bindparam("rooms", type_=ARRAY(Integer)),
)

_SILENT = text(
    """
    SELECT id FROM jobs.jobs WHERE state = 'running' AND heartbeat_at < now() - :seconds * interval '1 second'
    """
)

# The worker is gone: its attempt counts, so a job that kills its worker each time ends dead. Of a batch
# nobody knows which job it was at: none is blamed, and each is started alone the next time.
_RESCUE_RUNNING = text(
    """
    UPDATE jobs.jobs AS j
    SET state = new.state,
        finished_at = CASE WHEN new.state IN ('dead', 'cancelled') THEN now() END,
        attempt = CASE WHEN in_batch THEN attempt - 1 ELSE attempt END,
        alone = in_batch OR alone,
        error = 'the worker ' || coalesce(worker, '?') || ' stopped while it ran this job'
            || CASE WHEN in_batch THEN ' in a batch' ELSE ' (attempt ' || attempt || ' of ' || max_attempts || ')' END
    FROM (
        SELECT id, CASE WHEN cancel_requested_at IS NOT NULL THEN 'cancelled'
                        WHEN attempt >= max_attempts AND NOT in_batch THEN 'dead'
                        ELSE 'ready' END::jobs.job_state AS state
        FROM jobs.jobs
        WHERE id = ANY (:silent) AND state::text = 'running'
          AND heartbeat_at < now() - :lost_after * interval '1 second'
        FOR UPDATE SKIP LOCKED
    ) AS new
    WHERE j.id = new.id
    RETURNING j.id, j.name, j.state::text
    """
).bindparams(bindparam("silent", type_=ARRAY(Uuid)))

_UNSTARTED = text(
    """
    SELECT DISTINCT queue FROM jobs.jobs
    WHERE state = 'published' AND published_at < now() - :after * interval '1 second'
    """
)

# The message is gone, so the row is published again: Redis was wiped, or the worker that had taken it was killed
# before it could start it. Messages are taken in their order: one that was overtaken by a job that runs is gone, also
# where a queue is never seen empty. Whoever holds a row is about to start that job, or to cancel it.
_RESCUE_PUBLISHED = text(
    """
    WITH newest AS (
        SELECT queue, max(published_at) AS published_at FROM jobs.jobs WHERE state = 'running' GROUP BY queue
    ), lost AS (
        SELECT id FROM jobs.jobs AS j
        WHERE j.state = 'published'
          AND (j.published_at < now() - :for_sure * interval '1 second'
               OR j.published_at < now() - :after * interval '1 second'
                  AND (j.queue = ANY (:queues)
                       OR j.published_at < (SELECT newest.published_at FROM newest WHERE newest.queue = j.queue)))
        FOR UPDATE SKIP LOCKED
    )
    UPDATE jobs.jobs AS j SET state = 'ready' WHERE j.id = ANY (ARRAY(SELECT id FROM lost))  -- as in `_TAKE`
    RETURNING j.id, j.name, j.state::text
    """
).bindparams(bindparam("queues", type_=ARRAY(String)))

_SECONDS = text(
    """
    SELECT name, avg(greatest(extract(epoch FROM finished_at - started_at), 0))::double precision AS seconds
    FROM (
        SELECT name, state, started_at, finished_at FROM jobs.jobs
        WHERE state IN ('succeeded', 'dead', 'cancelled') AND finished_at > now() - interval '10 minutes'
        ORDER BY finished_at DESC LIMIT 1000
    ) AS latest
    WHERE state = 'succeeded' AND name = ANY (:names) GROUP BY name
    """
).bindparams(bindparam("names", type_=ARRAY(String)))

_HAS_LIMITED = text("SELECT EXISTS (SELECT FROM jobs.jobs WHERE state = 'ready' AND limit_key IS NOT NULL)")

# Only what is strange is counted. What has a limit is kept in another index, by key, and is little.
_STRANGERS = text(
    _each("queue", "state = 'ready' AND limit_key IS NULL", "true")
    + """
    , strange AS (
        SELECT waits.queue, (SELECT count(*) FROM jobs.jobs AS j
                             WHERE j.state = 'ready' AND j.limit_key IS NULL AND j.queue = waits.queue) AS jobs
        FROM waits WHERE waits.queue <> ALL (:queues)
        UNION ALL
        SELECT queue, count(*) FROM jobs.jobs
        WHERE state = 'ready' AND limit_key IS NOT NULL AND queue <> ALL (:queues) GROUP BY queue
    )
    SELECT queue, sum(jobs)::bigint AS jobs FROM strange GROUP BY queue
    """
).bindparams(bindparam("queues", type_=ARRAY(String)))


def promote(connection: Connection, limit: int) -> int:
    """Make ready what was scheduled for a time that has come, and return how many."""
    return connection.execute(_PROMOTE, {"limit": limit}).rowcount


def release_groups(connection: Connection, limit: int) -> int:
    """Let go what waited for groups that have finished, and return how many."""
    groups = list(connection.scalars(_OPEN_GROUPS))
    if not groups:
        return 0
    return connection.execute(_RELEASE_GROUPS, {"groups": groups, "limit": limit}).rowcount


def take(
    connection: Connection, rooms: Mapping[str, int], queues: Iterable[Queue], *, limited_kinds: bool
) -> list[Ready]:
    """Mark due jobs as published, up to so many in each queue; the caller publishes, then commits."""
    limits = {queue.name: queue.max_running for queue in queues if queue.max_running is not None}
    rooms = dict(rooms)
    only_kinds = limited_kinds and not limits
    # Mostly nothing with a limit waits, and a job waits for each trip that is made here.
    if only_kinds and (taken := _take_if_all_are_free(connection, rooms)):
        return taken
    keys = _limit_keys(connection, "") if limited_kinds else []
    if only_kinds and not keys:
        return []  # a limited one that went away in between has woken whoever looks again
    counting = bool(limits or keys) and bool(connection.scalar(_COUNTS_LIMITS, {"key": locks.COUNT_LIMITS}))
    if limits:
        active = {row.name: row.active for row in connection.execute(_ACTIVE, {"queues": list(limits)})}
        for name, limit in limits.items():
            rooms[name] = max(0, min(rooms.get(name, 0), limit - active[name])) if counting else 0
    taken = []
    while keys and counting and any(rooms.values()):
        for row in connection.execute(_TAKE_LIMITED, {**_arrays(rooms), "keys": keys}):
            taken.append(Ready(*row))
            rooms[row.queue] -= 1
        keys = _limit_keys(connection, keys[-1])
    if any(rooms.values()):
        taken += [Ready(*row) for row in connection.execute(_TAKE_FREE, _arrays(rooms))]
    return taken


def _take_if_all_are_free(connection: Connection, rooms: Mapping[str, int]) -> list[Ready]:
    return [Ready(*row) for row in at_once(connection, _TAKE_IF_ALL_ARE_FREE, _arrays(rooms))]


def _limit_keys(connection: Connection, after: str) -> list[str]:
    return list(connection.scalars(_LIMIT_KEYS, {"after": after, "limit": KEYS_AT_ONCE}))


def silent(connection: Connection, seconds: float) -> list[UUID]:
    """Return the running jobs that no heartbeat has told of for so long."""
    return list(connection.scalars(_SILENT, {"seconds": seconds}))


def rescue_running(connection: Connection, patience: Patience, silent: Sequence[UUID]) -> list[Rescued]:
    """Free the jobs whose worker is gone: those that were `silent` at an earlier look, and are still.

    One look is not enough. Where somebody held the row, or the server stood still, the worker has had no chance to tell.
    """
    if not silent:
        return []
    rows = connection.execute(_RESCUE_RUNNING, {"lost_after": patience.running, "silent": list(silent)})
    return [Rescued(*row) for row in rows]


def queues_with_unstarted(connection: Connection, patience: Patience) -> list[str]:
    """Return the queues that have published jobs which should have started by now."""
    return list(connection.scalars(_UNSTARTED, {"after": patience.published}))


def rescue_published(
    connection: Connection, empty_queues: Sequence[str], patience: Patience
) -> list[Rescued]:
    """Free published jobs whose message is lost: none waits, a later one is at work, or it is very long ago."""
    rows = connection.execute(
        _RESCUE_PUBLISHED,
        {
            "queues": list(empty_queues),
            "after": patience.published,
            "for_sure": patience.published_for_sure,
        },
    )
    return [Rescued(*row) for row in rows]


def seconds_each(connection: Connection, jobs: Iterable[Job]) -> dict[str, float]:
    """Return how many seconds such jobs took lately; a name is missing where none has run."""
    names = [job.name for job in jobs]
    if not names:
        return {}
    return {row.name: row.seconds for row in connection.execute(_SECONDS, {"names": names})}


def has_limited(connection: Connection) -> bool:
    """Tell whether a job is ready that was enqueued with a limit."""
    return bool(connection.scalar(_HAS_LIMITED))


def strangers(connection: Connection, queues: Iterable[str]) -> dict[str, int]:
    """Return how many ready jobs wait in queues that this version does not know."""
    return {row.queue: row.jobs for row in connection.execute(_STRANGERS, {"queues": list(queues)})}


def _arrays(rooms: Mapping[str, int]) -> dict[str, Any]:
    return {"queues": list(rooms), "rooms": list(rooms.values())}

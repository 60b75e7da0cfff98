"""What operators do with the ledger: look, replay, cancel, purge. All SQL of `kitaab-jobs jobs`."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, Connection, Engine, String, TextClause, Uuid, bindparam, text

from kitaab_jobs.errors import UsageError

STATES = ("scheduled", "ready", "published", "running", "succeeded", "dead", "cancelled")
WAITING = ("scheduled", "ready", "published")
ENDED = ("succeeded", "dead", "cancelled")

# Rows of one DELETE or UPDATE: short enough that nobody waits long for its locks.
BATCH = 5000


@dataclass(frozen=True, slots=True)
class Filter:
    """Which jobs are meant; what is left open matches all."""

    ids: Sequence[UUID] = ()
    states: Sequence[str] = ()
    name: str | None = None
    queue: str | None = None
    older_than: dt.timedelta | None = None

    def __post_init__(self) -> None:
        for state in self.states:
            if state not in STATES:
                raise UsageError(f"{state!r} is not a state", remedy=f"the states are {', '.join(STATES)}")

    @property
    def is_open(self) -> bool:
        """Whether it means every job."""
        return not (self.ids or self.name or self.queue or self.older_than)


# NULL or empty stands for "all". Age is that of the last thing that happened to the job.
_MATCH = """
    (cardinality(:ids) = 0 OR j.id = ANY (:ids))
    AND (cardinality(:states) = 0 OR j.state::text = ANY (:states))
    AND (CAST(:name AS text) IS NULL OR j.name LIKE replace(replace(:name, '_', '\\_'), '*', '%'))
    AND (CAST(:queue AS text) IS NULL OR j.queue = :queue)
    AND (CAST(:older_than AS interval) IS NULL
         OR coalesce(j.finished_at, j.started_at, j.created_at) < now() - :older_than)"""

_LIST = f"""
    SELECT j.id, j.name, j.state::text AS state, j.queue, j.priority, j.attempt, j.max_attempts, j.run_at,
           j.created_at, j.started_at, j.finished_at, j.worker, j.error, j.progress_done, j.progress_total
    FROM jobs.jobs AS j WHERE {_MATCH}
    ORDER BY j.created_at DESC, j.id DESC LIMIT :limit
"""

_SHOW = text("SELECT to_jsonb(j) AS job FROM jobs.jobs AS j WHERE j.id = :id").bindparams(
    bindparam("id", type_=Uuid())
)

_COUNT = f"SELECT j.name, count(*) AS jobs FROM jobs.jobs AS j WHERE {_MATCH} GROUP BY j.name ORDER BY j.name"

# A replay starts the count of attempts anew; the error stays to be read until the next start.
_REPLAY = f"""
    WITH picked AS (
        SELECT j.id FROM jobs.jobs AS j WHERE {_MATCH} AND j.state IN ('dead', 'cancelled')
        ORDER BY j.id LIMIT :limit FOR UPDATE SKIP LOCKED
    )
    UPDATE jobs.jobs AS j SET state = 'ready', attempt = 0, run_at = now(), finished_at = NULL
    FROM picked WHERE j.id = picked.id RETURNING j.id
"""

_CANCEL = f"""
    WITH picked AS (
        SELECT j.id FROM jobs.jobs AS j WHERE {_MATCH} AND j.state IN ('scheduled', 'ready', 'published')
        ORDER BY j.id LIMIT :limit FOR UPDATE SKIP LOCKED
    )
    UPDATE jobs.jobs AS j SET state = 'cancelled', finished_at = now(), error = :reason
    FROM picked WHERE j.id = picked.id RETURNING j.id
"""

_PURGE = f"""
    WITH picked AS (
        SELECT j.id FROM jobs.jobs AS j WHERE {_MATCH} AND j.state IN ('succeeded', 'dead', 'cancelled')
        ORDER BY j.finished_at LIMIT :limit FOR UPDATE SKIP LOCKED
    )
    DELETE FROM jobs.jobs AS j USING picked WHERE j.id = picked.id RETURNING j.id
"""

# Every state has a row, also the empty ones. Ended states are counted for the last day only, since a
# count of all that ever ended would grow with the ledger.
_STATS = text(
    """
    SELECT kind.state::text AS state, count(j.id) AS jobs,
           extract(epoch FROM now() - min(CASE WHEN j.state = 'scheduled' THEN j.created_at
                WHEN j.state = 'ready' THEN j.run_at WHEN j.state = 'published' THEN j.published_at
                WHEN j.state = 'running' THEN j.started_at ELSE j.finished_at END))::double precision AS oldest_seconds
    FROM unnest(enum_range(NULL::jobs.job_state)) AS kind (state)
    LEFT JOIN jobs.jobs AS j
        ON j.state = kind.state AND (j.finished_at IS NULL OR j.finished_at > now() - interval '1 day')
    GROUP BY kind.state ORDER BY kind.state
    """
)


def _statement(sql: str) -> TextClause:
    return text(sql).bindparams(
        bindparam("ids", type_=ARRAY(Uuid())), bindparam("states", type_=ARRAY(String))
    )


def find(connection: Connection, wanted: Filter, limit: int) -> list[dict[str, Any]]:
    """Return the newest jobs that match."""
    rows = connection.execute(_statement(_LIST), {**asdict(wanted), "limit": limit})
    return [dict(row) for row in rows.mappings()]


def show(connection: Connection, id: UUID) -> dict[str, Any]:
    """Return everything about one job; raise `UsageError` where there is none."""
    job: dict[str, Any] | None = connection.scalar(_SHOW, {"id": id})
    if job is None:
        raise UsageError(f"there is no job {id}", remedy="see 'kitaab-jobs jobs list'")
    return job


def count(connection: Connection, wanted: Filter) -> dict[str, int]:
    """Return how many jobs match, by name."""
    return {row.name: row.jobs for row in connection.execute(_statement(_COUNT), asdict(wanted))}


def stats(connection: Connection) -> list[dict[str, Any]]:
    """Return for each state how many jobs are in it, and the age of the oldest in seconds."""
    return [dict(row) for row in connection.execute(_STATS).mappings()]


def replay(engine: Engine, wanted: Filter) -> Iterator[int]:
    """Make dead or cancelled jobs that match ready again, in batches; yield the size of each."""
    yield from _in_batches(engine, _REPLAY, wanted)


def cancel(engine: Engine, wanted: Filter, reason: str) -> Iterator[int]:
    """End waiting jobs that match as cancelled, in batches; yield the size of each."""
    yield from _in_batches(engine, _CANCEL, wanted, reason=reason)


def purge(engine: Engine, wanted: Filter) -> Iterator[int]:
    """Delete ended jobs that match, the oldest first, in batches; yield the size of each."""
    yield from _in_batches(engine, _PURGE, wanted)


def _in_batches(engine: Engine, sql: str, wanted: Filter, **more: object) -> Iterator[int]:
    statement = _statement(sql)
    while True:
        with engine.begin() as connection:
            done = len(connection.execute(statement, {**asdict(wanted), **more, "limit": BATCH}).all())
        if done:
            yield done
        if done < BATCH:
            return

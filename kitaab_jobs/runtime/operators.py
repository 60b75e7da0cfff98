"""What operators see of the ledger: lists, single jobs, counts. `changes` and `tail` have the rest of `kitaab-jobs jobs`."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, Connection, TextClause, Uuid, bindparam, text

from kitaab_jobs.errors import KitaabError, UsageError
from kitaab_jobs.models.ledger import FOREIGN_ID

WAITING = ("scheduled", "ready", "published")
ENDED = ("succeeded", "dead", "cancelled")
STATES = (*WAITING, "running", *ENDED)

# Ended states are counted for so long only, since a count of all that ever ended would grow with the ledger.
COUNTED_HOURS = 24


@dataclass(frozen=True, slots=True)
class Filter:
    """Which jobs are meant; what is left open matches all. In `name`, * stands for anything."""

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
        return not self.ids and not self.states and (self.name, self.queue, self.older_than) == (None,) * 3

    def within(self, states: Sequence[str]) -> Filter:
        """Return the same for jobs in these states only."""
        kept = tuple(state for state in states if not self.states or state in self.states)
        return Filter(self.ids, kept, self.name, self.queue, self.older_than)

    def where(self, j: str = "j") -> str:
        """Return the condition on jobs.jobs AS j. States are literals, so that the partial indexes serve."""
        parts = []
        if self.states:
            parts.append(f"{j}.state IN ({', '.join(map(repr, self.states))})")
        if self.ids:
            parts.append(f"{j}.id = ANY (:ids)")
        if self.name is not None:
            parts.append(f"{j}.name LIKE :name" if "*" in self.name else f"{j}.name = :name")
        if self.queue is not None:
            parts.append(f"{j}.queue = :queue")
        if self.older_than is not None:
            ended = self.states and set(self.states) <= set(ENDED)
            moved = (
                f"{j}.finished_at" if ended else f"coalesce({j}.finished_at, {j}.started_at, {j}.created_at)"
            )
            parts.append(f"{moved} < now() - CAST(:older_than AS interval)")
        return " AND ".join(parts) or "true"

    def values(self) -> dict[str, Any]:
        """Return the values of the condition."""
        given = {
            "ids": list(self.ids) or None,
            "name": None if self.name is None else _pattern(self.name),
            "queue": self.queue,
            "older_than": self.older_than,
        }
        return {name: value for name, value in given.items() if value is not None}


def _pattern(name: str) -> str:
    if "*" not in name:
        return name
    for special in ("\\", "%", "_"):
        name = name.replace(special, f"\\{special}")
    return name.replace("*", "%")


def statement(sql: str) -> TextClause:
    """Return the statement, with the types of what a filter and a batch put into it."""
    arrays = (bindparam(name, type_=ARRAY(Uuid())) for name in ("ids", "batch") if f":{name}" in sql)
    return text(sql).bindparams(*arrays)


# As JSON, since a time of the year 10000 or infinity is none for Python. The newest of each kind of id, along an index:
# those that grow with time, and those of plain Celery messages, which do not (idx_jobs_foreign).
_LISTED = """
    SELECT j.id, j.name, j.state, j.queue, j.priority, j.attempt, j.max_attempts, j.run_at, j.created_at,
           j.started_at, j.finished_at, j.worker, j.error, j.progress_done, j.progress_total, j.unique_key,
           j.limit_key, j.group_name, j.after_group, j.cancel_requested_at
    FROM jobs.jobs AS j WHERE {where}"""
_LIST = f"""
    SELECT to_jsonb(found) FROM (
        ({_LISTED} AND NOT ({FOREIGN_ID}) ORDER BY j.id DESC LIMIT :limit)
        UNION ALL
        ({_LISTED} AND ({FOREIGN_ID}) ORDER BY j.created_at DESC, j.id DESC LIMIT :limit)
    ) AS found ORDER BY found.created_at DESC, found.id DESC LIMIT :limit
"""

_SHOW = text("SELECT to_jsonb(j) FROM jobs.jobs AS j WHERE j.id = :id").bindparams(
    bindparam("id", type_=Uuid())
)

_STATES = statement("SELECT j.id, j.state::text FROM jobs.jobs AS j WHERE j.id = ANY (:ids)")

# One branch for each partial index, none for the table as a whole.
_STATS = text(
    f"""
    WITH found AS (
        SELECT 'scheduled' AS state, queue, count(*) AS jobs, min(created_at) AS since FROM jobs.jobs
        WHERE state = 'scheduled' AND after_group IS NULL GROUP BY queue
        UNION ALL
        SELECT 'scheduled', queue, count(*), min(created_at) FROM jobs.jobs
        WHERE state = 'scheduled' AND after_group IS NOT NULL GROUP BY queue
        UNION ALL
        SELECT 'ready', queue, count(*), min(greatest(created_at, run_at)) FROM jobs.jobs
        WHERE state = 'ready' AND limit_key IS NULL GROUP BY queue
        UNION ALL
        SELECT 'ready', queue, count(*), min(greatest(created_at, run_at)) FROM jobs.jobs
        WHERE state = 'ready' AND limit_key IS NOT NULL GROUP BY queue
        UNION ALL
        SELECT 'published', queue, count(*), min(published_at) FROM jobs.jobs
        WHERE state = 'published' GROUP BY queue
        UNION ALL
        SELECT 'running', queue, count(*), min(started_at) FROM jobs.jobs WHERE state = 'running' GROUP BY queue
        UNION ALL
        SELECT state::text, queue, count(*), min(finished_at) FROM jobs.jobs
        WHERE state IN ('succeeded', 'dead', 'cancelled')
          AND finished_at > now() - interval '{COUNTED_HOURS} hours'
        GROUP BY state, queue
    )
    SELECT state, queue, sum(jobs)::bigint AS jobs,
           extract(epoch FROM now() - least(min(since), now()))::double precision AS oldest_seconds
    FROM found GROUP BY state, queue
    """
)


def find(connection: Connection, wanted: Filter, limit: int) -> list[dict[str, Any]]:
    """Return the newest jobs that match; times are ISO 8601, or what PostgreSQL calls them beyond that."""
    sql = statement(_LIST.format(where=wanted.where()))
    return list(connection.scalars(sql, {**wanted.values(), "limit": limit}))


def show(connection: Connection, id: UUID) -> dict[str, Any]:
    """Return everything about one job; raise `KitaabError` where there is none."""
    job: dict[str, Any] | None = connection.scalar(_SHOW, {"id": id})
    if job is None:
        raise no_job(id)
    return job


def no_job(*ids: UUID) -> KitaabError:
    """Return the error for ids that no job has."""
    return KitaabError(f"there is no job {', '.join(map(str, ids))}", remedy="see 'kitaab-jobs jobs list'")


def states_of(connection: Connection, ids: Sequence[UUID]) -> dict[UUID, str]:
    """Return the state of each of these jobs that exists."""
    return {row.id: row.state for row in connection.execute(_STATES, {"ids": list(ids)})}


@dataclass(frozen=True, slots=True)
class Count:
    """How many jobs, and for how many seconds the oldest has been so."""

    jobs: int = 0
    oldest_seconds: float | None = None

    def __add__(self, other: Count) -> Count:
        ages = [age for age in (self.oldest_seconds, other.oldest_seconds) if age is not None]
        return Count(self.jobs + other.jobs, max(ages, default=None))


def stats(connection: Connection) -> dict[str, dict[str, Count]]:
    """Return the counts by queue and state, for queues that have any; of what has ended, that of a day."""
    found: dict[str, dict[str, Count]] = {}
    for row in connection.execute(_STATS):
        found.setdefault(row.queue, {})[row.state] = Count(row.jobs, row.oldest_seconds)
    return found

"""What operators do with the ledger: look, replay, cancel, purge. All SQL of `kitaab-jobs jobs`.

Whatever changes rows goes in batches by id, each in a transaction of its own: the ids are picked without a lock,
then locked in order and judged anew, so that what has moved on meanwhile is left alone.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, Connection, Engine, TextClause, Uuid, bindparam, text
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from kitaab_jobs.db.retries import is_contention, sqlstate
from kitaab_jobs.errors import KitaabError, UsageError
from kitaab_jobs.models.ledger import FOREIGN_ID

WAITING = ("scheduled", "ready", "published")
ENDED = ("succeeded", "dead", "cancelled")
STATES = (*WAITING, "running", *ENDED)

# Rows of one DELETE or UPDATE: short enough that nobody waits long for its locks.
BATCH = 5000
ATTEMPTS = 6

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


def _statement(sql: str) -> TextClause:
    arrays = (bindparam(name, type_=ARRAY(Uuid())) for name in ("ids", "batch") if f":{name}" in sql)
    return text(sql).bindparams(*arrays)


# --- looking -------------------------------------------------------------------------------------

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

_STATES = _statement("SELECT j.id, j.state::text FROM jobs.jobs AS j WHERE j.id = ANY (:ids)")

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
    sql = _statement(_LIST.format(where=wanted.where()))
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


# --- changing ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Action:
    """A change to jobs in certain states. `verdict` is an SQL expression that says of each what is to become of it,
    where {newer} stands for the condition on jobs AS newer; `change` is the statement for the verdicts in `changes`."""

    states: tuple[str, ...]
    verdict: str
    change: str
    changes: tuple[str, ...]
    default: tuple[str, ...] = ()
    """The states that are meant where none is named and no id."""


# A replay starts the count of attempts anew; the error stays to be read until the next start. Of jobs with one key
# only one may be active, so the newest goes, unless one is active already.
REPLAY = Action(
    states=("dead", "cancelled"),
    default=("dead",),
    verdict="""CASE WHEN j.unique_key IS NULL THEN 'replayed'
        WHEN EXISTS (SELECT FROM jobs.jobs AS twin WHERE twin.name = j.name AND twin.unique_key = j.unique_key
                     AND twin.state IN ('scheduled', 'ready', 'published', 'running')) THEN 'twin'
        WHEN EXISTS (SELECT FROM jobs.jobs AS newer WHERE newer.name = j.name AND newer.unique_key = j.unique_key
                     AND (newer.created_at, newer.id) > (j.created_at, j.id) AND {newer}) THEN 'twin'
        ELSE 'replayed' END""",
    change="""UPDATE jobs.jobs AS j
        SET state = 'ready', attempt = 0, run_at = now(), published_at = NULL, finished_at = NULL,
            cancel_requested_at = NULL, alone = false, after_group = NULL, progress_done = NULL, progress_total = NULL
        FROM judged WHERE j.id = judged.id AND judged.verdict = 'replayed'""",
    changes=("replayed",),
)

# What runs is only asked: its worker's heartbeat sees it. A dead job keeps what it died of, and when.
CANCEL = Action(
    states=(*WAITING, "running", "dead"),
    default=(*WAITING, "running"),
    verdict="CASE WHEN j.state = 'running' THEN 'running' WHEN j.state = 'dead' THEN 'dead' ELSE 'waiting' END",
    change="""UPDATE jobs.jobs AS j
        SET state = CASE WHEN judged.verdict = 'running' THEN j.state ELSE 'cancelled' END,
            cancel_requested_at = CASE WHEN judged.verdict = 'running' THEN coalesce(j.cancel_requested_at, now())
                                       ELSE j.cancel_requested_at END,
            finished_at = CASE WHEN judged.verdict <> 'running' THEN coalesce(j.finished_at, now()) END,
            error = CASE judged.verdict WHEN 'dead' THEN concat_ws('; it was dead: ', CAST(:reason AS text), j.error)
                         ELSE CAST(:reason AS text) END
        FROM judged WHERE j.id = judged.id""",
    changes=("waiting", "running", "dead"),
)

# Without the dead job that it waits for, a group would look finished.
PURGE = Action(
    states=ENDED,
    default=ENDED,
    verdict="""CASE WHEN j.state = 'dead' AND EXISTS (
            SELECT FROM jobs.jobs AS waits WHERE waits.state = 'scheduled' AND waits.after_group = j.group_name)
        THEN 'waited_for' ELSE 'deleted' END""",
    change="DELETE FROM jobs.jobs AS j USING judged WHERE j.id = judged.id AND judged.verdict = 'deleted'",
    changes=("deleted",),
)

_JUDGED = "SELECT j.id, j.name, {verdict} AS verdict FROM {rows} AS j WHERE {where}"
_PLAN = (
    "SELECT name, verdict, count(*) AS jobs FROM ({judged}) AS judged GROUP BY name, verdict ORDER BY 1, 2"
)
_PICK = "SELECT j.id FROM jobs.jobs AS j WHERE {where} {beyond} ORDER BY j.id LIMIT :limit"
_APPLY = """
    WITH locked AS (
        SELECT * FROM jobs.jobs AS j WHERE j.id = ANY (:batch) AND j.state IN ({states}) ORDER BY j.id FOR UPDATE
    ), judged AS MATERIALIZED ({judged}), changed AS ({change})
    SELECT verdict, array_agg(id) AS ids FROM judged GROUP BY verdict
"""

# The relay looks after a job that is ready again, and after a group that has finished.
_ANNOUNCE = text("SELECT pg_notify('kitaab_jobs', '')")


def plan(connection: Connection, action: Action, wanted: Filter) -> dict[str, dict[str, int]]:
    """Return for each verdict how many jobs would get it, by name."""
    meant = wanted.within(action.states)
    sql = _PLAN.format(judged=_judged(action, meant, "jobs.jobs", meant.where()))
    found: dict[str, dict[str, int]] = {}
    for row in connection.execute(_statement(sql), meant.values()):
        found.setdefault(row.verdict, {})[row.name] = row.jobs
    return found


def apply(
    engine: Engine, action: Action, wanted: Filter, *, reason: str | None = None
) -> Iterator[dict[str, list[UUID]]]:
    """Do it in batches; yield for each the jobs by verdict."""
    meant = wanted.within(action.states)
    states = ", ".join(map(repr, meant.states))
    judged = _judged(action, meant, "locked", "true")
    statement = _statement(_APPLY.format(states=states, judged=judged, change=action.change))
    last: UUID | None = None
    while True:
        beyond = "" if last is None else "AND j.id > :last"
        pick = _statement(_PICK.format(where=meant.where(), beyond=beyond))
        with engine.begin() as connection:
            ids = list(connection.scalars(pick, _used(pick, meant, limit=BATCH, last=last)))
        if ids:
            yield _change(engine, statement, _used(statement, meant, batch=ids, reason=reason))
        if len(ids) < BATCH:
            return
        last = ids[-1]


def _judged(action: Action, meant: Filter, rows: str, where: str) -> str:
    verdict = action.verdict.replace("{newer}", meant.where("newer"))
    return _JUDGED.format(verdict=verdict, rows=rows, where=where)


def _used(statement: TextClause, meant: Filter, **more: Any) -> dict[str, Any]:
    """Return those of the values that the statement has a place for."""
    return {name: value for name, value in {**meant.values(), **more}.items() if f":{name}" in statement.text}


def _change(engine: Engine, statement: TextClause, values: dict[str, Any]) -> dict[str, list[UUID]]:
    """Change one batch; again where somebody was in the way, or enqueued a job with the same key just then."""
    for attempt in Retrying(
        retry=retry_if_exception(lambda error: is_contention(error) or sqlstate(error) == "23505"),
        stop=stop_after_attempt(ATTEMPTS),
        wait=wait_random_exponential(multiplier=0.05, max=2),
        reraise=True,
    ):
        with attempt, engine.begin() as connection:
            found = {row.verdict: row.ids for row in connection.execute(statement, values)}
            connection.execute(_ANNOUNCE)
    return found


# --- following -----------------------------------------------------------------------------------

# Jobs commit a little after the instant that they write as their end, so each look goes back a bit.
_OVERLAP = dt.timedelta(seconds=10)
_LOOK = 1000

_NEW = """
    SELECT j.id, j.name, j.state::text AS state, j.attempt, j.started_at, j.finished_at, j.result, j.error
    FROM jobs.jobs AS j
    WHERE {where} AND j.finished_at >= :since AND j.id <> ALL (:ids)
    ORDER BY j.finished_at LIMIT :limit
"""


@dataclass(frozen=True, slots=True)
class Finished:
    """A job that has ended."""

    id: UUID
    name: str
    state: str
    attempt: int
    started_at: dt.datetime | None
    finished_at: dt.datetime
    result: dict[str, Any] | None
    error: str | None

    @property
    def seconds(self) -> float:
        """How long its last attempt took."""
        return (self.finished_at - self.started_at).total_seconds() if self.started_at else 0.0


class Endings:
    """Tells of each job that ends, once."""

    def __init__(self, connection: Connection, wanted: Filter | None = None) -> None:
        self.since: dt.datetime = connection.execute(text("SELECT now()")).scalar_one()
        self._wanted = (wanted or Filter()).within(ENDED)
        self._from = self.since
        self._seen: dict[UUID, dt.datetime] = {}

    def new(self, connection: Connection) -> list[Finished]:
        """Return the jobs that have ended since the last call, in order, up to a thousand."""
        values = {"since": self._from, "ids": list(self._seen), "limit": _LOOK}
        sql = _statement(_NEW.format(where=self._wanted.where()))
        found = [Finished(*row) for row in connection.execute(sql, {**self._wanted.values(), **values})]
        if found:
            self._from = max(self._from, found[-1].finished_at - _OVERLAP)
        self._seen |= {job.id: job.finished_at for job in found}
        self._seen = {id: at for id, at in self._seen.items() if at >= self._from}
        return found

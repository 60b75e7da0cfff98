"""What operators change in the ledger: replay, cancel, purge.

Whatever changes rows goes in batches by id, each in a transaction of its own: the ids are picked without a lock,
then locked in order and judged anew, so that what has moved on meanwhile is left alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Engine, TextClause, text
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from kitaab_jobs.db.retries import is_contention, sqlstate
from kitaab_jobs.runtime.operators import ENDED, WAITING, Filter, statement

# Rows of one DELETE or UPDATE: short enough that nobody waits long for its locks.
BATCH = 5000
ATTEMPTS = 6


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
    for row in connection.execute(statement(sql), meant.values()):
        found.setdefault(row.verdict, {})[row.name] = row.jobs
    return found


def apply(
    engine: Engine, action: Action, wanted: Filter, *, reason: str | None = None
) -> Iterator[dict[str, list[UUID]]]:
    """Do it in batches; yield for each the jobs by verdict."""
    meant = wanted.within(action.states)
    states = ", ".join(map(repr, meant.states))
    judged = _judged(action, meant, "locked", "true")
    change = statement(_APPLY.format(states=states, judged=judged, change=action.change))
    last: UUID | None = None
    while True:
        beyond = "" if last is None else "AND j.id > :last"
        pick = statement(_PICK.format(where=meant.where(), beyond=beyond))
        with engine.begin() as connection:
            ids = list(connection.scalars(pick, _used(pick, meant, limit=BATCH, last=last)))
        if ids:
            yield _change(engine, change, _used(change, meant, batch=ids, reason=reason))
        if len(ids) < BATCH:
            return
        last = ids[-1]


def _judged(action: Action, meant: Filter, rows: str, where: str) -> str:
    verdict = action.verdict.replace("{newer}", meant.where("newer"))
    return _JUDGED.format(verdict=verdict, rows=rows, where=where)


def _used(change: TextClause, meant: Filter, **more: Any) -> dict[str, Any]:
    """Return those of the values that the statement has a place for."""
    return {name: value for name, value in {**meant.values(), **more}.items() if f":{name}" in change.text}


def _change(engine: Engine, change: TextClause, values: dict[str, Any]) -> dict[str, list[UUID]]:
    """Change one batch; again where somebody was in the way, or enqueued a job with the same key just then."""
    for attempt in Retrying(
        retry=retry_if_exception(lambda error: is_contention(error) or sqlstate(error) == "23505"),
        stop=stop_after_attempt(ATTEMPTS),
        wait=wait_random_exponential(multiplier=0.05, max=2),
        reraise=True,
    ):
        with attempt, engine.begin() as connection:
            found = {row.verdict: row.ids for row in connection.execute(change, values)}
            connection.execute(_ANNOUNCE)
    return found

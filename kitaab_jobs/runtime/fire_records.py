"""What is written of planned fires when it is decided what becomes of them: jobs, rows of jobs.fires and of
jobs.waiting_fires. One statement for all of them at each step.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, Boolean, Connection, DateTime, String, Uuid, bindparam, text

from kitaab_jobs.contract import encode
from kitaab_jobs.errors import KitaabError
from kitaab_jobs.runtime import roster
from kitaab_jobs.runtime.policies import Verdict, run_at
from kitaab_jobs.runtime.roster import Entry


@dataclass(frozen=True, slots=True)
class Step:
    """A planned fire and what is to become of it. `backfill`: an operator asked for it."""

    entry: Entry
    verdict: Verdict
    backfill: bool = False


@dataclass(frozen=True, slots=True)
class Ticked:
    """What a tick did with one schedule. `error` says what went wrong with it."""

    name: str
    job_ids: list[UUID] = field(default_factory=list)
    skipped: int = 0
    missed: int = 0
    waiting: int = 0
    error: str | None = None
    paused: bool = False


class Raced(KitaabError):
    """Somebody else has recorded the same fire"""


_GIVEN = "unnest(:schedules, :fire_ats) AS p (schedule, fire_at)"
_PAIRS = (
    bindparam("schedules", type_=ARRAY(String)),
    bindparam("fire_ats", type_=ARRAY(DateTime(timezone=True))),
)

# What was recorded already is not fired again: by another beat, or before the clock was set back. A backfill makes up
# for what was not run.
_NEW = text(
    """
    SELECT p.schedule, p.fire_at FROM unnest(:schedules, :fire_ats, :backfills) AS p (schedule, fire_at, backfill)
    WHERE NOT EXISTS (SELECT FROM jobs.fires AS f WHERE f.schedule = p.schedule AND f.fire_at = p.fire_at
                        AND (NOT p.backfill OR f.outcome IN ('fired', 'backfilled')))
      AND NOT EXISTS (SELECT FROM jobs.waiting_fires AS w WHERE w.schedule = p.schedule AND w.fire_at = p.fire_at)
    """
).bindparams(*_PAIRS, bindparam("backfills", type_=ARRAY(Boolean)))

_ENQUEUE = text(
    """
    SELECT jobs.enqueue(p.job, CAST(p.args AS jsonb), run_at => p.run_at, schedule => p.schedule, fire_at => p.fire_at)
    FROM unnest(:schedules, :fire_ats, :jobs, :args, :runs) WITH ORDINALITY
        AS p (schedule, fire_at, job, args, run_at, place)
    ORDER BY p.place
    """
).bindparams(
    *_PAIRS,
    bindparam("jobs", type_=ARRAY(String)),
    bindparam("args", type_=ARRAY(String)),
    bindparam("runs", type_=ARRAY(DateTime(timezone=True))),
)

# A job whose kind has a key may be one that was enqueued before, and then it is not this fire's.
_RECORD = text(
    """
    INSERT INTO jobs.fires (schedule, fire_at, outcome, rule, reason, job_id, recorded_at)
    SELECT p.schedule, p.fire_at,
           CASE WHEN p.job_id IS NOT NULL AND j.id IS NULL THEN 'skipped' ELSE p.outcome END::jobs.fire_outcome,
           CASE WHEN p.job_id IS NOT NULL AND j.id IS NULL THEN 'unique' ELSE p.rule END,
           CASE WHEN p.job_id IS NOT NULL AND j.id IS NULL THEN 'a job with the same key is there already: ' || p.job_id
                ELSE p.reason END,
           j.id, :now
    FROM unnest(:schedules, :fire_ats, :outcomes, :rules, :reasons, :job_ids)
        AS p (schedule, fire_at, outcome, rule, reason, job_id)
    LEFT JOIN jobs.jobs AS j ON j.id = p.job_id AND j.schedule = p.schedule AND j.fire_at = p.fire_at
    ON CONFLICT DO NOTHING
    RETURNING schedule, fire_at, outcome::text, job_id
    """
).bindparams(
    *_PAIRS,
    bindparam("outcomes", type_=ARRAY(String)),
    bindparam("rules", type_=ARRAY(String)),
    bindparam("reasons", type_=ARRAY(String)),
    bindparam("job_ids", type_=ARRAY(Uuid)),
)

_WAIT = text(
    """
    INSERT INTO jobs.waiting_fires (schedule, fire_at, backfill, reason, waits_since)
    SELECT schedule, fire_at, backfill, reason, :now
    FROM unnest(:schedules, :fire_ats, :backfills, :reasons) AS p (schedule, fire_at, backfill, reason)
    ON CONFLICT DO NOTHING
    """
).bindparams(
    *_PAIRS,
    bindparam("backfills", type_=ARRAY(Boolean)),
    bindparam("reasons", type_=ARRAY(String)),
)

_WAITED = text(
    f"DELETE FROM jobs.waiting_fires AS w USING {_GIVEN} WHERE w.schedule = p.schedule AND w.fire_at = p.fire_at"
).bindparams(*_PAIRS)

# What a backfill makes up for gives way to the row that says so.
_GIVE_WAY = text(
    f"""
    DELETE FROM jobs.fires AS f USING {_GIVEN}
    WHERE f.schedule = p.schedule AND f.fire_at = p.fire_at AND f.outcome IN ('missed', 'skipped')
    """
).bindparams(*_PAIRS)

# What does not run yet is cancelled at once; what runs is asked to stop, and its worker's heartbeat sees it.
_CANCEL = text(
    """
    WITH active AS (
        SELECT id, schedule, state FROM jobs.jobs
        WHERE schedule = ANY (:names) AND state IN ('scheduled', 'ready', 'published', 'running')
        ORDER BY id FOR UPDATE SKIP LOCKED
    ), stopped AS (
        UPDATE jobs.jobs AS j
        SET state = CASE WHEN active.state = 'running' THEN j.state ELSE 'cancelled' END,
            cancel_requested_at = CASE WHEN active.state = 'running'
                                       THEN coalesce(j.cancel_requested_at, clock_timestamp()) END,
            finished_at = CASE WHEN active.state <> 'running' THEN clock_timestamp() END,
            error = CASE WHEN active.state <> 'running' THEN 'the next fire of ' || j.schedule || ' took its place' END
        FROM active WHERE j.id = active.id
    )
    SELECT DISTINCT j.schedule FROM jobs.jobs AS j
    WHERE j.schedule = ANY (:names) AND j.state IN ('scheduled', 'ready', 'published', 'running')
      AND (j.state = 'running' OR j.id NOT IN (SELECT id FROM active))
    """
).bindparams(bindparam("names", type_=ARRAY(String)))


def write(connection: Connection, steps: Sequence[Step], now: dt.datetime) -> list[Ticked]:
    """Do what was decided about these planned fires, unless it is on record already; a result for each schedule."""
    flags = {"backfills": [step.backfill for step in steps]}
    new = {(row.schedule, row.fire_at) for row in connection.execute(_NEW, {**_pairs(steps), **flags})}
    fresh = [step for step in steps if (step.entry.name, step.verdict.fire_at) in new]
    steps = _replace(connection, fresh, now)
    firing = [step for step in steps if step.verdict.action == "fire"]
    waiting = [step for step in steps if step.verdict.action == "wait"]
    others = [step for step in steps if step.verdict.action in ("skipped", "missed")]
    ids = _enqueue(connection, firing, now)
    backfills = [step for step in firing if step.backfill]
    if backfills:
        connection.execute(_GIVE_WAY, _pairs(backfills))
    recorded = _record(connection, [*zip(firing, ids, strict=True), *((step, None) for step in others)], now)
    if len(recorded) < len(firing) + len(others):
        raise Raced(remedy="try again")
    if waiting:
        values = {
            **_pairs(waiting),
            "now": now,
            "backfills": [step.backfill for step in waiting],
            "reasons": [step.verdict.reason for step in waiting],
        }
        connection.execute(_WAIT, values)
    return _ticked(recorded, waiting)


def record(connection: Connection, steps: Sequence[Step], now: dt.datetime) -> None:
    """Write the rows of fires for which there is no job."""
    _record(connection, [(step, None) for step in steps], now)


def cancel_runs(connection: Connection, names: Sequence[str]) -> set[str]:
    """Cancel what these schedules have active, and ask to stop what runs; return those of which one runs still."""
    return set(connection.scalars(_CANCEL, {"names": list(names)}))


def take_out(connection: Connection, steps: Sequence[Step]) -> None:
    """Take these fires from what waits."""
    connection.execute(_WAITED, _pairs(steps))


def _replace(connection: Connection, steps: Sequence[Step], now: dt.datetime) -> list[Step]:
    """Cancel the runs that are to give way; where one runs still, its successor waits until it has stopped."""
    names = [step.entry.name for step in steps if step.verdict.action == "replace"]
    if not names:
        return list(steps)
    said = "a later fire takes its place"
    roster.stop_waiting(connection, names, now, "overlap", said, backfills=False)
    running = cancel_runs(connection, names)
    return [
        replace(
            step,
            verdict=replace(step.verdict, action="wait" if step.entry.name in running else "fire"),
        )
        if step.verdict.action == "replace"
        else step
        for step in steps
    ]


def _enqueue(connection: Connection, steps: Sequence[Step], now: dt.datetime) -> list[UUID]:
    if not steps:
        return []
    runs = [run_at(step.entry.name, step.verdict.fire_at, step.entry.jitter) for step in steps]
    values = {
        **_pairs(steps),
        "jobs": [step.entry.job for step in steps],
        "args": [encode(step.entry.args) for step in steps],
        "runs": [at if at > now else None for at in runs],
    }
    return list(connection.scalars(_ENQUEUE, values))


def _record(connection: Connection, given: Sequence[tuple[Step, UUID | None]], now: dt.datetime) -> list[Any]:
    if not given:
        return []
    steps = [step for step, _ in given]
    values = {
        **_pairs(steps),
        "outcomes": [_outcome(step) for step in steps],
        "rules": [step.verdict.rule for step in steps],
        "reasons": [step.verdict.reason for step in steps],
        "job_ids": [id for _, id in given],
        "now": now,
    }
    return list(connection.execute(_RECORD, values))


def _outcome(step: Step) -> str:
    if step.verdict.action == "fire":
        return "backfilled" if step.backfill else "fired"
    return step.verdict.action


def _pairs(steps: Iterable[Step]) -> dict[str, Any]:
    given = list(steps)
    return {
        "schedules": [step.entry.name for step in given],
        "fire_ats": [step.verdict.fire_at for step in given],
    }


def _ticked(recorded: Iterable[Any], waiting: Iterable[Step]) -> list[Ticked]:
    counts: dict[str, Ticked] = {}
    for row in recorded:
        done = counts.setdefault(row.schedule, Ticked(row.schedule))
        if row.job_id is not None:
            done.job_ids.append(row.job_id)
        counts[row.schedule] = replace(
            done,
            skipped=done.skipped + (row.outcome == "skipped"),
            missed=done.missed + (row.outcome == "missed"),
        )
    for step in waiting:
        done = counts.setdefault(step.entry.name, Ticked(step.entry.name))
        counts[step.entry.name] = replace(done, waiting=done.waiting + 1)
    return list(counts.values())

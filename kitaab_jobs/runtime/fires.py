"""What a beat does when fires are due: it decides, records, enqueues and plans the next, in one transaction.

1. Lock the schedules whose next fire has come; other beats pass them over.
2. Decide about each planned fire up to now (`policies`).
3. Enqueue the jobs, and write a row in jobs.fires for every planned fire. Its primary key (schedule, fire_at) has the
   last word: whoever comes second writes nothing, and its job is rolled back.
4. Store the next instant.

Each step is one statement for all schedules together, so a tick costs what is due and not what exists.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, Boolean, Connection, DateTime, String, Uuid, bindparam, text
from sqlalchemy.exc import DBAPIError

from kitaab_jobs.contract import encode
from kitaab_jobs.db.retries import is_connection_loss, is_contention
from kitaab_jobs.errors import KitaabError, UnknownJob
from kitaab_jobs.runtime import endings, roster
from kitaab_jobs.runtime.outcome import describe
from kitaab_jobs.runtime.policies import Situation, Verdict, decide, run_at
from kitaab_jobs.runtime.roster import COLUMNS, Entry

# Schedules of one transaction, and the planned fires that it records for all of them together; what is left over is
# found by the next one. A schedule that has more to catch up on than its share goes on there.
MOST_SCHEDULES = 500
MOST_FIRES = 5000
FEWEST_FIRES = 10


@dataclass(frozen=True, slots=True)
class Due:
    """A schedule whose fire is to be decided, and how it stands: what runs, how many fires wait, whether its job exists."""

    entry: Entry
    running: str | None = None
    waiting: int = 0
    known: bool = True


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


_ACTIVE = "('scheduled', 'ready', 'published', 'running')"

_STANDING = f"""
    (SELECT j.state::text FROM jobs.jobs AS j WHERE j.schedule = s.name AND j.state IN {_ACTIVE} LIMIT 1) AS running,
    (SELECT count(*) FROM jobs.waiting_fires AS w WHERE w.schedule = s.name) AS waiting,
    EXISTS (SELECT FROM jobs.kinds AS k WHERE k.name = s.job) AS known"""

# Locked, so that of many beats one decides; the others pass it over and find the next instant stored.
_DUE = f"""
    SELECT {COLUMNS}, {_STANDING}
    FROM jobs.schedules AS s
    WHERE s.next_fire_at <= :now AND {{which}}
    ORDER BY s.next_fire_at
    LIMIT :limit
    FOR UPDATE OF s SKIP LOCKED
"""
_DUE_ANY = text(_DUE.format(which="true"))
_DUE_OF = text(_DUE.format(which="s.name = ANY (:names)")).bindparams(bindparam("names", type_=ARRAY(String)))

# The schedules of which something waits: the recursion steps from one to the next.
_WAITS = """
    WITH RECURSIVE waits AS (
        (SELECT schedule FROM jobs.waiting_fires ORDER BY schedule LIMIT 1)
        UNION ALL
        SELECT (SELECT w.schedule FROM jobs.waiting_fires AS w WHERE w.schedule > waits.schedule
                ORDER BY w.schedule LIMIT 1)
        FROM waits WHERE waits.schedule IS NOT NULL
    )"""

# The first that waits of each schedule, where no run is left.
_FREE = text(
    f"""
    {_WAITS}
    SELECT {COLUMNS}, w.fire_at, w.backfill, w.reason, w.waits_since
    FROM waits JOIN jobs.schedules AS s ON s.name = waits.schedule
    CROSS JOIN LATERAL (
        SELECT * FROM jobs.waiting_fires AS w WHERE w.schedule = s.name ORDER BY w.fire_at LIMIT 1
    ) AS w
    WHERE NOT EXISTS (SELECT FROM jobs.jobs AS j WHERE j.schedule = s.name AND j.state IN {_ACTIVE})
    LIMIT :limit
    FOR UPDATE OF s SKIP LOCKED
    """
)

# Where a run could not be asked to stop, since its row was locked just then.
_NOT_ASKED = text(
    f"""
    {_WAITS}
    SELECT s.name FROM waits JOIN jobs.schedules AS s ON s.name = waits.schedule
    WHERE s.overlap = 'cancel_running'
      AND EXISTS (SELECT FROM jobs.waiting_fires AS w WHERE w.schedule = s.name AND NOT w.backfill)
      AND EXISTS (SELECT FROM jobs.jobs AS j WHERE j.schedule = s.name AND j.state IN {_ACTIVE}
                    AND j.cancel_requested_at IS NULL)
    """
)

# Somebody may hold a job's row, or have enqueued one with the same key and not committed: the others are not to wait long.
_SOON = text("SELECT set_config('lock_timeout', '1s', true)")

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

_ADVANCE = text(
    """
    UPDATE jobs.schedules AS s SET next_fire_at = p.next_fire_at
    FROM unnest(:names, :nexts) AS p (name, next_fire_at) WHERE s.name = p.name
    """
).bindparams(
    bindparam("names", type_=ARRAY(String)), bindparam("nexts", type_=ARRAY(DateTime(timezone=True)))
)

_UNREADABLE = text(
    """
    UPDATE jobs.schedules SET next_fire_at = NULL, paused_at = coalesce(paused_at, :now),
        paused_by = CASE WHEN paused_at IS NULL THEN 'beat' ELSE paused_by END,
        paused_note = CASE WHEN paused_at IS NULL THEN :note ELSE paused_note END
    WHERE name = :name
    """
)

_NEXT = text("SELECT extract(epoch FROM min(next_fire_at) - :now)::double precision FROM jobs.schedules")


def due(
    connection: Connection,
    now: dt.datetime,
    limit: int = MOST_SCHEDULES,
    only: Sequence[str] | None = None,
) -> list[Due]:
    """Lock and return the schedules (or `only` these) whose next fire has come, those that have waited longest first."""
    values = {"now": now, "limit": limit}
    if only is None:
        rows = connection.execute(_DUE_ANY, values)
    else:
        rows = connection.execute(_DUE_OF, {**values, "names": list(only)})
    return [Due(Entry(*row[:-3]), *row[-3:]) for row in rows]


def seconds_to_next(connection: Connection, now: dt.datetime) -> float | None:
    """Return how long until the next fire of any schedule; None when there is none."""
    seconds: float | None = connection.scalar(_NEXT, {"now": now})
    return seconds


def fire_due(connection: Connection, now: dt.datetime, limit: int = MOST_SCHEDULES) -> list[Ticked]:
    """Do everything that is due, for up to `limit` schedules, and return what was done with each."""
    found = due(connection, now, limit)
    return fire(connection, found, now) if found else []


def fire(connection: Connection, found: Sequence[Due], now: dt.datetime) -> list[Ticked]:
    """Record what becomes of each planned fire of these (locked) schedules up to now, and plan the next.

    One schedule's trouble does not hold up the others: what fails together is done again one by one. What somebody
    else is in the way of stays due.
    """
    connection.execute(_SOON)
    found = _after_failures(connection, found, now)
    share = max(FEWEST_FIRES, MOST_FIRES // len(found))
    try:
        with connection.begin_nested():
            return _fire_together(connection, found, now, share)
    except (KitaabError, DBAPIError) as error:
        if is_connection_loss(error):
            raise
    return [_fire_alone(connection, each, now, share) for each in found]


def release(connection: Connection, now: dt.datetime, limit: int = MOST_SCHEDULES) -> list[Ticked]:
    """Fire what waited for the run before it, where that is over: one of each schedule."""
    not_asked = list(connection.scalars(_NOT_ASKED))
    if not_asked:
        connection.execute(_CANCEL, {"names": not_asked})
    steps = []
    for row in connection.execute(_FREE, {"limit": limit}):
        waited = dt.timedelta(seconds=round((now - row.waits_since).total_seconds()))
        said = f"it waited {waited} for the run before it"
        reason = f"{row.reason}; {said}" if row.backfill else said
        entry = Entry(*row[: -len(("fire_at", "backfill", "reason", "waits_since"))])
        steps.append(Step(entry, Verdict(row.fire_at, "fire", "overlap", reason), row.backfill))
    if not steps:
        return []
    connection.execute(_SOON)
    try:
        with connection.begin_nested():
            return _release(connection, steps, now)
    except (KitaabError, DBAPIError) as error:
        if is_connection_loss(error):
            raise
    return [_release_alone(connection, step, now) for step in steps]


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


def _fire_together(
    connection: Connection, found: Sequence[Due], now: dt.datetime, share: int
) -> list[Ticked]:
    steps: list[Step] = []
    nexts: dict[str, dt.datetime | None] = {}
    for each in found:
        verdicts, nexts[each.entry.name] = _decided(each, now, share)
        steps += [Step(each.entry, verdict) for verdict in verdicts]
    ticked = write(connection, steps, now)
    connection.execute(_ADVANCE, {"names": list(nexts), "nexts": list(nexts.values())})
    return ticked


def _decided(each: Due, now: dt.datetime, share: int) -> tuple[list[Verdict], dt.datetime | None]:
    """Return what is to become of a schedule's planned fires up to now, and its next one."""
    entry, plan = each.entry, each.entry.plan
    assert entry.next_fire_at is not None
    planned = [entry.next_fire_at]
    while (
        (following := plan.next_fire(planned[-1])) is not None and following <= now and len(planned) < share
    ):
        planned.append(following)
    if not each.known:
        raise UnknownJob(f"no job is called {entry.job!r}")
    complete = following is None or following > now
    situation = Situation(now, each.running, each.waiting, entry.pause, complete)
    return decide(entry.policy, planned, situation), following


def _fire_alone(connection: Connection, each: Due, now: dt.datetime, share: int) -> Ticked:
    name = each.entry.name
    try:
        with connection.begin_nested():
            return next(iter(_fire_together(connection, [each], now, share)), Ticked(name))
    except Raced:
        return Ticked(name)  # it stays due, and the next look finds what was recorded
    except (KitaabError, DBAPIError) as error:
        if is_connection_loss(error):
            raise
        if is_contention(error):
            return Ticked(name, error=describe(error))
        return _fail(connection, each, now, describe(error))


def _release(connection: Connection, steps: Sequence[Step], now: dt.datetime) -> list[Ticked]:
    connection.execute(_WAITED, _pairs(steps))
    return write(connection, steps, now)


def _release_alone(connection: Connection, step: Step, now: dt.datetime) -> Ticked:
    name = step.entry.name
    try:
        with connection.begin_nested():
            return next(iter(_release(connection, [step], now)), Ticked(name))
    except Raced:
        return Ticked(name)
    except (KitaabError, DBAPIError) as error:
        if is_connection_loss(error):
            raise
        reason = describe(error)
        if is_contention(error):
            return Ticked(name, error=reason)
    connection.execute(_WAITED, _pairs([step]))
    failed = replace(step, verdict=Verdict(step.verdict.fire_at, "skipped", "error", reason))
    _record(connection, [(failed, None)], now)
    return Ticked(name, skipped=1, error=reason)


def _advance_past(connection: Connection, each: Due) -> None:
    assert each.entry.next_fire_at is not None
    following = each.entry.plan.next_fire(each.entry.next_fire_at)
    connection.execute(_ADVANCE, {"names": [each.entry.name], "nexts": [following]})


def _fail(connection: Connection, each: Due, now: dt.datetime, reason: str) -> Ticked:
    """Record a fire that failed, and plan the next; a schedule that cannot be read any more is paused."""
    entry = each.entry
    assert entry.next_fire_at is not None
    step = Step(entry, Verdict(entry.next_fire_at, "skipped", "error", reason))
    _record(connection, [(step, None)], now)
    try:
        _advance_past(connection, each)
    except KitaabError:
        connection.execute(_UNREADABLE, {"name": entry.name, "now": now, "note": reason})
        return Ticked(entry.name, skipped=1, error=reason, paused=True)
    return Ticked(entry.name, skipped=1, error=reason)


def _after_failures(connection: Connection, found: Sequence[Due], now: dt.datetime) -> list[Due]:
    """Count the runs that have ended of those that are paused after failures, and return them as they stand now."""
    counting = [each.entry.name for each in found if each.entry.pause_after_failures is not None]
    paused = endings.settle_of(connection, counting, now) if counting else {}
    return [
        replace(each, entry=replace(each.entry, paused_at=now, paused_by="beat", paused_note=note))
        if (note := paused.get(each.entry.name)) is not None
        else each
        for each in found
    ]


def _replace(connection: Connection, steps: Sequence[Step], now: dt.datetime) -> list[Step]:
    """Cancel the runs that are to give way; where one runs still, its successor waits until it has stopped."""
    names = [step.entry.name for step in steps if step.verdict.action == "replace"]
    if not names:
        return list(steps)
    said = "a later fire takes its place"
    roster.stop_waiting(connection, names, now, "overlap", said, backfills=False)
    running = set(connection.scalars(_CANCEL, {"names": names}))
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

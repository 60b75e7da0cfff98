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
from collections.abc import Sequence
from dataclasses import dataclass, replace

from sqlalchemy import ARRAY, Connection, DateTime, String, bindparam, text
from sqlalchemy.exc import DBAPIError

from kitaab_jobs.db.retries import is_connection_loss, is_contention
from kitaab_jobs.errors import KitaabError, UnknownJob
from kitaab_jobs.runtime import endings, fire_records
from kitaab_jobs.runtime.fire_records import Raced, Step, Ticked
from kitaab_jobs.runtime.outcome import describe
from kitaab_jobs.runtime.policies import Situation, Verdict, decide
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
        fire_records.cancel_runs(connection, not_asked)
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


def _fire_together(
    connection: Connection, found: Sequence[Due], now: dt.datetime, share: int
) -> list[Ticked]:
    steps: list[Step] = []
    nexts: dict[str, dt.datetime | None] = {}
    for each in found:
        verdicts, nexts[each.entry.name] = _decided(each, now, share)
        steps += [Step(each.entry, verdict) for verdict in verdicts]
    ticked = fire_records.write(connection, steps, now)
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
    fire_records.take_out(connection, steps)
    return fire_records.write(connection, steps, now)


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
    fire_records.take_out(connection, [step])
    failed = replace(step, verdict=Verdict(step.verdict.fire_at, "skipped", "error", reason))
    fire_records.record(connection, [failed], now)
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
    fire_records.record(connection, [step], now)
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

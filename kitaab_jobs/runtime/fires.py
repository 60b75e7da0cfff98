"""All SQL on jobs.schedules and jobs.fires, and the decision what becomes of a planned fire."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, bindparam, text
from sqlalchemy.dialects.postgresql import JSONB

from kitaab_jobs.errors import KitaabError
from kitaab_jobs.runtime.timetable import Schedule
from kitaab_jobs.timing import fires_between, parse

# Planned fires that one tick records for one schedule; the next tick goes on from there.
CATCH_UP_LIMIT = 1000


@dataclass(frozen=True, slots=True)
class Due:
    """A schedule whose next fire has come."""

    name: str
    job: str
    args: dict[str, Any]
    line: str
    zone: str
    next_fire_at: dt.datetime
    now: dt.datetime
    running: str | None


@dataclass(frozen=True, slots=True)
class Fired:
    """What a tick did with one schedule."""

    name: str
    job_id: UUID | None
    missed: int


# Operators' pauses stay: only what the file says is written. A changed line is planned anew from now.
_SYNC = text(
    """
    INSERT INTO jobs.schedules AS s (name, job, args, line, zone, note, source, next_fire_at)
    VALUES (:name, :job, :args, :line, :zone, :note, 'file', :next_fire_at)
    ON CONFLICT (name) DO UPDATE SET
        job = excluded.job, args = excluded.args, line = excluded.line, zone = excluded.zone,
        note = excluded.note, source = 'file', updated_at = now(),
        next_fire_at = CASE WHEN (s.line, s.zone) = (excluded.line, excluded.zone)
            THEN coalesce(s.next_fire_at, excluded.next_fire_at) ELSE excluded.next_fire_at END
    WHERE (s.job, s.args, s.line, s.zone, s.note, s.source)
        IS DISTINCT FROM (excluded.job, excluded.args, excluded.line, excluded.zone, excluded.note, excluded.source)
    """
).bindparams(bindparam("args", type_=JSONB))

_REMOVE = text("DELETE FROM jobs.schedules WHERE source = 'file' AND name <> ALL (:names) RETURNING name")

# Locked, so that of many beats one decides; the others pass it over and find the next instant stored.
_DUE = text(
    """
    SELECT s.name, s.job, s.args, s.line, s.zone, s.next_fire_at, now() AS now,
           (SELECT j.state::text FROM jobs.jobs AS j
            WHERE j.schedule = s.name AND j.state IN ('scheduled', 'ready', 'published', 'running')
            LIMIT 1) AS running
    FROM jobs.schedules AS s
    WHERE s.next_fire_at <= now() AND s.paused_at IS NULL
    ORDER BY s.next_fire_at
    LIMIT :limit
    FOR UPDATE OF s SKIP LOCKED
    """
)

_ENQUEUE = text("SELECT jobs.enqueue(:job, :args, schedule => :schedule, fire_at => :fire_at)").bindparams(
    bindparam("args", type_=JSONB)
)

# The primary key decides: whoever comes second, be it another beat or this one after the clock was set back,
# writes nothing, and its job is rolled back.
_RECORD = text(
    """
    INSERT INTO jobs.fires (schedule, fire_at, outcome, reason, job_id)
    VALUES (:schedule, :fire_at, :outcome, :reason, :job_id)
    ON CONFLICT DO NOTHING
    """
)

_ADVANCE = text("UPDATE jobs.schedules SET next_fire_at = :next_fire_at WHERE name = :name")

_PAUSE = text("UPDATE jobs.schedules SET paused_at = now(), paused_note = :note WHERE name = :name")

_NEXT = text(
    """
    SELECT extract(epoch FROM min(next_fire_at) - now())::double precision
    FROM jobs.schedules WHERE paused_at IS NULL
    """
)


def sync(connection: Connection, lines: Iterable[Schedule]) -> list[str]:
    """Make the file's schedules in jobs.schedules what `lines` say; return the names removed."""
    now = connection.scalar(text("SELECT now()"))
    assert now is not None
    rows = [
        {
            "name": line.name,
            "job": line.job.name,
            "args": dict(line.args),
            "line": line.cron,
            "zone": line.zone,
            "note": line.note,
            "next_fire_at": line.cadence.next_fire(now),
        }
        for line in lines
    ]
    if rows:
        connection.execute(_SYNC, rows)
    return list(connection.scalars(_REMOVE, {"names": [row["name"] for row in rows]}))


def due(connection: Connection, limit: int = 200) -> list[Due]:
    """Lock and return the schedules whose next fire has come."""
    return [Due(*row) for row in connection.execute(_DUE, {"limit": limit})]


def fire(connection: Connection, schedule: Due) -> Fired:
    """Record what becomes of each planned fire up to now, enqueue the last one, and plan the next.

    After a time without a beat the latest fire runs and the older ones are recorded as missed. While a
    run of the same schedule is not over, the fire is skipped.
    """
    cadence = parse(schedule.line, schedule.zone)
    later = fires_between(cadence, schedule.next_fire_at, schedule.now, CATCH_UP_LIMIT)
    planned = [schedule.next_fire_at, *later]
    following = cadence.next_fire(planned[-1])
    # Where more are due than one tick records, the latest is not among these.
    missed = planned if following <= schedule.now else planned[:-1]
    reason = f"later fires were due, up to {planned[-1].isoformat()} at least"
    _record(connection, [_row(schedule.name, at, "missed", reason) for at in missed])
    job_id = _fire_or_skip(connection, schedule, planned[-1]) if len(missed) < len(planned) else None
    connection.execute(_ADVANCE, {"name": schedule.name, "next_fire_at": following})
    return Fired(schedule.name, job_id, len(missed))


def skip(connection: Connection, schedule: Due, reason: str) -> None:
    """Record a fire that failed, and plan the next; a schedule that cannot be read any more is paused."""
    _record(connection, [_row(schedule.name, schedule.next_fire_at, "skipped", reason)])
    try:
        following = parse(schedule.line, schedule.zone).next_fire(schedule.next_fire_at)
    except KitaabError:
        connection.execute(_PAUSE, {"name": schedule.name, "note": f"paused by beat: {reason}"})
    else:
        connection.execute(_ADVANCE, {"name": schedule.name, "next_fire_at": following})


def _fire_or_skip(connection: Connection, schedule: Due, at: dt.datetime) -> UUID | None:
    if schedule.running:
        _record(
            connection, [_row(schedule.name, at, "skipped", f"the run before it is still {schedule.running}")]
        )
        return None
    with connection.begin_nested() as savepoint:
        job_id: UUID | None = connection.scalar(
            _ENQUEUE, {"job": schedule.job, "args": schedule.args, "schedule": schedule.name, "fire_at": at}
        )
        if not _record(connection, [_row(schedule.name, at, "fired", None, job_id)]):
            savepoint.rollback()
            return None
    return job_id


def _record(connection: Connection, rows: list[dict[str, Any]]) -> int:
    return connection.execute(_RECORD, rows).rowcount if rows else 0


def seconds_to_next(connection: Connection) -> float | None:
    """Return how long until the next fire of any schedule; None when there is none."""
    seconds: float | None = connection.scalar(_NEXT)
    return seconds


def _row(
    name: str, at: dt.datetime, outcome: str, reason: str | None, job_id: UUID | None = None
) -> dict[str, Any]:
    return {"schedule": name, "fire_at": at, "outcome": outcome, "reason": reason, "job_id": job_id}

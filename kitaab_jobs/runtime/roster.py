"""The rows of jobs.schedules: how they are written and read, and the file's lines brought into them."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ARRAY, Connection, DateTime, Interval, bindparam, text
from sqlalchemy.dialects.postgresql import JSONB

from kitaab_jobs.contract import encode
from kitaab_jobs.db import locks
from kitaab_jobs.errors import KitaabError
from kitaab_jobs.runtime.policies import CatchUp, Overlap, Plan, Policy
from kitaab_jobs.runtime.timetable import Schedule
from kitaab_jobs.timing import Dst, parse

# Planned fires of one schedule that are recorded at once when they will not be fired any more: of "every 3s", those of
# three days without a beat.
MOST_FORSAKEN = 100_000


@dataclass(frozen=True, slots=True)
class Entry:
    """A row of jobs.schedules."""

    name: str
    job: str
    args: dict[str, Any]
    line: str
    zone: str
    dst: Dst
    catch_up: CatchUp
    catch_up_window: dt.timedelta | None
    overlap: Overlap
    jitter: dt.timedelta
    starts_at: dt.datetime | None
    ends_at: dt.datetime | None
    pause_after_failures: int | None
    note: str
    source: str
    next_fire_at: dt.datetime | None
    failures: int
    paused_at: dt.datetime | None
    paused_by: str | None
    paused_note: str | None

    @property
    def plan(self) -> Plan:
        """When it fires; raises `BadCron` or `UnknownZone` for a line that was spoiled by other means than ours."""
        return Plan(parse(self.line, self.zone, dst=self.dst), self.starts_at, self.ends_at)

    @property
    def policy(self) -> Policy:
        """What becomes of fires that are late, or come while a run is not over."""
        return Policy(self.catch_up, self.catch_up_window, self.overlap)

    @property
    def pause(self) -> str | None:
        """Who paused it and why, in words; None where it runs."""
        if self.paused_at is None:
            return None
        return f"paused by {self.paused_by or '?'}" + (f": {self.paused_note}" if self.paused_note else "")


# In the order of Entry's fields.
COLUMNS = """s.name, s.job, s.args, s.line, s.zone, s.dst::text, s.catch_up::text, s.catch_up_window, s.overlap::text,
    s.jitter, s.starts_at, s.ends_at, s.pause_after_failures, s.note, s.source::text, s.next_fire_at, s.failures,
    s.paused_at, s.paused_by, s.paused_note"""

# What the author of a schedule says, and of that what decides when it fires.
_SAID = (
    "job", "args", "line", "zone", "dst", "catch_up", "catch_up_window", "overlap", "jitter", "starts_at", "ends_at",
    "pause_after_failures", "note", "source",
)  # fmt: skip
_WHEN = {"line", "zone", "dst", "starts_at", "ends_at"}

# Operators' pauses and the count of failures are not the author's to change.
_WRITE = text(
    f"""
    INSERT INTO jobs.schedules (name, {", ".join(_SAID)}, next_fire_at)
    VALUES (:name, :job, :args, :line, :zone, :dst, :catch_up, :catch_up_window, :overlap, :jitter, :starts_at, :ends_at,
            :pause_after_failures, :note, :source, :next_fire_at)
    ON CONFLICT (name) DO UPDATE SET
        {", ".join(f"{column} = excluded.{column}" for column in _SAID)},
        next_fire_at = excluded.next_fire_at, updated_at = now()
    """
).bindparams(
    bindparam("args", type_=JSONB),
    bindparam("catch_up_window", type_=Interval),
    bindparam("jitter", type_=Interval),
)

_READ = f"SELECT {COLUMNS} FROM jobs.schedules AS s WHERE {{where}} ORDER BY s.name {{lock}}"
_ALL = text(_READ.format(where="true", lock=""))
_LOCKED = text(_READ.format(where="s.name = ANY (:names)", lock="FOR UPDATE"))
_DELETE = text("DELETE FROM jobs.schedules WHERE name = ANY (:names)")
_TURN = text("SELECT pg_advisory_xact_lock(:key)")

_MISS = text(
    """
    INSERT INTO jobs.fires (schedule, fire_at, outcome, rule, reason, recorded_at)
    SELECT :schedule, p.fire_at, 'missed', :rule, :reason, :now FROM unnest(:fire_ats) AS p (fire_at)
    ON CONFLICT DO NOTHING
    """
).bindparams(bindparam("fire_ats", type_=ARRAY(DateTime(timezone=True))))

_STOP_WAITING = text(
    """
    WITH gone AS (
        DELETE FROM jobs.waiting_fires WHERE schedule = ANY (:names) AND (backfill IS FALSE OR :backfills)
        RETURNING schedule, fire_at
    )
    INSERT INTO jobs.fires (schedule, fire_at, outcome, rule, reason, recorded_at)
    SELECT schedule, fire_at, 'skipped', :rule, :reason || ', while it waited for the run before it', :now FROM gone
    ON CONFLICT DO NOTHING
    """
)

# By a clock that was ahead: what is still to come was neither missed nor skipped, and does not wait for a run either.
_EARLY = text(
    """
    SELECT schedule FROM jobs.waiting_fires WHERE fire_at > :now
    UNION
    SELECT f.schedule FROM jobs.fires AS f JOIN jobs.schedules AS s ON s.name = f.schedule
    WHERE f.fire_at > :now AND f.outcome IN ('missed', 'skipped')
    """
)
_TAKE_BACK = text(
    """
    WITH early AS (
        DELETE FROM jobs.waiting_fires WHERE schedule = ANY (:names) AND fire_at > :now
    )
    DELETE FROM jobs.fires WHERE schedule = ANY (:names) AND fire_at > :now AND outcome IN ('missed', 'skipped')
    """
)

# Unless somebody has planned it anew, or fired it, since it was read.
_MOVE = text(
    """
    UPDATE jobs.schedules SET next_fire_at = :next_fire_at
    WHERE name = :name AND next_fire_at IS NOT DISTINCT FROM CAST(:was AS timestamptz)
    """
)
_CLOCK = text("SELECT clock_timestamp()")


def clock(connection: Connection) -> dt.datetime:
    """Return the time by which all beats and operators go: the database's."""
    now = connection.scalar(_CLOCK)
    assert isinstance(now, dt.datetime)
    return now


def entries(connection: Connection) -> list[Entry]:
    """Return all schedules by name."""
    return [Entry(*row) for row in connection.execute(_ALL)]


def locked(connection: Connection, names: Sequence[str]) -> list[Entry]:
    """Lock these schedules against beats until the transaction ends, and return those that exist."""
    return [Entry(*row) for row in connection.execute(_LOCKED, {"names": list(names)})]


def written(line: Schedule, source: str) -> dict[str, Any]:
    """Return a schedule as its row says it, without what changes as it runs."""
    cadence, plan, policy = line.cadence, line.plan, line.policy
    return {
        "job": line.job.name,
        "args": json.loads(encode(line.args)),  # as it is read back: a tuple is a list
        "line": cadence.line,
        "zone": cadence.zone,
        "dst": line.dst,
        "catch_up": policy.catch_up,
        "catch_up_window": policy.window,
        "overlap": policy.overlap,
        "jitter": line.longest_jitter,
        "starts_at": plan.starts_at,
        "ends_at": plan.ends_at,
        "pause_after_failures": line.pause_after_failures,
        "note": line.note,
        "source": source,
    }


def write(
    connection: Connection, lines: Mapping[str, tuple[Schedule, dt.datetime | None]], source: str
) -> None:
    """Write schedules, each with its next fire."""
    rows = [
        {"name": name, **written(line, source), "next_fire_at": next_fire}
        for name, (line, next_fire) in lines.items()
    ]
    if rows:
        connection.execute(_WRITE, rows)


def changed(entry: Entry, line: Schedule, source: str) -> list[str]:
    """Return which of the fields that an author writes differ."""
    return [field for field, value in written(line, source).items() if getattr(entry, field) != value]


def next_after_change(
    entry: Entry, line: Schedule, fields: Iterable[str], now: dt.datetime
) -> dt.datetime | None:
    """Return the next fire of a schedule after an edit: planned anew from now where the edit says when it fires."""
    if _WHEN.isdisjoint(fields) and entry.next_fire_at is not None:
        return entry.next_fire_at
    return line.plan.next_fire(now)


def is_planned_anew(fields: Iterable[str]) -> bool:
    """Tell whether these changes decide when it fires."""
    return not _WHEN.isdisjoint(fields)


def forsake(connection: Connection, found: Iterable[Entry], now: dt.datetime, rule: str, reason: str) -> None:
    """Record that what these (locked) schedules had planned up to now, and what waits, will not be fired."""
    names = []
    for entry in found:
        names.append(entry.name)
        if entry.next_fire_at is None or entry.next_fire_at > now:
            continue
        try:
            later = entry.plan.fires(entry.next_fire_at, now, MOST_FORSAKEN)
        except KitaabError:
            later = []
        said = {"schedule": entry.name, "rule": rule, "reason": reason, "now": now}
        connection.execute(_MISS, {**said, "fire_ats": [entry.next_fire_at, *later]})
    stop_waiting(connection, names, now, rule, reason, backfills=True)


def stop_waiting(
    connection: Connection, names: Sequence[str], now: dt.datetime, rule: str, reason: str, *, backfills: bool
) -> None:
    """Record that what waits for the run before it is skipped; `backfills` tells whether those too."""
    if names:
        connection.execute(
            _STOP_WAITING,
            {"names": list(names), "now": now, "rule": rule, "reason": reason, "backfills": backfills},
        )


def delete(connection: Connection, names: Sequence[str]) -> None:
    """Delete schedules that were forsaken; their fires stay on record."""
    connection.execute(_DELETE, {"names": list(names)})


@dataclass(frozen=True, slots=True)
class Synced:
    """What the file brought: `changed` names the fields of each."""

    added: list[str]
    changed: dict[str, list[str]]
    removed: list[str]


def sync(connection: Connection, lines: Iterable[Schedule], now: dt.datetime) -> Synced:
    """Make the file's schedules in jobs.schedules what `lines` say. Operators' pauses stay.

    What is planned anew, or leaves the file, has what was due until now recorded as missed.
    """
    connection.execute(_TURN, {"key": locks.SYNC_TIMETABLE})
    wanted = {line.name: line for line in lines}
    there = {entry.name: entry for entry in entries(connection)}
    added = [name for name in wanted if name not in there]
    differing = {
        name: fields
        for name, line in wanted.items()
        if name in there and (fields := changed(there[name], line, "file"))
    }
    stuck = [
        name
        for name in wanted
        if name in there and name not in differing and there[name].next_fire_at is None
    ]
    removed = [name for name, entry in there.items() if entry.source == "file" and name not in wanted]
    # Locked, and read anew: a beat may have fired them meanwhile.
    there |= {entry.name: entry for entry in locked(connection, [*differing, *stuck, *removed])}
    anew = [there[name] for name, fields in differing.items() if is_planned_anew(fields)]
    forsake(connection, anew, now, "changed", "the schedule was changed before it was fired")
    forsake(
        connection, [there[name] for name in removed], now, "removed", "the schedule left beat_schedule.py"
    )
    write(
        connection,
        {name: (wanted[name], wanted[name].plan.next_fire(now)) for name in (*added, *stuck)},
        "file",
    )
    edits = {
        name: (wanted[name], next_after_change(there[name], wanted[name], fields, now))
        for name, fields in differing.items()
    }
    write(connection, edits, "file")
    delete(connection, removed)
    return Synced(added, differing, removed)


def replan(connection: Connection, now: dt.datetime) -> list[str]:
    """Bring back next fires that are later than the first one after now, plan what was added by SQL without one, and
    return whose they were.

    A clock that was wrong for a moment leaves them in the far future, and what lies between on record as missed or
    waiting, which is taken back. What was fired by it stands in jobs.fires, so nothing is fired twice.
    """
    # One at a time waits for several schedules; and their fires are changed by who holds the schedule.
    connection.execute(_TURN, {"key": locks.SYNC_TIMETABLE})
    early = list(connection.scalars(_EARLY, {"now": now}))
    if early:
        locked(connection, early)
        connection.execute(_TAKE_BACK, {"names": early, "now": now})
    found = []
    for entry in entries(connection):
        if entry.next_fire_at is None and entry.paused_by == "beat":
            continue
        try:
            first = entry.plan.next_fire(now)
        except KitaabError:
            continue
        if first is not None and (entry.next_fire_at is None or first < entry.next_fire_at):
            found.append({"name": entry.name, "next_fire_at": first, "was": entry.next_fire_at})
    if found:
        connection.execute(_MOVE, found)
    return [str(row["name"]) for row in found]

"""What operators do with schedules: look, add, edit, pause, resume, run now, remove. `backfills` has the rest.

Each function works on the caller's transaction, which ends with its effect: commit it at once, since a schedule is
locked against beats until then. `now` is the database's (`roster.clock`), `by` says who asks.
"""

from __future__ import annotations

import datetime as dt
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

from kitaab_jobs.contract import job_named
from kitaab_jobs.errors import KitaabError, UsageError
from kitaab_jobs.runtime import endings, fire_records, fires, roster
from kitaab_jobs.runtime.fire_records import Step
from kitaab_jobs.runtime.policies import Verdict
from kitaab_jobs.runtime.roster import COLUMNS, Entry
from kitaab_jobs.runtime.timetable import FILE, Schedule

_FIND = text(
    f"""
    SELECT {COLUMNS} FROM jobs.schedules AS s
    WHERE CAST(:like AS text) IS NULL OR s.name LIKE :like
    ORDER BY s.next_fire_at NULLS LAST, s.name
    """
)
_ONE = text(f"SELECT {COLUMNS} FROM jobs.schedules AS s WHERE s.name = :name")

_SIMILAR = text("SELECT name FROM jobs.schedules ORDER BY name LIMIT 200")

_HISTORY = text(
    """
    SELECT f.fire_at, f.outcome::text, f.rule, f.reason, f.recorded_at, extract(epoch FROM f.lateness)::float AS lateness,
           f.job_id, coalesce(j.state::text, f.ended_as::text) AS job_state, j.started_at,
           coalesce(j.finished_at, f.ended_at) AS ended_at, j.error
    FROM (
        SELECT * FROM jobs.fires
        WHERE schedule = :name AND (CAST(:before AS timestamptz) IS NULL OR fire_at < :before)
          AND (CAST(:outcome AS text) IS NULL OR outcome::text = :outcome)
        ORDER BY fire_at DESC LIMIT :limit
    ) AS f
    LEFT JOIN jobs.jobs AS j ON j.id = f.job_id
    ORDER BY f.fire_at DESC
    """
)
_HAS_HISTORY = text("SELECT EXISTS (SELECT FROM jobs.fires WHERE schedule = :name)")

_WAITING = text(
    "SELECT fire_at, backfill, reason FROM jobs.waiting_fires WHERE schedule = :name ORDER BY fire_at"
)

_ACTIVE = text(
    """
    SELECT id, state::text FROM jobs.jobs
    WHERE schedule = :name AND state IN ('scheduled', 'ready', 'published', 'running') LIMIT 1
    """
)

_PAUSE = text(
    """
    UPDATE jobs.schedules SET paused_at = :now, paused_by = :by, paused_note = :note, updated_at = now()
    WHERE name = :name
    """
)
_RESUME = text(
    """
    UPDATE jobs.schedules SET paused_at = NULL, paused_by = NULL, paused_note = NULL, failures = 0,
        next_fire_at = :next_fire_at, updated_at = now()
    WHERE name = :name
    """
)


# --- looking -------------------------------------------------------------------------------------


def find(connection: Connection, name: str | None = None) -> list[Entry]:
    """Return the schedules, the next to fire first; in `name`, * stands for anything."""
    return [
        Entry(*row) for row in connection.execute(_FIND, {"like": None if name is None else _pattern(name)})
    ]


def get(connection: Connection, name: str) -> Entry:
    """Return one schedule; raise `UsageError` where there is none of that name."""
    row = connection.execute(_ONE, {"name": name}).one_or_none()
    if row is None:
        raise _no_such(connection, name)
    return Entry(*row)


def next_fires(entry: Entry | Schedule, after: dt.datetime, count: int) -> list[dt.datetime]:
    """Return the next fires after `after`, in UTC; fewer than `count` where it ends before."""
    found: list[dt.datetime] = []
    while len(found) < count and (fire := entry.plan.next_fire(after)) is not None:
        found.append(fire)
        after = fire
    return found


def history(
    connection: Connection,
    name: str,
    limit: int,
    *,
    before: dt.datetime | None = None,
    outcome: str | None = None,
) -> list[dict[str, Any]]:
    """Return what became of the planned fires, the latest first; raise `UsageError` for a name that never was.

    Each has fire_at, outcome, rule, reason, recorded_at, lateness (seconds), and of its run job_id, job_state,
    started_at, ended_at and error.
    """
    values = {"name": name, "limit": limit, "before": before, "outcome": outcome}
    rows = [dict(row) for row in connection.execute(_HISTORY, values).mappings()]
    if not rows and not connection.scalar(_HAS_HISTORY, {"name": name}):
        get(connection, name)
    return rows


def waiting(connection: Connection, name: str) -> list[dict[str, Any]]:
    """Return the planned fires that wait for the run before them: fire_at, backfill and reason."""
    return [dict(row) for row in connection.execute(_WAITING, {"name": name}).mappings()]


# --- changing ------------------------------------------------------------------------------------


def add(connection: Connection, line: Schedule, *, now: dt.datetime) -> Entry:
    """Add a schedule live; raise `UsageError` where the name is taken or it will never fire."""
    if roster.locked(connection, [line.name]):
        raise UsageError(
            f"a schedule is called {line.name!r} already", remedy="choose another name, or edit that one"
        )
    first = line.plan.next_fire(now)
    if first is None:
        raise UsageError(f"{line.name}: {line.cron!r} will not fire any more", remedy="let it end later")
    roster.write(connection, {line.name: (line, first)}, "live")
    return get(connection, line.name)


def as_line(entry: Entry) -> Schedule:
    """Return a row as the line that says the same; raise `UnknownJob` where its job is no more."""
    return Schedule(
        entry.name,
        job_named(entry.job),
        cron=entry.line,
        zone=entry.zone,
        args=entry.args,
        catch_up=entry.catch_up,
        catch_up_window=entry.catch_up_window,
        overlap=entry.overlap,
        jitter=entry.jitter or None,
        starts_at=entry.starts_at,
        ends_at=entry.ends_at,
        dst=entry.dst,
        pause_after_failures=entry.pause_after_failures,
        note=entry.note,
    )


def edit(connection: Connection, name: str, changes: Mapping[str, Any], *, now: dt.datetime) -> Entry:
    """Change a live schedule: `changes` are fields of `Schedule`. What was due until now is recorded as missed where
    the change says when it fires. Raises `UsageError` for a schedule of the file, and what `Schedule` raises."""
    entry = _live(connection, name, "edited", "change its line there, and beat reads it")
    line = as_line(entry)
    known = {each.name for each in fields(Schedule)} - {"name"}
    if strange := sorted(set(changes) - known):
        raise UsageError(f"a schedule has no {strange[0]!r}", remedy=f"it has {', '.join(sorted(known))}")
    values = {each: getattr(line, each) for each in known} | dict(changes)
    line = Schedule(name=name, **values)
    differing = roster.changed(entry, line, "live")
    if not differing:
        return entry
    following = roster.next_after_change(entry, line, differing, now)
    if following is None:
        raise UsageError(f"{name}: {line.cron!r} will not fire any more", remedy="let it end later")
    if roster.is_planned_anew(differing):
        roster.forsake(connection, [entry], now, "changed", "the schedule was changed before it was fired")
    roster.write(connection, {name: (line, following)}, "live")
    return get(connection, name)


def remove(connection: Connection, name: str, *, now: dt.datetime) -> Entry:
    """Remove a live schedule and return what it was; its fires stay on record, and runs go on."""
    entry = _live(connection, name, "removed", "take its line out there, and beat removes it")
    roster.forsake(connection, [entry], now, "removed", "the schedule was removed")
    roster.delete(connection, [name])
    return entry


def pause(connection: Connection, name: str, *, now: dt.datetime, by: str, note: str) -> Entry:
    """Pause a schedule: until it is resumed its fires are recorded as skipped. Pausing again changes the note."""
    locked(connection, name)
    connection.execute(_PAUSE, {"name": name, "now": now, "by": by[:128], "note": note})
    paused = get(connection, name)
    roster.stop_waiting(connection, [name], now, "paused", paused.pause or "", backfills=False)
    return paused


def resume(connection: Connection, name: str, *, now: dt.datetime) -> Entry:
    """Let a schedule fire again from now on; the count of its failures starts anew.

    What was due while it was paused is recorded as skipped, and not caught up on.
    """
    entry = locked(connection, name)
    if entry.paused_at is None:
        raise UsageError(f"{name} is not paused", remedy="see 'kitaab-jobs schedules show'")
    endings.settle_of(connection, [name], now)
    # As often as there is something to record: one look records a share.
    while entry.next_fire_at is not None and entry.next_fire_at <= now:
        before = entry.next_fire_at
        fires.fire(connection, fires.due(connection, now, only=[name]), now)
        entry = get(connection, name)
        if entry.next_fire_at == before:
            raise KitaabError(f"what {name} skipped cannot be recorded just now", remedy="try again")
    following = entry.next_fire_at or entry.plan.next_fire(now)
    connection.execute(_RESUME, {"name": name, "next_fire_at": following})
    return get(connection, name)


def run_now(connection: Connection, name: str, *, now: dt.datetime, by: str, beside: bool = False) -> UUID:
    """Enqueue a run at once, planned or paused or not, and return its id; its fire is on record under `now`.

    Raises `KitaabError` while another run is not over, unless it may run `beside` it.
    """
    entry = locked(connection, name)
    active = connection.execute(_ACTIVE, {"name": name}).first()
    if active is not None and not beside and entry.overlap != "allow":
        raise KitaabError(
            f"a run of {name} is not over: {active.id} is {active.state}",
            remedy="wait for it, cancel it, or let this one run beside it",
        )
    at = now if now.microsecond else now + dt.timedelta(microseconds=1)  # planned fires are at whole seconds
    verdict = Verdict(at, "fire", "run_now", f"{by} asked for it")
    done = fire_records.write(connection, [Step(replace(entry, jitter=dt.timedelta(0)), verdict)], now)
    if not done or not done[0].job_ids:
        raise KitaabError(
            f"no run of {name} was enqueued, since a job with the same key has not ended",
            remedy="wait for it, or cancel it",
        )
    return done[0].job_ids[0]


# --- names ---------------------------------------------------------------------------------------


def locked(connection: Connection, name: str) -> Entry:
    """Lock a schedule against beats and return it; raise `UsageError` where there is none of that name."""
    for entry in roster.locked(connection, [name]):
        return entry
    raise _no_such(connection, name)


def _live(connection: Connection, name: str, what: str, instead: str) -> Entry:
    entry = locked(connection, name)
    if entry.source == "file":
        raise UsageError(
            f"{name} stands in {FILE}, and cannot be {what} live",
            remedy=f"{instead} at its next start; until then it can be paused",
        )
    return entry


def _no_such(connection: Connection, name: str) -> UsageError:
    names: Sequence[str] = list(connection.scalars(_SIMILAR))
    close = difflib.get_close_matches(name, names, n=1)
    remedy = f"did you mean {close[0]!r}?" if close else "see 'kitaab-jobs schedules list'"
    return UsageError(f"no schedule is called {name!r}", remedy=remedy)


def _pattern(name: str) -> str:
    for special in ("\\", "%", "_"):
        name = name.replace(special, f"\\{special}")
    return name.replace("*", "%")

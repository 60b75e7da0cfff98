"""How the runs of fires ended: written into jobs.fires, where it outlives the job's row, and failures counted.

A beat looks at the fires whose run is open, some at each tick, so that looking costs the same however many there are;
and at those of a schedule that is paused after failures whenever it fires again.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ARRAY, Connection, DateTime, String, bindparam, text

from kitaab_jobs.runtime import roster

# Open fires that are looked at in one tick.
AT_ONCE = 500

START = ("", dt.datetime(1970, 1, 1, tzinfo=dt.UTC))

_OPEN = """
    SELECT f.schedule, f.fire_at, j.state::text AS state, j.finished_at, j.id IS NULL AS gone
    FROM (
        SELECT schedule, fire_at, job_id FROM jobs.fires
        WHERE job_id IS NOT NULL AND ended_at IS NULL AND {which}
        ORDER BY schedule, fire_at LIMIT :limit
    ) AS f
    LEFT JOIN jobs.jobs AS j ON j.id = f.job_id
    ORDER BY f.schedule, f.fire_at
"""
_OPEN_BEYOND = text(_OPEN.format(which="(schedule, fire_at) > (:schedule, :fire_at)"))
_OPEN_OF = text(_OPEN.format(which="schedule = ANY (:names)")).bindparams(
    bindparam("names", type_=ARRAY(String))
)

# The schedules are locked first, as a tick does, and those that a tick holds are left for the next time; so are fires
# that another beat ends (of schedules that are no more) or the purge removes.
_END = text(
    """
    WITH locked AS (
        SELECT name, failures FROM jobs.schedules WHERE name = ANY (:schedules) ORDER BY name FOR UPDATE SKIP LOCKED
    ), p AS MATERIALIZED (
        SELECT * FROM unnest(:schedules, :fire_ats, :states, :ends) AS p (schedule, fire_at, state, ended_at)
        WHERE p.schedule IN (SELECT name FROM locked)
           OR NOT EXISTS (SELECT FROM jobs.schedules AS s WHERE s.name = p.schedule)
    ), free AS MATERIALIZED (
        SELECT f.schedule, f.fire_at FROM jobs.fires AS f JOIN p USING (schedule, fire_at)
        WHERE f.ended_at IS NULL FOR UPDATE OF f SKIP LOCKED
    ), ended AS (
        UPDATE jobs.fires AS f SET ended_as = CAST(p.state AS jobs.job_state), ended_at = p.ended_at
        FROM free JOIN p USING (schedule, fire_at)
        WHERE f.schedule = p.schedule AND f.fire_at = p.fire_at AND f.ended_at IS NULL
        RETURNING f.schedule, f.ended_as, f.ended_at
    ), tally AS (
        SELECT schedule, bool_or(ended_as = 'succeeded') AS succeeded,
               count(*) FILTER (WHERE ended_as = 'dead' AND ended_at > last_success) AS dead
        FROM (
            SELECT schedule, ended_as, ended_at,
                   coalesce(max(ended_at) FILTER (WHERE ended_as = 'succeeded') OVER (PARTITION BY schedule),
                            '-infinity') AS last_success
            FROM ended
        ) AS judged
        GROUP BY schedule
    ), counted AS (
        SELECT locked.name, CASE WHEN tally.succeeded THEN 0 ELSE locked.failures END + tally.dead AS failures
        FROM locked JOIN tally ON tally.schedule = locked.name
    )
    UPDATE jobs.schedules AS s
    SET failures = counted.failures,
        paused_at = CASE WHEN s.paused_at IS NULL AND counted.failures >= s.pause_after_failures THEN :now
                         ELSE s.paused_at END,
        paused_by = CASE WHEN s.paused_at IS NULL AND counted.failures >= s.pause_after_failures THEN 'beat'
                         ELSE s.paused_by END,
        paused_note = CASE WHEN s.paused_at IS NULL AND counted.failures >= s.pause_after_failures
                           THEN counted.failures || ' runs in a row ended dead' ELSE s.paused_note END
    FROM counted
    WHERE s.name = counted.name AND s.failures <> counted.failures
    RETURNING s.name, CASE WHEN s.paused_by = 'beat' AND s.paused_at = :now THEN s.paused_note END AS note
    """
).bindparams(
    bindparam("schedules", type_=ARRAY(String)),
    bindparam("fire_ats", type_=ARRAY(DateTime(timezone=True))),
    bindparam("states", type_=ARRAY(String)),
    bindparam("ends", type_=ARRAY(DateTime(timezone=True))),
)


@dataclass(frozen=True, slots=True)
class Settled:
    """Which schedules were paused, with the reason, and where the next look goes on."""

    paused: dict[str, str]
    beyond: tuple[str, dt.datetime]


def settle_some(
    connection: Connection, beyond: tuple[str, dt.datetime], now: dt.datetime, limit: int = AT_ONCE
) -> Settled:
    """Look at some open fires, beyond the last one that was looked at, and write how their runs ended."""
    schedule, fire_at = beyond
    rows = connection.execute(_OPEN_BEYOND, {"schedule": schedule, "fire_at": fire_at, "limit": limit}).all()
    last = START if len(rows) < limit else (rows[-1].schedule, rows[-1].fire_at)
    return Settled(_end(connection, rows, now), last)


def settle_of(connection: Connection, names: Sequence[str], now: dt.datetime) -> dict[str, str]:
    """Write how the runs of these schedules ended; return those that were paused for it, with the reason."""
    rows = connection.execute(_OPEN_OF, {"names": list(names), "limit": 10 * AT_ONCE}).all()
    return _end(connection, rows, now)


def _end(connection: Connection, rows: Sequence[Any], now: dt.datetime) -> dict[str, str]:
    over = [row for row in rows if row.gone or row.finished_at is not None]
    if not over:
        return {}
    values = {
        "schedules": [row.schedule for row in over],
        "fire_ats": [row.fire_at for row in over],
        "states": [row.state for row in over],
        "ends": [row.finished_at or now for row in over],
        "now": now,
    }
    paused = {row.name: row.note for row in connection.execute(_END, values) if row.note is not None}
    for name, note in paused.items():
        roster.stop_waiting(connection, [name], now, "paused", f"paused by beat: {note}", backfills=False)
    return paused

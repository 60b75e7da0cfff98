"""Planned fires of the past that were not run, run afterwards, as an operator asked for it.

What stands at the top of `schedules` holds here too: the transaction is the caller's, and ends with the function's effect.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, text

from kitaab_jobs.errors import UsageError
from kitaab_jobs.runtime import fire_records, schedules
from kitaab_jobs.runtime.fire_records import Step
from kitaab_jobs.runtime.policies import MOST_WAITING, Overlap, Verdict
from kitaab_jobs.runtime.roster import Entry

# Fires of one backfill.
MOST_BACKFILLED = 10_000

_RECORDED = text(
    "SELECT fire_at, outcome::text FROM jobs.fires WHERE schedule = :name AND fire_at BETWEEN :since AND :until"
)

_CREATED = text("SELECT created_at FROM jobs.schedules WHERE name = :name")


@dataclass(frozen=True, slots=True)
class Backfill:
    """The planned fires of a range: those to run, and of the others what became of them already.

    `unrecorded` are those to run of which there is no row, though the schedule was there: it was purged since.
    """

    entry: Entry
    runs: list[dt.datetime]
    unrecorded: list[dt.datetime]
    done: dict[dt.datetime, str]
    one_by_one: bool


def plan(
    connection: Connection,
    name: str,
    since: dt.datetime,
    until: dt.datetime,
    *,
    now: dt.datetime,
    overlap: Overlap | None = None,
) -> Backfill:
    """Return what `run` would do from `since` to `until`, both included.

    What was fired or backfilled is left alone; what was missed or skipped, or never planned (the schedule is younger),
    is run. One after the other, unless the schedule or `overlap` says "allow".
    """
    entry = schedules.get(connection, name)
    if since > until:
        raise UsageError(
            f"the range from {since.isoformat()} to {until.isoformat()} is empty", remedy="turn them round"
        )
    if until > now:
        raise UsageError(
            f"{until.isoformat()} is still to come",
            remedy=f"backfill up to {now.isoformat(timespec='seconds')}",
        )
    planned = entry.plan.fires(since - dt.timedelta(microseconds=1), until, MOST_BACKFILLED + 1)
    if len(planned) > MOST_BACKFILLED:
        raise UsageError(
            f"{name} has more than {MOST_BACKFILLED} fires from {since.isoformat()} to {until.isoformat()}",
            remedy="take a shorter range",
        )
    one_by_one = (overlap or entry.overlap) != "allow"
    values = {"name": name, "since": since, "until": until}
    recorded = {row.fire_at: row.outcome for row in connection.execute(_RECORDED, values)}
    done = {at: outcome for at, outcome in recorded.items() if outcome in ("fired", "backfilled")}
    done |= {row["fire_at"]: "waiting" for row in schedules.waiting(connection, name)}
    # What is due just now is beat's to fire.
    if entry.next_fire_at is not None:
        done |= {at: "due" for at in planned if at >= entry.next_fire_at}
    runs = [at for at in planned if at not in done]
    created_at = connection.execute(_CREATED, {"name": name}).scalar_one()
    return Backfill(
        entry,
        runs,
        [at for at in runs if at not in recorded and at > created_at],
        {at: done[at] for at in planned if at in done},
        one_by_one,
    )


def run(
    connection: Connection,
    name: str,
    since: dt.datetime,
    until: dt.datetime,
    *,
    now: dt.datetime,
    by: str,
    overlap: Overlap | None = None,
) -> Backfill:
    """Run the fires of a range that were not run; see `plan`. All of them, or none."""
    schedules.locked(connection, name)
    planned = plan(connection, name, since, until, now=now, overlap=overlap)
    reason = f"{by} backfilled from {since.isoformat()} to {until.isoformat()}"
    if planned.one_by_one and len(schedules.waiting(connection, name)) + len(planned.runs) > MOST_WAITING:
        raise UsageError(
            f"{len(planned.runs)} fires are to run one after the other, and {MOST_WAITING} may wait",
            remedy="take a shorter range, or let them run beside each other",
        )
    entry = replace(planned.entry, jitter=dt.timedelta(0))
    action: Any = "wait" if planned.one_by_one else "fire"
    steps = [Step(entry, Verdict(at, action, "backfill", reason), backfill=True) for at in planned.runs]
    if steps:
        fire_records.write(connection, steps, now)
    return planned

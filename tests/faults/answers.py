"""What was asked of the platform against what it has done: every difference is a line of its own.

Accepted is what the callers' transactions have committed. Each accepted job is to have left its answer once, and
its row in the ledger is to say so.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

from tests.faults.kinds import PARENT, SINGLE, TICK, answer


@dataclass(frozen=True, order=True)
class Problem:
    """One difference: `what` is lost, double, uninvited, wrong, unended, dead, rows or attempt."""

    what: str
    key: int
    said: str


_EFFECTS = text("SELECT key, answer, kind, job, attempt FROM jobs.effects WHERE kind <> :tick ORDER BY id")
_ROWS = text(
    """
    SELECT (args ->> 'key')::bigint AS key, id, name, state::text, attempt, max_attempts, error, result,
           created_at <= started_at AND started_at <= finished_at AS in_order
    FROM jobs.jobs WHERE args ? 'key'
    """
)
_OPEN = text("SELECT count(*) FROM jobs.jobs WHERE state NOT IN ('succeeded', 'dead', 'cancelled')")


def open_jobs(connection: Connection) -> int:
    """Return how many jobs have not ended."""
    return int(connection.scalar(_OPEN) or 0)


def problems(
    connection: Connection, accepted: Mapping[int, str], dead: frozenset[int] = frozenset()
) -> list[Problem]:
    """Return what is wrong with the answers to `accepted`, kinds by key; those in `dead` are to have none."""
    expected = dict(accepted)
    expected |= {-key: SINGLE.name for key, kind in accepted.items() if kind == PARENT.name}
    effects, rows = defaultdict(list), defaultdict(list)
    for effect in connection.execute(_EFFECTS, {"tick": TICK.name}):
        effects[effect.key].append(effect)
    for row in connection.execute(_ROWS):
        rows[row.key].append(row)
    found: list[Problem] = []
    for key in sorted({*expected, *effects, *rows}):
        if key not in expected:
            said = f"{len(effects[key])} answers and {len(rows[key])} rows of a job that nobody committed"
            found.append(Problem("uninvited", key, said))
        elif len(rows[key]) != 1:
            found.append(Problem("rows", key, f"{len(rows[key])} rows in the ledger"))
            if len(effects[key]) > 1:
                found.append(Problem("double", key, f"{len(effects[key])} answers"))
        else:
            found += _judge(key, expected[key], rows[key][0], effects[key], is_dead=key in dead)
    return found


def _judge(key: int, kind: str, row: Any, effects: list[Any], *, is_dead: bool) -> list[Problem]:
    found = []
    if len(effects) > 1:
        told = ", ".join(f"attempt {effect.attempt} of {effect.job}" for effect in effects)
        found.append(Problem("double", key, f"{len(effects)} answers: {told}"))
    if is_dead:
        if row.state != "dead" or row.attempt != row.max_attempts:
            found.append(
                Problem("dead", key, f"{row.state} after {row.attempt} of {row.max_attempts} attempts")
            )
        if effects:
            found.append(Problem("uninvited", key, "a job that never succeeds has left an answer"))
        return found
    if not effects:
        found.append(Problem("lost", key, f"no answer; its row: {row.state}, {row.attempt}, {row.error}"))
    if row.state not in ("succeeded", "dead", "cancelled"):
        found.append(Problem("unended", key, f"still {row.state} after attempt {row.attempt}: {row.error}"))
    elif row.state != "succeeded":
        found.append(Problem("dead", key, f"{row.state} after attempt {row.attempt}: {row.error}"))
    elif row.result != {"answer": answer(key)}:
        found.append(Problem("wrong", key, f"the result is {row.result}"))
    if row.name != kind:
        found.append(Problem("wrong", key, f"its row is of {row.name}, and {kind} was asked for"))
    if row.state == "succeeded" and not (1 <= row.attempt <= row.max_attempts and row.in_order):
        found.append(
            Problem("attempt", key, f"attempt {row.attempt} of {row.max_attempts}, or times not in order")
        )
    for effect in effects:
        if (effect.answer, effect.kind, effect.job) != (answer(key), kind, row.id):
            found.append(Problem("wrong", key, f"the answer is {tuple(effect)}"))
        if row.state == "succeeded" and effect.attempt != row.attempt:
            said = f"the answer is of attempt {effect.attempt}, and its row says {row.attempt}"
            found.append(Problem("attempt", key, said))
    return found


_FIRES = text(
    """
    SELECT extract(epoch FROM f.fire_at)::bigint AS key, f.outcome::text,
           (SELECT count(*) FROM jobs.jobs AS j WHERE j.schedule = f.schedule AND j.fire_at = f.fire_at) AS jobs,
           (SELECT count(*) FROM jobs.effects AS e
            WHERE e.kind = :tick AND e.key = extract(epoch FROM f.fire_at)::bigint) AS answers
    FROM jobs.fires AS f WHERE f.schedule = :tick ORDER BY f.fire_at
    """
)


def fire_problems(connection: Connection) -> list[Problem]:
    """Return what is wrong with the seconds at which TICK was to fire: one row for each, one job, one answer."""
    found = []
    before = None
    for fire in connection.execute(_FIRES, {"tick": TICK.name}):
        if fire.key == before:
            found.append(Problem("double", fire.key, "two rows of one fire"))
        elif before is not None and fire.key != before + 1:
            found.append(Problem("lost", fire.key, f"no row of the {fire.key - before - 1} fires before it"))
        wanted = 1 if fire.outcome == "fired" else 0
        if max(fire.jobs, fire.answers) > wanted:
            found.append(
                Problem("double", fire.key, f"{fire.outcome}: {fire.jobs} jobs, {fire.answers} answers")
            )
        elif min(fire.jobs, fire.answers) < wanted:
            found.append(
                Problem("lost", fire.key, f"{fire.outcome}: {fire.jobs} jobs, {fire.answers} answers")
            )
        before = fire.key
    if before is None:
        found.append(Problem("lost", 0, "nothing was fired"))
    return found

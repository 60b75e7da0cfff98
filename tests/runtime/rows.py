"""Rows of jobs.jobs, written and read past the code under test."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Boolean, Connection, bindparam, text
from sqlalchemy.dialects.postgresql import JSONB

from kitaab_jobs.runtime import ledger, outbox, trips
from kitaab_jobs.runtime.ledger import Claim

STATES = ("scheduled", "ready", "published", "running", "succeeded", "dead", "cancelled")
ENDED = ("succeeded", "dead", "cancelled")

_ADD = text(
    """
    INSERT INTO jobs.jobs (id, name, args, queue, priority, state, attempt, max_attempts, schedule, run_at,
                           published_at, started_at, heartbeat_at, finished_at, worker, unique_key, limit_key,
                           group_name, after_group, in_batch, alone, cancel_requested_at, canvas)
    VALUES (:id, :name, :args, :queue, :priority, :state, :attempt, :max_attempts, :schedule,
            now() - :due * interval '1 second', now() - :age * interval '1 second',
            now() - :age * interval '1 second', now() - :age * interval '1 second',
            CASE WHEN :ended THEN now() END, 'w@here/1', :unique_key, :limit_key, :group_name, :after_group,
            :in_batch, :alone, CASE WHEN :to_cancel THEN now() END, :canvas)
    """
).bindparams(
    bindparam("args", type_=JSONB),
    bindparam("canvas", type_=JSONB(none_as_null=True)),
    bindparam("to_cancel", type_=Boolean),
)


DELETE = text("DELETE FROM jobs.jobs WHERE id = :id")
FIELDS = 18


def add(connection: Connection, state: str, **given: Any) -> UUID:
    """Write a job in `state`; `due` and `age` are seconds ago: of run_at, and of what has happened to it."""
    values = {
        "id": uuid4(),
        "name": "progress.refresh",
        "args": {},
        "queue": "default",
        "priority": 0,
        "attempt": 1 if state in ("running", *ENDED) else 0,
        "max_attempts": 5,
        "schedule": None,
        "due": 1,
        "age": 0,
        "unique_key": None,
        "limit_key": None,
        "group_name": None,
        "after_group": None,
        "in_batch": False,
        "alone": False,
        "to_cancel": False,
        "canvas": None,
    } | given
    assert len(values) == FIELDS, "a misspelt field"
    connection.execute(_ADD, values | {"state": state, "ended": state in ENDED})
    return UUID(str(values["id"]))


def get(connection: Connection, id: UUID) -> Any:
    """Return the job's row."""
    return connection.execute(text("SELECT *, state::text FROM jobs.jobs WHERE id = :id"), {"id": id}).one()


def state(connection: Connection, id: UUID) -> str:
    """Return the job's state."""
    return str(connection.scalar(text("SELECT state::text FROM jobs.jobs WHERE id = :id"), {"id": id}))


def claim_of(connection: Connection, id: UUID, attempt: int | None = None) -> Claim:
    """Return the claim of whoever runs the job, or of the one that ran it as `attempt`."""
    row = get(connection, id)
    return Claim(
        id,
        row.name,
        row.args,
        row.attempt if attempt is None else attempt,
        row.max_attempts,
        row.started_at or dt.datetime.now(dt.UTC),
        row.schedule,
        row.fire_at,
    )


def start(connection: Connection, id: UUID) -> bool:
    """Claim one job as a worker does, but in the open transaction; tell whether it was to be had."""
    connection.execute(text("SELECT 1"))  # opens it
    trips.send(connection, trips.filled(connection, ledger._START, id=id, worker="w@there/2", limited="{}"))
    return trips.answers(connection)[0].get_value(0, 0) is not None


def finish(connection: Connection, claim: Claim, result: dict[str, Any]) -> bool:
    """Write a success as a worker does, but leave the transaction open; tell whether the job was still this claim's."""
    connection.execute(text("SAVEPOINT finish"))
    values = {
        "id": claim.id,
        "attempt": claim.attempt,
        "since": claim.started_at,
        "result": json.dumps(result),
    }
    trips.send(connection, trips.filled(connection, ledger._FINISH, **values, done=None, total=None))
    if ledger.await_finish(connection):
        return True
    connection.execute(text("ROLLBACK TO SAVEPOINT finish"))
    return False


def rescue_running(connection: Connection, patience: outbox.Patience) -> list[outbox.Rescued]:
    """Rescue as a relay whose last look found the same jobs silent."""
    return outbox.rescue_running(connection, patience, outbox.silent(connection, patience.running))

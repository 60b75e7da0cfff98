"""What a worker writes on jobs.jobs: start, heartbeat, and how each job ended.

scheduled ─┐
enqueue ───┴▶ ready ─▶ published ─▶ running ─▶ succeeded
                ▲                      │
                └── scheduled (retry) ◀┼─▶ dead
                                       └─▶ cancelled

Each change of state is one statement that names the state it comes from: as text, so that the row is looked up by its
id, and never among all that run (the planner takes the partial index of a state for small, though it holds everything
that was in that state since the last vacuum). What happens to a job before it
starts, and after its worker died, is in outbox.py; what comes as a message only, in arrival.py.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import psycopg
from psycopg.pq import TransactionStatus
from sqlalchemy import ARRAY, BigInteger, Connection, DateTime, Integer, bindparam, text
from sqlalchemy.dialects.postgresql import UUID as Uuid

from kitaab_jobs.contract import QUEUES
from kitaab_jobs.runtime.outcome import RELEASED, Outcome
from kitaab_jobs.runtime.trips import answers, driver_of, filled, send

HEARTBEAT_SECONDS: float = 2


@dataclass(frozen=True, slots=True)
class Claim:
    """A job that this process may run: nobody else has it until its heartbeat stops."""

    id: UUID
    name: str
    args: dict[str, Any]
    attempt: int
    max_attempts: int
    started_at: dt.datetime
    schedule: str | None
    fire_at: dt.datetime | None


@dataclass(frozen=True, slots=True)
class Settled:
    """How a claim ended. `started` and `ended` are seconds after the claim, where others ran beside it."""

    claim: Claim
    outcome: Outcome
    result: dict[str, Any] | None = None
    started: float | None = None
    ended: float | None = None
    progress: tuple[int | None, int | None] = (None, None)


@dataclass(frozen=True, slots=True)
class Pulse:
    """What a heartbeat says of one claim."""

    claim: Claim
    done: int | None = None
    total: int | None = None


# Compare-and-swap: only one delivery finds the row in a state to start from. A message that overtakes the
# commit of the relay that sent it waits here for the row; 'ready' is what it finds where that relay died. Jobs with a
# limit start from 'published' only: the relay is who counts them.
#
# The usual start: a third of what `_CLAIM` costs the server.
_START = "SELECT jobs.start({id}, {worker}, {limited})"

# For many, and for one that `_START` does not find: it waits whatever the relay is about to make 'published' of
# (so the states are weighed when the row is locked). Locked in one order, so that two batches with the same jobs cannot
# deadlock.
_CLAIM = """
    WITH found AS (
        SELECT id, state, limit_key IS NOT NULL OR queue = ANY (%(limited)s) AS limited FROM jobs.jobs
        WHERE id = ANY (CAST(%(ids)s AS uuid[])) AND state::text IN ('scheduled', 'ready', 'published')
          AND NOT (alone AND %(in_batch)s)
        ORDER BY id FOR UPDATE
    ), free AS (
        SELECT id FROM found WHERE state = 'published' OR state = 'ready' AND NOT limited
    )
    UPDATE jobs.jobs AS j
    SET state = 'running', attempt = attempt + 1, started_at = now(), heartbeat_at = now(), worker = %(worker)s,
        in_batch = %(in_batch)s, error = NULL, progress_done = NULL, progress_total = NULL
    FROM free WHERE j.id = free.id
    RETURNING j.id, j.name, j.args, j.attempt, j.max_attempts, j.started_at, j.schedule, j.fire_at
"""

# Where a claim is alone in its transaction, its commit does not wait for the disk: the commit of the job's own work
# does, and takes this along. If the server fails in between, the row is as it was, and the work was never committed.
_QUICK = ", set_config('synchronous_commit', 'off', true)"

# The usual end of one job: `settle` is for all others. It fails where the job is no longer this claim's.
_FINISH = "SELECT jobs.finish({id}, {attempt}, {since}, {result}, {done}, {total})"
_TAKEN = "KJ001"

# A success is written in the job's own transaction. Where a row is missing in what comes back, the job was
# rescued or cancelled meanwhile, so its work must not be committed either. What an operator cancelled is
# not tried again. A job that was given back starts again with the same attempt: its start tells the two apart.
# What is known of each comes as one JSON document: a driver takes several times as long over a dozen arrays.
#
# Whoever waits for rows of several jobs locks them in the order of their ids (so does `_CLAIM`, and changes.py), or does
# not wait at all: else a batch that ends and an operator who cancels its jobs could wait for each other.
_SETTLE = """
    WITH s AS MATERIALIZED (
        SELECT * FROM json_to_recordset(%s) AS s (id uuid, attempt integer, since timestamptz, state text,
            counts boolean, wait double precision, error text, result jsonb, started double precision,
            ended double precision, done bigint, total bigint)
    ), locked AS MATERIALIZED (
        SELECT id FROM jobs.jobs WHERE id = ANY (ARRAY(SELECT id FROM s)) ORDER BY id FOR NO KEY UPDATE
    )
    UPDATE jobs.jobs AS j SET
        state = CASE WHEN j.cancel_requested_at IS NOT NULL AND s.state <> 'succeeded' THEN 'cancelled'
                     ELSE s.state END::jobs.job_state,
        attempt = CASE WHEN s.counts THEN j.attempt ELSE j.attempt - 1 END,
        run_at = CASE WHEN s.wait IS NULL THEN j.run_at ELSE clock_timestamp() + s.wait * interval '1 second' END,
        error = CASE WHEN j.cancel_requested_at IS NOT NULL AND s.state <> 'succeeded' THEN coalesce(j.error, s.error)
                     ELSE s.error END,
        result = s.result,
        started_at = CASE WHEN s.started IS NULL THEN j.started_at
                          ELSE j.started_at + s.started * interval '1 second' END,
        finished_at = CASE WHEN s.state NOT IN ('succeeded', 'dead', 'cancelled') AND j.cancel_requested_at IS NULL
                                THEN NULL
                           WHEN s.ended IS NULL THEN clock_timestamp()
                           ELSE j.started_at + s.ended * interval '1 second' END,
        progress_done = coalesce(s.done, j.progress_done),
        progress_total = coalesce(s.total, j.progress_total)
    FROM s JOIN locked USING (id)
    WHERE j.id = s.id AND j.state::text = 'running' AND j.attempt = s.attempt AND j.started_at = s.since
    RETURNING j.id, j.state::text, j.group_name IS NOT NULL
"""

_ANNOUNCE = "SELECT pg_notify('kitaab_jobs', '')"

# A beat waits for nobody: whoever holds a row is about to end the job, or to cancel it, and the next beat tells.
_BEAT = text(
    """
    WITH ours AS MATERIALIZED (
        SELECT h.*, j.cancel_requested_at IS NOT NULL AS stop
        FROM unnest(:ids, :attempts, :since, :dones, :totals) AS h (id, attempt, since, done, total)
        JOIN jobs.jobs AS j ON j.id = h.id
        WHERE j.state::text = 'running' AND j.attempt = h.attempt AND j.started_at = h.since
    ), free AS MATERIALIZED (
        SELECT id FROM jobs.jobs WHERE id = ANY (ARRAY(SELECT id FROM ours)) FOR NO KEY UPDATE SKIP LOCKED
    ), beaten AS (
        UPDATE jobs.jobs AS j SET heartbeat_at = now(), progress_done = coalesce(ours.done, j.progress_done),
            progress_total = coalesce(ours.total, j.progress_total)
        FROM ours JOIN free USING (id)
        WHERE j.id = ours.id AND j.state::text = 'running' AND j.attempt = ours.attempt AND j.started_at = ours.since
    )
    SELECT id, stop FROM ours
    """
).bindparams(
    bindparam("ids", type_=ARRAY(Uuid)),
    bindparam("attempts", type_=ARRAY(Integer)),
    bindparam("since", type_=ARRAY(DateTime(timezone=True))),
    bindparam("dones", type_=ARRAY(BigInteger)),
    bindparam("totals", type_=ARRAY(BigInteger)),
)

_ENDED = text("SELECT state::text, result, error FROM jobs.jobs WHERE id = :id").bindparams(
    bindparam("id", type_=Uuid)
)

_HAS_SUCCEEDED = text(
    """
    SELECT EXISTS (SELECT FROM jobs.jobs
                   WHERE id = :id AND state::text = 'succeeded' AND attempt = :attempt AND started_at = :since)
    """
).bindparams(bindparam("id", type_=Uuid), bindparam("since", type_=DateTime(timezone=True)))

_TOUCH = text(
    """
    INSERT INTO jobs.processes (name, kind, version) VALUES (:name, :kind, :version)
    ON CONFLICT (name) DO UPDATE SET seen_at = now(), version = excluded.version
    """
)


_LIMITED_QUEUES = [queue.name for queue in QUEUES.values() if queue.max_running is not None]


def claim(connection: Connection, ids: Sequence[UUID], worker: str, *, quick: bool = False) -> list[Claim]:
    """Start these jobs for this worker; those that somebody else has, or nobody may start, are left out.

    `quick`: the commit need not wait for the disk, since nothing else is in this transaction.
    """
    more = _QUICK if quick else ""
    given = {
        "worker": worker,
        "limited": _LIMITED_QUEUES,
        "ids": "{" + ",".join(map(str, ids)) + "}",
        "in_batch": len(ids) > 1,
    }
    found = {row[0]: Claim(*row[:8]) for row in _driver_in(connection).execute(_CLAIM + more, given)}
    return [found[id] for id in ids if id in found]


def start(connection: Connection, id: UUID, worker: str, *, stay: bool) -> Claim | None:
    """Claim one job in a transaction of its own, in one trip; None where `claim` must have a closer look.

    `stay`: the next transaction is begun in the same trip.
    """
    starting = filled(connection, _START, id=id, worker=worker, limited="{" + ",".join(_LIMITED_QUEUES) + "}")
    end = "COMMIT AND CHAIN" if stay else "COMMIT"
    # The commit need not wait for the disk: see `_QUICK`.
    send(connection, "BEGIN", "SET LOCAL synchronous_commit = off", starting, end)
    given = answers(connection)[2].get_value(0, 0)
    if given is None:
        return None
    found = json.loads(given)
    fire_at = found["fire_at"]
    return Claim(
        id,
        found["name"],
        found["args"],
        found["attempt"],
        found["max_attempts"],
        dt.datetime.fromisoformat(found["started_at"]),
        found["schedule"],
        None if fire_at is None else dt.datetime.fromisoformat(fire_at),
    )


def _driver_in(connection: Connection) -> psycopg.Connection[Any]:
    """Return the driver's connection, where it opens a transaction with the next statement if none is open.

    SQLAlchemy is told of the transaction, so that whoever commits or rolls back there does.
    """
    driver = driver_of(connection)
    if not driver.autocommit and not connection.in_transaction():
        connection.begin()
    return driver


def settle(connection: Connection, settled: Sequence[Settled]) -> dict[UUID, str]:
    """Write how these claims ended and return the new states of those that were still this worker's.

    Raises ValueError where a result is no JSON.
    """
    driver = _driver_in(connection)
    known = json.dumps([_known(each) for each in settled], allow_nan=False)
    rows = driver.execute(_SETTLE, [known]).fetchall()
    if any(in_group for _, _, in_group in rows):
        driver.execute(_ANNOUNCE)
    return {id: state for id, state, _ in rows}


def _known(settled: Settled) -> dict[str, Any]:
    claim, outcome = settled.claim, settled.outcome
    return {
        "id": str(claim.id),
        "attempt": claim.attempt,
        "since": claim.started_at.isoformat(),
        "state": outcome.state,
        "counts": outcome.counts,
        "wait": outcome.wait,
        "error": None if outcome.error is None else storable(outcome.error),
        "result": settled.result,
        "started": settled.started,
        "ended": settled.ended,
        "done": settled.progress[0],
        "total": settled.progress[1],
    }


def send_finish(
    connection: Connection,
    claim: Claim,
    result: dict[str, Any],
    done: int | None = None,
    total: int | None = None,
) -> None:
    """Mark one job as succeeded in its open transaction and commit that, without waiting for the answer.

    Raises ValueError where the result is no JSON.
    """
    ending = filled(
        connection,
        _FINISH,
        id=claim.id,
        attempt=claim.attempt,
        since=claim.started_at.isoformat(),
        result=json.dumps(result, allow_nan=False),
        done=done,
        total=total,
    )
    if driver_of(connection).pgconn.transaction_status == TransactionStatus.IDLE:
        send(connection, "BEGIN", ending, "COMMIT")
    else:
        send(connection, ending, "COMMIT")


def await_finish(connection: Connection) -> bool:
    """Wait for the answer to `send_finish`; False where the job is no longer that claim's, so nothing is committed.

    Raises what else became of the commit. One who was interrupted may wait again; what was read meanwhile is lost.
    """
    try:
        found = answers(connection)
    except psycopg.Error as error:
        if error.sqlstate == _TAKEN:
            return False
        raise
    if not found:
        raise psycopg.OperationalError("what became of the commit is not known")
    return True


def released(claims: Iterable[Claim]) -> list[Settled]:
    """Return what to settle for claims that are given back undone, without an attempt counted."""
    return [Settled(claim, RELEASED) for claim in claims]


def beat(connection: Connection, pulses: Sequence[Pulse]) -> dict[UUID, bool]:
    """Say that these jobs still run. Return those that are still this worker's, and whether each is to stop."""
    rows = connection.execute(
        _BEAT,
        {
            "ids": [pulse.claim.id for pulse in pulses],
            "attempts": [pulse.claim.attempt for pulse in pulses],
            "since": [pulse.claim.started_at for pulse in pulses],
            "dones": [pulse.done for pulse in pulses],
            "totals": [pulse.total for pulse in pulses],
        },
    )
    return {row.id: row.stop for row in rows}


def ended(connection: Connection, id: UUID) -> tuple[str, dict[str, Any] | None, str | None] | None:
    """Return (state, result, error) of a job, or None where there is none with that id."""
    row = connection.execute(_ENDED, {"id": id}).one_or_none()
    return None if row is None else (row.state, row.result, row.error)


def has_succeeded(connection: Connection, claim: Claim) -> bool:
    """Tell whether this claim ended well, whoever has heard of it."""
    given = {"id": claim.id, "attempt": claim.attempt, "since": claim.started_at}
    return bool(connection.scalar(_HAS_SUCCEEDED, given))


def touch(connection: Connection, name: str, kind: str, version: str) -> None:
    """Say that a process is alive."""
    connection.execute(_TOUCH, {"name": name, "kind": kind, "version": version})


def storable(message: str) -> str:
    """Return `message` as PostgreSQL can store it: no NUL, no half of a surrogate pair, not endless."""
    return message.replace("\0", "").encode("utf-8", "replace").decode()[:10_000]

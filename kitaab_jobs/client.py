"""What other applications import: enqueue a job in your own transaction.

    with engine.begin() as connection:
        connection.execute(...)                                  # your work
        enqueue(connection, "progress.refresh", {"limit": 500})  # exists exactly if you commit

It takes a SQLAlchemy connection or session, or a psycopg connection, and needs neither the models nor
Celery. In SQL the same is `SELECT jobs.enqueue('progress.refresh', '{"limit": 500}')`.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from uuid import UUID

from kitaab_jobs.contract import MAX_PAYLOAD_BYTES, QUEUES, Job, job_named
from kitaab_jobs.errors import BadPayload

if TYPE_CHECKING:
    import psycopg
    from sqlalchemy import Connection
    from sqlalchemy.orm import Session

MAX_KEY = 255

_SQL = (
    "SELECT jobs.enqueue({job}, {args}, unique_key => {unique_key}, run_at => {run_at},"
    " priority => {priority}, max_attempts => {max_attempts}, queue => {queue})"
)
_NAMES = ("job", "args", "unique_key", "run_at", "priority", "max_attempts", "queue")
_PSYCOPG = _SQL.format(
    **{n: f"%({n})s" for n in _NAMES} | {"args": "%(args)s::jsonb", "run_at": "%(run_at)s::timestamptz"}
)
_SQLALCHEMY = _SQL.format(
    **{n: f":{n}" for n in _NAMES}
    | {"args": "CAST(:args AS jsonb)", "run_at": "CAST(:run_at AS timestamptz)"}
)


def enqueue(
    connection: Connection | Session | psycopg.Connection[Any],
    job: Job | str,
    args: Mapping[str, Any] | None = None,
    *,
    unique_key: str | None = None,
    run_at: dt.datetime | None = None,
    priority: int = 0,
    max_attempts: int | None = None,
    queue: str | None = None,
) -> UUID:
    """Enqueue one job in the caller's transaction and return its id.

    `unique_key`: while a job of this name with this key has not ended, its id is returned and nothing is
    added. `run_at`: not before (an aware datetime). Higher `priority` goes first. What is left out comes
    from contract.py. Raises `UnknownJob`, or `BadPayload` with the field and the reason.
    """
    kind = job if isinstance(job, Job) else job_named(job)
    _check(kind, unique_key, run_at, priority, max_attempts, queue)
    values = {
        "job": kind.name,
        "args": payload(kind, args),
        "unique_key": unique_key,
        "run_at": run_at,
        "priority": priority,
        "max_attempts": max_attempts,
        "queue": queue,
    }
    run: Any = connection
    if any(base.__module__.partition(".")[0] == "psycopg" for base in type(connection).__mro__):
        from psycopg.rows import tuple_row

        # Whatever the connection makes of rows, here it is a tuple.
        (id,) = run.cursor(row_factory=tuple_row).execute(_PSYCOPG, values).fetchone()
    else:
        from sqlalchemy import text

        id = run.execute(text(_SQLALCHEMY), values).scalar_one()
    return UUID(str(id))


def _check(
    kind: Job,
    unique_key: str | None,
    run_at: dt.datetime | None,
    priority: int,
    max_attempts: int | None,
    queue: str | None,
) -> None:
    """Refuse here what would abort the caller's transaction there."""
    if run_at is not None and run_at.tzinfo is None:
        raise BadPayload(f"{kind.name}: run_at {run_at} has no time zone", remedy="pass an aware datetime")
    if unique_key is not None and (not unique_key or len(unique_key) > MAX_KEY or "\0" in unique_key):
        raise BadPayload(
            f"{kind.name}: unique_key {unique_key!r:.80} has {len(unique_key)} characters",
            remedy=f"a key has 1 to {MAX_KEY}, none of them NUL",
        )
    if not -(2**31) <= priority < 2**31:
        raise BadPayload(f"{kind.name}: priority {priority} is out of range", remedy="it has 32 bits")
    if max_attempts is not None and not 1 <= max_attempts < 2**31:
        raise BadPayload(f"{kind.name}: max_attempts is {max_attempts}", remedy="it is 1 or more")
    if queue is not None and queue not in QUEUES:
        raise BadPayload(
            f"{kind.name}: no queue is called {queue!r}", remedy=f"the queues are {', '.join(QUEUES)}"
        )


def payload(kind: Job, args: Mapping[str, Any] | None) -> str:
    """Return `args` as the JSON that the ledger stores, checked against the contract."""
    parsed = kind.parse(dict(args or {}))
    try:
        # Spaced as PostgreSQL spaces jsonb, so that both sides count the same bytes.
        encoded = json.dumps(parsed.model_dump(mode="json"), ensure_ascii=False, allow_nan=False)
        size = len(encoded.encode())
    except ValueError as error:  # not a number, or half of a surrogate pair
        raise BadPayload(f"{kind.name}: the arguments are not JSON: {error}") from None
    if "\\u0000" in encoded.replace("\\\\", ""):
        raise BadPayload(f"{kind.name}: the arguments contain a NUL character, which PostgreSQL cannot store")
    if size > MAX_PAYLOAD_BYTES:
        raise BadPayload(
            f"{kind.name}: the arguments have {size} bytes, and {MAX_PAYLOAD_BYTES} are allowed",
            remedy="store the data in a table and pass its key",
        )
    return encoded

"""What other applications import: enqueue jobs in your own transaction.

    with engine.begin() as connection:
        connection.execute(...)                                  # your work
        enqueue(connection, "progress.refresh", {"limit": 500})  # exists exactly if you commit

It takes a SQLAlchemy connection or session, or a psycopg connection, and needs neither the models nor
Celery. `enqueue_async` takes their asynchronous kin; `enqueue_many` is one statement for many jobs. In SQL the
same is `SELECT jobs.enqueue('progress.refresh', '{"limit": 500}')`.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any
from uuid import UUID

from pydantic import TypeAdapter, ValidationError

from kitaab_jobs.contract import QUEUES, Job, Payload, encode, job_named
from kitaab_jobs.errors import BadPayload

if TYPE_CHECKING:
    import psycopg
    from sqlalchemy import Connection, TextClause
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
    from sqlalchemy.orm import Session

MAX_KEY = 255
MAX_GROUP = 128
# Of many jobs so many are checked and encoded at once: it takes a third of what one by one takes.
_TOGETHER = 100
# What other languages, and PostgreSQL's clients, can still read.
EARLIEST = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
LATEST = dt.datetime(9998, 12, 31, tzinfo=dt.UTC)

# Arguments of the SQL functions, with the types that a driver cannot guess.
_ONE = {
    "job_name": "text",
    "job_args": "jsonb",
    "unique_key": "text",
    "run_at": "timestamptz",
    "priority": "integer",
    "max_attempts": "integer",
    "queue": "text",
    "unique_for": "interval",
    "limit_key": "text",
    "group_name": "text",
    "after_group": "text",
}
_MANY = {"job_name": "text", "many_args": "json", "unique_keys": "text[]"} | {
    name: kind
    for name, kind in _ONE.items()
    if name not in ("job_name", "job_args", "unique_key", "unique_for")
}


def _call(function: str, arguments: Mapping[str, str], place: str) -> str:
    given = {name: f"CAST({place.format(name)} AS {kind})" for name, kind in arguments.items()}
    if "many_args" in given:
        # One document for all: a driver takes longer over an array of them than the server over the jobs.
        given["many_args"] = (
            "(SELECT coalesce(array_agg(value::jsonb ORDER BY place), '{}')"
            f" FROM json_array_elements({given['many_args']}) WITH ORDINALITY AS given (value, place))"
        )
    return f"SELECT {function}({', '.join(f'{name} => {value}' for name, value in given.items())})"


_FUNCTIONS = {"jobs.enqueue": _ONE, "jobs.enqueue_many": _MANY}
_PSYCOPG = {function: _call(function, names, "%({})s") for function, names in _FUNCTIONS.items()}
_SQLALCHEMY = {function: _call(function, names, ":{}") for function, names in _FUNCTIONS.items()}


def enqueue(
    connection: Connection | Session | psycopg.Connection[Any],
    job: Job | str,
    args: Mapping[str, Any] | None = None,
    *,
    unique_key: str | None = None,
    unique_for: dt.timedelta | None = None,
    run_at: dt.datetime | None = None,
    priority: int = 0,
    max_attempts: int | None = None,
    queue: str | None = None,
    limit_key: str | None = None,
    group: str | None = None,
    after_group: str | None = None,
) -> UUID:
    """Enqueue one job in the caller's transaction and return its id.

    `unique_key`: while a job of this name with this key has not ended, its id is returned and nothing is added;
    with `unique_for`, nor for so long after it was enqueued. `run_at`: not before (an aware datetime). Higher
    `priority` goes first. `limit_key`: the kind's `max_running` counts for each key. `after_group`: not before every
    job of that `group` has succeeded or was cancelled (enqueue the group first, or in the same transaction); a
    group that would wait for itself over others is refused by PostgreSQL (22023). What is left out comes from
    contract.py. Raises `UnknownJob`, or `BadPayload` with the field and the reason.
    """
    options = locals()
    return _run(connection, *_one(options))[0]


def enqueue_many(
    connection: Connection | Session | psycopg.Connection[Any],
    job: Job | str,
    many_args: Sequence[Mapping[str, Any]],
    *,
    unique_keys: Sequence[str | None] | None = None,
    run_at: dt.datetime | None = None,
    priority: int = 0,
    max_attempts: int | None = None,
    queue: str | None = None,
    limit_key: str | None = None,
    group: str | None = None,
    after_group: str | None = None,
) -> list[UUID]:
    """Enqueue one job for each of `many_args` in one statement, and return their ids in that order.

    The other arguments are those of `enqueue`, and are the same for all; `unique_keys` has one for each job.
    """
    options = locals()
    return _run(connection, *_many(options))


async def enqueue_async(
    connection: AsyncConnection | AsyncSession | psycopg.AsyncConnection[Any],
    job: Job | str,
    args: Mapping[str, Any] | None = None,
    **options: Any,
) -> UUID:
    """Do what `enqueue` does, with the same options, on an asynchronous connection or session."""
    return (await _run_async(connection, *_one({**_DEFAULTS, **_known(options), "job": job, "args": args})))[
        0
    ]


async def enqueue_many_async(
    connection: AsyncConnection | AsyncSession | psycopg.AsyncConnection[Any],
    job: Job | str,
    many_args: Sequence[Mapping[str, Any]],
    **options: Any,
) -> list[UUID]:
    """Do what `enqueue_many` does, with the same options, on an asynchronous connection or session."""
    given = {**_DEFAULTS, "unique_keys": None, **_known(options, "unique_keys")}
    return await _run_async(connection, *_many({**given, "job": job, "many_args": many_args}))


_DEFAULTS: dict[str, Any] = {
    "unique_key": None,
    "unique_for": None,
    "run_at": None,
    "priority": 0,
    "max_attempts": None,
    "queue": None,
    "limit_key": None,
    "group": None,
    "after_group": None,
}


def _known(options: Mapping[str, Any], *more: str) -> Mapping[str, Any]:
    for name in options:
        if name not in _DEFAULTS and name not in more:
            raise TypeError(f"enqueue got an unexpected keyword argument {name!r}")
    return options


def _one(options: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    kind = options["job"] if isinstance(options["job"], Job) else job_named(options["job"])
    _check(kind, options, [options["unique_key"]])
    values = {name: options.get(name) for name in _ONE}
    values |= {
        "job_name": kind.name,
        "job_args": payload(kind, options["args"]),
        "group_name": options["group"],
    }
    return "jobs.enqueue", values


def _many(options: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    kind = options["job"] if isinstance(options["job"], Job) else job_named(options["job"])
    keys, many = options["unique_keys"], options["many_args"]
    if keys is not None and len(keys) != len(many):
        raise BadPayload(
            f"{kind.name}: {len(many)} jobs have {len(keys)} unique keys", remedy="give one for each"
        )
    _check(kind, options, keys or ())
    values = {name: options.get(name) for name in _MANY}
    values |= {
        "job_name": kind.name,
        "many_args": _document(kind, many),
        "unique_keys": None if keys is None else list(keys),
        "group_name": options["group"],
    }
    return "jobs.enqueue_many", values


def _run(connection: Any, function: str, values: dict[str, Any]) -> list[UUID]:
    if _is_psycopg(connection):
        from psycopg.rows import tuple_row

        # Whatever the connection makes of rows, here it is a tuple.
        cursor = connection.cursor(row_factory=tuple_row)
        rows = cursor.execute(_PSYCOPG[function], values).fetchall()
    else:
        rows = connection.execute(_statement(function), values).all()
    return [_uuid(id) for (id,) in rows]


async def _run_async(connection: Any, function: str, values: dict[str, Any]) -> list[UUID]:
    if _is_psycopg(connection):
        from psycopg.rows import tuple_row

        cursor = connection.cursor(row_factory=tuple_row)
        await cursor.execute(_PSYCOPG[function], values)
        rows = await cursor.fetchall()
    else:
        rows = (await connection.execute(_statement(function), values)).all()
    return [_uuid(id) for (id,) in rows]


@cache
def _statement(function: str) -> TextClause:
    """Return SQLAlchemy's statement, made once: who uses psycopg alone need not have SQLAlchemy."""
    from sqlalchemy import text

    return text(_SQLALCHEMY[function])


def _uuid(given: object) -> UUID:
    """Return an id as such, whatever the driver makes of it."""
    return given if type(given) is UUID else UUID(str(given))


def _is_psycopg(connection: object) -> bool:
    return any(base.__module__.partition(".")[0] == "psycopg" for base in type(connection).__mro__)


def _check(kind: Job, options: Mapping[str, Any], keys: Sequence[str | None]) -> None:
    """Refuse here what would abort the caller's transaction there."""
    run_at, queue = options["run_at"], options["queue"]
    priority, max_attempts = options["priority"], options["max_attempts"]
    if run_at is not None and run_at.tzinfo is None:
        raise BadPayload(f"{kind.name}: run_at {run_at} has no time zone", remedy="pass an aware datetime")
    if run_at is not None and not EARLIEST <= run_at <= LATEST:
        raise BadPayload(
            f"{kind.name}: run_at {run_at} is out of range", remedy="use a time from 1970 to 9998"
        )
    texts = {("unique_key", key, MAX_KEY) for key in keys}
    texts |= {("group", options["group"], MAX_GROUP), ("after_group", options["after_group"], MAX_GROUP)}
    # The ledger stores a limit's key behind the name of its kind.
    texts.add(("limit_key", options["limit_key"], MAX_KEY - len(kind.name) - 1))
    for name, text, most in texts:
        if text is not None and (not text or len(text) > most or "\0" in text):
            raise BadPayload(
                f"{kind.name}: {name} {text!r:.80} has {len(text)} characters",
                remedy=f"it has 1 to {most}, none of them NUL",
            )
    if options["limit_key"] is not None and kind.max_running is None:
        raise BadPayload(
            f"{kind.name}: limit_key {options['limit_key']!r:.80} limits nothing",
            remedy="give the job a max_running in contract.py",
        )
    if options["group"] is not None and options["group"] == options["after_group"]:
        raise BadPayload(
            f"{kind.name}: group {options['group']!r:.80} would wait for itself", remedy="use another"
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
        return encode(parsed.model_dump(mode="json"))
    except BadPayload as error:
        raise BadPayload(f"{kind.name}: {error.message}", remedy=error.remedy) from None


def _document(kind: Job, many_args: Sequence[Mapping[str, Any]]) -> str:
    """Return one JSON array of many arguments, each checked against the contract."""
    several = _several(kind.payload)
    parts: list[str] = []
    for low in range(0, len(many_args), _TOGETHER):
        some = [dict(args or {}) for args in many_args[low : low + _TOGETHER]]
        try:
            # What is right for all of them together is right for each.
            parts.append(encode(several.dump_python(several.validate_python(some), mode="json"))[1:-1])
        except (ValidationError, BadPayload):
            parts += [payload(kind, args) for args in some]
    return f"[{','.join(parts)}]"


@cache
def _several(payload: type[Payload]) -> TypeAdapter[list[Payload]]:
    return TypeAdapter(list[payload])  # type: ignore[valid-type]

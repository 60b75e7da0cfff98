"""Rows of jobs.jobs, written and read past the code under test."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Connection, Engine, text

ENDED = ("succeeded", "dead", "cancelled")


def ago(**span: float) -> dt.datetime:
    """Return the instant so long ago."""
    return dt.datetime.now(dt.UTC) - dt.timedelta(**span)


def add(engine: Engine, state: str, **columns: Any) -> UUID:
    """Write a job in `state` and return its id; a job that has begun has all its times at `at`."""
    at = columns.pop("at", dt.datetime.now(dt.UTC))
    begun = state in ("running", *ENDED)
    values: dict[str, Any] = {
        "id": uuid4(),
        "name": "progress.refresh",
        "queue": "default",
        "state": state,
        "attempt": int(begun),
        "max_attempts": 5,
        "created_at": at,
        "run_at": at,
        "published_at": at if state == "published" or begun else None,
        "started_at": at if begun else None,
        "heartbeat_at": at if state == "running" else None,
        "worker": "w@here/1" if begun else None,
        "finished_at": at if state in ENDED else None,
    } | {k: json.dumps(v) if isinstance(v, dict) else v for k, v in columns.items()}
    names = ", ".join(values)
    casts = {"args": "jsonb", "result": "jsonb", "canvas": "jsonb", "state": "jobs.job_state"}
    slots = ", ".join(f"CAST(:{n} AS {casts[n]})" if n in casts else f":{n}" for n in values)
    with engine.begin() as connection:
        connection.execute(text(f"INSERT INTO jobs.jobs ({names}) VALUES ({slots})"), values)
    return UUID(str(values["id"]))


def fill(connection: Connection, jobs: int, state: str, ended_within: dt.timedelta | None = None) -> None:
    """Write many jobs in one state; those that have ended did so evenly over a time until now."""
    connection.execute(
        text(
            """
            INSERT INTO jobs.jobs (id, name, queue, state, max_attempts, published_at, started_at, finished_at,
                                   after_group)
            SELECT jobs.new_id(), 'progress.refresh', 'default', CAST(:state AS jobs.job_state), 5, now(), now(),
                   now() - CAST(:span AS interval) * (n::float / :jobs), NULL
            FROM generate_series(1, :jobs) AS n
            """
        ),
        {"jobs": jobs, "state": state, "span": ended_within},
    )


def get(engine: Engine, id: UUID) -> Any:
    """Return the job's row, or None."""
    with engine.connect() as connection:
        return connection.execute(
            text("SELECT *, state::text AS state FROM jobs.jobs WHERE id = :id"), {"id": id}
        ).one_or_none()


def states(engine: Engine, *ids: UUID) -> list[str]:
    """Return the jobs' states; "gone" where there is none."""
    return [row.state if (row := get(engine, id)) else "gone" for id in ids]


def change(engine: Engine, id: UUID, sql: str) -> None:
    """Set columns of the job."""
    with engine.begin() as connection:
        connection.execute(text(f"UPDATE jobs.jobs SET {sql} WHERE id = :id"), {"id": id})

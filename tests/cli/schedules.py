"""Rows of jobs.schedules and jobs.fires, written and read past the code under test."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Engine, text

CASTS = {
    "args": "jsonb", "source": "jobs.schedule_source", "dst": "jobs.dst_rule", "catch_up": "jobs.catch_up",
    "overlap": "jobs.overlap", "outcome": "jobs.fire_outcome", "ended_as": "jobs.job_state",
}  # fmt: skip


def utc(text: str) -> dt.datetime:
    """Return the time of that text, in UTC."""
    return dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC)


def put(engine: Engine, name: str, line: str = "0 21 * * *", **columns: Any) -> None:
    """Write a schedule; it fires next in an hour, if nothing else is said."""
    soon = dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)
    values = {
        "name": name,
        "job": "progress.refresh",
        "line": line,
        "source": "live",
        "next_fire_at": soon,
    } | columns
    _insert(engine, "schedules", values)


def fire(engine: Engine, name: str, at: dt.datetime, outcome: str, **columns: Any) -> UUID | None:
    """Write what became of a fire, half a second late, and return the id of its run."""
    ran = uuid4() if outcome in ("fired", "backfilled") else None
    values = {
        "schedule": name,
        "fire_at": at,
        "outcome": outcome,
        "recorded_at": at + dt.timedelta(seconds=0.5),
        "job_id": ran,
        "reason": None if ran else "it was so",
    } | columns
    _insert(engine, "fires", values)
    return ran


def row(engine: Engine, name: str) -> Any:
    """Return the schedule's row, or None."""
    with engine.connect() as connection:
        return connection.execute(
            text("SELECT * FROM jobs.schedules WHERE name = :name"), {"name": name}
        ).one_or_none()


def count(engine: Engine, table: str, where: str = "true") -> int:
    """Return how many rows of a table of `jobs` there are."""
    with engine.connect() as connection:
        return int(connection.scalar(text(f"SELECT count(*) FROM jobs.{table} WHERE {where}")) or 0)


def clear(engine: Engine) -> None:
    """Delete all that schedules have left."""
    with engine.begin() as connection:
        for table in ("jobs", "fires", "waiting_fires", "schedules"):
            connection.execute(text(f"DELETE FROM jobs.{table}"))


def _insert(engine: Engine, table: str, values: dict[str, Any]) -> None:
    given = {key: json.dumps(value) if isinstance(value, dict) else value for key, value in values.items()}
    slots = ", ".join(f"CAST(:{key} AS {CASTS[key]})" if key in CASTS else f":{key}" for key in given)
    with engine.begin() as connection:
        connection.execute(text(f"INSERT INTO jobs.{table} ({', '.join(given)}) VALUES ({slots})"), given)

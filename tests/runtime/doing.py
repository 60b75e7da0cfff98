"""Jobs to run in tests: they leave a note, or raise; and a worker to run them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, text
from sqlalchemy.orm import Session

from kitaab_jobs.contract import Job, Payload
from kitaab_jobs.runtime.attempt import JobFunction, Runner
from kitaab_jobs.runtime.heartbeat import Heartbeat


@dataclass(frozen=True)
class Done:
    """What the jobs here return."""

    done: int = 1


class Note(Payload):
    """What to leave, and what is to become of it."""

    note: str = ""
    do: str = "leave"


# Many in one message, each with a note of its own.
SMALL = Job("sample.small", "leaves a note", Note, batch=50, max_attempts=3)


def runner(engine: Engine, job: Job, function: JobFunction, **options: Any) -> Runner:
    """Return what a worker runs that job with."""
    more: dict[str, Any] = {"worker": "w@here/1", "heartbeat": Heartbeat(engine)} | options
    return Runner(job, function, engine, **more)


def leave(session: Session | Connection, note: str = "") -> None:
    """Write an effect that can be counted."""
    session.execute(text("INSERT INTO jobs.effects (note) VALUES (:note)"), {"note": note})


def notes(engine: Engine) -> list[str]:
    """Return the effects in their order."""
    with engine.connect() as connection:
        return list(connection.scalars(text("SELECT note FROM jobs.effects ORDER BY id")))


def succeed(session: Session, now: dt.datetime, payload: Any) -> Done:
    """Leave a note."""
    leave(session, "done")
    return Done()


def raising(error: BaseException) -> JobFunction:
    """Return a job that leaves a note and fails."""

    def fail(session: Session, now: dt.datetime, payload: Any) -> Done:
        leave(session, "half")
        raise error

    return fail


def by_payload(**special: Callable[[Session, Note], None]) -> JobFunction:
    """Return a job that leaves its payload's note, and then does what the payload says."""

    def function(session: Session, now: dt.datetime, payload: Note) -> Done:
        leave(session, payload.note)
        if payload.do != "leave":
            special[payload.do](session, payload)
        return Done()

    return function


def waiting(engine: Engine) -> int:
    """Return how many in the database wait for somebody's lock."""
    statement = """
        SELECT count(DISTINCT pid) FROM pg_locks JOIN pg_stat_activity USING (pid)
        WHERE datname = current_database() AND NOT granted
        """
    with engine.connect() as connection:
        return int(connection.scalar(text(statement)) or 0)


def blocked(engine: Engine) -> bool:
    """Whether somebody in the database waits for a lock."""
    return waiting(engine) > 0

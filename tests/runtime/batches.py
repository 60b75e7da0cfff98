"""Batches to run in tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from kitaab_jobs.runtime.attempt import JobFunction
from kitaab_jobs.runtime.batch import execute_batch
from tests.runtime.doing import SMALL, Note, runner

Add = Callable[..., UUID]
RunBatch = Callable[..., dict[str, int]]

PLAIN = "a=leave b=leave c=leave"


def batch_runner(engine: Engine) -> RunBatch:
    """Return a function that runs jobs from one message, as a worker would."""

    def run(function: JobFunction, ids: list[UUID], **options: Any) -> dict[str, int]:
        return execute_batch(runner(engine, SMALL, function, **options), ids)

    return run


def batch_adder(add: Add) -> Callable[..., dict[str, UUID]]:
    """Return a function that adds a published job for each word: its note and what it does; `a=leave` only leaves `a`."""

    def jobs(words: str, **given: Any) -> dict[str, UUID]:
        return {
            note: add(name=SMALL.name, args={"note": note, "do": do or note}, **({"max_attempts": 3} | given))
            for note, _, do in (word.partition("=") for word in words.split())
        }

    return jobs


def cut(session: Session, payload: Note) -> None:
    """Lose the connection."""
    session.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))

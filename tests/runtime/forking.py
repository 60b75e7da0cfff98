"""Run as a program: die in the middle of a job at a given step, each time in a process of its own.

python -m tests.runtime.forking URL STEP=ID ...
"""

from __future__ import annotations

import datetime as dt
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn
from uuid import UUID

from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from kitaab_jobs.contract import PROGRESS_REFRESH
from kitaab_jobs.runtime import execute, ledger

STEPS = ("claiming", "claimed", "worked", "finishing", "committed")
DIED = 9


@dataclass
class Done:
    """What the job returns."""

    done: int = 1


def die(*_: Any, **__: Any) -> NoReturn:
    """End at once, as at a kill -9: nothing is closed, flushed or rolled back."""
    os._exit(DIED)


def then_die(function: Callable[..., Any]) -> Callable[..., NoReturn]:
    """Return `function` with an end behind it."""

    def both(*args: Any, **given: Any) -> NoReturn:
        function(*args, **given)
        die()

    return both


def run(step: str, id: UUID, url: str) -> None:
    """Run the job and die at `step`."""

    def work(session: Session, now: dt.datetime, payload: Any) -> Done:
        if step == "claimed":
            die()
        session.execute(text("INSERT INTO jobs.effects (note) VALUES (:step)"), {"step": step})
        if step == "worked":
            die()
        return Done()

    if step == "claiming":
        ledger.claim = then_die(ledger.claim)
    if step == "finishing":
        ledger.finish = then_die(ledger.finish)
    if step == "committed":
        execute._run = then_die(execute._run)
    engine = create_engine(url, poolclass=NullPool)
    execute.execute(PROGRESS_REFRESH, work, id, {}, engine=engine, worker=f"w@here/{step}")


def main() -> int:
    """Fork one process for each job, and fail where one of them has not died where it was to."""
    url, *words = sys.argv[1:]
    for step, _, id in (word.partition("=") for word in words):
        child = os.fork()
        if not child:
            run(step, UUID(id), url)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if os.waitstatus_to_exitcode(status) != DIED:
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

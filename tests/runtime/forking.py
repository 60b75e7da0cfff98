"""Run as a program: die in the middle of a job at a given step, each time in a process of its own.

python -m tests.runtime.forking URL STEP=ID ... one job for each message
python -m tests.runtime.forking URL batch=ID,ID,... many in one message: who dies is in the payload
"""

from __future__ import annotations

import datetime as dt
import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn
from uuid import UUID

from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from kitaab_jobs.contract import PROGRESS_REFRESH
from kitaab_jobs.runtime import arrival, attempt, execute, ledger
from kitaab_jobs.runtime.batch import execute_batch
from tests.runtime.doing import SMALL, Done, by_payload, runner

STEPS = ("claiming", "claimed", "worked", "finishing", "sent", "committed")
DIED = 9


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

    if step == "recording":
        arrival.record = then_die(arrival.record)
    if step == "claiming":
        ledger.start = then_die(ledger.start)
    if step == "finishing":
        ledger.send_finish = die
    if step == "sent":
        ledger.send_finish = then_die(ledger.send_finish)
    if step == "committed":
        attempt.tell_success = die
    engine = create_engine(url, poolclass=NullPool)
    execute.execute(runner(engine, PROGRESS_REFRESH, work, worker=f"w@here/{step}"), id, {})


def run_batch(ids: list[UUID], url: str) -> None:
    """Run jobs that came together, or the one that came alone."""
    engine = create_engine(url, poolclass=NullPool)
    worker = runner(engine, SMALL, by_payload(die=die))
    if len(ids) > 1:
        execute_batch(worker, ids)
    else:
        execute.execute(worker, ids[0], {})


def main() -> int:
    """Fork one process for each message and print how many have died; each of the steps is a death."""
    url, *words = sys.argv[1:]
    died = 0
    for step, _, ids in (word.partition("=") for word in words):
        child = os.fork()
        if not child:
            if step == "batch":
                run_batch([UUID(id) for id in ids.split(",")], url)
            else:
                run(step, UUID(ids), url)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        died += os.waitstatus_to_exitcode(status) == DIED
        if step != "batch" and os.waitstatus_to_exitcode(status) != DIED:
            return 1
    print(died)  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())

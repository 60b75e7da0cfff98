"""The platform with jobs that wait, crash or fail: `celery -A tests.runtime.sample_app worker`.

Its beat is the platform's own, with less patience, so that a rescue is seen within seconds.
"""

from __future__ import annotations

import datetime as dt
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import text
from sqlalchemy.orm import Session

from kitaab_jobs.contract import JOBS, Payload
from kitaab_jobs.runtime import ledger, outbox
from kitaab_jobs.runtime.context import Context
from kitaab_jobs.runtime.job import job
from kitaab_jobs.runtime.scheduler import LedgerScheduler
from kitaab_jobs.runtime.timetable import Schedule
from kitaab_jobs.worker import app
from tests.runtime.sample_jobs import CRASH, ENDLESS, FEW, FLAKY, QUERY, SAMPLES, TICK, WRITE, Note

__all__ = ["app"]


JOBS.update({each.name: each for each in SAMPLES})

ledger.HEARTBEAT_SECONDS = 0.5
app.conf.update(
    beat_scheduler="tests.runtime.sample_app:HastyScheduler",
    worker_soft_shutdown_timeout=1,
)


class HastyScheduler(LedgerScheduler):
    """The scheduler, with a rescue that waits for less, and one more line in its timetable."""

    patience = outbox.Patience(running=2.5, published=2.5)
    rescue_seconds = 0.5

    def timetable(self) -> list[Schedule]:
        """Return the platform's lines and one that fires every second."""
        return [*super().timetable(), Schedule("sample.tick", TICK, cron="every 1s")]


@dataclass(frozen=True)
class Done:
    """What a sample job returns."""

    notes: int


def leave(session: Session, job_name: str, note: str) -> Done:
    session.execute(
        text("INSERT INTO jobs.effects (job, note) VALUES (:job, :note)"), {"job": job_name, "note": note}
    )
    return Done(1)


@job(WRITE)
def write(session: Session, now: dt.datetime, payload: Note) -> Done:
    """Leave a note, and the first time wait with it in hand."""
    done = leave(session, WRITE.name, payload.note)
    started = Path(os.environ["KITAAB_DATA_DIR"]) / payload.note
    if not started.exists():
        started.touch()
        time.sleep(payload.seconds)
    return done


@job(ENDLESS)
def endless(session: Session, now: dt.datetime, payload: Note) -> Done:
    """Sleep until stopped."""
    done = leave(session, ENDLESS.name, payload.note)
    time.sleep(600)
    return done


@job(QUERY)
def query(session: Session, now: dt.datetime, payload: Note) -> Done:
    """Be in the middle of a statement when the end comes."""
    done = leave(session, QUERY.name, payload.note)
    (Path(os.environ["KITAAB_DATA_DIR"]) / payload.note).touch()
    session.execute(text("SELECT pg_sleep(:seconds)"), {"seconds": payload.seconds})
    return done


@job(CRASH)
def crash(session: Session, now: dt.datetime, payload: Note) -> Done:
    """Kill the process, as the kernel does when memory runs out."""
    leave(session, CRASH.name, payload.note)
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("unreachable")


@job(FLAKY)
def flaky(session: Session, now: dt.datetime, payload: Note, context: Context) -> Done:
    """Fail the first time."""
    done = leave(session, FLAKY.name, payload.note)
    if context.attempt == 1:
        raise RuntimeError("the first time")
    return done


@job(FEW)
def few(session: Session, now: dt.datetime, payload: Note) -> Done:
    """Leave a note."""
    return leave(session, FEW.name, payload.note)


@job(TICK)
def tick(session: Session, now: dt.datetime, payload: Payload) -> Done:
    """Leave a note."""
    return leave(session, TICK.name, now.isoformat())

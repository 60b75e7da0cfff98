"""The platform with jobs whose answers are known: `celery -A tests.faults.app worker`.

It is as it is shipped, with less patience, so that a rescue is seen within seconds, and with what the environment
asks for:

- KITAAB_TEST_WITHOUT: names of mechanisms that are taken away (see `REMOVED`);
- KITAAB_TEST_RELAY_DIES: after so many batches the relay's process ends between publishing and its commit;
- KITAAB_TEST_RELAY_LINGERS: so many seconds pass between a relay's publishing and its commit;
- KITAAB_TEST_SENT: a file that is told of each job that a relay has published, and by whom;
- KITAAB_TEST_PATIENCE: seconds after which the rescue takes something for lost;
- KITAAB_TEST_TICK: the timetable has a line that fires every second;
- KITAAB_TEST_VISIBILITY: after so many seconds Redis gives a message to somebody else.
"""

from __future__ import annotations

import datetime as dt
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from sqlalchemy import TextClause, text
from sqlalchemy.orm import Session

from kitaab_jobs import client
from kitaab_jobs.contract import JOBS, Payload
from kitaab_jobs.errors import Retryable
from kitaab_jobs.runtime import fires, ledger, messages, outbox, relay
from kitaab_jobs.runtime.context import Context
from kitaab_jobs.runtime.job import job
from kitaab_jobs.runtime.scheduler import LedgerScheduler
from kitaab_jobs.runtime.timetable import Schedule
from kitaab_jobs.worker import app
from tests.faults.kinds import (
    FLAKY,
    KINDS,
    LIMITED,
    LONG,
    MANY,
    PARENT,
    POISON,
    POISON_MANY,
    SINGLE,
    TICK,
    Order,
    answer,
)
from tests.faults.timing import HEARTBEAT, PATIENCE, RESCUE

__all__ = ["app"]

DIED = 9

JOBS.update(KINDS)
ledger.HEARTBEAT_SECONDS = HEARTBEAT
app.conf.update(beat_scheduler="tests.faults.app:HastyScheduler", worker_soft_shutdown_timeout=1)


def patience_of(seconds: str | None) -> outbox.Patience:
    """Return the patience of these tests, or another one."""
    return PATIENCE if seconds is None else outbox.Patience(float(seconds), float(seconds))


class HastyScheduler(LedgerScheduler):
    """The scheduler, with a rescue that waits for less, and a timetable of its own."""

    patience = patience_of(os.environ.get("KITAAB_TEST_PATIENCE"))
    rescue_seconds = RESCUE

    def timetable(self) -> list[Schedule]:
        """Return nothing, or one line that fires every second."""
        return [Schedule("faults.tick", TICK, cron="every 1s")] if os.environ.get("KITAAB_TEST_TICK") else []


@dataclass(frozen=True)
class Done:
    """What a job returns."""

    answer: int


_LEAVE = text(
    """
    INSERT INTO jobs.effects (key, answer, kind, job, attempt, worker)
    VALUES (:key, :answer, :kind, :job, :attempt, :worker)
    """
)


def leave(session: Session, kind: str, key: int, context: Context) -> Done:
    session.execute(
        _LEAVE,
        {
            "key": key,
            "answer": answer(key),
            "kind": kind,
            "job": context.id,
            "attempt": context.attempt,
            "worker": os.getpid(),
        },
    )
    return Done(answer(key))


def hold(payload: Order, context: Context) -> None:
    """Keep the answer uncommitted for a while, in the first attempts."""
    if context.attempt <= payload.times and payload.wait:
        time.sleep(payload.wait)


@job(SINGLE)
def single(session: Session, now: dt.datetime, payload: Order, context: Context) -> Done:
    """Leave the answer."""
    done = leave(session, SINGLE.name, payload.key, context)
    hold(payload, context)
    return done


@job(MANY)
def many(session: Session, now: dt.datetime, payload: Order, context: Context) -> Done:
    """Leave the answer."""
    done = leave(session, MANY.name, payload.key, context)
    hold(payload, context)
    return done


@job(PARENT)
def parent(session: Session, now: dt.datetime, payload: Order, context: Context) -> Done:
    """Leave the answer, and enqueue a job that exists exactly when this one's answer does."""
    client.enqueue(session, SINGLE, {"key": -payload.key})
    return leave(session, PARENT.name, payload.key, context)


@job(POISON)
def poison(session: Session, now: dt.datetime, payload: Order, context: Context) -> Done:
    """Leave the answer, or die as the kernel kills when memory runs out."""
    return leave_or_die(session, POISON.name, payload, context)


@job(POISON_MANY)
def poison_many(session: Session, now: dt.datetime, payload: Order, context: Context) -> Done:
    """Leave the answer, or die."""
    return leave_or_die(session, POISON_MANY.name, payload, context)


def leave_or_die(session: Session, kind: str, payload: Order, context: Context) -> Done:
    done = leave(session, kind, payload.key, context)
    if payload.key % 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return done


@job(LONG)
def long(session: Session, now: dt.datetime, payload: Order, context: Context) -> Done:
    """Leave the answer late."""
    hold(payload, context)
    return leave(session, LONG.name, payload.key, context)


@job(FLAKY)
def flaky(session: Session, now: dt.datetime, payload: Order, context: Context) -> Done:
    """Leave the answer, the first time in vain."""
    done = leave(session, FLAKY.name, payload.key, context)
    if context.attempt == 1:
        raise Retryable("not yet")
    return done


@job(LIMITED)
def limited(session: Session, now: dt.datetime, payload: Order, context: Context) -> Done:
    """Leave the answer, when nobody else of this kind runs."""
    hold(payload, context)
    return leave(session, LIMITED.name, payload.key, context)


@job(TICK)
def tick(session: Session, now: dt.datetime, payload: Payload, context: Context) -> Done:
    """Leave the answer of the second for which it was planned."""
    assert context.fire_at is not None
    return leave(session, TICK.name, int(context.fire_at.timestamp()), context)


# What follows is what a fault or a missing mechanism is made of.


def change(module: ModuleType, name: str, old: str, new: str) -> None:
    """Change a statement of the platform; it fails where the statement no longer says that."""
    statement = getattr(module, name)
    said = statement.text if isinstance(statement, TextClause) else statement
    assert old in said, f"{old!r} is not in {said}"
    if isinstance(statement, TextClause):
        statement.text = said.replace(old, new)
    else:
        setattr(module, name, said.replace(old, new))


def without_claim() -> None:
    """Whoever gets a message runs its job."""
    change(ledger, "_START", "SELECT jobs.start({id}, {worker}, {limited})", "SELECT NULL")
    change(ledger, "_CLAIM", "AND state::text IN ('scheduled', 'ready', 'published')", "")
    change(ledger, "_CLAIM", "WHERE state = 'published' OR state = 'ready' AND NOT limited", "")
    # A constraint would refuse a job that has ended and runs.
    change(ledger, "_CLAIM", "SET state = 'running',", "SET state = 'running', finished_at = NULL,")


def without_rescue_of_running() -> None:
    """Nobody looks for jobs whose worker is gone."""
    change(outbox, "_RESCUE_RUNNING", "WHERE id = ANY (:silent)", "WHERE false AND id = ANY (:silent)")


def without_rescue_of_published() -> None:
    """Nobody looks for jobs whose message is gone."""
    change(outbox, "_RESCUE_PUBLISHED", "WHERE j.state = 'published'", "WHERE false")


def without_attempt() -> None:
    """A job's end is written by whoever has run it, though it is another's by now."""
    change(ledger, "_SETTLE", "AND j.attempt = s.attempt AND j.started_at = s.since", "")
    change(ledger, "_FINISH", "{attempt}, {since}", "j.attempt, j.started_at")
    change(ledger, "_FINISH", "{total})", "{total}) FROM jobs.jobs AS j WHERE j.id = {id}")


def without_settle() -> None:
    """A job's end is written whatever became of the job meanwhile."""
    without_attempt()
    change(ledger, "_SETTLE", "AND j.state::text = 'running'", "")
    change(
        ledger,
        "_FINISH",
        "SELECT",
        "UPDATE jobs.jobs SET state = 'running', finished_at = NULL WHERE id = {id}; SELECT",
    )


def without_lock_of_fires() -> None:
    """Every beat takes what is due to be its own to fire; the primary key still refuses the second row.

    It takes its time between what it has seen and what it does, or the others would see in time what it has done.
    """
    change(fires, "_DUE_ANY", "FOR UPDATE OF s SKIP LOCKED", "")
    change(fires, "_DUE_ANY", "AND true", "AND pg_sleep(0.3) IS NOT NULL")


REMOVED: dict[str, Callable[[], None]] = {
    "claim": without_claim,
    "rescue of running": without_rescue_of_running,
    "rescue of published": without_rescue_of_published,
    "attempt": without_attempt,
    "settle": without_settle,
    "lock of fires": without_lock_of_fires,
}


def _tell_what_was_sent(path: str) -> None:
    send = relay.Relay._send

    def told(self: relay.Relay, sent: list[messages.Message]) -> None:
        send(self, sent)
        ids = [id for message in sent for id in message.args.get(messages.MANY, [str(message.id)])]
        with open(path, "a", encoding="ascii") as file:  # one write: other relays do the same
            file.write("".join(f"{os.getpid()} {id}\n" for id in ids))

    relay.Relay._send = told  # type: ignore[method-assign, assignment]


def _die_after(batches: int) -> None:
    send = relay.Relay._send
    left = [batches]

    def fatal(self: relay.Relay, sent: list[messages.Message]) -> None:
        send(self, sent)
        left[0] -= 1
        if not left[0]:
            os._exit(DIED)

    relay.Relay._send = fatal  # type: ignore[method-assign, assignment]
    relay.FEW_MESSAGES = 10_000  # it does not hold back for what the ones before it have sent


def _linger(seconds: float) -> None:
    send = relay.Relay._send

    def slow(self: relay.Relay, sent: list[messages.Message]) -> None:
        send(self, sent)
        time.sleep(seconds)

    relay.Relay._send = slow  # type: ignore[method-assign, assignment]


def _obey(environ: Any) -> None:
    for name in filter(None, environ.get("KITAAB_TEST_WITHOUT", "").split(",")):
        REMOVED[name]()
    if path := environ.get("KITAAB_TEST_SENT"):
        _tell_what_was_sent(path)
    if seconds := environ.get("KITAAB_TEST_RELAY_LINGERS"):
        _linger(float(seconds))
    if batches := environ.get("KITAAB_TEST_RELAY_DIES"):
        _die_after(int(batches))
    if seconds := environ.get("KITAAB_TEST_VISIBILITY"):
        # Looked at twice a second, since kombu's own pace is once in 100 s.
        app.conf.broker_transport_options |= {
            "visibility_timeout": float(seconds),
            "unacked_restore_interval": 0.5,
            "unacked_restore_throttle": 1,
        }


_obey(os.environ)

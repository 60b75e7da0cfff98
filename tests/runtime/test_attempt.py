"""A commit that is on its way while the process fetches its next message: whatever comes of it is on record."""

from __future__ import annotations

import datetime as dt
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import psycopg
import pytest
from celery.exceptions import SoftTimeLimitExceeded
from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.orm import Session
from structlog.testing import capture_logs

from kitaab_jobs.contract import PROGRESS_REFRESH
from kitaab_jobs.runtime import attempt, job, ledger
from kitaab_jobs.runtime.attempt import Ended, JobFunction, Last
from kitaab_jobs.runtime.execute import NotStarted, execute
from kitaab_jobs.runtime.outcome import SUCCEEDED
from tests.devstack.observe import wait_for
from tests.runtime.doing import Done, blocked, leave, notes, raising, runner, succeed

Run = Callable[[JobFunction, UUID], Ended]


@pytest.fixture
def last() -> Last:
    return Last()


@pytest.fixture
def run(worker_engine: Engine, last: Last) -> Run:
    """Run a job of the ledger as a worker process does, one after the other."""

    def run(function: JobFunction, id: UUID) -> Ended:
        last.end()
        return execute(runner(worker_engine, PROGRESS_REFRESH, function), id, {}, from_ledger=True, last=last)

    return run


def ends(logs: Any) -> list[str]:
    """Return what was said of how jobs ended; a thread that another test has left may say other things."""
    return [line["action"] for line in logs if line["action"] in ("job_succeeded", "job_failed")]


def test_one_after_the_other(effects: Engine, run: Run, last: Last, add: Any, get: Any) -> None:
    ids = [add() for _ in range(20)]
    with capture_logs() as logs:
        assert [run(succeed, id) for id in ids] == [Ended(SUCCEEDED, {"done": 1})] * 20
        last.end()
    assert {get(id).state for id in ids} == {"succeeded"}
    assert notes(effects) == ["done"] * 20
    assert ends(logs) == ["job_succeeded"] * 20


def test_it_is_told_of_though_nobody_asks(run: Run, add: Any, get: Any) -> None:
    id = add()
    with capture_logs() as logs:
        run(succeed, id)
        wait_for(lambda: ends(logs) == ["job_succeeded"])
    assert get(id).state == "succeeded"


def test_two_are_left_at_once(effects: Engine, worker_engine: Engine, last: Last, add: Any, get: Any) -> None:
    """As threads of one worker do: the first is ended, and its connection goes back to the pool."""
    engine = create_engine(worker_engine.url, pool_size=2)
    ids = [add(), add(), add()]
    with capture_logs() as logs:
        for id in ids:
            execute(runner(engine, PROGRESS_REFRESH, succeed), id, {}, from_ledger=True, last=last)
        last.end()
    assert ends(logs) == ["job_succeeded"] * 3
    assert "Current Checked out connections: 0" in engine.pool.status()
    engine.dispose()
    assert {get(id).state for id in ids} == {"succeeded"}


def test_a_job_that_fails_is_not_on_its_way(effects: Engine, run: Run, add: Any, get: Any) -> None:
    id = add()
    ended = run(raising(RuntimeError("it broke")), id)
    assert isinstance(ended.error, RuntimeError)
    assert (get(id).state, notes(effects)) == ("scheduled", [])


@pytest.fixture
def refused(effects: Engine) -> Any:
    """A constraint that is looked at when the transaction commits."""
    with effects.begin() as connection:
        connection.execute(
            text("ALTER TABLE jobs.effects ADD CONSTRAINT once UNIQUE (note) DEFERRABLE INITIALLY DEFERRED")
        )
    yield
    with effects.begin() as connection:
        connection.execute(text("ALTER TABLE jobs.effects DROP CONSTRAINT once"))


@pytest.mark.usefixtures("refused")
def test_a_commit_that_is_refused(effects: Engine, run: Run, last: Last, add: Any, get: Any) -> None:
    first, second, third = add(), add(), add()

    def other(session: Session, now: dt.datetime, payload: Any) -> Done:
        leave(session, "other")
        return Done()

    with capture_logs() as logs:
        run(succeed, first)
        assert run(succeed, second).outcome is SUCCEEDED, "it is not known yet"
        run(other, third)
        last.end()
    assert [get(id).state for id in (first, second, third)] == ["succeeded", "dead", "succeeded"]
    assert "once" in get(second).error
    assert notes(effects) == ["done", "other"]
    assert ends(logs) == ["job_succeeded", "job_failed", "job_succeeded"]


def test_one_that_was_taken_away(effects: Engine, run: Run, last: Last, add: Any, get: Any) -> None:
    """Its end is sent together with the COMMIT, so it must keep that from happening."""
    id, next = add(), add()

    def lose(session: Session, now: dt.datetime, payload: Any) -> Done:
        leave(session, "lost")
        with effects.begin() as connection:
            claim = ledger.Claim(id, "", {}, 1, 3, get(id).started_at, None, None)
            ledger.settle(connection, ledger.released([claim]))
            assert ledger.claim(connection, [id], "w@there/2")
        return Done()

    run(lose, id)
    run(succeed, next)
    last.end()
    assert (get(id).state, get(id).worker) == ("running", "w@there/2")
    assert get(next).state == "succeeded"
    assert notes(effects) == ["done"]


@pytest.mark.usefixtures("refused")
def test_there_is_one_connection_only(
    effects: Engine, worker_engine: Engine, last: Last, add: Any, get: Any
) -> None:
    """KITAAB_POOL_MAX may be 1: a failure is recorded though the attempt has had it."""
    narrow = create_engine(worker_engine.url, pool_size=1, max_overflow=0, pool_timeout=1)
    functions = {add(): function for function in (succeed, succeed, raising(RuntimeError("it broke")))}
    for id, function in functions.items():
        last.end()
        execute(runner(narrow, PROGRESS_REFRESH, function), id, {}, from_ledger=True, last=last)
    last.end()
    narrow.dispose()
    assert [get(id).state for id in functions] == ["succeeded", "dead", "scheduled"]
    assert notes(effects) == ["done"]


def held_by(holder: Connection, id: UUID) -> JobFunction:
    """Return a job whose end must wait, since its row is held."""

    def held(session: Session, now: dt.datetime, payload: Any) -> Done:
        leave(session, "held")
        holder.execute(text("SELECT FROM jobs.jobs WHERE id = :id FOR SHARE"), {"id": id})
        return Done()

    return held


@pytest.fixture
def interrupt() -> Iterator[Callable[..., None]]:
    """Let a signal raise that in the main thread, a moment later, as a worker's signals do; and then let the row go."""
    threads: list[threading.Thread] = []
    before = signal.getsignal(signal.SIGUSR1)

    def interrupt(error: BaseException, holder: Connection, until: Callable[[], bool] = lambda: True) -> None:
        came = threading.Event()

        def handler(*_: Any) -> None:
            came.set()
            raise error

        def let_go() -> None:
            try:
                came.wait(20)
                wait_for(until)
            finally:
                holder.rollback()

        signal.signal(signal.SIGUSR1, handler)
        threads.append(threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGUSR1)))
        threads.append(threading.Thread(target=let_go))
        for thread in threads:
            thread.start()

    yield interrupt
    for thread in threads:
        thread.join()
    signal.signal(signal.SIGUSR1, before)


def gives_back(superuser_engine: Engine) -> bool:
    """Whether somebody waits for a job's row to give the job back. (What others' sessions do, a superuser sees.)"""
    waiting = """
        SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%json_to_recordset%'
        """
    with superuser_engine.connect() as connection:
        return bool(connection.scalar(text(waiting)))


@pytest.mark.parametrize("waits", ["the process", "the thread"])
def test_the_time_limit_of_the_next_job(
    effects: Engine, run: Run, last: Last, add: Any, get: Any, interrupt: Any, waits: str, monkeypatch: Any
) -> None:
    """It is not that of the job before it, whose end the thread sees to then; and the message of the next goes back."""
    monkeypatch.setattr(job, "LAST", last)
    monkeypatch.setattr(attempt, "LOOK_SECONDS", 0 if waits == "the thread" else 1)
    id = add()
    with effects.connect() as holder, capture_logs() as logs:
        run(held_by(holder, id), id)
        wait_for(lambda: blocked(effects))
        interrupt(SoftTimeLimitExceeded(), holder)
        with pytest.raises(NotStarted):
            job._end_last(PROGRESS_REFRESH)
        wait_for(lambda: ends(logs))
        assert ends(logs) == ["job_succeeded"]
    assert (get(id).state, notes(effects)) == ("succeeded", ["held"])


def test_the_end_of_the_process(
    effects: Engine,
    superuser_engine: Engine,
    run: Run,
    last: Last,
    add: Any,
    get: Any,
    interrupt: Any,
    monkeypatch: Any,
) -> None:
    """The job goes back, as one that still runs would, and no other begins."""
    monkeypatch.setattr(attempt, "LOOK_SECONDS", 60)
    monkeypatch.setattr(attempt, "stops", lambda: True)
    id = add()
    with effects.connect() as holder:
        run(held_by(holder, id), id)
        wait_for(lambda: blocked(effects))
        interrupt(SystemExit(0), holder, until=lambda: gives_back(superuser_engine))
        with pytest.raises(SystemExit):
            last.end()
    assert (get(id).state, get(id).attempt, notes(effects)) == ("ready", 0, [])


def test_a_savepoint_that_was_left_open(effects: Engine, run: Run, last: Last, add: Any, get: Any) -> None:
    def open_ended(session: Session, now: dt.datetime, payload: Any) -> Done:
        session.begin_nested()
        leave(session, "inside")
        return Done()

    id = add()
    with capture_logs() as logs:
        run(open_ended, id)
        last.end()
    assert (get(id).state, notes(effects)) == ("succeeded", ["inside"])
    assert ends(logs) == ["job_succeeded"]


def test_a_connection_that_breaks_at_its_commit(
    effects: Engine, worker_engine: Engine, run: Run, last: Last, add: Any, get: Any
) -> None:
    id, next = add(), add()
    pids: list[int] = []
    # Its row is held, so that its end waits and can be cut.
    with effects.connect() as holder:

        def held(session: Session, now: dt.datetime, payload: Any) -> Done:
            leave(session, "held")
            pids.extend(session.scalars(text("SELECT pg_backend_pid()")))
            holder.execute(text("SELECT FROM jobs.jobs WHERE id = :id FOR SHARE"), {"id": id})
            return Done()

        assert run(held, id).outcome is SUCCEEDED
        wait_for(lambda: blocked(effects))
        with worker_engine.connect() as connection:
            assert connection.scalar(text("SELECT pg_terminate_backend(:pid)"), {"pid": pids[0]})
            holder.rollback()
    run(succeed, next)
    last.end()
    assert (get(id).state, get(id).attempt) == ("scheduled", 1)
    assert get(next).state == "succeeded"
    assert notes(effects) == ["done"]


@pytest.mark.parametrize(
    ("point", "error"),
    [
        ("send_finish", SoftTimeLimitExceeded()),
        ("send_finish", SystemExit(0)),
        ("await_finish", psycopg.OperationalError("server closed the connection unexpectedly")),
    ],
)
def test_a_commit_that_arrived_though_nobody_heard(
    effects: Engine,
    run: Run,
    last: Last,
    add: Any,
    get: Any,
    monkeypatch: Any,
    point: str,
    error: BaseException,
) -> None:
    """The row says what is true, and so do the log and Celery."""
    id = add()
    whole = getattr(ledger, point)

    def cut(*given: Any, **more: Any) -> None:
        whole(*given, **more)
        wait_for(lambda: get(id).state == "succeeded")
        raise error

    monkeypatch.setattr(ledger, point, cut)
    with capture_logs() as logs:
        ended = run(succeed, id)
        last.end()
    # What is no Exception is meant for the process, and raised where its loop hears it.
    assert ended == Ended(SUCCEEDED, {"done": 1}, error if isinstance(error, SystemExit) else None)
    assert ends(logs) == ["job_succeeded"]
    assert (get(id).state, get(id).attempt, notes(effects)) == ("succeeded", 1, ["done"])

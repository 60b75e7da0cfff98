"""A job between two: the message overtakes the relay, the database goes away, somebody else has the claim."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool
from structlog.testing import capture_logs

from kitaab_jobs.contract import PROGRESS_REFRESH, QUEUES
from kitaab_jobs.errors import Cancelled
from kitaab_jobs.runtime import ledger, outbox
from kitaab_jobs.runtime.attempt import Ended, JobFunction, Runner
from kitaab_jobs.runtime.batch import execute_batch
from kitaab_jobs.runtime.execute import NotStarted, execute
from tests.devstack.observe import wait_for
from tests.runtime import rows
from tests.runtime.doing import Done, blocked, leave, notes, runner, succeed

Run = Callable[[JobFunction, UUID], Ended]
JOB = PROGRESS_REFRESH


@pytest.fixture
def run(worker_engine: Engine) -> Run:
    """Run a function as the job with that id, as a worker would."""
    return lambda function, id: execute(runner(worker_engine, JOB, function), id, {})


def take(connection: Connection) -> list[UUID]:
    taken = outbox.take(connection, {"default": 10}, QUEUES.values(), limited_kinds=False)
    return [row.id for row in taken]


def rescue(engine: Engine) -> list[UUID]:
    with engine.begin() as connection:
        return [job.id for job in rows.rescue_running(connection, outbox.Patience(running=-1))]


class TestOvertaking:
    """The message is there before the relay has committed."""

    @pytest.mark.parametrize("commits", [True, False], ids=["relay commits", "relay dies"])
    def test_the_claim_waits_for_the_relay(
        self, effects: Engine, run: Run, add: Any, get: Any, commits: bool
    ) -> None:
        id = add("ready")
        with effects.connect() as relay:
            assert take(relay) == [id]
            thread = threading.Thread(target=run, args=(succeed, id))
            thread.start()
            wait_for(lambda: blocked(effects))
            assert notes(effects) == []
            relay.commit() if commits else relay.rollback()
        thread.join()
        assert (get(id).state, get(id).attempt) == ("succeeded", 1)
        assert notes(effects) == ["done"]
        with effects.begin() as connection:
            assert take(connection) == []

    @pytest.mark.parametrize("many", [False, True], ids=["one", "batch"])
    def test_a_relay_that_takes_too_long_leaves_the_message(
        self, effects: Engine, worker_engine: Engine, add: Any, get: Any, many: bool
    ) -> None:
        ids = [add("ready") for _ in range(2)]
        hasty = create_engine(
            worker_engine.url, poolclass=NullPool, connect_args={"options": "-c lock_timeout=100ms"}
        )
        with effects.connect() as relay:
            assert sorted(take(relay)) == sorted(ids)
            with pytest.raises(NotStarted, match="lock timeout"):
                start(runner(hasty, JOB, succeed), ids, many)
            relay.commit()
        assert {get(id).state for id in ids} == {"published"}


def start(worker: Runner, ids: list[UUID], many: bool) -> object:
    return execute_batch(worker, ids) if many else execute(worker, ids[0], {})


class TestDatabaseAway:
    @pytest.mark.parametrize(
        ("many", "message"),
        [
            (False, r"progress\.refresh .* was not started: OperationalError"),
            (True, r"2 progress\.refresh was not started: OperationalError"),
        ],
    )
    def test_before_the_claim_the_message_is_to_be_kept(self, many: bool, message: str) -> None:
        nowhere = create_engine("postgresql+psycopg://nobody@127.0.0.1:1/none", poolclass=NullPool)
        with pytest.raises(NotStarted, match=message):
            start(runner(nowhere, JOB, succeed), [uuid4(), uuid4()], many)

    @pytest.mark.parametrize("many", [False, True], ids=["one", "batch"])
    def test_while_it_runs_the_rescue_is_left_to_do(
        self,
        effects: Engine,
        superuser_engine: Engine,
        worker_engine: Engine,
        run: Run,
        add: Any,
        get: Any,
        many: bool,
    ) -> None:
        ids = [add() for _ in range(2 if many else 1)]
        name = effects.url.database
        server = create_engine(
            superuser_engine.url.set(database="postgres"), isolation_level="AUTOCOMMIT", poolclass=NullPool
        )

        def outage(session: Session, now: dt.datetime, payload: Any) -> Done:
            leave(session)
            with server.connect() as connection:
                connection.execute(text(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false"))
                connection.execute(
                    text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name"),
                    {"name": name},
                )
            leave(session)
            return Done(0)

        try:
            with capture_logs() as logs:
                start(runner(worker_engine, JOB, outage), ids, many)
        finally:
            with server.connect() as connection:
                connection.execute(text(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true"))
        assert "failure_not_recorded" in {line["action"] for line in logs}
        assert {get(id).state for id in ids} == {"running"}
        assert sorted(rescue(effects)) == sorted(ids)
        for id in ids:
            assert run(succeed, id).result
            assert (get(id).state, get(id).attempt) == ("succeeded", 1 if many else 2)
        assert notes(effects) == ["done"] * len(ids)


class TestLostClaim:
    def test_work_is_rolled_back_when_somebody_else_has_the_job(
        self, effects: Engine, run: Run, add: Any, get: Any
    ) -> None:
        id = add()

        def second(session: Session, now: dt.datetime, payload: Any) -> Done:
            leave(session, "second")
            return Done(2)

        def overtaken(session: Session, now: dt.datetime, payload: Any) -> Done:
            leave(session, "first")
            assert rescue(effects) == [id]
            assert run(second, id).result
            return Done(1)

        error = run(overtaken, id).error
        assert isinstance(error, Cancelled)
        assert "taken from this worker" in str(error)
        row = get(id)
        assert (row.state, row.attempt, row.result, row.error) == ("succeeded", 2, {"done": 2}, None)
        assert notes(effects) == ["second"]

    def test_the_other_attempt_still_runs(self, effects: Engine, run: Run, add: Any, get: Any) -> None:
        id = add()

        def overtaken(session: Session, now: dt.datetime, payload: Any) -> Done:
            leave(session, "first")
            rescue(effects)
            with effects.begin() as connection:
                assert ledger.claim(connection, [id], "w@there/2")
            return Done(1)

        assert isinstance(run(overtaken, id).error, Cancelled)
        row = get(id)
        assert (row.state, row.attempt, row.worker, row.error) == ("running", 2, "w@there/2", None)
        assert notes(effects) == []

    def test_an_operator_cancelled_it(self, effects: Engine, run: Run, add: Any, get: Any) -> None:
        id = add()

        def cancelled(session: Session, now: dt.datetime, payload: Any) -> Done:
            leave(session)
            with effects.begin() as connection:
                connection.execute(
                    text("UPDATE jobs.jobs SET state = 'cancelled', finished_at = now() WHERE id = :id"),
                    {"id": id},
                )
            return Done(1)

        assert isinstance(run(cancelled, id).error, Cancelled)
        assert get(id).state == "cancelled"
        assert notes(effects) == []

    @pytest.mark.parametrize(("fails", "wanted"), [(True, "cancelled"), (False, "succeeded")])
    def test_an_operator_asked_it_to_stop(
        self, effects: Engine, run: Run, add: Any, get: Any, fails: bool, wanted: str
    ) -> None:
        """What has done its work all the same, has done it; what fails is not tried again."""
        id = add()

        def asked(session: Session, now: dt.datetime, payload: Any) -> Done:
            leave(session, "done")
            with effects.begin() as connection:
                connection.execute(
                    text("UPDATE jobs.jobs SET cancel_requested_at = now() WHERE id = :id"), {"id": id}
                )
            if fails:
                raise RuntimeError("it broke")
            return Done(1)

        run(asked, id)
        assert get(id).state == wanted
        assert notes(effects) == ([] if fails else ["done"])

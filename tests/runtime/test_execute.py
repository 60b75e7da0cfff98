"""One message from claim to finish: effects once, errors recorded, nothing done for a claim that was lost."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import pytest
from billiard import common
from celery.exceptions import SoftTimeLimitExceeded
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool
from structlog.testing import capture_logs

from kitaab_jobs.contract import PROGRESS_REFRESH, Batch, Job
from kitaab_jobs.errors import Cancelled, KitaabError, UnknownZone
from kitaab_jobs.runtime import ledger
from kitaab_jobs.runtime.execute import JobFunction, NotStarted, describe, execute
from tests.devstack.observe import wait_for
from tests.runtime import rows

JOB = PROGRESS_REFRESH


@dataclass(frozen=True)
class Done:
    """What the jobs here return."""

    done: int


Run = Callable[..., dict[str, Any] | None]


@pytest.fixture
def run(worker_engine: Engine) -> Run:
    """Run a function as the job with that id, as a worker would."""

    def run(function: JobFunction, id: UUID, args: dict[str, Any] | None = None, job: Job = JOB) -> Any:
        return execute(job, function, id, args or {}, engine=worker_engine, worker="w@here/1")

    return run


@pytest.fixture
def add(effects: Engine) -> Callable[..., UUID]:
    """Commit a job in a state."""

    def add(state: str = "published", **given: Any) -> UUID:
        with effects.begin() as connection:
            return rows.add(connection, state, **given)

    return add


@pytest.fixture
def get(effects: Engine) -> Callable[[UUID], Any]:
    """Read a job's row."""

    def get(id: UUID) -> Any:
        with effects.connect() as connection:
            return rows.get(connection, id)

    return get


def leave(session: Session, note: str = "") -> None:
    session.execute(text("INSERT INTO jobs.effects (note) VALUES (:note)"), {"note": note})


def notes(engine: Engine) -> list[str]:
    with engine.connect() as connection:
        return list(connection.scalars(text("SELECT note FROM jobs.effects ORDER BY id")))


def succeed(session: Session, now: dt.datetime, payload: Any) -> Done:
    leave(session, "done")
    return Done(1)


def raising(error: BaseException) -> JobFunction:
    def fail(session: Session, now: dt.datetime, payload: Any) -> Done:
        leave(session, "half")
        raise error

    return fail


class TestSuccess:
    def test_effect_and_state_are_one(self, effects: Engine, run: Run, add: Any, get: Any) -> None:
        id = add()

        def look(session: Session, now: dt.datetime, payload: Any) -> Done:
            leave(session, "done")
            session.flush()
            assert get(id).state == "running"
            assert notes(effects) == []
            return Done(7)

        assert run(look, id) == {"done": 7}
        row = get(id)
        assert (row.state, row.attempt, row.result, row.worker) == ("succeeded", 1, {"done": 7}, "w@here/1")
        assert row.finished_at >= row.started_at
        assert notes(effects) == ["done"]

    def test_gets_the_start_and_the_rows_payload(self, run: Run, add: Any, get: Any) -> None:
        id = add(args={"limit": 9})
        seen: list[Any] = []

        def look(session: Session, now: dt.datetime, payload: Batch) -> Done:
            seen.extend([now, payload])
            return Done(0)

        run(look, id, {"limit": 1})  # the message says something else: the row is the truth
        assert seen == [get(id).started_at, Batch(limit=9)]

    def test_a_report_may_have_any_field(self, run: Run, add: Any, get: Any) -> None:
        @dataclass
        class Awkward:
            id: int = 1
            event: str = "x"
            action: str = "y"
            job: str = "z"
            seconds: float = 0.5

        id = add()
        assert run(lambda *_: Awkward(), id)
        assert get(id).state == "succeeded"

    def test_a_report_that_is_no_json_takes_the_work_back(
        self, effects: Engine, run: Run, add: Any, get: Any
    ) -> None:
        @dataclass
        class Odd:
            at: Any = dt.date(2026, 1, 1)

        def function(session: Session, now: dt.datetime, payload: Any) -> Any:
            leave(session)
            return Odd()

        id = add()
        with pytest.raises(Exception, match="JSON"):
            run(function, id)
        assert get(id).state == "scheduled"
        assert notes(effects) == []


class TestFailure:
    def test_is_rolled_back_recorded_and_tried_again(
        self, effects: Engine, run: Run, add: Any, get: Any
    ) -> None:
        id = add()
        with pytest.raises(RuntimeError, match="it broke"):
            run(raising(RuntimeError("it broke")), id)
        row = get(id)
        assert (row.state, row.attempt, row.error) == ("scheduled", 1, "RuntimeError: it broke")
        assert notes(effects) == []

    def test_last_attempt_is_dead(self, run: Run, add: Any, get: Any) -> None:
        id = add(attempt=4, max_attempts=5)
        with pytest.raises(RuntimeError):
            run(raising(RuntimeError("it broke")), id)
        assert (get(id).state, get(id).attempt) == ("dead", 5)

    @pytest.mark.parametrize(
        "error", [UnknownZone("'Mars' is not a time zone", remedy="use an IANA name"), UnknownZone()]
    )
    def test_what_can_never_work_is_dead_at_once(
        self, run: Run, add: Any, get: Any, error: UnknownZone
    ) -> None:
        id = add()
        with pytest.raises(UnknownZone):
            run(raising(error), id)
        assert (get(id).state, get(id).attempt, get(id).error) == ("dead", 1, str(error))

    def test_a_payload_that_does_not_fit_is_dead_and_never_run(
        self, effects: Engine, run: Run, add: Any, get: Any
    ) -> None:
        id = add(args={"limti": 5})
        with pytest.raises(KitaabError, match="limti"):
            run(succeed, id)
        assert get(id).state == "dead"
        assert "progress.refresh: limti: " in get(id).error
        assert notes(effects) == []

    def test_time_limit_says_so(self, run: Run, add: Any, get: Any) -> None:
        id = add()
        with pytest.raises(SoftTimeLimitExceeded):
            run(raising(SoftTimeLimitExceeded()), id)
        assert (get(id).state, get(id).error) == ("scheduled", "the job ran longer than its time limit")

    def test_a_job_that_leaves_the_process_has_failed(self, run: Run, add: Any, get: Any) -> None:
        id = add()
        with pytest.raises(SystemExit):
            run(raising(SystemExit(3)), id)
        assert (get(id).state, get(id).attempt) == ("scheduled", 1)

    def test_the_ledger_quotes_no_data(self, run: Run, add: Any, get: Any) -> None:
        id = add()

        def twice(session: Session, now: dt.datetime, payload: Any) -> Done:
            session.execute(text("CREATE TEMP TABLE people (email text UNIQUE)"))
            for _ in range(2):
                session.execute(text("INSERT INTO people VALUES (:email)"), {"email": "amina@example.org"})
            return Done(0)

        with pytest.raises(Exception, match="unique constraint"):
            run(twice, id)
        error = get(id).error
        assert error == ('UniqueViolation: duplicate key value violates unique constraint "people_email_key"')

    def test_its_connection_was_cut(self, effects: Engine, run: Run, add: Any, get: Any) -> None:
        id = add()

        def cut(session: Session, now: dt.datetime, payload: Any) -> Done:
            leave(session)
            session.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))
            return Done(0)

        with pytest.raises(Exception, match="terminat"):
            run(cut, id)
        assert (get(id).state, get(id).attempt) == ("scheduled", 1)
        assert notes(effects) == []


class TestStopped:
    """The worker is told to end: billiard's handler has run, and SystemExit unwinds through the job."""

    @pytest.fixture(autouse=True)
    def told(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(common, "_should_have_exited", [True])

    @pytest.mark.parametrize("error", [SystemExit(-241), RuntimeError("a clean-up failed while unwinding")])
    def test_is_given_back_and_no_attempt_is_lost(
        self, effects: Engine, run: Run, add: Any, get: Any, error: BaseException
    ) -> None:
        id = add(max_attempts=1)
        with pytest.raises(type(error)):
            run(raising(error), id)
        row = get(id)
        assert (row.state, row.attempt) == ("ready", 0)
        assert notes(effects) == []
        run(succeed, id)
        assert get(id).state == "succeeded"

    def test_after_the_commit_there_is_nothing_to_give_back(self, run: Run, add: Any, get: Any) -> None:
        id = add()
        run(succeed, id)
        assert get(id).state == "succeeded"


class TestDuplicates:
    def test_the_second_message_is_dropped(self, effects: Engine, run: Run, add: Any, get: Any) -> None:
        id = add()
        assert run(succeed, id) == {"done": 1}
        assert run(succeed, id) is None
        assert notes(effects) == ["done"]
        assert get(id).attempt == 1

    @pytest.mark.parametrize("state", ["scheduled", "running", "succeeded", "dead", "cancelled"])
    def test_nothing_to_claim(self, effects: Engine, run: Run, add: Any, get: Any, state: str) -> None:
        id = add(state)
        was = get(id)
        with capture_logs() as logs:
            assert run(succeed, id) is None
        assert logs[0]["action"] == "message_dropped"
        assert get(id) == was
        assert notes(effects) == []

    def test_many_at_once_have_one_effect(self, effects: Engine, run: Run, add: Any) -> None:
        ids = [add() for _ in range(5)]
        threads = [threading.Thread(target=run, args=(succeed, id)) for id in ids for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert notes(effects) == ["done"] * 5


class TestArrival:
    """Sent with `send_task` by any Celery client: there is only a message."""

    def test_is_recorded_and_run(self, effects: Engine, run: Run, get: Any) -> None:
        id = uuid4()
        assert run(succeed, id, {"limit": 5}) == {"done": 1}
        row = get(id)
        assert (row.state, row.name, row.args, row.queue) == (
            "succeeded",
            "progress.refresh",
            {"limit": 5},
            "default",
        )
        assert (row.attempt, row.max_attempts) == (1, 5)
        assert run(succeed, id, {"limit": 5}) is None
        assert notes(effects) == ["done"]

    def test_fails_by_the_same_rules(self, run: Run, get: Any) -> None:
        id = uuid4()
        with pytest.raises(RuntimeError):
            run(raising(RuntimeError("it broke")), id, {"limit": 5})
        assert get(id).state == "scheduled"

    def test_a_wrong_payload_is_on_record(self, run: Run, get: Any) -> None:
        id = uuid4()
        with pytest.raises(KitaabError, match="limti"):
            run(succeed, id, {"limti": 5})
        assert get(id).state == "dead"

    def test_a_job_of_this_version_only(self, run: Run, get: Any) -> None:
        id = uuid4()
        new = Job("sample.new", "not in jobs.kinds yet", queue="long", max_attempts=3)
        assert run(succeed, id, job=new)
        assert (get(id).state, get(id).queue, get(id).max_attempts) == ("succeeded", "long", 3)


class TestOvertaking:
    """The message is there before the relay has committed."""

    @pytest.mark.parametrize("commits", [True, False], ids=["relay commits", "relay dies"])
    def test_the_claim_waits_for_the_relay(
        self, effects: Engine, run: Run, add: Any, get: Any, commits: bool
    ) -> None:
        id = add("ready")
        with effects.connect() as relay:
            assert [row.id for row in ledger.take_ready(relay, 10)] == [id]
            thread = threading.Thread(target=run, args=(succeed, id))
            thread.start()
            wait_for(lambda: blocked(effects))
            assert notes(effects) == []
            relay.commit() if commits else relay.rollback()
        thread.join()
        assert (get(id).state, get(id).attempt) == ("succeeded", 1)
        assert notes(effects) == ["done"]
        with effects.begin() as connection:
            assert ledger.take_ready(connection, 10) == []

    def test_a_relay_that_takes_too_long_leaves_the_message(
        self, effects: Engine, worker_engine: Engine, add: Any, get: Any
    ) -> None:
        id = add("ready")
        hasty = create_engine(
            worker_engine.url, poolclass=NullPool, connect_args={"options": "-c lock_timeout=100ms"}
        )
        with effects.connect() as relay:
            ledger.take_ready(relay, 10)
            with pytest.raises(NotStarted, match="lock timeout"):
                execute(JOB, succeed, id, {}, engine=hasty, worker="w")
            relay.commit()
        assert get(id).state == "published"


class TestDatabaseAway:
    def test_before_the_claim_the_message_is_to_be_kept(self) -> None:
        nowhere = create_engine("postgresql+psycopg://nobody@127.0.0.1:1/none", poolclass=NullPool)
        with pytest.raises(NotStarted, match=r"progress\.refresh .* was not started: OperationalError"):
            execute(JOB, succeed, uuid4(), {}, engine=nowhere, worker="w")

    def test_while_it_runs_the_rescue_is_left_to_do(
        self, effects: Engine, superuser_engine: Engine, run: Run, add: Any, get: Any
    ) -> None:
        id = add()
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
            return Done(0)

        try:
            with capture_logs() as logs, pytest.raises(Exception, match="terminat"):
                run(outage, id)
        finally:
            with server.connect() as connection:
                connection.execute(text(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true"))
        assert "failure_not_recorded" in {line["action"] for line in logs}
        assert get(id).state == "running"
        with effects.begin() as connection:
            assert len(ledger.rescue_running(connection, ledger.Patience(running=0))) == 1
        assert run(succeed, id)
        assert (get(id).state, get(id).attempt) == ("succeeded", 2)
        assert notes(effects) == ["done"]


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
            with effects.begin() as connection:
                assert len(ledger.rescue_running(connection, ledger.Patience(running=0))) == 1
            assert run(second, id)
            return Done(1)

        with pytest.raises(Cancelled, match="taken from this worker"):
            run(overtaken, id)
        row = get(id)
        assert (row.state, row.attempt, row.result, row.error) == ("succeeded", 2, {"done": 2}, None)
        assert notes(effects) == ["second"]

    def test_the_other_attempt_still_runs(self, effects: Engine, run: Run, add: Any, get: Any) -> None:
        id = add()

        def overtaken(session: Session, now: dt.datetime, payload: Any) -> Done:
            leave(session, "first")
            with effects.begin() as connection:
                ledger.rescue_running(connection, ledger.Patience(running=0))
                assert ledger.claim(connection, id, "w@there/2")
            return Done(1)

        with pytest.raises(Cancelled):
            run(overtaken, id)
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

        with pytest.raises(Cancelled):
            run(cancelled, id)
        assert get(id).state == "cancelled"
        assert notes(effects) == []


class TestDescribe:
    @pytest.mark.parametrize(
        ("error", "line"),
        [
            (ValueError("two\nlines"), "ValueError: two"),
            (ValueError(), "ValueError"),
            (ValueError("\n"), "ValueError"),
            (KitaabError("it failed", remedy="try again"), "it failed: try again"),
        ],
    )
    def test_one_line(self, error: BaseException, line: str) -> None:
        assert describe(error) == line


def blocked(engine: Engine) -> bool:
    """Whether somebody in the database waits for a lock."""
    statement = """
        SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid)
        WHERE datname = current_database() AND NOT granted
        """
    with engine.connect() as connection:
        return bool(connection.scalar(text(statement)))


def test_each_run_leaves_no_thread(run: Run, add: Any) -> None:
    before = threading.active_count()
    run(succeed, add())
    with pytest.raises(RuntimeError):
        run(raising(RuntimeError("it broke")), add())
    assert threading.active_count() == before

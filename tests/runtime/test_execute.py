"""One message from claim to finish: effects once, errors recorded, a second message dropped."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import pytest
from billiard import common
from celery.exceptions import SoftTimeLimitExceeded
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session
from structlog.testing import capture_logs

from kitaab_jobs.contract import PROGRESS_REFRESH, Batch, Job
from kitaab_jobs.errors import BadPayload, Cancelled, KitaabError, Permanent, Retryable, Snooze, UnknownZone
from kitaab_jobs.runtime.attempt import Ended, JobFunction
from kitaab_jobs.runtime.context import Context
from kitaab_jobs.runtime.execute import execute
from kitaab_jobs.runtime.heartbeat import Heartbeat
from kitaab_jobs.runtime.outcome import RELEASED, SUCCEEDED
from tests.devstack.observe import wait_for
from tests.runtime.doing import Done, leave, notes, raising, runner, succeed

Run = Callable[..., Ended]


@pytest.fixture
def run(worker_engine: Engine) -> Run:
    """Run a function as the job with that id, as a worker would."""

    def run(
        function: JobFunction,
        id: UUID,
        args: dict[str, Any] | None = None,
        job: Job = PROGRESS_REFRESH,
        **options: Any,
    ) -> Ended:
        return execute(runner(worker_engine, job, function, **options), id, args or {})

    return run


class TestApart:
    """What a job commits apart from its own work: there at once, and whatever becomes of the job."""

    def test_it_stays_where_the_job_fails(self, effects: Engine, run: Run, add: Any, get: Any) -> None:
        id = add()

        def send(session: Session, now: dt.datetime, payload: Any, context: Context) -> Done:
            with context.apart() as connection:
                leave(connection, "about to be sent")
            assert notes(effects) == ["about to be sent"]
            leave(session, "work")
            raise Permanent("the provider said no")

        ended = run(send, id, wants_context=True)
        assert isinstance(ended.error, Permanent)
        assert get(id).state == "dead"
        assert notes(effects) == ["about to be sent"]

    def test_it_is_rolled_back_where_its_own_block_fails(
        self, effects: Engine, run: Run, add: Any, get: Any
    ) -> None:
        id = add()

        def send(session: Session, now: dt.datetime, payload: Any, context: Context) -> Done:
            with suppress(ValueError), context.apart() as connection:
                leave(connection, "about to be sent")
                raise ValueError
            leave(session, "work")
            return Done(1)

        run(send, id, wants_context=True)
        assert (get(id).state, notes(effects)) == ("succeeded", ["work"])


class TestSuccess:
    def test_effect_and_state_are_one(self, effects: Engine, run: Run, add: Any, get: Any) -> None:
        id = add()

        def look(session: Session, now: dt.datetime, payload: Any) -> Done:
            leave(session, "done")
            session.flush()
            assert get(id).state == "running"
            assert notes(effects) == []
            return Done(7)

        assert run(look, id) == Ended(SUCCEEDED, {"done": 7})
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

    def test_one_that_asks_for_it_gets_its_context(self, run: Run, add: Any, get: Any) -> None:
        id = add(attempt=2, schedule="nightly")
        seen: list[Any] = []

        def look(session: Session, now: dt.datetime, payload: Any, context: Context) -> Done:
            seen.extend(
                [context.id, context.attempt, context.max_attempts, context.schedule, context.fire_at]
            )
            context.progress(3, 9)
            context.progress(4)
            context.check()
            return Done()

        assert run(look, id, wants_context=True).outcome == SUCCEEDED
        assert seen == [id, 3, 5, "nightly", None]
        assert (get(id).progress_done, get(id).progress_total) == (4, 9)

    def test_a_report_may_have_any_field(self, run: Run, add: Any, get: Any) -> None:
        @dataclass
        class Awkward:
            id: int = 1
            event: str = "x"
            action: str = "y"
            job: str = "z"
            seconds: float = 0.5

        id = add()
        assert run(lambda *_: Awkward(), id).result
        assert get(id).state == "succeeded"

    @pytest.mark.parametrize("value", [dt.date(2026, 1, 1), float("nan"), "a\0b"])
    def test_a_report_that_cannot_be_kept_takes_the_work_back(
        self, effects: Engine, run: Run, add: Any, get: Any, value: Any
    ) -> None:
        @dataclass
        class Odd:
            at: Any = value

        def function(session: Session, now: dt.datetime, payload: Any) -> Any:
            leave(session)
            return Odd()

        id = add()
        assert run(function, id).error is not None
        assert get(id).state in ("scheduled", "dead")
        assert get(id).error
        assert notes(effects) == []


class TestFailure:
    def test_is_rolled_back_recorded_and_tried_again(
        self, effects: Engine, run: Run, add: Any, get: Any
    ) -> None:
        id = add()
        error = RuntimeError("it broke")
        ended = run(raising(error), id)
        assert ended.error is error
        assert ended.outcome is not None
        row = get(id)
        assert (row.state, row.attempt, row.error) == ("scheduled", 1, "RuntimeError: it broke")
        assert row.run_at - row.started_at >= dt.timedelta(seconds=ended.outcome.wait or 0)
        assert notes(effects) == []

    def test_last_attempt_is_dead(self, run: Run, add: Any, get: Any) -> None:
        id = add(attempt=4, max_attempts=5)
        run(raising(RuntimeError("it broke")), id)
        assert (get(id).state, get(id).attempt) == ("dead", 5)

    # error; then: state, attempt
    @pytest.mark.parametrize(
        ("error", "wanted"),
        [
            (UnknownZone("'Mars' is not a time zone", remedy="use an IANA name"), ("dead", 1)),
            (UnknownZone(), ("dead", 1)),
            (Permanent("there is no such person"), ("dead", 1)),
            (Cancelled("not wanted any more"), ("cancelled", 1)),
            (Snooze(60, "not before noon"), ("scheduled", 0)),
            (Retryable("try again", after=60), ("scheduled", 1)),
        ],
    )
    def test_what_its_error_says(
        self, effects: Engine, run: Run, add: Any, get: Any, error: KitaabError, wanted: tuple[str, int]
    ) -> None:
        id = add()
        assert run(raising(error), id).error is error
        row = get(id)
        assert (row.state, row.attempt) == wanted
        assert row.error == str(error)
        assert notes(effects) == []
        if row.state == "scheduled":
            assert row.run_at - row.started_at >= dt.timedelta(seconds=60)

    def test_a_snooze_in_the_last_attempt_is_no_end(self, run: Run, add: Any, get: Any) -> None:
        id = add(attempt=4, max_attempts=5)
        run(raising(Snooze(0)), id)
        assert (get(id).state, get(id).attempt) == ("scheduled", 4)

    def test_a_payload_that_does_not_fit_is_dead_and_never_run(
        self, effects: Engine, run: Run, add: Any, get: Any
    ) -> None:
        id = add(args={"limti": 5})
        assert isinstance(run(succeed, id).error, BadPayload)
        assert get(id).state == "dead"
        assert "progress.refresh: limti: " in get(id).error
        assert notes(effects) == []

    def test_time_limit_says_so(self, run: Run, add: Any, get: Any) -> None:
        id = add()
        assert isinstance(run(raising(SoftTimeLimitExceeded()), id).error, SoftTimeLimitExceeded)
        assert (get(id).state, get(id).error) == ("scheduled", "the job ran longer than its time limit")

    def test_a_job_that_leaves_the_process_has_failed(self, run: Run, add: Any, get: Any) -> None:
        id = add()
        assert isinstance(run(raising(SystemExit(3)), id).error, SystemExit)
        assert (get(id).state, get(id).attempt) == ("scheduled", 1)

    def test_the_ledger_quotes_no_data(self, run: Run, add: Any, get: Any) -> None:
        id = add()

        def twice(session: Session, now: dt.datetime, payload: Any) -> Done:
            session.execute(text("CREATE TEMP TABLE people (email text UNIQUE)"))
            for _ in range(2):
                session.execute(text("INSERT INTO people VALUES (:email)"), {"email": "amina@example.org"})
            return Done(0)

        with capture_logs() as logs:
            run(twice, id)
        row = get(id)
        assert row.state == "dead", "what PostgreSQL refuses, it refuses the next time too"
        assert row.error == (
            'UniqueViolation: duplicate key value violates unique constraint "people_email_key"'
        )
        assert "amina" not in str(logs)

    def test_its_connection_was_cut(self, effects: Engine, run: Run, add: Any, get: Any) -> None:
        id = add()

        def cut(session: Session, now: dt.datetime, payload: Any) -> Done:
            leave(session)
            session.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))
            return Done(0)

        run(cut, id)
        assert (get(id).state, get(id).attempt) == ("scheduled", 1)
        assert "terminating connection" in get(id).error
        assert notes(effects) == []


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_a_job_does_not_end_its_transaction(effects: Engine, run: Run, add: Any, get: Any, end: str) -> None:
    """Else its work would be there without its state, and be done again."""
    id = add()

    def function(session: Session, now: dt.datetime, payload: Any) -> Done:
        with session.begin_nested():
            leave(session)
        getattr(session, end)()
        return Done()

    run(function, id)
    assert get(id).state == "dead"
    assert get(id).error.startswith("a job does not ")
    assert notes(effects) == []


def test_a_job_that_tampers_with_its_connection(effects: Engine, run: Run, add: Any, get: Any) -> None:
    id = add()

    def function(session: Session, now: dt.datetime, payload: Any) -> Done:
        leave(session)
        session.connection().rollback()
        return Done()

    run(function, id)
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
        with capture_logs() as logs:
            assert run(raising(error), id) == Ended(RELEASED, error=error)
        assert [line["action"] for line in logs] == ["job_released"]
        row = get(id)
        assert (row.state, row.attempt, row.error) == ("ready", 0, "its worker gave it back")
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
        assert run(succeed, id).result == {"done": 1}
        assert run(succeed, id) == Ended(None)
        assert notes(effects) == ["done"]
        assert get(id).attempt == 1

    @pytest.mark.parametrize("state", ["scheduled", "running", "succeeded", "dead", "cancelled"])
    def test_nothing_to_claim(self, effects: Engine, run: Run, add: Any, get: Any, state: str) -> None:
        id = add(state)
        was = get(id)
        with capture_logs() as logs:
            assert run(succeed, id) == Ended(None)
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
        assert run(succeed, id, {"limit": 5}).result == {"done": 1}
        row = get(id)
        assert (row.state, row.name, row.args, row.queue) == (
            "succeeded",
            "progress.refresh",
            {"limit": 5},
            "default",
        )
        assert (row.attempt, row.max_attempts) == (1, 5)
        assert run(succeed, id, {"limit": 5}).outcome is None
        assert notes(effects) == ["done"]

    def test_fails_by_the_same_rules(self, run: Run, get: Any) -> None:
        id = uuid4()
        assert isinstance(run(raising(RuntimeError("it broke")), id, {"limit": 5}).error, RuntimeError)
        assert get(id).state == "scheduled"

    @pytest.mark.parametrize(
        ("args", "reason"),
        [({"limti": 5}, "limti: Extra inputs"), ({"limit": "\0"}, "NUL"), ({"limit": float("nan")}, "JSON")],
    )
    def test_a_wrong_payload_is_on_record(
        self, effects: Engine, run: Run, get: Any, args: dict[str, Any], reason: str
    ) -> None:
        id = uuid4()
        run(succeed, id, args)
        assert get(id).state == "dead"
        assert reason in get(id).error
        assert notes(effects) == []

    def test_a_job_of_this_version_only(self, run: Run, get: Any) -> None:
        id = uuid4()
        new = Job("sample.new", "not in jobs.kinds yet", queue="long", max_attempts=3)
        assert run(succeed, id, job=new).result
        assert (get(id).state, get(id).queue, get(id).max_attempts) == ("succeeded", "long", 3)

    def test_what_comes_after_it_is_kept(self, worker_engine: Engine, get: Any) -> None:
        id = uuid4()
        canvas = {"chain": [{"task": "sample.next"}]}
        execute(runner(worker_engine, PROGRESS_REFRESH, raising(RuntimeError())), id, {}, canvas)
        assert (get(id).state, get(id).canvas) == ("scheduled", canvas)


def test_nothing_is_held_when_it_has_ended(worker_engine: Engine, run: Run, add: Any) -> None:
    beat = Heartbeat(worker_engine, every=0.01)
    run(succeed, add(), heartbeat=beat)
    run(raising(RuntimeError("it broke")), add(), heartbeat=beat)
    wait_for(lambda: not beats(beat))


def beats(beat: Heartbeat) -> bool:
    """Whether its thread is there."""
    return any(thread is beat._thread for thread in threading.enumerate())

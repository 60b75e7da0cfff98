"""What goes back to the ledger: what a slow job keeps waiting, what stops with its worker, what is cancelled."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from billiard import common
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session
from structlog.testing import capture_logs

from kitaab_jobs.runtime import batch, ledger, outbox
from kitaab_jobs.runtime.heartbeat import Heartbeat
from tests.devstack.observe import wait_for
from tests.runtime import rows
from tests.runtime.batches import PLAIN, RunBatch, cut
from tests.runtime.doing import Note, by_payload, notes


def nothing(session: Session, payload: Note) -> None:
    """Leave the note and no more."""


class TestSlow:
    """A slow job does not hold up those behind it."""

    @pytest.fixture
    def slow_down(self, effects: Engine, monkeypatch: pytest.MonkeyPatch) -> Callable[[dt.datetime], None]:
        """Return what makes a job that started then longer than its batch may be at work; nobody before it is."""

        def slow_down(started_at: dt.datetime) -> None:
            monkeypatch.setattr(batch, "BUDGET_SECONDS", 0.05)
            wait_for(lambda: clock(effects) - started_at > dt.timedelta(seconds=0.1))

        return slow_down

    def test_what_has_not_begun_goes_back(
        self, effects: Engine, run_batch: RunBatch, jobs: Any, get: Any, slow_down: Any
    ) -> None:
        ids = jobs("a=leave slow b=leave c=leave")

        def slow(session: Session, payload: Note) -> None:
            slow_down(get(ids["slow"]).started_at)

        assert run_batch(by_payload(slow=slow), list(ids.values())) == {"succeeded": 2, "ready": 2}
        assert notes(effects) == ["a", "slow"]
        for note in "bc":
            row = get(ids[note])
            assert (row.state, row.attempt, row.alone) == ("ready", 0, False)

    def test_while_the_slow_one_is_still_at_work(
        self,
        effects: Engine,
        worker_engine: Engine,
        run_batch: RunBatch,
        jobs: Any,
        get: Any,
        slow_down: Any,
    ) -> None:
        ids = jobs("slow b=leave c=leave")

        def slow(session: Session, payload: Note) -> None:
            slow_down(get(ids["slow"]).started_at)
            wait_for(lambda: {get(ids[note]).state for note in "bc"} == {"ready"})
            with effects.begin() as connection:
                assert len(ledger.claim(connection, [ids["b"]], "w@there/2")) == 1

        beat = Heartbeat(worker_engine, every=0.02)
        with capture_logs() as logs:
            counts = run_batch(by_payload(slow=slow), list(ids.values()), heartbeat=beat)
        assert counts == {"succeeded": 1}
        assert notes(effects) == ["slow"]
        assert [get(ids[note]).state for note in ("slow", "b", "c")] == ["succeeded", "running", "ready"]
        assert {get(ids[note]).attempt for note in "b"} == {1}
        assert "batch_closed" in {line["action"] for line in logs}
        assert "job_lost" not in {line["action"] for line in logs}


def clock(engine: Engine) -> dt.datetime:
    with engine.connect() as connection:
        now = connection.scalar(text("SELECT clock_timestamp()"))
    assert isinstance(now, dt.datetime)
    return now


class TestStopped:
    """The worker is told to end."""

    def stop(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(common, "_should_have_exited", [True])

    def check(self, effects: Engine, get: Any, ids: dict[str, UUID], left: list[str] | None = None) -> None:
        for id in ids.values():
            row = get(id)
            assert (row.state, row.attempt, row.error) == ("ready", 0, "its worker gave it back")
        assert notes(effects) == (left or [])

    def test_before_the_first(
        self, effects: Engine, run_batch: RunBatch, jobs: Any, get: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ids = jobs(PLAIN)
        self.stop(monkeypatch)
        assert run_batch(by_payload(), list(ids.values())) == {"ready": 3}
        self.check(effects, get, ids)

    @pytest.mark.parametrize("error", [SystemExit(-241), RuntimeError("a clean-up failed while unwinding")])
    def test_in_the_middle_of_one(
        self,
        effects: Engine,
        run_batch: RunBatch,
        jobs: Any,
        get: Any,
        monkeypatch: pytest.MonkeyPatch,
        error: BaseException,
    ) -> None:
        ids = jobs("a=leave stop b=leave", max_attempts=1)

        def stop(session: Session, payload: Note) -> None:
            self.stop(monkeypatch)
            raise error

        if isinstance(error, SystemExit):
            with pytest.raises(SystemExit):
                run_batch(by_payload(stop=stop), list(ids.values()))
        else:
            run_batch(by_payload(stop=stop), list(ids.values()))
        self.check(effects, get, ids)
        monkeypatch.undo()
        assert run_batch(by_payload(stop=nothing), list(ids.values())) == {"succeeded": 3}

    def test_between_two(
        self, effects: Engine, run_batch: RunBatch, jobs: Any, get: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What has been done is kept, the rest goes back."""
        ids = jobs("a=leave stop b=leave c=leave")
        counts = run_batch(by_payload(stop=lambda *_: self.stop(monkeypatch)), list(ids.values()))
        assert counts == {"succeeded": 2, "ready": 2}
        assert notes(effects) == ["a", "stop"]
        assert {get(ids[note]).attempt for note in "bc"} == {0}

    def test_while_they_run_one_by_one(
        self, effects: Engine, run_batch: RunBatch, jobs: Any, get: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ids = jobs("a=leave cut stop b=leave c=leave")

        def stop(session: Session, payload: Note) -> None:
            self.stop(monkeypatch)
            raise SystemExit(-241)

        with pytest.raises(SystemExit):
            run_batch(by_payload(cut=cut, stop=stop), list(ids.values()))
        assert get(ids.pop("a")).state == "succeeded"
        assert get(ids.pop("cut")).state == "scheduled"
        self.check(effects, get, ids, ["a"])


def test_one_that_is_cancelled_before_its_turn(
    effects: Engine, worker_engine: Engine, run_batch: RunBatch, jobs: Any, get: Any
) -> None:
    """The heartbeat says so, and it does not begin."""
    ids = jobs("a b=leave")

    def a(session: Session, payload: Note) -> None:
        with effects.begin() as connection:
            connection.execute(
                text("UPDATE jobs.jobs SET cancel_requested_at = now() WHERE id = :id"), {"id": ids["b"]}
            )
        wait_for(
            lambda: ("job_to_stop", str(ids["b"])) in {(line["action"], line.get("id")) for line in logs}
        )

    with capture_logs() as logs:
        counts = run_batch(
            by_payload(a=a), list(ids.values()), heartbeat=Heartbeat(worker_engine, every=0.02)
        )
    assert counts == {"succeeded": 1, "cancelled": 1}
    assert get(ids["b"]).error == f"job {ids['b']} was cancelled while it ran"
    assert notes(effects) == ["a"]


def test_while_they_wait_for_their_turn_one_by_one_they_stay_alive(
    effects: Engine, worker_engine: Engine, run_batch: RunBatch, jobs: Any, get: Any
) -> None:
    ids = jobs("cut slow b=leave")
    rescued: list[UUID] = []

    def slow(session: Session, payload: Note) -> None:
        if not any(line["action"] == "batch_broken" for line in logs):
            return
        with effects.begin() as connection:
            connection.execute(text("UPDATE jobs.jobs SET heartbeat_at = now() - interval '1 hour'"))
        wait_for(lambda: all(fresh(get(id)) for id in (ids["slow"], ids["b"])))
        with effects.begin() as connection:
            rescued.extend(job.id for job in rows.rescue_running(connection, outbox.PATIENCE))

    def fresh(row: Any) -> bool:
        return bool(clock(effects) - row.heartbeat_at < dt.timedelta(minutes=1))

    with capture_logs() as logs:
        run_batch(
            by_payload(cut=cut, slow=slow), list(ids.values()), heartbeat=Heartbeat(worker_engine, every=0.02)
        )
    assert rescued == []
    assert sorted(notes(effects)) == ["b", "slow"]

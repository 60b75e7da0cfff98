"""Many jobs from one message: one transaction, and still each job for itself."""

from __future__ import annotations

import datetime as dt
import threading
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from typing import Any
from uuid import uuid4

import pytest
from celery.exceptions import SoftTimeLimitExceeded
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session
from structlog.testing import capture_logs

from kitaab_jobs.errors import Cancelled, Permanent, Snooze
from kitaab_jobs.runtime import batch, ledger
from kitaab_jobs.runtime.context import Context
from tests.runtime.batches import PLAIN, Add, RunBatch, cut
from tests.runtime.doing import SMALL, Done, Note, by_payload, leave, notes


def fail(error: BaseException) -> Callable[[Session, Note], None]:
    def failing(session: Session, payload: Note) -> None:
        raise error

    return failing


class TestTogether:
    def test_all_succeed_in_one_commit(
        self, effects: Engine, run_batch: RunBatch, jobs: Any, get: Any
    ) -> None:
        ids = jobs(PLAIN)
        seen: list[tuple[str, list[str]]] = []

        def look(session: Session, payload: Note) -> None:
            seen.append((get(ids[payload.note]).state, notes(effects)))

        ids |= jobs("d=look")
        with capture_logs() as logs:
            assert run_batch(by_payload(look=look), list(ids.values())) == {"succeeded": 4}
        assert seen == [("running", [])], "the effects of those before are not there yet"
        assert notes(effects) == ["a", "b", "c", "d"]
        assert [line["action"] for line in logs] == ["job_succeeded"] * 4
        found = [get(id) for id in ids.values()]
        assert {(row.state, row.attempt, row.in_batch, row.worker) for row in found} == {
            ("succeeded", 1, True, "w@here/1")
        }
        assert all(row.result == {"done": 1} for row in found)
        with effects.connect() as connection:
            statement = text("SELECT count(DISTINCT xmin::text) FROM jobs.jobs")
            assert connection.scalar(statement) == 1

    def test_each_has_times_of_its_own(self, run_batch: RunBatch, jobs: Any, get: Any) -> None:
        ids = jobs(PLAIN)
        run_batch(by_payload(), list(ids.values()))
        times = [(row.started_at, row.finished_at) for row in map(get, ids.values())]
        assert all(start <= end for start, end in times)
        assert all(before[1] <= after[0] for before, after in pairwise(times))

    def test_each_has_a_context_of_its_own(self, run_batch: RunBatch, jobs: Any, get: Any) -> None:
        ids = jobs(PLAIN)

        def counting(session: Session, now: dt.datetime, payload: Note, context: Context) -> Done:
            assert context.id == ids[payload.note]
            context.progress(ord(payload.note), 200)
            return Done()

        run_batch(counting, list(ids.values()), wants_context=True)
        assert [get(id).progress_done for id in ids.values()] == [97, 98, 99]

    def test_how_far_one_was_that_failed(self, run_batch: RunBatch, jobs: Any, get: Any) -> None:
        ids = jobs("a b")

        def half_way(session: Session, now: dt.datetime, payload: Note, context: Context) -> Done:
            context.progress(50, 100)
            if payload.note == "a":
                raise Permanent("not further")
            return Done()

        assert run_batch(half_way, list(ids.values()), wants_context=True) == {"dead": 1, "succeeded": 1}
        assert [(get(id).progress_done, get(id).progress_total) for id in ids.values()] == [(50, 100)] * 2

    def test_what_somebody_else_has_is_left_out(
        self, effects: Engine, run_batch: RunBatch, jobs: Any, get: Any, add: Add
    ) -> None:
        ids = jobs(PLAIN)
        others = {
            state: add(state, name=SMALL.name) for state in ("running", "succeeded", "dead", "cancelled")
        }
        before = {id: get(id) for id in others.values()}
        everything = [*others.values(), *ids.values(), uuid4()]
        assert run_batch(by_payload(), everything) == {"succeeded": 3}
        assert run_batch(by_payload(), everything) == {}
        assert {id: get(id) for id in others.values()} == before
        assert notes(effects) == ["a", "b", "c"]

    def test_two_with_the_same_message(self, effects: Engine, run_batch: RunBatch, jobs: Any) -> None:
        ids = jobs(" ".join(f"n{n}=leave" for n in range(30)))
        threads = [
            threading.Thread(target=run_batch, args=(by_payload(), list(ids.values())[::turn]))
            for turn in (1, -1, 1)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert Counter(notes(effects)) == Counter(ids.keys())


class TestOneFails:
    # what it raises; then: state, attempt
    @pytest.mark.parametrize(
        ("error", "wanted"),
        [
            (RuntimeError("it broke"), ("scheduled", 1, "RuntimeError: it broke")),
            (Permanent("never"), ("dead", 1, "never")),
            (Snooze(60, "not yet"), ("scheduled", 0, "not yet")),
            (Cancelled("stopped"), ("cancelled", 1, "stopped")),
            (SoftTimeLimitExceeded(), ("scheduled", 1, "the job ran longer than its time limit")),
            # In a process of its own it would have ended that; here it must not take the others along.
            (SystemExit(3), ("scheduled", 1, "SystemExit: 3")),
        ],
    )
    def test_the_rest_commit_and_it_has_its_own_error(
        self,
        effects: Engine,
        run_batch: RunBatch,
        jobs: Any,
        get: Any,
        error: BaseException,
        wanted: tuple[str, int, str],
    ) -> None:
        ids = jobs("a=leave bad b=leave")
        with capture_logs() as logs:
            counts = run_batch(by_payload(bad=fail(error)), list(ids.values()))
        assert counts == {"succeeded": 2, wanted[0]: 1}
        row = get(ids["bad"])
        assert (row.state, row.attempt, row.error) == wanted
        assert notes(effects) == ["a", "b"]
        assert {get(ids[note]).state for note in "ab"} == {"succeeded"}
        assert [line["action"] for line in logs].count("job_failed") == 1
        assert "batch_broken" not in {line["action"] for line in logs}

    def test_in_a_statement(self, effects: Engine, run_batch: RunBatch, jobs: Any, get: Any) -> None:
        """PostgreSQL aborts the transaction then: the savepoint saves it."""
        ids = jobs("a=leave bad b=leave")

        def divide(session: Session, payload: Note) -> None:
            session.execute(text("SELECT 1 / 0"))

        assert run_batch(by_payload(bad=divide), list(ids.values())) == {"succeeded": 2, "dead": 1}
        assert get(ids["bad"]).error == "DivisionByZero: division by zero"
        assert notes(effects) == ["a", "b"]

    @pytest.mark.parametrize("end", ["commit", "rollback"])
    def test_one_that_would_end_the_transaction(
        self, effects: Engine, run_batch: RunBatch, jobs: Any, get: Any, end: str
    ) -> None:
        """Had it committed, those before it would be done twice."""
        ids = jobs("a=leave bad b=leave cut")
        counts = run_batch(
            by_payload(bad=lambda session, _: getattr(session, end)(), cut=cut), list(ids.values())
        )
        assert counts == {"succeeded": 2, "dead": 1, "scheduled": 1}
        assert get(ids["bad"]).error.startswith("a job does not ")
        assert notes(effects) == ["a", "b"]

    def test_a_payload_that_does_not_fit(self, run_batch: RunBatch, jobs: Any, get: Any, add: Add) -> None:
        ids = jobs(PLAIN)
        wrong = add(name=SMALL.name, args={"ntoe": "x"})
        assert run_batch(by_payload(), [wrong, *ids.values()]) == {"succeeded": 3, "dead": 1}
        assert "ntoe: " in get(wrong).error

    def test_the_last_attempt(self, run_batch: RunBatch, jobs: Any, get: Any) -> None:
        ids = jobs("bad other=bad", attempt=2)
        assert run_batch(by_payload(bad=fail(RuntimeError("it broke"))), list(ids.values())) == {"dead": 2}
        assert {get(id).attempt for id in ids.values()} == {3}


class TestStretch:
    """A few jobs share a savepoint: those that shared it with one that fails run again, and nobody else does."""

    def runs(self, run_batch: RunBatch, ids: dict[str, Any], **options: Any) -> Counter[str]:
        ran: Counter[str] = Counter()

        def function(session: Session, now: dt.datetime, payload: Note, *context: Context) -> Done:
            ran[payload.note] += 1
            leave(session, payload.note)
            if payload.do == "bad":
                raise RuntimeError("it broke")
            return Done()

        run_batch(function, list(ids.values()), **options)
        return ran

    @pytest.mark.parametrize("bad", [0, 1, batch.STRETCH - 1, batch.STRETCH, batch.STRETCH + 2])
    def test_only_those_beside_it_run_again(
        self, effects: Engine, run_batch: RunBatch, jobs: Any, get: Any, bad: int
    ) -> None:
        words = [f"n{place:02}=leave" for place in range(2 * batch.STRETCH + 3)]
        words[bad] = f"n{bad:02}=bad"
        ids = jobs(" ".join(words))
        ran = self.runs(run_batch, ids)
        beside = range(bad - bad % batch.STRETCH, bad)
        assert ran == {note: 2 if int(note[1:]) in beside else 1 for note in ids}
        assert sorted(notes(effects)) == sorted(note for note in ids if note != f"n{bad:02}")
        assert {note for note, id in ids.items() if get(id).state != "succeeded"} == {f"n{bad:02}"}

    def test_two_that_fail(self, effects: Engine, run_batch: RunBatch, jobs: Any, get: Any) -> None:
        ids = jobs("a=leave b=leave c=bad d=leave e=bad f=leave")
        assert self.runs(run_batch, ids) == {"a": 2, "b": 2, "c": 1, "d": 1, "e": 1, "f": 1}
        assert sorted(notes(effects)) == ["a", "b", "d", "f"]
        assert {get(ids[note]).error for note in "ce"} == {"RuntimeError: it broke"}

    def test_who_may_do_something_outside_runs_once(
        self, effects: Engine, run_batch: RunBatch, jobs: Any
    ) -> None:
        ids = jobs("a=leave b=leave bad c=leave")
        assert set(self.runs(run_batch, ids, wants_context=True).values()) == {1}
        assert notes(effects) == ["a", "b", "c"]


def roll_back(session: Session, payload: Note) -> None:
    session.connection().rollback()


def roll_back_and_fail(session: Session, payload: Note) -> None:
    session.connection().rollback()
    raise RuntimeError("it broke")


def lose_its_savepoint(session: Session, payload: Note) -> None:
    session.execute(text("ROLLBACK"))
    raise RuntimeError("it broke")


class TestBroken:
    """A job that breaks the transaction for all: they run one by one, and each effect is once."""

    @pytest.mark.parametrize("place", [0, 1, 3])
    @pytest.mark.parametrize("bad", [cut, roll_back, roll_back_and_fail, lose_its_savepoint])
    def test_the_others_have_their_effects_once(
        self, effects: Engine, run_batch: RunBatch, jobs: Any, get: Any, bad: Any, place: int
    ) -> None:
        words = PLAIN.split()
        words.insert(place, "bad")
        ids = jobs(" ".join(words))
        with capture_logs() as logs:
            counts = run_batch(by_payload(bad=bad), list(ids.values()))
        assert counts["succeeded"] == 3
        assert sum(counts.values()) == 4
        assert [note for note in notes(effects) if note != "bad"] == ["a", "b", "c"]
        row = get(ids["bad"])
        assert (row.state != "succeeded", row.attempt) == (True, 1)
        assert row.error
        assert {get(ids[note]).attempt for note in "abc"} == {1}
        assert [line["action"] for line in logs].count("batch_broken") == 1

    @pytest.mark.parametrize("value", [dt.date(2026, 1, 1), float("nan"), "a\0b"])
    def test_a_result_that_cannot_be_kept(
        self, effects: Engine, run_batch: RunBatch, jobs: Any, get: Any, value: Any
    ) -> None:
        ids = jobs("a=leave bad=leave b=leave")

        def function(session: Session, now: dt.datetime, payload: Note) -> Done:
            leave(session, payload.note)
            return Done(value if payload.note == "bad" else 1)

        counts = run_batch(function, list(ids.values()))
        assert counts["succeeded"] == 2
        assert get(ids["bad"]).state in ("scheduled", "dead")
        assert notes(effects) == ["a", "b"]

    def test_one_was_taken_away_meanwhile(
        self, effects: Engine, run_batch: RunBatch, jobs: Any, get: Any
    ) -> None:
        ids = jobs("a=leave bad b=leave")

        def lose(session: Session, payload: Note) -> None:
            with effects.begin() as connection:
                claim = ledger.Claim(ids["a"], SMALL.name, {}, 1, 3, get(ids["a"]).started_at, None, None)
                ledger.settle(connection, ledger.released([claim]))
                assert ledger.claim(connection, [ids["a"]], "w@there/2")

        once: list[str] = []

        def bad(session: Session, payload: Note) -> None:
            if not once:
                once.append(payload.note)
                lose(session, payload)

        assert run_batch(by_payload(bad=bad), list(ids.values()))["succeeded"] == 2
        assert notes(effects) == ["bad", "b"]
        row = get(ids["a"])
        assert (row.state, row.worker) == ("running", "w@there/2")

    def test_one_was_cancelled_meanwhile(
        self, effects: Engine, run_batch: RunBatch, jobs: Any, get: Any
    ) -> None:
        ids = jobs("a=leave bad b=leave")

        def cancel(session: Session, payload: Note) -> None:
            with effects.begin() as connection:
                connection.execute(
                    text(
                        "UPDATE jobs.jobs SET state = 'cancelled', finished_at = now() WHERE id = :id"
                        " AND state = 'running'"
                    ),
                    {"id": ids["a"]},
                )

        run_batch(by_payload(bad=cancel), list(ids.values()))
        assert notes(effects) == ["bad", "b"]
        assert get(ids["a"]).state == "cancelled"

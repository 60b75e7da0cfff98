"""How claims end: many in one statement, and only those that are still this worker's."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace

import pytest
from sqlalchemy import Connection, text

from kitaab_jobs import contract
from kitaab_jobs.runtime import ledger, outbox
from kitaab_jobs.runtime.ledger import Settled
from kitaab_jobs.runtime.outcome import RELEASED, SUCCEEDED, Outcome
from tests.runtime import rows

AGAIN = Outcome("scheduled", wait=60, error="it broke")
SNOOZED = Outcome("scheduled", counts=False, wait=60, error="not yet")
DEAD = Outcome("dead", error="never")
CANCELLED = Outcome("cancelled", error="stopped")
OUTCOMES = {
    "success": SUCCEEDED,
    "again": AGAIN,
    "snoozed": SNOOZED,
    "dead": DEAD,
    "cancelled": CANCELLED,
    "released": RELEASED,
}


def test_many_outcomes_in_one_statement(connection: Connection) -> None:
    ids = {name: rows.add(connection, "running", attempt=3) for name in OUTCOMES}
    settled = [
        Settled(rows.claim_of(connection, ids[name]), outcome, {"done": 7} if outcome is SUCCEEDED else None)
        for name, outcome in OUTCOMES.items()
    ]
    assert ledger.settle(connection, settled) == {
        ids["success"]: "succeeded",
        ids["again"]: "scheduled",
        ids["snoozed"]: "scheduled",
        ids["dead"]: "dead",
        ids["cancelled"]: "cancelled",
        ids["released"]: "ready",
    }
    found = {name: rows.get(connection, id) for name, id in ids.items()}
    assert {name: row.attempt for name, row in found.items()} == {
        "success": 3, "again": 3, "snoozed": 2, "dead": 3, "cancelled": 3, "released": 2,
    }  # fmt: skip
    assert {name: row.error for name, row in found.items()} == {
        name: outcome.error for name, outcome in OUTCOMES.items()
    }
    assert {name for name, row in found.items() if row.result is not None} == {"success"}
    assert found["success"].result == {"done": 7}
    assert {name for name, row in found.items() if row.finished_at} == {"success", "dead", "cancelled"}


@pytest.mark.parametrize("name", list(OUTCOMES))
def test_what_an_operator_cancelled_is_not_tried_again_but_a_success_stays(
    connection: Connection, name: str
) -> None:
    id = rows.add(connection, "running", to_cancel=True)
    wanted = "succeeded" if name == "success" else "cancelled"
    settled = Settled(rows.claim_of(connection, id), OUTCOMES[name])
    assert ledger.settle(connection, [settled]) == {id: wanted}
    row = rows.get(connection, id)
    assert (row.state, row.finished_at is not None) == (wanted, True)


@pytest.mark.parametrize("wait", [0.0, 0.25, 60.0, 5e6])
def test_waits_for_so_long(connection: Connection, wait: float) -> None:
    id = rows.add(connection, "running")
    before = clock(connection)
    ledger.settle(connection, [Settled(rows.claim_of(connection, id), replace(AGAIN, wait=wait))])
    after = clock(connection)
    waits = dt.timedelta(seconds=wait)
    assert before + waits <= rows.get(connection, id).run_at <= after + waits


def clock(connection: Connection) -> dt.datetime:
    now = connection.scalar(text("SELECT clock_timestamp()"))
    assert isinstance(now, dt.datetime)
    return now


def test_where_others_ran_beside_it_its_own_times_are_kept(connection: Connection) -> None:
    id, other = rows.add(connection, "running", age=10), rows.add(connection, "running", age=10)
    claim = rows.claim_of(connection, id)
    ledger.settle(
        connection,
        [
            Settled(claim, SUCCEEDED, {}, started=1.5, ended=2.25, progress=(3, 4)),
            Settled(rows.claim_of(connection, other), SUCCEEDED, {}),
        ],
    )
    row, whole = rows.get(connection, id), rows.get(connection, other)
    assert row.started_at == claim.started_at + dt.timedelta(seconds=1.5)
    assert row.finished_at == claim.started_at + dt.timedelta(seconds=2.25)
    assert (row.progress_done, row.progress_total) == (3, 4)
    assert whole.finished_at - whole.started_at >= dt.timedelta(seconds=10)
    assert (whole.progress_done, whole.progress_total) == (None, None)


class TestAnothersClaim:
    """What somebody says who has lost a job counts no more."""

    @pytest.mark.parametrize("attempt", [0, 1, 3])
    @pytest.mark.parametrize("name", list(OUTCOMES))
    def test_of_another_attempt(self, connection: Connection, attempt: int, name: str) -> None:
        id = rows.add(connection, "running", attempt=2)
        was = rows.get(connection, id)
        other = rows.claim_of(connection, id, attempt=attempt)
        assert ledger.settle(connection, [Settled(other, OUTCOMES[name])]) == {}
        assert ledger.beat(connection, [ledger.Pulse(other)]) == {}
        assert rows.get(connection, id) == was

    def test_of_an_attempt_that_was_given_back_and_begun_anew(self, connection: Connection) -> None:
        """It has the same number again."""
        id = rows.add(connection, "published")
        [first] = ledger.claim(connection, [id], "w@here/1")
        first = replace(first, started_at=first.started_at - dt.timedelta(seconds=40))
        connection.execute(
            text("UPDATE jobs.jobs SET started_at = :at WHERE id = :id"), {"at": first.started_at, "id": id}
        )
        assert ledger.settle(connection, ledger.released([first])) == {id: "ready"}
        [second] = ledger.claim(connection, [id], "w@there/2")
        assert second.attempt == first.attempt
        assert ledger.settle(connection, [Settled(first, DEAD)]) == {}
        assert ledger.beat(connection, [ledger.Pulse(first)]) == {}
        assert ledger.beat(connection, [ledger.Pulse(second)]) == {id: False}
        assert ledger.settle(connection, [Settled(second, SUCCEEDED, {})]) == {id: "succeeded"}

    def test_the_others_in_the_statement_are_written(self, connection: Connection) -> None:
        lost = rows.add(connection, "running", attempt=2)
        ours = rows.add(connection, "running")
        settled = [
            Settled(rows.claim_of(connection, lost, attempt=1), SUCCEEDED, {}),
            Settled(rows.claim_of(connection, ours), SUCCEEDED, {}),
        ]
        assert ledger.settle(connection, settled) == {ours: "succeeded"}
        assert rows.state(connection, lost) == "running"


@pytest.mark.parametrize("message", ["a\0b", "half \ud800 pair", "x" * 50_000])
def test_takes_any_message(connection: Connection, message: str) -> None:
    id = rows.add(connection, "running")
    ledger.settle(connection, [Settled(rows.claim_of(connection, id), Outcome("dead", error=message))])
    assert 0 < len(rows.get(connection, id).error) <= 10_000


@pytest.mark.parametrize("result", [{"at": dt.date(2026, 1, 1)}, {"share": float("nan")}])
def test_a_result_that_is_no_json_is_an_error(connection: Connection, result: dict[str, object]) -> None:
    id = rows.add(connection, "running")
    with pytest.raises((TypeError, ValueError), match="JSON"):
        ledger.send_finish(connection, rows.claim_of(connection, id), result)


def test_what_is_to_wait_is_not_published_before(connection: Connection) -> None:
    id = rows.add(connection, "running")
    ledger.settle(connection, [Settled(rows.claim_of(connection, id), AGAIN)])
    assert outbox.promote(connection, 10) == 0
    taken = outbox.take(connection, {"default": 10}, contract.QUEUES.values(), limited_kinds=True)
    assert taken == []
    assert rows.state(connection, id) == "scheduled"


def test_release_gives_the_attempt_back(connection: Connection) -> None:
    id = rows.add(connection, "running", attempt=5, max_attempts=5)
    assert ledger.settle(connection, ledger.released([rows.claim_of(connection, id)])) == {id: "ready"}
    row = rows.get(connection, id)
    assert (row.attempt, row.error) == (4, "its worker gave it back")
    [claim] = ledger.claim(connection, [id], "w")
    assert claim.attempt == 5

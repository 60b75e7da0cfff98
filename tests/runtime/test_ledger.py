"""The ledger: which operation makes what of which state. The table is complete: every cell is tested."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Connection, Engine, text

from kitaab_jobs import contract
from kitaab_jobs.runtime import arrival, ledger, outbox
from kitaab_jobs.runtime.outcome import Outcome
from tests.runtime import rows

Operation = Callable[[Connection, UUID], object]
LAST = {"attempt": 5, "max_attempts": 5}


def settling(outcome: Outcome) -> Operation:
    def settle(connection: Connection, id: UUID) -> object:
        return ledger.settle(connection, [ledger.Settled(rows.claim_of(connection, id), outcome)])

    return settle


def _finish(connection: Connection, id: UUID) -> object:
    return rows.finish(connection, rows.claim_of(connection, id), {"done": 1})


def _publish(connection: Connection, id: UUID) -> object:
    """A pass of the relay."""
    outbox.promote(connection, 1000)
    outbox.release_groups(connection, 1000)
    return outbox.take(connection, {"default": 1000}, contract.QUEUES.values(), limited_kinds=True)


def _claim(connection: Connection, id: UUID) -> object:
    return ledger.claim(connection, [id], "w@there/2")


def _claim_many(connection: Connection, id: UUID) -> object:
    return ledger.claim(connection, [uuid4(), id], "w@there/2")


def _release(connection: Connection, id: UUID) -> object:
    return ledger.settle(connection, ledger.released([rows.claim_of(connection, id)]))


def _beat(connection: Connection, id: UUID) -> object:
    return ledger.beat(connection, [ledger.Pulse(rows.claim_of(connection, id))])


def _rescue_running(connection: Connection, id: UUID) -> object:
    return rows.rescue_running(connection, outbox.PATIENCE)


def _rescue_published(connection: Connection, id: UUID) -> object:
    return outbox.rescue_published(connection, ["default"], outbox.PATIENCE)


def _postpone(connection: Connection, id: UUID) -> None:
    arrival.postpone(connection, id, "sample.new", {}, "default", "nobody knows it")


def _record(connection: Connection, id: UUID) -> None:
    arrival.record(connection, id, contract.PROGRESS_REFRESH, {})


def _refuse(connection: Connection, id: UUID) -> None:
    arrival.refuse(connection, id, contract.PROGRESS_REFRESH, "it cannot be run")


# operation, and the new state from scheduled (and due), ready, published, running, succeeded, dead,
# cancelled. A dot stands for: the row is not touched. Heartbeats and publications are an hour old.
TABLE: list[tuple[str, Operation, str]] = [
    ("publish", _publish, "published published . . . . ."),
    ("claim", _claim, ". running running . . . ."),
    ("claim in a batch", _claim_many, ". running running . . . ."),
    ("start", rows.start, ". running running . . . ."),
    ("finish", _finish, ". . . succeeded . . ."),
    ("try again", settling(Outcome("scheduled", wait=9, error="it broke")), ". . . scheduled . . ."),
    ("give up", settling(Outcome("dead", error="never")), ". . . dead . . ."),
    ("stop", settling(Outcome("cancelled", error="stopped")), ". . . cancelled . . ."),
    ("release", _release, ". . . ready . . ."),
    ("beat", _beat, ". . . running . . ."),
    ("rescue running", _rescue_running, ". . . ready . . ."),
    ("rescue published", _rescue_published, ". . ready . . . ."),
    ("postpone", _postpone, ". scheduled scheduled . . . ."),
    ("record", _record, ". . . . . . ."),
    ("refuse", _refuse, ". . . . . . ."),
]
CELLS = [
    pytest.param(operation, before, after, id=f"{name}: {before}")
    for name, operation, line in TABLE
    for before, after in zip(rows.STATES, line.split(), strict=True)
]


@pytest.mark.parametrize(("operation", "before", "after"), CELLS)
def test_cell(connection: Connection, operation: Operation, before: str, after: str) -> None:
    id = rows.add(connection, before, age=3600)
    was = rows.get(connection, id)
    operation(connection, id)
    now = rows.get(connection, id)
    if after == ".":
        assert now == was
    else:
        assert now != was
        assert now.state == after
        assert (now.finished_at is not None) == (after in rows.ENDED)


@pytest.mark.parametrize("operation", [_publish, _rescue_published, _rescue_running, _beat])
def test_publishing_costs_no_attempt(connection: Connection, operation: Operation) -> None:
    for before in ("ready", "published", "running"):
        id = rows.add(connection, before, age=3600, attempt=2)
        operation(connection, id)
        assert rows.get(connection, id).attempt == 2


class TestClaim:
    def test_says_who_runs_it_since_when_and_how_often(self, connection: Connection) -> None:
        id = rows.add(connection, "published", attempt=1, args={"limit": 5}, schedule="nightly")
        [claim] = ledger.claim(connection, [id], "w@there/2")
        assert (claim.id, claim.name, claim.args) == (id, "progress.refresh", {"limit": 5})
        assert (claim.attempt, claim.max_attempts, claim.schedule) == (2, 5, "nightly")
        row = rows.get(connection, id)
        assert (row.worker, row.attempt, row.error, row.in_batch) == ("w@there/2", 2, None, False)
        assert row.heartbeat_at == row.started_at == claim.started_at

    def test_forgets_what_the_last_attempt_said(self, connection: Connection) -> None:
        id = rows.add(connection, "published", attempt=1)
        connection.execute(
            text("UPDATE jobs.jobs SET error = 'it broke', progress_done = 3, progress_total = 9")
        )
        ledger.claim(connection, [id], "w")
        row = rows.get(connection, id)
        assert (row.error, row.progress_done, row.progress_total) == (None, None, None)

    def test_no_such_job(self, connection: Connection) -> None:
        assert ledger.claim(connection, [uuid4()], "w") == []

    def test_many_in_the_order_of_the_message(self, connection: Connection) -> None:
        ids = [rows.add(connection, "published", attempt=n) for n in range(6)]
        asked = [ids[4], ids[1], uuid4(), ids[5], ids[0]]
        claims = ledger.claim(connection, asked, "w")
        assert [claim.id for claim in claims] == [ids[4], ids[1], ids[5], ids[0]]
        assert [claim.attempt for claim in claims] == [5, 2, 6, 1]
        assert all(rows.get(connection, claim.id).in_batch for claim in claims)
        assert {rows.state(connection, id) for id in (ids[2], ids[3])} == {"published"}

    def test_what_is_to_be_alone_is_left_out_of_a_batch(self, connection: Connection) -> None:
        """A message from before its last batch died may still come."""
        alone, other = rows.add(connection, "published", alone=True), rows.add(connection, "published")
        assert [claim.id for claim in ledger.claim(connection, [alone, other], "w")] == [other]
        assert [claim.id for claim in ledger.claim(connection, [alone], "w")] == [alone]
        assert not rows.get(connection, alone).in_batch

    def test_what_is_counted_starts_only_when_the_relay_has_counted_it(
        self, connection: Connection, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        by_kind = {
            each: rows.add(connection, each, limit_key="sample.few") for each in ("ready", "published")
        }
        by_queue = {each: rows.add(connection, each, queue="narrow") for each in ("ready", "published")}
        monkeypatch.setattr(ledger, "_LIMITED_QUEUES", ["narrow"])
        ids = [*by_kind.values(), *by_queue.values()]
        claimed = {claim.id for claim in ledger.claim(connection, ids, "w")}
        assert claimed == {by_kind["published"], by_queue["published"]}

    def test_of_many_at_once_one_gets_it(self, database: Engine) -> None:
        with database.begin() as connection:
            ids = [rows.add(connection, "published") for _ in range(20)]
        barrier = threading.Barrier(8)
        won: list[UUID] = []

        def take(worker: int) -> None:
            with database.connect() as connection:
                for id in ids:
                    barrier.wait()
                    won.extend(claim.id for claim in ledger.claim(connection, [id], f"w{worker}"))
                    connection.commit()

        at_once(*[lambda n=n: take(n) for n in range(8)])
        assert Counter(won) == Counter(ids)
        with database.connect() as connection:
            assert {rows.get(connection, id).attempt for id in ids} == {1}

    def test_batches_that_overlap_do_not_deadlock(self, database: Engine) -> None:
        with database.begin() as connection:
            ids = [rows.add(connection, "published") for _ in range(60)]
        barrier = threading.Barrier(4)
        won: list[UUID] = []

        def take(turned: list[UUID]) -> None:
            with database.connect() as connection:
                for start in range(0, len(ids), 20):
                    barrier.wait()
                    won.extend(
                        claim.id for claim in ledger.claim(connection, turned[start : start + 20], "w")
                    )
                    connection.commit()

        at_once(*[lambda n=n: take(ids if n % 2 else ids[::-1]) for n in range(4)])
        assert Counter(won) == Counter(ids)


def at_once(*calls: Callable[[], object]) -> None:
    threads = [threading.Thread(target=call) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


class TestBeat:
    def test_one_statement_for_many(self, connection: Connection) -> None:
        ids = [rows.add(connection, "running", age=100) for _ in range(3)]
        to_stop = rows.add(connection, "running", age=100, to_cancel=True)
        lost = rows.add(connection, "running", age=100, attempt=2)
        pulses = [
            ledger.Pulse(rows.claim_of(connection, ids[0]), 5, 10),
            ledger.Pulse(rows.claim_of(connection, ids[1]), 7),
            ledger.Pulse(rows.claim_of(connection, ids[2])),
            ledger.Pulse(rows.claim_of(connection, to_stop)),
            ledger.Pulse(rows.claim_of(connection, lost, attempt=1), 1, 1),
        ]
        assert ledger.beat(connection, pulses) == dict.fromkeys(ids, False) | {to_stop: True}
        found = [rows.get(connection, id) for id in ids]
        assert [(row.progress_done, row.progress_total) for row in found] == [
            (5, 10),
            (7, None),
            (None, None),
        ]
        assert len({row.heartbeat_at for row in found}) == 1
        assert found[0].heartbeat_at > found[0].started_at
        left = rows.get(connection, lost)
        assert (left.progress_done, left.heartbeat_at) == (None, left.started_at)

    def test_progress_that_was_not_said_again_stays(self, connection: Connection) -> None:
        id = rows.add(connection, "running")
        claim = rows.claim_of(connection, id)
        ledger.beat(connection, [ledger.Pulse(claim, 5, 10)])
        ledger.beat(connection, [ledger.Pulse(claim, 6)])
        row = rows.get(connection, id)
        assert (row.progress_done, row.progress_total) == (6, 10)


def test_ended(connection: Connection) -> None:
    id = rows.add(connection, "running")
    assert ledger.ended(connection, id) == ("running", None, None)
    rows.finish(connection, rows.claim_of(connection, id), {"done": 1})
    assert ledger.ended(connection, id) == ("succeeded", {"done": 1}, None)
    assert ledger.ended(connection, uuid4()) is None


def test_touch_is_one_row_a_process(connection: Connection) -> None:
    for version in ("1", "2"):
        ledger.touch(connection, "worker@here/1", "worker", version)
    found = connection.execute(text("SELECT kind, version FROM jobs.processes")).all()
    assert [tuple(row) for row in found] == [("worker", "2")]

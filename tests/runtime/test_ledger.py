"""The ledger: which operation makes what of which state. The table is complete: every cell is tested."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.orm import Session

from kitaab_jobs import contract
from kitaab_jobs.runtime import ledger
from tests.runtime import rows

Operation = Callable[[Connection, UUID], object]
LAST = {"attempt": 5, "max_attempts": 5}


def _finish(connection: Connection, id: UUID) -> object:
    return ledger.finish(Session(connection), rows.claim_of(connection, id), {"done": 1})


def _fail(connection: Connection, id: UUID) -> object:
    return ledger.fail(connection, rows.claim_of(connection, id), "it broke", permanent=False)


def _refuse(connection: Connection, id: UUID) -> object:
    return ledger.fail(connection, rows.claim_of(connection, id), "never", permanent=True)


def _publish(connection: Connection, id: UUID) -> object:
    return ledger.take_ready(connection, 1000)


def _claim(connection: Connection, id: UUID) -> object:
    return ledger.claim(connection, id, "w@there/2")


def _release(connection: Connection, id: UUID) -> object:
    return ledger.release(connection, rows.claim_of(connection, id), "stopped")


def _beat(connection: Connection, id: UUID) -> object:
    return ledger.beat(connection, rows.claim_of(connection, id))


def _rescue_running(connection: Connection, id: UUID) -> object:
    return ledger.rescue_running(connection, ledger.PATIENCE)


def _rescue_published(connection: Connection, id: UUID) -> object:
    return ledger.rescue_published(connection, ["default"], ledger.PATIENCE)


def _postpone(connection: Connection, id: UUID) -> None:
    ledger.postpone(connection, id, "no such queue")


def _record(connection: Connection, id: UUID) -> None:
    ledger.record(connection, id, contract.PROGRESS_REFRESH, {})


# operation, and the new state from scheduled (and due), ready, published, running, succeeded, dead,
# cancelled. A dot stands for: the row is not touched. Heartbeats and publications are an hour old.
TABLE: list[tuple[str, Operation, str]] = [
    ("publish", _publish, "published published . . . . ."),
    ("claim", _claim, ". running running . . . ."),
    ("finish", _finish, ". . . succeeded . . ."),
    ("fail", _fail, ". . . scheduled . . ."),
    ("refuse", _refuse, ". . . dead . . ."),
    ("release", _release, ". . . ready . . ."),
    ("beat", _beat, ". . . running . . ."),
    ("rescue running", _rescue_running, ". . . ready . . ."),
    ("rescue published", _rescue_published, ". . ready . . . ."),
    ("postpone", _postpone, ". . scheduled . . . ."),
    ("record", _record, ". . . . . . ."),
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


@pytest.mark.parametrize("operation", [_fail, _refuse, _rescue_running])
def test_last_attempt_ends_dead(connection: Connection, operation: Operation) -> None:
    id = rows.add(connection, "running", age=3600, **LAST)
    operation(connection, id)
    row = rows.get(connection, id)
    assert row.state == "dead"
    assert row.finished_at is not None
    assert row.error


@pytest.mark.parametrize("operation", [_publish, _rescue_published, _rescue_running, _beat])
def test_publishing_costs_no_attempt(connection: Connection, operation: Operation) -> None:
    for before in ("ready", "published", "running"):
        id = rows.add(connection, before, age=3600, attempt=2)
        operation(connection, id)
        assert rows.get(connection, id).attempt == 2


class TestClaim:
    def test_says_who_runs_it_since_when_and_how_often(self, connection: Connection) -> None:
        id = rows.add(connection, "published", attempt=1, args={"limit": 5}, schedule="nightly")
        claim = ledger.claim(connection, id, "w@there/2")
        assert claim is not None
        assert (claim.id, claim.name, claim.args) == (id, "progress.refresh", {"limit": 5})
        assert (claim.attempt, claim.max_attempts, claim.schedule) == (2, 5, "nightly")
        row = rows.get(connection, id)
        assert (row.worker, row.attempt, row.error) == ("w@there/2", 2, None)
        assert row.heartbeat_at == row.started_at == claim.started_at

    def test_no_such_job(self, connection: Connection) -> None:
        assert ledger.claim(connection, uuid4(), "w") is None

    def test_of_many_at_once_one_gets_it(self, database: Engine) -> None:
        with database.begin() as connection:
            ids = [rows.add(connection, "published") for _ in range(20)]
        barrier = threading.Barrier(8)
        won: list[UUID] = []

        def take(worker: int) -> None:
            with database.connect() as connection:
                for id in ids:
                    barrier.wait()
                    if ledger.claim(connection, id, f"w{worker}"):
                        won.append(id)
                    connection.commit()

        threads = [threading.Thread(target=take, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert Counter(won) == Counter(ids)
        with database.connect() as connection:
            assert {rows.get(connection, id).attempt for id in ids} == {1}


class TestAttempt:
    """What an earlier attempt has to say about a job counts no more."""

    @pytest.mark.parametrize("earlier", [0, 1, 3])
    def test_finish_fail_release_and_beat_of_another_attempt(
        self, connection: Connection, earlier: int
    ) -> None:
        id = rows.add(connection, "running", attempt=2)
        was = rows.get(connection, id)
        other = rows.claim_of(connection, id, attempt=earlier)
        assert not ledger.finish(Session(connection), other, {})
        assert ledger.fail(connection, other, "late", permanent=False) is None
        assert ledger.fail(connection, other, "late", permanent=True) is None
        assert ledger.release(connection, other, "late") is None
        assert not ledger.beat(connection, other)
        assert rows.get(connection, id) == was

    def test_the_claims_own(self, connection: Connection) -> None:
        id = rows.add(connection, "running", attempt=2)
        claim = rows.claim_of(connection, id)
        assert ledger.beat(connection, claim)
        assert ledger.finish(Session(connection), claim, {"done": 3})
        assert rows.get(connection, id).result == {"done": 3}


class TestFail:
    @pytest.mark.parametrize(
        ("attempt", "least", "most"),
        [(1, 1, 2), (2, 2, 4), (3, 4, 8), (5, 16, 32), (12, 1800, 3600), (30, 1800, 3600)],
    )
    def test_waits_longer_each_time(
        self, connection: Connection, attempt: int, least: float, most: float
    ) -> None:
        waits = set()
        for _ in range(20):
            id = rows.add(connection, "running", attempt=attempt, max_attempts=99)
            claim = rows.claim_of(connection, id)
            assert ledger.fail(connection, claim, "it broke", permanent=False) == "scheduled"
            waited = connection.scalar(
                text("SELECT extract(epoch FROM run_at - clock_timestamp()) FROM jobs.jobs WHERE id = :id"),
                {"id": id},
            )
            assert waited is not None
            waits.add(float(waited))
        assert least - 1 <= min(waits)
        assert max(waits) <= most
        assert max(waits) - min(waits) > (most - least) / 10, "jobs that failed together come back together"

    def test_is_not_published_before_its_time(self, connection: Connection) -> None:
        id = rows.add(connection, "running", attempt=3)
        ledger.fail(connection, rows.claim_of(connection, id), "it broke", permanent=False)
        assert id not in {row.id for row in ledger.take_ready(connection, 1000)}

    @pytest.mark.parametrize("message", ["a\0b", "half \ud800 pair", "x" * 50_000])
    def test_takes_any_message(self, connection: Connection, message: str) -> None:
        id = rows.add(connection, "running")
        assert ledger.fail(connection, rows.claim_of(connection, id), message, permanent=True) == "dead"
        assert 0 < len(rows.get(connection, id).error) <= 10_000


def test_release_gives_the_attempt_back(connection: Connection) -> None:
    id = rows.add(connection, "running", **LAST)
    assert ledger.release(connection, rows.claim_of(connection, id), "its worker stops") == "ready"
    row = rows.get(connection, id)
    assert (row.attempt, row.error) == (4, "its worker stops")
    claim = ledger.claim(connection, id, "w")
    assert claim is not None
    assert claim.attempt == 5


class TestPublish:
    def test_by_priority_then_age(self, connection: Connection) -> None:
        ids = {
            name: rows.add(connection, "ready", priority=priority, due=due)
            for name, priority, due in [
                ("old", 0, 900),
                ("older", 0, 1000),
                ("first", 9, 1),
                ("last", -1, 5000),
            ]
        }
        # Rows that lie elsewhere in the table, so that the order of the heap is another one.
        connection.execute(text("UPDATE jobs.jobs SET worker = 'moved' WHERE id = :id"), {"id": ids["first"]})
        taken = [row.id for row in ledger.take_ready(connection, 1000) if row.id in ids.values()]
        assert taken == [ids[name] for name in ("first", "older", "old", "last")]

    def test_many_in_order(self, connection: Connection) -> None:
        connection.execute(
            text(
                """
                INSERT INTO jobs.jobs (id, name, queue, state, max_attempts, priority)
                SELECT gen_random_uuid(), 'progress.refresh', 'default', 'ready', 5, n * 7919 % 1000
                FROM generate_series(1, 1000) AS n
                """
            )
        )
        connection.execute(text("ANALYZE jobs.jobs"))
        taken = ledger.take_ready(connection, 500)
        wanted = connection.scalars(
            text("SELECT id FROM jobs.jobs ORDER BY priority DESC, run_at, id LIMIT 500")
        ).all()
        assert [row.id for row in taken] == list(wanted)

    def test_not_before_run_at(self, connection: Connection) -> None:
        waits = rows.add(connection, "scheduled", due=-60)
        assert waits not in {row.id for row in ledger.take_ready(connection, 1000)}

    def test_takes_a_batch_at_most(self, connection: Connection) -> None:
        for _ in range(5):
            rows.add(connection, "ready")
        assert len(ledger.take_ready(connection, 3)) == 3


class TestRescue:
    """Each rule at both sides of its limit."""

    def test_a_heartbeat_that_is_only_late(self, connection: Connection) -> None:
        late, lost = rows.add(connection, "running", age=29), rows.add(connection, "running", age=31)
        rescued = ledger.rescue_running(connection, ledger.PATIENCE)
        assert [(id, state) for id, _, state in rescued] == [(lost, "ready")]
        assert rows.state(connection, late) == "running"
        assert "w@here/1 stopped while it ran this job (attempt 1 of 5)" in rows.get(connection, lost).error

    def test_a_beat_saves_it(self, connection: Connection) -> None:
        id = rows.add(connection, "running", age=100)
        assert ledger.beat(connection, rows.claim_of(connection, id))
        assert ledger.rescue_running(connection, ledger.PATIENCE) == []

    def test_a_message_in_an_empty_queue(self, connection: Connection) -> None:
        fresh = rows.add(connection, "published", age=29)
        assert ledger.queues_with_unstarted(connection, ledger.PATIENCE) == []
        lost = rows.add(connection, "published", age=31)
        assert ledger.queues_with_unstarted(connection, ledger.PATIENCE) == ["default"]
        assert [id for id, *_ in ledger.rescue_published(connection, ["default"], ledger.PATIENCE)] == [lost]
        assert rows.state(connection, fresh) == "published"

    def test_a_message_that_may_still_wait(self, connection: Connection) -> None:
        waits = rows.add(connection, "published", age=599)
        elsewhere = rows.add(connection, "published", age=599, queue="long")
        assert [id for id, *_ in ledger.rescue_published(connection, ["long"], ledger.PATIENCE)] == [
            elsewhere
        ]
        assert rows.state(connection, waits) == "published"

    def test_a_message_so_old_that_it_is_lost_for_sure(self, connection: Connection) -> None:
        id = rows.add(connection, "published", age=601)
        assert [found for found, *_ in ledger.rescue_published(connection, [], ledger.PATIENCE)] == [id]

    def test_patience_is_a_parameter(self, connection: Connection) -> None:
        rows.add(connection, "running", age=3)
        rows.add(connection, "published", age=3)
        hasty = ledger.Patience(running=2, published=2)
        assert len(ledger.rescue_running(connection, hasty)) == 1
        assert ledger.queues_with_unstarted(connection, hasty) == ["default"]
        assert len(ledger.rescue_published(connection, ["default"], hasty)) == 1


class TestRecord:
    def test_writes_what_came_as_a_message_only(self, connection: Connection) -> None:
        id = uuid4()
        ledger.record(connection, id, contract.PROGRESS_RECONCILE, {})
        row = rows.get(connection, id)
        assert (row.name, row.state, row.queue, row.max_attempts, row.attempt) == (
            "progress.reconcile", "published", "long", 5, 0,
        )  # fmt: skip

    def test_a_job_that_the_database_does_not_know_yet(self, connection: Connection) -> None:
        id = uuid4()
        ledger.record(connection, id, contract.Job("sample.new", "just deployed", queue="long"), {"a": 1})
        assert rows.get(connection, id).args == {"a": 1}


def test_touch_is_one_row_a_process(connection: Connection) -> None:
    for version in ("1", "2"):
        ledger.touch(connection, "worker@here/1", "worker", version)
    found = connection.execute(text("SELECT kind, version FROM jobs.processes")).all()
    assert [tuple(row) for row in found] == [("worker", "2")]

"""What the relay takes: what is due, in order, and no more than there is room for."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Connection, text

from kitaab_jobs import contract
from kitaab_jobs.contract import QUEUES
from kitaab_jobs.runtime import ledger, outbox
from kitaab_jobs.runtime.outcome import SUCCEEDED
from tests.runtime import rows


def take(connection: Connection, room: int = 1000) -> list[outbox.Ready]:
    return outbox.take(connection, {"default": room}, QUEUES.values(), limited_kinds=False)


class TestPromote:
    def test_what_is_due(self, connection: Connection) -> None:
        due, later = rows.add(connection, "scheduled", due=0), rows.add(connection, "scheduled", due=-60)
        assert outbox.promote(connection, 10) == 1
        assert (rows.state(connection, due), rows.state(connection, later)) == ("ready", "scheduled")

    def test_the_oldest_first(self, connection: Connection) -> None:
        ids = [rows.add(connection, "scheduled", due=due) for due in (5, 50, 500)]
        assert outbox.promote(connection, 2) == 2
        assert [rows.state(connection, id) for id in ids] == ["scheduled", "ready", "ready"]
        assert outbox.promote(connection, 2) == 1
        assert outbox.promote(connection, 2) == 0

    def test_what_waits_for_a_group_stays(self, connection: Connection) -> None:
        rows.add(connection, "scheduled", after_group="load")
        assert outbox.promote(connection, 10) == 0


class TestTake:
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
        wanted = [ids[name] for name in ("first", "older", "old", "last")]
        assert [row.id for row in take(connection)] == wanted

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
        taken = take(connection, 500)
        wanted = connection.scalars(
            text("SELECT id FROM jobs.jobs ORDER BY priority DESC, run_at, id LIMIT 500")
        ).all()
        assert [row.id for row in taken] == list(wanted)

    def test_says_what_the_message_needs(self, connection: Connection) -> None:
        canvas: dict[str, Any] = {"chain": []}
        id = rows.add(connection, "ready", args={"a": 1}, queue="long", alone=True, canvas=canvas)
        (row,) = outbox.take(connection, {"long": 1}, QUEUES.values(), limited_kinds=False)
        assert row == outbox.Ready(id, "progress.refresh", {"a": 1}, "long", True, canvas)
        assert rows.get(connection, id).published_at is not None

    @pytest.mark.parametrize("limited_kinds", [False, True])
    def test_up_to_so_many_in_each_queue(self, connection: Connection, limited_kinds: bool) -> None:
        for queue in ("default", "long", "reminders"):
            for _ in range(5):
                rows.add(connection, "ready", queue=queue)
        rooms = {"default": 3, "long": 1}
        taken = outbox.take(connection, rooms, QUEUES.values(), limited_kinds=limited_kinds)
        assert sorted(row.queue for row in taken) == ["default", "default", "default", "long"]
        assert rooms == {"default": 3, "long": 1}, "the caller's own"

    def test_no_room_at_all(self, connection: Connection) -> None:
        rows.add(connection, "ready")
        for rooms in ({}, {"default": 0}):
            assert outbox.take(connection, rooms, QUEUES.values(), limited_kinds=True) == []


class TestSeconds:
    """How long such jobs took lately."""

    def test_on_average_and_only_for_those_that_were_asked_for(self, connection: Connection) -> None:
        for job, took in [("progress.refresh", 1), ("progress.refresh", 3), ("progress.reconcile", 9)]:
            claim = rows.claim_of(connection, rows.add(connection, "running", name=job))
            settled = ledger.Settled(claim, SUCCEEDED, {}, started=0, ended=took)
            ledger.settle(connection, [settled])
        jobs = [contract.PROGRESS_REFRESH, contract.REMINDERS_DELIVER]
        assert outbox.seconds_each(connection, jobs) == {"progress.refresh": 2.0}
        assert outbox.seconds_each(connection, []) == {}

    def test_long_ago_is_not_lately(self, connection: Connection) -> None:
        id = rows.add(connection, "succeeded", age=3600)
        assert outbox.seconds_each(connection, [contract.PROGRESS_REFRESH])
        connection.execute(
            text("UPDATE jobs.jobs SET finished_at = now() - interval '11 minutes' WHERE id = :id"),
            {"id": id},
        )
        assert outbox.seconds_each(connection, [contract.PROGRESS_REFRESH]) == {}


@pytest.mark.parametrize(
    ("limited", "kinds"),
    [(False, False), (False, True), (True, True)],
    ids=["free", "free beside kinds with limits", "limited"],
)
def test_the_ledger_is_not_read_whole_however_many_wait(
    connection: Connection, limited: bool, kinds: bool
) -> None:
    connection.execute(
        text(
            """
            INSERT INTO jobs.jobs (id, name, queue, state, max_attempts, limit_key)
            SELECT gen_random_uuid(), 'progress.refresh', 'default', 'ready', 5, :limit_key
            FROM generate_series(1, 30000)
            """
        ),
        {"limit_key": "progress.refresh" if limited else None},
    )
    connection.execute(text("ANALYZE jobs.jobs"))
    read = text("SELECT seq_tup_read FROM pg_stat_xact_user_tables WHERE relid = 'jobs.jobs'::regclass")
    connection.execute(text("UPDATE jobs.kinds SET max_running = 10 WHERE name = 'progress.refresh'"))
    before = connection.scalar(read)
    assert len(outbox.take(connection, {"default": 10}, QUEUES.values(), limited_kinds=kinds)) == 10
    if not limited:
        assert outbox.strangers(connection, QUEUES) == {}
    assert connection.scalar(read) == before


def test_the_rescue_does_not_read_the_ledger_whole(connection: Connection) -> None:
    """Though the planner has seen many on their way, of which it cannot know how few are lost."""
    connection.execute(
        text(
            """
            INSERT INTO jobs.jobs (id, name, queue, state, max_attempts, published_at, finished_at)
            SELECT gen_random_uuid(), 'progress.refresh', 'default', state, 5, now() - interval '1 minute',
                   CASE WHEN state = 'succeeded' THEN now() END
            FROM (VALUES ('succeeded'::jobs.job_state, 40000), ('published', 10000)) AS had (state, number),
                 generate_series(1, number)
            """
        )
    )
    connection.execute(text("ANALYZE jobs.jobs"))
    lost = rows.add(connection, "published", age=601)
    read = text("SELECT seq_tup_read FROM pg_stat_xact_user_tables WHERE relid = 'jobs.jobs'::regclass")
    before = connection.scalar(read)
    assert [job.id for job in outbox.rescue_published(connection, [], outbox.PATIENCE)] == [lost]
    assert connection.scalar(read) == before


def test_strangers(connection: Connection) -> None:
    for queue, state in [("old", "ready"), ("old", "ready"), ("older", "ready"), ("old", "running")]:
        rows.add(connection, state, queue=queue)
    rows.add(connection, "ready", queue="older", limit_key="progress.refresh")
    rows.add(connection, "ready")
    assert outbox.strangers(connection, QUEUES) == {"old": 2, "older": 2}
    assert outbox.strangers(connection, [*QUEUES, "old", "older"]) == {}

"""What came as a message only: recorded, refused or put off, and never lost."""

from __future__ import annotations

import json
import threading
import time
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import Connection, Engine, text

from kitaab_jobs import contract
from kitaab_jobs.client import enqueue
from kitaab_jobs.contract import MAX_PAYLOAD_BYTES, PROGRESS_REFRESH, Job, Queue
from kitaab_jobs.db.migrate import sync_kinds
from kitaab_jobs.runtime import arrival, ledger, outbox
from tests.runtime import rows

CANVAS = {"chain": [{"task": "sample.next"}], "root_id": "r"}
FEW = Job("sample.few", "only some at once", max_running=2)
NARROW = Queue("narrow", "one by one", max_running=1)
IN_NARROW = Job("sample.narrow", "in a queue with a limit", queue="narrow")
ONCE = Job("sample.once", "never twice with the same arguments", unique_args=True)
HOURLY = Job("sample.hourly", "once in an hour", contract.Batch, unique_args=True, unique_seconds=3600)


@pytest.fixture(autouse=True)
def _kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(contract.QUEUES, NARROW.name, NARROW)
    monkeypatch.setattr(ledger, "_LIMITED_QUEUES", [NARROW.name])
    for job in (FEW, IN_NARROW, ONCE, HOURLY):
        monkeypatch.setitem(contract.JOBS, job.name, job)


def take(connection: Connection) -> list[outbox.Ready]:
    rooms = dict.fromkeys(contract.QUEUES, 100)
    return outbox.take(connection, rooms, contract.QUEUES.values(), limited_kinds=True)


class TestRecord:
    def test_writes_the_row(self, connection: Connection) -> None:
        id = uuid4()
        arrival.record(connection, id, contract.PROGRESS_RECONCILE, {}, CANVAS)
        row = rows.get(connection, id)
        assert (row.name, row.state, row.queue, row.max_attempts, row.attempt, row.canvas) == (
            "progress.reconcile", "published", "long", 5, 0, CANVAS,
        )  # fmt: skip
        assert row.published_at is not None
        assert [claim.id for claim in ledger.claim(connection, [id], "w")] == [id]

    def test_without_a_canvas(self, connection: Connection) -> None:
        id = uuid4()
        arrival.record(connection, id, PROGRESS_REFRESH, {})
        assert rows.get(connection, id).canvas is None

    def test_a_job_that_the_database_does_not_know_yet(self, connection: Connection) -> None:
        id = uuid4()
        arrival.record(connection, id, Job("sample.new", "just deployed", queue="long"), {"a": 1})
        assert rows.get(connection, id).args == {"a": 1}

    @pytest.mark.parametrize("job", [FEW, IN_NARROW])
    def test_what_has_a_limit_waits_for_the_relay(self, connection: Connection, job: Job) -> None:
        sync_kinds(connection)
        id = uuid4()
        arrival.record(connection, id, job, {}, CANVAS)
        row = rows.get(connection, id)
        assert (row.state, row.published_at) == ("ready", None)
        assert ledger.claim(connection, [id], "w") == []
        assert [(found.id, found.canvas) for found in take(connection)] == [(id, CANVAS)]
        assert [claim.id for claim in ledger.claim(connection, [id], "w")] == [id]

    def test_it_is_counted_with_those_that_were_enqueued(self, connection: Connection) -> None:
        sync_kinds(connection)
        for _ in range(2):
            enqueue(connection, FEW.name)
        assert len(take(connection)) == FEW.max_running
        arrival.record(connection, uuid4(), FEW, {})
        assert take(connection) == []

    @pytest.mark.parametrize("before", ["scheduled", "ready", "published", "running"])
    def test_one_with_the_same_arguments_has_not_ended(self, connection: Connection, before: str) -> None:
        first, second, other = uuid4(), uuid4(), uuid4()
        arrival.record(connection, first, ONCE, {"b": 1, "a": [2, "x"]})
        key = rows.get(connection, first).unique_key
        connection.execute(rows.DELETE, {"id": first})
        rows.add(connection, before, id=first, name=ONCE.name, unique_key=key)
        arrival.record(connection, second, ONCE, {"a": [2, "x"], "b": 1})
        row = rows.get(connection, second)
        assert (row.state, row.error) == ("cancelled", "one with the same arguments has not ended")
        assert row.args == {"a": [2, "x"], "b": 1}
        arrival.record(connection, other, ONCE, {"a": 2})
        assert rows.state(connection, other) == "published"

    @pytest.mark.parametrize("before", rows.ENDED)
    def test_one_with_the_same_arguments_has_ended(self, connection: Connection, before: str) -> None:
        first, second = uuid4(), uuid4()
        arrival.record(connection, first, ONCE, {})
        key = rows.get(connection, first).unique_key
        connection.execute(rows.DELETE, {"id": first})
        rows.add(connection, before, id=first, name=ONCE.name, unique_key=key)
        arrival.record(connection, second, ONCE, {})
        assert rows.state(connection, second) == "published"

    def test_the_key_is_the_one_of_those_that_were_enqueued(self, connection: Connection) -> None:
        sync_kinds(connection)
        id = uuid4()
        enqueue(connection, ONCE.name)
        arrival.record(connection, id, ONCE, {})
        assert rows.state(connection, id) == "cancelled"

    @pytest.mark.parametrize("job", [ONCE, HOURLY])
    def test_the_same_message_again_changes_nothing(self, connection: Connection, job: Job) -> None:
        id = uuid4()
        arrival.record(connection, id, job, {})
        arrival.record(connection, id, job, {})
        assert rows.state(connection, id) == "published"

    @pytest.mark.parametrize("args", [{}, {"limit": 2000}])
    def test_what_was_left_out_is_part_of_the_key(self, connection: Connection, args: dict[str, Any]) -> None:
        """The client stores arguments with their defaults; a plain message has what its sender wrote."""
        sync_kinds(connection)
        enqueue(connection, HOURLY.name, args)
        same, other = uuid4(), uuid4()
        arrival.record(connection, same, HOURLY, {})
        row = rows.get(connection, same)
        assert (row.state, row.args) == ("cancelled", {})
        arrival.record(connection, other, HOURLY, {"limit": 1})
        assert rows.state(connection, other) == "published"
        assert rows.get(connection, other).unique_key == _key_of(connection, {"limit": 1})

    @pytest.mark.parametrize("before", ["running", "succeeded", "dead"])
    def test_a_period_counts_though_the_job_has_ended(self, connection: Connection, before: str) -> None:
        key = _key_of(connection, {"limit": 2000})
        within, after = uuid4(), uuid4()
        first = rows.add(connection, before, name=HOURLY.name, unique_key=key)
        arrival.record(connection, within, HOURLY, {})
        row = rows.get(connection, within)
        assert (row.state, row.error) == (
            "cancelled",
            "one with the same arguments was enqueued within 3600 s",
        )
        connection.execute(
            text("UPDATE jobs.jobs SET created_at = now() - interval '61 minutes' WHERE id = :id"),
            {"id": first},
        )
        arrival.record(connection, after, HOURLY, {})
        assert rows.state(connection, after) == ("cancelled" if before == "running" else "published")

    def test_what_was_cancelled_leaves_its_period_free(self, connection: Connection) -> None:
        rows.add(connection, "cancelled", name=HOURLY.name, unique_key=_key_of(connection, {"limit": 2000}))
        id = uuid4()
        arrival.record(connection, id, HOURLY, {})
        assert rows.state(connection, id) == "published"

    def test_two_that_arrive_at_once_within_a_period_are_one(self, database: Engine) -> None:
        """The second waits for the first one's commit, though that job has ended by then."""
        first, second = uuid4(), uuid4()

        def arrive() -> None:
            with database.begin() as other:
                arrival.record(other, second, HOURLY, {})

        late = threading.Thread(target=arrive)
        with database.begin() as connection:
            arrival.record(connection, first, HOURLY, {})
            connection.execute(rows.DELETE, {"id": first})
            rows.add(
                connection,
                "succeeded",
                id=first,
                name=HOURLY.name,
                unique_key=_key_of(connection, {"limit": 2000}),
            )
            late.start()
            _until_it_waits(database)
        late.join(20)
        with database.begin() as connection:
            assert rows.state(connection, second) == "cancelled"


def _key_of(connection: Connection, args: dict[str, Any]) -> str:
    """What the client has always used: the hash of the arguments as PostgreSQL writes them."""
    return str(
        connection.scalar(text("SELECT md5(CAST(CAST(:args AS jsonb) AS text))"), {"args": json.dumps(args)})
    )


def _until_it_waits(database: Engine) -> None:
    deadline = time.monotonic() + 20
    with database.connect() as watcher:
        while not watcher.scalar(
            text(
                "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
                " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
            )
        ):
            assert time.monotonic() < deadline, "it never waited"
            time.sleep(0.01)


BIG = {"note": "x" * MAX_PAYLOAD_BYTES}
UNSTORABLE = [
    (BIG, f"the arguments have {MAX_PAYLOAD_BYTES + 12} bytes, and {MAX_PAYLOAD_BYTES} are allowed"),
    ({"note": "é" * (MAX_PAYLOAD_BYTES // 2)}, "bytes, and 65536 are allowed"),
    ({"note": "a\0b"}, "a NUL character"),
    ({"a\0b": 1}, "a NUL character"),
    ({"note": "half \ud800 pair"}, "are not JSON"),
    ({"note": float("nan")}, "are not JSON"),
    ({"deep": [{"er": float("inf")}]}, "are not JSON"),
]


@pytest.mark.parametrize(("args", "reason"), UNSTORABLE)
def test_what_cannot_be_kept_is_dead_with_the_reason(
    connection: Connection, args: dict[str, Any], reason: str
) -> None:
    id, other = uuid4(), uuid4()
    arrival.record(connection, id, PROGRESS_REFRESH, args)
    arrival.postpone(connection, other, "sample.new", args, "long", "nobody knows it")
    for row in (rows.get(connection, id), rows.get(connection, other)):
        assert (row.state, row.args) == ("dead", {})
        assert reason in row.error
    assert row.error.startswith("nobody knows it; ")
    assert (row.name, row.queue) == ("sample.new", "long")


@pytest.mark.parametrize(
    "args",
    [{"note": "x" * (MAX_PAYLOAD_BYTES - 12)}, {"note": "\\u0000 in words"}, {"n": 10**400, "t": True}],
)
def test_what_can_be_kept(connection: Connection, args: dict[str, Any]) -> None:
    id = uuid4()
    arrival.record(connection, id, PROGRESS_REFRESH, args)
    assert (rows.state(connection, id), rows.get(connection, id).args) == ("published", args)


class TestRefuse:
    def test_is_dead_with_the_reason(self, connection: Connection) -> None:
        id = uuid4()
        arrival.refuse(connection, id, PROGRESS_REFRESH, "it came\0 without names")
        row = rows.get(connection, id)
        assert (row.state, row.attempt, row.error) == ("dead", 0, "it came without names")
        assert row.finished_at is not None


class TestPostpone:
    def test_without_a_row(self, connection: Connection) -> None:
        id = uuid4()
        arrival.postpone(connection, id, "sample.new" + "x" * 200, {"a": 1}, "long", "nobody\0 knows it")
        row = rows.get(connection, id)
        assert (row.state, row.attempt, row.queue, row.args) == ("scheduled", 0, "long", {"a": 1})
        assert row.error == "nobody knows it"
        assert row.run_at > row.created_at
        assert outbox.promote(connection, 10) == 0

    @pytest.mark.parametrize("before", ["ready", "published"])
    def test_with_a_row(self, connection: Connection, before: str) -> None:
        id = rows.add(connection, before, attempt=1, args={"a": 1}, queue="reminders")
        arrival.postpone(connection, id, "sample.new", {}, "long", "nobody knows it", seconds=0)
        row = rows.get(connection, id)
        assert (row.state, row.attempt, row.queue, row.args) == ("scheduled", 1, "reminders", {"a": 1})
        assert row.error == "nobody knows it"
        assert outbox.promote(connection, 10) == 1

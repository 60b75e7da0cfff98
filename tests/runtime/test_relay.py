"""The relay: every ready row becomes a message, once; small jobs travel together; and what wakes it."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from redis import Redis
from redis.client import Pipeline
from redis.exceptions import ConnectionError
from sqlalchemy import Connection, Engine, text
from structlog.testing import capture_logs

from kitaab_jobs import contract
from kitaab_jobs.client import enqueue, enqueue_many
from kitaab_jobs.contract import QUEUES
from kitaab_jobs.devstack.processes import platform_processes
from kitaab_jobs.devstack.supervisor import Process
from kitaab_jobs.runtime import ledger, outbox
from kitaab_jobs.runtime import relay as relay_module
from kitaab_jobs.runtime.relay import Relay
from tests.devstack.observe import wait_for
from tests.runtime import rows
from tests.runtime.doing import SMALL
from tests.runtime.relaying import (
    MakeRelay,
    add_ready,
    ids,
    listening,
    messages,
    running,
    states,
    take_messages,
)


class TestPublish:
    def test_the_message_is_the_row(self, effects: Engine, make_relay: MakeRelay, redis_url: str) -> None:
        with effects.begin() as connection:
            id = enqueue(connection, "reminders.deliver", {"zone": "UTC", "delivery_ids": [1]})
        assert make_relay().publish() is False
        (message,) = messages(redis_url)
        assert (message["headers"]["id"], message["headers"]["task"]) == (str(id), "reminders.deliver")
        assert message["properties"]["delivery_info"]["routing_key"] == "sending"
        assert message["headers"]["kwargsrepr"] == "{'zone': 'UTC', 'delivery_ids': [1]}"
        assert states(effects) == {"published": 1}

    def test_batches(
        self, effects: Engine, make_relay: MakeRelay, redis_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(relay_module, "BATCH", 3)
        monkeypatch.setattr(relay_module, "FEW_MESSAGES", 100)
        made = add_ready(effects, 7)
        relay = make_relay()
        assert [relay.publish() for _ in range(4)] == [True, True, False, False]
        assert sorted(ids(redis_url)) == sorted(made)

    def test_what_matters_most_is_sent_first(
        self, effects: Engine, make_relay: MakeRelay, redis_url: str
    ) -> None:
        with effects.begin() as connection:
            made = {n: enqueue(connection, "progress.refresh", priority=n) for n in (1, 3, 2)}
        make_relay().publish()
        assert ids(redis_url) == [made[3], made[2], made[1]]

    def test_a_later_time_waits(self, effects: Engine, make_relay: MakeRelay, redis_url: str) -> None:
        with effects.begin() as connection:
            rows.add(connection, "scheduled", due=-60)
        make_relay().publish()
        assert ids(redis_url) == []

    def test_two_at_once_publish_each_row_once(
        self, effects: Engine, make_relay: MakeRelay, redis_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(relay_module, "BATCH", 10)
        monkeypatch.setattr(relay_module, "FEW_MESSAGES", 1000)
        made = add_ready(effects, 200)
        barrier = threading.Barrier(2)

        def drain(relay: Relay) -> None:
            barrier.wait()
            while relay.publish():
                pass

        threads = [threading.Thread(target=drain, args=(make_relay(),)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert Counter(ids(redis_url)) == Counter(made)

    def test_one_that_hangs_holds_up_no_other(
        self, effects: Engine, make_relay: MakeRelay, redis_url: str
    ) -> None:
        first, *others = add_ready(effects, 3)
        with effects.begin() as hanging:
            hanging.execute(text("SELECT FROM jobs.jobs WHERE id = :id FOR UPDATE"), {"id": first})
            with capture_logs() as logs, running(make_relay(poll_seconds=0.1)):
                wait_for(lambda: len(ids(redis_url)) == 2)
        assert sorted(ids(redis_url)) == sorted(others)
        assert logs == []

    def test_a_batch_that_another_has_taken_is_passed_over(self, effects: Engine) -> None:
        made = add_ready(effects, 5)
        with effects.connect() as one, effects.connect() as other:
            other.execute(text("SET lock_timeout = '1s'"))
            taken = take(one)
            assert len(taken) == 3
            assert set(take(other)) == set(made) - set(taken)


def take(connection: Connection) -> list[UUID]:
    found = outbox.take(connection, {"default": 3}, QUEUES.values(), limited_kinds=True)
    return [row.id for row in found]


def queues_of(process: Process) -> list[str]:
    """Return the queues that a process of the stack takes from."""
    words = list(process.command)
    return words[words.index("--queues") + 1].split(",") if "--queues" in words else []


def test_a_due_minute_is_dispatched_while_sending_fills_its_queue(
    effects: Engine, make_relay: MakeRelay, redis_url: str, tmp_path: Path
) -> None:
    """Whoever dispatches has nothing to send before, in the workers that `kitaab-jobs up` starts."""
    workers = [queues for process in platform_processes(tmp_path) if (queues := queues_of(process))]
    assert Counter(queue for queues in workers for queue in queues) == Counter(QUEUES.keys())
    [beside] = [queues for queues in workers if contract.REMINDERS_DISPATCH.queue in queues]
    relay = make_relay()
    with effects.begin() as connection:
        sending = enqueue_many(
            connection, contract.REMINDERS_DELIVER, [{"zone": "UTC", "delivery_ids": [1]}] * 100
        )
    relay.publish()
    waiting = ids(redis_url)
    assert len(waiting) > relay_module.FEW_MESSAGES
    assert set(waiting) <= set(sending)
    with effects.begin() as connection:
        dispatch = enqueue(connection, contract.REMINDERS_DISPATCH)
    relay.publish()
    assert ids(redis_url, beside) == [dispatch]


class TestBackPressure:
    """While messages wait, small jobs gather into fuller ones."""

    def test_a_queue_where_messages_wait_is_left_until_few_do(
        self, effects: Engine, make_relay: MakeRelay, redis_url: str
    ) -> None:
        relay = make_relay()
        first = add_ready(effects, relay_module.FEW_MESSAGES + 1)
        relay.publish()
        second = add_ready(effects, 1)
        with effects.begin() as connection:
            urgent = enqueue(connection, "reminders.deliver", {"zone": "UTC", "delivery_ids": [1]})
        relay.publish()
        assert set(ids(redis_url)) == {*first, urgent}, "another queue is not held up"
        take_messages(redis_url)
        relay.publish()
        assert set(ids(redis_url)) == {*second, urgent}

    def test_after_a_large_batch_when_half_of_it_is_taken(
        self, effects: Engine, make_relay: MakeRelay, redis_url: str
    ) -> None:
        relay = make_relay()
        add_ready(effects, 20)
        relay.publish()
        (last,) = add_ready(effects, 1)
        client = Redis.from_url(redis_url)
        client.rpop("default", 9)
        relay.publish()
        assert last not in ids(redis_url)
        client.rpop("default", 1)
        client.close()
        relay.publish()
        assert last in ids(redis_url)

    def test_small_jobs_of_a_kind_travel_together(
        self, effects: Engine, make_relay: MakeRelay, redis_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(contract.JOBS, SMALL.name, SMALL)
        with effects.begin() as connection:
            made = [rows.add(connection, "ready", name=SMALL.name) for _ in range(30)]
            single = rows.add(connection, "ready")
        make_relay().publish()
        bodies = [json.loads(base64.b64decode(message["body"]))[1] for message in messages(redis_url)]
        carried = [body["_jobs"] for body in bodies if "_jobs" in body]
        assert [len(each) for each in carried] == [20, 10]
        assert sorted(UUID(id) for each in carried for id in each) == sorted(made)
        assert single in ids(redis_url)

    def test_how_many_wait_is_asked_before_a_job_waits_for_the_answer(
        self, effects: Engine, make_relay: MakeRelay, redis_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        relay = make_relay()
        seen: list[int] = []

        def wait() -> None:
            seen.append(relay._waiting["default"])
            relay.stop()

        monkeypatch.setattr(relay, "_tell", lambda _: take_messages(redis_url))
        monkeypatch.setattr(relay, "_wait", wait)
        add_ready(effects, relay_module.FEW_MESSAGES + 1)
        relay.run()
        assert seen == [0]

    def test_the_loop_goes_on_when_they_are_taken(
        self, effects: Engine, make_relay: MakeRelay, redis_url: str
    ) -> None:
        with running(make_relay(poll_seconds=0.2)) as thread:
            add_ready(effects, 10)
            wait_for(lambda: states(effects) == {"published": 10})
            (last,) = add_ready(effects, 1)
            take_messages(redis_url)
            wait_for(lambda: ids(redis_url) == [last])
            assert thread.is_alive()


def test_a_canvas_goes_with_its_message(effects: Engine, make_relay: MakeRelay, redis_url: str) -> None:
    canvas = {"chain": [{"task": "sample.next", "args": [], "kwargs": {}, "options": {}}], "root_id": "r"}
    with effects.begin() as connection:
        rows.add(connection, "ready", canvas=canvas)
    make_relay().publish()
    (message,) = messages(redis_url)
    assert json.loads(base64.b64decode(message["body"]))[2]["chain"] == canvas["chain"]
    assert message["headers"]["root_id"] == "r"


class TestFailedPublish:
    def test_rows_stay_ready_and_doubles_are_harmless(
        self,
        effects: Engine,
        make_relay: MakeRelay,
        redis_url: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        made = add_ready(effects, 4)
        break_down(monkeypatch, ConnectionError("reset by peer"), sent=True)
        relay = make_relay()
        with pytest.raises(ConnectionError):
            relay.publish()
        assert states(effects) == {"ready": 4}
        assert len(ids(redis_url)) == 4
        monkeypatch.undo()
        relay.publish()
        counted = Counter(ids(redis_url))
        assert sorted(counted) == sorted(made)
        assert set(counted.values()) == {2}
        with effects.begin() as connection:
            claims = [ledger.claim(connection, [id], "w") for id in ids(redis_url)]
        assert sum(len(claim) for claim in claims) == 4

    def test_an_unforeseen_error_is_no_end(
        self,
        effects: Engine,
        make_relay: MakeRelay,
        redis_url: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        add_ready(effects, 1)
        break_down(monkeypatch, ZeroDivisionError(), sent=False)
        with capture_logs() as logs, running(make_relay(poll_seconds=0.1)):
            wait_for(lambda: logs)
            monkeypatch.undo()
            wait_for(lambda: len(ids(redis_url)) == 1)
        assert (logs[0]["action"], logs[0]["exc_info"]) == ("relay_waits", True)

    def test_a_queue_that_nobody_knows_holds_up_nothing(
        self, effects: Engine, make_relay: MakeRelay, redis_url: str
    ) -> None:
        """Of another version: enqueueing refuses it."""
        with effects.begin() as connection:
            odd = rows.add(connection, "ready", queue="lnog", priority=9)
        (good,) = add_ready(effects, 1)
        with capture_logs() as logs, running(make_relay(poll_seconds=0.1, rescue_seconds=0)):
            wait_for(lambda: logs)
        assert ids(redis_url) == [good]
        assert {line["action"] for line in logs} == {"jobs_wait"}
        assert (logs[0]["queue"], logs[0]["jobs"]) == ("lnog", 1)
        assert (
            logs[0]["reason"] == "no queue is called 'lnog': the queues are default, reminders, sending, long"
        )
        with effects.connect() as connection:
            assert (rows.state(connection, odd), rows.get(connection, odd).attempt) == ("ready", 0)


def break_down(monkeypatch: pytest.MonkeyPatch, error: Exception, *, sent: bool) -> None:
    """Make publishing fail as a broker that goes away does: before it has the messages, or after."""
    execute = Pipeline.execute

    def flaky(self: Pipeline, *args: Any, **options: Any) -> Any:
        publishes = any(command[0][0] == "LPUSH" for command in self.command_stack)
        result = execute(self, *args, **options) if sent or not publishes else None
        if publishes:
            raise error
        return result

    monkeypatch.setattr(Pipeline, "execute", flaky)


class TestWakeUp:
    def test_a_notification_ends_its_sleep(
        self, effects: Engine, superuser_engine: Engine, make_relay: MakeRelay, redis_url: str
    ) -> None:
        relay = make_relay(poll_seconds=3600)
        with running(relay):
            wait_for(lambda: listening(superuser_engine))
            add_ready(effects, 1)
            wait_for(lambda: ids(redis_url))
            relay.stop()
            add_ready(effects, 1)  # which wakes it, so that it sees that it is to stop

    def test_without_a_notification_the_poll_finds_it(
        self, effects: Engine, superuser_engine: Engine, make_relay: MakeRelay, redis_url: str
    ) -> None:
        with running(make_relay(poll_seconds=0.2)):
            wait_for(lambda: listening(superuser_engine))
            with effects.begin() as connection:
                connection.execute(text("ALTER TABLE jobs.jobs DISABLE TRIGGER jobs_announce"))
                enqueue(connection, "progress.refresh")
                connection.execute(text("ALTER TABLE jobs.jobs ENABLE TRIGGER jobs_announce"))
            wait_for(lambda: ids(redis_url))

    def test_rolled_back_is_never_sent(self, effects: Engine, make_relay: MakeRelay, redis_url: str) -> None:
        with running(make_relay(poll_seconds=0.1)):
            with effects.connect() as connection:
                enqueue(connection, "progress.refresh")
                time.sleep(0.3)
                connection.rollback()
            last = add_ready(effects, 1)
            wait_for(lambda: ids(redis_url))
        assert ids(redis_url) == last


def test_stops_when_told(make_relay: MakeRelay) -> None:
    with running(make_relay()):
        pass

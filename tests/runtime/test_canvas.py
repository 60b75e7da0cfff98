"""Celery's canvas over jobs of the ledger: chain, group and chord, with a real worker."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import pytest
from celery import Celery, chain, chord, group
from sqlalchemy import text

from kitaab_jobs.contract import Job
from kitaab_jobs.runtime import canvas
from tests.devstack.observe import wait_for
from tests.runtime.conftest import celery_on, closing
from tests.runtime.platform import A_WHILE, Platform
from tests.runtime.platform_fixtures import _platform, database_name, folder, platform
from tests.runtime.sample_jobs import FEW, FLAKY, WRITE

__all__ = ["_platform", "database_name", "folder", "platform"]

# Where another test has imported the worker, its jobs are in each app of the process, with their queues.
pytestmark = pytest.mark.filterwarnings(r"ignore:\s*The 'queue' task attribute is deprecated")


@pytest.fixture
def client(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> Iterator[Celery]:
    """Any application that has Celery and our Redis. It asks the ledger for results, so it does not wait for Celery's."""
    for name in ("consume_from", "cancel_for"):
        monkeypatch.setattr(f"celery.backends.redis.ResultConsumer.{name}", lambda *_: None)
    with closing(celery_on(platform.redis.url(0))) as app:
        yield app


def step(
    client: Celery, note: str, job: Job = WRITE, *, immutable: bool = True, id: str | None = None
) -> Any:
    """A job as a part of a canvas; a mutable one is given the result of the one before."""
    options = {"queue": job.queue} | ({"task_id": id} if id else {})
    return client.signature(job.name, kwargs={"note": note}, immutable=immutable, options=options)


def fresh(count: int) -> list[str]:
    return [uuid4().hex for _ in range(count)]


def succeed(platform: Platform, notes: list[str]) -> list[Any]:
    """Return the rows of these jobs, which end well."""
    return [platform.wait_until(note, "succeeded") for note in notes]


def once(platform: Platform, notes: list[str]) -> None:
    assert [platform.effects(note) for note in notes] == [1] * len(notes)


def dropped(platform: Platform, id: str) -> bool:
    """Whether a message of that job has found nothing to do."""
    return f"action=message_dropped id={id}" in platform.worker.output


class TestChain:
    @pytest.mark.parametrize("immutable", [True, False])
    def test_one_after_the_other(self, platform: Platform, client: Celery, immutable: bool) -> None:
        notes = fresh(3)
        result = chain(*[step(client, note, immutable=immutable) for note in notes], app=client).apply_async()
        found = succeed(platform, notes)
        assert found[2].id == UUID(result.id)
        assert found[0].finished_at <= found[1].started_at
        assert found[1].finished_at <= found[2].started_at
        once(platform, notes)

    def test_goes_on_after_a_retry(self, platform: Platform, client: Celery) -> None:
        notes = fresh(3)
        chain(
            step(client, notes[0]), step(client, notes[1], FLAKY), step(client, notes[2]), app=client
        ).apply_async()
        found = succeed(platform, notes)
        assert [row.attempt for row in found] == [1, 2, 1]
        assert found[1].finished_at <= found[2].started_at
        once(platform, notes)

    def test_goes_on_after_one_that_had_to_wait_for_the_relay(
        self, platform: Platform, client: Celery
    ) -> None:
        notes = fresh(3)
        chain(
            step(client, notes[0]), step(client, notes[1], FEW), step(client, notes[2]), app=client
        ).apply_async()
        succeed(platform, notes)
        once(platform, notes)

    def test_ends_with_one_that_is_dead(self, platform: Platform, client: Celery) -> None:
        bad, after = fresh(2)
        broken = client.signature(
            WRITE.name, kwargs={"note": bad, "typo": 1}, queue="default", immutable=True
        )
        chain(broken, step(client, after), app=client).apply_async()
        platform.wait_until(bad, "dead")
        platform.wait_until(platform.add(), "succeeded")
        assert platform.row(after) is None

    def test_a_message_that_comes_twice_does_not_run_the_rest_twice(
        self, platform: Platform, client: Celery
    ) -> None:
        notes, ids = fresh(3), [str(uuid4()) for _ in range(3)]
        rest = [step(client, note, id=id) for note, id in zip(notes[:0:-1], ids[:0:-1], strict=True)]

        def send() -> None:
            client.send_task(
                WRITE.name, kwargs={"note": notes[0]}, task_id=ids[0], queue="default", chain=list(rest)
            )

        send()
        found = succeed(platform, notes)
        send()
        # It is passed on to the end, and finds nothing to do anywhere.
        wait_for(lambda: all(dropped(platform, id) for id in ids), seconds=A_WHILE)
        assert succeed(platform, notes) == found
        once(platform, notes)


def test_group(platform: Platform, client: Celery) -> None:
    notes = fresh(5)
    result: Any = group([step(client, note) for note in notes], app=client).apply_async()
    found = succeed(platform, notes)
    assert [row.id for row in found] == [UUID(child.id) for child in result.children]
    once(platform, notes)


class TestChord:
    @pytest.mark.parametrize(("job", "attempt"), [(WRITE, 1), (FLAKY, 2), (FEW, 1)])
    @pytest.mark.parametrize("immutable", [True, False])
    def test_the_body_comes_after_all(
        self, platform: Platform, client: Celery, job: Job, attempt: int, immutable: bool
    ) -> None:
        *notes, last = fresh(4)
        header = [step(client, note, job) for note in notes]
        result = chord(header, step(client, last, immutable=immutable), app=client).apply_async()
        body = platform.wait_until(last, "succeeded")
        assert body.id == UUID(result.id)
        found = succeed(platform, notes)
        assert {row.attempt for row in found} == {attempt}
        assert all(row.finished_at <= body.started_at for row in found)
        once(platform, [*notes, last])


def test_a_callback_after_a_message_that_comes_twice(platform: Platform, client: Celery) -> None:
    first, after = fresh(2)
    id = str(uuid4())
    for _ in range(2):
        client.send_task(
            WRITE.name, kwargs={"note": first}, task_id=id, queue="default", link=step(client, after)
        )
    platform.wait_until(first, "succeeded")
    wait_for(lambda: dropped(platform, id), seconds=A_WHILE)
    platform.wait_until(platform.add(), "succeeded")
    with platform.database.connect() as connection:
        statement = text("SELECT count(*) FROM jobs.jobs WHERE args ->> 'note' = :note")
        assert connection.scalar(statement, {"note": after}) == 1


class TestKept:
    """What is kept of a request, and goes out again with a message."""

    class Request:
        id = "1"
        chain = None
        chord = None
        callbacks = None
        errbacks = None
        group = "g"
        group_index = 0
        root_id = "r"
        parent_id = None

    @pytest.mark.parametrize("name", ["chain", "chord", "callbacks", "errbacks"])
    def test_what_comes_after(self, name: str) -> None:
        request = self.Request()
        after = [{"task": "sample.next", "options": {"task_id": "2"}}]
        setattr(request, name, after)
        kept = canvas.of_request(request)
        assert kept == {name: after, "group": "g", "group_index": 0, "root_id": "r"}

    def test_a_callback_has_the_same_id_each_time(self) -> None:
        requests = [self.Request() for _ in range(3)]
        requests[2].id = "2"
        given: list[list[dict[str, Any]]] = []
        for request in requests:
            request.callbacks = [{"task": "a"}, {"task": "b", "options": {"queue": "q"}}]  # type: ignore[assignment]
            kept = canvas.of_request(request)
            assert kept is not None
            assert kept["callbacks"] == request.callbacks
            given.append(kept["callbacks"])
        assert given[0] == given[1]
        assert len({each["options"]["task_id"] for callbacks in given for each in callbacks}) == 4

    def test_without_anything_after_it_there_is_nothing_to_keep(self) -> None:
        assert canvas.of_request(self.Request()) is None

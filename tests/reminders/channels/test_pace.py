"""The pace that all workers share."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator
from multiprocessing.queues import SimpleQueue

import pytest
from redis import Redis

from kitaab_jobs.reminders.channels.pace import PaceLost, SharedPace


@pytest.fixture
def pace(redis_url: str) -> Iterator[SharedPace]:
    pace = SharedPace(redis_url)
    yield pace
    pace.close()


def test_places_follow_each_other(pace: SharedPace) -> None:
    began = time.monotonic()
    waits = [pace.take("email", 2, per_second=0.2, at_most=60) for _ in range(4)]
    took = time.monotonic() - began
    assert all(taken for taken, _ in waits)
    for place, (_, wait) in zip((0, 10, 20, 30), waits, strict=True):
        assert place - took <= wait <= place
    assert pace.take("webpush", 1, per_second=4, at_most=0) == (True, 0)  # a channel for itself


def test_too_far_ahead_takes_none(pace: SharedPace) -> None:
    began = time.monotonic()
    pace.take("email", 100, per_second=1, at_most=0)
    for _ in range(3):
        taken, wait = pace.take("email", 1, per_second=1, at_most=5)
        assert not taken
        assert 100 - (time.monotonic() - began) <= wait <= 100


def test_what_was_not_used_does_not_add_up(pace: SharedPace) -> None:
    pace.take("email", 1, per_second=5, at_most=0)
    time.sleep(1)  # five places went by
    began = time.monotonic()
    waits = [pace.take("email", 1, per_second=5, at_most=60)[1] for _ in range(5)]
    assert waits[-1] >= 4 / 5 - (time.monotonic() - began)


def test_forgotten_after_a_while(redis_url: str) -> None:
    pace = SharedPace(redis_url)
    pace.take("email", 5, per_second=1, at_most=0)
    client = Redis.from_url(redis_url)
    assert 60 < client.pttl("kitaab:pace:email") / 1000 <= 65
    client.close()
    pace.close()


Place = tuple[float, float]


def _take_many(url: str, number: int, out: SimpleQueue[Place]) -> None:
    """Take places, and tell of each between which two instants it is: this process may be held up at any line."""
    pace = SharedPace(url)
    for _ in range(number):
        before = time.time()
        taken, wait = pace.take("email", 1, per_second=40, at_most=60)
        assert taken
        out.put((before + wait, time.time() + wait))


def test_two_processes_share_it(redis_url: str) -> None:
    context = multiprocessing.get_context("spawn")
    out: SimpleQueue[Place] = context.SimpleQueue()
    processes = [context.Process(target=_take_many, args=(redis_url, 40, out)) for _ in range(2)]
    for process in processes:
        process.start()
    places = [out.get() for _ in range(80)]
    for process in processes:
        process.join(20)
        assert process.exitcode == 0
    # 80 places at 40 a second: no second has more than 40, of those that surely are in it.
    assert max(latest for _, latest in places) - min(earliest for earliest, _ in places) >= 79 / 40
    for start, _ in places:
        assert sum(start <= earliest and latest < start + 1 for earliest, latest in places) <= 41


def test_without_redis_nobody_goes() -> None:
    pace = SharedPace("redis://127.0.0.1:1/0")
    with pytest.raises(PaceLost, match="email"):
        pace.take("email", 1, per_second=1, at_most=0)
    pace.close()

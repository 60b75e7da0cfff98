"""The pace that all workers share."""

from __future__ import annotations

import multiprocessing
import time
from multiprocessing.queues import SimpleQueue

import pytest
from redis import Redis

from kitaab_jobs.reminders.channels.pace import PaceLost, SharedPace


def test_places_follow_each_other(redis_url: str) -> None:
    pace = SharedPace(redis_url)
    waits = [pace.take("email", 2, per_second=4, at_most=60) for _ in range(4)]
    assert all(taken for taken, _ in waits)
    assert [wait for _, wait in waits] == pytest.approx([0, 0.5, 1, 1.5], abs=0.2)
    assert pace.take("webpush", 1, per_second=4, at_most=0) == (True, 0)  # a channel for itself
    pace.close()


def test_too_far_ahead_takes_none(redis_url: str) -> None:
    pace = SharedPace(redis_url)
    pace.take("email", 10, per_second=1, at_most=0)
    for _ in range(3):
        taken, wait = pace.take("email", 1, per_second=1, at_most=5)
        assert not taken
        assert wait == pytest.approx(10, abs=0.5)
    pace.close()


def test_what_was_not_used_does_not_add_up(redis_url: str) -> None:
    pace = SharedPace(redis_url)
    pace.take("email", 1, per_second=50, at_most=0)
    time.sleep(0.2)  # ten places went by
    waits = [pace.take("email", 1, per_second=50, at_most=60)[1] for _ in range(10)]
    assert waits[-1] > 0.1
    pace.close()


def test_forgotten_after_a_while(redis_url: str) -> None:
    pace = SharedPace(redis_url)
    pace.take("email", 5, per_second=1, at_most=0)
    client = Redis.from_url(redis_url)
    assert 60 < client.pttl("kitaab:pace:email") / 1000 <= 65
    client.close()
    pace.close()


def _take_many(url: str, number: int, out: SimpleQueue[float]) -> None:
    pace = SharedPace(url)
    for _ in range(number):
        taken, wait = pace.take("email", 1, per_second=40, at_most=60)
        assert taken
        out.put(time.time() + wait)


def test_two_processes_share_it(redis_url: str) -> None:
    context = multiprocessing.get_context("spawn")
    out: SimpleQueue[float] = context.SimpleQueue()
    processes = [context.Process(target=_take_many, args=(redis_url, 40, out)) for _ in range(2)]
    for process in processes:
        process.start()
    times = sorted(out.get() for _ in range(80))
    for process in processes:
        process.join(20)
        assert process.exitcode == 0
    # 80 places at 40 a second: no second has more than 40, but for the jitter of reading the clock.
    assert times[-1] - times[0] > 79 / 40 - 0.1
    assert max(sum(start <= each < start + 1 for each in times) for start in times) <= 42


def test_without_redis_nobody_goes() -> None:
    pace = SharedPace("redis://127.0.0.1:1/0")
    with pytest.raises(PaceLost, match="email"):
        pace.take("email", 1, per_second=1, at_most=0)
    pace.close()

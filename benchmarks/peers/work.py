"""The work that every system does for a job, and the pace at which jobs are sent to it.

Needs nothing but the standard library, since each peer runs in a virtual environment of its own.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from typing import Any

ROWS = 1000
CHUNK = 1000
# How many jobs a process has under way at once where it has an event loop or threads.
CONCURRENCY = 20

# One small UPDATE for a job; its first and last times are taken where it is done, at the same cost for all.
EFFECT = """
    UPDATE bench.effects
    SET n = n + 1, first = coalesce(first, clock_timestamp()), last = clock_timestamp()
    WHERE id = {0}
"""
# Where the time from enqueueing to starting is measured, the one small statement is this one.
STARTED = "INSERT INTO bench.starts (sent, started) VALUES ({0}, {1})"

DATABASE_URL = os.environ.get("BENCH_DATABASE_URL", "")
REDIS_URL = os.environ.get("BENCH_REDIS_URL", "")


def statement(
    n: int, sent: float | None, marks: tuple[str, str] = ("%s", "%s")
) -> tuple[str, tuple[Any, ...]]:
    """Return what a job with these arguments executes, and its parameters. Call it first: it takes the time."""
    if sent is not None:
        return STARTED.format(*marks), (sent, time.time())
    return EFFECT.format(marks[0]), (n % ROWS,)


def chunks(jobs: int) -> Iterator[range]:
    """Return the numbers of the jobs, a thousand at a time."""
    for low in range(0, jobs, CHUNK):
        yield range(low, min(low + CHUNK, jobs))


def ticks(rate: float, seconds: float) -> Iterator[tuple[float, int]]:
    """Return (seconds from now, jobs to send then). Above 1,000/s they go ten milliseconds' worth at a time."""
    step = 1 / rate if rate <= 1000 else 0.01
    sent = 0
    for tick in range(max(1, round(seconds / step))):
        due = round((tick + 1) * step * rate) - sent
        sent += due
        yield tick * step, due


def ahead(began: float, at: float) -> float:
    """Return how long to wait for `at` seconds after `began`; nothing where that is past."""
    return max(0.0, began + at - time.monotonic())


def verb() -> tuple[str, float, float]:
    """Return what the command line asks for: setup, fill N, send RATE SECONDS, work."""
    words = [*sys.argv[1:], "0", "0"]
    return words[0], float(words[1]), float(words[2])


def tell(began: float) -> None:
    """Say to the benchmark how long it took."""
    json.dump({"seconds": time.monotonic() - began}, sys.stdout)

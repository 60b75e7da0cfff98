"""Faults that are injected both into the platform and into one that lacks the mechanism that is to stand them.

Each applies its load, injects, waits until all jobs have ended (at most `within` seconds) and returns what is
wrong with the answers: nothing, where the platform is whole.
"""

from __future__ import annotations

import os
import signal
import threading
import time

import psycopg
from sqlalchemy import text

from kitaab_jobs.client import enqueue
from tests.devstack.observe import is_gone, wait_for
from tests.faults import answers
from tests.faults.answers import Problem
from tests.faults.kinds import MANY, SINGLE, TICK
from tests.faults.load import place
from tests.faults.stack import STARTS_WITHIN, Stack
from tests.faults.timing import ENDS_WITHIN, UNHURRIED

FOR_LONG = 60.0  # seconds that a job would take, were it not killed


def held_by_a_killed_process(stack: Stack, within: float = ENDS_WITHIN) -> list[Problem]:
    """A process dies with a single job, another one with a batch of which the third is at work."""
    stack.beat()
    stack.ready(stack.worker())
    accepted = place(stack.caller_url, SINGLE, [1], FOR_LONG)
    pids = {stack.wait_until_running(1)}
    accepted |= place(stack.caller_url, MANY, range(10, 15), 0.3)
    pids.add(stack.wait_until_running(14))
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: all(map(is_gone, pids)))
    assert len(pids) == 2
    return stack.problems(accepted, within=within)


def forgotten_by_redis(stack: Stack, within: float = ENDS_WITHIN) -> list[Problem]:
    """Redis is emptied while messages wait for a worker."""
    stack.beat()
    accepted = place(stack.caller_url, SINGLE, range(1, 4)) | place(stack.caller_url, MANY, range(10, 30))
    wait_until_published(stack, len(accepted))
    stack.flush_redis()
    stack.ready(stack.worker())
    return stack.problems(accepted, within=within)


def sent_again(stack: Stack, within: float = ENDS_WITHIN) -> list[Problem]:
    """A relay dies between publishing and commit, so that another one sends all of it once more."""
    accepted = place(stack.caller_url, SINGLE, range(1, 11)) | place(stack.caller_url, MANY, range(20, 60))
    dying = stack.beat(relay_dies="1")
    assert dying.popen.wait(timeout=STARTS_WITHIN) == 9
    stack.beat(relay_dies="1000000")  # which also does not hold back
    wait_until_published(stack, len(accepted))
    stack.ready(stack.worker())
    found = stack.problems(accepted, within=within)
    # The messages that are left find nothing to claim.
    wait_for(lambda: stack.waiting_messages() == 0, seconds=STARTS_WITHIN)
    return found or stack.problems(accepted, within=within)


def frozen(stack: Stack, within: float = ENDS_WITHIN) -> list[Problem]:
    """Two processes are stopped until their jobs were given to others; then they go on, and end their jobs too.

    One wakes up while its job runs a second time, the other when that has ended.
    """
    stack.beat(patience=UNHURRIED)
    for worker in [stack.worker("w1"), stack.worker("w2")]:
        stack.ready(worker)
    accepted = place(stack.caller_url, SINGLE, [1], 2.5, times=1) | place(
        stack.caller_url, SINGLE, [2], 5, times=2
    )
    first = {key: stack.wait_until_running(key) for key in accepted}
    wait_for(lambda: stack.open_transactions() == len(accepted))  # both have their answer, and hold it
    for pid in first.values():
        os.kill(pid, signal.SIGSTOP)
    wait_for(lambda: stack.wait_until_running(2) != first[2], seconds=STARTS_WITHIN)
    os.kill(first[2], signal.SIGCONT)
    ended = "SELECT count(*) FROM jobs.jobs WHERE args ->> 'key' = '1' AND finished_at IS NOT NULL"
    wait_for(lambda: stack.scalar(ended), seconds=STARTS_WITHIN)
    os.kill(first[1], signal.SIGCONT)
    wait_for(lambda: not stack.open_transactions(), seconds=STARTS_WITHIN)
    return stack.problems(accepted, within=within)


def contested(stack: Stack, within: float = ENDS_WITHIN) -> list[Problem]:
    """Four callers enqueue the same unique keys at once; then the platform runs what there is."""
    keys = range(1, 21)
    barrier = threading.Barrier(4)

    def call() -> None:
        with psycopg.connect(stack.caller_url) as connection:
            for key in keys:
                barrier.wait(timeout=STARTS_WITHIN)
                connection.execute("INSERT INTO jobs.orders VALUES (%s) ON CONFLICT DO NOTHING", [key])
                enqueue(connection, SINGLE, {"key": key}, unique_key=f"order {key}")
                connection.commit()

    callers = [threading.Thread(target=call) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(timeout=STARTS_WITHIN)
    stack.beat()
    stack.ready(stack.worker())
    return stack.problems(dict.fromkeys(keys, SINGLE.name), within=within)


def fired_by_three(stack: Stack, within: float = ENDS_WITHIN) -> list[Problem]:
    """Three beats have the same line, which fires each second."""
    for _ in range(3):
        stack.beat(tick="1")
    stack.ready(stack.worker())
    return fires_until(stack, 4, within)


def fires_until(stack: Stack, count: int, within: float) -> list[Problem]:
    """Wait for so many fires, pause the line, and return what is wrong with them when all jobs have ended."""
    fired = "SELECT count(DISTINCT fire_at) FROM jobs.fires WHERE outcome = 'fired'"
    wait_for(lambda: stack.scalar(fired) >= count, seconds=STARTS_WITHIN)
    with stack.owner.begin() as connection:
        connection.execute(text("UPDATE jobs.schedules SET paused_at = now()"))
    left = "SELECT count(*) FROM jobs.jobs WHERE schedule = :tick AND finished_at IS NULL"
    deadline = time.monotonic() + within
    while stack.scalar(left, tick=TICK.name) and time.monotonic() < deadline:
        time.sleep(0.05)
    with stack.owner.connect() as connection:
        return answers.fire_problems(connection)


def wait_until_published(stack: Stack, count: int) -> None:
    """Wait until so many jobs are marked as published."""
    published = "SELECT count(*) FROM jobs.jobs WHERE state = 'published'"
    wait_for(lambda: stack.scalar(published) == count, seconds=STARTS_WITHIN)


def whats(found: list[Problem]) -> set[str]:
    """Return what is wrong, without where."""
    return {problem.what for problem in found}

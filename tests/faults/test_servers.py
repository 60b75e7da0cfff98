"""Redis and PostgreSQL that stop, die, forget, and hang up."""

from __future__ import annotations

import time
from collections.abc import Callable

import psycopg
import pytest

from tests.devstack.observe import wait_for
from tests.faults import scenarios
from tests.faults.kinds import SINGLE
from tests.faults.load import Load, Orders, load, place
from tests.faults.stack import Stack, rate, say, seconds_until_back
from tests.faults.timing import ENDS_WITHIN, REDIS_STOPPED, RESTARTS, SEED, SOAK, TERMINATING, TO_DRAIN

# So long the load runs before a fault, to see the usual rate, and so long behind it.
BEFORE, BEHIND = (10.0, 10.0) if SOAK else (1.5, 1.0)


def test_what_redis_forgot_is_sent_again(plain: Stack) -> None:
    assert scenarios.forgotten_by_redis(plain) == []


def freeze(stack: Stack) -> None:
    stack.freeze_redis(REDIS_STOPPED)


def lose(stack: Stack) -> None:
    stack.lose_redis()


def flush(stack: Stack) -> None:
    stack.flush_redis()


@pytest.mark.parametrize("fault", [freeze, lose, flush])
def test_redis(plain: Stack, fault: Callable[[Stack], None]) -> None:
    """Stopped for a while; killed with -9 and started empty; emptied."""
    processes = [plain.beat(), plain.ready(plain.worker())]
    under_load(plain, f"Redis, {fault.__name__}", fault, {})
    assert [process.popen.poll() for process in processes] == [None, None]


def restart(stack: Stack) -> None:
    for _ in range(RESTARTS):
        stack.postgres.restart(immediate=True)
        time.sleep(1)


def hang_up(stack: Stack) -> None:
    """Twice a second end every connection, the callers' as well."""
    until = time.monotonic() + TERMINATING
    with psycopg.connect(stack.postgres.superuser_url, autocommit=True) as operator:
        while time.monotonic() < until:
            operator.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'kitaab'"
            )
            time.sleep(0.5)


@pytest.mark.parametrize("fault", [restart, hang_up])
def test_postgres(own_postgres: Stack, fault: Callable[[Stack], None]) -> None:
    """Killed as by a crash; and its connections ended twice a second."""
    processes = [own_postgres.beat(), own_postgres.ready(own_postgres.worker())]
    accepted: Orders = {}
    rates = [drained_in_a_second(own_postgres, accepted)] if SOAK else []
    callers = under_load(own_postgres, f"PostgreSQL, {fault.__name__}", fault, accepted)
    say(f"  {len(callers.in_doubt)} commits in doubt, of which {callers.found_of_doubt} were done")
    if SOAK:
        rates.append(drained_in_a_second(own_postgres, accepted | callers.accepted))
        say(f"  {rates[0]:.0f} jobs/s before, {rates[1]:.0f} after: {rates[1] / rates[0]:.0%}")
    assert [process.popen.poll() for process in processes] == [None, None]


def under_load(stack: Stack, name: str, fault: Callable[[Stack], None], before: Orders) -> Load:
    """Inject a fault while callers enqueue, compare the answers, and say how long until the rate was back."""
    with load(stack.caller_url, seed=SEED) as callers:
        wait_for(stack.finished)
        began = time.time()
        time.sleep(BEFORE)
        struck = time.time()
        fault(stack)
        over = time.time()
        time.sleep(BEHIND)
        # Until what was accepted meanwhile is done, and then as long as it takes to see a rate.
        wait_for(lambda: sum(at > over for at in stack.finished()) > 50, seconds=ENDS_WITHIN)
        time.sleep(BEHIND)
        accepted = callers.stop()
    found = stack.problems(before | accepted)
    finished = stack.finished()
    usual = rate(finished, began, struck)
    back = seconds_until_back(finished, usual, over)
    say(
        f"{name}, {over - struck:.1f} s: {len(accepted)} accepted, {len(found)} wrong; {usual:.0f} jobs/s before, "
        f"again after {back} s"
    )
    assert found == []
    return callers


def drained_in_a_second(stack: Stack, accepted: Orders) -> float:
    """Return how many jobs a second are done where many wait, and add them to `accepted`."""
    first = max(accepted, default=1_000_000) + 1
    started = time.monotonic()
    accepted |= place(stack.caller_url, SINGLE, range(first, first + TO_DRAIN))
    found = stack.problems(accepted, within=600)
    assert found == []
    return TO_DRAIN / (time.monotonic() - started)

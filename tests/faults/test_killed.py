"""Workers that are killed, stopped, or killed by what they run."""

from __future__ import annotations

import os
import random
import signal
import time

from tests.devstack.observe import is_gone, wait_for
from tests.faults import scenarios
from tests.faults.kinds import POISON, POISON_MANY, SINGLE
from tests.faults.load import load, place
from tests.faults.stack import Stack, pid_of, say
from tests.faults.timing import AGAIN_WITHIN, KILLS, SEED, UNHURRIED
from tests.runtime.processes import Process


def test_what_a_killed_process_held_runs_again(plain: Stack) -> None:
    assert scenarios.held_by_a_killed_process(plain) == []


def test_workers_killed_at_random_under_load(plain: Stack) -> None:
    """Parents and children, mostly those that hold a job. A parent is started again, as a supervisor does."""
    chance = random.Random(SEED)
    plain.beat()
    worker = plain.ready(plain.worker())
    again: list[float] = []

    # No more than is done within a second or two, so that what is rescued does not wait behind it for its turn.
    def is_room() -> bool:
        return plain.open_jobs() < 40

    with load(plain.caller_url, wait=0.2, seed=SEED, room=is_room) as callers:
        for number in range(1, KILLS + 1):
            time.sleep(chance.uniform(0.2, 1.2))
            parent = chance.random() < 0.4
            victim = worker.pid if parent else _child(plain, worker, chance)
            gone = [worker.pid, *worker.children] if parent else [victim]
            os.kill(victim, signal.SIGKILL)
            killed_at = time.monotonic()
            if parent:
                worker.popen.wait(timeout=10)
                worker = plain.worker()
            wait_for(lambda pids=gone: all(map(is_gone, pids)))  # type: ignore[misc]
            held = [row for row in plain.running() if pid_of(row.worker) in gone]
            wait_for(lambda rows=held: plain.started_again(rows), seconds=AGAIN_WITHIN)  # type: ignore[misc]
            if held:
                again.append(time.monotonic() - killed_at)
            what = "a parent" if parent else "a child"
            say(
                f"kill {number}: {what}, {len(held)} jobs held, again after {time.monotonic() - killed_at:.1f} s"
            )
            if parent:
                plain.ready(worker)
        accepted = callers.stop()
    found = plain.problems(accepted)
    longest = plain.scalar("SELECT max(extract(epoch FROM finished_at - created_at)) FROM jobs.jobs")
    say(
        f"{KILLS} kills, {len(again)} while jobs were held, again after {max(again):.1f} s at most; the longest "
        f"way from its enqueueing to its end {longest:.1f} s; "
        f"{len(accepted)} accepted, {len(found)} wrong"
    )
    assert found == []
    assert again, "no job was held by what was killed"
    # Also what a killed parent had taken and not begun, though messages always wait in the queue.
    assert longest < 2 * AGAIN_WITHIN


def _child(plain: Stack, worker: Process, chance: random.Random) -> int:
    """Return a process of the worker: mostly the first that runs a job, now and then any."""
    children = wait_for(lambda: worker.children)
    if chance.random() < 0.2:
        return chance.choice(children)

    def at_work() -> list[int]:
        return [pid for row in plain.running() if (pid := pid_of(row.worker)) in worker.children]

    return chance.choice(wait_for(at_work))


def test_a_frozen_process_comes_back_when_its_jobs_are_anothers(plain: Stack) -> None:
    assert scenarios.frozen(plain) == []


def test_poison_ends_dead_and_holds_up_nothing_else(plain: Stack) -> None:
    """One alone and one in the middle of a batch; what is even is no poison."""
    plain.beat(patience=UNHURRIED)
    plain.ready(plain.worker())
    poison = frozenset({1, 51})
    accepted = place(plain.caller_url, POISON, [1, *range(2, 12, 2)])
    accepted |= place(plain.caller_url, POISON_MANY, [*range(40, 50, 2), 51, *range(52, 80, 2)])
    accepted |= place(plain.caller_url, SINGLE, range(100, 110))
    found = plain.problems(accepted, poison)
    assert found == []
    rows = {row.key: row for row in plain.query("SELECT (args ->> 'key')::bigint AS key, * FROM jobs.jobs")}
    for key in poison:
        assert f"(attempt 2 of {POISON.max_attempts})" in rows[key].error
    late = [
        key
        for key, row in rows.items()
        if key not in poison and row.finished_at > rows[1].finished_at and row.name != POISON_MANY.name
    ]
    assert not late, "these waited for the poison"
    others = [row for row in rows.values() if row.name == POISON_MANY.name and row.key != 51]
    assert max(row.finished_at for row in others) < rows[51].finished_at
    assert {row.attempt for key, row in rows.items() if key not in poison} == {1}
    alone = {row.key for row in rows.values() if row.alone}
    assert alone == {key for key in rows if rows[key].name == POISON_MANY.name}

"""The checks can fail: without one of the mechanisms, the answers to the same fault are wrong, and it is said how."""

from __future__ import annotations

from sqlalchemy import text

from tests.faults import scenarios
from tests.faults.conftest import MakeStack
from tests.faults.stack import Stack
from tests.faults.timing import NO_RESCUE_IN


def test_without_the_claim_a_message_that_comes_again_is_an_effect_more(make_stack: MakeStack) -> None:
    found = scenarios.sent_again(make_stack(without="claim"))
    assert "double" in scenarios.whats(found)


def test_without_the_rescue_what_a_killed_process_held_is_lost(make_stack: MakeStack) -> None:
    stack = make_stack(without="rescue of running")
    found = scenarios.held_by_a_killed_process(stack, within=NO_RESCUE_IN)
    assert scenarios.whats(found) == {"lost", "unended"}
    assert {problem.key for problem in found} == {1, *range(10, 15)}


def test_without_the_rescue_what_redis_forgot_is_lost(make_stack: MakeStack) -> None:
    stack = make_stack(without="rescue of published")
    found = scenarios.forgotten_by_redis(stack, within=NO_RESCUE_IN)
    assert scenarios.whats(found) == {"lost", "unended"}
    assert {problem.key for problem in found} == {*range(1, 4), *range(10, 30)}


def test_without_the_attempt_a_job_ends_as_another_attempt_than_the_one_that_has_it(
    make_stack: MakeStack,
) -> None:
    found = scenarios.frozen(make_stack(without="attempt"))
    assert [(problem.what, problem.key) for problem in found] == [("attempt", 2)]


def test_without_the_condition_at_the_end_both_attempts_leave_an_effect(make_stack: MakeStack) -> None:
    found = scenarios.frozen(make_stack(without="settle"))
    assert {problem.key for problem in found if problem.what == "double"} == {1, 2}


def test_without_the_unique_index_callers_at_once_get_a_job_each(plain: Stack) -> None:
    define = "SELECT pg_get_functiondef('jobs.enqueue'::regproc)"
    body = str(plain.scalar(define))
    start, end = body.index("ON CONFLICT (name"), body.index("DO NOTHING", body.index("ON CONFLICT (name"))
    with plain.owner.begin() as connection:
        connection.execute(text("DROP INDEX jobs.uq_jobs_unique_key"))
        connection.exec_driver_sql(f"{body[:start]}ON CONFLICT {body[end:]}")
    found = scenarios.contested(plain)
    assert scenarios.whats(found) == {"rows", "double"}


def test_without_key_and_lock_a_fire_fires_with_each_beat(make_stack: MakeStack) -> None:
    stack = make_stack(without="lock of fires")
    with stack.owner.begin() as connection:
        connection.execute(text("ALTER TABLE jobs.fires DROP CONSTRAINT fires_pkey"))
    assert "double" in scenarios.whats(scenarios.fired_by_three(stack))

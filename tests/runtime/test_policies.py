"""The decisions, against the tables of docs/schedules.md and some cases beyond them."""

from __future__ import annotations

import datetime as dt
import itertools
import re
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kitaab_jobs.runtime.policies import (
    MOST_WAITING,
    ON_TIME,
    CatchUp,
    Overlap,
    Plan,
    Policy,
    Situation,
    decide,
    run_at,
)
from kitaab_jobs.timing import next_fires, parse, span
from tests.timing.examples import bounded

DOCS = (Path(__file__).parents[2] / "docs" / "schedules.md").read_text()
NOON = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)
HOUR = dt.timedelta(hours=1)


def table(heading: str) -> list[list[str]]:
    """The rows of the table whose header row begins so."""
    start = DOCS.index("\n| " + heading) + 1
    lines = DOCS[start:].splitlines()[2:]
    rows = itertools.takewhile(lambda line: line.startswith("|"), lines)
    found = [[cell.strip().strip("`") for cell in row.strip("|").split("|")] for row in rows]
    assert found
    return found


def actions(policy: Policy, fires: list[dt.datetime], at: Situation) -> list[str]:
    verdicts = decide(policy, fires, at)
    assert [verdict.fire_at for verdict in verdicts] == fires
    assert all(verdict.reason for verdict in verdicts if verdict.action != "fire")
    assert all(verdict.rule for verdict in verdicts if verdict.action != "fire")
    return [verdict.action for verdict in verdicts]


@pytest.mark.parametrize("row", table("catch_up | catch_up_window | 01:00 | 02:00 | 03:00"), ids=" ".join)
def test_catch_up_as_documented(row: list[str]) -> None:
    catch_up, window, *expected = row
    midnight = NOON.replace(hour=0)
    policy = Policy(catch_up, span(window), "allow")  # type: ignore[arg-type]
    at = Situation(midnight + 3 * HOUR + HOUR / 6)
    assert actions(policy, [midnight + n * HOUR for n in (1, 2, 3)], at) == expected


@pytest.mark.parametrize(
    "row",
    [*table("overlap | the run before | a fire comes"), *table("overlap | the run before | first")],
    ids=" ".join,
)
def test_overlap_as_documented(row: list[str]) -> None:
    overlap, before, *expected = row
    policy = Policy("all", None, overlap)  # type: ignore[arg-type]
    fires = [NOON + n * HOUR for n in range(len(expected))]
    at = Situation(fires[-1], running=None if before == "over" else before)
    assert actions(policy, fires, at) == expected


@pytest.mark.parametrize("row", table("line | zone | after | dst"), ids=" ".join)
def test_clock_changes_as_documented(row: list[str]) -> None:
    line, zone, after, dst, fires = row
    found = next_fires(parse(line, zone, dst=dst), dt.datetime.fromisoformat(after), len(fires.split()))
    assert " ".join(f"{fire:%m-%dT%H:%M}" for fire in found) == fires


@pytest.mark.parametrize("row", table("line | fires"), ids=lambda row: row[0])
def test_each_documented_line_can_be_read(row: list[str]) -> None:
    for line in re.findall(r"[^`]+", row[0].replace("`, `", "`")):
        assert parse(line).next_fire(NOON) > NOON


def test_every_policy_is_documented() -> None:
    assert {row[0] for row in table("catch_up | catch_up_window")} == set(get_args(CatchUp))
    assert {row[0] for row in table("overlap | the run before | a fire comes")} == set(get_args(Overlap))


def test_on_time_and_just_too_late() -> None:
    for policy, longest in ((Policy("skip"), ON_TIME), (Policy("all", HOUR, "allow"), HOUR)):
        assert actions(policy, [NOON], Situation(NOON + longest)) == ["fire"]
        assert actions(policy, [NOON], Situation(NOON + longest + dt.timedelta(seconds=1))) == ["missed"]


def test_where_more_is_due_than_was_looked_at_the_latest_is_not_among_it() -> None:
    fires = [NOON, NOON + HOUR]
    at = Situation(NOON + 5 * HOUR, complete=False)
    assert actions(Policy("latest"), fires, at) == ["missed", "missed"]
    assert actions(Policy("all", None, "allow"), fires, at) == ["fire", "fire"]


def test_a_paused_schedule_skips_whatever_else_holds() -> None:
    at = Situation(NOON, running="running", waiting=3, paused="paused by amira: holiday")
    for overlap in get_args(Overlap):
        assert actions(Policy("all", None, overlap), [NOON - HOUR, NOON], at) == ["skipped", "skipped"]


def test_what_waits_keeps_its_order_and_has_a_bound() -> None:
    queue = Policy("all", None, "queue")
    fires = [NOON + n * HOUR for n in range(3)]
    assert actions(queue, fires, Situation(fires[-1], waiting=1)) == ["wait"] * 3
    full = Situation(fires[-1], running="running", waiting=MOST_WAITING - 2)
    assert actions(queue, fires, full) == ["wait", "wait", "skipped"]


@bounded
@given(
    catch_up=st.sampled_from(get_args(CatchUp)),
    window=st.none() | st.timedeltas(dt.timedelta(seconds=1), dt.timedelta(days=2)),
    overlap=st.sampled_from(get_args(Overlap)),
    gaps=st.lists(st.integers(1, 20_000), min_size=1, max_size=12),
    late=st.integers(0, 20_000),
    running=st.none() | st.sampled_from(["ready", "running"]),
    waiting=st.integers(0, 3),
    complete=st.booleans(),
)
def test_whatever_the_policy(
    catch_up: CatchUp,
    window: dt.timedelta | None,
    overlap: Overlap,
    gaps: list[int],
    late: int,
    running: str | None,
    waiting: int,
    complete: bool,
) -> None:
    """Each fire has one verdict; nothing runs beside another run unless it may; nothing runs that is too late."""
    fires = [NOON + dt.timedelta(seconds=sum(gaps[:n])) for n in range(1, len(gaps) + 1)]
    now = fires[-1] + dt.timedelta(seconds=late)
    policy = Policy(catch_up, window, overlap)
    found = actions(policy, fires, Situation(now, running, waiting, complete=complete))
    starts = [
        fire for fire, action in zip(fires, found, strict=True) if action in ("fire", "wait", "replace")
    ]
    assert all(policy.longest is None or now - fire <= policy.longest for fire in starts)
    if catch_up != "all":
        assert len(starts) <= 1
        assert complete or not starts
        assert all(fire == fires[-1] for fire in starts)
    if overlap != "allow":
        assert found.count("fire") <= (0 if running or waiting else 1)
    else:
        assert "wait" not in found


class TestPlan:
    hourly = parse("@hourly")

    def test_bounds_are_included(self) -> None:
        plan = Plan(self.hourly, NOON, NOON + 2 * HOUR)
        assert plan.next_fire(NOON - 100 * HOUR) == NOON
        assert plan.next_fire(NOON + HOUR) == NOON + 2 * HOUR
        assert plan.next_fire(NOON + 2 * HOUR) is None
        assert plan.fires(NOON - 5 * HOUR, NOON + 9 * HOUR, 100) == [NOON, NOON + HOUR, NOON + 2 * HOUR]

    def test_the_end_of_the_calendar_is_an_end(self) -> None:
        assert Plan(self.hourly).next_fire(dt.datetime(9999, 12, 31, 23, 30, tzinfo=dt.UTC)) is None


class TestJitter:
    def test_is_within_its_bound_the_same_each_time_and_spread(self) -> None:
        fires = [NOON + n * HOUR for n in range(200)]
        offsets = [(run_at("a", fire, HOUR) - fire) / HOUR for fire in fires]
        assert offsets == [(run_at("a", fire, HOUR) - fire) / HOUR for fire in fires]
        assert all(0 <= offset < 1 for offset in offsets)
        assert all(any(n / 10 <= offset < (n + 1) / 10 for offset in offsets) for n in range(10))
        assert run_at("b", NOON, HOUR) != run_at("a", NOON, HOUR)

    def test_does_not_hang_on_the_zone_in_which_an_instant_is_written(self) -> None:
        karachi = NOON.astimezone(dt.timezone(5 * HOUR))
        assert run_at("a", karachi, HOUR) == run_at("a", NOON, HOUR)

    def test_none(self) -> None:
        assert run_at("a", NOON, dt.timedelta(0)) == NOON

"""What `progress explain` says of a goal is what the goal shows, entry by entry."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from fractions import Fraction
from math import floor

import pytest
from hypothesis import given
from sqlalchemy import Connection

from kitaab_jobs.errors import KitaabError, UsageError
from kitaab_jobs.progress import shown
from kitaab_jobs.progress.queries import reading
from tests.progress.diary import NOW, TODAY, Diary, Goal, Part, before, session_on
from tests.progress.test_oracle_agrees import EXAMPLES, Play, Script, bounded, in_a_world, scripts


def explain(
    connection: Connection, goal: Goal, now: dt.datetime = NOW, on: dt.date | None = None
) -> shown.Explanation:
    with session_on(connection) as session:
        return shown.explain(session, *goal, now=now, on=on)


def counted(found: shown.Explanation) -> list[dict[dt.date, Decimal]]:
    """Of each item, what its entries bring by day."""
    return [{one.entry.day: one.amount for one in item.counted} for item in found.items]


def reasons(found: shown.Explanation) -> list[dict[dt.date, str]]:
    """Of each item, why its entries do not count by day."""
    return [{one.entry.day: one.reason for one in item.left_out} for item in found.items]


def test_the_window_and_its_surroundings(diary: Diary) -> None:
    item = diary.item()
    merit = diary.merit(Part(item, 9), days=7, start=before(20))
    for days in (-1, 0, 6, 7, 21):
        diary.record(item, before(days), days + 2)
    found = explain(diary.connection, merit)
    assert str(found.items[0].window) == f"{before(6)} to {TODAY}"
    assert counted(found) == [{TODAY: 2, before(6): 8}]
    assert reasons(found) == [
        {
            before(-1): "its day has yet to come",
            before(7): f"before {before(6)}",
            before(21): f"before the merit's start on {before(20)}",
        }
    ]
    assert found.items[0].is_met


def test_a_target_has_one_window(diary: Diary) -> None:
    item = diary.item()
    target = diary.target(Part(item, 9), start=before(9), end=before(5))
    for days in (10, 9, 5, 4):
        diary.record(item, before(days), 1)
    found = explain(diary.connection, target)
    assert counted(found) == [{before(9): 1, before(5): 1}]
    assert reasons(found) == [
        {
            before(10): f"before the target's start on {before(9)}",
            before(4): f"after the target's end on {before(5)}",
        }
    ]


def test_without_a_duration_all_days_count(diary: Diary) -> None:
    item = diary.item()
    merit = diary.merit(Part(item, 9), start=TODAY)
    diary.record(item, before(300), 1)
    found = explain(diary.connection, merit)
    assert counted(found) == [{before(300): 1}]
    assert str(found.items[0].window) == f"all days until {TODAY}"


def test_scale_values(diary: Diary) -> None:
    item = diary.item(scale=True)
    good, bad = diary.values(2)
    merit = diary.merit(Part(item, 2, good))
    diary.record(item, TODAY, value=good)
    diary.record(item, before(1), value=bad)
    diary.record(item, before(2), 3)
    found = explain(diary.connection, merit)
    assert counted(found) == [{TODAY: 1}]
    assert reasons(found) == [{before(1): "another scale value", before(2): "no scale value"}]


def test_an_entry_without_a_count(diary: Diary) -> None:
    item = diary.item()
    [value] = diary.values()
    merit = diary.merit(Part(item, 2))
    diary.record(item, TODAY, value=value)
    assert reasons(explain(diary.connection, merit)) == [{TODAY: "no count"}]


def test_items_below_and_beside(diary: Diary) -> None:
    top, beside = diary.item(), diary.item()
    below = diary.item(top)
    merit = diary.merit(Part(top, 9))
    for item in (top, below, beside):
        diary.record(item, TODAY, 1)
    diary.record(diary.item(deed=diary.make_deed()), TODAY, 1)
    found = explain(diary.connection, merit)
    assert sorted(one.entry.item_id for one in found.items[0].counted) == [top, below]
    assert found.items[0].left_out == []
    assert [(one.entry.item_id, one.reason) for one in found.others] == [(beside, "another item")]


def test_the_window_that_completed_it(diary: Diary) -> None:
    item = diary.item()
    merit = diary.merit(Part(item, 2), days=7)
    diary.record(item, before(30), 1)
    diary.record(item, before(28), 1)
    assert diary.progress(merit).completed_on == before(28)
    assert counted(explain(diary.connection, merit)) == [{}]
    assert counted(explain(diary.connection, merit, on=before(28))) == [{before(30): 1, before(28): 1}]


def test_a_day_to_come_is_refused(diary: Diary) -> None:
    merit = diary.merit()
    with pytest.raises(UsageError, match="has yet to come"):
        explain(diary.connection, merit, on=before(-1))


@pytest.mark.parametrize("kind", ["merit", "target"])
@pytest.mark.parametrize("id", [0, -1, 2**63 - 1, 2**63, 10**30])
def test_no_such_goal(diary: Diary, kind: str, id: int) -> None:
    with pytest.raises(KitaabError, match=f"there is no {kind} {id}"):
        explain(diary.connection, (kind, id))


def test_it_says_that_a_mark_waits(diary: Diary) -> None:
    top = diary.item()
    below = diary.item(top)
    merit = diary.merit(Part(top, 2))
    diary.refresh()
    assert not explain(diary.connection, merit).mark_waits
    diary.record(below, TODAY, 1)
    assert explain(diary.connection, merit).mark_waits


def test_a_duration_longer_than_any_calendar(diary: Diary) -> None:
    item = diary.item()
    merit = diary.merit(Part(item, 2), days=2_147_483_647)
    diary.record(item, before(200), 1)
    assert counted(explain(diary.connection, merit)) == [{before(200): 1}]


@bounded(EXAMPLES // 4)
@given(script=scripts)
def test_it_says_what_the_goal_shows(connection: Connection, script: Script) -> None:
    """Of what its items hold in their windows, percent and satisfaction follow; they are those that are stored."""

    def play(world: Play) -> None:
        world.check(1000)
        for limit, happenings in script.rounds:
            for edit in happenings:
                getattr(world, edit.kind)(edit)
            world.check(limit)
        for key, goal in world.world.goals.items():
            if not goal.live or getattr(goal, "frozen", False):
                continue
            found = explain(connection, key, world.now)
            met = [item.is_met for item in found.items]
            is_satisfied = bool(met) and (all(met) if goal.logic == "AND" else any(met))
            assert is_satisfied == goal.shown.is_satisfied, key
            if goal.shown.completed_on is None:
                assert percent(goal.logic, found.items, found.goal) == goal.shown.percent, key

    in_a_world(connection, script, play)


def percent(logic: str, items: list[shown.Item], goal: reading.Goal) -> int:
    shares = [share(item, goal) for item in items]
    if not shares:
        return 0
    return min(99, floor(100 * (sum(shares) / len(shares) if logic == "AND" else max(shares))))


def share(item: shown.Item, goal: reading.Goal) -> Fraction:
    if not item.part.at_most:
        return min(Fraction(1), Fraction(item.done) / Fraction(item.part.target))
    whole = goal.days if goal.end is None else (goal.end - goal.start).days + 1
    if whole is None or item.done > item.part.target:
        return Fraction(0)
    return Fraction(item.recorded_days, whole)

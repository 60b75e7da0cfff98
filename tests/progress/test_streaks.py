"""Streaks: days in a row on which an item, or one below it, was recorded."""

from __future__ import annotations

import datetime as dt
import os
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, text

from tests.progress.diary import TODAY, Diary, before, make_years

EXAMPLES = int(os.environ.get("KITAAB_TEST_EXAMPLES", "40"))
DAY = dt.timedelta(days=1)


class Streak(NamedTuple):
    """What there is to say of one item."""

    current: int = 0
    since: dt.date | None = None
    longest: int = 0
    longest_since: dt.date | None = None
    last: dt.date | None = None


def streaks(connection: Connection, *items: int, today: dt.date = TODAY) -> dict[int, Streak]:
    rows = connection.execute(
        text("SELECT * FROM item_streaks(:items, :today)"), {"items": list(items), "today": today}
    )
    return {item: Streak(*streak) for item, *streak in rows}


def streak(diary: Diary, item: int, today: dt.date = TODAY) -> Streak:
    return streaks(diary.connection, item, today=today)[item]


def oracle(recorded: set[dt.date], today: dt.date) -> Streak:
    """The same, day by day."""
    recorded = {day for day in recorded if day <= today}
    at = today if today in recorded else today - DAY
    current = 0
    while at in recorded:
        current += 1
        at -= DAY
    longest, longest_since = 0, None
    for first in sorted(recorded):
        length = 0
        while first + length * DAY in recorded:
            length += 1
        if first - DAY not in recorded and length >= longest:
            longest, longest_since = length, first
    since = at + DAY if current else None
    return Streak(current, since, longest, longest_since, max(recorded, default=None))


def test_never_recorded(diary: Diary) -> None:
    assert streak(diary, diary.item()) == Streak()


def test_today_unrecorded_does_not_break_it(diary: Diary) -> None:
    item = diary.item()
    for days in (1, 2, 3):
        diary.record(item, before(days), 1)
    assert streak(diary, item) == Streak(3, before(3), 3, before(3), before(1))
    diary.record(item, TODAY, 1)
    assert streak(diary, item) == Streak(4, before(3), 4, before(3), TODAY)


def test_yesterday_unrecorded_does(diary: Diary) -> None:
    item = diary.item()
    for days in (2, 3, 4):
        diary.record(item, before(days), 1)
    assert streak(diary, item) == Streak(0, None, 3, before(4), before(2))
    diary.record(item, TODAY, 1)
    assert streak(diary, item) == Streak(1, TODAY, 3, before(4), TODAY)


def test_an_entry_of_zero_is_a_record(diary: Diary) -> None:
    """Who records that nothing happened has recorded: for a fault to be mended that is the good day."""
    item = diary.item()
    diary.record(item, before(1), 0)
    diary.record(item, TODAY, 5)
    assert streak(diary, item).current == 2


def test_what_is_below_counts_each_day_once(diary: Diary) -> None:
    top = diary.item()
    below = diary.item(diary.item(top))
    diary.record(top, TODAY, 1)
    diary.record(below, TODAY, 1)
    diary.record(below, before(1), 1)
    assert streak(diary, top).current == streak(diary, below).current == 2


def test_what_is_above_or_beside_does_not_count(diary: Diary) -> None:
    top = diary.item()
    item, beside = diary.item(top), diary.item(top)
    diary.record(top, TODAY, 1)
    diary.record(beside, TODAY, 1)
    assert streak(diary, item) == Streak()


def test_a_future_entry_is_of_no_use_yet(diary: Diary) -> None:
    item = diary.item()
    diary.record(item, before(-1), 1)
    assert streak(diary, item) == Streak()
    assert streak(diary, item, before(-1)).current == 1


def test_of_two_longest_the_later_is_shown(diary: Diary) -> None:
    item = diary.item()
    for days in (20, 19, 10, 9):
        diary.record(item, before(days), 1)
    assert streak(diary, item) == Streak(0, None, 2, before(10), before(9))


def test_over_a_leap_day_and_a_new_year(diary: Diary) -> None:
    item = diary.item()
    first, last = dt.date(2023, 12, 30), dt.date(2024, 3, 2)
    for days in range((last - first).days + 1):
        diary.record(item, first + days * DAY, 1)
    assert streak(diary, item, last) == Streak(64, first, 64, first, last)


@pytest.mark.parametrize("items", [[], [-1]])
def test_no_items(diary: Diary, items: list[int]) -> None:
    assert streaks(diary.connection, *items) == {}


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(
    parents=st.lists(st.integers(0, 5), min_size=1, max_size=5),
    entries=st.sets(st.tuples(st.integers(0, 5), st.integers(-2, 25)), max_size=60),
    shift=st.integers(-2, 3),
)
def test_the_oracle_agrees(
    connection: Connection, parents: list[int], entries: set[tuple[int, int]], shift: int
) -> None:
    """Random trees; a parent's number is taken among those made before it, or is none."""
    with connection.begin_nested() as savepoint:
        make_years(connection)
        diary = Diary(connection)
        items: list[int] = []
        above: dict[int, int | None] = {}
        for number, pick in enumerate(parents):
            parent = items[pick] if pick < number else None
            items.append(diary.item(parent))
            above[items[-1]] = parent
        days: dict[int, set[dt.date]] = {item: set() for item in items}
        for pick, ago in {(pick % len(items), ago) for pick, ago in entries}:
            diary.record(items[pick], before(ago), 1)
            at: int | None = items[pick]
            while at is not None:
                days[at].add(before(ago))
                at = above[at]
        today = before(shift)
        assert streaks(connection, *items, today=today) == {i: oracle(days[i], today) for i in items}
        savepoint.rollback()

"""Which partitions are planned: every day covered, none twice, and nothing that exists is touched."""

from __future__ import annotations

import datetime as dt
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kitaab_jobs.archive.rules import Span, month_of, plan, year_of

DAY = dt.timedelta(days=1)


def year(number: int) -> Span:
    return Span(dt.date(number, 1, 1), dt.date(number + 1, 1, 1))


def month(year_number: int, number: int) -> Span:
    return month_of(dt.date(year_number, number, 15))


def on(text: str) -> dt.date:
    return dt.date.fromisoformat(text)


@pytest.mark.parametrize(
    ("day", "span"),
    [
        ("2026-01-01", "2026-01-01 2026-02-01"),
        ("2026-12-31", "2026-12-01 2027-01-01"),
        ("2028-02-29", "2028-02-01 2028-03-01"),
    ],
)
def test_month_of(day: str, span: str) -> None:
    assert month_of(on(day)) == Span(*map(on, span.split()))


class TestPlan:
    def test_by_year(self) -> None:
        assert plan([], on("2026-11-20"), 400, "year") == [year(2026), year(2027)]

    def test_by_month(self) -> None:
        assert plan([], on("2026-11-20"), 60, "month") == [month(2026, 11), month(2026, 12), month(2027, 1)]

    def test_the_last_day_counts(self) -> None:
        assert plan([], on("2026-11-20"), 41, "month") == [month(2026, 11), month(2026, 12)]
        assert plan([], on("2026-11-20"), 42, "month")[-1] == month(2027, 1)

    def test_what_exists_is_enough(self) -> None:
        assert plan([year(2026), year(2027)], on("2026-11-20"), 400, "year") == []

    def test_only_what_is_missing(self) -> None:
        there = [month(2026, 12), month(2026, 11)]
        assert plan(there, on("2026-11-20"), 60, "month") == [month(2027, 1)]

    def test_what_is_past_is_left(self) -> None:
        assert plan([], on("2026-06-20"), 31, "month") == [month(2026, 6), month(2026, 7)]

    def test_from_years_to_months(self) -> None:
        assert plan([year(2026)], on("2026-11-20"), 73, "month") == [month(2027, 1), month(2027, 2)]

    def test_from_months_to_years_a_begun_year_is_filled_with_months(self) -> None:
        there = [month(2026, n) for n in range(1, 11)]
        assert plan(there, on("2026-11-20"), 60, "year") == [month(2026, 11), month(2026, 12), year(2027)]

    def test_a_month_that_was_made_far_ahead(self) -> None:
        made = plan([month(2027, 3)], on("2026-12-20"), 120, "year")
        assert made == [year(2026), month(2027, 1), month(2027, 2), month(2027, 4)]


SPANS = st.lists(
    st.tuples(st.sampled_from(["year", "month"]), st.dates(on("2020-01-01"), on("2035-12-31"))), max_size=40
)


@given(
    wanted=SPANS,
    today=st.dates(on("2021-01-01"), on("2033-12-31")),
    ahead=st.integers(31, 1200),
    by=st.sampled_from(["year", "month"]),
)
def test_every_day_once(wanted: list[tuple[str, dt.date]], today: dt.date, ahead: int, by: str) -> None:
    existing: list[Span] = []
    for kind, day in wanted:
        span = year_of(day) if kind == "year" else month_of(day)
        if not any(span.overlaps(other) for other in existing):
            existing.append(span)
    made = plan(existing, today, ahead, by)
    assert all(span in (year_of(span.lower), month_of(span.lower)) for span in made)
    together = sorted([*existing, *made])
    assert all(one.upper <= other.lower for one, other in pairwise(together))
    days = (today + n * DAY for n in range(ahead + 1))
    assert all(any(span.lower <= day < span.upper for span in together) for day in days)
    last = today + ahead * DAY
    assert all(span.lower <= last and span.upper > today for span in made), "more than was asked for"
    assert plan(together, today, ahead, by) == []
    assert plan(list(reversed(existing)), today, ahead, by) == made

"""History: what a goal showed at the end of each day."""

from __future__ import annotations

import datetime as dt
import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, text

from kitaab_jobs import contract
from kitaab_jobs.progress import jobs, rules
from kitaab_jobs.progress.queries import history
from kitaab_jobs.testing import assert_enqueued, assert_not_enqueued
from tests.progress.diary import NOW, TODAY, Diary, Goal, Part, before, make_years, session_on
from tests.progress.workers import PATIENCE, workers

EXAMPLES = int(os.environ.get("KITAAB_TEST_EXAMPLES", "12"))
DAY = dt.timedelta(days=1)


def rows(connection: Connection, goal: Goal) -> list[tuple[dt.date, int, bool]]:
    """What is stored of a goal."""
    kind, id = goal
    query = f"SELECT day, percent, is_satisfied FROM jobs.{kind}_history WHERE {kind}_id = :id ORDER BY day"
    return [
        (day, percent, satisfied) for day, percent, satisfied in connection.execute(text(query), {"id": id})
    ]


def chart(connection: Connection, goal: Goal, first: dt.date, last: dt.date) -> list[int]:
    """The percentages that a chart shows."""
    kind, id = goal
    with session_on(connection) as session:
        return [day.percent for day in history.read(session, kind, [id], first, last)[id]]


@pytest.fixture(params=["merit", "target"])
def goal(request: pytest.FixtureRequest, diary: Diary) -> tuple[Goal, int]:
    """A merit or a target that asks for four, and its item."""
    item = diary.item()
    part = Part(item, 4)
    made = (
        diary.merit(part) if request.param == "merit" else diary.target(part, start=before(5), end=before(-9))
    )
    return made, item


def test_the_last_of_a_day_is_kept(diary: Diary, goal: tuple[Goal, int]) -> None:
    made, item = goal
    for count in (1, 3, 2):
        diary.record(item, TODAY, count)
        diary.refresh()
    assert rows(diary.connection, made) == [(TODAY, 50, False)]


def test_a_day_without_a_change_has_no_row_and_shows_the_day_before(
    diary: Diary, goal: tuple[Goal, int]
) -> None:
    made, item = goal
    diary.record(item, TODAY, 1)
    diary.refresh(NOW)
    diary.record(item, TODAY, 1)
    diary.refresh(NOW + DAY)
    diary.record(item, TODAY, 4)
    diary.refresh(NOW + 3 * DAY)
    assert rows(diary.connection, made) == [(TODAY, 25, False), (before(-3), 100, True)]
    assert chart(diary.connection, made, before(1), before(-4)) == [0, 25, 25, 25, 100, 100]


def test_a_backdated_entry_changes_no_earlier_day(diary: Diary, goal: tuple[Goal, int]) -> None:
    made, item = goal
    diary.record(item, before(3), 2)
    diary.refresh()
    assert rows(diary.connection, made) == [(TODAY, 50, False)]


def test_reconcile_writes_it_too(diary: Diary) -> None:
    item = diary.item()
    merit = diary.merit(Part(item, 2), days=2)
    diary.record(item, TODAY, 1)
    diary.refresh()
    diary.reconcile(NOW + 5 * DAY)
    assert rows(diary.connection, merit) == [(TODAY, 50, False), (before(-5), 0, False)]


def test_the_day_is_the_persons(diary: Diary, goal: tuple[Goal, int]) -> None:
    made, item = goal
    diary.change_zone("Pacific/Kiritimati")
    diary.record(item, TODAY, 1)
    diary.refresh()
    assert rows(diary.connection, made) == [(before(-1), 25, False)]


def test_a_day_that_begins_again_is_written_again(diary: Diary, goal: tuple[Goal, int]) -> None:
    """Else the chart of the later day, when it comes again, would show what was shown before."""
    made, item = goal
    diary.change_zone("Pacific/Kiritimati")
    diary.record(item, before(1), 3)
    diary.refresh()
    diary.change_zone("Pacific/Pago_Pago")
    diary.record(item, before(1), 1)
    diary.refresh()
    assert rows(diary.connection, made) == [(TODAY, 25, False)]


def test_a_zone_that_nobody_knows_counts_as_utc(diary: Diary, goal: tuple[Goal, int]) -> None:
    made, item = goal
    diary.change_zone("no/zone")
    diary.record(item, TODAY, 1)
    diary.refresh()
    assert rows(diary.connection, made) == [(TODAY, 25, False)]


def test_it_is_written_with_the_goal_or_not_at_all(kept: Engine) -> None:
    with kept.begin() as connection:
        diary = Diary(connection)
        item = diary.item()
        merit = diary.merit(Part(item, 2))
        diary.record(item, TODAY, 1)
    with workers(kept, 1) as [worker]:
        worker.refresh()
        assert worker.do(lambda connection: rows(connection, merit)) == [(TODAY, 50, False)]
        worker.crash()
    with kept.begin() as connection:
        assert rows(connection, merit) == []
        diary.connection = connection
        diary.refresh()
        assert rows(connection, merit) == [(TODAY, 50, False)]


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(
    script=st.lists(
        st.lists(st.tuples(st.integers(0, 12), st.integers(0, 6)), max_size=3), min_size=2, max_size=12
    )
)
def test_a_chart_is_what_was_shown_at_the_end_of_each_day(
    connection: Connection, script: list[list[tuple[int, int]]]
) -> None:
    """Each day a few entries, each refreshed, and a reconcile at the end: what is shown then is written down."""
    with connection.begin_nested() as savepoint:
        make_years(connection)
        diary = Diary(connection)
        item = diary.item()
        merit, target = (
            diary.merit(Part(item, 20), days=3),
            diary.target(Part(item, 30), start=TODAY, end=before(-6)),
        )
        shown: dict[Goal, list[int]] = {merit: [], target: []}
        for number, edits in enumerate(script):
            now = NOW + number * DAY
            for ago, count in edits:
                diary.record(item, now.date() - ago * DAY, count)
                diary.refresh(now)
            diary.reconcile(now)
            for goal, percents in shown.items():
                percents.append(diary.shown(goal).percent)
        for goal, percents in shown.items():
            assert chart(connection, goal, TODAY, before(1 - len(script))) == percents
        savepoint.rollback()


class TestPurge:
    """History of days that no chart needs any more."""

    first = TODAY - rules.HISTORY_DAYS * DAY

    def fill(self, diary: Diary, goal: Goal, *days: int) -> None:
        """Write rows so many days before or after the first day that is kept."""
        for number, day in enumerate(days):
            diary.run(
                f"INSERT INTO jobs.{goal[0]}_history VALUES (:id, :day, :percent, false)",
                id=goal[1],
                day=self.first + day * DAY,
                percent=number,
            )

    def purge(self, diary: Diary, limit: int = 100) -> int:
        with session_on(diary.connection) as session:
            return jobs.purge_history(session, now=NOW, limit=limit).rows

    def test_the_charts_of_two_years_stay_as_they_are(self, diary: Diary, goal: tuple[Goal, int]) -> None:
        self.fill(diary, goal[0], -500, -30, -2, 3, 4)
        seen = chart(diary.connection, goal[0], self.first, TODAY)
        assert self.purge(diary) == 2
        assert [day - self.first for day, _, _ in rows(diary.connection, goal[0])] == [
            -2 * DAY,
            3 * DAY,
            4 * DAY,
        ]
        assert chart(diary.connection, goal[0], self.first, TODAY) == seen
        assert self.purge(diary) == 0

    def test_a_row_of_the_first_day_needs_none_before_it(self, diary: Diary, goal: tuple[Goal, int]) -> None:
        self.fill(diary, goal[0], -2, 0)
        assert self.purge(diary) == 1
        assert len(rows(diary.connection, goal[0])) == 1

    def test_a_goal_at_which_nothing_happened_keeps_its_last(
        self, diary: Diary, goal: tuple[Goal, int]
    ) -> None:
        self.fill(diary, goal[0], -900)
        assert self.purge(diary) == 0

    def test_it_goes_on_in_another_job_while_there_is_more(
        self, diary: Diary, goal: tuple[Goal, int]
    ) -> None:
        self.fill(diary, goal[0], *range(-5, 0))
        assert self.purge(diary, limit=3) == 3
        [_] = assert_enqueued(diary.connection, contract.PROGRESS_PURGE_HISTORY, {"limit": 3})
        diary.run("DELETE FROM jobs.jobs")
        assert self.purge(diary, limit=3) == 1
        assert_not_enqueued(diary.connection, contract.PROGRESS_PURGE_HISTORY)

    def test_rows_of_a_goal_that_is_being_deleted_are_passed_over(self, kept: Engine) -> None:
        """Whoever deletes goals one after the other would else wait for the purge, and the purge for them."""
        with kept.begin() as connection:
            diary = Diary(connection)
            merits = [diary.merit() for _ in range(2)]
            for merit in merits:
                self.fill(diary, merit, -3, -2)
        delete = text("DELETE FROM merits WHERE merit_id = :id")
        with workers(kept) as (worker, owner):
            owner.do(lambda connection: connection.execute(delete, {"id": merits[1][1]}))

            def purge(connection: Connection) -> int:
                connection.begin()
                diary.connection = connection
                return self.purge(diary)

            assert worker.do(purge) == 1
            second = owner.start(lambda connection: connection.execute(delete, {"id": merits[0][1]}))
            owner.wait_until_blocked(second)
            worker.commit()
            second.result(PATIENCE)
            owner.commit()
        with kept.connect() as connection:
            assert [rows(connection, merit) for merit in merits] == [[], []]

"""Reconcile: it finds whatever is wrong, repairs it, and says of each difference what can be seen of its cause."""

from __future__ import annotations

import datetime as dt

import pytest
from sqlalchemy import event, text

from kitaab_jobs.progress import jobs, rules
from tests.progress.diary import NOW, TODAY, Diary, Part, Progress, before, look, session_on

TOMORROW = NOW + dt.timedelta(days=1)


def causes(report: jobs.Reconciled) -> dict[str, int]:
    """The causes that were found, without those that were not."""
    return {cause: number for cause, number in report.differences.items() if number}


def drop_marks(diary: Diary) -> None:
    diary.run("DELETE FROM jobs.progress_marks")


def test_it_repairs_what_was_changed_behind_its_back(diary: Diary) -> None:
    item = diary.item()
    merit = diary.merit(Part(item, 2))
    diary.record(item, TODAY, 1)
    diary.progress(merit)
    diary.change(merit, percent=7)
    drop_marks(diary)
    report = diary.reconcile()
    assert (report.goals, report.marked, causes(report)) == (1, 1, {rules.DEFECT: 1})
    assert report.defects == [f"merit {merit[1]}"]
    assert diary.shown(merit) == Progress(50, False, None)
    assert causes(diary.reconcile()) == {}


@pytest.mark.parametrize("days", [None, 7])
@pytest.mark.parametrize("at_most", [False, True])
def test_an_entry_whose_mark_was_lost_is_a_defect(diary: Diary, days: int | None, at_most: bool) -> None:
    item = diary.item()
    diary.merit(Part(item, 2, at_most=at_most), days=days)
    target = diary.target(Part(item, 2, at_most=at_most), start=before(4), end=TODAY)
    diary.refresh()
    diary.record(item, before(1), 1)
    drop_marks(diary)
    report = diary.reconcile()
    expected = 2 if days or not at_most else 1  # at most, for ever, is never judged
    assert (report.marked, causes(report)) == (expected, {rules.DEFECT: expected})
    assert f"target {target[1]}" in report.defects


def test_a_completion_whose_mark_was_lost_is_a_defect_and_completes(diary: Diary) -> None:
    """It was reached in a window that is over: nothing of it shows in the window of today."""
    item = diary.item()
    merit = diary.merit(Part(item, 2), days=3)
    diary.refresh()
    diary.record(item, before(21), 1)
    diary.record(item, before(20), 1)
    drop_marks(diary)
    report = diary.reconcile()
    assert causes(report) == {rules.DEFECT: 1}
    assert diary.shown(merit) == Progress(100, False, before(20))


def test_a_goal_whose_mark_waits_is_no_defect(diary: Diary) -> None:
    top = diary.item()
    child = diary.item(top)
    by_item, by_mark = diary.merit(Part(top, 2)), diary.merit(Part(top, 4))
    diary.refresh()
    diary.record(child, TODAY, 1)
    assert causes(diary.reconcile()) == {rules.MARKED: 2}, "the child's mark is its parent's goals'"
    drop_marks(diary)
    diary.change(by_mark, is_active=False)
    diary.refresh()
    diary.change(by_mark, is_active=True, percent=1)
    assert causes(diary.reconcile()) == {rules.MARKED: 1}
    assert diary.shown(by_item) == Progress(50, False, None)


def test_a_mark_of_days_that_have_come_since_hides_no_defect(diary: Diary) -> None:
    """What is right for the day that it was computed for does not hang on them."""
    item = diary.item()
    wrong, *_ = (diary.merit(Part(item, 4), days=days) for days in (7, 7, 1))
    diary.record(item, TODAY, 1)
    diary.refresh()
    diary.change(wrong, percent=7)
    drop_marks(diary)
    diary.record(item, before(-1), 2)
    report = look(diary.connection, TOMORROW)
    assert (report.defects, causes(report)) == ([f"merit {wrong[1]}"], {rules.DEFECT: 1, rules.MARKED: 2})
    drop_marks(diary)
    diary.record(item, TODAY, 2)
    assert causes(look(diary.connection, TOMORROW)) == {rules.MARKED: 3}, "this one may be the reason"


def test_a_goal_that_was_never_computed(diary: Diary) -> None:
    item = diary.item()
    diary.merit(Part(item, 2))
    diary.record(item, TODAY, 1)
    drop_marks(diary)
    assert causes(diary.reconcile()) == {rules.NEW: 1}


def test_a_window_that_slid_is_no_defect(diary: Diary) -> None:
    item = diary.item()
    merit = diary.merit(Part(item, 2), days=3)
    diary.record(item, before(2), 1)
    assert diary.progress(merit).percent == 50
    assert causes(diary.reconcile(TOMORROW)) == {rules.SLID: 1}
    assert diary.shown(merit).percent == 0
    assert causes(diary.reconcile(TOMORROW)) == {}


def test_an_entry_whose_day_has_come_is_no_defect(diary: Diary) -> None:
    item = diary.item()
    merit = diary.merit(Part(item, 2), days=3)
    diary.record(item, before(-1), 1)
    assert diary.progress(merit).percent == 0
    assert causes(diary.reconcile(TOMORROW)) == {rules.DAY_BEGAN: 1}
    assert diary.shown(merit).percent == 50


def test_a_window_that_slid_hides_no_defect(diary: Diary) -> None:
    """What it shows is wrong for the day that it was computed for as well."""
    item = diary.item()
    merit = diary.merit(Part(item, 4), days=3)
    diary.record(item, before(2), 1)
    diary.record(item, before(1), 1)
    assert diary.progress(merit).percent == 50
    diary.record(item, before(1), 3)
    drop_marks(diary)
    assert causes(diary.reconcile(TOMORROW)) == {rules.DEFECT: 1}


def test_a_day_on_which_nothing_changed_is_remembered(diary: Diary) -> None:
    """Else what was right on the day before would be compared with entries that have changed since."""
    item = diary.item()
    merit = diary.merit(Part(item, 2), days=3)
    diary.record(item, before(2), 1)
    assert diary.progress(merit).percent == 50
    diary.erase(item, before(2))
    diary.record(item, TODAY, 1)
    assert diary.progress(merit, TOMORROW).percent == 50
    assert causes(diary.reconcile(NOW + dt.timedelta(days=3))) == {rules.SLID: 1}


@pytest.mark.parametrize("change", ["zone", "value"])
def test_a_new_zone_and_a_changed_scale_value_mark(diary: Diary, change: str) -> None:
    item = diary.item(scale=True)
    [value] = diary.values()
    diary.merit(Part(item, 2, value), days=3)
    diary.target(Part(item, 2, value), start=before(3), end=TODAY)
    diary.refresh()
    if change == "zone":
        diary.change_zone("Pacific/Kiritimati")
    else:
        diary.run("UPDATE scale_values SET value_name = 'better' WHERE scale_value_id = :v", v=value)
    [report] = diary.refresh()
    assert (report.marks, report.goals) == (2, 2)


def test_it_looks_closely_at_what_may_be_wrong_only(diary: Diary) -> None:
    item = diary.item()
    for days in (None, 3, 7, 30):
        diary.merit(Part(item, 50), days=days)
        diary.merit(Part(item, 1), days=days)
    for days in range(20):
        diary.record(item, before(days), 2)
    diary.refresh()
    report = diary.reconcile()
    assert (report.goals, report.looked_at) == (8, 0)


@pytest.mark.parametrize("length", [2, 3, 7, 30, 365, 999_999, 1_000_000, 2_147_483_647])
def test_the_scan_sees_a_window_to_the_day(diary: Diary, length: int) -> None:
    """Entries as far apart as a window is long are not in one window, and those a day closer are."""
    item = diary.item()
    first = dt.date(2023, 1, 1)
    apart = min(length, 400)
    diary.merit(Part(item, 2), days=length, start=first)
    diary.record(item, first, 1)
    diary.record(item, first + dt.timedelta(days=apart), 1)
    diary.refresh()
    with session_on(diary.connection) as session:
        report = jobs.reconcile(session, now=NOW)
    assert report.looked_at == 0
    drop_marks(diary)
    diary.move_entry(item, first, item, first + dt.timedelta(days=1))
    drop_marks(diary)
    report = diary.reconcile()
    is_reached = apart == length
    assert (report.looked_at > 0) == is_reached
    assert report.marked == is_reached


def test_it_locks_and_writes_no_goal_and_leaves_that_to_the_refresh(diary: Diary) -> None:
    """However much is wrong, the refresh computes it in batches with a commit each."""
    item = diary.item()
    merit = diary.merit(Part(item, 2))
    target = diary.target(Part(item, 2), start=before(3), end=TODAY)
    diary.record(item, TODAY, 1)
    diary.progress(merit)
    for goal in (merit, target):
        diary.change(goal, percent=7)
    drop_marks(diary)
    report = look(diary.connection)
    assert (report.marked, diary.shown(merit).percent, diary.shown(target).percent) == (2, 7, 7)
    [refresh] = diary.refresh()
    assert (refresh.marks, refresh.goals, refresh.changed) == (2, 2, 2)
    assert (diary.shown(merit).percent, diary.shown(target).percent) == (50, 50)
    assert diary.connection.scalar(
        text("SELECT count(*) FROM jobs.jobs WHERE name = 'progress.refresh' AND state = 'ready'")
    ), "a refresh follows, whether beat runs or not"


def test_it_marks_at_its_end(diary: Diary) -> None:
    """So that what it marks is no older than it must be, and waits for nothing but the commit."""
    item = diary.item()
    for goal in (diary.merit(Part(item, 2)), diary.target(Part(item, 2), start=before(3), end=TODAY)):
        diary.refresh()
        diary.change(goal, percent=7)
    drop_marks(diary)
    seen: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        seen.append("mark" if "INSERT INTO jobs.progress_marks" in statement else "look")

    event.listen(diary.connection, "before_cursor_execute", note)
    assert look(diary.connection).marked == 2
    event.remove(diary.connection, "before_cursor_execute", note)
    first = seen.index("mark")
    assert seen[first:] == ["mark", "mark", "look"], "the last one enqueues the refresh"


def test_what_reconcile_marks_is_computed_from_all_entries(diary: Diary) -> None:
    """Also when an entry has marked a later day, which alone would leave the old windows out."""
    item = diary.item()
    merit = diary.merit(Part(item, 2), days=3)
    diary.refresh()
    diary.record(item, before(21), 1)
    diary.record(item, before(20), 1)
    drop_marks(diary)
    diary.record(item, TODAY, 1)
    look(diary.connection)
    diary.refresh()
    assert diary.shown(merit).completed_on == before(20)

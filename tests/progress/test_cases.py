"""The cases of progress by name, each as short as it can be said."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DataError, IntegrityError

from kitaab_jobs.progress import jobs, rules
from kitaab_jobs.timing import local_date, zone_names
from tests.progress.diary import (
    NOW,
    TODAY,
    Diary,
    Part,
    Progress,
    before,
    reconcile,
    refresh_all,
    session_on,
    waiting_marks,
)
from tests.progress.workers import PATIENCE, refresh_once, workers

NOTHING = Progress(0, False, None)
WEEK = 7


def complete(day: dt.date, *, now: bool = True) -> Progress:
    """What a goal shows that was completed on `day`, and is satisfied now or not."""
    return Progress(100, now, day)


# --- the goal


def test_exactly_at_the_goal(diary: Diary) -> None:
    item = diary.item()
    merit = diary.merit(Part(item, 10))
    diary.record(item, before(1), 4)
    diary.record(item, TODAY, 6)
    assert diary.progress(merit) == complete(TODAY)


@pytest.mark.parametrize("done", [99, Decimal("99.99")])
def test_just_below_the_goal_shows_99(diary: Diary, done: Decimal) -> None:
    item = diary.item()
    merit = diary.merit(Part(item, 100))
    diary.record(item, TODAY, done)
    assert diary.progress(merit) == Progress(99, False, None)


def test_nearly_there_never_shows_100(diary: Diary) -> None:
    item = diary.item()
    merit = diary.merit(Part(item, Decimal("99999999.99")))
    diary.record(item, TODAY, Decimal("99999999.98"))
    assert diary.progress(merit) == Progress(99, False, None)


def test_thirds_and_sixths_that_make_a_half_show_50(diary: Diary) -> None:
    item = diary.item()
    merit = diary.merit(Part(item, 3), Part(item, 3), Part(item, 3), Part(item, 1))
    diary.record(item, TODAY, 1)
    assert diary.progress(merit) == Progress(50, False, None)


@pytest.mark.parametrize("goal", [0, -1])
@pytest.mark.parametrize("kind", ["merit", "target"])
def test_a_goal_that_is_not_above_zero_is_refused(diary: Diary, kind: str, goal: int) -> None:
    item = diary.item()
    made = diary.merit() if kind == "merit" else diary.target(start=TODAY, end=TODAY)
    with pytest.raises(IntegrityError, match=f"{kind}_items_target_is_positive"):
        diary.add_part(made, Part(item, goal))


def test_an_entry_of_zero_changes_nothing(diary: Diary) -> None:
    item = diary.item()
    merit = diary.merit(Part(item, 1))
    diary.record(item, TODAY, 0)
    assert diary.progress(merit) == NOTHING


# --- windows


def test_the_first_and_the_last_day_of_a_window_count(diary: Diary) -> None:
    item = diary.item()
    merit = diary.merit(Part(item, 2), days=WEEK)
    diary.record(item, before(6), 1)
    diary.record(item, TODAY, 1)
    assert diary.progress(merit) == complete(TODAY)


def test_the_day_after_the_window_does_not_count(diary: Diary) -> None:
    item = diary.item()
    merit = diary.merit(Part(item, 2), days=WEEK)
    diary.record(item, before(7), 1)
    diary.record(item, TODAY, 1)
    assert diary.progress(merit) == Progress(50, False, None)


def test_the_first_and_the_last_day_of_a_target_count(diary: Diary) -> None:
    item = diary.item()
    target = diary.target(Part(item, 2), start=before(20), end=before(10))
    diary.record(item, before(20), 1)
    diary.record(item, before(10), 1)
    assert diary.progress(target) == complete(before(10))


def test_the_days_around_a_target_do_not_count(diary: Diary) -> None:
    item = diary.item()
    target = diary.target(Part(item, 2), start=before(20), end=before(10))
    diary.record(item, before(21), 1)
    diary.record(item, before(9), 1)
    assert diary.progress(target) == NOTHING


def test_a_past_window_completes_and_is_not_satisfied_now(diary: Diary) -> None:
    item = diary.item()
    merit = diary.merit(Part(item, 2), days=WEEK)
    diary.record(item, before(30), 1)
    diary.record(item, before(28), 1)
    assert diary.progress(merit) == complete(before(28), now=False)


def test_a_backdated_entry_completes_an_earlier_window(diary: Diary) -> None:
    item = diary.item()
    merit = diary.merit(Part(item, 2), days=WEEK)
    diary.record(item, before(30), 1)
    assert diary.progress(merit) == NOTHING
    diary.record(item, before(33), 1)
    assert diary.progress(merit) == complete(before(30), now=False)


def test_a_backdated_entry_does_not_move_a_completion(diary: Diary) -> None:
    item = diary.item()
    merit = diary.merit(Part(item, 2), days=WEEK)
    diary.record(item, TODAY, 2)
    diary.progress(merit)
    diary.record(item, before(30), 2)
    assert diary.progress(merit) == complete(TODAY)


def test_a_window_that_begins_before_the_merit_is_cut_off(diary: Diary) -> None:
    item = diary.item()
    merit = diary.merit(Part(item, 2), days=WEEK, start=before(3))
    diary.record(item, before(4), 2)
    diary.record(item, before(3), 1)
    assert diary.progress(merit) == Progress(50, False, None)
    diary.record(item, before(1), 1)
    assert diary.progress(merit) == complete(before(1))


def test_without_a_duration_all_entries_count(diary: Diary) -> None:
    item = diary.item()
    merit = diary.merit(Part(item, 2), start=TODAY)
    diary.record(item, before(300), 1)
    diary.record(item, before(1), 1)
    assert diary.progress(merit) == complete(before(1))


def test_a_duration_longer_than_any_calendar(diary: Diary) -> None:
    """It once overflowed a date, and nobody's progress was computed any more."""
    item = diary.item()
    merit = diary.merit(Part(item, 2), days=2_147_483_647)
    diary.record(item, before(200), 1)
    diary.record(item, TODAY, 1)
    assert diary.progress(merit) == complete(TODAY)


def test_a_merit_that_begins_at_no_date_at_all(diary: Diary) -> None:
    item = diary.item()
    never = diary.merit(Part(item, 1), days=WEEK)
    always = diary.merit(Part(item, 1), days=WEEK)
    diary.run("UPDATE merits SET start_date = 'infinity' WHERE merit_id = :id", id=never[1])
    diary.run("UPDATE merits SET start_date = '-infinity' WHERE merit_id = :id", id=always[1])
    diary.record(item, TODAY, 1)
    assert diary.progress(never) == NOTHING
    assert diary.progress(always) == complete(TODAY)


def test_a_window_over_a_leap_day(diary: Diary) -> None:
    item = diary.item()
    three, two = diary.merit(Part(item, 2), days=3), diary.merit(Part(item, 2), days=2)
    diary.record(item, dt.date(2024, 2, 28), 1)
    diary.record(item, dt.date(2024, 3, 1), 1)
    assert diary.progress(three) == complete(dt.date(2024, 3, 1), now=False)
    assert diary.progress(two) == NOTHING


def test_a_window_across_a_clock_change_has_as_many_days(diary: Diary) -> None:
    """New York's clocks went forward on the 10th: at 04:30 in UTC on the 11th it is 00:30 there."""
    diary.change_zone("America/New_York")
    item = diary.item()
    three, two = diary.merit(Part(item, 2), days=3), diary.merit(Part(item, 2), days=2)
    diary.record(item, dt.date(2024, 3, 9), 1)
    diary.record(item, dt.date(2024, 3, 11), 1)
    now = dt.datetime(2024, 3, 11, 4, 30, tzinfo=dt.UTC)
    assert diary.progress(three, now) == complete(dt.date(2024, 3, 11))
    assert diary.progress(two, now) == Progress(50, False, None)


def test_an_end_before_the_start_is_refused(diary: Diary) -> None:
    with pytest.raises(IntegrityError, match="targets_end_not_before_start"):
        diary.target(start=TODAY, end=before(1))


def test_a_window_slides_on_while_nobody_writes(diary: Diary) -> None:
    item = diary.item()
    merit = diary.merit(Part(item, 1), Part(item, 2), days=WEEK, logic="OR")
    diary.record(item, TODAY, 1)
    diary.progress(merit)
    in_a_week = NOW + dt.timedelta(days=WEEK)
    assert diary.reconcile(in_a_week).marked == 1
    assert diary.shown(merit) == complete(TODAY, now=False)


# --- several items


def test_and_met_in_different_windows_is_not_complete(diary: Diary) -> None:
    one, other = diary.item(), diary.item()
    merit = diary.merit(Part(one, 1), Part(other, 1), days=WEEK)
    diary.record(one, before(10), 1)
    diary.record(other, before(3), 1)
    assert diary.progress(merit) == Progress(50, False, None)
    diary.record(other, before(4), 1)
    assert diary.progress(merit) == complete(before(4), now=False)


def test_or_with_one_impossible_item(diary: Diary) -> None:
    easy, impossible = diary.item(), diary.item()
    merit = diary.merit(Part(easy, 2), Part(impossible, Decimal("99999999.99")), logic="OR")
    diary.record(easy, before(1), 1)
    diary.record(impossible, before(1), 1)
    assert diary.progress(merit) == Progress(50, False, None)
    diary.record(easy, TODAY, 1)
    assert diary.progress(merit) == complete(TODAY)


@pytest.mark.parametrize("logic", ["AND", "OR"])
def test_without_items_nothing_is_ever_complete(diary: Diary, logic: str) -> None:
    merit = diary.merit(logic=logic)
    target = diary.target(logic=logic, start=before(1), end=TODAY)
    assert diary.progress(merit) == NOTHING
    assert diary.progress(target) == NOTHING


def test_the_last_item_taken_away_leaves_nothing(diary: Diary) -> None:
    item = diary.item()
    merit = diary.merit()
    part = diary.add_part(merit, Part(item, 2))
    diary.record(item, TODAY, 1)
    assert diary.progress(merit) == Progress(50, False, None)
    diary.remove_part("merit", part)
    assert diary.progress(merit) == NOTHING


def test_a_target_over_several_deeds(diary: Diary) -> None:
    one, other = diary.item(), diary.item(deed=diary.make_deed())
    target = diary.target(Part(one, 1), Part(other, 1), start=before(5), end=TODAY)
    diary.record(one, before(2), 1)
    diary.record(other, before(1), 1)
    assert diary.progress(target) == complete(before(1))


# --- at most


def test_at_most_is_met_when_its_window_is_over(diary: Diary) -> None:
    """Each day was recorded and the sum is right; but today may still bring more."""
    item = diary.item()
    merit = diary.merit(Part(item, 3, at_most=True), days=3, start=before(2))
    for days in range(3):
        diary.record(item, before(days), 1)
    assert diary.progress(merit) == Progress(66, False, None)
    tomorrow = NOW + dt.timedelta(days=1)
    diary.reconcile(tomorrow)
    assert diary.shown(merit) == complete(TODAY)


def test_at_most_with_a_missing_day_is_no_success(diary: Diary) -> None:
    item = diary.item()
    merit = diary.merit(Part(item, 3, at_most=True), days=3)
    target = diary.target(Part(item, 9, at_most=True), start=before(4), end=before(1))
    for days in (1, 2, 4, 5):
        diary.record(item, before(days), 0)
    assert diary.progress(merit) == Progress(66, False, None)
    assert diary.progress(target) == Progress(75, False, None)
    diary.record(item, before(3), 0)
    assert diary.progress(merit) == complete(before(3))
    assert diary.progress(target) == complete(before(1))


def test_at_most_nothing(diary: Diary) -> None:
    item = diary.item()
    merit = diary.merit(Part(item, 0, at_most=True), days=2)
    diary.record(item, before(2), 0)
    diary.record(item, before(1), Decimal("0.01"))
    assert diary.progress(merit) == NOTHING
    diary.record(item, before(3), 0)
    assert diary.progress(merit) == complete(before(2), now=False)


def test_exactly_at_most_and_a_hundredth_more(diary: Diary) -> None:
    item = diary.item()
    exactly = diary.merit(Part(item, Decimal("2.50"), at_most=True), days=1)
    less = diary.merit(Part(item, Decimal("2.49"), at_most=True), days=1)
    diary.record(item, before(1), Decimal("2.50"))
    assert diary.progress(exactly) == complete(before(1))
    assert diary.progress(less) == NOTHING


def test_at_most_needs_a_whole_window_since_the_merit_began(diary: Diary) -> None:
    item = diary.item()
    merit = diary.merit(Part(item, 9, at_most=True), days=3, start=before(2))
    for days in range(1, 8):
        diary.record(item, before(days), 1)
    assert diary.progress(merit) == Progress(66, False, None)


def test_at_most_of_a_scale_value_counts_every_recorded_day(diary: Diary) -> None:
    item = diary.item(scale=True)
    good, bad = diary.values(2)
    merit = diary.merit(Part(item, 1, bad, at_most=True), days=3)
    for days, value in ((1, good), (2, bad), (3, good)):
        diary.record(item, before(days), value=value)
    assert diary.progress(merit) == complete(before(1))


def test_at_most_of_an_item_counts_a_day_that_was_recorded_below_it(diary: Diary) -> None:
    top = diary.item()
    child = diary.item(top)
    merit = diary.merit(Part(top, 4, at_most=True), days=2)
    diary.record(top, before(2), 1)
    diary.record(child, before(2), 1)
    diary.record(child, before(1), 2)
    assert diary.progress(merit) == complete(before(1))


def test_at_most_of_a_target_is_judged_after_its_end(diary: Diary) -> None:
    item = diary.item()
    target = diary.target(Part(item, 9, at_most=True), start=before(1), end=TODAY)
    diary.record(item, before(1), 1)
    diary.record(item, TODAY, 1)
    assert diary.progress(target) == Progress(50, False, None)
    diary.reconcile(NOW + dt.timedelta(days=1))
    assert diary.shown(target) == complete(TODAY)


def test_at_most_for_ever_is_never_judged(diary: Diary) -> None:
    item = diary.item()
    merit = diary.merit(Part(item, 9, at_most=True))
    diary.record(item, before(1), 0)
    assert diary.progress(merit) == NOTHING


def test_at_least_and_at_most_in_the_same_window_that_is_over(diary: Diary) -> None:
    good, bad = diary.item(), diary.item()
    merit = diary.merit(Part(good, 2), Part(bad, 1, at_most=True), days=2)
    diary.record(good, before(1), 1)
    for days in range(3):
        diary.record(bad, before(days), 0)
    diary.record(good, TODAY, 1)
    assert diary.progress(merit) == Progress(75, False, None), "the window of today is not over"
    diary.record(good, before(2), 1)
    assert diary.progress(merit) == complete(before(1))


def test_at_least_or_at_most(diary: Diary) -> None:
    good, bad = diary.item(), diary.item()
    merit = diary.merit(Part(good, 2), Part(bad, 0, at_most=True), logic="OR", days=2)
    diary.record(good, TODAY, 2)
    assert diary.progress(merit) == complete(TODAY)


def test_an_edit_above_the_limit_after_completion_clears_nothing(diary: Diary) -> None:
    item = diary.item()
    merit = diary.merit(Part(item, 1, at_most=True), days=1)
    diary.record(item, before(1), 1)
    diary.progress(merit)
    diary.record(item, before(1), 5)
    assert diary.progress(merit) == complete(before(1), now=False)


# --- items above and below


def test_an_item_and_its_descendant_both_listed(diary: Diary) -> None:
    top = diary.item()
    below = diary.item(diary.item(top))
    merit = diary.merit(Part(top, 5), Part(below, 2))
    diary.record(below, TODAY, 2)
    assert diary.progress(merit) == Progress(70, False, None)
    diary.record(top, TODAY, 3)
    assert diary.progress(merit) == complete(TODAY)


def test_parent_and_child_entries_on_one_day(diary: Diary) -> None:
    parent = diary.item()
    child = diary.item(parent)
    whole, half = diary.merit(Part(parent, 3)), diary.merit(Part(child, 3))
    diary.record(parent, TODAY, 1)
    diary.record(child, TODAY, 2)
    assert diary.progress(whole) == complete(TODAY)
    assert diary.progress(half) == Progress(66, False, None)


def test_one_item_listed_twice(diary: Diary) -> None:
    item = diary.item()
    merit = diary.merit(Part(item, 2), Part(item, 4))
    diary.record(item, TODAY, 2)
    assert diary.progress(merit) == Progress(75, False, None)


def test_re_parenting_inside_a_window(diary: Diary) -> None:
    old, new = diary.item(), diary.item()
    child = diary.item(old)
    before_it, after_it = diary.merit(Part(old, 4), days=WEEK), diary.merit(Part(new, 4), days=WEEK)
    diary.record(child, before(1), 2)
    assert diary.progress(before_it).percent == 50
    diary.move(child, new)
    assert diary.progress(before_it) == NOTHING
    assert diary.progress(after_it).percent == 50
    diary.record(child, TODAY, 2)
    assert diary.progress(after_it) == complete(TODAY)


def test_a_branch_that_moves_and_then_splits_before_the_refresh(diary: Diary) -> None:
    root, other = diary.item(), diary.item()
    branch = diary.item(root)
    leaf = diary.item(branch)
    merit = diary.merit(Part(root, 2))
    diary.record(leaf, TODAY, 1)
    assert diary.progress(merit).percent == 50
    diary.move(leaf, other)
    diary.move(branch, None)
    assert diary.progress(merit) == NOTHING


def test_entries_of_a_deleted_item_still_count(diary: Diary) -> None:
    top = diary.item()
    child = diary.item(top)
    merit = diary.merit(Part(top, 4))
    diary.record(child, before(1), 2)
    diary.run("UPDATE deed_items SET deleted_at = now(), is_active = false WHERE deed_item_id = :i", i=child)
    assert diary.progress(merit) == Progress(50, False, None)


# --- scales


def test_a_scale_item_counts_the_entries_with_its_value(diary: Diary) -> None:
    item = diary.item(scale=True)
    good, bad = diary.values(2)
    merit = diary.merit(Part(item, 2, good))
    diary.record(item, before(2), value=good)
    diary.record(item, before(1), value=bad)
    assert diary.progress(merit) == Progress(50, False, None)
    diary.record(item, before(1), value=good)
    assert diary.progress(merit) == complete(before(1))


def test_a_scale_value_that_is_renamed_stays_the_same(diary: Diary) -> None:
    item = diary.item(scale=True)
    [good] = diary.values()
    merit = diary.merit(Part(item, 2, good))
    diary.record(item, before(1), value=good)
    diary.run("UPDATE scale_values SET value_name = 'better' WHERE scale_value_id = :value", value=good)
    diary.record(item, TODAY, value=good)
    assert diary.progress(merit) == complete(TODAY)


def test_the_values_of_a_new_version_are_others(diary: Diary) -> None:
    item = diary.item(scale=True)
    [old], [new] = diary.values(), diary.values(version=2)
    merit = diary.merit(Part(item, 2, old))
    diary.record(item, before(1), value=old)
    diary.record(item, TODAY, value=new)
    assert diary.progress(merit) == Progress(50, False, None)


def test_a_scale_value_in_use_cannot_be_removed(diary: Diary) -> None:
    item = diary.item(scale=True)
    [good] = diary.values()
    diary.record(item, TODAY, value=good)
    with pytest.raises(IntegrityError):
        diary.run("DELETE FROM scale_values WHERE scale_value_id = :value", value=good)


# --- edits


def test_an_edit_below_the_goal_clears_nothing(diary: Diary) -> None:
    item = diary.item()
    merit = diary.merit(Part(item, 10))
    diary.record(item, TODAY, 10)
    diary.progress(merit)
    diary.record(item, TODAY, 1)
    assert diary.progress(merit) == complete(TODAY, now=False)


def test_completing_again_is_no_second_completion(diary: Diary) -> None:
    """Not even at the same instant: jobs that are claimed together have the same."""
    item = diary.item()
    merit = diary.merit(Part(item, 10))
    completions, instants = 0, set()
    for count in (10, 1, 12):
        diary.record(item, TODAY, count)
        completions += sum(report.merits_completed for report in diary.refresh())
        instants.add(
            diary.connection.scalar(
                text("SELECT completed_at FROM merits WHERE merit_id = :id"), {"id": merit[1]}
            )
        )
    assert completions == 1
    assert instants == {NOW}
    assert diary.progress(merit) == complete(TODAY)


def test_delete_of_the_only_entry(diary: Diary) -> None:
    item = diary.item()
    merit = diary.merit(Part(item, 10))
    diary.record(item, TODAY, 5)
    assert diary.progress(merit) == Progress(50, False, None)
    diary.erase(item, TODAY)
    assert diary.progress(merit) == NOTHING


def test_delete_of_the_entry_that_completed(diary: Diary) -> None:
    item = diary.item()
    merit = diary.merit(Part(item, 10))
    diary.record(item, TODAY, 10)
    diary.progress(merit)
    diary.erase(item, TODAY)
    assert diary.progress(merit) == complete(TODAY, now=False)


def test_a_second_entry_on_the_same_day_replaces_the_first(diary: Diary) -> None:
    item = diary.item()
    merit = diary.merit(Part(item, 10))
    diary.record(item, TODAY, 6)
    diary.record(item, TODAY, 4)
    assert diary.progress(merit) == Progress(40, False, None)


def test_a_target_that_is_edited_after_its_completion(diary: Diary) -> None:
    item = diary.item()
    target = diary.target(Part(item, 3), start=before(20), end=TODAY)
    diary.record(item, before(15), 3)
    assert diary.progress(target) == complete(before(15))
    diary.change(target, start_date=before(14))
    assert diary.progress(target) == complete(before(15), now=False)
    diary.change(target, start_date=before(20), end_date=before(1))
    assert diary.progress(target) == complete(before(15))


def test_a_deleted_goal_keeps_what_it_showed_and_catches_up_when_restored(diary: Diary) -> None:
    item = diary.item()
    merit = diary.merit(Part(item, 10))
    diary.record(item, before(1), 5)
    diary.progress(merit)
    diary.change(merit, deleted_at=NOW)
    diary.record(item, TODAY, 5)
    assert diary.progress(merit) == Progress(50, False, None)
    diary.change(merit, deleted_at=None)
    assert diary.progress(merit) == complete(TODAY)


# --- the end of a target


def frozen(diary: Diary, target: tuple[str, int]) -> bool:
    return bool(
        diary.connection.scalar(
            text("SELECT frozen_at IS NOT NULL FROM targets WHERE target_id = :id"), {"id": target[1]}
        )
    )


def test_a_target_is_live_for_two_days_after_its_end_and_then_freezes(diary: Diary) -> None:
    item = diary.item()
    target = diary.target(Part(item, 4), start=before(10), end=TODAY)
    diary.record(item, before(3), 1)
    two_days_later = NOW + dt.timedelta(days=2)
    assert diary.progress(target, two_days_later) == Progress(25, False, None)
    assert not frozen(diary, target)
    diary.record(item, before(2), 1)
    diary.refresh(two_days_later + dt.timedelta(hours=12))
    assert frozen(diary, target), "the third day has begun; what was recorded until then counts"
    assert diary.shown(target) == Progress(50, False, None)
    diary.record(item, before(1), 2)
    assert diary.progress(target, NOW + dt.timedelta(days=3)) == Progress(50, False, None)


def test_a_target_freezes_without_a_mark(diary: Diary) -> None:
    target = diary.target(Part(diary.item(), 4), start=before(10), end=TODAY)
    diary.refresh()
    assert not frozen(diary, target)
    diary.refresh(NOW + dt.timedelta(days=3))
    assert frozen(diary, target)


def test_the_days_after_the_end_are_the_persons_own(diary: Diary) -> None:
    """At noon in UTC the third day after has begun in Kiritimati, and not yet in Pago Pago."""
    diary.change_zone("Pacific/Pago_Pago")
    target = diary.target(Part(diary.item(), 4), start=before(10), end=before(2))
    diary.refresh()
    assert not frozen(diary, target)
    diary.change_zone("Pacific/Kiritimati")
    diary.refresh()
    assert frozen(diary, target)


def test_many_targets_whose_time_is_up_freeze_in_bounded_batches(diary: Diary) -> None:
    targets = [diary.target(start=before(10), end=before(5)) for _ in range(5)]
    diary.run("DELETE FROM jobs.progress_marks")
    with session_on(diary.connection) as session:
        report = jobs.refresh(session, now=NOW, limit=2)
    assert (report.marks, report.goals) == (0, 2)
    assert sum(frozen(diary, target) for target in targets) == 2
    follow_up = "SELECT count(*) FROM jobs.jobs WHERE name = 'progress.refresh'"
    assert diary.connection.scalar(text(follow_up)) == 1


def test_a_new_end_lets_a_frozen_target_go_on(diary: Diary) -> None:
    item = diary.item()
    target = diary.target(Part(item, 4), start=before(10), end=before(5))
    diary.refresh()
    assert frozen(diary, target)
    diary.record(item, before(4), 2)
    diary.change(target, end_date=before(-5))
    assert diary.progress(target) == Progress(50, False, None)
    assert not frozen(diary, target)


# --- days and zones


def test_a_future_dated_entry_counts_from_its_day_on(diary: Diary) -> None:
    item = diary.item()
    merit = diary.merit(Part(item, 2))
    target = diary.target(Part(item, 2), start=before(3), end=before(-3))
    diary.record(item, before(-1), 2)
    assert diary.progress(merit) == diary.progress(target) == NOTHING
    tomorrow = NOW + dt.timedelta(days=1)
    diary.reconcile(tomorrow)
    assert diary.shown(merit) == diary.shown(target) == complete(before(-1))


@pytest.mark.parametrize(
    ("zone", "hour", "today"),
    [
        ("Pacific/Kiritimati", 12, before(-1)),
        ("Pacific/Pago_Pago", 12, TODAY),
        ("no/zone", 12, TODAY),
        ("America/New_York", 3, before(1)),
        ("UTC", 3, TODAY),
        ("Asia/Tokyo", 15, before(-1)),
        ("Asia/Tokyo", 14, TODAY),
    ],
)
def test_today_is_the_persons_own(diary: Diary, zone: str, hour: int, today: dt.date) -> None:
    now = NOW.replace(hour=hour)
    diary.change_zone(zone)
    item = diary.item()
    merit = diary.merit(Part(item, 1))
    diary.record(item, today + dt.timedelta(days=1), 1)
    assert diary.progress(merit, now) == NOTHING
    diary.record(item, today, 1)
    assert diary.progress(merit, now) == complete(today)


@pytest.mark.parametrize("hour", [0, 6, 12, 20])
def test_where_no_other_date_is_given_it_is_utcs(hour: int) -> None:
    now = NOW.replace(hour=hour)
    given = rules.today_everywhere(now)
    for zone in zone_names():
        assert given.get(zone, given["UTC"]) == local_date(now, zone), zone


def test_a_zone_change_that_repeats_a_date(diary: Diary) -> None:
    """From the first zone of the day to the last one: yesterday begins again, today is not yet."""
    diary.change_zone("Pacific/Kiritimati")
    item = diary.item()
    merit = diary.merit(Part(item, 2))
    diary.record(item, before(-1), 2)
    assert diary.progress(merit) == complete(before(-1))
    diary.change_zone("Pacific/Pago_Pago")
    diary.reconcile()
    assert diary.shown(merit) == complete(before(-1), now=False)


def test_a_zone_change_that_skips_a_date(diary: Diary) -> None:
    diary.change_zone("Pacific/Pago_Pago")
    item = diary.item()
    merit = diary.merit(Part(item, 2), days=2)
    diary.record(item, TODAY, 1)
    diary.record(item, before(-1), 1)
    assert diary.progress(merit) == Progress(50, False, None)
    diary.change_zone("Pacific/Kiritimati")
    diary.reconcile()
    assert diary.shown(merit) == complete(before(-1))


# --- amounts


def test_a_bulk_import_by_copy(diary: Diary) -> None:
    item = diary.item()
    merit, unmet = diary.merit(Part(item, 50), days=100), diary.merit(Part(item, 400))
    driver = diary.connection.connection.driver_connection
    assert driver is not None
    with driver.cursor().copy(
        "COPY entries (user_id, deed_item_id, entry_date, count_value) FROM STDIN"
    ) as copy:
        for days in range(200):
            copy.write_row((diary.person, item, before(days), 1))
    assert waiting_marks(diary.connection) == 5, (
        "two for the merits, two for their items, one for all entries"
    )
    assert diary.progress(merit) == complete(before(150))
    assert diary.progress(unmet) == Progress(50, False, None)


def test_decimal_sums_are_exact(diary: Diary) -> None:
    item = diary.item()
    merit = diary.merit(Part(item, 1))
    for days in range(10):
        diary.record(item, before(days), Decimal("0.10"))
    assert diary.progress(merit) == complete(TODAY)


def test_sums_beyond_what_one_entry_can_hold(diary: Diary) -> None:
    top = diary.item()
    largest = Decimal("99999999.99")
    merit = diary.merit(Part(top, largest), days=1)
    for _ in range(3):
        diary.record(diary.item(top), before(5), largest)
    assert diary.progress(merit) == complete(before(5), now=False)


def test_an_amount_too_large_for_an_entry_is_refused(diary: Diary) -> None:
    item = diary.item()
    with pytest.raises(DataError, match="numeric field overflow"):
        diary.record(item, TODAY, Decimal("100000000"))


def test_merits_of_one_person_in_the_thousands(diary: Diary) -> None:
    item = diary.item()
    diary.run(
        "INSERT INTO merits (user_id, deed_id, name, start_date, duration_days)"
        " SELECT :person, :deed, n::text, :start, nullif(n % 30, 0) FROM generate_series(1, 3000) AS n",
        person=diary.person,
        deed=diary.deed,
        start=before(40),
    )
    diary.run(
        "INSERT INTO merit_items (merit_id, deed_id, deed_item_id, item_type, target_value)"
        " SELECT merit_id, deed_id, :item, 'count', name::integer % 10 + 1 FROM merits",
        item=item,
    )
    diary.record(item, before(1), 5)
    assert sum(report.merits_completed for report in diary.refresh()) == 1500
    diary.record(item, TODAY, 5)
    [report] = diary.refresh()
    # Goals of 6 to 10 need both days.
    assert (report.marks, report.goals, report.merits_completed) == (1, 3000, 1500)
    assert diary.reconcile().marked == 0


# --- at once


def two_items_for_one_merit(engine: Engine) -> tuple[int, int, tuple[str, int]]:
    """Two items, each of which was recorded today in its own transaction, and a merit that needs both."""
    with engine.begin() as connection:
        diary = Diary(connection)
        one, other = diary.item(), diary.item()
        merit = diary.merit(Part(one, 1), Part(other, 1))
        refresh_all(connection)
    for item in (one, other):
        with engine.begin() as connection:
            diary.connection = connection
            diary.record(item, TODAY, 1)
    return one, other, merit


def shown(engine: Engine, goal: tuple[str, int]) -> Progress:
    with engine.connect() as connection:
        row = connection.execute(
            text("SELECT percent, is_satisfied, completed_on FROM merits WHERE merit_id = :id"),
            {"id": goal[1]},
        )
        return Progress(*row.one())


def test_two_workers_completing_at_once(kept: Engine) -> None:
    _, _, merit = two_items_for_one_merit(kept)
    with workers(kept) as (first, second):
        done, late = first.refresh(limit=1), second.refresh(limit=1)
        second.commit()
        first.commit()
    assert (done.merits_completed, late.merits_completed, late.postponed) == (1, 0, 1)
    assert shown(kept, merit) == complete(TODAY)
    with kept.begin() as connection:
        assert [(report.marks, report.changed) for report in refresh_all(connection)] == [(1, 0)]


@pytest.mark.parametrize("held", [0, 1])
def test_a_worker_that_finds_a_goal_held_loses_nothing_of_it(kept: Engine, held: int) -> None:
    """It leaves one merit to later, while an entry comes that completes the other, and is computed by a second."""
    with kept.begin() as connection:
        diary = Diary(connection)
        item, later = diary.item(), diary.item()
        parts = [(Part(item, 1), Part(later, 1)), (Part(item, 2),)]
        merits = [diary.merit(*parts[0 if n != held else 1]) for n in range(2)]
        refresh_all(connection)
        diary.record(item, TODAY, 1)
    with workers(kept, 3) as (person, slow, quick):
        rename = text("UPDATE merits SET name = 'new' WHERE merit_id = :id")
        person.do(lambda connection: connection.execute(rename, {"id": merits[held][1]}))
        assert slow.refresh().postponed == 1
        with kept.begin() as connection:
            diary.connection = connection
            diary.record(later, TODAY, 1)
        assert quick.refresh().postponed == 1, "the first worker still holds the other merit"
        for worker in (quick, slow, person):
            worker.commit()
    with kept.begin() as connection:
        refresh_all(connection)
        assert reconcile(connection).marked == 0
    assert shown(kept, merits[1 - held]) == complete(TODAY)
    assert shown(kept, merits[held]) == Progress(50, False, None)


def test_many_workers_at_overlapping_goals_in_any_order(kept: Engine) -> None:
    """Writers and workers at once: each completion is counted once, and nobody deadlocks."""
    with kept.begin() as connection:
        diary = Diary(connection)
        top = diary.item()
        items = [diary.item(top) for _ in range(6)]
        for n in range(12):
            diary.merit(Part(items[n % 6], 3), Part(items[(n * 5 + 1) % 6], 2), logic=("AND", "OR")[n % 2])
            diary.merit(Part(top, 10 + n), Part(items[n % 6], 3), days=n + 1)
            diary.target(Part(items[-n % 6], 4), Part(top, 20), start=before(10), end=TODAY)
        person = diary.person

    def write(worker: int) -> None:
        record = text(
            "INSERT INTO entries (user_id, deed_item_id, entry_date, count_value) VALUES (:p, :i, :d, 1)"
        )
        for day in range(worker, 12, 2):
            for item in items[:: 1 - 2 * worker]:
                with kept.begin() as connection:
                    connection.execute(record, {"p": person, "i": item, "d": before(day)})

    def work() -> list[jobs.Report]:
        reports = []
        while not writers_done() or left():
            with kept.begin() as connection:
                reports.append(refresh_once(connection, limit=4))
        return reports

    def writers_done() -> bool:
        return all(writer.done() for writer in writers)

    def left() -> int:
        with kept.connect() as connection:
            return waiting_marks(connection)

    with ThreadPoolExecutor(6) as threads:
        writers = [threads.submit(write, n) for n in range(2)]
        runs = [threads.submit(work) for _ in range(4)]
        reports = [report for run in runs for report in run.result(60)]
        for writer in writers:
            writer.result()
    with kept.begin() as connection:
        completed = [
            connection.scalar(text(f"SELECT count(*) FROM {kind}s WHERE completed_at IS NOT NULL"))
            for kind in ("merit", "target")
        ]
        assert reconcile(connection).marked == 0
    assert completed == [sum(r.merits_completed for r in reports), sum(r.targets_completed for r in reports)]


def test_a_crash_between_compute_and_commit_leaves_the_marks(kept: Engine) -> None:
    _, _, merit = two_items_for_one_merit(kept)
    with workers(kept, 1) as [worker]:
        assert worker.refresh().merits_completed == 1
        worker.crash()
    assert shown(kept, merit) == NOTHING
    with kept.begin() as connection:
        assert waiting_marks(connection) == 2
        assert sum(report.merits_completed for report in refresh_all(connection)) == 1
    assert shown(kept, merit) == complete(TODAY)


@pytest.mark.parametrize("first", ["refresh", "delete"])
def test_a_person_is_deleted_in_mid_run(kept: Engine, first: str) -> None:
    two_items_for_one_merit(kept)

    def delete(connection: Connection) -> None:
        connection.execute(text("DELETE FROM users"))

    order: list[Callable[[Connection], object]]
    order = [refresh_once, delete] if first == "refresh" else [delete, refresh_once]
    with workers(kept) as (one, other):
        one.do(order[0])
        second = other.start(order[1])
        assert other.wait_until_blocked_or_done(second) == (first == "refresh"), "a refresh waits for nobody"
        one.commit()
        second.result(PATIENCE)
        other.commit()
    with kept.begin() as connection:
        refresh_all(connection)
        assert reconcile(connection).goals == 0
        assert connection.scalar(text("SELECT count(*) FROM merits")) == 0


def test_an_archived_item_counts_on(diary: Diary) -> None:
    item = diary.item()
    merit = diary.merit(Part(item, 4))
    diary.record(item, before(1), 2)
    diary.run("UPDATE deed_items SET is_active = false WHERE deed_item_id = :i", i=item)
    diary.record(item, TODAY, 2)
    assert diary.progress(merit) == complete(TODAY)


# --- what a refresh need not look at again, and what it must


LATER = NOW + dt.timedelta(days=10)


def test_a_window_that_was_reached_while_nothing_was_marked_is_found_later(diary: Diary) -> None:
    """Entries dated ahead: their days come without a mark, and the next mark is of a later day."""
    item = diary.item()
    merit = diary.merit(Part(item, 2), days=2)
    diary.record(item, before(-1), 1)
    diary.record(item, before(-2), 1)
    diary.refresh()
    diary.record(item, before(-10), 1)
    diary.refresh(LATER)
    assert diary.shown(merit) == Progress(100, False, before(-2))


def test_at_most_of_the_day_that_was_not_over_is_found_later(diary: Diary) -> None:
    item = diary.item()
    merit = diary.merit(Part(item, 0, at_most=True), days=1, start=TODAY)
    diary.record(item, TODAY, 0)
    diary.refresh()
    assert diary.shown(merit).completed_on is None
    diary.record(item, before(-10), 5)
    diary.refresh(LATER)
    assert diary.shown(merit) == Progress(100, False, TODAY)


@pytest.mark.parametrize("days", [1, 2, 3, 7])
@pytest.mark.parametrize("is_inside", [True, False])
def test_the_last_window_that_holds_a_changed_day_is_looked_at(
    diary: Diary, days: int, is_inside: bool
) -> None:
    """It ends so many days later, and so does its other entry, or a day after it."""
    item = diary.item()
    merit = diary.merit(Part(item, 2), days=days)
    last = before(30 - days + is_inside)
    diary.record(item, last, 1)
    diary.refresh()
    diary.record(item, before(30), 1 + (days == 1 and is_inside))
    diary.refresh()
    assert diary.shown(merit) == (complete(last, now=False) if is_inside else Progress(0, False, None))


@pytest.mark.parametrize("order", [(20, 0), (0, 20)])
@pytest.mark.parametrize("of_today", ["child", "top"])
def test_of_several_marks_the_earliest_day_holds(diary: Diary, order: tuple[int, int], of_today: str) -> None:
    """Of one item, and of it and the one above it."""
    top = diary.item()
    child = diary.item(top)
    merit = diary.merit(Part(top, 2), days=3)
    diary.refresh()
    for days in order:
        diary.record(top if not days and of_today == "top" else child, before(days), 2)
    diary.refresh()
    assert diary.shown(merit) == Progress(100, True, before(20))


def test_an_item_that_moves_brings_its_old_entries_along(diary: Diary) -> None:
    """Though an entry of today has marked the goal as well."""
    top, stray = diary.item(), diary.item()
    merit = diary.merit(Part(top, 2), days=3)
    diary.record(stray, before(20), 2)
    diary.refresh()
    diary.move(stray, top)
    diary.record(top, TODAY, 1)
    diary.refresh()
    assert diary.shown(merit) == Progress(100, False, before(20))


@pytest.mark.parametrize("limit", [1, 1000])
def test_marks_that_are_taken_one_by_one_find_the_first_window_of_all(diary: Diary, limit: int) -> None:
    """The mark that is taken first is of the latest day, and what was first reached is another item."""
    item, other = diary.item(), diary.item()
    parts = Part(item, 2), Part(other, 2)
    alone = diary.merit(parts[0], days=3)
    both, either = (diary.merit(*parts, days=3, logic=logic) for logic in ("AND", "OR"))
    diary.refresh()
    diary.record(item, before(5), 2)
    diary.record(item, before(20), 2)
    diary.record(other, before(21), 2)
    refresh_all(diary.connection, limit=limit)
    assert diary.shown(alone) == complete(before(20), now=False)
    assert diary.shown(both) == complete(before(20), now=False)
    assert diary.shown(either) == complete(before(21), now=False)

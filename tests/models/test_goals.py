"""Merits and targets: their items are the person's, of the right type, and ask for something."""

from __future__ import annotations

from decimal import Decimal

import pytest

from tests.models.lives import Goals, make_goals
from tests.models.world import CHECK, DAY, FOREIGN_KEY, TODAY, World


@pytest.fixture
def goals(world: World) -> Goals:
    return make_goals(world)


def test_items_of_both_types(world: World, goals: Goals) -> None:
    world.merit_item(goals.merit, goals.deed, goals.counted)
    world.merit_item(goals.merit, goals.deed, goals.scaled, item_type="scale", scale_value_id=goals.value)
    world.target_item(goals.target, goals.counted)
    world.target_item(goals.target, goals.scaled, item_type="scale", scale_value_id=goals.value)


def test_the_type_is_the_items(world: World, goals: Goals) -> None:
    with world.refused(FOREIGN_KEY, "merit_items_type_is_items"):
        world.merit_item(goals.merit, goals.deed, goals.scaled)
    with world.refused(FOREIGN_KEY, "merit_items_type_is_items"):
        world.merit_item(
            goals.merit, goals.deed, goals.counted, item_type="scale", scale_value_id=goals.value
        )
    with world.refused(FOREIGN_KEY, "target_items_type_is_items"):
        world.target_item(goals.target, goals.scaled)
    with world.refused(FOREIGN_KEY, "target_items_type_is_items"):
        world.target_item(goals.target, goals.counted, item_type="scale", scale_value_id=goals.value)


@pytest.mark.parametrize("table", ["merit_items", "target_items"])
def test_an_item_cannot_change_its_type_below_a_goal(table: str, world: World, goals: Goals) -> None:
    if table == "merit_items":
        world.merit_item(goals.merit, goals.deed, goals.counted)
    else:
        world.target_item(goals.target, goals.counted)
    with world.refused(FOREIGN_KEY, f"{table}_type_is_items"):
        world.run("UPDATE deed_items SET value_type = 'scale' WHERE deed_item_id = :item", item=goals.counted)


def test_a_scale_value_goes_with_the_type(world: World, goals: Goals) -> None:
    with world.refused(CHECK, "merit_items_value_fits_type"):
        world.merit_item(goals.merit, goals.deed, goals.counted, scale_value_id=goals.value)
    with world.refused(CHECK, "merit_items_value_fits_type"):
        world.merit_item(goals.merit, goals.deed, goals.scaled, item_type="scale")
    with world.refused(CHECK, "target_items_value_fits_type"):
        world.target_item(goals.target, goals.counted, scale_value_id=goals.value)
    with world.refused(CHECK, "target_items_value_fits_type"):
        world.target_item(goals.target, goals.scaled, item_type="scale")


def test_a_scale_value_of_another_deed_is_refused(world: World, goals: Goals) -> None:
    other = world.value(world.scale(world.deed(goals.user)))
    with world.refused(CHECK, "merit_items_value_of_items_deed"):
        world.merit_item(goals.merit, goals.deed, goals.scaled, item_type="scale", scale_value_id=other)
    with world.refused(CHECK, "target_items_value_of_items_deed"):
        world.target_item(goals.target, goals.scaled, item_type="scale", scale_value_id=other)
    world.merit_item(goals.merit, goals.deed, goals.scaled, item_type="scale", scale_value_id=goals.value)
    world.target_item(goals.target, goals.scaled, item_type="scale", scale_value_id=goals.value)
    for table in ("merit_items", "target_items"):
        with world.refused(CHECK, f"{table}_value_of_items_deed"):
            world.run(f"UPDATE {table} SET scale_value_id = :value", value=other)


def test_a_merits_deed_and_items_are_the_persons(world: World, goals: Goals) -> None:
    other = make_goals(world)
    with world.refused(FOREIGN_KEY, "merits_deed_is_persons"):
        world.merit(goals.user, other.deed)
    with world.refused(FOREIGN_KEY, "merit_items_item_of_merits_deed"):
        world.merit_item(goals.merit, goals.deed, other.counted)
    with world.refused(FOREIGN_KEY, "merit_items_merit"):
        world.merit_item(goals.merit, other.deed, other.counted)


def test_a_merits_items_are_of_its_deed(world: World, goals: Goals) -> None:
    second = world.deed(goals.user)
    with world.refused(FOREIGN_KEY, "merit_items_item_of_merits_deed"):
        world.merit_item(goals.merit, goals.deed, world.item(second))


def test_a_targets_items_are_the_persons_of_any_deed(world: World, goals: Goals) -> None:
    other = make_goals(world)
    with world.refused(CHECK, "target_items_item_is_persons"):
        world.target_item(goals.target, other.counted)
    item = world.target_item(goals.target, world.item(world.deed(goals.user)))
    with world.refused(CHECK, "target_items_item_is_persons"):
        world.run("UPDATE target_items SET deed_item_id = :theirs", theirs=other.counted)
    with world.refused(CHECK, "target_items"):
        world.run(
            "UPDATE target_items SET target_id = :theirs WHERE target_item_id = :id",
            theirs=other.target,
            id=item,
        )


@pytest.mark.parametrize("goal", ["0", "-1", "-0.01", "NaN"])
def test_a_goal_is_positive(goal: str, world: World, goals: Goals) -> None:
    with world.refused(CHECK, "merit_items_target_is_positive"):
        world.merit_item(goals.merit, goals.deed, goals.counted, Decimal(goal))
    with world.refused(CHECK, "target_items_target_is_positive"):
        world.target_item(goals.target, goals.counted, Decimal(goal))


def test_at_most_may_ask_for_nothing_and_not_for_less(world: World, goals: Goals) -> None:
    world.merit_item(goals.merit, goals.deed, goals.counted, Decimal(0), direction="at_most")
    world.target_item(goals.target, goals.counted, Decimal(0), direction="at_most")
    for goal in ("-0.01", "NaN"):
        with world.refused(CHECK, "merit_items_target_is_positive"):
            world.merit_item(goals.merit, goals.deed, goals.counted, Decimal(goal), direction="at_most")
        with world.refused(CHECK, "target_items_target_is_positive"):
            world.target_item(goals.target, goals.counted, Decimal(goal), direction="at_most")
    with world.refused(CHECK, "merit_items_target_is_positive"):
        world.run("UPDATE merit_items SET direction = 'at_least'")


def test_an_infinite_goal_is_refused(world: World, goals: Goals) -> None:
    with world.refused("22003"):
        world.merit_item(goals.merit, goals.deed, goals.counted, Decimal("Infinity"))


@pytest.mark.parametrize("days", [0, -1])
def test_a_merit_lasts_a_day_or_more(days: int, world: World, goals: Goals) -> None:
    with world.refused(CHECK, "merits_duration_days_check"):
        world.merit(goals.user, goals.deed, duration_days=days)


def test_a_target_does_not_end_before_it_starts(world: World, goals: Goals) -> None:
    world.target(goals.user, start_date=TODAY, end_date=TODAY)
    with world.refused(CHECK, "targets_end_not_before_start"):
        world.target(goals.user, start_date=TODAY, end_date=TODAY - DAY)


@pytest.mark.parametrize("table", ["merits", "targets"])
def test_percent_and_completion_agree(table: str, world: World, goals: Goals) -> None:
    wrong = {
        "percent = 101": "percent_in_range",
        "percent = -1": "percent_in_range",
        "percent = 100": "complete_at_100",
        "completed_at = now(), completed_on = current_date": "complete_at_100",
        "percent = 100, completed_at = now()": "completed_pair",
        "completed_on = current_date": "completed_pair",
    }
    for change, rule in wrong.items():
        with world.refused(CHECK, f"{table}_{rule}"):
            world.run(f"UPDATE {table} SET {change}")
    world.run(f"UPDATE {table} SET percent = 100, completed_at = now(), completed_on = current_date")


@pytest.mark.parametrize("table", ["merits", "targets"])
def test_a_goal_stays_its_persons(table: str, world: World, goals: Goals) -> None:
    with world.refused(CHECK, f"{table}_identity"):
        world.run(f"UPDATE {table} SET user_id = :user", user=world.person())

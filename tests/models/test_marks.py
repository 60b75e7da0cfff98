"""Progress marks: each change that can move a merit or a target names what is to be computed again."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import Engine, text

from tests.models.lives import Goals, make_goals
from tests.models.world import DAY, TODAY, World


@pytest.fixture
def goals(world: World) -> Goals:
    made = make_goals(world)
    world.marks()
    return made


def test_an_entry_marks_its_item(world: World, goals: Goals) -> None:
    world.entry(goals.user, goals.counted)
    assert world.marks() == [("item", goals.counted)]
    world.run("UPDATE entries SET count_value = 9")
    assert world.marks() == [("item", goals.counted)]
    world.run("UPDATE entries SET entry_date = :day", day=TODAY - 400 * DAY)
    assert world.marks() == [("item", goals.counted)]
    world.run("DELETE FROM entries")
    assert world.marks() == [("item", goals.counted)]


def test_an_entry_that_changes_its_item_marks_both(world: World, goals: Goals) -> None:
    other = world.item(goals.deed)
    world.entry(goals.user, goals.counted)
    world.marks()
    world.run("UPDATE entries SET deed_item_id = :other", other=other)
    assert sorted(world.marks()) == sorted([("item", goals.counted), ("item", other)])


def test_a_statement_marks_each_item_once(world: World, goals: Goals) -> None:
    other = world.item(goals.deed)
    for item in (goals.counted, other):
        world.run(
            "INSERT INTO entries (user_id, deed_item_id, entry_date, count_value)"
            " SELECT :user, :item, :day - n, 1 FROM generate_series(0, 99) AS n",
            user=goals.user,
            item=item,
            day=TODAY,
        )
    assert world.marks() == [("item", goals.counted), ("item", other)]
    world.run("UPDATE entries SET count_value = 2")
    assert sorted(world.marks()) == [("item", goals.counted), ("item", other)]
    world.run("DELETE FROM entries")
    assert sorted(world.marks()) == [("item", goals.counted), ("item", other)]


def since(world: World) -> dict[int, Any]:
    """Take the marks of items away, and return the first day that each item's name."""
    found = world.rows("SELECT subject_id, since FROM jobs.progress_marks WHERE kind = 'item'")
    assert len({item for item, _ in found}) == len(found)
    world.marks()
    return dict(found)


def test_an_entry_marks_since_its_day(world: World, goals: Goals) -> None:
    """An edit that moves it to another day marks since the earlier one, whichever that is."""
    item, other = goals.counted, world.item(goals.deed)
    world.entry(goals.user, item, TODAY - 5 * DAY)
    assert since(world) == {item: TODAY - 5 * DAY}
    for day, first in ((9, 9), (2, 9)):
        world.run("UPDATE entries SET entry_date = :day", day=TODAY - day * DAY)
        assert since(world) == {item: TODAY - first * DAY}
    world.run("UPDATE entries SET count_value = 7")
    assert since(world) == {item: TODAY - 2 * DAY}
    world.run("UPDATE entries SET deed_item_id = :other, entry_date = :day", other=other, day=TODAY)
    assert since(world) == {item: TODAY - 2 * DAY, other: TODAY}
    world.run("DELETE FROM entries")
    assert since(world) == {other: TODAY}


def test_a_statement_marks_since_the_first_of_its_days(world: World, goals: Goals) -> None:
    other = world.item(goals.deed)
    insert = (
        "INSERT INTO entries (user_id, deed_item_id, entry_date, count_value)"
        " SELECT :user, item, :day - CAST(n * 20 AS integer), 1 FROM unnest(:items) WITH ORDINALITY AS t (item, place),"
        " generate_series(place, 30 * place) AS n"  # the days of a year and a half, over partitions
    )
    world.run(insert, user=goals.user, day=TODAY, items=[goals.counted, other])
    first = {goals.counted: TODAY - 600 * DAY, other: TODAY - 1200 * DAY}
    assert since(world) == first
    world.run("UPDATE entries SET notes = 'n'")
    assert since(world) == first
    world.run("DELETE FROM entries WHERE entry_date > :day", day=TODAY - 500 * DAY)
    assert since(world) == {goals.counted: TODAY - 480 * DAY, other: TODAY - 480 * DAY}


def test_what_is_no_entry_marks_all_days(world: World, goals: Goals) -> None:
    world.entry(goals.user, goals.counted)
    world.marks()
    world.run("UPDATE deed_items SET parent_deed_item_id = :top WHERE deed_item_id = :item",
              top=world.item(goals.deed), item=goals.counted)  # fmt: skip
    world.run("UPDATE merits SET start_date = start_date - 1")
    world.run("UPDATE users SET timezone = 'Asia/Kathmandu'")
    found = world.rows("SELECT kind, since FROM jobs.progress_marks")
    assert {kind for kind, _ in found} == {"item", "merit", "target"}
    assert {since for _, since in found} == {None}


def test_a_statement_without_rows_marks_nothing(world: World, goals: Goals) -> None:
    world.run("UPDATE entries SET count_value = 2")
    world.run("DELETE FROM entries")
    assert world.marks() == []


def test_a_deleted_person_marks_their_items(world: World, goals: Goals) -> None:
    world.entry(goals.user, goals.counted)
    world.marks()
    world.run("DELETE FROM users WHERE user_id = :id", id=goals.user)
    assert ("item", goals.counted) in world.marks()


def test_a_removed_item_marks_the_one_above_it(world: World, goals: Goals) -> None:
    top = world.item(goals.deed)
    child = world.item(goals.deed, top)
    world.marks()
    world.run("DELETE FROM deed_items WHERE deed_item_id = :item", item=child)
    assert world.marks() == [("item", top)]
    world.run("DELETE FROM deed_items WHERE deed_item_id = :item", item=top)
    assert world.marks() == [], "there is none above it"


def test_a_moved_item_marks_the_line_it_leaves_and_the_one_it_joins(world: World, goals: Goals) -> None:
    old, new = world.item(goals.deed), world.item(goals.deed)
    move = "UPDATE deed_items SET parent_deed_item_id = :parent WHERE deed_item_id = :item"
    world.run(move, parent=old, item=goals.counted)
    assert world.marks() == [("item", goals.counted)]
    world.run(move, parent=new, item=goals.counted)
    assert sorted(world.marks()) == sorted([("item", goals.counted), ("item", old)])
    world.run(move, parent=None, item=goals.counted)
    assert sorted(world.marks()) == sorted([("item", goals.counted), ("item", new)])


def test_a_deleted_or_restored_item_is_marked_and_a_renamed_one_is_not(world: World, goals: Goals) -> None:
    for change, marked in (("deleted_at = now()", 1), ("deleted_at = NULL", 1), ("name = 'other'", 0)):
        world.run(f"UPDATE deed_items SET {change} WHERE deed_item_id = :item", item=goals.counted)
        assert world.marks() == [("item", goals.counted)] * marked


@pytest.mark.parametrize(
    "change",
    [
        "merit_type = 'OR'",
        "start_date = start_date - 1",
        "duration_days = 3",
        "is_active = false",
        "deleted_at = now()",
    ],
)
def test_a_merit_is_marked_by_what_decides_it(change: str, world: World, goals: Goals) -> None:
    world.run(f"UPDATE merits SET {change}")
    assert world.marks() == [("merit", goals.merit)]


@pytest.mark.parametrize(
    "change",
    [
        "target_type = 'OR'",
        "start_date = start_date - 1",
        "end_date = end_date + 1",
        "is_active = false",
        "deleted_at = now()",
    ],
)
def test_a_target_is_marked_by_what_decides_it(change: str, world: World, goals: Goals) -> None:
    world.run(f"UPDATE targets SET {change}")
    assert world.marks() == [("target", goals.target)]


@pytest.mark.parametrize("table", ["merits", "targets"])
def test_what_a_job_computes_marks_nothing(table: str, world: World, goals: Goals) -> None:
    """Else each refresh would ask for the next one."""
    with world.acting("kitaab_worker"):
        world.run(f"UPDATE {table} SET percent = 100, completed_at = now(), completed_on = current_date")
    assert world.marks() == []


def test_new_goals_are_marked(world: World, goals: Goals) -> None:
    merit, target = world.merit(goals.user, goals.deed), world.target(goals.user)
    assert world.marks() == [("merit", merit), ("target", target)]


def test_items_of_goals_mark_them(world: World, goals: Goals) -> None:
    for table, kind, goal in (("merit", "merit", goals.merit), ("target", "target", goals.target)):
        if table == "merit":
            world.merit_item(goal, goals.deed, goals.counted)
        else:
            world.target_item(goal, goals.counted)
        assert world.marks() == [(kind, goal)]
        world.run(f"UPDATE {table}_items SET target_value = 77")
        assert world.marks() == [(kind, goal)]
        world.run(f"DELETE FROM {table}_items")
        assert world.marks() == [(kind, goal)]


def test_an_unknown_kind_is_refused(world: World) -> None:
    with world.refused("23514", "progress_marks_kind_check"):
        world.run("INSERT INTO jobs.progress_marks (kind, subject_id) VALUES ('deed', 1)")


def test_marks_that_are_rolled_back_are_gone(world: World, goals: Goals) -> None:
    with world.connection.begin_nested() as savepoint:
        world.entry(goals.user, goals.counted)
        savepoint.rollback()
    assert world.marks() == []


# Two transactions at once


@pytest.fixture
def shared(database: Engine) -> Goals:
    with database.begin() as connection:
        world = World(connection)
        made = make_goals(world)
        world.marks()
        return made


def test_writers_of_one_item_never_wait_for_each_other(database: Engine, shared: Goals) -> None:
    with database.connect() as one, database.connect() as two:
        for connection in (one, two):
            connection.exec_driver_sql("SET lock_timeout = '1s'")
        World(one).entry(shared.user, shared.counted, TODAY)
        World(two).entry(shared.user, shared.counted, TODAY - DAY)
        World(one).entry(shared.user, shared.counted, TODAY - 2 * DAY)
        two.commit()
        one.commit()
    with database.begin() as connection:
        assert World(connection).marks() == [("item", shared.counted)] * 3


def test_a_mark_made_while_marks_are_consumed_is_not_lost(database: Engine, shared: Goals) -> None:
    """The consumer takes what it sees; what is committed meanwhile stays for the next one."""
    take = text(
        "DELETE FROM jobs.progress_marks WHERE progress_mark_id IN"
        " (SELECT progress_mark_id FROM jobs.progress_marks FOR UPDATE SKIP LOCKED) RETURNING subject_id"
    )
    with database.begin() as connection:
        World(connection).entry(shared.user, shared.counted, TODAY)
    with database.connect() as consumer, database.connect() as writer:
        assert list(consumer.scalars(take)) == [shared.counted]
        writer.exec_driver_sql("SET lock_timeout = '1s'")
        World(writer).entry(shared.user, shared.counted, TODAY - DAY)
        writer.commit()
        consumer.commit()
        assert list(consumer.scalars(take)) == [shared.counted]


def test_many_writers_and_consumers_at_once(database: Engine, shared: Goals) -> None:
    def write(number: int) -> None:
        with database.begin() as connection:
            World(connection).entry(shared.user, shared.counted, TODAY - number * DAY)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(40)))
    with database.begin() as connection:
        assert len(World(connection).marks()) == 40

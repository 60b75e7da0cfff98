"""Who leaves takes everything along; nothing that entries need goes on its own; history stays."""

from __future__ import annotations

import pytest

from tests.models.lives import full_life
from tests.models.world import FOREIGN_KEY, World

HOLDS = """
    SELECT format('SELECT %L || ''.'' || count(*) FROM %s WHERE %I = %s', a.attrelid::regclass, a.attrelid::regclass,
                  a.attname, CAST(:user AS bigint))
    FROM pg_constraint AS k
    JOIN pg_attribute AS a ON a.attrelid = k.conrelid AND a.attnum = ANY (k.conkey)
    WHERE k.contype = 'f' AND k.confrelid = 'users'::regclass AND k.conparentid = 0
"""


def of(world: World, user: int) -> dict[str, int]:
    """Return how many rows of each table refer to a person."""
    found: dict[str, int] = {}
    for query in world.all(HOLDS, user=user):
        table, _, count = world.one(query).rpartition(".")
        found[table] = found.get(table, 0) + int(count)
    return found


def test_deleting_a_person_removes_everything_of_theirs_and_keeps_history(world: World) -> None:
    user, friend = full_life(world)
    assert min(of(world, user).values()) > 0, "the test forgets a table"
    tables = ["deed_items", "scales", "scale_values", "permissions", "merit_items", "target_items"]
    tables += ["jobs.deliveries", "jobs.notices", "jobs.merit_history", "jobs.target_history"]
    assert all(world.one(f"SELECT count(*) FROM {table}") for table in tables)
    history = world.one("SELECT count(*) FROM entry_history")
    assert world.run("DELETE FROM users WHERE user_id = :id", id=user) == 1
    assert set(of(world, user).values()) == {0}
    assert [world.one(f"SELECT count(*) FROM {table}") for table in tables] == [0] * len(tables)
    assert world.one("SELECT count(*) FROM entry_history") == history + 4
    assert world.one("SELECT count(*) FROM users WHERE user_id = :id", id=friend) == 1


def test_entries_that_a_person_recorded_for_others_stay(world: World) -> None:
    user, friend = full_life(world)
    world.run("DELETE FROM users WHERE user_id = :id", id=friend)
    assert world.rows("SELECT user_id, created_by_user_id FROM entries") == [(user, None)] * 4
    updates = world.one("SELECT count(*) FROM entry_history WHERE operation = 'update'")
    assert updates == 2, "who had recorded them is kept in the history"


def test_many_people_in_one_statement(world: World) -> None:
    everyone = [person for _ in range(5) for person in full_life(world)]
    assert world.run("DELETE FROM users WHERE user_id = ANY (:ids)", ids=everyone) == 10
    assert world.one("SELECT count(*) FROM entries") == 0


@pytest.mark.parametrize("table", ["deed_items", "scale_values", "scales", "deeds"])
def test_what_entries_need_is_not_deleted_on_its_own(table: str, world: World) -> None:
    full_life(world)
    world.run("DELETE FROM merits")
    world.run("DELETE FROM targets")
    with world.refused(FOREIGN_KEY, "entries"):
        world.run(f"DELETE FROM {table}")
    world.run("DELETE FROM entries")
    assert world.run(f"DELETE FROM {table}") > 0


@pytest.mark.parametrize("table", ["deed_items", "scale_values"])
def test_what_goals_need_is_not_deleted_on_its_own(table: str, world: World) -> None:
    full_life(world)
    world.run("DELETE FROM entries")
    with world.refused(FOREIGN_KEY, "items"):
        world.run(f"DELETE FROM {table}")
    world.run("DELETE FROM merits")
    world.run("DELETE FROM targets")
    assert world.run(f"DELETE FROM {table}") > 0


def test_an_item_with_items_below_is_not_deleted_without_them(world: World) -> None:
    deed = world.deed(world.person())
    parent = world.item(deed)
    world.item(deed, parent)
    with world.refused(FOREIGN_KEY, "deed_items_parent_in_same_deed"):
        world.run("DELETE FROM deed_items WHERE deed_item_id = :id", id=parent)
    assert world.run("DELETE FROM deed_items") == 2


def test_a_deed_without_entries_takes_its_merits_along(world: World) -> None:
    user = world.person()
    deed = world.deed(user)
    item = world.item(deed)
    world.merit_item(world.merit(user, deed), deed, item)
    assert world.run("DELETE FROM deeds") == 1
    assert world.one("SELECT count(*) FROM merit_items") == 0


def test_a_scale_without_entries_takes_its_values_along(world: World) -> None:
    deed = world.deed(world.person())
    scale = world.scale(deed)
    world.value(scale)
    assert world.run("DELETE FROM scales WHERE scale_id = :id", id=scale) == 1
    assert world.one("SELECT count(*) FROM scale_values") == 0


def test_a_relation_takes_its_permissions_along(world: World) -> None:
    user, friend = world.person(), world.person()
    relation = world.relation(friend, user)
    world.permission(relation, world.item(world.deed(user)))
    world.run("DELETE FROM relations")
    assert world.one("SELECT count(*) FROM permissions") == 0


def test_a_person_who_was_softly_deleted_frees_the_address(world: World) -> None:
    world.person(email="Once@example.org")
    with world.refused("23505", "uq_users_email"):
        world.person(email="once@EXAMPLE.org")
    world.run("UPDATE users SET deleted_at = now()")
    world.person(email="once@example.org")

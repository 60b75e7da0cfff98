"""The tree of a deed's items: levels that agree, no cycles, one deed, also when two people move at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from tests.models.world import CHECK, FOREIGN_KEY, UNIQUE, World


def levels(world: World, deed: int) -> dict[str, int]:
    return dict(world.rows("SELECT name, level FROM deed_items WHERE deed_id = :deed", deed=deed))


def move(world: World, item: int, parent: int | None, **also: Any) -> None:
    more = "".join(f", {name} = :{name}" for name in also)
    world.run(
        f"UPDATE deed_items SET parent_deed_item_id = :parent{more} WHERE deed_item_id = :item",
        item=item,
        parent=parent,
        **also,
    )


@pytest.fixture
def deed(world: World) -> int:
    return world.deed(world.person())


def test_levels_are_filled_in(world: World, deed: int) -> None:
    root = world.item(deed, name="root")
    child = world.item(deed, root, name="child")
    world.item(deed, child, name="grandchild")
    assert levels(world, deed) == {"root": 1, "child": 2, "grandchild": 3}


def test_a_right_level_may_be_given_and_a_wrong_one_is_refused(world: World, deed: int) -> None:
    root = world.item(deed, level=1)
    child = world.item(deed, root, level=2)
    for parent, level in ((None, 2), (None, 0), (root, 1), (root, 3), (child, 2)):
        with world.refused(CHECK, "deed_items_level_fits_parent"):
            world.item(deed, parent, level=level)
    with world.refused(CHECK, "deed_items_level_fits_parent"):
        world.run("UPDATE deed_items SET level = 3 WHERE deed_item_id = :item", item=child)


def test_a_parent_of_another_deed_is_refused(world: World, deed: int) -> None:
    stranger = world.item(world.deed(world.person()))
    sibling = world.item(world.deed(world.one("SELECT user_id FROM deeds WHERE deed_id = :d", d=deed)))
    item = world.item(deed)
    for parent in (stranger, sibling, 999_999_999):
        with world.refused(FOREIGN_KEY, "deed_items_parent_in_same_deed"):
            world.item(deed, parent)
        with world.refused(FOREIGN_KEY, "deed_items_parent_in_same_deed"):
            move(world, item, parent)


def test_an_item_stays_in_its_deed(world: World, deed: int) -> None:
    item = world.item(deed)
    with world.refused(CHECK, "deed_items_identity"):
        world.run(
            "UPDATE deed_items SET deed_id = :deed WHERE deed_item_id = :item",
            item=item,
            deed=world.deed(world.person()),
        )


def test_cycles_are_refused(world: World, deed: int) -> None:
    a = world.item(deed)
    b = world.item(deed, a)
    c = world.item(deed, b)
    with world.refused(CHECK, "deed_items"):
        move(world, a, a)
    for below in (b, c):
        with world.refused(CHECK, "deed_items_no_cycle"):
            move(world, a, below)
    with world.refused(CHECK, "deed_items_no_cycle"):
        move(world, a, c, level=4)


def test_a_move_carries_the_levels_of_the_subtree(world: World, deed: int) -> None:
    a, b = world.item(deed, name="a"), world.item(deed, name="b")
    c = world.item(deed, a, name="c")
    d = world.item(deed, c, name="d")
    world.item(deed, d, name="e")
    move(world, a, b)
    assert levels(world, deed) == {"b": 1, "a": 2, "c": 3, "d": 4, "e": 5}
    move(world, c, None)
    assert levels(world, deed) == {"b": 1, "a": 2, "c": 1, "d": 2, "e": 3}
    move(world, c, b, level=2)
    assert levels(world, deed) == {"b": 1, "a": 2, "c": 2, "d": 3, "e": 4}


def test_many_moves_in_one_statement(world: World, deed: int) -> None:
    a, b = world.item(deed, name="a"), world.item(deed, name="b")
    c = world.item(deed, a, name="c")
    world.item(deed, c, name="d")
    world.run(
        "UPDATE deed_items SET parent_deed_item_id = :b WHERE deed_item_id = ANY (ARRAY[:a, :c]::bigint[])",
        a=a,
        b=b,
        c=c,
    )
    assert levels(world, deed) == {"b": 1, "a": 2, "c": 2, "d": 3}


def test_siblings_have_different_names(world: World, deed: int) -> None:
    root = world.item(deed, name="root")
    world.item(deed, root, name="same")
    world.item(deed, name="same")
    for parent in (root, None):
        with world.refused(UNIQUE, "uq_deed_items_sibling_name"):
            world.item(deed, parent, name="same")
    world.run("UPDATE deed_items SET deleted_at = now() WHERE parent_deed_item_id = :root", root=root)
    world.item(deed, root, name="same")


# Two at once, each in a transaction of its own


class Tree:
    """A committed deed with items a and b, b below a where asked."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        with engine.begin() as connection:
            world = World(connection)
            self.deed = world.deed(world.person())
            self.a, self.b = (world.item(self.deed, name=name) for name in "ab")
            self.below_a = world.item(self.deed, self.a, name="below a")

    def parents(self) -> dict[int, int | None]:
        with self.engine.connect() as connection:
            rows = connection.execute(text("SELECT deed_item_id, parent_deed_item_id FROM deed_items"))
            return {row[0]: row[1] for row in rows}

    def wrong_levels(self) -> int:
        with self.engine.connect() as connection:
            found: int = World(connection).one(
                "SELECT count(*) FROM deed_items AS i LEFT JOIN deed_items AS p ON p.deed_item_id = i.parent_deed_item_id"
                " WHERE i.level <> coalesce(p.level, 0) + 1"
            )
            return found


@pytest.fixture
def tree(database: Engine) -> Tree:
    return Tree(database)


Work = Callable[[World], object]


def race(engine: Engine, isolation: str, first: Work, second: Work) -> list[str | None]:
    """Let two transactions overlap: both have begun before the first one commits; return their errors.

    The second one is retried once where it is told to (40001), as every client of the platform does.
    """
    began, errors = threading.Barrier(2), [None, None]  # type: tuple[threading.Barrier, list[str | None]]
    done_first = threading.Event()

    def begin(connection: Connection) -> World:
        connection.exec_driver_sql(f"SET TRANSACTION ISOLATION LEVEL {isolation}")
        connection.exec_driver_sql("SELECT count(*) FROM deed_items")  # takes the snapshot
        began.wait(10)
        return World(connection)

    def lead() -> None:
        with engine.begin() as connection:
            first(begin(connection))
            done_first.set()
            time.sleep(0.15)

    def follow() -> None:
        try:
            with engine.begin() as connection:
                world = begin(connection)
                done_first.wait(10)
                second(world)
        except DBAPIError as error:
            errors[1] = getattr(error.orig, "sqlstate", None)

    threads = [threading.Thread(target=work) for work in (lead, follow)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    return errors


BOTH = pytest.mark.parametrize("isolation", ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"])


@BOTH
def test_two_moves_that_would_close_a_ring(isolation: str, tree: Tree) -> None:
    errors = race(
        tree.engine,
        isolation,
        lambda world: move(world, tree.a, tree.b),
        lambda world: move(world, tree.b, tree.below_a),
    )
    assert errors == [None, CHECK if isolation == "READ COMMITTED" else "40001"]
    assert tree.parents() == {tree.a: tree.b, tree.b: None, tree.below_a: tree.a}
    assert tree.wrong_levels() == 0


@BOTH
def test_an_item_that_is_added_while_its_parent_moves(isolation: str, tree: Tree) -> None:
    errors = race(
        tree.engine,
        isolation,
        lambda world: world.item(tree.deed, tree.a, name="new"),
        lambda world: move(world, tree.a, tree.b),
    )
    assert errors == [None, None if isolation == "READ COMMITTED" else "40001"]
    assert tree.wrong_levels() == 0


@BOTH
def test_an_item_that_is_added_while_its_parent_becomes_a_root(isolation: str, tree: Tree) -> None:
    """A leaf has nobody to carry along, whose levels would make the other one wait."""
    errors = race(
        tree.engine,
        isolation,
        lambda world: move(world, tree.below_a, None),
        lambda world: world.item(tree.deed, tree.below_a, name="new"),
    )
    assert errors == [None, None if isolation == "READ COMMITTED" else "40001"]
    assert tree.wrong_levels() == 0


def test_moves_in_two_deeds_do_not_wait_for_each_other(tree: Tree) -> None:
    other = Tree(tree.engine)
    with tree.engine.connect() as one, tree.engine.connect() as two:
        two.exec_driver_sql("SET lock_timeout = '2s'")
        move(World(one), tree.a, tree.b)
        move(World(two), other.a, other.b)
        two.commit()
        one.commit()
    assert tree.wrong_levels() == 0

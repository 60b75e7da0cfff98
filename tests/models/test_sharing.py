"""Sharing as the plan's flow says: an accepted relation, an active permission, read or write, and no more."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest

from tests.models.world import CHECK, DAY, DENIED, FOREIGN_KEY, TODAY, World, insert


class Shared(NamedTuple):
    """A has asked B and was accepted; B has shared `item` with A, and not `hidden`."""

    a: int
    b: int
    relation: int
    deed: int
    item: int
    hidden: int
    value: int
    a_deed: int
    a_item: int


@pytest.fixture
def shared(world: World) -> Shared:
    a, b = world.person(), world.person()
    deed = world.deed(b)
    item, hidden = world.item(deed), world.item(deed)
    value = world.value(world.scale(deed))
    world.entry(b, item)
    world.entry(b, hidden)
    a_deed = world.deed(a)
    return Shared(a, b, world.relation(a, b), deed, item, hidden, value, a_deed, world.item(a_deed))


def share(world: World, shared: Shared, type: str) -> int:
    return world.permission(shared.relation, shared.item, type)


def sees(world: World, shared: Shared) -> dict[str, int]:
    """Return how many of B's rows A sees in each table."""
    theirs = {
        "deeds": "deed_id = :deed",
        "deed_items": "deed_id = :deed",
        "scales": "deed_id = :deed",
        "scale_values": "scale_value_id = :value",
        "entries": "user_id = :b",
        "users": "user_id = :b",
        "entry_history": "user_id = :b",
    }
    with world.acting("kitaab_app", shared.a):
        return {
            table: world.one(f"SELECT count(*) FROM {table} WHERE {where}", **shared._asdict())
            for table, where in theirs.items()
        }


NOTHING = dict.fromkeys(
    ("deeds", "deed_items", "scales", "scale_values", "entries", "users", "entry_history"), 0
)
THE_ITEM = NOTHING | dict.fromkeys(("deeds", "deed_items", "scales", "scale_values", "entries"), 1)


def record(world: World, shared: Shared, **values: object) -> int:
    given = {
        "user": shared.b,
        "item": shared.item,
        "day": TODAY - DAY,
        "created_by_user_id": shared.a,
    } | values
    return world.entry(given.pop("user"), given.pop("item"), given.pop("day"), **given)  # type: ignore[arg-type]


def test_a_relation_alone_shows_nothing(world: World, shared: Shared) -> None:
    assert sees(world, shared) == NOTHING


@pytest.mark.parametrize("type", ["read", "write"])
def test_a_permission_shows_the_item_and_its_entries(type: str, world: World, shared: Shared) -> None:
    share(world, shared, type)
    assert sees(world, shared) == THE_ITEM
    with world.acting("kitaab_app", shared.a):
        assert world.all("SELECT deed_item_id FROM deed_items WHERE deed_id = :d", d=shared.deed) == [
            shared.item
        ]


STOPS: dict[str, str] = {
    "revoked": "UPDATE permissions SET is_active = false, revoked_at = now()",
    "pending": "UPDATE relations SET status = 'pending'",
    "rejected": "UPDATE relations SET status = 'rejected'",
    "blocked": "UPDATE relations SET status = 'blocked'",
    "softly deleted": "UPDATE relations SET deleted_at = now()",
    "gone": "DELETE FROM relations",
    "taken back for good": "DELETE FROM permissions",
}


@pytest.mark.parametrize("type", ["read", "write"])
@pytest.mark.parametrize("why", STOPS)
def test_it_stops_at_once(why: str, type: str, world: World, shared: Shared) -> None:
    share(world, shared, type)
    world.run(STOPS[why])
    assert sees(world, shared) == NOTHING
    with world.acting("kitaab_app", shared.a):
        with world.refused(DENIED, "row-level security"):
            record(world, shared)
        assert world.run("UPDATE entries SET count_value = 9 WHERE user_id = :b", b=shared.b) == 0


def test_it_goes_one_way_only(world: World, shared: Shared) -> None:
    share(world, shared, "write")
    with world.acting("kitaab_app", shared.b):
        assert world.one("SELECT count(*) FROM deeds WHERE user_id = :a", a=shared.a) == 0
        assert world.one("SELECT count(*) FROM deed_items WHERE deed_id = :d", d=shared.a_deed) == 0


def test_a_third_person_sees_nothing(world: World, shared: Shared) -> None:
    share(world, shared, "write")
    third = shared._replace(a=world.person())
    assert sees(world, third) == NOTHING
    assert sees(world, shared) == THE_ITEM


def test_read_is_only_to_read(world: World, shared: Shared) -> None:
    share(world, shared, "read")
    with world.acting("kitaab_app", shared.a):
        with world.refused(DENIED, "row-level security"):
            record(world, shared)
        for statement in ("UPDATE entries SET count_value = 9", "DELETE FROM entries"):
            assert world.run(f"{statement} WHERE user_id = :b", b=shared.b) == 0
        for table in ("deeds", "deed_items", "scales", "scale_values"):
            assert world.run(f"UPDATE {table} SET is_active = false WHERE created_at <= now()") == (
                1 if table in {"deeds", "deed_items"} else 0
            ), "only A's own"


def test_write_is_to_record_and_correct_and_not_to_delete(world: World, shared: Shared) -> None:
    share(world, shared, "write")
    with world.acting("kitaab_app", shared.a):
        record(world, shared)
        assert world.run("UPDATE entries SET count_value = 9 WHERE user_id = :b", b=shared.b) == 2
        assert world.run("DELETE FROM entries WHERE user_id = :b", b=shared.b) == 0
        assert world.run("UPDATE deed_items SET name = 'theirs' WHERE deed_id = :d", d=shared.deed) == 0
    found = world.rows("SELECT user_id, created_by_user_id FROM entries WHERE entry_date < :d", d=TODAY)
    assert found == [(shared.b, shared.a)]
    with world.acting("kitaab_app", shared.b):
        assert world.one("SELECT count(*) FROM entries WHERE created_by_user_id = :a", a=shared.a) == 1
        assert world.run("UPDATE entries SET count_value = 2 WHERE created_by_user_id = :a", a=shared.a) == 1
        assert world.run("DELETE FROM entries WHERE created_by_user_id = :a", a=shared.a) == 1


# Rows planted in B's tree


PLANTS: dict[str, Callable[[World, Shared], object]] = {
    "an entry on an item that is not shared": lambda w, s: record(w, s, item=s.hidden),
    "an entry signed by B": lambda w, s: record(w, s, created_by_user_id=s.b),
    "an entry signed by nobody": lambda w, s: record(w, s, created_by_user_id=None),
    "an entry of A's signed by B": lambda w, s: w.entry(s.a, s.a_item, created_by_user_id=s.b),
    "an entry of A's on B's item": lambda w, s: w.entry(s.a, s.item, created_by_user_id=s.a),
    "an entry of B's on A's item": lambda w, s: w.entry(s.b, s.a_item, created_by_user_id=s.a),
    "a deed": lambda w, s: w.deed(s.b),
    "an item": lambda w, s: w.item(s.deed),
    "an item below the shared one": lambda w, s: w.item(s.deed, s.item),
    "an item of A's below the shared one": lambda w, s: w.item(s.a_deed, s.item),
    "a scale": lambda w, s: w.scale(s.deed),
    "a scale value": lambda w, s: w.run(
        "INSERT INTO scale_values (scale_id, value_name) SELECT scale_id, 'x' FROM scales WHERE deed_id = :d",
        d=s.deed,
    ),
    "a merit": lambda w, s: w.merit(s.b, s.deed),
    "a merit of A's over B's deed": lambda w, s: w.merit(s.a, s.deed),
    "an item of A's merit with B's item": lambda w, s: w.merit_item(w.merit(s.a, s.a_deed), s.a_deed, s.item),
    "an item of A's merit with B's deed": lambda w, s: w.merit_item(w.merit(s.a, s.a_deed), s.deed, s.item),
    "an item of A's target with B's item": lambda w, s: w.target_item(w.target(s.a), s.item),
    "a target": lambda w, s: w.target(s.b),
    "a permission for A": lambda w, s: w.permission(s.relation, s.hidden),
    "a relation in B's name": lambda w, s: w.relation(s.b, s.a, "pending"),
    "a reminder": lambda w, s: w.notification(s.b),
    "a message": lambda w, s: insert(w.connection, "messages", user_id=s.b, sender="user", content="x"),
    "history": lambda w, s: insert(w.connection, "entry_history", entry_id=1, entry_date=TODAY, user_id=s.b),
    "a line in the audit log": lambda w, s: insert(
        w.connection, "audit_log", user_id=s.b, action_type="login", table_name="users"
    ),
}


@pytest.mark.parametrize("what", PLANTS)
def test_nothing_is_planted_with_write_permission(what: str, world: World, shared: Shared) -> None:
    share(world, shared, "write")
    with world.acting("kitaab_app", shared.a), world.refused({DENIED, FOREIGN_KEY, CHECK}):
        PLANTS[what](world, shared)


def test_an_update_does_not_carry_rows_across(world: World, shared: Shared) -> None:
    """With write permission A may touch B's entry, and A's own: neither becomes the other's."""
    share(world, shared, "write")
    world.entry(shared.a, shared.a_item)
    with world.acting("kitaab_app", shared.a):
        for change, rule in (
            ("user_id = :a, deed_item_id = :a_item, entry_date = :day", "entries_identity"),
            ("deed_item_id = :hidden", "row-level security"),
            ("deed_item_id = :a_item", "row-level security"),
            ("created_by_user_id = :a", "entries_author_never_changes"),
        ):
            state = DENIED if rule == "row-level security" else CHECK
            with world.refused(state, rule):
                world.run(
                    f"UPDATE entries SET {change} WHERE user_id = :b", day=TODAY - 9 * DAY, **shared._asdict()
                )
        with world.refused(CHECK, "entries_identity"):
            world.run(
                "UPDATE entries SET user_id = :b, deed_item_id = :item, entry_date = :day WHERE user_id = :a",
                day=TODAY - 9 * DAY,
                **shared._asdict(),
            )
        for table, change in (
            ("deeds", "user_id = :b"),
            ("deed_items", "deed_id = :deed"),
            ("deed_items", "parent_deed_item_id = :item"),
        ):
            mine = "user_id = :a" if table == "deeds" else "deed_id = :a_deed"
            with world.refused({DENIED, CHECK, FOREIGN_KEY}):
                world.run(f"UPDATE {table} SET {change} WHERE {mine}", **shared._asdict())


def test_a_message_is_not_hung_below_anothers(world: World, shared: Shared) -> None:
    theirs = insert(world.connection, "messages", user_id=shared.b, sender="user", content="x")
    mine = {"user_id": shared.a, "sender": "user", "content": "x", "parent_message_id": theirs}
    with world.acting("kitaab_app", shared.a), world.refused(FOREIGN_KEY, "messages_parent_is_persons"):
        insert(world.connection, "messages", **mine)


# The relation itself


def test_one_asks_the_other_answers(world: World) -> None:
    a, b = world.person(), world.person()
    with world.acting("kitaab_app", a):
        relation = world.relation(a, b, "pending")
        with world.refused(DENIED, "row-level security"):
            world.run("UPDATE relations SET status = 'accepted'")
    with world.acting("kitaab_app", b):
        assert world.run("UPDATE relations SET status = 'accepted', accepted_at = now()") == 1
        item = world.item(world.deed(b))
        permission = world.permission(relation, item, "write")
    with world.acting("kitaab_app", a):
        assert world.all("SELECT permission_id FROM permissions") == [permission]
        assert world.run("UPDATE permissions SET is_active = false, revoked_at = now()") == 0
        world.entry(b, item, created_by_user_id=a)
    with world.acting("kitaab_app", b):
        assert world.run("UPDATE permissions SET is_active = false, revoked_at = now()") == 1


@pytest.mark.parametrize("status", ["accepted", "rejected", "blocked"])
def test_who_asks_does_not_answer(status: str, world: World) -> None:
    a, b = world.person(), world.person()
    with world.acting("kitaab_app", a), world.refused(DENIED, "row-level security"):
        world.relation(a, b, status)


def test_either_may_end_it(world: World, shared: Shared) -> None:
    for person in (shared.a, shared.b):
        with world.acting("kitaab_app", person), world.connection.begin_nested() as savepoint:
            assert world.run("UPDATE relations SET deleted_at = now()") == 1
            savepoint.rollback()


def test_the_parties_of_a_relation_never_change(world: World, shared: Shared) -> None:
    third = world.person()
    for person in (shared.a, shared.b):
        with world.acting("kitaab_app", person):
            for change in (
                "requester_id = :third",
                "requestee_id = :third",
                "requester_id = requestee_id, requestee_id = requester_id",
            ):
                with world.refused(CHECK, "relations_identity"):
                    world.run(f"UPDATE relations SET deleted_at = now(), {change}", third=third)


def test_who_is_blocked_cannot_ask_again(world: World) -> None:
    a, b = world.person(), world.person()
    world.relation(a, b, "blocked")
    with world.acting("kitaab_app", a):
        assert world.run("UPDATE relations SET deleted_at = now()") == 0
        with world.refused("23505", "uq_relations_pair"):
            world.relation(a, b, "pending")


def test_nobody_relates_to_oneself(world: World) -> None:
    a = world.person()
    with world.refused(CHECK, "relations_not_with_oneself"):
        world.relation(a, a)


# The permission itself


def test_a_permission_is_on_the_requestees_items_only(world: World, shared: Shared) -> None:
    third = world.item(world.deed(world.person()))
    for item in (shared.a_item, third, 999_999_999):
        with world.refused(CHECK, "permissions_item_is_requestees"):
            world.permission(shared.relation, item)
        with world.acting("kitaab_app", shared.b), world.refused(CHECK, "permissions_item_is_requestees"):
            world.permission(shared.relation, item)


def test_the_requestee_of_another_relation_does_not_give_away_what_is_not_theirs(
    world: World, shared: Shared
) -> None:
    back = world.relation(shared.b, shared.a)
    with world.acting("kitaab_app", shared.a):
        with world.refused(CHECK, "permissions_item_is_requestees"):
            world.permission(back, shared.hidden)
        world.permission(back, shared.a_item)


def test_a_permission_stays_where_it_was_given(world: World, shared: Shared) -> None:
    share(world, shared, "read")
    with world.acting("kitaab_app", shared.b), world.refused(CHECK, "permissions_identity"):
        world.run("UPDATE permissions SET deed_item_id = :hidden", hidden=shared.hidden)


def test_one_active_permission_and_any_number_of_old_versions(world: World, shared: Shared) -> None:
    share(world, shared, "read")
    with world.refused("23505", "uq_permissions_active"):
        world.permission(shared.relation, shared.item, "write", version=2)
    with world.refused(CHECK, "permissions_active_until_revoked"):
        world.run("UPDATE permissions SET is_active = false")
    world.run("UPDATE permissions SET is_active = false, revoked_at = now()")
    world.permission(shared.relation, shared.item, "write", version=2)
    with world.refused("23505", "uq_permissions_version"):
        world.run("UPDATE permissions SET is_active = false, revoked_at = now(), version = 1")
    with world.refused(CHECK, "permissions_version_check"):
        world.run("UPDATE permissions SET version = 0")

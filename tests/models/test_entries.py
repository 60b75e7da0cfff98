"""Entries: what is refused, and the history of what is not."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

import pytest

from tests.models.lives import Diary, make_diary
from tests.models.world import CHECK, DAY, DENIED, FOREIGN_KEY, NOT_NULL, TODAY, UNIQUE, World


@pytest.fixture
def diary(world: World) -> Diary:
    return make_diary(world)


def history(world: World) -> list[tuple[Any, ...]]:
    return world.rows(
        "SELECT operation::text, old_values ->> 'count_value', new_values ->> 'count_value',"
        " changed_by_user_id FROM entry_history ORDER BY entry_history_id"
    )


# What an entry may hold


@pytest.mark.parametrize("count", ["-1", "-0.01", "NaN"])
def test_a_count_is_a_number_that_is_not_negative(count: str, world: World, diary: Diary) -> None:
    with world.refused(CHECK, "entries_count_value_is_a_count"):
        world.entry(diary.user, diary.item, count=Decimal(count))
    entry = world.entry(diary.user, diary.item)
    with world.refused(CHECK, "entries_count_value_is_a_count"):
        world.run(
            "UPDATE entries SET count_value = :count WHERE entry_id = :id", count=Decimal(count), id=entry
        )


@pytest.mark.parametrize("count", ["Infinity", "-Infinity", "1e400", "100000000"])
def test_a_count_has_ten_digits(count: str, world: World, diary: Diary) -> None:
    with world.refused("22003", "numeric"):
        world.run(
            "INSERT INTO entries (user_id, deed_item_id, entry_date, count_value)"
            " VALUES (:user, :item, :day, CAST(:count AS numeric))",
            user=diary.user,
            item=diary.item,
            day=TODAY,
            count=count,
        )


@pytest.mark.parametrize("count", ["0", "0.01", "99999999.99"])
def test_counts_at_the_edges_are_kept_exactly(count: str, world: World, diary: Diary) -> None:
    world.entry(diary.user, diary.item, count=Decimal(count))
    assert world.one("SELECT count_value FROM entries") == Decimal(count)


def test_an_entry_has_a_value(world: World, diary: Diary) -> None:
    with world.refused(CHECK, "entry_has_value"):
        world.entry(diary.user, diary.item, count=None)
    world.entry(diary.user, diary.scaled, count=None, scale_value_id=diary.value)
    with world.refused(CHECK, "entry_has_value"):
        world.run("UPDATE entries SET scale_value_id = NULL")


def test_a_scale_needs_its_value(world: World, diary: Diary) -> None:
    with world.refused(CHECK, "entries_scale_of_value"):
        world.entry(diary.user, diary.scaled, scale_id=diary.scale)
    world.entry(diary.user, diary.scaled, count=None, scale_id=diary.scale, scale_value_id=diary.value)


def test_one_entry_for_a_person_item_and_day(world: World, diary: Diary) -> None:
    world.entry(diary.user, diary.item)
    with world.refused(UNIQUE, "user_id_deed_item_id_entry_date"):
        world.entry(diary.user, diary.item)
    world.entry(diary.user, diary.item, TODAY - DAY)
    with world.refused(UNIQUE, "user_id_deed_item_id_entry_date"):
        world.run("UPDATE entries SET entry_date = :day", day=TODAY)


@pytest.mark.parametrize("column", ["user_id", "deed_item_id", "entry_date"])
def test_whose_what_and_when_are_given(column: str, world: World, diary: Diary) -> None:
    """Without a date there is no partition to look into, which is noticed before the column is."""
    given: dict[str, Any] = {column: None}
    with world.refused(CHECK if column == "entry_date" else NOT_NULL):
        world.entry(diary.user, diary.item, **given)


# Whose it is


def test_an_item_of_another_person_is_refused(world: World, diary: Diary) -> None:
    other = make_diary(world)
    with world.refused(CHECK, "entries_item_is_persons"):
        world.entry(diary.user, other.item)
    world.entry(diary.user, diary.item)
    with world.refused(CHECK, "entries_item_is_persons"):
        world.run("UPDATE entries SET deed_item_id = :item", item=other.item)


def test_one_wrong_row_among_many_is_refused(world: World, diary: Diary) -> None:
    other = make_diary(world)
    with world.refused(CHECK, f"item {other.item} is not one of person {diary.user}'s"):
        world.run(
            "INSERT INTO entries (user_id, deed_item_id, entry_date, count_value)"
            " SELECT :user, item, :day, 1 FROM unnest(ARRAY[:mine, :theirs]::bigint[]) AS item",
            user=diary.user,
            mine=diary.item,
            theirs=other.item,
            day=TODAY,
        )


def test_a_value_of_another_deeds_scale_is_refused(world: World, diary: Diary) -> None:
    deed = world.deed(diary.user)
    other = world.value(world.scale(deed))
    with world.refused(CHECK, "entries_item_is_persons"):
        world.entry(diary.user, diary.scaled, count=None, scale_value_id=other)
    world.entry(diary.user, diary.scaled, count=None, scale_value_id=diary.value)
    with world.refused(CHECK, "entries_item_is_persons"):
        world.run("UPDATE entries SET scale_value_id = :value", value=other)


def test_a_scale_that_is_not_its_values_is_refused(world: World, diary: Diary) -> None:
    another = world.scale(diary.deed)
    with world.refused(CHECK, "entries_item_is_persons"):
        world.entry(diary.user, diary.scaled, count=None, scale_id=another, scale_value_id=diary.value)


def test_an_unknown_item_is_refused(world: World, diary: Diary) -> None:
    with world.refused(FOREIGN_KEY, "deed_item_id"):
        world.entry(diary.user, 999_999_999)


@pytest.mark.parametrize(
    "change", ["entry_id = entry_id + 1000", "user_id = (SELECT max(user_id) FROM users)"]
)
def test_which_entry_it_is_and_whose_never_changes(change: str, world: World, diary: Diary) -> None:
    """A change of the key would leave the history with nothing to pair."""
    world.entry(diary.user, diary.item)
    world.person()
    with world.refused(CHECK, "entries_identity"):
        world.run(f"UPDATE entries SET {change}")


def test_who_recorded_it_never_changes_until_that_person_is_deleted(world: World, diary: Diary) -> None:
    helper, another = world.person(), world.person()
    world.entry(diary.user, diary.item, created_by_user_id=helper)
    world.entry(diary.user, diary.scaled, created_by_user_id=another)
    for author in (None, diary.user, another):
        with world.refused(CHECK, "entries_author_never_changes"):
            world.run(
                "UPDATE entries SET created_by_user_id = :author WHERE deed_item_id = :item",
                author=author,
                item=diary.item,
            )
    world.run("DELETE FROM users WHERE user_id = :id", id=helper)
    assert set(world.rows("SELECT deed_item_id, created_by_user_id FROM entries")) == {
        (diary.item, None),
        (diary.scaled, another),
    }


# Partitions


def test_a_day_without_a_partition_is_a_clear_error(world: World, diary: Diary) -> None:
    for day in (dt.date(1999, 12, 31), dt.date(TODAY.year + 2, 1, 1)):
        with world.refused("23514", 'no partition of relation "entries" found for row'):
            world.entry(diary.user, diary.item, day)
    assert history(world) == []


def test_entries_of_each_year_are_in_its_partition(world: World, diary: Diary) -> None:
    for year in range(TODAY.year - 4, TODAY.year + 2):
        world.entry(diary.user, diary.item, dt.date(year, 1, 1))
        world.entry(diary.user, diary.item, dt.date(year, 12, 31))
    found = world.rows(
        "SELECT tableoid::regclass::text, extract(year FROM entry_date)::int, count(*) FROM entries GROUP BY 1, 2"
    )
    assert sorted(found) == [(f"entries_{y}", y, 2) for y in range(TODAY.year - 4, TODAY.year + 2)]


# History


def test_each_change_leaves_a_row(world: World, diary: Diary) -> None:
    entry = world.entry(diary.user, diary.item, count=1)
    world.run("UPDATE entries SET count_value = 2")
    world.run("DELETE FROM entries")
    assert history(world) == [
        ("insert", None, "1.00", None),
        ("update", "1.00", "2.00", None),
        ("delete", "2.00", None, None),
    ]
    assert set(world.rows("SELECT entry_id, entry_date, user_id FROM entry_history")) == {
        (entry, TODAY, diary.user)
    }


def test_all_columns_are_kept(world: World, diary: Diary) -> None:
    world.entry(diary.user, diary.item, notes="before the dawn")
    kept = world.one("SELECT new_values FROM entry_history")
    columns = world.all(
        "SELECT attname FROM pg_attribute WHERE attrelid = 'entries'::regclass AND attnum > 0"
    )
    assert set(kept) == set(columns)
    assert kept["notes"] == "before the dawn"


def test_many_rows_in_one_statement(world: World, diary: Diary) -> None:
    world.run(
        "INSERT INTO entries (user_id, deed_item_id, entry_date, count_value)"
        " SELECT :user, :item, :day - n, n FROM generate_series(1, 500) AS n",
        user=diary.user,
        item=diary.item,
        day=TODAY,
    )
    world.run("UPDATE entries SET count_value = count_value + 1 WHERE count_value <= 300")
    world.run("DELETE FROM entries WHERE count_value > 400")
    counts = dict(world.rows("SELECT operation::text, count(*) FROM entry_history GROUP BY 1"))
    assert counts == {"insert": 500, "update": 300, "delete": 100}
    wrong = """
        SELECT count(*) FROM entry_history WHERE operation = 'update'
        AND (new_values ->> 'count_value')::numeric <> (old_values ->> 'count_value')::numeric + 1
    """
    assert world.one(wrong) == 0


def test_a_move_to_another_date_is_one_update(world: World, diary: Diary) -> None:
    """Also where the entry moves to another partition, which is a delete and an insert inside."""
    entry = world.entry(diary.user, diary.item, dt.date(TODAY.year, 1, 1), notes="kept")
    world.run("UPDATE entries SET entry_date = :day", day=dt.date(TODAY.year - 1, 12, 31))
    assert [operation for operation, *_ in history(world)] == ["insert", "update"]
    moved = world.row("SELECT * FROM entry_history WHERE operation = 'update'")
    assert (moved.entry_id, moved.old_values["entry_date"], moved.new_values["entry_date"]) == (
        entry,
        f"{TODAY.year}-01-01",
        f"{TODAY.year - 1}-12-31",
    )
    assert world.rows("SELECT entry_id, notes, tableoid::regclass::text FROM entries") == [
        (entry, "kept", f"entries_{TODAY.year - 1}")
    ]


def test_an_update_that_changes_nothing_leaves_no_row(world: World, diary: Diary) -> None:
    world.entry(diary.user, diary.item, count=1)
    world.run("UPDATE entries SET count_value = 1.00, notes = NULL")
    assert len(history(world)) == 1


def test_who_changed_it_is_the_person_whom_the_app_acts_for(world: World, diary: Diary) -> None:
    with world.acting("kitaab_app", diary.user):
        world.entry(diary.user, diary.item)
        world.run("UPDATE entries SET count_value = 7")
        world.run("DELETE FROM entries")
    found = world.rows("SELECT changed_by_user_id, changed_by_role FROM entry_history")
    assert found == [(diary.user, "kitaab_app")] * 3


def test_a_statement_that_names_a_partition_leaves_history_too(world: World, diary: Diary) -> None:
    world.entry(diary.user, diary.item, count=1)
    world.marks()
    world.run(f"UPDATE entries_{TODAY.year} SET count_value = 2")
    world.run(f"DELETE FROM entries_{TODAY.year}")
    assert [operation for operation, *_ in history(world)] == ["insert", "update", "delete"]
    assert world.marks() == [("item", diary.item)] * 2


def test_without_a_person_the_role_is_known(world: World, diary: Diary) -> None:
    helper = world.person()
    world.entry(diary.user, diary.item, created_by_user_id=helper)
    world.run("DELETE FROM entries")
    assert world.rows("SELECT changed_by_user_id, changed_by_role FROM entry_history ORDER BY 1") == [
        (helper, "kitaab_admin"),
        (None, "kitaab_admin"),
    ]


@pytest.mark.parametrize("table", ["entry_history", "audit_log"])
@pytest.mark.parametrize("role", ["kitaab_admin", "postgres"])
def test_what_was_recorded_is_append_only_for_everyone(
    table: str, role: str, world: World, diary: Diary
) -> None:
    world.entry(diary.user, diary.item)
    time = {"entry_history": "changed_at", "audit_log": "created_at"}[table]
    with world.acting(role):
        for statement in (
            f"UPDATE {table} SET user_id = 1",
            f"UPDATE {table} SET {time} = {time} + interval '1 year'",
            f"DELETE FROM {table}",
            f"TRUNCATE {table}",
            f"UPDATE {table}_{TODAY.year} SET user_id = 1",
            f"DELETE FROM {table}_{TODAY.year}",
            f"TRUNCATE {table}_{TODAY.year}",
        ):
            with world.refused(DENIED, "is append-only"):
                world.run(statement)
    assert world.one(f"SELECT count(*) FROM {table}") > 0


@pytest.mark.parametrize(
    ("old", "new", "operation"), [(1, 1, "insert"), (None, 1, "delete"), (1, None, "update")]
)
def test_history_values_fit_the_operation(
    old: int | None, new: int | None, operation: str, world: World
) -> None:
    values = {"old": str(old) if old else None, "new": str(new) if new else None, "operation": operation}
    with world.refused(CHECK, "entry_history_values_fit_operation"):
        world.run(
            "INSERT INTO entry_history (entry_id, entry_date, user_id, operation, old_values, new_values)"
            " VALUES (1, current_date, 1, CAST(:operation AS history_operation_enum),"
            " CAST(:old AS jsonb), CAST(:new AS jsonb))",
            **values,
        )

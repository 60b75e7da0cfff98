"""jobs.make_partition: what the worker may make, and that what it makes is protected."""

from __future__ import annotations

import datetime as dt

import pytest

from tests.models.lives import make_diary
from tests.models.world import DENIED, UNIQUE, World

PARTITIONED = [("entries", "entry_date"), ("entry_history", "changed_at"), ("audit_log", "created_at")]
BAD = "22023"


def make(world: World, table: str, lower: str, upper: str) -> str:
    name = world.one(
        "SELECT jobs.make_partition(:table, CAST(:lower AS date), CAST(:upper AS date))",
        table=table,
        lower=lower,
        upper=upper,
    )
    return str(name)


def bounds(world: World, partition: str) -> str:
    return str(
        world.one(
            "SELECT pg_get_expr(relpartbound, oid) FROM pg_class WHERE oid = CAST(:p AS regclass)",
            p=partition,
        )
    )


@pytest.mark.parametrize(("table", "key"), PARTITIONED)
def test_a_year_and_a_month(table: str, key: str, world: World) -> None:
    with world.acting("kitaab_worker"):
        assert make(world, table, "2101-01-01", "2102-01-01") == f"{table}_2101"
        assert make(world, table, "2102-12-01", "2103-01-01") == f"{table}_2102_12"
        assert make(world, table, "2104-02-01", "2104-03-01") == f"{table}_2104_02"
    time = "" if table == "entries" else " 00:00:00+00"
    assert bounds(world, f"{table}_2101") == f"FOR VALUES FROM ('2101-01-01{time}') TO ('2102-01-01{time}')"
    assert (
        bounds(world, f"{table}_2102_12") == f"FOR VALUES FROM ('2102-12-01{time}') TO ('2103-01-01{time}')"
    )
    check = world.one(
        "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = :n", n=f"{table}_2101_bounds"
    )
    assert key in check
    assert "2101-01-01" in check
    assert "2102-01-01" in check


def test_the_callers_time_zone_changes_nothing(world: World) -> None:
    """Not even where the month began with a clock change at midnight, as in Asunción in 2017."""
    for zone, lower, upper in (
        ("Asia/Tokyo", "2101-01-01", "2102-01-01"),
        ("America/Los_Angeles", "2103-01-01", "2104-01-01"),
        ("America/Asuncion", "2017-10-01", "2017-11-01"),
    ):
        world.run(f"SET LOCAL timezone = '{zone}'")
        name = make(world, "entry_history", lower, upper)
        world.run("SET LOCAL timezone = 'UTC'")
        assert f"'{lower} 00:00:00+00'" in bounds(world, name)


@pytest.mark.parametrize(
    ("lower", "upper"),
    [
        ("2101-01-01", "2103-01-01"),
        ("2101-01-01", "2101-03-01"),
        ("2101-01-02", "2102-01-02"),
        ("2101-01-01", "2101-01-02"),
        ("2101-06-15", "2101-07-15"),
        ("2102-01-01", "2101-01-01"),
        ("2101-01-01", "2101-01-01"),
        ("infinity", "infinity"),
        ("-infinity", "infinity"),
        ("0044-03-01 BC", "0044-04-01 BC"),
        ("9999-01-01", "10000-01-01"),
        ("12000-01-01", "12001-01-01"),
        (None, "2101-01-01"),
        ("2101-01-01", None),
        (None, None),
    ],
)
def test_any_other_span_is_refused(lower: str, upper: str, world: World) -> None:
    with world.acting("kitaab_worker"), world.refused(BAD, "a partition"):
        make(world, "entries", lower, upper)


@pytest.mark.parametrize(
    "table",
    [
        "users",
        "nothing",
        "public.entries",
        "ENTRIES",
        "jobs.jobs",
        "entries; DROP TABLE users; --",
        'entries" (LIKE users); DROP TABLE users; --',
        "entries' OR true --",
        "",
        None,
    ],
)
def test_any_other_table_is_refused(table: str, world: World) -> None:
    with world.acting("kitaab_worker"), world.refused(BAD, "is not a partitioned table of the platform"):
        make(world, table, "2101-01-01", "2102-01-01")
    assert world.one("SELECT count(*) FROM users") == 0


def test_a_name_that_is_listed_is_quoted(world: World) -> None:
    """Even the owner's own list does not carry SQL into the statements."""
    world.run(
        "INSERT INTO jobs.partitioned_tables VALUES ('a\"; DROP TABLE users; --', 'b\"; DROP TABLE users; --', 'date')"
    )
    with world.refused("42P01", "does not exist"):
        make(world, 'a"; DROP TABLE users; --', "2101-01-01", "2102-01-01")
    assert world.one("SELECT count(*) FROM users") == 0


def test_the_worker_cannot_add_to_the_list(world: World) -> None:
    for role in ("kitaab_worker", "kitaab_app", "kitaab_readonly"):
        with world.acting(role), world.refused(DENIED):
            world.run("INSERT INTO jobs.partitioned_tables VALUES ('users', 'created_at', 'timestamptz')")


@pytest.mark.parametrize("role", ["kitaab_app", "kitaab_readonly"])
def test_nobody_else_makes_partitions(role: str, world: World) -> None:
    with world.acting(role), world.refused(DENIED):
        make(world, "entries", "2101-01-01", "2102-01-01")


def test_a_partition_that_exists_or_overlaps_is_refused(world: World) -> None:
    make(world, "entries", "2101-01-01", "2102-01-01")
    with world.refused("42P07", "entries_2101"):
        make(world, "entries", "2101-01-01", "2102-01-01")
    with world.refused("42P17", "would overlap"):
        make(world, "entries", "2101-03-01", "2101-04-01")
    assert world.one("SELECT to_regclass('entries_2101_03') IS NULL")


@pytest.mark.parametrize(("table", "_"), PARTITIONED)
def test_a_new_partition_is_as_protected_as_the_old_ones(table: str, _: str, world: World) -> None:
    with world.acting("kitaab_worker"):
        new = make(world, table, "2101-01-01", "2102-01-01")
    mine = "SELECT oid, relowner::regrole::text AS owner, relrowsecurity, relacl FROM pg_class WHERE oid = CAST(:t AS regclass)"
    row = world.row(mine, t=new)
    assert (row.owner, row.relrowsecurity, row.relacl) == ("kitaab_admin", True, None)
    triggers = "SELECT tgname, tgtype, tgfoid FROM pg_trigger WHERE tgrelid = CAST(:t AS regclass) AND NOT tgisinternal"
    assert set(world.rows(triggers, t=new)) == set(world.rows(triggers, t=table))
    constraints = (
        "SELECT contype::text, pg_get_constraintdef(oid) FROM pg_constraint"
        " WHERE conrelid = CAST(:t AS regclass) AND conname NOT LIKE '%bounds'"
    )
    assert sorted(world.rows(constraints, t=new)) == sorted(world.rows(constraints, t=table))
    indexes = "SELECT count(*) FROM pg_index WHERE indrelid = CAST(:t AS regclass)"
    assert world.one(indexes, t=new) == world.one(indexes, t=table)


def test_every_partition_has_all_triggers_of_its_parent(world: World) -> None:
    """Also those that were made before a later migration added triggers."""
    missing = """
        SELECT i.inhrelid::regclass::text, t.tgname FROM pg_inherits AS i
        JOIN pg_class AS c ON c.oid = i.inhparent AND c.relkind = 'p'
        JOIN pg_trigger AS t ON t.tgrelid = i.inhparent AND NOT t.tgisinternal
        WHERE NOT EXISTS (SELECT FROM pg_trigger AS own WHERE own.tgrelid = i.inhrelid
                          AND own.tgname = t.tgname AND own.tgenabled = 'O')
    """
    assert world.rows(missing) == []
    assert world.one("SELECT count(*) FROM pg_inherits") > 30


def test_rows_go_into_a_new_partition_and_leave_history(world: World) -> None:
    diary = make_diary(world)
    make(world, "entries", "2101-01-01", "2102-01-01")
    world.entry(diary.user, diary.item, dt.date(2101, 5, 5))
    world.run("UPDATE entries_2101 SET count_value = 2")
    with world.refused(UNIQUE):
        world.entry(diary.user, diary.item, dt.date(2101, 5, 5))
    assert world.all("SELECT operation::text FROM entry_history ORDER BY 1") == ["insert", "update"]
    world.run("ALTER TABLE entries DETACH PARTITION entries_2101")
    with world.acting("kitaab_app", diary.user), world.refused(DENIED):
        world.run("SELECT * FROM entries_2101")
    world.run(
        "ALTER TABLE entries ATTACH PARTITION entries_2101 FOR VALUES FROM ('2101-01-01') TO ('2102-01-01')"
    )


def test_the_list_says_what_is_partitioned(world: World) -> None:
    partitioned = """
        SELECT c.relname::text, a.attname::text, format_type(a.atttypid, -1)
        FROM pg_partitioned_table AS p JOIN pg_class AS c ON c.oid = p.partrelid
        JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = p.partattrs[0]
    """
    found = {
        (t, k, y.replace("timestamp with time zone", "timestamptz")) for t, k, y in world.rows(partitioned)
    }
    assert set(world.rows("SELECT * FROM jobs.partitioned_tables")) == found
    assert world.one("SELECT count(*) FROM pg_partitioned_table WHERE partdefid <> 0") == 0, "no DEFAULT"

"""Row-level security: on every table with a person's data, and nobody sees or changes another one's rows."""

from __future__ import annotations

from typing import Any

import pytest

from tests.models.lives import full_life, make_diary
from tests.models.world import DENIED, TODAY, World

# Tables from which foreign keys lead to users, however far, and those with a column user_id.
PERSONAL = """
    WITH RECURSIVE leads AS (
        SELECT CAST('users' AS regclass)::oid AS oid
        UNION
        SELECT k.conrelid FROM pg_constraint AS k JOIN leads ON leads.oid = k.confrelid WHERE k.contype = 'f'
    ), personal AS (
        SELECT oid FROM leads
        UNION
        SELECT a.attrelid FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid
        WHERE a.attname IN ('user_id', 'changed_by_user_id') AND c.relkind IN ('r', 'p')
    ), with_partitions AS (
        SELECT oid FROM personal
        UNION
        SELECT i.inhrelid FROM pg_inherits AS i JOIN personal ON personal.oid = i.inhparent
    )
    SELECT c.oid::regclass::text, c.relrowsecurity, c.relispartition,
           (SELECT count(*) FROM pg_policy AS p WHERE p.polrelid = c.oid)
    FROM with_partitions JOIN pg_class AS c USING (oid) WHERE c.relkind IN ('r', 'p') ORDER BY 1
"""

# What an app may read or write of a person's: every table on which it has any right.
APPS = (
    "users",
    "deeds",
    "deed_items",
    "scales",
    "scale_values",
    "relations",
    "permissions",
    "entries",
    "entry_history",
    "reflection_messages",
    "messages",
    "notifications",
    "push_subscriptions",
    "channel_opt_outs",
    "merits",
    "merit_items",
    "targets",
    "target_items",
    "audit_log",
    "jobs.deliveries",
    "jobs.notices",
    "jobs.merit_history",
    "jobs.target_history",
)

# How a row of each table is known to be a person's.
OWNER = {
    "deed_items": "deed_id IN (SELECT deed_id FROM deeds WHERE user_id = {})",
    "scales": "deed_id IN (SELECT deed_id FROM deeds WHERE user_id = {})",
    "scale_values": "scale_id IN (SELECT scale_id FROM scales JOIN deeds USING (deed_id) WHERE user_id = {})",
    "relations": "{} IN (requester_id, requestee_id)",
    "permissions": "relation_id IN (SELECT relation_id FROM relations WHERE {} IN (requester_id, requestee_id))",
    "merit_items": "merit_id IN (SELECT merit_id FROM merits WHERE user_id = {})",
    "target_items": "target_id IN (SELECT target_id FROM targets WHERE user_id = {})",
    "jobs.merit_history": "merit_id IN (SELECT merit_id FROM merits WHERE user_id = {})",
    "jobs.target_history": "target_id IN (SELECT target_id FROM targets WHERE user_id = {})",
}

# Of these the worker reads a part alone.
PART_FOR_WORKER = {"audit_log": "table_name = 'notifications'"}


def ids(world: World, table: str, user: int | None = None) -> list[Any]:
    """Return where the rows of a table are, all or a person's."""
    where = OWNER.get(table, "user_id = {}").format(user) if user is not None else "true"
    return sorted(world.all(f"SELECT tableoid::text || ctid::text FROM {table} WHERE {where}"))


@pytest.fixture
def two(world: World) -> tuple[int, int]:
    """Two people with a row in every table, and nothing to do with each other; each acted for themselves."""
    people = []
    for _ in range(2):
        user, _friend = full_life(world)
        with world.acting("kitaab_app", user):
            world.run("UPDATE deeds SET display_order = 3")
        people.append(user)
    return people[0], people[1]


def test_it_is_on_for_every_table_with_a_persons_data_and_each_partition(world: World) -> None:
    found = world.rows(PERSONAL)
    tables = {name for name, _, partition, _ in found if not partition}
    assert tables == set(APPS)
    assert [name for name, on, _, _ in found if not on] == []
    assert len(found) - len(tables) == world.one(
        "SELECT count(*) FROM pg_class WHERE relispartition AND relkind = 'r'"
    )
    assert [name for name, _, partition, policies in found if (policies > 0) == partition] == []


def test_nothing_that_an_app_reaches_is_without_it(world: World) -> None:
    """Only two tables that an app may touch hold nobody's data."""
    query = """
        SELECT oid::regclass::text FROM pg_class
        WHERE relkind IN ('r', 'p', 'v', 'm') AND NOT relrowsecurity
          AND relnamespace IN ('public'::regnamespace, 'jobs'::regnamespace, 'archive'::regnamespace)
          AND relname NOT LIKE 'pg_stat_statements%' AND has_any_column_privilege('kitaab_app', oid, 'SELECT, INSERT, UPDATE')
    """
    assert world.all(query) == ["jobs.kinds", "jobs.queues"]


@pytest.mark.parametrize("table", APPS)
def test_each_sees_exactly_their_own(table: str, two: tuple[int, int], world: World) -> None:
    for user in two:
        own = ids(world, table, user)
        assert own, "the test forgets a table"
        with world.acting("kitaab_app", user):
            assert ids(world, table) == own


@pytest.mark.parametrize("table", APPS)
def test_without_a_person_nothing_is_seen(table: str, two: tuple[int, int], world: World) -> None:
    for nobody in (None, 999_999_999):
        with world.acting("kitaab_app", nobody):
            assert ids(world, table) == []


@pytest.mark.parametrize("table", APPS)
def test_nobody_changes_anothers_rows(table: str, two: tuple[int, int], world: World) -> None:
    """An UPDATE or DELETE of everything touches one's own, or is refused altogether."""
    one, other = two
    may = "SELECT has_any_column_privilege('kitaab_app', CAST(:t AS regclass), 'UPDATE')"
    before = world.all(
        f"SELECT t::text FROM {table} AS t WHERE {OWNER.get(table, 'user_id = {}').format(other)}"
    )
    with world.acting("kitaab_app", one):
        own = ids(world, table)
        if world.one(may, t=table):
            # A constant, and no condition: what reads no column is not held back by who may read. (Who
            # asked for a relation may only end it.)
            column = "deleted_at" if table == "relations" else "created_at"
            assert world.run(f"UPDATE {table} SET {column} = now() - interval '1 day'") <= len(own)
        if world.one("SELECT has_table_privilege('kitaab_app', CAST(:t AS regclass), 'DELETE')", t=table):
            assert world.run(f"DELETE FROM {table}") == len(own)
    after = world.all(
        f"SELECT t::text FROM {table} AS t WHERE {OWNER.get(table, 'user_id = {}').format(other)}"
    )
    assert sorted(after) == sorted(before)


@pytest.mark.parametrize(
    "table",
    [
        t
        for t in APPS
        if not t.startswith("jobs.") and t not in {"entry_history", "users", "push_subscriptions"}
    ],
)
def test_nobody_inserts_rows_for_another(table: str, two: tuple[int, int], world: World) -> None:
    """A copy of each of the other's rows, as it is but for its key and what only jobs write."""
    one, other = two
    columns = world.all(
        "SELECT quote_ident(attname) FROM pg_attribute WHERE attrelid = CAST(:t AS regclass) AND attnum > 1"
        " AND has_column_privilege('kitaab_app', attrelid, attnum, 'INSERT') ORDER BY attnum",
        t=table,
    )
    theirs = OWNER.get(table, "user_id = {}").format(other)
    rows = world.all(f"SELECT to_jsonb(t)::text FROM {table} AS t WHERE {theirs}")
    names = ", ".join(columns)
    with world.acting("kitaab_app", one):
        for row in rows:
            with world.refused(DENIED, "row-level security"):
                world.run(
                    f"INSERT INTO {table} ({names}) SELECT {names} FROM jsonb_populate_record(NULL::{table}, :row)",
                    row=row,
                )


def test_a_persons_own_life_needs_nothing_but_the_app(world: World) -> None:
    """Registration and everything after it, all as kitaab_app."""
    with world.acting("kitaab_app"):
        user = world.one("SELECT nextval('users_user_id_seq')")
    with world.acting("kitaab_app", user):
        assert world.person(user_id=user) == user
        deed = world.deed(user)
        root = world.item(deed)
        item = world.item(deed, root)
        world.run("UPDATE deed_items SET parent_deed_item_id = NULL WHERE deed_item_id = :i", i=item)
        scale = world.scale(deed)
        value = world.value(scale)
        scaled = world.item(deed, type="scale")
        world.entry(user, item)
        world.entry(user, scaled, count=None, scale_id=scale, scale_value_id=value, created_by_user_id=user)
        merit = world.merit(user, deed)
        world.merit_item(merit, deed, item)
        target = world.target(user)
        world.target_item(target, item)
        world.notification(user)
        world.run("UPDATE entries SET count_value = 3 WHERE deed_item_id = :i", i=item)
        world.run("DELETE FROM target_items")
        assert len(world.all("SELECT 1 FROM audit_log")) > 10
        world.run(
            "INSERT INTO audit_log (user_id, action_type, table_name) VALUES (:u, 'login', 'users')", u=user
        )


def test_the_person_is_the_transactions(world: World) -> None:
    """What a pooled connection does next starts with nobody."""
    assert world.one("SELECT app_user_id()") is None
    with world.connection.begin_nested() as savepoint:
        world.run("SET LOCAL app.user_id = '7'")
        assert world.one("SELECT app_user_id()") == 7
        savepoint.rollback()
    assert world.one("SELECT app_user_id()") is None
    with world.refused("22P02"):
        world.run("SET LOCAL app.user_id = '7 OR true'")
        world.one("SELECT app_user_id()")


def test_a_view_without_the_invokers_rights_would_show_everything(world: World) -> None:
    """Why no view of ours may be without them; that there is none is checked here."""
    views = """
        SELECT c.oid::regclass::text FROM pg_class AS c
        WHERE c.relkind IN ('v', 'm') AND c.relnamespace IN ('public'::regnamespace, 'jobs'::regnamespace)
          AND c.relname NOT LIKE 'pg_stat_statements%'
          AND (c.relkind = 'm' OR NOT coalesce(c.reloptions, '{}') && ARRAY['security_invoker=true', 'security_invoker=on'])
          AND has_table_privilege('kitaab_app', c.oid, 'SELECT')
    """
    assert world.all(views) == []
    make_diary(world)
    make_diary(world)
    world.run("CREATE VIEW leaks AS SELECT * FROM deeds")
    world.run("GRANT SELECT ON leaks TO kitaab_app")
    assert world.all(views) == ["leaks"]
    with world.acting("kitaab_app"):
        assert world.one("SELECT count(*) FROM leaks") == 2


def test_readers_and_workers_see_everyone_where_they_may_read(two: tuple[int, int], world: World) -> None:
    for role in ("kitaab_readonly", "kitaab_worker"):
        for table in APPS:
            readable = "SELECT has_any_column_privilege(:role, CAST(:table AS regclass), 'SELECT')"
            if world.one(readable, role=role, table=table):
                part = PART_FOR_WORKER.get(table, "true") if role == "kitaab_worker" else "true"
                expected = world.one(f"SELECT count(*) FROM {table} WHERE {part}")
                with world.acting(role):
                    assert world.one(f"SELECT count(*) FROM {table}") == expected, (role, table)


def test_policies_are_for_named_roles_only(world: World) -> None:
    assert world.all("SELECT policyname FROM pg_policies WHERE 'public' = ANY (roles)") == []


def test_the_streaks_of_others_are_seen_as_far_as_their_entries_are(
    two: tuple[int, int], world: World
) -> None:
    """Not by who is nobody to them, and of what is shared by those with whom it is."""
    everything = world.all("SELECT deed_item_id FROM deed_items")
    query = "SELECT deed_item_id FROM item_streaks(:items, :today) WHERE current_days = 3 ORDER BY 1"
    recorded = {
        user: world.all(
            "SELECT deed_item_id FROM entries WHERE user_id = :user GROUP BY 1 HAVING count(*) = 3", user=user
        )
        for user in two
    }
    for user in two:
        with world.acting("kitaab_app", user):
            assert world.all(query, items=everything, today=TODAY) == recorded[user] != []
    friend = world.one("SELECT max(requester_id) FROM relations WHERE requestee_id = :user", user=two[0])
    with world.acting("kitaab_app", friend):
        assert world.all(query, items=everything, today=TODAY) == recorded[two[0]]

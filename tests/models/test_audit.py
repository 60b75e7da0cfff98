"""The audit log: who changed what, from where, without the secrets; and when a row was last changed."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from sqlalchemy import Engine, text

from tests.models.lives import full_life
from tests.models.world import DENIED, TODAY, World, insert

# The triggers are named after the table and what they watch.
AUDITED = """
    SELECT DISTINCT tgrelid::regclass::text FROM pg_trigger
    WHERE tgname LIKE '%\\_audit\\_%' AND tgparentid = 0 ORDER BY 1
"""

SECRET = "seCret-4711"

MASKED = {
    "users": ("password_hash", "full_name", "email"),
    "deeds": ("description",),
    "deed_items": ("description",),
    "reflection_messages": ("content",),
    "messages": ("content", "subject"),
    "merits": ("description",),
    "targets": ("description",),
}


def log(world: World) -> list[Any]:
    return list(world.connection.execute(text("SELECT * FROM audit_log ORDER BY audit_log_id")))


def last(world: World) -> Any:
    return log(world)[-1]


def test_every_table_of_a_persons_decisions_is_audited(world: World) -> None:
    """Entries have their own history; what triggers and jobs write is not a decision."""
    without = {"entries", "entry_history", "audit_log", "alembic_version"}
    tables = world.all(
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace"
        " AND relkind IN ('r', 'p') AND NOT relispartition"
    )
    assert set(world.all(AUDITED)) == set(tables) - without


def numbered(world: World) -> list[str]:
    """Return the audited tables whose rows have a number."""
    return [table for table in world.all(AUDITED) if table != "suppressed_addresses"]


def test_each_insert_update_and_delete_leaves_a_row(world: World) -> None:
    full_life(world)
    for table in numbered(world):
        recorded = world.one("SELECT count(*) FROM audit_log WHERE table_name = :t", t=table)
        assert recorded == world.one(f"SELECT count(*) FROM {table}") > 0
    _without_foreign_keys(world)
    for table in numbered(world):
        key = key_of(world, table)
        record = world.one(f"SELECT max({key}) FROM {table}")
        for operation, statement in (
            ("update", f"UPDATE {table} SET created_at = '2001-01-01' WHERE {key} = :id"),
            ("delete", f"DELETE FROM {table} WHERE {key} = :id"),
        ):
            world.run(statement, id=record)
            row = last(world)
            assert (row.action_type, row.table_name, row.record_id) == (operation, table, record)
            assert (row.old_values is None, row.new_values is None) == (False, operation == "delete")


def key_of(world: World, table: str) -> str:
    """Return the first column of a table, which is its key."""
    query = "SELECT attname FROM pg_attribute WHERE attrelid = CAST(:t AS regclass) AND attnum = 1"
    return str(world.one(query, t=table))


def _without_foreign_keys(world: World) -> None:
    """Take all foreign keys away, so that any row can go on its own."""
    for statement in world.all(
        "SELECT format('ALTER TABLE %s DROP CONSTRAINT %I', conrelid::regclass, conname)"
        " FROM pg_constraint WHERE contype = 'f' AND conparentid = 0"
    ):
        world.run(statement)


def test_an_update_stores_what_changed(world: World) -> None:
    deed = world.deed(world.person(), name="Prayer", display_order=1)
    world.run("UPDATE deeds SET name = 'Fasting', display_order = 2")
    row = last(world)
    assert (row.action_type, row.record_id) == ("update", deed)
    assert row.old_values == {"name": "Prayer", "display_order": 1}
    assert row.new_values == {"name": "Fasting", "display_order": 2}


def test_who_from_where_and_as_which_role(world: World) -> None:
    user = world.person()
    with world.acting("kitaab_app", user, ip="203.0.113.7"):
        world.deed(user)
    row = last(world)
    assert (row.user_id, str(row.ip_address), row.db_role) == (user, "203.0.113.7", "kitaab_app")
    world.run("UPDATE deeds SET display_order = 5")
    row = last(world)
    assert (row.user_id, row.ip_address, row.db_role) == (None, None, "kitaab_admin")


def test_one_row_for_each_of_many(world: World) -> None:
    user = world.person()
    for _ in range(20):
        world.deed(user)
    world.run("UPDATE deeds SET display_order = 7")
    rows = [row for row in log(world) if row.action_type == "update"]
    assert len({row.record_id for row in rows}) == len(rows) == 20


def test_secrets_are_nowhere_in_the_log(world: World) -> None:
    """The whole log is searched for the value, after each kind of change."""
    user, _ = full_life(world)
    for table, columns in MASKED.items():
        for column in columns:
            secret = f"@{SECRET}.{table}.{column}" if column != "email" else f"x@{SECRET}.{table}"
            world.run(f"UPDATE {table} SET {column} = :secret || ctid::text", secret=secret)
    email = f"fresh@{SECRET}"
    second = world.person(password_hash=SECRET, full_name=SECRET, email=email)
    deed = world.deed(second, description=SECRET)
    world.item(deed, description=SECRET)
    world.merit(second, deed, description=SECRET)
    world.target(second, description=SECRET)
    note = {"user_id": second, "reflection_date": TODAY, "type": "hasanaat", "content": SECRET}
    insert(world.connection, "reflection_messages", **note)
    insert(world.connection, "messages", user_id=second, sender="user", content=SECRET, subject=SECRET)
    world.run("DELETE FROM users WHERE user_id IN (:one, :two)", one=user, two=second)
    assert world.one("SELECT count(*) FROM audit_log") > 40
    rows = world.all("SELECT row_to_json(a)::text FROM audit_log AS a")
    assert [row for row in rows if SECRET in row] == []
    assert world.one("SELECT count(*) FROM audit_log WHERE new_values ->> 'password_hash' = '***'") > 2


def test_how_people_are_reached_is_on_record_without_where(world: World) -> None:
    """A browser that changes hands, an opt-out that is taken back, an address that is confirmed anew."""
    one, other = world.person(email="one@example.org"), world.person()
    keys = [("A" * 87, "a" * 22), ("B" * 87, "b" * 22)]
    endpoint = f"https://push.example/{SECRET}"
    for person, (p256dh, auth) in zip((one, other), keys, strict=True):
        with world.acting("kitaab_app", person):
            world.one(
                "SELECT save_push_subscription(:endpoint, :p256dh, :auth)",
                endpoint=endpoint,
                p256dh=p256dh,
                auth=auth,
            )
    subscription = world.one("SELECT push_subscription_id FROM push_subscriptions")
    world.run("UPDATE push_subscriptions SET last_used_at = now()")
    world.run("DELETE FROM push_subscriptions")
    with world.acting("kitaab_app", one):
        for kind in ("reminder", "completion"):
            insert(world.connection, "channel_opt_outs", user_id=one, channel="email", kind=kind)
        world.run("DELETE FROM channel_opt_outs WHERE kind = 'reminder'")
    hashed = "sha256(convert_to('one@example.org', 'UTF8'))"
    world.run(f"INSERT INTO suppressed_addresses (address_hash, reason) VALUES ({hashed}, 'bounced')")
    world.run("UPDATE suppressed_addresses SET reason = 'bounced again'")
    with world.acting("kitaab_app", one):
        assert world.run("DELETE FROM suppressed_addresses") == 1
    said = [
        (row.table_name, row.action_type, row.user_id, row.record_id)
        for row in log(world)
        if row.table_name not in ("users", "deeds")
    ]
    assert said == [
        ("push_subscriptions", "insert", one, subscription),
        ("push_subscriptions", "update", other, subscription),
        ("push_subscriptions", "delete", None, subscription),
        ("channel_opt_outs", "insert", one, one),
        ("channel_opt_outs", "insert", one, one),
        ("channel_opt_outs", "delete", one, one),
        ("suppressed_addresses", "insert", None, None),
        ("suppressed_addresses", "update", None, None),
        ("suppressed_addresses", "delete", one, None),
    ]
    rows = world.all("SELECT row_to_json(a)::text FROM audit_log AS a")
    hex_of_hash = world.one(f"SELECT encode({hashed}, 'hex')")
    for secret in (SECRET, *(part for pair in keys for part in pair), "one@example.org", hex_of_hash):
        assert [row for row in rows if secret in row] == [], secret
    [handed_over] = [
        row for row in log(world) if row.table_name[:4] == "push" and row.action_type == "update"
    ]
    assert handed_over.old_values == {"user_id": one, "p256dh": "***", "auth": "***"}
    assert handed_over.new_values == {"user_id": other, "p256dh": "***", "auth": "***"}


def test_an_opt_out_and_an_address_stay_what_they_are(world: World) -> None:
    full_life(world)
    with world.refused("23514", "channel_opt_outs_identity"):
        world.run("UPDATE channel_opt_outs SET channel = 'webpush'")
    world.run("INSERT INTO suppressed_addresses VALUES (sha256('a'), 'bounced')")
    with world.refused("23514", "suppressed_addresses_identity"):
        world.run("UPDATE suppressed_addresses SET address_hash = sha256('b')")


def test_that_a_secret_changed_is_seen(world: World) -> None:
    world.person()
    world.run("UPDATE users SET password_hash = 'another'")
    row = last(world)
    assert row.old_values == row.new_values == {"password_hash": "***"}


@pytest.mark.parametrize(
    ("table", "change"),
    [
        ("merits", "percent = 7, is_satisfied = true"),
        ("targets", "percent = 7, is_satisfied = true"),
        ("notifications", "next_due_at = now(), next_due_date = current_date"),
        ("notifications", "last_due_at = now(), last_due_date = current_date"),
        ("users", "last_login_at = now()"),
        ("push_subscriptions", "last_used_at = now()"),
        ("users", "full_name = full_name"),
    ],
)
def test_what_is_computed_leaves_no_row(table: str, change: str, world: World) -> None:
    full_life(world)
    before = len(log(world))
    assert world.run(f"UPDATE {table} SET {change}") > 0
    assert len(log(world)) == before


@pytest.mark.parametrize("table", ["merits", "targets"])
def test_a_completion_leaves_a_row(table: str, world: World) -> None:
    full_life(world)
    world.run(f"UPDATE {table} SET percent = 100, completed_at = now(), completed_on = current_date")
    assert set(last(world).new_values) == {"completed_at", "completed_on"}


def test_a_change_of_the_key_is_refused_since_the_log_could_not_tell_it(world: World) -> None:
    full_life(world)
    _without_foreign_keys(world)
    for table in numbered(world):
        key = key_of(world, table)
        with world.refused("23514", f"{table}_identity"):
            world.run(f"UPDATE {table} SET {key} = {key} + 1000000")


@pytest.mark.parametrize("role", ["kitaab_app", "kitaab_worker"])
def test_nobody_signs_a_row_with_another_role(role: str, world: World) -> None:
    user = world.person()
    values = "(action_type, table_name, user_id, db_role) VALUES ('login', 'users', :user, :role)"
    with world.acting(role, user):
        world.run(f"INSERT INTO audit_log {values}", user=user, role=role)
        with world.refused(DENIED, "row-level security"):
            world.run(f"INSERT INTO audit_log {values}", user=user, role="kitaab_admin")
    with world.acting("kitaab_app", user), world.refused(DENIED, "row-level security"):
        world.run(f"INSERT INTO audit_log {values}", user=user + 1, role="kitaab_app")


# updated_at


def test_updated_at_follows_each_change(world: World, database: Engine) -> None:
    """In a database of its own: the time is the transaction's, so the change needs another one."""
    with database.begin() as connection:
        full_life(World(connection))
        tables = World(connection).all(
            "SELECT attrelid::regclass::text FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid"
            " WHERE attname = 'updated_at' AND relnamespace = 'public'::regnamespace AND NOT relispartition"
            " AND relkind IN ('r', 'p')"
        )
    assert len(tables) == 15
    for table in tables:
        change = {"relations": "accepted_at = now()", "permissions": "is_active = false, revoked_at = now()"}
        with database.begin() as connection:
            connection.execute(text(f"UPDATE {table} SET created_at = created_at, updated_at = updated_at"))
        with database.begin() as connection:
            unchanged = World(connection)
            assert unchanged.one(f"SELECT count(*) FROM {table} WHERE updated_at <> created_at") == 0
            connection.execute(text(f"UPDATE {table} SET {change.get(table) or _change(table)}"))
            wrong = f"SELECT count(*) FROM {table} WHERE updated_at <> now()"
            assert unchanged.one(wrong) == 0, table


def _change(table: str) -> str:
    """Return a change of a column that a person may change."""
    return {
        "entries": "notes = 'changed'",
        "merit_items": "target_value = 99",
        "target_items": "target_value = 99",
        "scale_values": "value_order = 99",
        "scales": "is_active = false",
        "users": "language = 'tr'",
        "deeds": "display_order = 99",
        "deed_items": "display_order = 99",
        "notifications": "notification_time = '06:00'",
        "messages": "content = 'changed'",
        "reflection_messages": "content = 'changed'",
        "merits": "name = 'changed'",
        "targets": "name = 'changed'",
    }[table]


@pytest.mark.parametrize(
    ("table", "computed"),
    [
        ("merits", "percent = 7"),
        ("targets", "frozen_at = now()"),
        ("notifications", "next_due_at = now(), next_due_date = current_date"),
    ],
)
def test_what_is_computed_is_not_a_change(table: str, computed: str, world: World) -> None:
    full_life(world)
    world.run(f"UPDATE {table} SET {computed}")
    world.run(f"ALTER TABLE {table} DISABLE TRIGGER {table}_updated_at")
    world.run(f"UPDATE {table} SET updated_at = '2001-01-01'")
    world.run(f"ALTER TABLE {table} ENABLE TRIGGER {table}_updated_at")
    world.run(
        f"UPDATE {table} SET {computed.replace('7', '8').replace('now()', 'now() + interval $$1 day$$')}"
    )
    assert world.all(f"SELECT DISTINCT updated_at FROM {table}") == [dt.datetime(2001, 1, 1, tzinfo=dt.UTC)]


def test_a_change_of_time_or_zone_forgets_the_next_reminder(world: World) -> None:
    full_life(world)
    for change in ("notification_time = '05:00'", "timezone = 'Asia/Tokyo'", "is_active = false"):
        world.run("UPDATE notifications SET next_due_at = now(), next_due_date = current_date")
        world.run(f"UPDATE notifications SET {change}")
        assert world.rows("SELECT next_due_at, next_due_date FROM notifications") == [(None, None)]

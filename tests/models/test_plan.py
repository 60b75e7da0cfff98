"""The domain's plan, line by line: every table, enum, rule and index that it names is there."""

from __future__ import annotations

import pytest

from tests.models.world import World

TABLES = """
    users deeds deed_items scales scale_values entries entry_history relations permissions reflection_messages
    messages notifications merits merit_items targets target_items audit_log
    push_subscriptions channel_opt_outs suppressed_addresses
"""

ENUMS = {
    "deed_category_type": "hasanaat saiyyiaat",
    "relation_status_enum": "pending accepted rejected blocked",
    "permission_type_enum": "read write",
    "value_type_enum": "count scale",
    "goal_logic_enum": "AND OR",
    "goal_direction_enum": "at_least at_most",
    "reflection_type_enum": "hasanaat saiyyiaat",
    "message_sender_enum": "user support",
    "history_operation_enum": "insert update delete",
}

SOFTLY_DELETED = "users deeds deed_items scales merits targets relations messages reflection_messages"
VERSIONED = "scales permissions"

# child, columns, parent, and what a deletion of the parent does: c cascade, n set null, a refuse
FOREIGN_KEYS = """
    deeds user_id users c
    push_subscriptions user_id users c
    channel_opt_outs user_id users c
    jobs.deliveries notice_id jobs.notices c
    jobs.waiting_fires schedule jobs.schedules a
    deed_items deed_id deeds c
    deed_items parent_deed_item_id,deed_id deed_items a
    scales deed_id deeds c
    scale_values scale_id scales c
    relations requester_id users c
    relations requestee_id users c
    permissions relation_id relations c
    permissions deed_item_id deed_items c
    entries user_id users c
    entries created_by_user_id users n
    entries deed_item_id deed_items a
    entries scale_id scales n
    entries scale_value_id scale_values a
    reflection_messages user_id users c
    messages user_id users c
    messages parent_message_id,user_id messages c
    notifications user_id users c
    merits user_id users c
    merits deed_id,user_id deeds c
    merit_items deed_id deeds c
    merit_items merit_id,deed_id merits c
    merit_items deed_item_id,deed_id deed_items a
    merit_items deed_item_id,item_type deed_items a
    merit_items scale_value_id scale_values a
    targets user_id users c
    target_items target_id targets c
    target_items deed_item_id,item_type deed_items a
    target_items scale_value_id scale_values a
    jobs.deliveries notification_id notifications c
    jobs.notices merit_id merits c
    jobs.notices target_id targets c
    jobs.merit_history merit_id merits c
    jobs.target_history target_id targets c
"""

CHECKS = {
    "targets_end_not_before_start": "end_date >= start_date",
    "deed_items_level_fits_parent": "parent_deed_item_id IS NULL AND level = 1 OR parent_deed_item_id IS NOT NULL AND"
    " level > 1",
    "entry_has_value": "scale_value_id IS NOT NULL OR count_value IS NOT NULL",
    "relations_not_with_oneself": "requester_id <> requestee_id",
}

UNIQUE = {
    "unique_user_deed_item_date": "entries (user_id, deed_item_id, entry_date) INCLUDE (count_value, scale_value_id)",
    "uq_notifications_one_active": "notifications (user_id) WHERE is_active",
    "uq_reflection_messages_day": "reflection_messages (user_id, reflection_date, type) WHERE deleted_at IS NULL",
}

# The plan's idx_entries_date_range has a predicate that no index can have; the partitions stand in for it.
INDEXES = {
    "idx_deeds_user_id": "deeds (user_id) WHERE deleted_at IS NULL",
    "idx_deed_items_deed_id": "deed_items (deed_id) WHERE deleted_at IS NULL",
    "idx_entries_user_id": "entries (user_id)",
    "idx_entries_deed_item_id": "entries (deed_item_id)",
    "idx_entries_user_date": "entries (user_id, entry_date DESC)",
    "idx_permissions_relation_deed": "permissions (relation_id, deed_item_id, is_active)",
    "idx_deed_items_level": "deed_items (deed_id, level, display_order) WHERE deleted_at IS NULL",
    "idx_users_active": "users (is_active) WHERE deleted_at IS NULL",
    "idx_deeds_active": "deeds (is_active, user_id) WHERE deleted_at IS NULL",
    "idx_relations_accepted": "relations (requester_id, requestee_id) WHERE status = 'accepted'",
    "idx_entries_date_range": "entries (entry_date)",
    "idx_entries_notes_gin": "entries (to_tsvector('english', notes)) WHERE notes IS NOT NULL",
    "idx_messages_content_gin": "messages (to_tsvector('english', content))",
    "idx_notifications_time": "notifications (next_due_at) WHERE is_active",
}

OURS = "relnamespace IN ('public'::regnamespace, 'jobs'::regnamespace) AND relkind IN ('r', 'p') AND NOT relispartition"


def plain(definition: str) -> str:
    """Return a definition from the catalog without its casts and the outer brackets of its terms."""
    for cast in ("::text", "::regconfig", "::relation_status_enum"):
        definition = definition.replace(cast, "")
    return definition.replace("(((", "(").replace(")))", ")").replace("((", "(").replace("))", ")")


def test_tables(world: World) -> None:
    found = world.all(
        f"SELECT relname FROM pg_class WHERE {OURS} AND relnamespace = 'public'::regnamespace AND relname <> 'alembic_version'"
    )
    assert set(found) == set(TABLES.split())


def test_enums(world: World) -> None:
    query = """
        SELECT t.typname::text, string_agg(e.enumlabel, ' ' ORDER BY e.enumsortorder)
        FROM pg_type AS t JOIN pg_enum AS e ON e.enumtypid = t.oid
        WHERE t.typnamespace = 'public'::regnamespace GROUP BY 1
    """
    assert dict(world.rows(query)) == ENUMS


def test_foreign_keys(world: World) -> None:
    query = """
        SELECT k.conrelid::regclass::text, string_agg(a.attname, ',' ORDER BY u.place), k.confrelid::regclass::text,
               k.confdeltype::text
        FROM pg_constraint AS k
        CROSS JOIN LATERAL unnest(k.conkey) WITH ORDINALITY AS u (number, place)
        JOIN pg_attribute AS a ON a.attrelid = k.conrelid AND a.attnum = u.number
        WHERE k.contype = 'f' AND k.conparentid = 0 GROUP BY k.oid
    """
    expected = {tuple(line.split()) for line in FOREIGN_KEYS.strip().splitlines()}
    assert set(world.rows(query)) == expected


def test_every_foreign_key_is_indexed(world: World) -> None:
    """By an index that begins with its first column and leaves out nothing but NULL."""
    query = """
        SELECT k.conrelid::regclass::text, k.conname::text FROM pg_constraint AS k
        WHERE k.contype = 'f' AND k.conparentid = 0 AND NOT EXISTS (
            SELECT FROM pg_index AS i WHERE i.indrelid = k.conrelid AND i.indkey[0] = k.conkey[1]
            AND (i.indpred IS NULL OR pg_get_expr(i.indpred, i.indrelid) ~ '^\\(\\w+ IS NOT NULL\\)$'))
    """
    assert world.rows(query) == []


@pytest.mark.parametrize("name", CHECKS)
def test_checks(name: str, world: World) -> None:
    query = """
        SELECT pg_get_constraintdef(k.oid, true) FROM pg_constraint AS k JOIN pg_class AS c ON c.oid = k.conrelid
        WHERE k.conname = :name AND NOT c.relispartition
    """
    definition = world.one(query, name=name)
    assert definition == f"CHECK ({CHECKS[name]})"


@pytest.mark.parametrize("name", [*UNIQUE, *INDEXES])
def test_unique_rules_and_indexes(name: str, world: World) -> None:
    query = """
        SELECT c.relname || ' ' || regexp_replace(pg_get_indexdef(i.indexrelid, 0, true), '^.* USING \\w+ ', ''),
               i.indisunique, i.indisvalid
        FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indrelid JOIN pg_class AS x ON x.oid = i.indexrelid
        WHERE x.relname = :name
    """
    ((definition, unique, valid),) = world.rows(query, name=name)
    assert plain(definition) == plain((UNIQUE | INDEXES)[name])
    assert (unique, valid) == (name in UNIQUE, True)


def test_keys_are_big_identities_named_after_their_table(world: World) -> None:
    query = f"""
        SELECT c.relname::text, a.attname::text, format_type(a.atttypid, a.atttypmod), a.attidentity::text
        FROM pg_class AS c JOIN pg_index AS i ON i.indrelid = c.oid AND i.indisprimary
        JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = i.indkey[0]
        WHERE {OURS} AND relnamespace = 'public'::regnamespace
          AND relname NOT IN ('alembic_version', 'channel_opt_outs', 'suppressed_addresses')  -- their keys say what they hold
    """
    for table, column, type, identity in world.rows(query):
        singular = {"entries": "entry", "entry_history": "entry_history", "audit_log": "audit_log"}
        assert column == f"{singular.get(table, table.removesuffix('s'))}_id"
        assert (type, identity) == ("bigint", "d")


def test_types_of_times_and_amounts(world: World) -> None:
    query = f"""
        SELECT a.attname::text, format_type(a.atttypid, a.atttypmod)
        FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid
        WHERE {OURS} AND relname <> 'alembic_version' AND a.attnum > 0 AND NOT a.attisdropped
    """
    for name, type in world.rows(query):
        if name.endswith("_at"):
            assert type == "timestamp with time zone", name
        if type.startswith("numeric"):
            assert type == "numeric(10,2)", name
        if name.endswith("_days"):
            assert type == "integer", name
        if name.endswith("_values"):
            assert type == "jsonb", name
        assert type not in {"timestamp without time zone", "real", "double precision", "money", "json"}, name


@pytest.mark.parametrize(("column", "tables"), [("deleted_at", SOFTLY_DELETED), ("version", VERSIONED)])
def test_soft_deletion_and_versions(column: str, tables: str, world: World) -> None:
    query = (
        "SELECT c.relname FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid"
        f" WHERE {OURS} AND relnamespace = 'public'::regnamespace AND a.attname = :column"
    )
    assert set(world.all(query, column=column)) == set(tables.split())


def test_partitioned_by_time(world: World) -> None:
    query = "SELECT partrelid::regclass::text, pg_get_partkeydef(partrelid) FROM pg_partitioned_table"
    assert dict(world.rows(query)) == {
        "entries": "RANGE (entry_date)",
        "entry_history": "RANGE (changed_at)",
        "audit_log": "RANGE (created_at)",
    }


def test_the_plans_policy_by_its_name(world: World) -> None:
    row = world.row("SELECT cmd, roles::text, qual FROM pg_policies WHERE policyname = 'user_entries_policy'")
    assert (row.cmd, row.roles) == ("ALL", "{kitaab_app}")
    assert "user_id" in row.qual


def test_history_outlives_the_entry(world: World) -> None:
    """No foreign key leads from or to it: a referenced partition cannot be detached."""
    query = "SELECT count(*) FROM pg_constraint WHERE contype = 'f' AND CAST(:t AS regclass) IN (conrelid, confrelid)"
    assert [world.one(query, t=table) for table in ("entry_history", "audit_log")] == [0, 0]
    to_entries = "SELECT count(*) FROM pg_constraint WHERE contype = 'f' AND confrelid = 'entries'::regclass"
    assert world.one(to_entries) == 0

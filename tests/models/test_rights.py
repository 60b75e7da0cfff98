"""Who may do what: a table to be read, compared with what the database grants."""

from __future__ import annotations

import pytest
from sqlalchemy.orm import Session

from kitaab_jobs.models import Merit, Target
from tests.models.lives import full_life
from tests.models.test_enqueue import ENQUEUE
from tests.models.world import DENIED, TODAY, World

ROLES = ("kitaab_app", "kitaab_readonly", "kitaab_worker")

# S select, I insert, U update, D delete; a small letter: only the columns below; -: nothing. Nobody may
# truncate, refer to, or put triggers on a table, and nothing at all is granted on a partition. On all
# tables with a person's data, row-level security decides further which rows.
TABLES = """
    table                 app    readonly  worker
    users                 SIU    s         s
    deeds                 SIU    s         -
    deed_items            SIU    s         s
    scales                SIU    S         -
    scale_values          SIU    S         -
    relations             SIU    S         -
    permissions           SIU    S         -
    entries               SIUD   s         s
    entry_history         S      s         -
    reflection_messages   SIU    s         -
    messages              SIU    s         -
    notifications         SIU    S         su
    merits                Siu    s         su
    merit_items           SIUD   S         s
    targets               Siu    s         su
    target_items          SIUD   S         s
    audit_log             SI     s         sI
    alembic_version       -      S         S
    jobs.queues           S      S         SIU
    jobs.kinds            S      S         SIU
    jobs.jobs             -      S         SIUD
    jobs.schedules        -      S         SIUD
    jobs.fires            -      S         SIuD
    jobs.waiting_fires    -      S         SID
    jobs.processes        -      S         SIUD
    jobs.timetables       -      S         SI
    jobs.deliveries       S      S         SIU
    jobs.notices          S      S         SIU
    jobs.zone_data        -      S         SIU
    push_subscriptions    SD     s         SuD
    channel_opt_outs      SID    S         S
    suppressed_addresses  SD     s         SI
    jobs.progress_marks   -      S         SiuD
    jobs.merit_history    S      S         SIUD
    jobs.target_history   S      S         SIUD
    jobs.partitioned_tables -    S         S
"""

COLUMNS = {
    (
        "kitaab_readonly",
        "deeds",
        "SELECT",
    ): "deed_id user_id category_type name display_order is_active created_at updated_at deleted_at",
    (
        "kitaab_readonly",
        "deed_items",
        "SELECT",
    ): "deed_item_id deed_id parent_deed_item_id level name value_type display_order is_active "
    "created_at updated_at deleted_at",
    (
        "kitaab_readonly",
        "merits",
        "SELECT",
    ): "merit_id user_id deed_id name merit_type start_date duration_days is_active percent "
    "is_satisfied completed_on completed_at created_at updated_at deleted_at as_of",
    (
        "kitaab_readonly",
        "targets",
        "SELECT",
    ): "target_id user_id name target_type start_date end_date is_active percent is_satisfied "
    "completed_on completed_at frozen_at created_at updated_at deleted_at as_of",
    (
        "kitaab_readonly",
        "audit_log",
        "SELECT",
    ): "audit_log_id created_at user_id action_type table_name record_id db_role",
    (
        "kitaab_readonly",
        "users",
        "SELECT",
    ): "user_id timezone language email_verified is_active created_at deleted_at",
    (
        "kitaab_readonly",
        "entries",
        "SELECT",
    ): "entry_id entry_date user_id deed_item_id created_by_user_id scale_id"
    " scale_value_id count_value created_at updated_at",
    (
        "kitaab_readonly",
        "entry_history",
        "SELECT",
    ): "entry_history_id changed_at entry_id entry_date user_id operation changed_by_user_id changed_by_role",
    (
        "kitaab_readonly",
        "reflection_messages",
        "SELECT",
    ): "reflection_message_id user_id reflection_date type created_at updated_at deleted_at",
    (
        "kitaab_readonly",
        "messages",
        "SELECT",
    ): "message_id user_id parent_message_id sender read_at created_at updated_at deleted_at",
    (
        "kitaab_worker",
        "users",
        "SELECT",
    ): "user_id email timezone language email_verified is_active deleted_at",
    (
        "kitaab_readonly",
        "push_subscriptions",
        "SELECT",
    ): "push_subscription_id user_id created_at last_used_at",
    ("kitaab_readonly", "suppressed_addresses", "SELECT"): "reason created_at",
    ("kitaab_worker", "push_subscriptions", "UPDATE"): "last_used_at",
    ("kitaab_worker", "deed_items", "SELECT"): "deed_item_id parent_deed_item_id",
    ("kitaab_worker", "entries", "SELECT"): "entry_date user_id deed_item_id scale_value_id count_value",
    (
        "kitaab_worker",
        "notifications",
        "SELECT",
    ): "notification_id user_id notification_time timezone is_active"
    " next_due_at next_due_date last_due_at last_due_date updated_at"
    " weekdays quiet_from quiet_until channels skip_if_recorded before_edit",
    (
        "kitaab_worker",
        "audit_log",
        "SELECT",
    ): "audit_log_id created_at action_type table_name record_id old_values new_values",
    (
        "kitaab_worker",
        "merits",
        "SELECT",
    ): "merit_id user_id name merit_type start_date duration_days is_active percent is_satisfied completed_on"
    " completed_at deleted_at as_of",
    (
        "kitaab_worker",
        "merit_items",
        "SELECT",
    ): "merit_item_id merit_id deed_item_id scale_value_id target_value direction",
    (
        "kitaab_worker",
        "targets",
        "SELECT",
    ): "target_id user_id name target_type start_date end_date is_active percent is_satisfied completed_on"
    " completed_at frozen_at deleted_at as_of",
    (
        "kitaab_worker",
        "target_items",
        "SELECT",
    ): "target_item_id target_id deed_item_id scale_value_id target_value direction",
    (
        "kitaab_worker",
        "notifications",
        "UPDATE",
    ): "next_due_at next_due_date last_due_at last_due_date before_edit",
    # What is computed, only the jobs write: nobody calls a goal of theirs complete.
    ("kitaab_app", "merits", "INSERT"): "merit_id user_id deed_id name description merit_type start_date"
    " duration_days is_active created_at updated_at deleted_at",
    ("kitaab_app", "merits", "UPDATE"): "name description merit_type start_date duration_days is_active"
    " created_at updated_at deleted_at",
    ("kitaab_app", "targets", "INSERT"): "target_id user_id name description target_type start_date end_date"
    " is_active created_at updated_at deleted_at",
    ("kitaab_app", "targets", "UPDATE"): "name description target_type start_date end_date is_active"
    " created_at updated_at deleted_at",
    ("kitaab_worker", "merits", "UPDATE"): "percent is_satisfied completed_on completed_at as_of",
    ("kitaab_worker", "targets", "UPDATE"): "percent is_satisfied completed_on completed_at frozen_at as_of",
    ("kitaab_worker", "jobs.progress_marks", "INSERT"): "kind subject_id is_background",
    ("kitaab_worker", "jobs.progress_marks", "UPDATE"): "marked_at",
    ("kitaab_worker", "jobs.fires", "UPDATE"): "ended_as ended_at",
}

FUNCTIONS = {
    "kitaab_app": "app_own_deeds app_relations app_shared_deed_items app_shared_deeds app_user_id item_streaks"
    " jobs.enqueue jobs.enqueue_many save_push_subscription user_for_login",
    "kitaab_readonly": "app_user_id item_streaks",
    "kitaab_worker": "jobs.enqueue jobs.enqueue_many jobs.finish jobs.make_partition jobs.mark_items_of jobs.start",
}

SCHEMAS = {
    "kitaab_app": "jobs public",
    "kitaab_readonly": "archive jobs public",
    "kitaab_worker": "archive jobs public",
}

COMMANDS = {"S": "SELECT", "I": "INSERT", "U": "UPDATE", "D": "DELETE"}

OURS = "n.nspname IN ('public', 'jobs', 'archive')"
# What an extension brought along is not ours.
OUR_FUNCTIONS = (
    OURS + " AND NOT EXISTS (SELECT FROM pg_depend AS e WHERE e.objid = p.oid AND e.deptype = 'e')"
)
OUR_TABLES = OURS + " AND NOT EXISTS (SELECT FROM pg_depend AS e WHERE e.objid = c.oid AND e.deptype = 'e')"


def intended() -> dict[tuple[str, str], str]:
    """Return the letters of the table above: {(role, table): letters}."""
    _, *lines = [line.split() for line in TABLES.strip().splitlines()]
    return {
        (role, table): letters.replace("-", "")
        for table, *rights in lines
        for role, letters in zip(ROLES, rights, strict=True)
    }


def granted(world: World) -> dict[tuple[str, str], str]:
    """Return the same from the catalog, for every table that is no partition."""
    query = f"""
        SELECT r.rolname::text, c.oid::regclass::text, string_agg(
                   CASE WHEN has_table_privilege(r.oid, c.oid, w.command) THEN w.letter
                        WHEN has_any_column_privilege(r.oid, c.oid, w.command) THEN lower(w.letter) END,
                   '' ORDER BY w.place)
        FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
        CROSS JOIN pg_roles AS r
        CROSS JOIN (VALUES (1, 'S', 'SELECT'), (2, 'I', 'INSERT'), (3, 'U', 'UPDATE')) AS w (place, letter, command)
        WHERE {OUR_TABLES} AND c.relkind IN ('r', 'p', 'v', 'm') AND NOT c.relispartition AND r.rolname = ANY (:roles)
        GROUP BY 1, 2
    """
    found = {(role, table): letters or "" for role, table, letters in world.rows(query, roles=list(ROLES))}
    for role, table in found:
        if world.one("SELECT has_table_privilege(:role, :table, 'DELETE')", role=role, table=table):
            found[role, table] += "D"
    return found


def test_the_table_above_is_what_is_granted(world: World) -> None:
    assert granted(world) == intended()


def test_the_columns_above_are_those_that_are_granted(world: World) -> None:
    query = """
        SELECT attname::text FROM pg_attribute
        WHERE attrelid = CAST(:table AS regclass) AND attnum > 0 AND NOT attisdropped
          AND has_column_privilege(:role, attrelid, attnum, :command)
        ORDER BY attnum
    """
    partly = {
        (role, table, COMMANDS[letter.upper()])
        for (role, table), letters in intended().items()
        for letter in letters
        if letter.islower()
    }
    assert partly == COLUMNS.keys()
    for (role, table, command), columns in COLUMNS.items():
        assert world.all(query, role=role, table=table, command=command) == columns.split(), (role, table)


@pytest.mark.parametrize("role", ROLES)
def test_nothing_else_is_granted_on_tables(role: str, world: World) -> None:
    query = f"""
        SELECT c.oid::regclass::text, command FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
        CROSS JOIN unnest(ARRAY['TRUNCATE', 'REFERENCES', 'TRIGGER']) AS command
        WHERE {OUR_TABLES} AND c.relkind IN ('r', 'p', 'v', 'm') AND has_table_privilege(:role, c.oid, command)
    """
    assert world.rows(query, role=role) == []
    column = f"""
        SELECT c.oid::regclass::text FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
        WHERE {OUR_TABLES} AND c.relkind IN ('r', 'p', 'v', 'm') AND has_any_column_privilege(:role, c.oid, 'REFERENCES')
    """
    assert world.rows(column, role=role) == []


@pytest.mark.parametrize("role", ROLES)
def test_nothing_is_granted_on_a_partition(role: str, world: World) -> None:
    """Whoever comes in comes through the parent, where the policies stand."""
    query = """
        SELECT relname FROM pg_class WHERE relispartition AND relkind = 'r'
        AND (has_table_privilege(:role, oid, 'SELECT, INSERT, UPDATE, DELETE')
             OR has_any_column_privilege(:role, oid, 'SELECT, INSERT, UPDATE'))
    """
    assert world.all(query, role=role) == []
    for table in ("entries", "entry_history", "audit_log"):
        with world.acting(role), world.refused(DENIED):
            world.run(f"SELECT 1 FROM {table}_{TODAY.year}")


@pytest.mark.parametrize("role", ROLES)
def test_functions(role: str, world: World) -> None:
    query = f"""
        SELECT p.oid::regproc::text FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace
        WHERE {OUR_FUNCTIONS} AND has_function_privilege(:role, p.oid, 'EXECUTE') ORDER BY 1
    """
    assert world.all(query, role=role) == FUNCTIONS[role].split()


@pytest.mark.parametrize("role", ROLES)
def test_schemas_and_the_database(role: str, world: World) -> None:
    query = f"SELECT nspname::text FROM pg_namespace AS n WHERE {OURS} AND has_schema_privilege(:role, oid, :what) ORDER BY 1"
    assert world.all(query, role=role, what="USAGE") == SCHEMAS[role].split()
    assert world.all(query, role=role, what="CREATE") == []
    assert not world.one("SELECT has_database_privilege(:role, current_database(), 'CREATE')", role=role)


@pytest.mark.parametrize("role", ROLES)
def test_sequences(role: str, world: World) -> None:
    """Identity columns need none; an app takes a person's id before it registers them."""
    query = f"""
        SELECT c.oid::regclass::text FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
        WHERE {OURS} AND CASE c.relkind WHEN 'S'
            THEN has_sequence_privilege(:role, c.oid, 'USAGE, SELECT, UPDATE') END
    """
    assert world.all(query, role=role) == (["users_user_id_seq"] if role == "kitaab_app" else [])


@pytest.mark.parametrize("role", ROLES)
def test_the_roles_are_nobody_else(role: str, world: World) -> None:
    row = world.row(
        "SELECT rolsuper, rolbypassrls, rolcreaterole, rolcreatedb, rolreplication FROM pg_roles WHERE rolname = :r",
        r=role,
    )
    assert not any(row)
    memberships = "SELECT roleid::regrole::text FROM pg_auth_members WHERE member = CAST(:role AS regrole)"
    assert world.all(memberships, role=role) == []


def test_nothing_is_granted_to_everyone(world: World) -> None:
    """Neither now nor on functions to come."""
    everyone = f"""
        SELECT 'function ' || p.oid::regproc::text FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace,
               aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) AS x WHERE {OUR_FUNCTIONS} AND x.grantee = 0
        UNION ALL
        SELECT 'relation ' || c.oid::regclass::text FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace,
               aclexplode(c.relacl) AS x WHERE {OUR_TABLES} AND x.grantee = 0
        UNION ALL
        SELECT 'schema ' || n.nspname FROM pg_namespace AS n, aclexplode(n.nspacl) AS x
        WHERE {OURS} AND x.grantee = 0 AND n.nspname <> 'public'
    """
    assert world.all(everyone) == []
    world.run("CREATE FUNCTION later() RETURNS integer LANGUAGE sql RETURN 1")
    with world.acting("kitaab_app"), world.refused(DENIED):
        world.run("SELECT later()")


def test_everything_belongs_to_the_owner(world: World) -> None:
    owners = f"""
        SELECT relowner::regrole::text FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
        WHERE {OUR_TABLES}
        UNION SELECT proowner::regrole::text FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace
        WHERE {OUR_FUNCTIONS}
    """
    assert world.all(owners) == ["kitaab_admin"]


# The same by trying


SECRETS = {
    "kitaab_readonly": [
        "SELECT password_hash FROM users",
        "SELECT email FROM users",
        "SELECT full_name FROM users",
        "SELECT * FROM users",
        "SELECT users FROM users",
        "SELECT content FROM messages",
        "SELECT subject FROM messages",
        "SELECT * FROM messages",
        "SELECT to_jsonb(m) FROM messages AS m",
        "SELECT content FROM reflection_messages",
        "SELECT description FROM deeds",
        "SELECT description FROM merits",
        "SELECT ip_address FROM audit_log",
        "SELECT new_values FROM audit_log",
        "SELECT notes FROM entries",
        "SELECT to_jsonb(e) FROM entries AS e",
        "SELECT new_values FROM entry_history",
        "SELECT old_values FROM entry_history",
    ],
    "kitaab_worker": [
        "SELECT password_hash FROM users",
        "SELECT full_name FROM users",
        "SELECT preferences FROM users",
        "SELECT * FROM users",
        "SELECT * FROM deeds",
        "SELECT name FROM deed_items",
        "SELECT * FROM scales",
        "SELECT value_name FROM scale_values",
        "SELECT notes FROM entries",
        "SELECT description FROM merits",
        "SELECT description FROM targets",
        "SELECT content FROM messages",
        "SELECT content FROM reflection_messages",
        "SELECT * FROM relations",
        "SELECT * FROM permissions",
        "SELECT * FROM entry_history",
        "SELECT * FROM audit_log",
    ],
    "kitaab_app": [
        "SELECT * FROM jobs.jobs",
        "SELECT * FROM jobs.schedules",
        "SELECT * FROM jobs.progress_marks",
    ],
}


@pytest.mark.parametrize(("role", "query"), [(role, query) for role, all in SECRETS.items() for query in all])
def test_what_is_not_to_be_read(role: str, query: str, world: World) -> None:
    with world.acting(role), world.refused(DENIED, "permission denied"):
        world.run(query)


FORBIDDEN = {
    "kitaab_worker": [
        "INSERT INTO entries (user_id, deed_item_id, entry_date, count_value) VALUES (1, 1, current_date, 1)",
        "UPDATE entries SET count_value = 1",
        "DELETE FROM entries",
        "UPDATE merits SET name = 'theirs'",
        "UPDATE merits SET user_id = 1",
        "UPDATE merit_items SET target_value = 1",
        "INSERT INTO merits (user_id, deed_id, name, start_date) VALUES (1, 1, 'x', current_date)",
        "DELETE FROM merits",
        "UPDATE targets SET end_date = end_date + 1",
        "UPDATE notifications SET notification_time = '03:00'",
        "UPDATE notifications SET is_active = false",
        "INSERT INTO notifications (user_id, notification_time, timezone) VALUES (1, '10:00', 'UTC')",
        "UPDATE users SET is_active = false",
        "DELETE FROM users",
        "INSERT INTO jobs.progress_marks (kind, subject_id, since) VALUES ('item', 1, current_date)",
        "UPDATE jobs.progress_marks SET subject_id = 1",
        "UPDATE audit_log SET user_id = 1",
        "DELETE FROM audit_log",
        "UPDATE jobs.fires SET reason = 'none'",
        "UPDATE jobs.waiting_fires SET fire_at = now()",
        "DELETE FROM jobs.kinds",
        "DELETE FROM jobs.deliveries",
        "ALTER TABLE entries DISABLE TRIGGER ALL",
        "ALTER TABLE entries DISABLE ROW LEVEL SECURITY",
        "DROP TABLE entries",
        "CREATE TABLE mine (a integer)",
        "CREATE TABLE jobs.mine (a integer)",
        "SELECT * FROM user_for_login('person@example.org')",
        "SELECT jobs.copy_triggers('entries')",
        "SET ROLE kitaab_admin",
    ],
    "kitaab_app": [
        "SELECT jobs.make_partition('entries', '2101-01-01', '2102-01-01')",
        "SELECT jobs.copy_triggers('entries')",
        "DELETE FROM users",
        "DELETE FROM deeds",
        "DELETE FROM merits",
        "UPDATE merits SET percent = 100, completed_at = now(), completed_on = current_date",
        "UPDATE merits SET is_satisfied = true",
        "UPDATE merits SET as_of = current_date",
        "UPDATE targets SET percent = 99",
        "UPDATE targets SET frozen_at = NULL",
        "INSERT INTO merits (user_id, deed_id, name, start_date, percent) VALUES (1, 1, 'x', current_date, 99)",
        "INSERT INTO targets (user_id, name, start_date, end_date, is_satisfied)"
        " VALUES (1, 'x', current_date, current_date, true)",
        "INSERT INTO entry_history (entry_id, entry_date, user_id, operation) VALUES (1, current_date, 1, 'insert')",
        "UPDATE entry_history SET user_id = 1",
        "DELETE FROM entry_history",
        "UPDATE audit_log SET user_id = 1",
        "DELETE FROM audit_log",
        "UPDATE jobs.kinds SET queue = 'long'",
        "INSERT INTO jobs.deliveries DEFAULT VALUES",
        "TRUNCATE entries",
        "ALTER TABLE entries DISABLE TRIGGER ALL",
        "CREATE FUNCTION public.mine() RETURNS integer LANGUAGE sql RETURN 1",
        "SET ROLE kitaab_admin",
    ],
    "kitaab_readonly": [
        "INSERT INTO deeds (user_id, category_type, name) VALUES (1, 'hasanaat', 'x')",
        "UPDATE deeds SET name = 'x'",
        "DELETE FROM entries",
        "SELECT nextval('users_user_id_seq')",
        "SELECT jobs.new_id()",
        "SELECT * FROM user_for_login('person@example.org')",
        "SET ROLE kitaab_admin",
    ],
}


@pytest.mark.parametrize(("role", "statement"), [(role, s) for role, all in FORBIDDEN.items() for s in all])
def test_what_is_not_to_be_done(role: str, statement: str, world: World) -> None:
    with world.acting(role), world.refused(DENIED):
        world.run(statement)


def test_an_app_writes_goals_by_the_models(world: World) -> None:
    """Which name no column that only jobs write, though an ORM names those that may be NULL."""
    person = world.person()
    deed = world.deed(person)
    goals = (
        Merit(user_id=person, deed_id=deed, name="a merit", start_date=TODAY),
        Target(user_id=person, name="a target", start_date=TODAY, end_date=TODAY),
    )
    with world.acting("kitaab_app", person), Session(world.connection) as session:
        session.add_all(goals)
        session.flush()
        for goal in goals:
            goal.name = "another"
        session.flush()
        assert [(goal.percent, goal.completed_on, goal.as_of) for goal in goals] == [(0, None, None)] * 2


def test_the_worker_can_do_what_its_jobs_do(world: World) -> None:
    """Each statement of progress, reminders, partitions and the runtime, in short; on everyone's rows."""
    full_life(world)
    full_life(world)
    with world.acting("kitaab_worker"):
        assert (
            world.run(
                "DELETE FROM jobs.progress_marks WHERE progress_mark_id IN"
                " (SELECT progress_mark_id FROM jobs.progress_marks FOR UPDATE SKIP LOCKED)"
            )
            > 0
        )
        assert len(world.all("SELECT merit_id FROM merits ORDER BY 1 FOR NO KEY UPDATE")) == 2
        assert len(world.all("SELECT target_id FROM targets ORDER BY 1 FOR NO KEY UPDATE")) == 2
        assert world.one("SELECT count(*) FROM entries JOIN deed_items USING (deed_item_id)") == 8
        assert world.one("SELECT count(*) FROM merit_items") == 4
        done = "percent = 100, completed_at = now(), completed_on = current_date, is_satisfied = true"
        assert world.run(f"UPDATE merits SET {done}") == 2
        assert world.run(f"UPDATE targets SET {done}") == 2
        due = "SELECT notification_id FROM notifications JOIN users USING (user_id) FOR UPDATE OF notifications SKIP LOCKED"
        assert len(world.all(due)) == 2
        assert world.run("UPDATE notifications SET next_due_at = now(), next_due_date = current_date") == 2
        assert (
            world.run(
                "UPDATE jobs.deliveries SET state = 'sent', finished_at = now() WHERE state = 'pending'"
            )
            == 2
        )
        world.run("INSERT INTO audit_log (action_type, table_name) VALUES ('reminder', 'notifications')")
        world.run("SELECT jobs.make_partition('entries', '2101-01-01', '2102-01-01')")
        assert world.one(ENQUEUE, key=None)
        world.run(
            "UPDATE jobs.jobs SET state = 'published' WHERE id IN"
            " (SELECT id FROM jobs.jobs FOR UPDATE SKIP LOCKED)"
        )
        world.run(
            "INSERT INTO jobs.schedules (name, job, line, source) VALUES ('a', 'b', '* * * * *', 'file')"
        )
        world.run(
            "INSERT INTO jobs.fires (schedule, fire_at, outcome, reason) VALUES ('a', now(), 'missed', 'r')"
        )
        world.run("INSERT INTO jobs.processes (name, kind, version) VALUES ('a', 'worker', '1')")

"""Groups that would wait for each other are refused; the newest jobs are found along an index; how
people are reached is audited; of several timetables the latest counts.

Revision ID: 0018
Revises: 0017
"""

from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

# Who waits for a group, one group after the other: so that many jobs of one group are one step.
INDEX = """
-- squawk-ignore require-concurrent-index-deletion
DROP INDEX jobs.idx_jobs_after_group;
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX idx_jobs_after_group ON jobs.jobs (after_group, group_name)
    WHERE state = 'scheduled' AND after_group IS NOT NULL
"""

# From the group of the new job to those that wait for it, to those that wait for these: whoever comes to the group
# that the job is to wait for has found a circle, in which nothing would ever start. In the order in which groups are
# usually enqueued nobody waits for the newest, and the walk is one look. Two transactions that make the two halves of
# a circle at once do not see each other: to lock them out would make every caller wait for every other.
#
# By trigger, so that it holds for every way in; of jobs without both groups the condition is all that it costs.
CYCLES = """
CREATE FUNCTION jobs.refuse_cycle() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    reached text[] := ARRAY[NEW.group_name];
    ways text[] := ARRAY[quote_literal(NEW.group_name)];
    waiting text;
    place integer := 1;
BEGIN
    WHILE place <= cardinality(reached) LOOP
        waiting := '';
        LOOP
            SELECT j.group_name INTO waiting FROM jobs.jobs AS j
            WHERE j.state = 'scheduled' AND j.after_group = reached[place] AND j.group_name > waiting
            ORDER BY j.group_name LIMIT 1;
            EXIT WHEN NOT FOUND;
            IF waiting = NEW.after_group THEN
                RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
                    MESSAGE = 'group ' || quote_literal(NEW.group_name) || ' would wait for itself: '
                        || quote_literal(waiting) || ' waits for ' || ways[place],
                    HINT = 'Use another group, or cancel the jobs of one of them.';
            END IF;
            IF waiting <> ALL (reached) THEN
                reached := reached || waiting;
                ways := ways || (quote_literal(waiting) || ', which waits for ' || ways[place]);
            END IF;
        END LOOP;
        place := place + 1;
    END LOOP;
    RETURN NULL;
END
$$;
CREATE TRIGGER jobs_no_cycle AFTER INSERT ON jobs.jobs FOR EACH ROW
    WHEN (NEW.group_name IS NOT NULL AND NEW.after_group IS NOT NULL) EXECUTE FUNCTION jobs.refuse_cycle()
"""

# Ids that were made by jobs.new_id() grow with time, so the newest of those are at the end of the primary key: no
# index on created_at, which each change of a job's state would write to. Plain Celery messages bring ids that say
# nothing, and have this one. (Version 7 is told by its byte; 04000000 is the year 2109, and far below most of the others.)
FOREIGN = """
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX idx_jobs_foreign ON jobs.jobs (created_at, id)
    WHERE id >= '04000000-0000-0000-0000-000000000000' OR get_byte(uuid_send(id), 6) < 112
"""

# As in 0014, and it can mask: an endpoint and its keys are secrets.
AUDIT_OF_ROW = """
CREATE OR REPLACE FUNCTION record_audit_of_row() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    before jsonb := to_jsonb(OLD);
    after jsonb := to_jsonb(NEW);
    masked text[] := string_to_array(coalesce(TG_ARGV[2], ''), ',');
BEGIN
    INSERT INTO public.audit_log (user_id, action_type, table_name, record_id, ip_address, old_values, new_values)
    SELECT public.app_user_id(), 'update', TG_TABLE_NAME, (after ->> TG_ARGV[0])::bigint,
           NULLIF(current_setting('app.ip_address', true), '')::inet,
           jsonb_object_agg(key, CASE WHEN key = ANY (masked) THEN '"***"' ELSE before -> key END),
           jsonb_object_agg(key, CASE WHEN key = ANY (masked) THEN '"***"' ELSE after -> key END)
    FROM jsonb_object_keys(after) AS key
    WHERE before -> key IS DISTINCT FROM after -> key AND key <> ALL (string_to_array(TG_ARGV[1], ','));
    RETURN NULL;
END
$$
"""

UNDO_AUDIT_OF_ROW = """
CREATE OR REPLACE FUNCTION record_audit_of_row() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    before jsonb := to_jsonb(OLD);
    after jsonb := to_jsonb(NEW);
BEGIN
    INSERT INTO public.audit_log (user_id, action_type, table_name, record_id, ip_address, old_values, new_values)
    SELECT public.app_user_id(), 'update', TG_TABLE_NAME, (after ->> TG_ARGV[0])::bigint,
           NULLIF(current_setting('app.ip_address', true), '')::inet,
           jsonb_object_agg(key, before -> key), jsonb_object_agg(key, after -> key)
    FROM jsonb_object_keys(after) AS key
    WHERE before -> key IS DISTINCT FROM after -> key AND key <> ALL (string_to_array(TG_ARGV[1], ','));
    RETURN NULL;
END
$$
"""

# Opt-outs say what people have decided, and that somebody wanted reminders again is known from their end only. Of
# a browser or an address the log says that there was one, when it came and went, and by whom. What a message was
# sent to an hour ago is not worth a row.
# table, what is its record, masked, kept as inserted, what is worth a row
REACHING = (
    (
        "push_subscriptions",
        "push_subscription_id",
        "endpoint,p256dh,auth",
        "push_subscription_id",
        "created_at, user_id, endpoint, p256dh, auth",
    ),
    ("channel_opt_outs", "user_id", "", "user_id, channel, kind", "created_at"),
    # The hash of an address tells who has a list of addresses whose it is; nobody's number stands in the row.
    ("suppressed_addresses", "", "address_hash", "address_hash", "created_at, reason"),
)

# Which beat brings which timetable, and when each was read for the first time: kitaab_jobs/runtime/editions.py.
EDITIONS = """
CREATE TABLE jobs.timetables (
    edition varchar(64) PRIMARY KEY,
    first_read_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE jobs.timetables IS 'each version of beat_schedule.py that a beat has read';
ALTER TABLE jobs.processes ADD COLUMN timetable varchar(64);
COMMENT ON COLUMN jobs.processes.timetable IS 'which edition of the timetable a beat brings along';
GRANT SELECT ON jobs.timetables TO kitaab_readonly;
GRANT SELECT, INSERT ON jobs.timetables TO kitaab_worker
"""


def _of(row: str, columns: str) -> str:
    return f"ROW ({', '.join(f'{row}.{name}' for name in columns.split(', '))})"


def upgrade() -> None:
    for statement in (INDEX, CYCLES, FOREIGN, EDITIONS, AUDIT_OF_ROW):
        op.execute(statement)
    for table, record, masked, kept, worth in REACHING:
        call = f"FOR EACH STATEMENT EXECUTE FUNCTION record_audit('{record}', '{masked}', '')"
        op.execute(f"""
            CREATE TRIGGER {table}_identity BEFORE UPDATE OF {kept} ON {table} FOR EACH ROW
                WHEN ({_of("OLD", kept)} IS DISTINCT FROM {_of("NEW", kept)})
                EXECUTE FUNCTION refuse_new_identity('{kept}');
            CREATE TRIGGER {table}_audit_insert AFTER INSERT ON {table} REFERENCING NEW TABLE AS new_rows {call};
            CREATE TRIGGER {table}_audit_update AFTER UPDATE ON {table} FOR EACH ROW
                WHEN ({_of("OLD", worth)} IS DISTINCT FROM {_of("NEW", worth)})
                EXECUTE FUNCTION record_audit_of_row('{record}', 'last_used_at', '{masked}');
            CREATE TRIGGER {table}_audit_delete AFTER DELETE ON {table} REFERENCING OLD TABLE AS old_rows {call}
        """)


def downgrade() -> None:
    for table, *_ in reversed(REACHING):
        op.execute(f"""
            DROP TRIGGER {table}_audit_delete ON {table};
            DROP TRIGGER {table}_audit_update ON {table};
            DROP TRIGGER {table}_audit_insert ON {table};
            DROP TRIGGER {table}_identity ON {table}
        """)
    op.execute(UNDO_AUDIT_OF_ROW)
    op.execute("""
        -- squawk-ignore ban-drop-column
        ALTER TABLE jobs.processes DROP COLUMN timetable;
        DROP TABLE jobs.timetables;
        -- squawk-ignore require-concurrent-index-deletion
        DROP INDEX jobs.idx_jobs_foreign;
        DROP TRIGGER jobs_no_cycle ON jobs.jobs;
        DROP FUNCTION jobs.refuse_cycle();
        -- squawk-ignore require-concurrent-index-deletion
        DROP INDEX jobs.idx_jobs_after_group;
        -- squawk-ignore require-concurrent-index-creation
        CREATE INDEX idx_jobs_after_group ON jobs.jobs (after_group) WHERE state = 'scheduled' AND after_group IS NOT NULL
    """)

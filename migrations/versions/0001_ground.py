"""The ground: roles, schemas, and the functions that tables share.

Revision ID: 0001
Revises:
"""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# Roles belong to the whole cluster: they are made only where they are missing, without a password and
# without LOGIN (an operator grants both), and a downgrade leaves them. Two databases that migrate at
# once may both try, so the loser's duplicate is not an error. Since PostgreSQL 16 a CREATEROLE login that
# is no superuser, as managed services give one, may grant a role that it made but not become it at once.
ROLES = """
DO $$
DECLARE
    role_name text;
    becoming text := CASE WHEN current_setting('server_version_num')::integer >= 160000 THEN 'SET' ELSE 'MEMBER' END;
BEGIN
    FOREACH role_name IN ARRAY ARRAY['kitaab_admin', 'kitaab_app', 'kitaab_readonly', 'kitaab_worker'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role_name) THEN
            BEGIN
                EXECUTE 'CREATE ROLE ' || quote_ident(role_name) || ' NOLOGIN';
            EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
            END;
        END IF;
    END LOOP;
    IF NOT pg_has_role(current_user, 'kitaab_admin', becoming) THEN
        EXECUTE 'GRANT kitaab_admin TO ' || quote_ident(current_user);
    END IF;
    IF current_user <> 'kitaab_admin' THEN
        EXECUTE 'GRANT CREATE ON DATABASE ' || quote_ident(current_database()) || ' TO kitaab_admin';
        GRANT USAGE, CREATE ON SCHEMA public TO kitaab_admin;
        ALTER TABLE public.alembic_version OWNER TO kitaab_admin;
    END IF;
END
$$;
SET ROLE kitaab_admin
"""

SCHEMAS = """
CREATE SCHEMA jobs;
CREATE SCHEMA archive;
GRANT USAGE ON SCHEMA jobs TO kitaab_app, kitaab_readonly, kitaab_worker;
GRANT USAGE ON SCHEMA archive TO kitaab_readonly;
GRANT USAGE ON SCHEMA public TO kitaab_app, kitaab_readonly, kitaab_worker;
GRANT SELECT ON public.alembic_version TO kitaab_readonly, kitaab_worker;
-- A function is executable by everyone unless that is taken back.
ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC
"""

# The person for whom the app acts: SET LOCAL app.user_id, in each of its transactions.
APP_USER = """
CREATE FUNCTION public.app_user_id() RETURNS bigint
LANGUAGE sql STABLE PARALLEL SAFE
RETURN NULLIF(current_setting('app.user_id', true), '')::bigint;
GRANT EXECUTE ON FUNCTION public.app_user_id() TO kitaab_app, kitaab_readonly
"""

UPDATED_AT = """
CREATE FUNCTION public.set_updated_at() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    NEW.updated_at := now();
    RETURN NEW;
END
$$
"""

REFUSE_CHANGE = """
CREATE FUNCTION public.refuse_change() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION USING
        ERRCODE = 'insufficient_privilege',
        MESSAGE = TG_TABLE_NAME || ' is append-only: ' || lower(TG_OP) || ' is refused';
END
$$
"""

# jobs.make_partition is how a worker makes partitions without owning the tables: it names, bounds,
# fills in and attaches one partition of a parent in its list, and does nothing else. It is made LIKE
# the parent and attached with a CHECK that matches its bounds, because CREATE TABLE ... PARTITION OF
# takes the strongest lock on the parent. Nothing is granted on a partition: whoever comes in comes
# through the parent, where row-level security stands.
MAKE_PARTITION = """
CREATE TABLE jobs.partitioned_tables (
    table_name varchar(63) PRIMARY KEY,
    key_column varchar(63) NOT NULL,
    key_type varchar(63) NOT NULL CHECK (key_type IN ('date', 'timestamptz'))
);
COMMENT ON TABLE jobs.partitioned_tables IS 'the tables of which jobs.make_partition makes partitions';
GRANT SELECT ON jobs.partitioned_tables TO kitaab_readonly, kitaab_worker;

-- A partition gets its parent's row triggers from PostgreSQL, but not those for each statement, which fire
-- for the table that a statement names: without them, who names the partition leaves no history.
CREATE FUNCTION jobs.copy_triggers(parent text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    definition text;
BEGIN
    FOR definition IN
        SELECT replace(pg_get_triggerdef(t.oid), ' ON public.' || quote_ident(parent) || ' ',
                       ' ON public.' || quote_ident(c.relname) || ' ')
        FROM pg_trigger AS t
        JOIN pg_inherits AS i ON i.inhparent = t.tgrelid
        JOIN pg_class AS c ON c.oid = i.inhrelid
        WHERE t.tgrelid = to_regclass('public.' || quote_ident(parent))
          AND NOT t.tgisinternal AND (t.tgtype & 1) = 0
          AND NOT EXISTS (SELECT FROM pg_trigger AS own WHERE own.tgrelid = c.oid AND own.tgname = t.tgname)
    LOOP
        EXECUTE definition;
    END LOOP;
END
$$;

CREATE FUNCTION jobs.make_partition(parent text, lower_bound date, upper_bound date) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' AS $$
DECLARE
    key jobs.partitioned_tables;
    child text;
    low text;
    high text;
BEGIN
    SELECT * INTO key FROM jobs.partitioned_tables WHERE table_name = parent;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = quote_nullable(parent) || ' is not a partitioned table of the platform';
    END IF;
    IF lower_bound NOT BETWEEN '0001-01-01' AND '9998-12-01' THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = 'a partition begins in a year from 1 to 9998, not on ' || lower_bound;
    END IF;
    IF lower_bound = date_trunc('year', lower_bound)
       AND upper_bound = date_trunc('year', lower_bound) + interval '1 year' THEN
        child := parent || '_' || to_char(lower_bound, 'YYYY');
    ELSIF lower_bound = date_trunc('month', lower_bound)
       AND upper_bound = date_trunc('month', lower_bound) + interval '1 month' THEN
        child := parent || '_' || to_char(lower_bound, 'YYYY_MM');
    ELSE
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = 'a partition spans one calendar year or month, not '
                || coalesce(lower_bound::text, 'null') || ' to ' || coalesce(upper_bound::text, 'null');
    END IF;
    low := quote_literal(lower_bound::text || CASE key.key_type WHEN 'timestamptz' THEN ' 00:00:00+00' ELSE '' END);
    high := quote_literal(upper_bound::text || CASE key.key_type WHEN 'timestamptz' THEN ' 00:00:00+00' ELSE '' END);
    EXECUTE 'CREATE TABLE public.' || quote_ident(child) || ' (LIKE public.' || quote_ident(parent)
        || ' INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING STORAGE, CONSTRAINT '
        || quote_ident(child || '_bounds') || ' CHECK (' || quote_ident(key.key_column) || ' >= ' || low || '::' || key.key_type
        || ' AND ' || quote_ident(key.key_column) || ' < ' || high || '::' || key.key_type || '))';
    EXECUTE 'ALTER TABLE public.' || quote_ident(child) || ' ENABLE ROW LEVEL SECURITY';
    EXECUTE 'ALTER TABLE public.' || quote_ident(parent) || ' ATTACH PARTITION public.' || quote_ident(child)
        || ' FOR VALUES FROM (' || low || ') TO (' || high || ')';
    PERFORM jobs.copy_triggers(parent);
    RETURN child;
END
$$;
GRANT EXECUTE ON FUNCTION jobs.make_partition(text, date, date) TO kitaab_worker
"""


def upgrade() -> None:
    for statement in (ROLES, SCHEMAS, APP_USER, UPDATED_AT, REFUSE_CHANGE, MAKE_PARTITION):
        op.execute(statement)


def downgrade() -> None:
    op.execute("""
        DROP FUNCTION jobs.make_partition(text, date, date);
        DROP FUNCTION jobs.copy_triggers(text);
        DROP TABLE jobs.partitioned_tables;
        DROP FUNCTION public.refuse_change();
        DROP FUNCTION public.set_updated_at();
        DROP FUNCTION public.app_user_id();
        ALTER DEFAULT PRIVILEGES GRANT EXECUTE ON FUNCTIONS TO PUBLIC;
        REVOKE ALL ON public.alembic_version FROM kitaab_readonly, kitaab_worker;
        REVOKE USAGE ON SCHEMA public FROM kitaab_app, kitaab_readonly, kitaab_worker;
        DROP SCHEMA archive;
        DROP SCHEMA jobs
    """)

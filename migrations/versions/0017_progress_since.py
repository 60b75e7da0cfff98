"""Marks of progress say since which day something has changed; what a goal counts is read from an index alone.

Revision ID: 0017
Revises: 0016
"""

from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

# What an entry changes, it changes in windows that hold its day. Whoever takes the mark need not look again at those
# that were over by then. All other marks have no day, and all windows are looked at again.
SINCE = """
ALTER TABLE jobs.progress_marks ADD COLUMN since date;
COMMENT ON COLUMN jobs.progress_marks.since IS 'the first day of which an entry changed; NULL: any day may have';
-- Reconcile marks what it finds wrong.
GRANT INSERT (kind, subject_id) ON jobs.progress_marks TO kitaab_worker;

CREATE OR REPLACE FUNCTION jobs.mark_entries() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO jobs.progress_marks (kind, subject_id, since)
        SELECT 'item', deed_item_id, min(entry_date) FROM new_rows GROUP BY deed_item_id;
    ELSIF TG_OP = 'DELETE' THEN
        INSERT INTO jobs.progress_marks (kind, subject_id, since)
        SELECT 'item', deed_item_id, min(entry_date) FROM old_rows GROUP BY deed_item_id;
    ELSE
        INSERT INTO jobs.progress_marks (kind, subject_id, since)
        SELECT 'item', deed_item_id, min(entry_date)
        FROM (SELECT deed_item_id, entry_date FROM new_rows
              UNION ALL SELECT deed_item_id, entry_date FROM old_rows) AS both_rows
        GROUP BY deed_item_id;
    END IF;
    RETURN NULL;
END
$$
"""

# A partition that is detached takes its entries away, and no trigger tells. Whoever detaches one calls this with it,
# once it is detached: before, the marks might be gone by the time the entries are.
ARCHIVED = """
CREATE FUNCTION jobs.mark_items_of(detached regclass) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    marked bigint;
BEGIN
    IF NOT EXISTS (
        SELECT FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
        WHERE c.oid = detached AND c.relkind = 'r' AND n.nspname IN ('public', 'archive') AND c.relname ~ '^entries_'
    ) THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = detached || ' is no partition of entries, attached or not';
    END IF;
    EXECUTE 'INSERT INTO jobs.progress_marks (kind, subject_id, since)'
        ' SELECT ''item'', deed_item_id, min(entry_date) FROM ' || detached || ' GROUP BY deed_item_id';
    GET DIAGNOSTICS marked = ROW_COUNT;
    RETURN marked;
END
$$;
COMMENT ON FUNCTION jobs.mark_items_of(regclass) IS
    'mark all items that have entries in a detached partition, and return how many: their goals are computed without these';
GRANT EXECUTE ON FUNCTION jobs.mark_items_of(regclass) TO kitaab_worker;
-- To name what is in it.
GRANT USAGE ON SCHEMA archive TO kitaab_worker
"""

# A goal that somebody could call complete themselves would be no goal. Apps write what the person decides.
COMPUTED = """
REVOKE INSERT, UPDATE ON merits, targets FROM kitaab_app;
GRANT INSERT (merit_id, user_id, deed_id, name, description, merit_type, start_date, duration_days, is_active,
              created_at, updated_at, deleted_at) ON merits TO kitaab_app;
GRANT UPDATE (name, description, merit_type, start_date, duration_days, is_active, created_at, updated_at, deleted_at)
    ON merits TO kitaab_app;
GRANT INSERT (target_id, user_id, name, description, target_type, start_date, end_date, is_active,
              created_at, updated_at, deleted_at) ON targets TO kitaab_app;
GRANT UPDATE (name, description, target_type, start_date, end_date, is_active, created_at, updated_at, deleted_at)
    ON targets TO kitaab_app
"""


# As it was.
UNDO_SINCE = """
CREATE OR REPLACE FUNCTION jobs.mark_entries() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO jobs.progress_marks (kind, subject_id) SELECT DISTINCT 'item', deed_item_id FROM new_rows;
    ELSIF TG_OP = 'DELETE' THEN
        INSERT INTO jobs.progress_marks (kind, subject_id) SELECT DISTINCT 'item', deed_item_id FROM old_rows;
    ELSE
        INSERT INTO jobs.progress_marks (kind, subject_id)
        SELECT 'item', deed_item_id FROM new_rows UNION SELECT 'item', deed_item_id FROM old_rows;
    END IF;
    RETURN NULL;
END
$$;
REVOKE INSERT (kind, subject_id) ON jobs.progress_marks FROM kitaab_worker;
ALTER TABLE jobs.progress_marks DROP COLUMN since
"""


# The entries of one item lie as they were written, a page for each. With what goals count in the key's index, none
# of these pages is read. The key is made anew under the table's lock: a large table in use wants the index made
# CONCURRENTLY on each partition before.
AMOUNTS = """
-- squawk-ignore ban-drop-constraint
ALTER TABLE entries DROP CONSTRAINT unique_user_deed_item_date;
-- squawk-ignore constraint-missing-not-valid, disallowed-unique-constraint
ALTER TABLE entries ADD CONSTRAINT unique_user_deed_item_date UNIQUE (user_id, deed_item_id, entry_date)
    INCLUDE (count_value, scale_value_id)
"""

UNDO_AMOUNTS = """
ALTER TABLE entries DROP CONSTRAINT unique_user_deed_item_date;
ALTER TABLE entries ADD CONSTRAINT unique_user_deed_item_date UNIQUE (user_id, deed_item_id, entry_date)
"""


def upgrade() -> None:
    for statement in (SINCE, ARCHIVED, COMPUTED, AMOUNTS):
        op.execute(statement)


def downgrade() -> None:
    op.execute("""
        REVOKE INSERT (merit_id, user_id, deed_id, name, description, merit_type, start_date, duration_days, is_active,
                       created_at, updated_at, deleted_at),
               UPDATE (name, description, merit_type, start_date, duration_days, is_active, created_at, updated_at,
                       deleted_at) ON merits FROM kitaab_app;
        REVOKE INSERT (target_id, user_id, name, description, target_type, start_date, end_date, is_active,
                       created_at, updated_at, deleted_at),
               UPDATE (name, description, target_type, start_date, end_date, is_active, created_at, updated_at,
                       deleted_at) ON targets FROM kitaab_app;
        GRANT INSERT, UPDATE ON merits, targets TO kitaab_app
    """)
    op.execute(UNDO_AMOUNTS)
    op.execute(
        "REVOKE USAGE ON SCHEMA archive FROM kitaab_worker; DROP FUNCTION jobs.mark_items_of(regclass)"
    )
    op.execute(UNDO_SINCE)

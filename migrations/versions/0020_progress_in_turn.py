"""Marks that a person waits for come before those of the platform; an item that is removed marks the one above it.

Revision ID: 0020
Revises: 0019
"""

from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

# Reconcile may mark tens of thousands of goals at once, and so may whoever detaches a partition. What somebody has
# just entered must not wait behind them. The key is the order in which marks are taken.
#
# A mark is as old as its statement, not as its transaction: what reconcile marks, it marks at its end.
IN_TURN = """
ALTER TABLE jobs.progress_marks ADD COLUMN is_background boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN jobs.progress_marks.is_background IS
    'nobody waits for it: it is taken when no other mark is there to take';
-- squawk-ignore ban-drop-constraint
ALTER TABLE jobs.progress_marks DROP CONSTRAINT progress_marks_pkey;
-- squawk-ignore constraint-missing-not-valid, adding-serial-primary-key-field, disallowed-unique-constraint
ALTER TABLE jobs.progress_marks ADD PRIMARY KEY (is_background, progress_mark_id);
ALTER TABLE jobs.progress_marks ALTER COLUMN marked_at SET DEFAULT clock_timestamp();
GRANT INSERT (is_background) ON jobs.progress_marks TO kitaab_worker
"""

MARK_ITEMS_OF = """
CREATE OR REPLACE FUNCTION jobs.mark_items_of(detached regclass) RETURNS bigint
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
    EXECUTE 'INSERT INTO jobs.progress_marks ({columns})'
        ' SELECT ''item'', deed_item_id, {values} FROM ' || detached || ' GROUP BY deed_item_id';
    GET DIAGNOSTICS marked = ROW_COUNT;
    RETURN marked;
END
$$
"""

# The entries of an item go before it does, and mark it. Once it is gone, that mark leads nowhere: what counted these
# entries above it is marked by way of the item above.
REMOVED = """
CREATE FUNCTION jobs.mark_parent_of_removed() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO jobs.progress_marks (kind, subject_id) VALUES ('item', OLD.parent_deed_item_id);
    RETURN NULL;
END
$$;
CREATE TRIGGER deed_items_mark_removed AFTER DELETE ON deed_items FOR EACH ROW
    WHEN (OLD.parent_deed_item_id IS NOT NULL) EXECUTE FUNCTION jobs.mark_parent_of_removed()
"""


def upgrade() -> None:
    op.execute(IN_TURN)
    op.execute(
        MARK_ITEMS_OF.format(columns="kind, subject_id, since, is_background", values="min(entry_date), true")
    )
    op.execute(REMOVED)


def downgrade() -> None:
    op.execute(
        "DROP TRIGGER deed_items_mark_removed ON deed_items; DROP FUNCTION jobs.mark_parent_of_removed()"
    )
    op.execute(MARK_ITEMS_OF.format(columns="kind, subject_id, since", values="min(entry_date)"))
    op.execute("""
        REVOKE INSERT (is_background) ON jobs.progress_marks FROM kitaab_worker;
        ALTER TABLE jobs.progress_marks ALTER COLUMN marked_at SET DEFAULT now();
        ALTER TABLE jobs.progress_marks DROP CONSTRAINT progress_marks_pkey;
        ALTER TABLE jobs.progress_marks ADD PRIMARY KEY (progress_mark_id);
        ALTER TABLE jobs.progress_marks DROP COLUMN is_background
    """)

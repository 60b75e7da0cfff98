"""Items that ask for "at most", the day that progress is of, and targets that freeze.

Revision ID: 0012
Revises: 0011
"""

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

# "At most" may ask for nothing at all, which "at least" may not: it would always be reached. The checks
# are replaced in one transaction, and the tables are small: goals, not entries.
DIRECTION = """
CREATE TYPE goal_direction_enum AS ENUM ('at_least', 'at_most');
ALTER TABLE merit_items ADD COLUMN direction goal_direction_enum NOT NULL DEFAULT 'at_least';
ALTER TABLE target_items ADD COLUMN direction goal_direction_enum NOT NULL DEFAULT 'at_least';
-- squawk-ignore ban-drop-constraint
ALTER TABLE merit_items DROP CONSTRAINT merit_items_target_is_positive;
-- squawk-ignore constraint-missing-not-valid
ALTER TABLE merit_items ADD CONSTRAINT merit_items_target_is_positive CHECK (
    target_value <> 'NaN' AND (target_value > 0 OR (target_value = 0 AND direction = 'at_most')));
-- squawk-ignore ban-drop-constraint
ALTER TABLE target_items DROP CONSTRAINT target_items_target_is_positive;
-- squawk-ignore constraint-missing-not-valid
ALTER TABLE target_items ADD CONSTRAINT target_items_target_is_positive CHECK (
    target_value <> 'NaN' AND (target_value > 0 OR (target_value = 0 AND direction = 'at_most')))
"""

# Windows slide and days begin without a mark. With the day that a goal was computed for, reconcile can
# tell such a difference from a defect: what is stored must be what the entries say for that day.
AS_OF = """
ALTER TABLE merits ADD COLUMN as_of date;
ALTER TABLE targets ADD COLUMN as_of date
"""

# What progress.refresh looks for each time: targets whose time is up. And whoever moves the end of a
# target that was frozen wants it to go on, until its new end.
FREEZE = """
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX idx_targets_live_end ON targets (end_date) WHERE is_active AND frozen_at IS NULL AND deleted_at IS NULL;

CREATE FUNCTION thaw_target() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    NEW.frozen_at := NULL;
    RETURN NEW;
END
$$;
CREATE TRIGGER targets_thaw BEFORE UPDATE OF end_date ON targets FOR EACH ROW
    WHEN (OLD.end_date IS DISTINCT FROM NEW.end_date AND OLD.frozen_at IS NOT NULL)
    EXECUTE FUNCTION thaw_target()
"""

# A person in another zone has another today, in all of their goals. What a goal counts by a scale value
# hangs on the value's key alone, but whoever corrects a value sees its goals computed again.
MARKS = """
CREATE FUNCTION jobs.mark_persons_goals() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO jobs.progress_marks (kind, subject_id)
    SELECT 'merit', merit_id FROM public.merits
    WHERE user_id = NEW.user_id AND is_active AND deleted_at IS NULL
    UNION ALL
    SELECT 'target', target_id FROM public.targets
    WHERE user_id = NEW.user_id AND is_active AND deleted_at IS NULL AND frozen_at IS NULL;
    RETURN NULL;
END
$$;
CREATE TRIGGER users_mark AFTER UPDATE OF timezone ON users FOR EACH ROW
    WHEN (OLD.timezone IS DISTINCT FROM NEW.timezone) EXECUTE FUNCTION jobs.mark_persons_goals();

CREATE FUNCTION jobs.mark_scale_value() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO jobs.progress_marks (kind, subject_id)
    SELECT 'merit', merit_id FROM public.merit_items WHERE scale_value_id = NEW.scale_value_id
    UNION
    SELECT 'target', target_id FROM public.target_items WHERE scale_value_id = NEW.scale_value_id;
    RETURN NULL;
END
$$;
CREATE TRIGGER scale_values_mark AFTER UPDATE ON scale_values FOR EACH ROW
    WHEN (OLD.* IS DISTINCT FROM NEW.*) EXECUTE FUNCTION jobs.mark_scale_value()
"""

SECURITY = """
GRANT SELECT (as_of) ON merits, targets TO kitaab_readonly, kitaab_worker;
GRANT SELECT (direction) ON merit_items, target_items TO kitaab_worker;
GRANT UPDATE (as_of) ON merits, targets TO kitaab_worker;
GRANT UPDATE (frozen_at) ON targets TO kitaab_worker
"""


def upgrade() -> None:
    for statement in (DIRECTION, AS_OF, FREEZE, MARKS, SECURITY):
        op.execute(statement)


def downgrade() -> None:
    # "At most nothing" cannot be said without a direction.
    op.execute("""
        REVOKE UPDATE (frozen_at) ON targets FROM kitaab_worker;
        DROP TRIGGER scale_values_mark ON scale_values;
        DROP FUNCTION jobs.mark_scale_value();
        DROP TRIGGER users_mark ON users;
        DROP FUNCTION jobs.mark_persons_goals();
        DROP TRIGGER targets_thaw ON targets;
        DROP FUNCTION thaw_target();
        DROP INDEX idx_targets_live_end;
        ALTER TABLE targets DROP COLUMN as_of;
        ALTER TABLE merits DROP COLUMN as_of;
        DELETE FROM target_items WHERE direction = 'at_most';
        DELETE FROM merit_items WHERE direction = 'at_most';
        ALTER TABLE target_items DROP COLUMN direction;
        ALTER TABLE merit_items DROP COLUMN direction;
        ALTER TABLE target_items ADD CONSTRAINT target_items_target_is_positive
            CHECK (target_value > 0 AND target_value <> 'NaN');
        ALTER TABLE merit_items ADD CONSTRAINT merit_items_target_is_positive
            CHECK (target_value > 0 AND target_value <> 'NaN');
        DROP TYPE goal_direction_enum
    """)

"""Who deletes a person, or makes a partition, and who works beside them no longer wait for each other.

Revision ID: 0021
Revises: 0020
"""

from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

# Whoever deletes a person locks that first, and then what is theirs. A dispatch has locked the reminder when it writes
# the delivery, whose reference to the person then waited for the deletion, and that for the reminder. The reference to
# the reminder, or to the notice, leads to the person as well, and is what a deletion goes along.
DELIVERIES = """
-- squawk-ignore ban-drop-constraint
ALTER TABLE jobs.deliveries DROP CONSTRAINT deliveries_user_id_fkey
"""
UNDO_DELIVERIES = """
-- squawk-ignore adding-foreign-key-constraint, constraint-missing-not-valid
ALTER TABLE jobs.deliveries ADD CONSTRAINT deliveries_user_id_fkey
    FOREIGN KEY (user_id) REFERENCES public.users ON DELETE CASCADE
"""

# A partition of entries locks the four tables that it refers to, one after the other, against everybody who writes
# there. Who writes to the later one first would wait for it, and it for them, until PostgreSQL ends one of the two after
# deadlock_timeout (1 s). So it gives up before that, and tries again: never the app. Seven waits, of the four and of the
# three tables that have partitions, must fit into that second: whoever waits for the first has waited through all of them.
PARTITIONS = "ALTER FUNCTION jobs.make_partition(text, date, date) SET lock_timeout = '100ms'"
UNDO_PARTITIONS = "ALTER FUNCTION jobs.make_partition(text, date, date) RESET lock_timeout"


def upgrade() -> None:
    for statement in (DELIVERIES, PARTITIONS):
        op.execute(statement)


def downgrade() -> None:
    for statement in (UNDO_PARTITIONS, UNDO_DELIVERIES):
        op.execute(statement)

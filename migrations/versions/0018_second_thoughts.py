"""Groups that would wait for each other are refused; the newest jobs are found along an index.

Revision ID: 0018
Revises: 0015
"""

from alembic import op

revision = "0018"
down_revision = "0015"
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


def upgrade() -> None:
    for statement in (INDEX, CYCLES, FOREIGN):
        op.execute(statement)


def downgrade() -> None:
    op.execute("""
        -- squawk-ignore require-concurrent-index-deletion
        DROP INDEX jobs.idx_jobs_foreign;
        DROP TRIGGER jobs_no_cycle ON jobs.jobs;
        DROP FUNCTION jobs.refuse_cycle();
        -- squawk-ignore require-concurrent-index-deletion
        DROP INDEX jobs.idx_jobs_after_group;
        -- squawk-ignore require-concurrent-index-creation
        CREATE INDEX idx_jobs_after_group ON jobs.jobs (after_group) WHERE state = 'scheduled' AND after_group IS NOT NULL
    """)

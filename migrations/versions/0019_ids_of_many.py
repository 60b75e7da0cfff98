"""Many jobs in one statement draw one random number for their ids, and count.

Revision ID: 0019
Revises: 0018
"""

from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

MANY = """
CREATE OR REPLACE FUNCTION jobs.enqueue_many(
    job_name text, many_args jsonb[], unique_keys text[] DEFAULT NULL, run_at timestamptz DEFAULT NULL,
    priority integer DEFAULT 0, max_attempts integer DEFAULT NULL, queue text DEFAULT NULL,
    limit_key text DEFAULT NULL, group_name text DEFAULT NULL, after_group text DEFAULT NULL
) RETURNS SETOF uuid
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    kind jobs.kinds := jobs.kind_to_enqueue(job_name, enqueue_many.queue);
    due timestamptz := coalesce(enqueue_many.run_at, now());
    refused text;{variables}
BEGIN
    PERFORM jobs.check_time('run_at', due);
    IF unique_keys IS NOT NULL OR kind.unique_args THEN
        IF unique_keys IS NOT NULL AND cardinality(unique_keys) <> cardinality(many_args) THEN
            RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
                MESSAGE = cardinality(many_args) || ' jobs have ' || cardinality(unique_keys) || ' unique keys',
                HINT = 'Give one key for each job; null is none.';
        END IF;
        RETURN QUERY
            SELECT jobs.enqueue(job_name, item.args, item.key, due, enqueue_many.priority, enqueue_many.max_attempts,
                                enqueue_many.queue, NULL, NULL, NULL, enqueue_many.limit_key, enqueue_many.group_name,
                                enqueue_many.after_group)
            FROM ROWS FROM (unnest(many_args), unnest(unique_keys)) WITH ORDINALITY AS item (args, key, place)
            ORDER BY item.place;
        RETURN;
    END IF;{insert}
EXCEPTION WHEN check_violation THEN
    GET STACKED DIAGNOSTICS refused = CONSTRAINT_NAME;
    IF refused <> 'jobs_args_size' THEN
        RAISE;
    END IF;
    RAISE EXCEPTION USING ERRCODE = 'program_limit_exceeded',
        MESSAGE = 'the arguments of one of these ' || job_name || ' have more than 65536 bytes',
        HINT = 'Store the data in a table and pass its key.';
END
$$
"""

# A random number asks the system, which took half of what a job cost. So the statement draws one id, and its jobs have
# that id's time and its last 61 bits plus 1, 2, 3...: of version 7 still, and each greater than the one before.
#
# No two are alike: within a statement they are counted, and 61 bits with the highest of 62 left free do not run over.
# Two statements that read the same microsecond, in two sessions or since the server's clock was set back, start at
# random numbers of their own: their runs of n and m ids touch with a chance of (n + m) in 2^61. (Where each id is
# drawn it is n * m in 2^62, so more.) If they did, the primary key refuses the second statement.
VARIABLES = """
    drawn text := replace(jobs.new_id()::text, '-', '');
    -- Version and time, and below them the variant's two bits, which make a negative number of 16 digits.
    upper_half text := left(drawn, 16);
    lower_half bigint := ('x' || right(drawn, 16))::bit(64)::bigint & ~(1::bigint << 61);"""

INSERT = """
    INSERT INTO jobs.jobs (id, name, args, queue, priority, state, limit_key, group_name, after_group, run_at,
                           max_attempts)
    SELECT (upper_half || to_hex(lower_half + given.place))::uuid, job_name, given.args,
           coalesce(enqueue_many.queue, kind.queue), enqueue_many.priority,
           CASE WHEN due > now() OR enqueue_many.after_group IS NOT NULL
                THEN 'scheduled' ELSE 'ready' END::jobs.job_state,
           jobs.limit_key_of(kind, enqueue_many.limit_key), enqueue_many.group_name, enqueue_many.after_group, due,
           coalesce(enqueue_many.max_attempts, kind.max_attempts)
    FROM unnest(many_args) WITH ORDINALITY AS given (args, place);
    RETURN QUERY
        SELECT (upper_half || to_hex(lower_half + place))::uuid
        FROM generate_series(1, cardinality(many_args)) AS place ORDER BY place;"""

# As in 0008.
UNDO_INSERT = """
    RETURN QUERY
        WITH item AS MATERIALIZED (
            SELECT jobs.new_id() AS id, args, place FROM unnest(many_args) WITH ORDINALITY AS given (args, place)
        ), added AS (
            INSERT INTO jobs.jobs (id, name, args, queue, priority, state, limit_key, group_name, after_group, run_at,
                                   max_attempts)
            SELECT id, job_name, args, coalesce(enqueue_many.queue, kind.queue), enqueue_many.priority,
                   CASE WHEN due > now() OR enqueue_many.after_group IS NOT NULL
                        THEN 'scheduled' ELSE 'ready' END::jobs.job_state,
                   jobs.limit_key_of(kind, enqueue_many.limit_key), enqueue_many.group_name, enqueue_many.after_group, due,
                   coalesce(enqueue_many.max_attempts, kind.max_attempts)
            FROM item
        )
        SELECT id FROM item ORDER BY place;"""


def upgrade() -> None:
    op.execute(MANY.format(variables=VARIABLES, insert=INSERT))


def downgrade() -> None:
    op.execute(MANY.format(variables="", insert=UNDO_INSERT))

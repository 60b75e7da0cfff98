"""A job's start and its usual end as functions, so that a worker sends each in one trip with what follows it.

Revision ID: 0016
Revises: 0015
"""

from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

# Compare-and-swap: only one delivery of a job's message finds the row in a state to start from. A message that overtakes
# the commit of the relay that sent it waits here for the row; 'ready' is what it finds where that relay died. Jobs with
# a limit start from 'published' only: the relay is who counts them.
#
# States are compared as text, so that the row is looked up by its id, and never among all that have that state.
START = """
CREATE FUNCTION jobs.start(job uuid, by_worker text, limited_queues text[]) RETURNS json
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    started json;
BEGIN
    UPDATE jobs.jobs AS j
    SET state = 'running', attempt = j.attempt + 1, started_at = now(), heartbeat_at = now(), worker = by_worker,
        in_batch = false, error = NULL, progress_done = NULL, progress_total = NULL
    WHERE j.id = job AND (j.state::text = 'published'
                          OR j.state::text = 'ready' AND j.limit_key IS NULL AND j.queue <> ALL (limited_queues))
    RETURNING json_build_object('name', j.name, 'args', j.args, 'attempt', j.attempt, 'max_attempts', j.max_attempts,
        'started_at', j.started_at, 'schedule', j.schedule, 'fire_at', j.fire_at)
    INTO started;
    RETURN started;
END
$$
"""

# Sent together with the COMMIT of the job's own work, so it fails where the job is no longer that worker's.
FINISH = """
CREATE FUNCTION jobs.finish(
    job uuid, its_attempt integer, since timestamptz, its_result jsonb, done bigint, total bigint
) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    its_group text;
BEGIN
    UPDATE jobs.jobs AS j
    SET state = 'succeeded', finished_at = clock_timestamp(), error = NULL, result = its_result,
        progress_done = coalesce(done, j.progress_done), progress_total = coalesce(total, j.progress_total)
    WHERE j.id = job AND j.state::text = 'running' AND j.attempt = its_attempt AND j.started_at = since
    RETURNING j.group_name INTO its_group;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'KJ001', MESSAGE = 'job ' || job || ' was taken from this worker while it ran';
    END IF;
    -- It may be the last that another group waits for.
    IF its_group IS NOT NULL THEN
        PERFORM pg_notify('kitaab_jobs', '');
    END IF;
END
$$
"""

RIGHTS = """
GRANT EXECUTE ON FUNCTION
    jobs.start(uuid, text, text[]), jobs.finish(uuid, integer, timestamptz, jsonb, bigint, bigint)
    TO kitaab_worker
"""


def upgrade() -> None:
    for statement in (START, FINISH, RIGHTS):
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP FUNCTION jobs.finish(uuid, integer, timestamptz, jsonb, bigint, bigint)")
    op.execute("DROP FUNCTION jobs.start(uuid, text, text[])")

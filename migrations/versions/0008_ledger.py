"""The ledger of jobs: what waits, what runs, and how each job ended.

Revision ID: 0008
Revises: 0007
"""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

# jobs.queues and jobs.kinds mirror contract.py (written by `kitaab-jobs migrate` and by each worker at start), so
# that a caller in SQL gets the same queue and limits, and the same refusal of an unknown name.
KINDS = """
CREATE TABLE jobs.queues (
    name varchar(64) PRIMARY KEY,
    max_running integer CHECK (max_running > 0),
    summary text NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON COLUMN jobs.queues.max_running
    IS 'how many of its jobs run at once, on all workers; null: as many as there are processes';

CREATE TABLE jobs.kinds (
    name varchar(128) PRIMARY KEY,
    queue varchar(64) NOT NULL,
    max_attempts integer NOT NULL CHECK (max_attempts > 0),
    time_limit integer NOT NULL CHECK (time_limit > 0),
    max_running integer CHECK (max_running > 0),
    unique_args boolean NOT NULL DEFAULT false,
    unique_seconds integer NOT NULL DEFAULT 0 CHECK (unique_seconds >= 0),
    summary text NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON COLUMN jobs.kinds.max_running IS 'how many of them run at once for each limit_key; null: no limit';
COMMENT ON COLUMN jobs.kinds.unique_args IS 'whether the arguments are the key where none is given';
COMMENT ON COLUMN jobs.kinds.unique_seconds IS 'how long a key counts after its job was enqueued, even when that has ended'
"""

JOBS = """
CREATE TYPE jobs.job_state AS ENUM
    ('scheduled', 'ready', 'published', 'running', 'succeeded', 'dead', 'cancelled');

CREATE TABLE jobs.jobs (
    id uuid PRIMARY KEY,
    name varchar(128) NOT NULL,
    args jsonb NOT NULL DEFAULT '{}',
    queue varchar(64) NOT NULL,
    priority integer NOT NULL DEFAULT 0,
    state jobs.job_state NOT NULL,
    unique_key varchar(255),
    limit_key varchar(255),
    group_name varchar(128),
    after_group varchar(128),
    run_at timestamptz NOT NULL DEFAULT now(),
    attempt integer NOT NULL DEFAULT 0,
    max_attempts integer NOT NULL CHECK (max_attempts > 0),
    in_batch boolean NOT NULL DEFAULT false,
    alone boolean NOT NULL DEFAULT false,
    schedule varchar(128),
    fire_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    published_at timestamptz,
    started_at timestamptz,
    finished_at timestamptz,
    heartbeat_at timestamptz,
    cancel_requested_at timestamptz,
    worker varchar(255),
    error text,
    result jsonb,
    progress_done bigint,
    progress_total bigint,
    canvas jsonb,
    CONSTRAINT jobs_args_is_object CHECK (jsonb_typeof(args) = 'object'),
    CONSTRAINT jobs_args_size CHECK (octet_length(args::text) <= 65536),
    CONSTRAINT jobs_group_not_after_itself CHECK (after_group <> group_name),
    CONSTRAINT jobs_after_group_waits CHECK (after_group IS NULL OR state IN ('scheduled', 'cancelled')),
    CONSTRAINT jobs_finished_when_ended CHECK ((state IN ('succeeded', 'dead', 'cancelled')) = (finished_at IS NOT NULL))
);
COMMENT ON COLUMN jobs.jobs.limit_key IS 'of the jobs with one key, no more run at once than their kind allows';
COMMENT ON COLUMN jobs.jobs.after_group
    IS 'waits until every job of that group has succeeded or was cancelled; then it is null';
COMMENT ON COLUMN jobs.jobs.attempt IS 'starts so far; counted at start, so that a job that kills its worker ends dead';
COMMENT ON COLUMN jobs.jobs.in_batch IS 'was started together with others, in one transaction';
COMMENT ON COLUMN jobs.jobs.alone IS 'its last batch did not end, so it is started without others';
COMMENT ON COLUMN jobs.jobs.canvas IS 'what a Celery message said should come after it: chain, chord, callbacks';
-- Each index holds only the rows of its state, so it stays small however many have ended.
CREATE INDEX idx_jobs_due ON jobs.jobs (run_at) WHERE state = 'scheduled' AND after_group IS NULL;
CREATE INDEX idx_jobs_after_group ON jobs.jobs (after_group) WHERE state = 'scheduled' AND after_group IS NOT NULL;
CREATE INDEX idx_jobs_ready ON jobs.jobs (queue, priority DESC, run_at, id) WHERE state = 'ready' AND limit_key IS NULL;
CREATE INDEX idx_jobs_ready_limited ON jobs.jobs (limit_key, priority DESC, run_at, id)
    WHERE state = 'ready' AND limit_key IS NOT NULL;
CREATE INDEX idx_jobs_limited ON jobs.jobs (limit_key) WHERE limit_key IS NOT NULL AND state IN ('published', 'running');
CREATE INDEX idx_jobs_published ON jobs.jobs (queue, published_at) WHERE state = 'published';
CREATE INDEX idx_jobs_running ON jobs.jobs (queue, heartbeat_at) WHERE state = 'running';
CREATE INDEX idx_jobs_group ON jobs.jobs (group_name) WHERE group_name IS NOT NULL AND state NOT IN ('succeeded', 'cancelled');
CREATE INDEX idx_jobs_finished ON jobs.jobs (finished_at) WHERE state IN ('succeeded', 'dead', 'cancelled');
CREATE INDEX idx_jobs_schedule ON jobs.jobs (schedule)
    WHERE schedule IS NOT NULL AND state IN ('scheduled', 'ready', 'published', 'running');
CREATE UNIQUE INDEX uq_jobs_unique_key ON jobs.jobs (name, unique_key)
    WHERE unique_key IS NOT NULL AND state IN ('scheduled', 'ready', 'published', 'running');
CREATE INDEX idx_jobs_unique_recent ON jobs.jobs (name, unique_key, created_at) WHERE unique_key IS NOT NULL;

-- One wake-up for a statement; PostgreSQL folds equal ones of a transaction into one.
CREATE FUNCTION jobs.announce() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('kitaab_jobs', '');
    RETURN NULL;
END
$$;
CREATE TRIGGER jobs_announce AFTER INSERT ON jobs.jobs FOR EACH STATEMENT EXECUTE FUNCTION jobs.announce()
"""

# Ids grow with time (the layout of UUID version 7: 48 bits of milliseconds, twelve of a fraction, then random), so that
# the primary key's index is written at its end, and jobs of one transaction run in the order in which they were enqueued.
# One expression, so that it is inlined.
NEW_ID = """
CREATE FUNCTION jobs.new_id() RETURNS uuid
LANGUAGE sql VOLATILE PARALLEL SAFE
RETURN (
    overlay(lpad(to_hex((extract(epoch FROM clock_timestamp()) * 4096000)::bigint), 15, '0') PLACING '7' FROM 13 FOR 0)
    || substr(gen_random_uuid()::text, 20)
)::uuid
"""

# The one way in, for SQL and for every client: the job exists if and only if the caller commits.
# A job with the key of one that is still active is that one: its id is returned and nothing is added. With a
# period (unique_for) so is one that was enqueued within it, whatever became of it, unless it was cancelled.
ENQUEUE = """
CREATE FUNCTION jobs.enqueue(
    job_name text, job_args jsonb DEFAULT '{}', unique_key text DEFAULT NULL, run_at timestamptz DEFAULT NULL,
    priority integer DEFAULT 0, max_attempts integer DEFAULT NULL, queue text DEFAULT NULL,
    schedule text DEFAULT NULL, fire_at timestamptz DEFAULT NULL, unique_for interval DEFAULT NULL,
    limit_key text DEFAULT NULL, group_name text DEFAULT NULL, after_group text DEFAULT NULL
) RETURNS uuid
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    kind jobs.kinds := jobs.kind_to_enqueue(job_name, enqueue.queue);
    job_id uuid;
    wanted_key text := coalesce(enqueue.unique_key, CASE WHEN kind.unique_args THEN md5(job_args::text) END);
    period interval := coalesce(enqueue.unique_for, make_interval(secs => kind.unique_seconds));
    due timestamptz := coalesce(enqueue.run_at, now());
BEGIN
    PERFORM jobs.check_time('run_at', due), jobs.check_time('fire_at', enqueue.fire_at);
    IF octet_length(job_args::text) > 65536 THEN
        RAISE EXCEPTION USING ERRCODE = 'program_limit_exceeded',
            MESSAGE = 'the arguments of ' || job_name || ' have ' || octet_length(job_args::text)
                || ' bytes, and 65536 are allowed',
            HINT = 'Store the data in a table and pass its key.';
    END IF;
    IF wanted_key IS NOT NULL AND period > interval '0' THEN
        -- Nobody else decides about this key until the caller commits.
        PERFORM pg_advisory_xact_lock(hashtextextended(job_name || '/' || wanted_key, 7));
        SELECT id INTO job_id FROM jobs.jobs AS j
        WHERE j.name = job_name AND j.unique_key = wanted_key AND j.created_at > now() - period AND j.state <> 'cancelled'
        ORDER BY j.created_at DESC LIMIT 1;
        IF FOUND THEN
            RETURN job_id;
        END IF;
    END IF;
    LOOP
        INSERT INTO jobs.jobs (id, name, args, queue, priority, state, unique_key, limit_key, group_name, after_group, run_at,
                               max_attempts, schedule, fire_at)
        VALUES (jobs.new_id(), job_name, job_args, coalesce(enqueue.queue, kind.queue), enqueue.priority,
                CASE WHEN due > now() OR enqueue.after_group IS NOT NULL THEN 'scheduled' ELSE 'ready' END::jobs.job_state,
                wanted_key, jobs.limit_key_of(kind, enqueue.limit_key), enqueue.group_name, enqueue.after_group, due,
                coalesce(enqueue.max_attempts, kind.max_attempts), enqueue.schedule, enqueue.fire_at)
        ON CONFLICT (name, unique_key)
            WHERE unique_key IS NOT NULL AND state IN ('scheduled', 'ready', 'published', 'running')
            DO NOTHING
        RETURNING id INTO job_id;
        EXIT WHEN FOUND;
        SELECT id INTO job_id FROM jobs.jobs AS j
        WHERE j.name = job_name AND j.unique_key = wanted_key
          AND j.state IN ('scheduled', 'ready', 'published', 'running');
        -- Not found: it ended between the two statements, so there is room now.
        EXIT WHEN FOUND;
    END LOOP;
    RETURN job_id;
END
$$;

-- Many of one kind in one statement, and their ids in the order of the arguments.
CREATE FUNCTION jobs.enqueue_many(
    job_name text, many_args jsonb[], unique_keys text[] DEFAULT NULL, run_at timestamptz DEFAULT NULL,
    priority integer DEFAULT 0, max_attempts integer DEFAULT NULL, queue text DEFAULT NULL,
    limit_key text DEFAULT NULL, group_name text DEFAULT NULL, after_group text DEFAULT NULL
) RETURNS SETOF uuid
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    kind jobs.kinds := jobs.kind_to_enqueue(job_name, enqueue_many.queue);
    due timestamptz := coalesce(enqueue_many.run_at, now());
    refused text;
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
    END IF;
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
        SELECT id FROM item ORDER BY place;
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

LOOKUPS = """
CREATE FUNCTION jobs.kind_to_enqueue(job_name text, queue text) RETURNS jobs.kinds
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    kind jobs.kinds;
BEGIN
    SELECT k.* INTO kind FROM jobs.kinds AS k WHERE k.name = job_name;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = 'no job is called ' || quote_nullable(job_name),
            HINT = 'The jobs are listed in jobs.kinds.';
    END IF;
    IF kind_to_enqueue.queue IS NOT NULL
        AND NOT EXISTS (SELECT FROM jobs.queues AS q WHERE q.name = kind_to_enqueue.queue) THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = 'no queue is called ' || quote_literal(kind_to_enqueue.queue),
            HINT = 'The queues are listed in jobs.queues.';
    END IF;
    RETURN kind;
END
$$;

-- Infinity, or a year that other languages cannot read, would break whoever reads the row.
CREATE FUNCTION jobs.check_time(what text, given timestamptz) RETURNS void
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF given NOT BETWEEN '1970-01-01 00:00Z' AND '9998-12-31 00:00Z' THEN
        RAISE EXCEPTION USING ERRCODE = 'datetime_field_overflow',
            MESSAGE = what || ' is ' || given || ', and it must be between 1970 and 9998';
    END IF;
END
$$;

-- What is limited counts for its kind and the given key: another kind with the same key has its own limit.
CREATE FUNCTION jobs.limit_key_of(kind jobs.kinds, given text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN (kind).max_running IS NOT NULL THEN (kind).name || coalesce('/' || given, '') END
"""

SECURITY = """
GRANT EXECUTE ON FUNCTION
    jobs.enqueue(text, jsonb, text, timestamptz, integer, integer, text, text, timestamptz, interval, text, text, text),
    jobs.enqueue_many(text, jsonb[], text[], timestamptz, integer, integer, text, text, text, text)
    TO kitaab_app, kitaab_worker;
GRANT SELECT ON jobs.kinds, jobs.queues TO kitaab_app;
GRANT SELECT ON jobs.kinds, jobs.queues, jobs.jobs TO kitaab_readonly;
GRANT SELECT, INSERT, UPDATE ON jobs.kinds, jobs.queues TO kitaab_worker;
-- Rows of ended jobs are purged.
GRANT SELECT, INSERT, UPDATE, DELETE ON jobs.jobs TO kitaab_worker
"""


def upgrade() -> None:
    for statement in (KINDS, JOBS, NEW_ID, LOOKUPS, ENQUEUE, SECURITY):
        op.execute(statement)


def downgrade() -> None:
    op.execute("""
        DROP FUNCTION jobs.enqueue_many(text, jsonb[], text[], timestamptz, integer, integer, text, text, text, text);
        DROP FUNCTION jobs.enqueue(
            text, jsonb, text, timestamptz, integer, integer, text, text, timestamptz, interval, text, text, text
        );
        DROP FUNCTION jobs.check_time(text, timestamptz);
        DROP FUNCTION jobs.limit_key_of(jobs.kinds, text);
        DROP FUNCTION jobs.kind_to_enqueue(text, text);
        DROP FUNCTION jobs.new_id();
        DROP TABLE jobs.jobs;
        DROP FUNCTION jobs.announce();
        DROP TYPE jobs.job_state;
        DROP TABLE jobs.kinds;
        DROP TABLE jobs.queues
    """)

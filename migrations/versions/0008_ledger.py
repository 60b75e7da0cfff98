"""The ledger of jobs, the schedules that fill it, and the deliveries of reminders.

Revision ID: 0008
Revises: 0007
"""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

# jobs.kinds mirrors contract.py (written by `kitaab-jobs migrate` and by each worker at start), so that
# a caller in SQL gets the same queue and limits, and the same refusal of an unknown name.
JOBS = """
CREATE TYPE jobs.job_state AS ENUM
    ('scheduled', 'ready', 'published', 'running', 'succeeded', 'dead', 'cancelled');

CREATE TABLE jobs.kinds (
    name varchar(128) PRIMARY KEY,
    queue varchar(64) NOT NULL,
    max_attempts integer NOT NULL CHECK (max_attempts > 0),
    time_limit integer NOT NULL CHECK (time_limit > 0),
    summary text NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE jobs.jobs (
    id uuid PRIMARY KEY,
    name varchar(128) NOT NULL,
    args jsonb NOT NULL DEFAULT '{}',
    queue varchar(64) NOT NULL,
    priority integer NOT NULL DEFAULT 0,
    state jobs.job_state NOT NULL,
    unique_key varchar(255),
    run_at timestamptz NOT NULL DEFAULT now(),
    attempt integer NOT NULL DEFAULT 0,
    max_attempts integer NOT NULL CHECK (max_attempts > 0),
    schedule varchar(128),
    fire_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    published_at timestamptz,
    started_at timestamptz,
    finished_at timestamptz,
    heartbeat_at timestamptz,
    worker varchar(255),
    error text,
    result jsonb,
    progress_done bigint,
    progress_total bigint,
    CONSTRAINT jobs_args_is_object CHECK (jsonb_typeof(args) = 'object'),
    CONSTRAINT jobs_args_size CHECK (octet_length(args::text) <= 65536),
    CONSTRAINT jobs_finished_when_ended CHECK ((state IN ('succeeded', 'dead', 'cancelled')) = (finished_at IS NOT NULL))
);
COMMENT ON COLUMN jobs.jobs.attempt IS 'starts so far; counted at start, so that a job that kills its worker ends dead';
-- Each index holds only the rows of its state, so it stays small however many have ended.
CREATE INDEX idx_jobs_waiting ON jobs.jobs (priority DESC, run_at, id) WHERE state IN ('scheduled', 'ready');
CREATE INDEX idx_jobs_published ON jobs.jobs (published_at) WHERE state = 'published';
CREATE INDEX idx_jobs_running ON jobs.jobs (heartbeat_at) WHERE state = 'running';
CREATE INDEX idx_jobs_finished ON jobs.jobs (finished_at) WHERE state IN ('succeeded', 'dead', 'cancelled');
CREATE INDEX idx_jobs_schedule ON jobs.jobs (schedule) WHERE state IN ('scheduled', 'ready', 'published', 'running');
CREATE UNIQUE INDEX uq_jobs_unique_key ON jobs.jobs (name, unique_key)
    WHERE unique_key IS NOT NULL AND state IN ('scheduled', 'ready', 'published', 'running')
"""

# Ids grow with time (the layout of UUID version 7: 48 bits of milliseconds, then random), so the
# primary key's index is written at its end and not all over.
NEW_ID = """
CREATE FUNCTION jobs.new_id() RETURNS uuid
LANGUAGE sql VOLATILE PARALLEL SAFE
RETURN encode(
    set_bit(set_bit(
        overlay(uuid_send(gen_random_uuid())
                PLACING substring(int8send((extract(epoch FROM clock_timestamp()) * 1000)::bigint) FROM 3)
                FROM 1 FOR 6),
        52, 1), 53, 1),
    'hex')::uuid
"""

# The one way in, for SQL and for every client: the job exists if and only if the caller commits.
# A job with the key of one that is still active is that one: its id is returned and nothing is added.
ENQUEUE = """
CREATE FUNCTION jobs.enqueue(
    job_name text, job_args jsonb DEFAULT '{}', unique_key text DEFAULT NULL, run_at timestamptz DEFAULT NULL,
    priority integer DEFAULT 0, max_attempts integer DEFAULT NULL, queue text DEFAULT NULL,
    schedule text DEFAULT NULL, fire_at timestamptz DEFAULT NULL
) RETURNS uuid
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    kind jobs.kinds;
    job_id uuid;
    wanted_key text := enqueue.unique_key;
    due timestamptz := coalesce(enqueue.run_at, now());
BEGIN
    SELECT * INTO kind FROM jobs.kinds WHERE name = job_name;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = 'no job is called ' || quote_nullable(job_name),
            HINT = 'The jobs are listed in jobs.kinds.';
    END IF;
    IF octet_length(job_args::text) > 65536 THEN
        RAISE EXCEPTION USING ERRCODE = 'program_limit_exceeded',
            MESSAGE = 'the arguments of ' || job_name || ' have ' || octet_length(job_args::text)
                || ' bytes, and 65536 are allowed',
            HINT = 'Store the data in a table and pass its key.';
    END IF;
    LOOP
        INSERT INTO jobs.jobs (id, name, args, queue, priority, state, unique_key, run_at, max_attempts, schedule, fire_at)
        VALUES (jobs.new_id(), job_name, job_args, coalesce(enqueue.queue, kind.queue), enqueue.priority,
                CASE WHEN due > now() THEN 'scheduled' ELSE 'ready' END::jobs.job_state,
                wanted_key, due, coalesce(enqueue.max_attempts, kind.max_attempts), enqueue.schedule, enqueue.fire_at)
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

SCHEDULES = """
CREATE TYPE jobs.schedule_source AS ENUM ('file', 'live');
CREATE TYPE jobs.fire_outcome AS ENUM ('fired', 'skipped', 'missed', 'backfilled');

CREATE TABLE jobs.schedules (
    name varchar(128) PRIMARY KEY,
    job varchar(128) NOT NULL,
    args jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(args) = 'object'),
    line varchar(255) NOT NULL,
    zone varchar(64) NOT NULL DEFAULT 'UTC',
    note text NOT NULL DEFAULT '',
    source jobs.schedule_source NOT NULL,
    next_fire_at timestamptz,
    paused_at timestamptz,
    paused_note text,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX idx_schedules_next_fire ON jobs.schedules (next_fire_at) WHERE paused_at IS NULL;

-- The primary key is what lets any number of beats fire: one of them gets to write the row.
CREATE TABLE jobs.fires (
    schedule varchar(128) NOT NULL,
    fire_at timestamptz NOT NULL,
    outcome jobs.fire_outcome NOT NULL,
    reason text,
    job_id uuid,
    recorded_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (schedule, fire_at),
    CONSTRAINT fires_job_when_fired CHECK ((outcome IN ('fired', 'backfilled')) = (job_id IS NOT NULL)),
    CONSTRAINT fires_reason_when_not_fired CHECK (outcome IN ('fired', 'backfilled') OR reason IS NOT NULL)
);
CREATE INDEX idx_fires_recorded_at ON jobs.fires (recorded_at);

CREATE TABLE jobs.processes (
    name varchar(255) PRIMARY KEY,
    kind varchar(16) NOT NULL CHECK (kind IN ('worker', 'beat', 'relay')),
    started_at timestamptz NOT NULL DEFAULT now(),
    seen_at timestamptz NOT NULL DEFAULT now(),
    version varchar(32) NOT NULL
);
COMMENT ON TABLE jobs.processes IS 'who is alive: one row a process, touched every few seconds'
"""

DELIVERIES = """
CREATE TYPE jobs.delivery_state AS ENUM ('pending', 'sending', 'sent', 'failed', 'missed', 'unknown');

CREATE TABLE jobs.deliveries (
    delivery_id bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    notification_id bigint NOT NULL REFERENCES public.notifications ON DELETE CASCADE,
    user_id bigint NOT NULL REFERENCES public.users ON DELETE CASCADE,
    channel varchar(32) NOT NULL,
    due_at timestamptz NOT NULL,
    due_date date NOT NULL,
    state jobs.delivery_state NOT NULL DEFAULT 'pending',
    reason text,
    created_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz,
    CONSTRAINT uq_deliveries_due UNIQUE (notification_id, channel, due_at),
    CONSTRAINT deliveries_finished_when_ended CHECK ((state IN ('pending', 'sending')) = (finished_at IS NULL)),
    CONSTRAINT deliveries_reason_when_not_sent CHECK (state IN ('pending', 'sending', 'sent') OR reason IS NOT NULL)
);
-- Guarantee: one reminder for a person, local day and channel.
CREATE UNIQUE INDEX uq_deliveries_day ON jobs.deliveries (user_id, due_date, channel) WHERE state <> 'missed';
CREATE INDEX idx_deliveries_open ON jobs.deliveries (created_at) WHERE state IN ('pending', 'sending');
CREATE INDEX idx_deliveries_notification ON jobs.deliveries (notification_id);
CREATE INDEX idx_deliveries_user_id ON jobs.deliveries (user_id)
"""

SECURITY = """
GRANT EXECUTE ON FUNCTION
    jobs.enqueue(text, jsonb, text, timestamptz, integer, integer, text, text, timestamptz),
    jobs.new_id() TO kitaab_app, kitaab_worker;
GRANT SELECT ON jobs.kinds TO kitaab_app;
GRANT SELECT ON jobs.kinds, jobs.jobs, jobs.schedules, jobs.fires, jobs.processes TO kitaab_readonly;
GRANT SELECT, INSERT, UPDATE ON jobs.kinds, jobs.processes TO kitaab_worker;
-- Rows of ended jobs are purged, and schedules that left the timetable.
GRANT SELECT, INSERT, UPDATE, DELETE ON jobs.schedules, jobs.jobs TO kitaab_worker;
GRANT SELECT, INSERT ON jobs.fires TO kitaab_worker;
ALTER TABLE jobs.deliveries ENABLE ROW LEVEL SECURITY;
CREATE POLICY deliveries_own ON jobs.deliveries FOR SELECT TO kitaab_app USING (user_id = (SELECT app_user_id()));
CREATE POLICY deliveries_analytics ON jobs.deliveries FOR SELECT TO kitaab_readonly USING (true);
CREATE POLICY deliveries_jobs ON jobs.deliveries TO kitaab_worker USING (true) WITH CHECK (true);
GRANT SELECT ON jobs.deliveries TO kitaab_app, kitaab_readonly;
GRANT SELECT, INSERT, UPDATE ON jobs.deliveries TO kitaab_worker
"""


def upgrade() -> None:
    for statement in (JOBS, NEW_ID, ENQUEUE, SCHEDULES, DELIVERIES, SECURITY):
        op.execute(statement)


def downgrade() -> None:
    op.execute("""
        DROP TABLE jobs.deliveries;
        DROP TYPE jobs.delivery_state;
        DROP TABLE jobs.processes;
        DROP TABLE jobs.fires;
        DROP TABLE jobs.schedules;
        DROP TYPE jobs.fire_outcome;
        DROP TYPE jobs.schedule_source;
        DROP FUNCTION jobs.enqueue(text, jsonb, text, timestamptz, integer, integer, text, text, timestamptz);
        DROP FUNCTION jobs.new_id();
        DROP TABLE jobs.jobs;
        DROP FUNCTION jobs.announce();
        DROP TABLE jobs.kinds;
        DROP TYPE jobs.job_state
    """)

"""The schedules, what became of each planned fire, and the processes that are alive.

Revision ID: 0009
Revises: 0008
"""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

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

SECURITY = """
GRANT SELECT ON jobs.schedules, jobs.fires, jobs.processes TO kitaab_readonly;
-- Schedules that left the timetable go, and rows of fires and processes that are old.
GRANT SELECT, INSERT, UPDATE, DELETE ON jobs.schedules, jobs.processes TO kitaab_worker;
GRANT SELECT, INSERT, DELETE ON jobs.fires TO kitaab_worker
"""


def upgrade() -> None:
    for statement in (SCHEDULES, SECURITY):
        op.execute(statement)


def downgrade() -> None:
    op.execute("""
        DROP TABLE jobs.processes;
        DROP TABLE jobs.fires;
        DROP TABLE jobs.schedules;
        DROP TYPE jobs.fire_outcome;
        DROP TYPE jobs.schedule_source
    """)

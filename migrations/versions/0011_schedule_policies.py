"""The policies of schedules, the fires that wait for the run before them, and how each run ended.

Revision ID: 0011
Revises: 0010
"""

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

# What is done under a lock here is done to a few hundred rows of schedules, and to fires that are kept for a month: to
# do it in several transactions, as the linter would have it, gains nothing.
SCHEDULES = """
CREATE TYPE jobs.dst_rule AS ENUM ('cron', 'literal');
CREATE TYPE jobs.catch_up AS ENUM ('skip', 'latest', 'all');
CREATE TYPE jobs.overlap AS ENUM ('skip', 'queue', 'allow', 'cancel_running');

ALTER TABLE jobs.schedules
    ADD COLUMN dst jobs.dst_rule NOT NULL DEFAULT 'cron',
    ADD COLUMN catch_up jobs.catch_up NOT NULL DEFAULT 'latest',
    ADD COLUMN catch_up_window interval,
    ADD COLUMN overlap jobs.overlap NOT NULL DEFAULT 'skip',
    ADD COLUMN jitter interval NOT NULL DEFAULT '0',
    ADD COLUMN starts_at timestamptz,
    ADD COLUMN ends_at timestamptz,
    ADD COLUMN pause_after_failures integer,
    ADD COLUMN failures integer NOT NULL DEFAULT 0,
    ADD COLUMN paused_by varchar(128),
    -- squawk-ignore constraint-missing-not-valid
    ADD CONSTRAINT schedules_window_check CHECK (catch_up_window > interval '0' AND catch_up_window < interval '100 years'),
    -- squawk-ignore constraint-missing-not-valid
    ADD CONSTRAINT schedules_jitter_check CHECK (jitter BETWEEN interval '0' AND interval '24 hours'),
    -- squawk-ignore constraint-missing-not-valid
    ADD CONSTRAINT schedules_ends_after_start CHECK (ends_at >= starts_at),
    -- squawk-ignore constraint-missing-not-valid
    ADD CONSTRAINT schedules_times_check CHECK (isfinite(starts_at) AND isfinite(ends_at) AND isfinite(next_fire_at)),
    -- squawk-ignore constraint-missing-not-valid
    ADD CONSTRAINT schedules_failures_check CHECK (failures >= 0 AND pause_after_failures > 0);
COMMENT ON COLUMN jobs.schedules.next_fire_at IS 'null: there is none, since it has ended or cannot be read';
COMMENT ON COLUMN jobs.schedules.catch_up_window IS 'a fire that is found later than this is missed; null: however late';
COMMENT ON COLUMN jobs.schedules.failures IS 'runs that ended dead since the last one that succeeded, or since it was resumed';

-- Paused ones too: their fires are recorded as skipped.
-- squawk-ignore require-concurrent-index-deletion
DROP INDEX jobs.idx_schedules_next_fire;
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX idx_schedules_next_fire ON jobs.schedules (next_fire_at)
"""

FIRES = """
ALTER TABLE jobs.fires
    ADD COLUMN rule varchar(32),
    -- squawk-ignore adding-field-with-default
    ADD COLUMN lateness interval NOT NULL GENERATED ALWAYS AS (recorded_at - fire_at) STORED,
    ADD COLUMN ended_as jobs.job_state,
    ADD COLUMN ended_at timestamptz,
    -- squawk-ignore constraint-missing-not-valid
    ADD CONSTRAINT fires_ended_as_something CHECK (ended_as IS NULL OR ended_at IS NOT NULL);
COMMENT ON COLUMN jobs.fires.rule IS 'what decided, where it was not the plan alone: catch_up, window, overlap, paused, ...';
COMMENT ON COLUMN jobs.fires.ended_as IS 'how its run ended; null with ended_at: the row of the run was gone';
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX idx_fires_open ON jobs.fires (schedule, fire_at) WHERE job_id IS NOT NULL AND ended_at IS NULL;

CREATE TABLE jobs.waiting_fires (
    schedule varchar(128) NOT NULL REFERENCES jobs.schedules,
    fire_at timestamptz NOT NULL,
    backfill boolean NOT NULL DEFAULT false,
    reason text,
    waits_since timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (schedule, fire_at)
);
COMMENT ON TABLE jobs.waiting_fires
    IS 'planned fires that wait until the run before them is over; then they get their row in jobs.fires'
"""

SECURITY = """
GRANT UPDATE (ended_as, ended_at) ON jobs.fires TO kitaab_worker;
GRANT SELECT ON jobs.waiting_fires TO kitaab_readonly;
GRANT SELECT, INSERT, DELETE ON jobs.waiting_fires TO kitaab_worker
"""


def upgrade() -> None:
    for statement in (SCHEDULES, FIRES, SECURITY):
        op.execute(statement)


def downgrade() -> None:
    op.execute("""
        DROP TABLE jobs.waiting_fires;
        DROP INDEX jobs.idx_fires_open;
        ALTER TABLE jobs.fires
            DROP COLUMN rule, DROP COLUMN lateness, DROP COLUMN ended_as, DROP COLUMN ended_at;
        DROP INDEX jobs.idx_schedules_next_fire;
        ALTER TABLE jobs.schedules
            DROP CONSTRAINT schedules_times_check,
            DROP COLUMN dst, DROP COLUMN catch_up, DROP COLUMN catch_up_window, DROP COLUMN overlap,
            DROP COLUMN jitter, DROP COLUMN starts_at, DROP COLUMN ends_at, DROP COLUMN pause_after_failures,
            DROP COLUMN failures, DROP COLUMN paused_by;
        CREATE INDEX idx_schedules_next_fire ON jobs.schedules (next_fire_at) WHERE paused_at IS NULL;
        COMMENT ON COLUMN jobs.schedules.next_fire_at IS NULL;
        DROP TYPE jobs.overlap;
        DROP TYPE jobs.catch_up;
        DROP TYPE jobs.dst_rule
    """)

"""Reminders: days of the week, quiet hours, channels, what an edit left open; deliveries with their whole story.

Revision ID: 0014
Revises: 0013
"""

from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

NOTIFICATIONS = """
ALTER TABLE notifications
    ADD COLUMN weekdays smallint[]
        CONSTRAINT notifications_weekdays CHECK (weekdays <@ '{1,2,3,4,5,6,7}' AND weekdays <> '{}'),
    ADD COLUMN quiet_from time,
    ADD COLUMN quiet_until time CONSTRAINT notifications_quiet_hours
        CHECK ((quiet_from IS NULL) = (quiet_until IS NULL) AND quiet_from <> quiet_until),
    ADD COLUMN channels varchar(32)[] NOT NULL DEFAULT '{email}' CONSTRAINT notifications_channels
        CHECK (cardinality(channels) BETWEEN 1 AND 8 AND array_position(channels, NULL) IS NULL),
    ADD COLUMN skip_if_recorded boolean NOT NULL DEFAULT false,
    ADD COLUMN before_edit jsonb;
COMMENT ON COLUMN notifications.weekdays IS 'days of the week, 1 (Monday) to 7 (Sunday); NULL is every day';
COMMENT ON COLUMN notifications.quiet_from IS 'local time from which nothing is sent, until quiet_until; may span midnight';
COMMENT ON COLUMN notifications.skip_if_recorded IS 'not on a date for which the person has recorded an entry already';
COMMENT ON COLUMN notifications.before_edit IS
    'what was planned before edits that the dispatcher has not resolved yet: at, date, time, zone, weekdays, edited_at';
GRANT SELECT (weekdays, quiet_from, quiet_until, channels, skip_if_recorded, before_edit) ON notifications
    TO kitaab_worker;
GRANT UPDATE (before_edit) ON notifications TO kitaab_worker
"""

# What was planned is kept until the dispatcher has resolved the edit: an occurrence that was due by then is
# still owed. Of several edits the first one's plan counts, and the last one's instant. While a reminder is off
# nothing is due, so whatever was planned before is not owed when it is turned on.
CLEAR = """
CREATE OR REPLACE FUNCTION clear_next_due() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    NEW.before_edit := coalesce(OLD.before_edit, jsonb_build_object(
        'at', OLD.next_due_at, 'date', OLD.next_due_date, 'time', OLD.notification_time, 'zone', OLD.timezone,
        'weekdays', OLD.weekdays)) || jsonb_build_object('edited_at', now());
    IF NOT OLD.is_active THEN
        NEW.before_edit := NEW.before_edit - 'at' - 'date';
    END IF;
    NEW.next_due_at := NULL;
    NEW.next_due_date := NULL;
    RETURN NEW;
END
$$;
DROP TRIGGER notifications_clear_next_due ON notifications;
CREATE TRIGGER notifications_clear_next_due BEFORE UPDATE ON notifications FOR EACH ROW
    WHEN ((OLD.notification_time, OLD.timezone, OLD.is_active, OLD.weekdays)
          IS DISTINCT FROM (NEW.notification_time, NEW.timezone, NEW.is_active, NEW.weekdays))
    EXECUTE FUNCTION clear_next_due();
DROP TRIGGER notifications_updated_at ON notifications;
CREATE TRIGGER notifications_updated_at BEFORE UPDATE ON notifications FOR EACH ROW
    WHEN ((OLD.notification_time, OLD.timezone, OLD.is_active, OLD.weekdays, OLD.quiet_from, OLD.quiet_until,
           OLD.channels, OLD.skip_if_recorded)
          IS DISTINCT FROM (NEW.notification_time, NEW.timezone, NEW.is_active, NEW.weekdays, NEW.quiet_from,
                            NEW.quiet_until, NEW.channels, NEW.skip_if_recorded))
    EXECUTE FUNCTION set_updated_at()
"""

# The statement's trigger of every other table makes JSON of all rows before it sees that only computed columns
# changed. Here that is a million rows in a minute, so the row decides, before anything is called.
AUDIT = """
CREATE FUNCTION record_audit_of_row() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    before jsonb := to_jsonb(OLD);
    after jsonb := to_jsonb(NEW);
BEGIN
    INSERT INTO public.audit_log (user_id, action_type, table_name, record_id, ip_address, old_values, new_values)
    SELECT public.app_user_id(), 'update', TG_TABLE_NAME, (after ->> TG_ARGV[0])::bigint,
           NULLIF(current_setting('app.ip_address', true), '')::inet,
           jsonb_object_agg(key, before -> key), jsonb_object_agg(key, after -> key)
    FROM jsonb_object_keys(after) AS key
    WHERE before -> key IS DISTINCT FROM after -> key AND key <> ALL (string_to_array(TG_ARGV[1], ','));
    RETURN NULL;
END
$$;
DROP TRIGGER notifications_audit_update ON notifications;
CREATE TRIGGER notifications_audit_update AFTER UPDATE ON notifications FOR EACH ROW
    WHEN ((OLD.created_at, OLD.notification_time, OLD.timezone, OLD.is_active, OLD.weekdays, OLD.quiet_from,
           OLD.quiet_until, OLD.channels, OLD.skip_if_recorded)
          IS DISTINCT FROM (NEW.created_at, NEW.notification_time, NEW.timezone, NEW.is_active, NEW.weekdays,
                            NEW.quiet_from, NEW.quiet_until, NEW.channels, NEW.skip_if_recorded))
    EXECUTE FUNCTION record_audit_of_row('notification_id',
        'updated_at,next_due_at,next_due_date,last_due_at,last_due_date,before_edit');
-- `kitaab-jobs reminders explain` tells what was decided, and what was edited in between.
CREATE POLICY audit_log_reminders ON audit_log FOR SELECT TO kitaab_worker USING (table_name = 'notifications');
GRANT SELECT (audit_log_id, created_at, action_type, table_name, record_id, old_values, new_values) ON audit_log
    TO kitaab_worker
"""

# A nominal date is a date in a zone. Somebody who flies from Auckland to Honolulu has two 22 Novembers, a day
# apart; which of them has been used is decided under the notification's lock. This index guards each zone's.
DELIVERIES = """
ALTER TYPE jobs.delivery_state ADD VALUE 'skipped' AFTER 'unknown';
ALTER TABLE jobs.deliveries
    ADD COLUMN zone varchar(64),
    ADD COLUMN deadline timestamptz,
    ADD COLUMN attempt integer NOT NULL DEFAULT 0,
    ADD COLUMN provider_id varchar(255),
    ADD COLUMN started_at timestamptz;
UPDATE jobs.deliveries AS d SET zone = n.timezone, deadline = d.due_at + interval '2 hours'
    FROM notifications AS n WHERE n.notification_id = d.notification_id;
-- What follows reads the whole table under its lock. Nothing has written many deliveries before this.
-- squawk-ignore adding-not-nullable-field
ALTER TABLE jobs.deliveries ALTER COLUMN zone SET NOT NULL;
-- squawk-ignore adding-not-nullable-field
ALTER TABLE jobs.deliveries ALTER COLUMN deadline SET NOT NULL;
COMMENT ON COLUMN jobs.deliveries.zone IS 'the zone in which due_date is a date';
COMMENT ON COLUMN jobs.deliveries.deadline IS 'it is sent before this instant, or not at all';
-- squawk-ignore require-concurrent-index-deletion
DROP INDEX jobs.uq_deliveries_day;
-- squawk-ignore require-concurrent-index-creation
CREATE UNIQUE INDEX uq_deliveries_day ON jobs.deliveries (user_id, due_date, channel, zone)
    WHERE state IN ('pending', 'sending', 'sent', 'failed', 'unknown');
-- uq_deliveries_due begins with the same column.
-- squawk-ignore require-concurrent-index-deletion
DROP INDEX jobs.idx_deliveries_notification
"""

ZONE_DATA = """
CREATE TABLE jobs.zone_data (
    version varchar(32) PRIMARY KEY,
    resolved_at timestamptz NOT NULL,
    moved bigint NOT NULL
);
COMMENT ON TABLE jobs.zone_data IS
    'the releases of the IANA data with which all planned reminders were resolved, when last, and how many moved then';
GRANT SELECT ON jobs.zone_data TO kitaab_readonly;
GRANT SELECT, INSERT, UPDATE ON jobs.zone_data TO kitaab_worker
"""


def upgrade() -> None:
    for statement in (NOTIFICATIONS, CLEAR, AUDIT, DELIVERIES, ZONE_DATA):
        op.execute(statement)


# An enum cannot lose a value: the type is made anew.
UNDO_DELIVERIES = """
DROP TABLE jobs.zone_data;
DROP INDEX jobs.uq_deliveries_day;
DROP INDEX jobs.idx_deliveries_open;
ALTER TABLE jobs.deliveries
    DROP COLUMN zone, DROP COLUMN deadline, DROP COLUMN attempt, DROP COLUMN provider_id, DROP COLUMN started_at,
    DROP CONSTRAINT deliveries_finished_when_ended, DROP CONSTRAINT deliveries_reason_when_not_sent,
    ALTER COLUMN state DROP DEFAULT;
DROP INDEX jobs.idx_notices_open;
ALTER TABLE jobs.notices
    DROP CONSTRAINT notices_finished_when_ended, DROP CONSTRAINT notices_reason_when_not_sent,
    ALTER COLUMN state DROP DEFAULT;
ALTER TYPE jobs.delivery_state RENAME TO delivery_state_0014;
CREATE TYPE jobs.delivery_state AS ENUM ('pending', 'sending', 'sent', 'failed', 'missed', 'unknown');
ALTER TABLE jobs.deliveries ALTER COLUMN state TYPE jobs.delivery_state
    USING (CASE state WHEN 'skipped' THEN 'missed' ELSE state::text END)::jobs.delivery_state;
ALTER TABLE jobs.notices ALTER COLUMN state TYPE jobs.delivery_state
    USING (CASE state WHEN 'skipped' THEN 'missed' ELSE state::text END)::jobs.delivery_state;
DROP TYPE jobs.delivery_state_0014;
ALTER TABLE jobs.notices ALTER COLUMN state SET DEFAULT 'pending',
    ADD CONSTRAINT notices_finished_when_ended CHECK ((state IN ('pending', 'sending')) = (finished_at IS NULL)),
    ADD CONSTRAINT notices_reason_when_not_sent
        CHECK (state IN ('pending', 'sending', 'sent') OR reason IS NOT NULL);
CREATE INDEX idx_notices_open ON jobs.notices (created_at) WHERE state IN ('pending', 'sending');
ALTER TABLE jobs.deliveries ALTER COLUMN state SET DEFAULT 'pending',
    ADD CONSTRAINT deliveries_finished_when_ended CHECK ((state IN ('pending', 'sending')) = (finished_at IS NULL)),
    ADD CONSTRAINT deliveries_reason_when_not_sent
        CHECK (state IN ('pending', 'sending', 'sent') OR reason IS NOT NULL);
-- Two 22 Novembers of one person are one here: the second goes.
DELETE FROM jobs.deliveries AS d USING jobs.deliveries AS first
    WHERE d.state <> 'missed' AND first.state <> 'missed' AND first.delivery_id < d.delivery_id
      AND (first.user_id, first.due_date, first.channel) = (d.user_id, d.due_date, d.channel);
CREATE UNIQUE INDEX uq_deliveries_day ON jobs.deliveries (user_id, due_date, channel) WHERE state <> 'missed';
CREATE INDEX idx_deliveries_open ON jobs.deliveries (created_at) WHERE state IN ('pending', 'sending');
CREATE INDEX idx_deliveries_notification ON jobs.deliveries (notification_id)
"""

UNDO_AUDIT = """
REVOKE SELECT (audit_log_id, created_at, action_type, table_name, record_id, old_values, new_values) ON audit_log
    FROM kitaab_worker;
DROP POLICY audit_log_reminders ON audit_log;
DROP TRIGGER notifications_audit_update ON notifications;
DROP FUNCTION record_audit_of_row();
CREATE TRIGGER notifications_audit_update AFTER UPDATE ON notifications
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT
    EXECUTE FUNCTION record_audit('notification_id', '',
        'updated_at,next_due_at,next_due_date,last_due_at,last_due_date')
"""

UNDO_NOTIFICATIONS = """
CREATE OR REPLACE FUNCTION clear_next_due() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    NEW.next_due_at := NULL;
    NEW.next_due_date := NULL;
    RETURN NEW;
END
$$;
DROP TRIGGER notifications_clear_next_due ON notifications;
CREATE TRIGGER notifications_clear_next_due BEFORE UPDATE ON notifications FOR EACH ROW
    WHEN ((OLD.notification_time, OLD.timezone, OLD.is_active)
          IS DISTINCT FROM (NEW.notification_time, NEW.timezone, NEW.is_active))
    EXECUTE FUNCTION clear_next_due();
DROP TRIGGER notifications_updated_at ON notifications;
CREATE TRIGGER notifications_updated_at BEFORE UPDATE ON notifications FOR EACH ROW
    WHEN ((OLD.notification_time, OLD.timezone, OLD.is_active)
          IS DISTINCT FROM (NEW.notification_time, NEW.timezone, NEW.is_active))
    EXECUTE FUNCTION set_updated_at();
ALTER TABLE notifications
    DROP COLUMN weekdays, DROP COLUMN quiet_from, DROP COLUMN quiet_until, DROP COLUMN channels,
    DROP COLUMN skip_if_recorded, DROP COLUMN before_edit
"""


def downgrade() -> None:
    for statement in (UNDO_DELIVERIES, UNDO_AUDIT, UNDO_NOTIFICATIONS):
        op.execute(statement)

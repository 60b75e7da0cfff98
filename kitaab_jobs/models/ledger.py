"""The `jobs` schema: the ledger, the schedules and their fires, deliveries, marks, and who is alive."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import (
    BigInteger,
    ForeignKey,
    Identity,
    Integer,
    PrimaryKeyConstraint,
    String,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from kitaab_jobs.models.base import (
    Base,
    Big,
    Day,
    Id,
    Instant,
    Json,
    Key,
    Long,
    Name,
    Now,
    Object,
    Short,
    Whole,
    Zero,
    check,
    enum,
    index,
)

SCHEMA = {"schema": "jobs"}

JobState = enum(
    "job_state",
    "scheduled",
    "ready",
    "published",
    "running",
    "succeeded",
    "dead",
    "cancelled",
    schema="jobs",
)
ScheduleSource = enum("schedule_source", "file", "live", schema="jobs")
FireOutcome = enum("fire_outcome", "fired", "skipped", "missed", "backfilled", schema="jobs")
DeliveryState = enum(
    "delivery_state", "pending", "sending", "sent", "failed", "missed", "unknown", schema="jobs"
)

ACTIVE = "state IN ('scheduled', 'ready', 'published', 'running')"
ENDED = "state IN ('succeeded', 'dead', 'cancelled')"


class Kind(Base):
    """A row for each job of contract.py, so that callers in SQL get its queue and limits."""

    __tablename__ = "kinds"
    __table_args__ = (
        check("kinds_max_attempts_check", "max_attempts > 0"),
        check("kinds_time_limit_check", "time_limit > 0"),
        SCHEMA,
    )

    name: Mapped[Key] = mapped_column(primary_key=True)
    queue: Mapped[Short]
    max_attempts: Mapped[Whole]
    time_limit: Mapped[Whole]
    summary: Mapped[Long]
    updated_at: Mapped[Now]


class JobRow(Base):
    """One job, from the INSERT that enqueued it to how it ended. The row is the truth."""

    __tablename__ = "jobs"
    __table_args__ = (
        check("jobs_max_attempts_check", "max_attempts > 0"),
        check("jobs_args_is_object", "jsonb_typeof(args) = 'object'"),
        check("jobs_args_size", "octet_length(args::text) <= 65536"),
        check(
            "jobs_finished_when_ended",
            "(state IN ('succeeded', 'dead', 'cancelled')) = (finished_at IS NOT NULL)",
        ),
        index("idx_jobs_waiting", "priority DESC", "run_at", "id", where="state IN ('scheduled', 'ready')"),
        index("idx_jobs_published", "published_at", where="state = 'published'"),
        index("idx_jobs_running", "heartbeat_at", where="state = 'running'"),
        index("idx_jobs_finished", "finished_at", where=ENDED),
        index("idx_jobs_schedule", "schedule", where=ACTIVE),
        index(
            "uq_jobs_unique_key",
            "name",
            "unique_key",
            where=f"unique_key IS NOT NULL AND {ACTIVE}",
            unique=True,
        ),
        SCHEMA,
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    name: Mapped[Key]
    args: Mapped[Object]
    queue: Mapped[Short]
    priority: Mapped[Zero]
    state: Mapped[str] = mapped_column(JobState)
    unique_key: Mapped[Name | None]
    run_at: Mapped[Now]
    attempt: Mapped[int] = mapped_column(
        Integer,
        server_default=text("0"),
        comment="starts so far; counted at start, so that a job that kills its worker ends dead",
    )
    max_attempts: Mapped[Whole]
    schedule: Mapped[Key | None]
    fire_at: Mapped[Instant | None]
    created_at: Mapped[Now]
    published_at: Mapped[Instant | None]
    started_at: Mapped[Instant | None]
    finished_at: Mapped[Instant | None]
    heartbeat_at: Mapped[Instant | None]
    worker: Mapped[Name | None]
    error: Mapped[Long | None]
    result: Mapped[Json | None]
    progress_done: Mapped[Big | None]
    progress_total: Mapped[Big | None]


class ScheduleRow(Base):
    """A schedule as it runs: the lines of beat_schedule.py, and what operators added live."""

    __tablename__ = "schedules"
    __table_args__ = (
        check("schedules_args_check", "jsonb_typeof(args) = 'object'"),
        index("idx_schedules_next_fire", "next_fire_at", where="paused_at IS NULL"),
        SCHEMA,
    )

    name: Mapped[Key] = mapped_column(primary_key=True)
    job: Mapped[Key]
    args: Mapped[Object]
    line: Mapped[Name]
    zone: Mapped[Short] = mapped_column(server_default=text("'UTC'"))
    note: Mapped[Long] = mapped_column(server_default=text("''"))
    source: Mapped[str] = mapped_column(ScheduleSource)
    next_fire_at: Mapped[Instant | None]
    paused_at: Mapped[Instant | None]
    paused_note: Mapped[Long | None]
    created_at: Mapped[Now]
    updated_at: Mapped[Now]


class Fire(Base):
    """What became of one planned fire. Its key lets any number of beats fire: one writes the row."""

    __tablename__ = "fires"
    __table_args__ = (
        PrimaryKeyConstraint("schedule", "fire_at"),
        check("fires_job_when_fired", "(outcome IN ('fired', 'backfilled')) = (job_id IS NOT NULL)"),
        check("fires_reason_when_not_fired", "outcome IN ('fired', 'backfilled') OR reason IS NOT NULL"),
        index("idx_fires_recorded_at", "recorded_at"),
        SCHEMA,
    )

    schedule: Mapped[Key]
    fire_at: Mapped[Instant]
    outcome: Mapped[str] = mapped_column(FireOutcome)
    reason: Mapped[Long | None]
    job_id: Mapped[UUID | None]
    recorded_at: Mapped[Now]


class Process(Base):
    """A process that is alive, as of `seen_at`."""

    __tablename__ = "processes"
    __table_args__ = (
        check("processes_kind_check", "kind IN ('worker', 'beat', 'relay')"),
        {**SCHEMA, "comment": "who is alive: one row a process, touched every few seconds"},
    )

    name: Mapped[Name] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(String(16))
    started_at: Mapped[Now]
    seen_at: Mapped[Now]
    version: Mapped[str] = mapped_column(String(32))


class Delivery(Base):
    """One reminder to one person over one channel, and how it ended."""

    __tablename__ = "deliveries"
    __table_args__ = (
        UniqueConstraint("notification_id", "channel", "due_at", name="uq_deliveries_due"),
        check("deliveries_finished_when_ended", "(state IN ('pending', 'sending')) = (finished_at IS NULL)"),
        check(
            "deliveries_reason_when_not_sent",
            "state IN ('pending', 'sending', 'sent') OR reason IS NOT NULL",
        ),
        index("uq_deliveries_day", "user_id", "due_date", "channel", where="state <> 'missed'", unique=True),
        index("idx_deliveries_open", "created_at", where="state IN ('pending', 'sending')"),
        index("idx_deliveries_notification", "notification_id"),
        index("idx_deliveries_user_id", "user_id"),
        SCHEMA,
    )

    delivery_id: Mapped[Id]
    notification_id: Mapped[Big] = mapped_column(
        ForeignKey("notifications.notification_id", ondelete="CASCADE")
    )
    user_id: Mapped[Big] = mapped_column(ForeignKey("users.user_id", ondelete="CASCADE"))
    channel: Mapped[str] = mapped_column(String(32))
    due_at: Mapped[Instant]
    due_date: Mapped[Day]
    state: Mapped[str] = mapped_column(DeliveryState, server_default=text("'pending'"))
    reason: Mapped[Long | None]
    created_at: Mapped[Now]
    finished_at: Mapped[Instant | None]


class ProgressMark(Base):
    """A promise that what it names is computed again. Only added and taken away, never merged."""

    __tablename__ = "progress_marks"
    __table_args__ = (
        check("progress_marks_kind_check", "kind IN ('item', 'merit', 'target')"),
        {**SCHEMA, "comment": "what progress.refresh has yet to compute again"},
    )

    progress_mark_id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    kind: Mapped[str] = mapped_column(String(16))
    subject_id: Mapped[Big]
    marked_at: Mapped[Now]


class PartitionedTable(Base):
    """A table of which jobs.make_partition may make partitions, and the column that decides."""

    __tablename__ = "partitioned_tables"
    __table_args__ = (
        check("partitioned_tables_key_type_check", "key_type IN ('date', 'timestamptz')"),
        {**SCHEMA, "comment": "the tables of which jobs.make_partition makes partitions"},
    )

    table_name: Mapped[str] = mapped_column(String(63), primary_key=True)
    key_column: Mapped[str] = mapped_column(String(63))
    key_type: Mapped[str] = mapped_column(String(63))

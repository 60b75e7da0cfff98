"""The ledger: queues and kinds of jobs, and the jobs."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import (
    Integer,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from kitaab_jobs.models.base import (
    SCHEMA,
    Base,
    Big,
    Instant,
    Json,
    Key,
    Long,
    Name,
    No,
    Now,
    Object,
    Short,
    Whole,
    Zero,
    check,
    enum,
    index,
)

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

ACTIVE = "state IN ('scheduled', 'ready', 'published', 'running')"
ENDED = "state IN ('succeeded', 'dead', 'cancelled')"
# Ids that do not grow with time: not of jobs.new_id(), which makes version 7 (04000000 is the year 2109).
FOREIGN_ID = "id >= '04000000-0000-0000-0000-000000000000' OR get_byte(uuid_send(id), 6) < 112"


class Queue(Base):
    """A row for each queue of contract.py, so that callers in SQL are refused an unknown one."""

    __tablename__ = "queues"
    __table_args__ = (check("queues_max_running_check", "max_running > 0"), SCHEMA)

    name: Mapped[Short] = mapped_column(primary_key=True)
    max_running: Mapped[Whole | None] = mapped_column(
        comment="how many of its jobs run at once, on all workers; null: as many as there are processes"
    )
    summary: Mapped[Long]
    updated_at: Mapped[Now]


class Kind(Base):
    """A row for each job of contract.py, so that callers in SQL get its queue and limits."""

    __tablename__ = "kinds"
    __table_args__ = (
        check("kinds_max_attempts_check", "max_attempts > 0"),
        check("kinds_time_limit_check", "time_limit > 0"),
        check("kinds_max_running_check", "max_running > 0"),
        check("kinds_unique_seconds_check", "unique_seconds >= 0"),
        SCHEMA,
    )

    name: Mapped[Key] = mapped_column(primary_key=True)
    queue: Mapped[Short]
    max_attempts: Mapped[Whole]
    time_limit: Mapped[Whole]
    max_running: Mapped[Whole | None] = mapped_column(
        comment="how many of them run at once for each limit_key; null: no limit"
    )
    unique_args: Mapped[No] = mapped_column(comment="whether the arguments are the key where none is given")
    unique_seconds: Mapped[Zero] = mapped_column(
        comment="how long a key counts after its job was enqueued, even when that has ended"
    )
    summary: Mapped[Long]
    updated_at: Mapped[Now]


class JobRow(Base):
    """One job, from the INSERT that enqueued it to how it ended. The row is the truth."""

    __tablename__ = "jobs"
    __table_args__ = (
        check("jobs_max_attempts_check", "max_attempts > 0"),
        check("jobs_args_is_object", "jsonb_typeof(args) = 'object'"),
        check("jobs_args_size", "octet_length(args::text) <= 65536"),
        check("jobs_group_not_after_itself", "after_group <> group_name"),
        check("jobs_after_group_waits", "after_group IS NULL OR state IN ('scheduled', 'cancelled')"),
        check(
            "jobs_finished_when_ended",
            "(state IN ('succeeded', 'dead', 'cancelled')) = (finished_at IS NOT NULL)",
        ),
        index("idx_jobs_due", "run_at", where="state = 'scheduled' AND after_group IS NULL"),
        index(
            "idx_jobs_after_group",
            "after_group",
            "group_name",
            where="state = 'scheduled' AND after_group IS NOT NULL",
        ),
        index(
            "idx_jobs_ready",
            "queue",
            "priority DESC",
            "run_at",
            "id",
            where="state = 'ready' AND limit_key IS NULL",
        ),
        index(
            "idx_jobs_ready_limited",
            "limit_key",
            "priority DESC",
            "run_at",
            "id",
            where="state = 'ready' AND limit_key IS NOT NULL",
        ),
        index(
            "idx_jobs_limited",
            "limit_key",
            where="limit_key IS NOT NULL AND state IN ('published', 'running')",
        ),
        index("idx_jobs_published", "queue", "published_at", where="state = 'published'"),
        index("idx_jobs_running", "queue", "heartbeat_at", where="state = 'running'"),
        index(
            "idx_jobs_group",
            "group_name",
            where="group_name IS NOT NULL AND state NOT IN ('succeeded', 'cancelled')",
        ),
        index("idx_jobs_finished", "finished_at", where=ENDED),
        index("idx_jobs_foreign", "created_at", "id", where=FOREIGN_ID),
        index("idx_jobs_schedule", "schedule", where=f"schedule IS NOT NULL AND {ACTIVE}"),
        index(
            "uq_jobs_unique_key",
            "name",
            "unique_key",
            where=f"unique_key IS NOT NULL AND {ACTIVE}",
            unique=True,
        ),
        index("idx_jobs_unique_recent", "name", "unique_key", "created_at", where="unique_key IS NOT NULL"),
        SCHEMA,
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    name: Mapped[Key]
    args: Mapped[Object]
    queue: Mapped[Short]
    priority: Mapped[Zero]
    state: Mapped[str] = mapped_column(JobState)
    unique_key: Mapped[Name | None]
    limit_key: Mapped[Name | None] = mapped_column(
        comment="of the jobs with one key, no more run at once than their kind allows"
    )
    group_name: Mapped[Key | None]
    after_group: Mapped[Key | None] = mapped_column(
        comment="waits until every job of that group has succeeded or was cancelled; then it is null"
    )
    run_at: Mapped[Now]
    attempt: Mapped[int] = mapped_column(
        Integer,
        server_default=text("0"),
        comment="starts so far; counted at start, so that a job that kills its worker ends dead",
    )
    max_attempts: Mapped[Whole]
    in_batch: Mapped[No] = mapped_column(comment="was started together with others, in one transaction")
    alone: Mapped[No] = mapped_column(comment="its last batch did not end, so it is started without others")
    schedule: Mapped[Key | None]
    fire_at: Mapped[Instant | None]
    created_at: Mapped[Now]
    published_at: Mapped[Instant | None]
    started_at: Mapped[Instant | None]
    finished_at: Mapped[Instant | None]
    heartbeat_at: Mapped[Instant | None]
    cancel_requested_at: Mapped[Instant | None]
    worker: Mapped[Name | None]
    error: Mapped[Long | None]
    result: Mapped[Json | None]
    progress_done: Mapped[Big | None]
    progress_total: Mapped[Big | None]
    canvas: Mapped[Json | None] = mapped_column(
        comment="what a Celery message said should come after it: chain, chord, callbacks"
    )

"""The schedules, what became of each planned fire, and the processes that are alive."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import (
    PrimaryKeyConstraint,
    String,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from kitaab_jobs.models.base import (
    SCHEMA,
    Base,
    Instant,
    Key,
    Long,
    Name,
    Now,
    Object,
    Short,
    check,
    enum,
    index,
)

ScheduleSource = enum("schedule_source", "file", "live", schema="jobs")
FireOutcome = enum("fire_outcome", "fired", "skipped", "missed", "backfilled", schema="jobs")


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

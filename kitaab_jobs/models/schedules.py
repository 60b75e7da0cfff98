"""The schedules, what became of each planned fire, and the processes that are alive."""

from __future__ import annotations

import datetime as dt
from uuid import UUID

from sqlalchemy import (
    Computed,
    ForeignKey,
    Interval,
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
from kitaab_jobs.models.ledger import JobState

ScheduleSource = enum("schedule_source", "file", "live", schema="jobs")
FireOutcome = enum("fire_outcome", "fired", "skipped", "missed", "backfilled", schema="jobs")
DstRule = enum("dst_rule", "cron", "literal", schema="jobs")
CatchUp = enum("catch_up", "skip", "latest", "all", schema="jobs")
Overlap = enum("overlap", "skip", "queue", "allow", "cancel_running", schema="jobs")


class ScheduleRow(Base):
    """A schedule as it runs: the lines of beat_schedule.py, and what operators added live."""

    __tablename__ = "schedules"
    __table_args__ = (
        check("schedules_args_check", "jsonb_typeof(args) = 'object'"),
        check(
            "schedules_window_check",
            "catch_up_window > interval '0' AND catch_up_window < interval '100 years'",
        ),
        check("schedules_jitter_check", "jitter BETWEEN interval '0' AND interval '24 hours'"),
        check("schedules_ends_after_start", "ends_at >= starts_at"),
        check(
            "schedules_times_check", "isfinite(starts_at) AND isfinite(ends_at) AND isfinite(next_fire_at)"
        ),
        check("schedules_failures_check", "failures >= 0 AND pause_after_failures > 0"),
        index("idx_schedules_next_fire", "next_fire_at"),
        SCHEMA,
    )

    name: Mapped[Key] = mapped_column(primary_key=True)
    job: Mapped[Key]
    args: Mapped[Object]
    line: Mapped[Name]
    zone: Mapped[Short] = mapped_column(server_default=text("'UTC'"))
    note: Mapped[Long] = mapped_column(server_default=text("''"))
    source: Mapped[str] = mapped_column(ScheduleSource)
    next_fire_at: Mapped[Instant | None] = mapped_column(
        comment="null: there is none, since it has ended or cannot be read"
    )
    paused_at: Mapped[Instant | None]
    paused_note: Mapped[Long | None]
    created_at: Mapped[Now]
    updated_at: Mapped[Now]
    dst: Mapped[str] = mapped_column(DstRule, server_default=text("'cron'"))
    catch_up: Mapped[str] = mapped_column(CatchUp, server_default=text("'latest'"))
    catch_up_window: Mapped[dt.timedelta | None] = mapped_column(
        Interval, comment="a fire that is found later than this is missed; null: however late"
    )
    overlap: Mapped[str] = mapped_column(Overlap, server_default=text("'skip'"))
    jitter: Mapped[dt.timedelta] = mapped_column(Interval, server_default=text("'0'"))
    starts_at: Mapped[Instant | None]
    ends_at: Mapped[Instant | None]
    pause_after_failures: Mapped[Whole | None]
    failures: Mapped[Zero] = mapped_column(
        comment="runs that ended dead since the last one that succeeded, or since it was resumed"
    )
    paused_by: Mapped[Key | None]


class Fire(Base):
    """What became of one planned fire. Its key lets any number of beats fire: one writes the row."""

    __tablename__ = "fires"
    __table_args__ = (
        PrimaryKeyConstraint("schedule", "fire_at"),
        check("fires_job_when_fired", "(outcome IN ('fired', 'backfilled')) = (job_id IS NOT NULL)"),
        check("fires_reason_when_not_fired", "outcome IN ('fired', 'backfilled') OR reason IS NOT NULL"),
        check("fires_ended_as_something", "ended_as IS NULL OR ended_at IS NOT NULL"),
        index("idx_fires_recorded_at", "recorded_at"),
        index("idx_fires_open", "schedule", "fire_at", where="job_id IS NOT NULL AND ended_at IS NULL"),
        SCHEMA,
    )

    schedule: Mapped[Key]
    fire_at: Mapped[Instant]
    outcome: Mapped[str] = mapped_column(FireOutcome)
    reason: Mapped[Long | None]
    job_id: Mapped[UUID | None]
    recorded_at: Mapped[Now]
    rule: Mapped[str | None] = mapped_column(
        String(32),
        comment="what decided, where it was not the plan alone: catch_up, window, overlap, paused, ...",
    )
    lateness: Mapped[dt.timedelta] = mapped_column(
        Interval, Computed("recorded_at - fire_at", persisted=True)
    )
    ended_as: Mapped[str | None] = mapped_column(
        JobState, comment="how its run ended; null with ended_at: the row of the run was gone"
    )
    ended_at: Mapped[Instant | None]


class WaitingFire(Base):
    """A planned fire that waits until the run before it is over."""

    __tablename__ = "waiting_fires"
    __table_args__ = (
        PrimaryKeyConstraint("schedule", "fire_at"),
        {
            **SCHEMA,
            "comment": "planned fires that wait until the run before them is over; "
            "then they get their row in jobs.fires",
        },
    )

    schedule: Mapped[Key] = mapped_column(ForeignKey("jobs.schedules.name"))
    fire_at: Mapped[Instant]
    backfill: Mapped[No]
    reason: Mapped[Long | None]
    waits_since: Mapped[Now]


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
    timetable: Mapped[str | None] = mapped_column(
        String(64), comment="which edition of the timetable a beat brings along"
    )


class Timetable(Base):
    """A version of beat_schedule.py, and when a beat read it for the first time."""

    __tablename__ = "timetables"
    __table_args__ = ({**SCHEMA, "comment": "each version of beat_schedule.py that a beat has read"},)

    edition: Mapped[str] = mapped_column(String(64), primary_key=True)
    first_read_at: Mapped[Now]

"""What the jobs keep for themselves: deliveries and notices, marks and history of progress, partitioned tables."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import (
    BigInteger,
    ForeignKey,
    Identity,
    PrimaryKeyConstraint,
    SmallInteger,
    String,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from kitaab_jobs.models.base import (
    SCHEMA,
    Base,
    Big,
    Day,
    Id,
    Instant,
    Long,
    Name,
    No,
    Now,
    Short,
    Zero,
    check,
    enum,
    index,
)

DeliveryState = enum(
    "delivery_state", "pending", "sending", "sent", "failed", "missed", "unknown", "skipped", schema="jobs"
)


class Delivery(Base):
    """One reminder or notice to one person over one channel, and how it ended.

    `missed`: it was found too late; `skipped`: it was not wanted (quiet hours, already recorded); `unknown`: it
    may have been sent. `reason` says why in words.
    """

    __tablename__ = "deliveries"
    __table_args__ = (
        UniqueConstraint("notification_id", "channel", "due_at", name="uq_deliveries_due"),
        UniqueConstraint("notice_id", "channel", name="uq_deliveries_notice"),
        check("deliveries_one_subject", "num_nonnulls(notification_id, notice_id) = 1"),
        check("deliveries_finished_when_ended", "(state IN ('pending', 'sending')) = (finished_at IS NULL)"),
        check(
            "deliveries_reason_when_not_sent",
            "state IN ('pending', 'sending', 'sent') OR reason IS NOT NULL",
        ),
        index(
            "uq_deliveries_day",
            "user_id",
            "due_date",
            "channel",
            "zone",
            where="state IN ('pending', 'sending', 'sent', 'failed', 'unknown') AND notification_id IS NOT NULL",
            unique=True,
        ),
        index("idx_deliveries_open", "created_at", where="state IN ('pending', 'sending')"),
        index("idx_deliveries_user_id", "user_id"),
        SCHEMA,
    )

    delivery_id: Mapped[Id]
    notification_id: Mapped[Big | None] = mapped_column(
        ForeignKey("notifications.notification_id", ondelete="CASCADE")
    )
    # No reference: who deletes a person would wait for the dispatch, and the dispatch for them.
    user_id: Mapped[Big]
    channel: Mapped[str] = mapped_column(String(32))
    due_at: Mapped[Instant]
    due_date: Mapped[Day]
    state: Mapped[str] = mapped_column(DeliveryState, server_default=text("'pending'"))
    reason: Mapped[Long | None]
    created_at: Mapped[Now]
    finished_at: Mapped[Instant | None]
    zone: Mapped[Short] = mapped_column(comment="the zone in which due_date is a date")
    deadline: Mapped[Instant] = mapped_column(comment="it is sent before this instant, or not at all")
    attempt: Mapped[Zero]
    provider_id: Mapped[Name | None]
    started_at: Mapped[Instant | None]
    notice_id: Mapped[Big | None] = mapped_column(ForeignKey("jobs.notices.notice_id", ondelete="CASCADE"))
    claimed_by: Mapped[UUID | None]
    not_before: Mapped[Instant | None] = mapped_column(
        comment="when it is tried again, after a provider has refused it"
    )


class ZoneData(Base):
    """A release of the IANA data with which all planned reminders were resolved."""

    __tablename__ = "zone_data"
    __table_args__ = (
        {
            **SCHEMA,
            "comment": "the releases of the IANA data with which all planned reminders were resolved,"
            " when last, and how many moved then",
        },
    )

    version: Mapped[str] = mapped_column(String(32), primary_key=True)
    resolved_at: Mapped[Instant]
    moved: Mapped[Big]


class ProgressMark(Base):
    """A promise that what it names is computed again. Only added and taken away, never merged."""

    __tablename__ = "progress_marks"
    __table_args__ = (
        PrimaryKeyConstraint("is_background", "progress_mark_id"),  # the order in which they are taken
        check("progress_marks_kind_check", "kind IN ('item', 'merit', 'target')"),
        {**SCHEMA, "comment": "what progress.refresh has yet to compute again"},
    )

    progress_mark_id: Mapped[int] = mapped_column(BigInteger, Identity(always=True))
    kind: Mapped[str] = mapped_column(String(16))
    subject_id: Mapped[Big]
    marked_at: Mapped[Instant] = mapped_column(server_default=func.clock_timestamp())
    since: Mapped[Day | None] = mapped_column(
        comment="the first day of which an entry changed; NULL: any day may have"
    )
    is_background: Mapped[No] = mapped_column(
        comment="nobody waits for it: it is taken when no other mark is there to take"
    )


class MeritHistory(Base):
    """What a merit showed at the end of one local day; a day without a row showed what the day before did."""

    __tablename__ = "merit_history"
    __table_args__ = (
        check("merit_history_percent_in_range", "percent BETWEEN 0 AND 100"),
        index("idx_merit_history_day", "day", using="brin"),
        {**SCHEMA, "comment": "what a merit showed at the end of each local day on which that changed"},
    )

    merit_id: Mapped[Big] = mapped_column(ForeignKey("merits.merit_id", ondelete="CASCADE"), primary_key=True)
    day: Mapped[Day] = mapped_column(primary_key=True)
    percent: Mapped[int] = mapped_column(SmallInteger)
    is_satisfied: Mapped[bool]


class TargetHistory(Base):
    """What a target showed at the end of one local day; a day without a row showed what the day before did."""

    __tablename__ = "target_history"
    __table_args__ = (
        check("target_history_percent_in_range", "percent BETWEEN 0 AND 100"),
        index("idx_target_history_day", "day", using="brin"),
        {**SCHEMA, "comment": "what a target showed at the end of each local day on which that changed"},
    )

    target_id: Mapped[Big] = mapped_column(
        ForeignKey("targets.target_id", ondelete="CASCADE"), primary_key=True
    )
    day: Mapped[Day] = mapped_column(primary_key=True)
    percent: Mapped[int] = mapped_column(SmallInteger)
    is_satisfied: Mapped[bool]


class Notice(Base):
    """Something that a person is told once, and how that ended.

    `user_id` is the goal's, without a foreign key of its own: see the migration.
    """

    __tablename__ = "notices"
    __table_args__ = (
        UniqueConstraint("merit_id", "kind", name="uq_notices_merit"),
        UniqueConstraint("target_id", "kind", name="uq_notices_target"),
        check("notices_kind_check", "kind IN ('merit_completed', 'target_completed')"),
        check("notices_merit_fits_kind", "(kind = 'merit_completed') = (merit_id IS NOT NULL)"),
        check("notices_target_fits_kind", "(kind = 'target_completed') = (target_id IS NOT NULL)"),
        check("notices_finished_when_ended", "(state IN ('pending', 'sending')) = (finished_at IS NULL)"),
        check(
            "notices_reason_when_not_sent", "state IN ('pending', 'sending', 'sent') OR reason IS NOT NULL"
        ),
        index("idx_notices_user_id", "user_id", "created_at"),
        index("idx_notices_open", "created_at", where="state IN ('pending', 'sending')"),
        {**SCHEMA, "comment": "what people are told once: a merit or a target of theirs is complete"},
    )

    notice_id: Mapped[Id]
    user_id: Mapped[Big]
    kind: Mapped[str] = mapped_column(String(32))
    merit_id: Mapped[Big | None] = mapped_column(ForeignKey("merits.merit_id", ondelete="CASCADE"))
    target_id: Mapped[Big | None] = mapped_column(ForeignKey("targets.target_id", ondelete="CASCADE"))
    happened_on: Mapped[Day]
    state: Mapped[str] = mapped_column(DeliveryState, server_default=text("'pending'"))
    reason: Mapped[Long | None]
    created_at: Mapped[Now]
    finished_at: Mapped[Instant | None]


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

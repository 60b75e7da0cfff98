"""Merits and targets: what somebody wants to reach, and how far they are."""

from __future__ import annotations

from sqlalchemy import FetchedValue, ForeignKey, ForeignKeyConstraint, SmallInteger, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from kitaab_jobs.models.base import (
    Amount,
    Base,
    Big,
    Changed,
    Day,
    Id,
    Instant,
    Long,
    Name,
    No,
    SoftDeleted,
    Whole,
    Yes,
    check,
    enum,
    index,
)
from kitaab_jobs.models.deeds import ValueType

GoalLogic = enum("goal_logic_enum", "AND", "OR")
GoalDirection = enum("goal_direction_enum", "at_least", "at_most")


class Merit(Base, Changed, SoftDeleted):
    """A goal within one deed: in any `duration_days` consecutive days since `start_date`, or ever.

    `completed_at` is sticky; `is_satisfied` says whether the goal holds now. What is computed only the jobs may write:
    an INSERT does not name it, not even as NULL (`FetchedValue`).
    """

    __tablename__ = "merits"
    __table_args__ = (
        check("merits_name_check", "name <> ''"),
        check("merits_duration_days_check", "duration_days > 0"),
        check("merits_percent_in_range", "percent BETWEEN 0 AND 100"),
        check("merits_complete_at_100", "(percent = 100) = (completed_at IS NOT NULL)"),
        check("merits_completed_pair", "(completed_at IS NULL) = (completed_on IS NULL)"),
        ForeignKeyConstraint(
            ["deed_id", "user_id"],
            ["deeds.deed_id", "deeds.user_id"],
            name="merits_deed_is_persons",
            ondelete="CASCADE",
        ),
        UniqueConstraint("merit_id", "deed_id", name="uq_merits_id_deed"),
        index("idx_merits_user_id", "user_id"),
        index("idx_merits_deed_id", "deed_id", "user_id"),
        index(
            "idx_merits_open",
            "user_id",
            where="is_active AND completed_at IS NULL AND deleted_at IS NULL",
        ),
    )

    merit_id: Mapped[Id]
    user_id: Mapped[Big] = mapped_column(ForeignKey("users.user_id", ondelete="CASCADE"))
    deed_id: Mapped[Big]
    name: Mapped[Name]
    description: Mapped[Long | None]
    merit_type: Mapped[str] = mapped_column(GoalLogic, server_default=text("'AND'"))
    start_date: Mapped[Day]
    duration_days: Mapped[Whole | None]
    is_active: Mapped[Yes]
    percent: Mapped[int] = mapped_column(SmallInteger, server_default=text("0"))
    is_satisfied: Mapped[No]
    completed_on: Mapped[Day | None] = mapped_column(server_default=FetchedValue())
    completed_at: Mapped[Instant | None] = mapped_column(server_default=FetchedValue())
    as_of: Mapped[Day | None] = mapped_column(sort_order=100, server_default=FetchedValue())


class MeritItem(Base, Changed):
    """One part of a merit: a sum of counts, or a number of entries with a scale value."""

    __tablename__ = "merit_items"
    __table_args__ = (
        ForeignKeyConstraint(
            ["merit_id", "deed_id"],
            ["merits.merit_id", "merits.deed_id"],
            name="merit_items_merit",
            ondelete="CASCADE",
        ),
        ForeignKeyConstraint(
            ["deed_item_id", "deed_id"],
            ["deed_items.deed_item_id", "deed_items.deed_id"],
            name="merit_items_item_of_merits_deed",
        ),
        ForeignKeyConstraint(
            ["deed_item_id", "item_type"],
            ["deed_items.deed_item_id", "deed_items.value_type"],
            name="merit_items_type_is_items",
        ),
        check("merit_items_value_fits_type", "(item_type = 'scale') = (scale_value_id IS NOT NULL)"),
        check(
            "merit_items_target_is_positive",
            "target_value <> 'NaN' AND (target_value > 0 OR (target_value = 0 AND direction = 'at_most'))",
        ),
        index("idx_merit_items_merit_id", "merit_id", "deed_id"),
        index("idx_merit_items_deed_id", "deed_id"),
        index("idx_merit_items_deed_item_id", "deed_item_id", "deed_id"),
        index("idx_merit_items_scale_value_id", "scale_value_id", where="scale_value_id IS NOT NULL"),
    )

    merit_item_id: Mapped[Id]
    merit_id: Mapped[Big]
    deed_id: Mapped[Big] = mapped_column(ForeignKey("deeds.deed_id", ondelete="CASCADE"))
    deed_item_id: Mapped[Big]
    item_type: Mapped[str] = mapped_column(ValueType)
    scale_value_id: Mapped[Big | None] = mapped_column(ForeignKey("scale_values.scale_value_id"))
    target_value: Mapped[Amount]
    direction: Mapped[str] = mapped_column(GoalDirection, server_default=text("'at_least'"), sort_order=100)


class Target(Base, Changed, SoftDeleted):
    """A goal over several deeds, between two dates, both included."""

    __tablename__ = "targets"
    __table_args__ = (
        check("targets_name_check", "name <> ''"),
        check("targets_end_not_before_start", "end_date >= start_date"),
        check("targets_percent_in_range", "percent BETWEEN 0 AND 100"),
        check("targets_complete_at_100", "(percent = 100) = (completed_at IS NOT NULL)"),
        check("targets_completed_pair", "(completed_at IS NULL) = (completed_on IS NULL)"),
        index("idx_targets_user_id", "user_id"),
        index(
            "idx_targets_open",
            "user_id",
            "end_date",
            where="is_active AND frozen_at IS NULL AND deleted_at IS NULL",
        ),
        index(
            "idx_targets_live_end",
            "end_date",
            where="is_active AND frozen_at IS NULL AND deleted_at IS NULL",
        ),
    )

    target_id: Mapped[Id]
    user_id: Mapped[Big] = mapped_column(ForeignKey("users.user_id", ondelete="CASCADE"))
    name: Mapped[Name]
    description: Mapped[Long | None]
    target_type: Mapped[str] = mapped_column(GoalLogic, server_default=text("'AND'"))
    start_date: Mapped[Day]
    end_date: Mapped[Day]
    is_active: Mapped[Yes]
    percent: Mapped[int] = mapped_column(SmallInteger, server_default=text("0"))
    is_satisfied: Mapped[No]
    completed_on: Mapped[Day | None] = mapped_column(server_default=FetchedValue())
    completed_at: Mapped[Instant | None] = mapped_column(server_default=FetchedValue())
    as_of: Mapped[Day | None] = mapped_column(sort_order=100, server_default=FetchedValue())
    frozen_at: Mapped[Instant | None] = mapped_column(server_default=FetchedValue())


class TargetItem(Base, Changed):
    """One part of a target, of any of the person's deeds."""

    __tablename__ = "target_items"
    __table_args__ = (
        ForeignKeyConstraint(
            ["deed_item_id", "item_type"],
            ["deed_items.deed_item_id", "deed_items.value_type"],
            name="target_items_type_is_items",
        ),
        check("target_items_value_fits_type", "(item_type = 'scale') = (scale_value_id IS NOT NULL)"),
        check(
            "target_items_target_is_positive",
            "target_value <> 'NaN' AND (target_value > 0 OR (target_value = 0 AND direction = 'at_most'))",
        ),
        index("idx_target_items_target_id", "target_id"),
        index("idx_target_items_deed_item_id", "deed_item_id", "item_type"),
        index("idx_target_items_scale_value_id", "scale_value_id", where="scale_value_id IS NOT NULL"),
    )

    target_item_id: Mapped[Id]
    target_id: Mapped[Big] = mapped_column(ForeignKey("targets.target_id", ondelete="CASCADE"))
    deed_item_id: Mapped[Big]
    item_type: Mapped[str] = mapped_column(ValueType)
    scale_value_id: Mapped[Big | None] = mapped_column(ForeignKey("scale_values.scale_value_id"))
    target_value: Mapped[Amount]
    direction: Mapped[str] = mapped_column(GoalDirection, server_default=text("'at_least'"), sort_order=100)

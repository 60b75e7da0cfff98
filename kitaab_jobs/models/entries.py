"""Entries, partitioned by day, and the history of every change to them."""

from __future__ import annotations

from sqlalchemy import BigInteger, ForeignKey, Identity, PrimaryKeyConstraint, String, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from kitaab_jobs.models.base import (
    Amount,
    Base,
    Big,
    Changed,
    Day,
    Json,
    Long,
    Now,
    check,
    enum,
    index,
)

HistoryOperation = enum("history_operation_enum", "insert", "update", "delete")


class Entry(Base, Changed):
    """What somebody recorded for an item on a day of theirs: a count, or a value of a scale.

    `created_by_user_id` is another person where one with write permission recorded it.
    """

    __tablename__ = "entries"
    __table_args__ = (
        PrimaryKeyConstraint("entry_id", "entry_date"),
        UniqueConstraint(
            "user_id",
            "deed_item_id",
            "entry_date",
            name="unique_user_deed_item_date",
            postgresql_include=["count_value", "scale_value_id"],
        ),
        check("entry_has_value", "scale_value_id IS NOT NULL OR count_value IS NOT NULL"),
        check("entries_count_value_is_a_count", "count_value >= 0 AND count_value <> 'NaN'"),
        check("entries_scale_of_value", "scale_id IS NULL OR scale_value_id IS NOT NULL"),
        index("idx_entries_user_id", "user_id"),
        index("idx_entries_deed_item_id", "deed_item_id"),
        index("idx_entries_user_date", "user_id", "entry_date DESC"),
        index("idx_entries_scale_id", "scale_id", where="scale_id IS NOT NULL"),
        index("idx_entries_scale_value_id", "scale_value_id", where="scale_value_id IS NOT NULL"),
        index("idx_entries_created_by", "created_by_user_id", where="created_by_user_id IS NOT NULL"),
        index("idx_entries_date_range", "entry_date"),
        index(
            "idx_entries_notes_gin", "to_tsvector('english', notes)", where="notes IS NOT NULL", using="gin"
        ),
        {"postgresql_partition_by": "RANGE (entry_date)"},
    )

    entry_id: Mapped[int] = mapped_column(BigInteger, Identity())
    entry_date: Mapped[Day]
    user_id: Mapped[Big] = mapped_column(ForeignKey("users.user_id", ondelete="CASCADE"))
    deed_item_id: Mapped[Big] = mapped_column(ForeignKey("deed_items.deed_item_id"))
    created_by_user_id: Mapped[Big | None] = mapped_column(ForeignKey("users.user_id", ondelete="SET NULL"))
    scale_id: Mapped[Big | None] = mapped_column(ForeignKey("scales.scale_id", ondelete="SET NULL"))
    scale_value_id: Mapped[Big | None] = mapped_column(ForeignKey("scale_values.scale_value_id"))
    count_value: Mapped[Amount | None]
    notes: Mapped[Long | None]


class EntryHistory(Base):
    """One change of one entry, written by trigger and never changed; it outlives the entry."""

    __tablename__ = "entry_history"
    __table_args__ = (
        PrimaryKeyConstraint("entry_history_id", "changed_at"),
        check(
            "entry_history_values_fit_operation",
            "(operation = 'insert') = (old_values IS NULL) AND (operation = 'delete') = (new_values IS NULL)",
        ),
        index("idx_entry_history_entry_id", "entry_id", "changed_at"),
        index("idx_entry_history_user_id", "user_id", "changed_at"),
        {"postgresql_partition_by": "RANGE (changed_at)"},
    )

    entry_history_id: Mapped[int] = mapped_column(BigInteger, Identity())
    changed_at: Mapped[Now]
    entry_id: Mapped[Big]
    entry_date: Mapped[Day]
    user_id: Mapped[Big]
    operation: Mapped[str] = mapped_column(HistoryOperation)
    old_values: Mapped[Json | None]
    new_values: Mapped[Json | None]
    changed_by_user_id: Mapped[Big | None]
    changed_by_role: Mapped[str] = mapped_column(String(63), server_default=text("SESSION_USER"))

"""Reflections of a day, messages with support, and the times of reminders."""

from __future__ import annotations

import datetime as dt
from typing import Any

from sqlalchemy import (
    ARRAY,
    ForeignKey,
    ForeignKeyConstraint,
    SmallInteger,
    String,
    Time,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from kitaab_jobs.models.base import (
    Base,
    Big,
    Changed,
    Day,
    Id,
    Instant,
    Long,
    Name,
    No,
    Short,
    SoftDeleted,
    Yes,
    check,
    enum,
    index,
)

ReflectionType = enum("reflection_type_enum", "hasanaat", "saiyyiaat")
MessageSender = enum("message_sender_enum", "user", "support")


class ReflectionMessage(Base, Changed, SoftDeleted):
    """What somebody wrote about a day; one of each type for a day."""

    __tablename__ = "reflection_messages"
    __table_args__ = (
        check("reflection_messages_content_check", "content <> ''"),
        index(
            "uq_reflection_messages_day",
            "user_id",
            "reflection_date",
            "type",
            where="deleted_at IS NULL",
            unique=True,
        ),
        index("idx_reflection_messages_user_id", "user_id"),
    )

    reflection_message_id: Mapped[Id]
    user_id: Mapped[Big] = mapped_column(ForeignKey("users.user_id", ondelete="CASCADE"))
    reflection_date: Mapped[Day]
    type: Mapped[str] = mapped_column(ReflectionType)
    content: Mapped[Long]


class Message(Base, Changed, SoftDeleted):
    """A message between a person and support."""

    __tablename__ = "messages"
    __table_args__ = (
        check("messages_content_check", "content <> ''"),
        check("messages_not_its_own_parent", "parent_message_id <> message_id"),
        UniqueConstraint("message_id", "user_id", name="uq_messages_id_user"),
        ForeignKeyConstraint(
            ["parent_message_id", "user_id"],
            ["messages.message_id", "messages.user_id"],
            name="messages_parent_is_persons",
            ondelete="CASCADE",
        ),
        index("idx_messages_user_id", "user_id", "created_at"),
        index("idx_messages_parent", "parent_message_id", "user_id"),
        index("idx_messages_content_gin", "to_tsvector('english', content)", using="gin"),
    )

    message_id: Mapped[Id]
    user_id: Mapped[Big] = mapped_column(ForeignKey("users.user_id", ondelete="CASCADE"))
    parent_message_id: Mapped[Big | None]
    sender: Mapped[str] = mapped_column(MessageSender)
    subject: Mapped[Name | None]
    content: Mapped[Long]
    read_at: Mapped[Instant | None]


class Notification(Base, Changed):
    """A reminder at a local time in a zone, every day or on some days of the week.

    `next_due_at` is the instant of the next one and `next_due_date` its nominal local date; NULL
    means that they are to be computed, and `before_edit` then says what was planned before. `last_due_*`
    are those of the last one that was handed to delivery.
    """

    __tablename__ = "notifications"
    __table_args__ = (
        check("notifications_timezone_check", "timezone <> ''"),
        check(
            "notifications_time_to_the_minute",
            "date_trunc('minute', notification_time) = notification_time",
        ),
        check("notifications_weekdays", "weekdays <@ '{1,2,3,4,5,6,7}' AND weekdays <> '{}'"),
        check(
            "notifications_quiet_hours",
            "(quiet_from IS NULL) = (quiet_until IS NULL) AND quiet_from <> quiet_until",
        ),
        check(
            "notifications_channels",
            "cardinality(channels) BETWEEN 1 AND 8 AND array_position(channels, NULL) IS NULL",
        ),
        check("notifications_due_pair", "(next_due_at IS NULL) = (next_due_date IS NULL)"),
        check("notifications_last_due_pair", "(last_due_at IS NULL) = (last_due_date IS NULL)"),
        index("uq_notifications_one_active", "user_id", where="is_active", unique=True),
        index("idx_notifications_time", "next_due_at", where="is_active"),
        index("idx_notifications_unresolved", "notification_id", where="is_active AND next_due_at IS NULL"),
        index("idx_notifications_user_id", "user_id"),
    )

    notification_id: Mapped[Id]
    user_id: Mapped[Big] = mapped_column(ForeignKey("users.user_id", ondelete="CASCADE"))
    notification_time: Mapped[dt.time] = mapped_column(Time)
    timezone: Mapped[Short]
    is_active: Mapped[Yes]
    next_due_at: Mapped[Instant | None]
    next_due_date: Mapped[Day | None]
    last_due_at: Mapped[Instant | None]
    last_due_date: Mapped[Day | None]
    weekdays: Mapped[list[int] | None] = mapped_column(
        ARRAY(SmallInteger),
        comment="days of the week, 1 (Monday) to 7 (Sunday); NULL is every day",
        sort_order=93,
    )
    quiet_from: Mapped[dt.time | None] = mapped_column(
        Time,
        comment="local time from which nothing is sent, until quiet_until; may span midnight",
        sort_order=94,
    )
    quiet_until: Mapped[dt.time | None] = mapped_column(Time, sort_order=95)
    channels: Mapped[list[str]] = mapped_column(
        ARRAY(String(32)), server_default=text("'{email}'"), sort_order=96
    )
    skip_if_recorded: Mapped[No] = mapped_column(
        comment="not on a date for which the person has recorded an entry already", sort_order=97
    )
    before_edit: Mapped[dict[str, Any] | None] = mapped_column(
        JSONB,
        comment="what was planned before edits that the dispatcher has not resolved yet:"
        " at, date, time, zone, weekdays, edited_at",
        sort_order=98,
    )

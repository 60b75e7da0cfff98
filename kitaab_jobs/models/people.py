"""People: who they are, when they are (their zone), and what they prefer."""

from __future__ import annotations

from sqlalchemy import String, text
from sqlalchemy.orm import Mapped, mapped_column

from kitaab_jobs.models.base import (
    Base,
    Changed,
    Id,
    Instant,
    Name,
    No,
    Object,
    Short,
    SoftDeleted,
    Yes,
    check,
    index,
)


class User(Base, Changed, SoftDeleted):
    """A person. `timezone` is an IANA name; their day is a date in it."""

    __tablename__ = "users"
    __table_args__ = (
        check("users_email_has_at", "position('@' IN email) > 1"),
        check("users_timezone_not_empty", "timezone <> ''"),
        check("users_preferences_is_object", "jsonb_typeof(preferences) = 'object'"),
        index("uq_users_email", "lower(email)", where="deleted_at IS NULL", unique=True),
        index("idx_users_active", "is_active", where="deleted_at IS NULL"),
    )

    user_id: Mapped[Id]
    email: Mapped[Name]
    password_hash: Mapped[Name]
    full_name: Mapped[Name]
    timezone: Mapped[Short] = mapped_column(server_default=text("'UTC'"))
    language: Mapped[str] = mapped_column(String(16), server_default=text("'en'"))
    preferences: Mapped[Object]
    email_verified: Mapped[No]
    is_active: Mapped[Yes]
    last_login_at: Mapped[Instant | None]

"""The audit log: who changed what, written by triggers and never changed."""

from __future__ import annotations

from sqlalchemy import BigInteger, Identity, PrimaryKeyConstraint, String, text
from sqlalchemy.dialects.postgresql import INET
from sqlalchemy.orm import Mapped, mapped_column

from kitaab_jobs.models.base import Base, Big, Json, Now, Short, index


class AuditLog(Base):
    """One critical operation. `user_id` is who did it; NULL is the platform, or an operator."""

    __tablename__ = "audit_log"
    __table_args__ = (
        PrimaryKeyConstraint("audit_log_id", "created_at"),
        index("idx_audit_log_user_id", "user_id", "created_at"),
        index("idx_audit_log_record", "table_name", "record_id", "created_at"),
        {"postgresql_partition_by": "RANGE (created_at)"},
    )

    audit_log_id: Mapped[int] = mapped_column(BigInteger, Identity())
    created_at: Mapped[Now]
    user_id: Mapped[Big | None] = mapped_column(
        comment="who did it (app.user_id), NULL for the platform and for operators"
    )
    action_type: Mapped[Short]
    table_name: Mapped[str] = mapped_column(String(63))
    record_id: Mapped[Big | None]
    ip_address: Mapped[str | None] = mapped_column(INET)
    old_values: Mapped[Json | None]
    new_values: Mapped[Json | None]
    db_role: Mapped[str] = mapped_column(String(63), server_default=text("SESSION_USER"))

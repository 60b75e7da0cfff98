"""Relations between people, and the permissions that they give on items."""

from __future__ import annotations

from sqlalchemy import ForeignKey, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from kitaab_jobs.models.base import (
    Base,
    Big,
    Changed,
    Id,
    Instant,
    SoftDeleted,
    Whole,
    Yes,
    check,
    enum,
    index,
)

RelationStatus = enum("relation_status_enum", "pending", "accepted", "rejected", "blocked")
PermissionType = enum("permission_type_enum", "read", "write")


class Relation(Base, Changed, SoftDeleted):
    """The requester asks to see something of the requestee's."""

    __tablename__ = "relations"
    __table_args__ = (
        check("relations_not_with_oneself", "requester_id <> requestee_id"),
        index("uq_relations_pair", "requester_id", "requestee_id", where="deleted_at IS NULL", unique=True),
        index("idx_relations_accepted", "requester_id", "requestee_id", where="status = 'accepted'"),
        index("idx_relations_requester_id", "requester_id"),
        index("idx_relations_requestee_id", "requestee_id"),
    )

    relation_id: Mapped[Id]
    requester_id: Mapped[Big] = mapped_column(ForeignKey("users.user_id", ondelete="CASCADE"))
    requestee_id: Mapped[Big] = mapped_column(ForeignKey("users.user_id", ondelete="CASCADE"))
    status: Mapped[str] = mapped_column(RelationStatus, server_default=text("'pending'"))
    accepted_at: Mapped[Instant | None]


class Permission(Base, Changed):
    """What the requester of a relation may do with an item of the requestee's; write includes read.

    A change is a new version; the old one is revoked and kept.
    """

    __tablename__ = "permissions"
    __table_args__ = (
        check("permissions_version_check", "version > 0"),
        check("permissions_active_until_revoked", "is_active = (revoked_at IS NULL)"),
        UniqueConstraint("relation_id", "deed_item_id", "version", name="uq_permissions_version"),
        index("uq_permissions_active", "relation_id", "deed_item_id", where="is_active", unique=True),
        index("idx_permissions_relation_deed", "relation_id", "deed_item_id", "is_active"),
        index("idx_permissions_deed_item_id", "deed_item_id"),
    )

    permission_id: Mapped[Id]
    relation_id: Mapped[Big] = mapped_column(ForeignKey("relations.relation_id", ondelete="CASCADE"))
    deed_item_id: Mapped[Big] = mapped_column(ForeignKey("deed_items.deed_item_id", ondelete="CASCADE"))
    permission_type: Mapped[str] = mapped_column(PermissionType)
    version: Mapped[Whole] = mapped_column(server_default=text("1"))
    is_active: Mapped[Yes]
    revoked_at: Mapped[Instant | None]

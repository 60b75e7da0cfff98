"""Deeds, their trees of items, and the scales that measure them."""

from __future__ import annotations

from sqlalchemy import ForeignKey, ForeignKeyConstraint, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from kitaab_jobs.models.base import (
    Base,
    Big,
    Changed,
    Id,
    Long,
    Name,
    SoftDeleted,
    Whole,
    Yes,
    Zero,
    check,
    enum,
    index,
)

CategoryType = enum("deed_category_type", "hasanaat", "saiyyiaat")
ValueType = enum("value_type_enum", "count", "scale")


class Deed(Base, Changed, SoftDeleted):
    """A deed that somebody does (hasanaat) or wants to improve (saiyyiaat)."""

    __tablename__ = "deeds"
    __table_args__ = (
        check("deeds_name_check", "name <> ''"),
        UniqueConstraint("deed_id", "user_id", name="uq_deeds_id_user"),
        index("uq_deeds_user_name", "user_id", "name", where="deleted_at IS NULL", unique=True),
        index("idx_deeds_user_id", "user_id", where="deleted_at IS NULL"),
        index("idx_deeds_active", "is_active", "user_id", where="deleted_at IS NULL"),
        index("idx_deeds_user_fk", "user_id"),
    )

    deed_id: Mapped[Id]
    user_id: Mapped[Big] = mapped_column(ForeignKey("users.user_id", ondelete="CASCADE"))
    category_type: Mapped[str] = mapped_column(CategoryType)
    name: Mapped[Name]
    description: Mapped[Long | None]
    display_order: Mapped[Zero]
    is_active: Mapped[Yes]


class DeedItem(Base, Changed, SoftDeleted):
    """A node in a deed's tree. `level` is the parent's plus one; roots are level 1."""

    __tablename__ = "deed_items"
    __table_args__ = (
        check("deed_items_name_check", "name <> ''"),
        check(
            "deed_items_level_fits_parent",
            "(parent_deed_item_id IS NULL AND level = 1) OR (parent_deed_item_id IS NOT NULL AND level > 1)",
        ),
        check("deed_items_not_its_own_parent", "parent_deed_item_id <> deed_item_id"),
        UniqueConstraint("deed_item_id", "deed_id", name="uq_deed_items_id_deed"),
        UniqueConstraint("deed_item_id", "value_type", name="uq_deed_items_id_type"),
        ForeignKeyConstraint(
            ["parent_deed_item_id", "deed_id"],
            ["deed_items.deed_item_id", "deed_items.deed_id"],
            name="deed_items_parent_in_same_deed",
        ),
        index(
            "uq_deed_items_sibling_name",
            "deed_id",
            "coalesce(parent_deed_item_id, 0)",
            "name",
            where="deleted_at IS NULL",
            unique=True,
        ),
        index("idx_deed_items_deed_id", "deed_id", where="deleted_at IS NULL"),
        index("idx_deed_items_level", "deed_id", "level", "display_order", where="deleted_at IS NULL"),
        index("idx_deed_items_parent", "parent_deed_item_id", "deed_id"),
        index("idx_deed_items_deed_fk", "deed_id"),
    )

    deed_item_id: Mapped[Id]
    deed_id: Mapped[Big] = mapped_column(ForeignKey("deeds.deed_id", ondelete="CASCADE"))
    parent_deed_item_id: Mapped[Big | None]
    level: Mapped[Whole]
    name: Mapped[Name]
    description: Mapped[Long | None]
    value_type: Mapped[str] = mapped_column(ValueType)
    display_order: Mapped[Zero]
    is_active: Mapped[Yes]


class Scale(Base, Changed, SoftDeleted):
    """A version of a named scale of a deed."""

    __tablename__ = "scales"
    __table_args__ = (
        check("scales_name_check", "name <> ''"),
        check("scales_version_check", "version > 0"),
        UniqueConstraint("deed_id", "name", "version", name="uq_scales_deed_name_version"),
        index("idx_scales_deed_id", "deed_id", where="deleted_at IS NULL"),
    )

    scale_id: Mapped[Id]
    deed_id: Mapped[Big] = mapped_column(ForeignKey("deeds.deed_id", ondelete="CASCADE"))
    name: Mapped[Name]
    version: Mapped[Whole] = mapped_column(server_default=text("1"))
    is_active: Mapped[Yes]


class ScaleValue(Base, Changed):
    """One of the values that a scale offers."""

    __tablename__ = "scale_values"
    __table_args__ = (
        check("scale_values_value_name_check", "value_name <> ''"),
        UniqueConstraint("scale_id", "value_name", name="uq_scale_values_scale_name"),
        index("idx_scale_values_order", "scale_id", "value_order"),
    )

    scale_value_id: Mapped[Id]
    scale_id: Mapped[Big] = mapped_column(ForeignKey("scales.scale_id", ondelete="CASCADE"))
    value_name: Mapped[Name]
    value_order: Mapped[Zero]
    is_active: Mapped[Yes]

"""What all tables share: the metadata, the types of columns, and the recurring columns."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Annotated, Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Date,
    DateTime,
    Enum,
    Identity,
    Index,
    Integer,
    MetaData,
    Numeric,
    String,
    Text,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

# The names that PostgreSQL itself gives, so that migrations may leave them to it.
NAMES = {
    "pk": "%(table_name)s_pkey",
    "fk": "%(table_name)s_%(column_0_name)s_fkey",
    "uq": "%(table_name)s_%(column_0_name)s_key",
}

Id = Annotated[int, mapped_column(BigInteger, Identity(), primary_key=True)]
Big = Annotated[int, mapped_column(BigInteger)]
Whole = Annotated[int, mapped_column(Integer)]
Name = Annotated[str, mapped_column(String(255))]
Short = Annotated[str, mapped_column(String(64))]
Key = Annotated[str, mapped_column(String(128))]
Long = Annotated[str, mapped_column(Text)]
Day = Annotated[dt.date, mapped_column(Date)]
Instant = Annotated[dt.datetime, mapped_column(DateTime(timezone=True))]
Now = Annotated[dt.datetime, mapped_column(DateTime(timezone=True), server_default=func.now())]
Amount = Annotated[Decimal, mapped_column(Numeric(10, 2))]
Yes = Annotated[bool, mapped_column(Boolean, server_default=text("true"))]
No = Annotated[bool, mapped_column(Boolean, server_default=text("false"))]
Zero = Annotated[int, mapped_column(Integer, server_default=text("0"))]
Object = Annotated[dict[str, Any], mapped_column(JSONB, server_default=text("'{}'"))]
Json = Annotated[dict[str, Any], mapped_column(JSONB)]


# Where the platform's own tables are.
SCHEMA = {"schema": "jobs"}


class Base(DeclarativeBase):
    """The shared schema. The migrations make it; these classes say the same for Python."""

    metadata = MetaData(naming_convention=NAMES)


class Changed:
    """When a row was made and last changed by a person; a trigger keeps `updated_at`."""

    created_at: Mapped[Now] = mapped_column(sort_order=90)
    updated_at: Mapped[Now] = mapped_column(sort_order=91)


class SoftDeleted:
    """A row that is deleted for its readers and kept for recovery: `deleted_at` is set."""

    deleted_at: Mapped[Instant | None] = mapped_column(sort_order=92)


def enum(name: str, *values: str, schema: str | None = None) -> Enum:
    """Return PostgreSQL's enum type `name`."""
    return Enum(*values, name=name, schema=schema)


def check(name: str, condition: str) -> CheckConstraint:
    """Return a named CHECK."""
    return CheckConstraint(condition, name=name)


def index(
    name: str, *columns: str, where: str | None = None, unique: bool = False, using: str | None = None
) -> Index:
    """Return an index; `columns` are names or SQL expressions, `where` makes it partial."""
    parts = [c if c.isidentifier() else text(c) for c in columns]
    options: dict[str, Any] = {"postgresql_using": using} if using else {}
    if where:
        options["postgresql_where"] = text(where)
    return Index(name, *parts, unique=unique, **options)

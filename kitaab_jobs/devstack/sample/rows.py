"""Rows as COPY reads them, how each table's columns are ordered in them, and their keys."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

NULL = "\\N"

# In the order in which foreign keys allow them to be loaded. What is not here has its default.
COLUMNS: dict[str, tuple[str, ...]] = {
    "users": (
        *("user_id", "email", "password_hash", "full_name", "timezone", "language", "preferences"),
        *("email_verified", "is_active", "last_login_at", "created_at", "updated_at", "deleted_at"),
    ),
    "deeds": (
        *("deed_id", "user_id", "category_type", "name", "description", "display_order", "is_active"),
        *("created_at", "updated_at", "deleted_at"),
    ),
    "deed_items": (
        *("deed_item_id", "deed_id", "parent_deed_item_id", "level", "name", "value_type", "display_order"),
        *("is_active", "created_at", "updated_at", "deleted_at"),
    ),
    "scales": ("scale_id", "deed_id", "name", "version", "is_active", "created_at", "updated_at"),
    "scale_values": (
        *("scale_value_id", "scale_id", "value_name", "value_order", "is_active", "created_at", "updated_at"),
    ),
    "relations": (
        *("relation_id", "requester_id", "requestee_id", "status", "accepted_at"),
        *("created_at", "updated_at", "deleted_at"),
    ),
    "permissions": (
        *("permission_id", "relation_id", "deed_item_id", "permission_type", "version", "is_active"),
        *("revoked_at", "created_at", "updated_at"),
    ),
    "reflection_messages": (
        *(
            "reflection_message_id",
            "user_id",
            "reflection_date",
            "type",
            "content",
            "created_at",
            "updated_at",
        ),
    ),
    "messages": (
        *("message_id", "user_id", "parent_message_id", "sender", "subject", "content", "read_at"),
        *("created_at", "updated_at"),
    ),
    "notifications": (
        *(
            "notification_id",
            "user_id",
            "notification_time",
            "timezone",
            "is_active",
            "created_at",
            "updated_at",
        ),
    ),
    "merits": (
        *(
            "merit_id",
            "user_id",
            "deed_id",
            "name",
            "description",
            "merit_type",
            "start_date",
            "duration_days",
        ),
        *("is_active", "created_at", "updated_at"),
    ),
    "merit_items": (
        *("merit_item_id", "merit_id", "deed_id", "deed_item_id", "item_type", "scale_value_id"),
        *("target_value", "created_at", "updated_at"),
    ),
    "targets": (
        *("target_id", "user_id", "name", "target_type", "start_date", "end_date", "is_active"),
        *("created_at", "updated_at"),
    ),
    "target_items": (
        *("target_item_id", "target_id", "deed_item_id", "item_type", "scale_value_id", "target_value"),
        *("created_at", "updated_at"),
    ),
    "entries": (
        *("entry_id", "entry_date", "user_id", "deed_item_id", "created_by_user_id"),
        *("scale_id", "scale_value_id", "count_value", "notes", "created_at", "updated_at"),
    ),
}

_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


def line(values: Iterable[object]) -> str:
    """Return one row in COPY's text format; None is NULL."""
    return "\t".join(_text(value) for value in values) + "\n"


def _text(value: object) -> str:
    if value is None:
        return NULL
    return str(value).translate(_ESCAPES) if isinstance(value, str) else str(value)


class Keys:
    """The keys of new rows: from `first` of each table on."""

    def __init__(self, first: dict[str, int]) -> None:
        self.first = dict(first)
        self._next = dict(first)

    def take(self, table: str, number: int = 1) -> int:
        """Take `number` keys of `table` and return the first of them."""
        key = self._next[table]
        self._next[table] += number
        return key

    def last(self, table: str) -> int | None:
        """Return the last key that was taken, or None."""
        return self._next[table] - 1 if self._next[table] > self.first[table] else None


class Tables:
    """Rows of the small tables as text. Several may share `keys`."""

    def __init__(self, keys: Keys) -> None:
        self.keys = keys
        self.lines: dict[str, list[str]] = defaultdict(list)

    def add(self, table: str, *values: object, key: int | None = None) -> int:
        """Add a row of `values` in the order of COLUMNS, after its key, which is returned."""
        taken = self.keys.take(table) if key is None else key
        self.lines[table].append(line((taken, *values)))
        return taken

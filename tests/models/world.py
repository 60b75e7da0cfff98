"""People with deeds, items, scales and entries, made in a few words and by plain SQL."""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Connection, Row, bindparam, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import DBAPIError

TODAY = dt.datetime.now(dt.UTC).date()
DAY = dt.timedelta(days=1)

_numbers = itertools.count(1)


def insert(connection: Connection, table: str, **values: Any) -> int:
    """Insert a row and return its first column, the key."""
    columns = ", ".join(values)
    wanted = ", ".join(f":{name}" for name in values)
    statement = text(f"INSERT INTO {table} ({columns}) VALUES ({wanted}) RETURNING *")
    json = [name for name, value in values.items() if isinstance(value, dict)]
    row = connection.execute(statement.bindparams(*(bindparam(n, type_=JSONB) for n in json)), values).one()
    key: int = row[0]
    return key


class World:
    """What a test needs of the schema, over one connection."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def run(self, sql: str, **values: Any) -> int:
        """Run a statement and return how many rows it touched."""
        return self.connection.execute(text(sql), values).rowcount

    def one(self, sql: str, **values: Any) -> Any:
        """Return the first column of the only row."""
        return self.connection.execute(text(sql), values).scalar_one()

    def row(self, sql: str, **values: Any) -> Row[Any]:
        """Return the only row."""
        return self.connection.execute(text(sql), values).one()

    def all(self, sql: str, **values: Any) -> list[Any]:
        """Return the first column of all rows."""
        return list(self.connection.execute(text(sql), values).scalars())

    def rows(self, sql: str, **values: Any) -> list[tuple[Any, ...]]:
        """Return all rows."""
        return [tuple(row) for row in self.connection.execute(text(sql), values)]

    def person(self, **values: Any) -> int:
        number = next(_numbers)
        given = {
            "email": f"person-{number}@example.org",
            "password_hash": f"hash-{number}",
            "full_name": f"Person {number}",
        }
        return insert(self.connection, "users", **given | values)

    def deed(self, user: int, **values: Any) -> int:
        given = {"user_id": user, "category_type": "hasanaat", "name": f"deed {next(_numbers)}"}
        return insert(self.connection, "deeds", **given | values)

    def item(self, deed: int, parent: int | None = None, type: str = "count", **values: Any) -> int:
        given = {
            "deed_id": deed,
            "parent_deed_item_id": parent,
            "name": f"item {next(_numbers)}",
            "value_type": type,
        }
        return insert(self.connection, "deed_items", **given | values)

    def scale(self, deed: int, **values: Any) -> int:
        given = {"deed_id": deed, "name": f"scale {next(_numbers)}"}
        return insert(self.connection, "scales", **given | values)

    def value(self, scale: int, **values: Any) -> int:
        given = {"scale_id": scale, "value_name": f"value {next(_numbers)}"}
        return insert(self.connection, "scale_values", **given | values)

    def entry(self, user: int, item: int, day: dt.date = TODAY, count: Any = 1, **values: Any) -> int:
        given = {"user_id": user, "deed_item_id": item, "entry_date": day, "count_value": count}
        return insert(self.connection, "entries", **given | values)

    def merit(self, user: int, deed: int, **values: Any) -> int:
        given = {"user_id": user, "deed_id": deed, "name": "a merit", "start_date": TODAY}
        return insert(self.connection, "merits", **given | values)

    def merit_item(self, merit: int, deed: int, item: int, target: Any = 5, **values: Any) -> int:
        given = {
            "merit_id": merit,
            "deed_id": deed,
            "deed_item_id": item,
            "item_type": "count",
            "target_value": target,
        }
        return insert(self.connection, "merit_items", **given | values)

    def target(self, user: int, **values: Any) -> int:
        given = {"user_id": user, "name": "a target", "start_date": TODAY, "end_date": TODAY + 30 * DAY}
        return insert(self.connection, "targets", **given | values)

    def target_item(self, target: int, item: int, goal: Any = 5, **values: Any) -> int:
        given = {"target_id": target, "deed_item_id": item, "item_type": "count", "target_value": goal}
        return insert(self.connection, "target_items", **given | values)

    def relation(self, requester: int, requestee: int, status: str = "accepted", **values: Any) -> int:
        given = {"requester_id": requester, "requestee_id": requestee, "status": status}
        return insert(self.connection, "relations", **given | values)

    def permission(self, relation: int, item: int, type: str = "read", **values: Any) -> int:
        given = {"relation_id": relation, "deed_item_id": item, "permission_type": type}
        return insert(self.connection, "permissions", **given | values)

    def notification(self, user: int, **values: Any) -> int:
        given = {"user_id": user, "notification_time": dt.time(20, 0), "timezone": "Europe/Istanbul"}
        return insert(self.connection, "notifications", **given | values)

    def marks(self) -> list[tuple[Any, ...]]:
        """Take the progress marks away and return what they named, in their order."""
        found = self.rows("SELECT kind, subject_id FROM jobs.progress_marks ORDER BY progress_mark_id")
        self.run("DELETE FROM jobs.progress_marks")
        return found

    @contextmanager
    def acting(self, role: str, user: int | None = None, ip: str = "") -> Iterator[None]:
        """Be `role` for the block, as if it had connected, and act for `user`."""
        self._become(role, str(user) if user is not None else "", ip)
        yield
        self._become("kitaab_admin", "", "")

    def _become(self, role: str, user: str, ip: str) -> None:
        self.run(f"SET LOCAL SESSION AUTHORIZATION {role}")
        self.run(
            "SELECT set_config('app.user_id', :user, true), set_config('app.ip_address', :ip, true)",
            user=user,
            ip=ip,
        )

    @contextmanager
    def refused(self, state: str | set[str], rule: str = "") -> Iterator[None]:
        """Expect the block to be refused with an SQLSTATE, and by the constraint or with the words `rule`."""
        states = {state} if isinstance(state, str) else state
        with pytest.raises(DBAPIError) as caught, self.connection.begin_nested():
            yield
        error: Any = caught.value.orig
        assert error.sqlstate in states, str(error)
        assert rule in (error.diag.constraint_name or "") or rule in str(error), str(error)


CHECK = "23514"
FOREIGN_KEY = "23503"
UNIQUE = "23505"
NOT_NULL = "23502"
DENIED = "42501"

"""Rows as dictionaries, from which facts are made."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, TextClause


def rows(connection: Connection, statement: TextClause, **values: Any) -> list[dict[str, Any]]:
    """Run the statement and return its rows by column."""
    return [dict(row) for row in connection.execute(statement, values).mappings()]

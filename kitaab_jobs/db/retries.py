"""Which database errors are worth another try."""

from __future__ import annotations

import psycopg
from sqlalchemy.exc import DBAPIError

# serialization_failure, deadlock_detected, lock_not_available
CONTENTION = frozenset({"40001", "40P01", "55P03"})


def sqlstate(error: BaseException) -> str | None:
    """Return the SQLSTATE of `error`, seen through SQLAlchemy's wrapper, or None."""
    origin = error.orig if isinstance(error, DBAPIError) else error
    return origin.sqlstate if isinstance(origin, psycopg.Error) else None


def is_contention(error: BaseException) -> bool:
    """Tell whether somebody else was in the way, so that the same transaction may succeed later."""
    return sqlstate(error) in CONTENTION


def is_connection_loss(error: BaseException) -> bool:
    """Tell whether the connection broke, or the server is starting or stopping."""
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    state = sqlstate(error)
    origin = error.orig if isinstance(error, DBAPIError) else error
    if state is None:
        return isinstance(origin, psycopg.OperationalError)
    return state.startswith(("08", "57P")) or state == "53300"

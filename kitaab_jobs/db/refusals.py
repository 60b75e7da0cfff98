"""What PostgreSQL's errors mean to whoever typed a command: one line without SQL, values and passwords."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from sqlalchemy.exc import DBAPIError

from kitaab_jobs.db.retries import is_connection_loss, is_contention, sqlstate
from kitaab_jobs.errors import ServerError
from kitaab_jobs.settings import redacted

# What is missing: a schema, a table, a column, a type or role, a function.
NOT_MIGRATED = ("3F000", "42P01", "42703", "42704", "42883")

_WHERE = re.compile(r"^(connection failed: )?connection to server (at|on) .*? failed: ")


@contextmanager
def explained(url: str, *, setting: str = "KITAAB_DATABASE_URL", again: str = "try again") -> Iterator[None]:
    """Raise what PostgreSQL at `url` refuses as a `ServerError` of one line."""
    try:
        yield
    except (psycopg.Error, DBAPIError) as error:
        raise explain(error, url, setting=setting, again=again) from error


def explain(
    error: psycopg.Error | DBAPIError,
    url: str,
    *,
    setting: str = "KITAAB_DATABASE_URL",
    again: str = "try again",
) -> ServerError:
    """Return what the error means. `setting` is where `url` comes from; `again` says what to repeat."""
    where, said, state = redacted(url), reason(error), sqlstate(error)
    if is_connection_loss(error):
        return ServerError(
            f"PostgreSQL at {where} cannot be used: {said}",
            remedy=f"check {setting} and that the server runs, see 'kitaab-jobs doctor', then {again}",
        )
    if state in NOT_MIGRATED:
        return ServerError(
            f"the database at {where} has no tables of Kitaab, or old ones: {said}",
            remedy=f"run 'kitaab-jobs migrate', or set {setting} to the right database",
        )
    if state == "42501":
        role = (
            "the owner of the tables" if setting == "KITAAB_ADMIN_URL" else "a role that may, kitaab_worker"
        )
        return ServerError(f"PostgreSQL at {where} refused: {said}", remedy=f"set {setting} to {role}")
    if is_contention(error):
        return ServerError(f"others keep the same rows locked: {said}", remedy=again)
    if state == "57014":
        return ServerError(
            f"PostgreSQL at {where} took too long: {said}",
            remedy="ask for less, or raise KITAAB_STATEMENT_TIMEOUT",
        )
    if state == "25006":
        return ServerError(
            f"PostgreSQL at {where} is read-only: {said}", remedy=f"set {setting} to the primary server"
        )
    hint = getattr(getattr(_cause(error), "diag", None), "message_hint", None)
    return ServerError(f"PostgreSQL refused: {said}", remedy=hint or "see 'kitaab-jobs doctor'")


def reason(error: psycopg.Error | DBAPIError) -> str:
    """Return the server's own words, or the driver's, in one line; not the details, which quote rows."""
    cause = _cause(error)
    if primary := getattr(getattr(cause, "diag", None), "message_primary", None):
        return " ".join(primary.split())
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()] or [type(cause).__name__]
    # Of a name with several addresses each attempt has a line below the first.
    line = lines[1] if "All failures were" in lines[0] and len(lines) > 1 else lines[0]
    return " ".join(_WHERE.sub("", line).removeprefix("FATAL:").split())


def _cause(error: psycopg.Error | DBAPIError) -> BaseException:
    return (error.orig or error) if isinstance(error, DBAPIError) else error

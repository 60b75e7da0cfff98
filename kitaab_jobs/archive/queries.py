"""The SQL of partitions."""

from __future__ import annotations

import datetime as dt

from sqlalchemy import text
from sqlalchemy.orm import Session

from kitaab_jobs.archive.rules import Span

_TABLES = text("SELECT table_name FROM jobs.partitioned_tables ORDER BY table_name")

# The bounds as the catalog prints them: FOR VALUES FROM ('2026-01-01') TO ('2027-01-01'). Sessions run in
# UTC, so the dates of timestamps are days of UTC.
_SPANS = text(
    """
    SELECT bound[1]::timestamptz::date AS lower, bound[2]::timestamptz::date AS upper
    FROM pg_inherits AS i
    JOIN pg_class AS c ON c.oid = i.inhrelid
    CROSS JOIN LATERAL regexp_match(pg_get_expr(c.relpartbound, c.oid), $$FROM \\('([^']+)'\\) TO \\('([^']+)'\\)$$)
        AS bound
    WHERE i.inhparent = to_regclass('public.' || quote_ident(:table)) AND bound IS NOT NULL
    """
)

# Two at once would both find the same partition missing: the second one waits, then finds it made.
_TURN = text("SELECT pg_advisory_xact_lock(:key)")
_TURN_KEY = 5_472_002

_MAKE = text("SELECT jobs.make_partition(:table, :lower, :upper)")


def take_turns(session: Session) -> None:
    """Wait until no other transaction makes partitions, and keep others out until this one ends."""
    session.execute(_TURN, {"key": _TURN_KEY})


def tables(session: Session) -> list[str]:
    """Return the partitioned tables."""
    return list(session.scalars(_TABLES))


def spans(session: Session, table: str) -> list[Span]:
    """Return the spans of the partitions of `table`."""
    return [Span(row.lower, row.upper) for row in session.execute(_SPANS, {"table": table})]


def make(session: Session, table: str, lower: dt.date, upper: dt.date) -> str:
    """Make one partition and return its name."""
    return str(session.scalar(_MAKE, {"table": table, "lower": lower, "upper": upper}))

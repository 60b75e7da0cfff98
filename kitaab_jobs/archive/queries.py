"""The SQL of the archive."""

from __future__ import annotations

import datetime as dt

from sqlalchemy import text
from sqlalchemy.orm import Session

from kitaab_jobs.archive.rules import Span
from kitaab_jobs.db import locks

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

_MAKE = text("SELECT jobs.make_partition(:table, :lower, :upper)")


# In the order in which they ended, along the index. A dead job for whose group another one waits must stay, or
# that one would start.
_PURGE_JOBS = text(
    """
    WITH old AS (
        SELECT id FROM jobs.jobs AS j
        WHERE state IN ('succeeded', 'dead', 'cancelled') AND finished_at < :ended_before
          AND (state <> 'dead' OR finished_at < :dead_before AND NOT EXISTS (
              SELECT FROM jobs.jobs AS other WHERE other.state = 'scheduled' AND other.after_group = j.group_name))
        ORDER BY finished_at LIMIT :limit FOR UPDATE SKIP LOCKED
    )
    DELETE FROM jobs.jobs AS j USING old WHERE j.id = old.id
    """
)

# What a beat is just ending is left for the next time.
_PURGE_FIRES = text(
    """
    WITH old AS MATERIALIZED (
        SELECT schedule, fire_at FROM jobs.fires WHERE recorded_at < :before ORDER BY recorded_at LIMIT :limit
        FOR UPDATE SKIP LOCKED
    )
    DELETE FROM jobs.fires AS f USING old
    WHERE (f.schedule, f.fire_at) = (old.schedule, old.fire_at)
    """
)

_PURGE_PROCESSES = text("DELETE FROM jobs.processes WHERE seen_at < :before")


def take_turns(session: Session) -> None:
    """Wait until no other transaction makes partitions, and keep others out until this one ends."""
    session.execute(_TURN, {"key": locks.MAKE_PARTITIONS})


def tables(session: Session) -> list[str]:
    """Return the partitioned tables."""
    return list(session.scalars(_TABLES))


def spans(session: Session, table: str) -> list[Span]:
    """Return the spans of the partitions of `table`."""
    return [Span(row.lower, row.upper) for row in session.execute(_SPANS, {"table": table})]


def make(session: Session, table: str, lower: dt.date, upper: dt.date) -> str:
    """Make one partition and return its name."""
    return str(session.scalar(_MAKE, {"table": table, "lower": lower, "upper": upper}))


def purge_jobs(session: Session, ended_before: dt.datetime, dead_before: dt.datetime, limit: int) -> int:
    """Remove jobs that ended before these times, up to `limit`, and return how many."""
    values = {"ended_before": ended_before, "dead_before": dead_before, "limit": limit}
    return session.connection().execute(_PURGE_JOBS, values).rowcount


def purge_fires(session: Session, before: dt.datetime, limit: int) -> int:
    """Remove fires that were recorded before that time, up to `limit`, and return how many."""
    return session.connection().execute(_PURGE_FIRES, {"before": before, "limit": limit}).rowcount


def purge_processes(session: Session, before: dt.datetime) -> int:
    """Remove processes that have not been seen since, and return how many."""
    return session.connection().execute(_PURGE_PROCESSES, {"before": before}).rowcount

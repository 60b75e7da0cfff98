"""What migrations have made, and what stands in it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence

from sqlalchemy import Connection, text

from kitaab_jobs.health.facts import Index, Kind, Partition, Process, StoredZone, Troubled
from kitaab_jobs.health.queries.rows import rows

# The ledger's table stands for the schema: without it, most of what is below has nothing to look at.
# Here and below by way of the catalogs, because to_regclass refuses names in a schema that the role may not use.
_MIGRATED = text(
    """
    SELECT EXISTS (SELECT FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
                   WHERE n.nspname = 'jobs' AND c.relname = 'jobs')
    """
)

# A column's right may come from the whole table's; has_column_privilege knows.
_MISSING_TABLE_RIGHTS = text(
    """
    SELECT n.privilege || CASE n.col WHEN '' THEN '' ELSE '(' || n.col || ')' END
               || ' on ' || n.schema || '.' || n.name AS missing
    FROM unnest(CAST(:schemas AS text[]), CAST(:names AS text[]), CAST(:columns AS text[]),
                CAST(:privileges AS text[])) WITH ORDINALITY AS n (schema, name, col, privilege, place)
    LEFT JOIN pg_namespace AS s ON s.nspname = n.schema
    LEFT JOIN pg_class AS c ON c.relnamespace = s.oid AND c.relname = n.name
    LEFT JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attname = n.col AND NOT a.attisdropped
    WHERE NOT coalesce(CASE n.col WHEN '' THEN has_table_privilege(c.oid, n.privilege)
                       ELSE has_column_privilege(c.oid, a.attnum, n.privilege) END, false)
    ORDER BY n.place
    """
)

# Without USAGE on the schema, the rights on its tables are worth nothing.
_MISSING_SCHEMA_RIGHTS = text(
    """
    SELECT 'USAGE on schema ' || n.name AS missing
    FROM unnest(CAST(:names AS text[])) AS n (name)
    LEFT JOIN pg_namespace AS s ON s.nspname = n.name
    WHERE NOT coalesce(has_schema_privilege(s.oid, 'USAGE'), false)
    """
)

# Any of the functions of that name: their parameters may grow.
_MISSING_FUNCTION_RIGHTS = text(
    """
    SELECT 'EXECUTE on ' || n.schema || '.' || n.name AS missing
    FROM unnest(CAST(:schemas AS text[]), CAST(:names AS text[])) AS n (schema, name)
    WHERE NOT EXISTS (
        SELECT FROM pg_proc AS p JOIN pg_namespace AS s ON s.oid = p.pronamespace
        WHERE s.nspname = n.schema AND p.proname = n.name AND has_function_privilege(p.oid, 'EXECUTE'))
    """
)

# A table is a person's if it says whose it is, or if somebody wrote a policy for it. Partitions count on their
# own: a policy of the parent does not hold for whoever comes in through the partition.
_ROW_SECURITY = text(
    """
    SELECT format('%I.%I', n.nspname, c.relname) AS name, c.relrowsecurity AS protected
    FROM pg_class AS c
    JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname IN ('public', 'jobs', 'archive') AND c.relkind IN ('r', 'p')
      AND (EXISTS (SELECT FROM pg_policy AS p WHERE p.polrelid = c.oid)
           OR EXISTS (SELECT FROM pg_attribute AS a
                      WHERE a.attrelid = c.oid AND a.attname = 'user_id' AND NOT a.attisdropped))
    ORDER BY 1
    """
)

# The tables that archive.make_partitions looks after.
_PARTITIONED = text("SELECT table_name FROM jobs.partitioned_tables ORDER BY table_name")

# The bounds as the catalog prints them, FOR VALUES FROM ('2026-01-01') TO ('2027-01-01'). Sessions run in UTC, so
# the date of a timestamp is a day of UTC. A partition that is being detached has no bounds that count.
_PARTITIONS = text(
    """
    SELECT t.table_name AS table, c.relname::text AS name, i.inhdetachpending AS detach_pending,
           CASE bound[1] WHEN 'MINVALUE' THEN DATE '0001-01-01'
                ELSE CAST(trim(BOTH '''' FROM bound[1]) AS timestamptz)::date END AS low,
           CASE bound[2] WHEN 'MAXVALUE' THEN DATE '9999-12-31'
                ELSE CAST(trim(BOTH '''' FROM bound[2]) AS timestamptz)::date END AS high
    FROM jobs.partitioned_tables AS t
    JOIN pg_inherits AS i ON i.inhparent = to_regclass('public.' || quote_ident(t.table_name))
    JOIN pg_class AS c ON c.oid = i.inhrelid
    LEFT JOIN LATERAL regexp_match(pg_get_expr(c.relpartbound, c.oid), $$FROM \\((.*)\\) TO \\((.*)\\)$$)
        AS bound ON true
    """
)

# Those that are being built at this moment are not valid either, and nothing is wrong with them.
_INVALID_INDEXES = text(
    """
    SELECT format('%I.%I', n.nspname, c.relname) AS name, i.indrelid::regclass::text AS table,
           i.indisunique AS unique
    FROM pg_index AS i
    JOIN pg_class AS c ON c.oid = i.indexrelid
    JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname IN ('public', 'jobs', 'archive') AND NOT i.indisvalid
      AND NOT EXISTS (SELECT FROM pg_stat_progress_create_index AS p WHERE p.index_relid = i.indexrelid)
    ORDER BY 1
    """
)

# What callers in SQL can enqueue.
_KINDS = text("SELECT name, queue, max_attempts, time_limit FROM jobs.kinds")

# By the database's clock, which also wrote seen_at.
_PROCESSES = text(
    """
    SELECT name, kind, version, extract(epoch FROM clock_timestamp() - seen_at)::float AS seconds_ago, timetable
    FROM jobs.processes ORDER BY name
    """
)

# Of paused ones, fires are recorded too.
_OVERDUE = text(
    """
    SELECT name FROM jobs.schedules WHERE next_fire_at < clock_timestamp() - :seconds * interval '1 second'
    ORDER BY next_fire_at LIMIT 100
    """
)
_PAUSED_BY_BEAT = text(
    "SELECT name, coalesce(paused_note, '') AS note FROM jobs.schedules WHERE paused_by = 'beat' ORDER BY name LIMIT 100"
)

# Each zone once, with how many rows name it: the names are checked outside, against pytz.
_STORED_ZONES = text(
    """
    SELECT 'users' AS table, timezone AS zone, count(*) AS rows FROM users WHERE deleted_at IS NULL GROUP BY timezone
    UNION ALL
    SELECT 'notifications', timezone, count(*) FROM notifications WHERE is_active GROUP BY timezone
    UNION ALL
    SELECT 'jobs.schedules', zone, count(*) FROM jobs.schedules GROUP BY zone
    ORDER BY 1, 2
    """
)

# From UTC to local only: the other way, PostgreSQL picks a side of its own at a clock change. The join leaves out
# names that it does not know, which would be errors.
_OFFSETS = text(
    """
    SELECT z.name AS zone,
           array_agg(CAST(extract(epoch FROM (z.t AT TIME ZONE z.name) - (z.t AT TIME ZONE 'UTC')) AS int)
                     ORDER BY z.t) AS offsets
    FROM unnest(CAST(:zones AS text[]), CAST(:instants AS timestamptz[])) AS z (name, t)
    JOIN pg_timezone_names AS known ON known.name = z.name
    GROUP BY z.name
    """
)


def migrated(connection: Connection) -> bool:
    """Tell whether our tables are there."""
    return bool(connection.execute(_MIGRATED).scalar_one())


def missing_rights(
    connection: Connection,
    schemas: Sequence[str],
    tables: Iterable[tuple[str, str, tuple[str, ...]]],
    functions: Sequence[str],
) -> list[str]:
    """Return what the role of this connection may not do; `tables` are names, privileges and columns."""
    cells = [(*name.split("."), column, right) for name, right, cols in tables for column in cols or ("",)]
    by_column = [list(column) for column in zip(*cells, strict=True)]
    tables_asked = dict(zip(("schemas", "names", "columns", "privileges"), by_column, strict=True))
    functions_asked = {
        "schemas": [name.partition(".")[0] for name in functions],
        "names": [name.partition(".")[2] for name in functions],
    }
    missing = [
        *rows(connection, _MISSING_SCHEMA_RIGHTS, names=list(schemas)),
        *rows(connection, _MISSING_TABLE_RIGHTS, **tables_asked),
        *rows(connection, _MISSING_FUNCTION_RIGHTS, **functions_asked),
    ]
    return [str(row["missing"]) for row in missing]


def row_security(connection: Connection) -> dict[str, bool]:
    """Return the tables that hold people's data, and whether row-level security is on."""
    return {row["name"]: row["protected"] for row in rows(connection, _ROW_SECURITY)}


def partitioned_tables(connection: Connection) -> list[str]:
    """Return the tables that are kept partitioned."""
    return [str(name) for name in connection.scalars(_PARTITIONED)]


def partitions(connection: Connection) -> list[Partition]:
    """Return their partitions."""
    return [Partition(**row) for row in rows(connection, _PARTITIONS)]


def invalid_indexes(connection: Connection) -> list[Index]:
    """Return the indexes that PostgreSQL does not use."""
    return [Index(**row) for row in rows(connection, _INVALID_INDEXES)]


def kinds(connection: Connection) -> list[Kind]:
    """Return the jobs that the database knows."""
    return [Kind(**row) for row in rows(connection, _KINDS)]


def processes(connection: Connection) -> list[Process]:
    """Return every process that ever said it was alive and was not removed."""
    return [Process(**row) for row in rows(connection, _PROCESSES)]


def troubled_schedules(connection: Connection, seconds: float) -> Troubled:
    """Return the schedules that are overdue for so long, and those that beat has paused; up to a hundred of each."""
    return Troubled(
        list(connection.scalars(_OVERDUE, {"seconds": seconds})),
        {row["name"]: row["note"] for row in rows(connection, _PAUSED_BY_BEAT)},
    )


def stored_zones(connection: Connection) -> list[StoredZone]:
    """Return the zones of people, reminders and schedules."""
    return [StoredZone(**row) for row in rows(connection, _STORED_ZONES)]


def offsets(connection: Connection, asked: Mapping[str, Sequence[dt.datetime]]) -> dict[str, list[int]]:
    """Return the offsets from UTC, in seconds, of those zones that it knows, at their instants (sorted)."""
    pairs = [(zone, instant) for zone, instants in asked.items() for instant in instants]
    found = rows(connection, _OFFSETS, zones=[z for z, _ in pairs], instants=[t for _, t in pairs])
    return {row["zone"]: row["offsets"] for row in found}

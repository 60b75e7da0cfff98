"""The PostgreSQL server, its roles and its settings."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

from sqlalchemy import Connection, text

from kitaab_jobs.health.facts import Connections, Place, Replica, Role
from kitaab_jobs.health.queries.rows import rows

# 180006 is 18.6.
_VERSION = text("SELECT current_setting('server_version_num')::int")

# As our session sees them: a database, a role or a pooler may have changed what the server's file says.
_SETTINGS = text("SELECT name, setting FROM pg_settings WHERE name = ANY (:names)")

# The system identifier is made by initdb, and a replica has its primary's.
_PLACE = text(
    "SELECT system_identifier AS cluster, current_database()::text AS database FROM pg_control_system()"
)

# Over libpq the server tells its process id at the start; what this says is the process that answers.
_BACKEND = text("SELECT pg_backend_pid()")

# What lifts row-level security off a role, or gives it more than jobs need. Owning a table counts through
# every role that it is a member of, as it does for PostgreSQL.
_ROLES = text(
    """
    SELECT r.rolname::text AS name, r.rolsuper AS superuser, r.rolbypassrls AS bypasses_rls,
           r.rolcreaterole AS creates_roles, r.rolcreatedb AS creates_databases, r.rolreplication AS replicates,
           coalesce((SELECT pg_has_role(r.oid, a.oid, 'MEMBER') FROM pg_roles AS a
                     WHERE a.rolname = 'kitaab_admin'), false) AS is_admin,
           (SELECT n.nspname || '.' || min(c.relname) FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
            WHERE n.nspname IN ('public', 'jobs', 'archive') AND c.relkind IN ('r', 'p')
              AND pg_has_role(r.oid, c.relowner, 'MEMBER')
            GROUP BY n.nspname ORDER BY n.nspname LIMIT 1) AS owns
    FROM pg_roles AS r
    WHERE r.rolname = ANY (:names) OR (:own AND r.rolname = current_user)
    """
)

# The smallest of the three limits, and how much of it is taken. pg_stat_database shows every session to everyone.
_CONNECTIONS = text(
    """
    SELECT available AS "limit", limited_by, used
    FROM (
        SELECT current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
                   - coalesce(current_setting('reserved_connections', true), '0')::int AS available,
               'max_connections' AS limited_by, (SELECT sum(numbackends)::int FROM pg_stat_database) AS used
        UNION ALL
        SELECT d.datconnlimit, 'CONNECTION LIMIT of the database',
               (SELECT numbackends FROM pg_stat_database AS s WHERE s.datid = d.oid)
        FROM pg_database AS d WHERE d.datname = current_database() AND d.datconnlimit >= 0
        UNION ALL
        SELECT r.rolconnlimit, 'CONNECTION LIMIT of the role',
               (SELECT count(*)::int FROM pg_stat_activity AS a WHERE a.usesysid = r.oid)
        FROM pg_roles AS r WHERE r.rolname = current_user AND r.rolconnlimit >= 0
    ) AS limits
    ORDER BY available LIMIT 1
    """
)

# The server's clock, not the start of a transaction.
_CLOCK = text("SELECT clock_timestamp()")

# Where the primary's log ends now, for the replica to reach.
_LOG_POSITION = text("SELECT pg_current_wal_lsn()::text")

# A replica whose primary is idle replays nothing, so the age of its last transaction alone means nothing.
_REPLICA = text(
    """
    SELECT pg_is_in_recovery() AS in_recovery,
           EXISTS (SELECT FROM pg_stat_wal_receiver) AS receiving,
           coalesce(pg_last_wal_replay_lsn() >= CAST(:position AS pg_lsn), false) AS caught_up,
           extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp())::float AS behind
    """
)


def version(connection: Connection) -> int:
    """Return the server's version as a number, such as 180006."""
    return int(connection.execute(_VERSION).scalar_one())


def settings(connection: Connection, names: Sequence[str]) -> dict[str, str]:
    """Return those settings as they are in this session."""
    return {row["name"]: row["setting"] for row in rows(connection, _SETTINGS, names=list(names))}


def place(connection: Connection) -> Place:
    """Return which database of which cluster this is."""
    return Place(**rows(connection, _PLACE)[0])


def backend(connection: Connection) -> int:
    """Return the id of the server's process that answers."""
    return int(connection.execute(_BACKEND).scalar_one())


def own_role(connection: Connection) -> Role:
    """Return the role of this connection."""
    return Role(**rows(connection, _ROLES, names=[], own=True)[0])


def roles(connection: Connection, names: Sequence[str]) -> list[Role]:
    """Return those of the roles that exist."""
    return [Role(**row) for row in rows(connection, _ROLES, names=list(names), own=False)]


def connections(connection: Connection) -> Connections:
    """Return how many connections there may be and are."""
    return Connections(**rows(connection, _CONNECTIONS)[0])


def clock(connection: Connection) -> dt.datetime:
    """Return what time it is for the server."""
    time: dt.datetime = connection.execute(_CLOCK).scalar_one()
    return time


def log_position(connection: Connection) -> str:
    """Return where the primary's write-ahead log ends."""
    return str(connection.execute(_LOG_POSITION).scalar_one())


def replica(connection: Connection, position: str | None) -> Replica:
    """Return the state of a replica; it has caught up when it has replayed up to `position`."""
    return Replica(**rows(connection, _REPLICA, position=position)[0])

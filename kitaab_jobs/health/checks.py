"""The tables of checks. A line is a name, what to observe, and the rule that judges it."""

from __future__ import annotations

import time
from collections.abc import Callable

from alembic.script import ScriptDirectory

from kitaab_jobs.contract import JOBS
from kitaab_jobs.db import migrate
from kitaab_jobs.health import channels, machine, zones
from kitaab_jobs.health import redis as broker
from kitaab_jobs.health.facts import Kind, Package
from kitaab_jobs.health.probes import Check, NotRun
from kitaab_jobs.health.queries import schema as schema_queries
from kitaab_jobs.health.queries import server
from kitaab_jobs.health.rules import Verdict, clock, postgres, processes, schema
from kitaab_jobs.health.rules import channels as channel_rules
from kitaab_jobs.health.rules import machine as machine_rules
from kitaab_jobs.health.rules import redis as redis_rules
from kitaab_jobs.health.rules.limits import FIRE_OVERDUE_SECONDS
from kitaab_jobs.health.sources import Broker, Database, Machine, difference
from kitaab_jobs.settings import Settings
from kitaab_jobs.timing import zone_data_versions, zone_names

# --- this machine ----------------------------------------------------------------------------------

VARIABLES = tuple(f"KITAAB_{name}".upper() for name in Settings.model_fields)

MACHINE: tuple[Check[Machine], ...] = (
    Check("settings.variables", lambda at: machine_rules.unread_variables(at.environ, VARIABLES)),
    Check("settings.shared_memory", lambda _: machine_rules.shared_memory(machine.shared_memory_problem())),
    Check("time.zone_versions", lambda at: clock.zone_versions(zone_data_versions(), at.now.date())),
)


def configured(settings: Settings) -> list[Check[Machine]]:
    """Return the checks that need to know what is set."""
    return [
        Check("settings.pool", lambda _: machine_rules.pool(settings.pool_size, settings.pool_max)),
        Check(
            "settings.stack_file",
            lambda _: machine_rules.private_file(machine.private_file(settings.stack_file)),
        ),
        Check("settings.disk", lambda _: machine_rules.disk(machine.disk(settings.data_dir))),
        Check(
            "channels.email",
            lambda _: channel_rules.email(
                channels.needed_for_email(settings), channels.mail_server(settings)
            ),
        ),
        Check("channels.public_url", lambda _: channel_rules.public_url(settings.public_url)),
        Check(
            "channels.webpush",
            lambda _: channel_rules.webpush(channels.push_key(settings), settings.mail_from is not None),
        ),
    ]


def packages() -> list[Check[Machine]]:
    """Return a check for each package that pyproject.toml asks for."""

    def judged(package: Package) -> Callable[[Machine], Verdict]:
        return lambda _: machine_rules.package(package)

    return [Check(f"settings.versions.{found.name}", judged(found)) for found in machine.packages()]


# --- PostgreSQL ------------------------------------------------------------------------------------

# How long a replica may take to reach where its primary is now, before its lag is looked at. In seconds.
CATCH_UP_SECONDS = 2


def _migrated(judge: Callable[[Database], Verdict]) -> Callable[[Database], Verdict]:
    """Return the check for a database that has our tables; it is not run on another."""

    def checked(at: Database) -> Verdict:
        if not at.migrated:
            raise NotRun("the database was never migrated")
        return judge(at)

    return checked


def _setting(wanted: postgres.Setting) -> Check[Database]:
    return Check(f"postgres.settings.{wanted.name}", lambda at: postgres.setting(wanted, at.values))


def _running(kind: str) -> Check[Database]:
    return Check(f"processes.{kind}", _migrated(lambda at: processes.running(kind, at.processes)))


def _revision(at: Database) -> Verdict:
    newest_first = ScriptDirectory.from_config(migrate.config()).walk_revisions()
    known = [script.revision for script in newest_first][::-1]
    return schema.revision(migrate.current(at.connection), known)


def _grants(at: Database) -> Verdict:
    return schema.grants(
        schema_queries.missing_rights(
            at.connection, schema.WORKER_SCHEMAS, schema.WORKER_TABLES, schema.WORKER_FUNCTIONS
        )
    )


def _row_security(at: Database) -> Verdict:
    found = schema_queries.row_security(at.connection)
    return schema.row_security([name for name, protected in found.items() if not protected], len(found))


def _partitions(at: Database) -> Verdict:
    tables = schema_queries.partitioned_tables(at.connection)
    return schema.partitions(tables, at.partitions, at.now.date(), at.settings.partitions_ahead_days)


def _kinds(at: Database) -> Verdict:
    wanted = [Kind(job.name, job.queue, job.max_attempts, job.time_limit) for job in JOBS.values()]
    return schema.kinds(schema_queries.kinds(at.connection), wanted)


def _schedules(at: Database) -> Verdict:
    return processes.schedules(schema_queries.troubled_schedules(at.connection, FIRE_OVERDUE_SECONDS))


def _connections(at: Database) -> Verdict:
    pools = [p for p in processes.alive(at.processes) if p.kind != "relay"] if at.migrated else []
    return postgres.connections(server.connections(at.connection), at.settings.pool_max, len(pools))


def _zone_data(at: Database) -> Verdict:
    asked = zones.samples(at.now)
    return clock.zone_data(zones.compare(asked, schema_queries.offsets(at.connection, asked)))


def _same_place(variable: str) -> Callable[[Database], Verdict]:
    def checked(at: Database) -> Verdict:
        with at.main() as main:
            return postgres.same_place(variable, server.place(at.connection), server.place(main.connection))

    return checked


def _pooler(*, direct: bool) -> Callable[[Database], Verdict]:
    return lambda at: postgres.pooler(at.told_backend, server.backend(at.connection), direct=direct)


def _postgres_clock(at: Database) -> Verdict:
    return clock.difference("PostgreSQL", *difference(lambda: server.clock(at.connection), at.clock))


DATABASE: tuple[Check[Database], ...] = (
    Check(
        "postgres.version",
        lambda at: postgres.version(
            server.version(at.connection), migrate.OLDEST_SERVER, migrate.NEWEST_SERVER
        ),
    ),
    Check("postgres.encryption.database", lambda at: postgres.encryption(at.wire)),
    Check("postgres.role.database", lambda at: postgres.worker_role(server.own_role(at.connection))),
    Check("postgres.roles", lambda at: postgres.roles(server.roles(at.connection, postgres.ROLES))),
    *map(_setting, postgres.SETTINGS),
    Check("postgres.connections", _connections),
    Check("schema.revision", _revision),
    Check("schema.grants", _migrated(_grants)),
    Check("schema.row_security", _migrated(_row_security)),
    Check("schema.partitions", _migrated(_partitions)),
    Check("schema.detached", _migrated(lambda at: schema.detached(at.partitions))),
    Check("schema.default_partitions", _migrated(lambda at: schema.default_partitions(at.partitions))),
    Check(
        "schema.indexes",
        _migrated(lambda at: schema.indexes(schema_queries.invalid_indexes(at.connection))),
    ),
    Check("schema.kinds", _migrated(_kinds)),
    Check("time.postgres_clock", _postgres_clock),
    Check("time.zone_data", _zone_data),
    Check(
        "time.stored_zones",
        _migrated(lambda at: clock.stored_zones(schema_queries.stored_zones(at.connection), zone_names())),
    ),
    *map(_running, processes.KINDS),
    Check("processes.schedules", _migrated(_schedules)),
    Check("processes.timetables", _migrated(lambda at: processes.timetables(at.processes))),
    Check(
        "processes.versions", _migrated(lambda at: processes.versions(at.processes, machine.own_version()))
    ),
)

DIRECT: tuple[Check[Database], ...] = (
    Check("postgres.same.direct", _same_place("KITAAB_DIRECT_URL")),
    Check("postgres.encryption.direct", lambda at: postgres.encryption(at.wire)),
    Check("postgres.role.direct", lambda at: postgres.worker_role(server.own_role(at.connection))),
    Check("postgres.pooler.direct", _pooler(direct=True)),
)

ADMIN: tuple[Check[Database], ...] = (
    Check("postgres.same.admin", _same_place("KITAAB_ADMIN_URL")),
    Check("postgres.encryption.admin", lambda at: postgres.encryption(at.wire)),
    Check("postgres.role.admin", lambda at: postgres.admin_role(server.own_role(at.connection))),
)


def _replica(at: Database) -> Verdict:
    with at.main() as main:
        position = server.log_position(main.connection)
    until = time.monotonic() + CATCH_UP_SECONDS
    found = server.replica(at.connection, position)
    while found.in_recovery and not found.caught_up and time.monotonic() < until:
        time.sleep(0.1)
        found = server.replica(at.connection, position)
    return postgres.replica(found)


REPLICA: tuple[Check[Database], ...] = (
    Check("postgres.same.replica", _same_place("KITAAB_REPLICA_URL")),
    Check("postgres.encryption.replica", lambda at: postgres.encryption(at.wire)),
    Check("postgres.replica", _replica),
)


def database_checks(settings: Settings) -> list[Check[Database]]:
    """Return the checks of KITAAB_DATABASE_URL: it stands in for the addresses that are not set."""
    instead: list[Check[Database]] = [
        Check("postgres.pooler.database", _pooler(direct=settings.direct_url is None))
    ]
    if settings.admin_url is None:
        instead.append(Check("postgres.role.admin", lambda _: postgres.admin_role(None)))
    return [*DATABASE, *instead]


# --- Redis -----------------------------------------------------------------------------------------

REDIS: tuple[Check[Broker], ...] = (
    Check("redis.version", lambda at: redis_rules.version(at.server)),
    Check("redis.encryption", lambda at: postgres.encryption(at.wire)),
    Check("redis.role", lambda at: redis_rules.role(at.server)),
    Check("redis.settings.maxmemory-policy", lambda at: redis_rules.eviction(at.server)),
    Check("redis.settings.appendonly", lambda at: redis_rules.append_only(at.server)),
    Check("redis.settings.protected-mode", lambda at: redis_rules.protected_mode(at.door)),
    Check("redis.password", lambda at: redis_rules.password(at.door)),
    Check("redis.writes", lambda at: redis_rules.writes_to_disk(at.server)),
    Check("redis.memory", lambda at: redis_rules.memory(at.server)),
    Check(
        "time.redis_clock",
        lambda at: clock.difference("Redis", *difference(lambda: broker.clock(at.client), at.clock)),
    ),
)

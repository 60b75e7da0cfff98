"""The PostgreSQL server: version, roles, connections, and settings that lose or expose data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from kitaab_jobs.health.facts import Connections, Place, Replica, Role, Wire
from kitaab_jobs.health.rules.finding import FAIL, OK, WARN, Level, Verdict, fail, ok, warn, worst
from kitaab_jobs.health.rules.limits import (
    CONNECTIONS_USED_SHARE,
    FEWEST_PROCESSES,
    REPLICA_BEHIND_SECONDS,
)

ROLES = ("kitaab_admin", "kitaab_app", "kitaab_readonly", "kitaab_worker")


class Setting(NamedTuple):
    """A setting of the server, when it is bad, how bad that is, and why."""

    name: str
    is_bad: Callable[[str], bool]
    level: Level
    why: str
    remedy: str


def _off(value: str) -> bool:
    return value == "off"


def _not_utc(value: str) -> bool:
    return value.upper() not in {"UTC", "ETC/UTC", "UCT", "ETC/UCT", "ZULU", "GMT"}


# Our sessions ask for it when they start; a pooler may have thrown that away.
_BY_ROLE = "set it where no pooler can lose it: ALTER ROLE kitaab_worker SET"

SETTINGS = (
    Setting(
        "fsync",
        _off,
        FAIL,
        "a power cut can destroy the database",
        "set fsync = on in postgresql.conf and reload",
    ),
    Setting(
        "full_page_writes",
        _off,
        FAIL,
        "a power cut can leave damaged pages behind",
        "set full_page_writes = on in postgresql.conf and reload",
    ),
    Setting(
        "synchronous_commit",
        _off,
        FAIL,
        "a crash can lose jobs whose transaction had committed",
        "set synchronous_commit = on, for the server, the database and the role",
    ),
    Setting(
        "TimeZone",
        _not_utc,
        FAIL,
        "our sessions must run in UTC, or dates shift",
        _BY_ROLE + " timezone = 'UTC'",
    ),
    Setting(
        "idle_in_transaction_session_timeout",
        lambda value: value == "0",
        WARN,
        "a process that hangs in a transaction would hold its locks for ever",
        _BY_ROLE + " idle_in_transaction_session_timeout = '10min'",
    ),
    Setting(
        "password_encryption",
        lambda value: value == "md5",
        WARN,
        "new passwords are stored as MD5, which can be reversed",
        "set password_encryption = 'scram-sha-256' and give the roles their passwords again",
    ),
    Setting(
        "data_checksums",
        _off,
        WARN,
        "a page that the disk has damaged is not noticed",
        "stop the server, and run pg_checksums --enable on its data folder",
    ),
    Setting("autovacuum", _off, WARN, "tables grow and slow down", "set autovacuum = on and reload"),
    Setting(
        "track_counts",
        _off,
        WARN,
        "autovacuum does not see what has changed",
        "set track_counts = on and reload",
    ),
    Setting(
        "track_activities",
        _off,
        WARN,
        "pg_stat_activity does not show what runs",
        "set track_activities = on and reload",
    ),
)


def setting(wanted: Setting, values: Mapping[str, str]) -> Verdict:
    """Is one of the settings safe? `values` are those of our session."""
    value = values.get(wanted.name, "unknown")
    if wanted.is_bad(value):
        return Verdict(wanted.level, f"{wanted.name} is {value}: {wanted.why}", wanted.remedy)
    return ok(f"{wanted.name} is {value}")


def version(number: int, oldest: int, newest: int) -> Verdict:
    """Is the server one of the supported ones? `number` is like 180006, the others are like 18."""
    major, minor = divmod(number, 10_000)
    if major < oldest:
        return fail(
            f"PostgreSQL {major}.{minor} is too old",
            f"upgrade to {oldest} or later; {newest} is recommended",
        )
    if major > newest:
        return warn(f"PostgreSQL {major}.{minor} is newer than what was tested", f"use {oldest} to {newest}")
    return ok(f"version {major}.{minor}" + ("" if major == newest else f" ({newest} is recommended)"))


def encryption(wire: Wire) -> Verdict:
    """Is what we say to a server over a network encrypted?"""
    if wire.local:
        return ok(f"the connection to {wire.address} stays on this machine")
    if wire.encrypted:
        return ok(f"the connection to {wire.address} is encrypted")
    return warn(
        f"the connection to {wire.address} is not encrypted",
        "switch TLS on at the server, and add ?sslmode=verify-full to the address",
    )


def worker_role(role: Role) -> Verdict:
    """Do jobs run with no more rights than they need?"""
    excess: list[tuple[bool, Level, str]] = [
        (role.superuser, FAIL, "is a superuser"),
        (role.bypasses_rls and not role.superuser, FAIL, "bypasses row-level security"),
        (role.is_admin and not role.superuser, FAIL, "is a member of kitaab_admin"),
        (role.owns is not None and not role.is_admin, FAIL, f"owns {role.owns}"),
        (role.creates_roles and not role.superuser, WARN, "may create roles"),
        (role.creates_databases and not role.superuser, WARN, "may create databases"),
        (role.replicates and not role.superuser, WARN, "may replicate everything"),
    ]
    found = [(level, text) for applies, level, text in excess if applies]
    if not found:
        return ok(f"jobs run as {role.name}, which may only do what they need")
    return Verdict(
        worst(level for level, _ in found),
        f"jobs would run as {role.name}, which {' and '.join(text for _, text in found)}",
        "connect as kitaab_worker, or as a role that has no more than its membership",
    )


def admin_role(role: Role | None) -> Verdict:
    """May the role that migrates act as the owner of the tables? None: no address of its own is set."""
    if role is None:
        return ok("KITAAB_ADMIN_URL is not set: 'kitaab-jobs migrate' is for another machine")
    if not role.is_admin:
        return fail(
            f"'kitaab-jobs migrate' would run as {role.name}, which is no member of kitaab_admin",
            f"connect as kitaab_admin, or GRANT kitaab_admin TO {role.name}",
        )
    return ok(f"migrations run as {role.name}")


def roles(present: Iterable[Role]) -> Verdict:
    """Are the four roles there, and does row-level security bind those that it is made for?"""
    known = {role.name: role for role in present}
    missing = [name for name in ROLES if name not in known]
    if missing:
        return fail(f"these roles do not exist: {', '.join(missing)}", "run 'kitaab-jobs migrate'")
    free = [
        name
        for name in ROLES[1:]
        if known[name].superuser or known[name].bypasses_rls or known[name].is_admin
    ]
    if free:
        return fail(
            f"row-level security does not bind {', '.join(free)}",
            "take SUPERUSER, BYPASSRLS and the membership in kitaab_admin away",
        )
    return ok(f"{', '.join(ROLES)} exist")


def same_place(name: str, here: Place, main: Place) -> Verdict:
    """Does another address lead to the database of KITAAB_DATABASE_URL?"""
    remedy = f"correct {name} or KITAAB_DATABASE_URL"
    if here.cluster != main.cluster:
        return fail(f"{name} leads to another server than KITAAB_DATABASE_URL", remedy)
    if here.database != main.database:
        return fail(
            f"{name} leads to {here.database!r}, and KITAAB_DATABASE_URL to {main.database!r}", remedy
        )
    return ok(f"{name} leads to the same database")


def pooler(told: int, real: int, *, direct: bool) -> Verdict:
    """Is a pooler in between? It tells a process id of its own making, not the `real` one.

    `direct` is for the connection that must keep its session.
    """
    if told == real:
        return ok("no pooler is in between")
    if direct:
        return warn(
            "LISTEN and CONCURRENTLY would go through a pooler",
            "set KITAAB_DIRECT_URL to the server itself, or let the pooler keep sessions for it",
        )
    return ok("a pooler is in between")


def connections(found: Connections, pool_max: int, processes: int) -> Verdict:
    """Are there enough connections for the processes that share them?"""
    seen = f"{found.used} of {found.limit} connections ({found.limited_by}) are open"
    wanted = pool_max * max(processes, FEWEST_PROCESSES)
    remedy = f"raise {found.limited_by}, lower KITAAB_POOL_MAX ({pool_max}), or put a pooler in between"
    if found.limit < pool_max:
        return fail(f"{seen}, and one process alone may open {pool_max}", remedy)
    level = CONNECTIONS_USED_SHARE.level(found.used / found.limit)
    if level != OK:
        return Verdict(level, seen, remedy)
    if found.limit < wanted:
        return warn(f"{seen}, and {max(processes, FEWEST_PROCESSES)} processes may open {wanted}", remedy)
    return ok(seen)


def replica(found: Replica) -> Verdict:
    """Is the replica one, and how old is its data?"""
    if not found.in_recovery:
        return warn(
            "KITAAB_REPLICA_URL leads to a server that is no replica", "set it to a replica, or unset it"
        )
    if found.caught_up:
        return ok("the replica has everything")
    behind = "an unknown time" if found.behind is None else f"{found.behind:.0f} s"
    level = WARN if found.behind is None else REPLICA_BEHIND_SECONDS.level(found.behind)
    if level == OK and found.receiving:
        return ok(f"the replica is {behind} behind")
    state = "" if found.receiving else ", and receives nothing"
    return Verdict(
        worst([level, OK if found.receiving else WARN]),
        f"the replica is {behind} behind{state}",
        "see pg_stat_wal_receiver there and the server's log",
    )

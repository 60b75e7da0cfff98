"""What is observed, before anything is made of it."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Package:
    """A package that pyproject.toml asks for; `installed` is its version, or None where it is missing."""

    name: str
    installed: str | None
    wanted: str
    fits: bool


@dataclass(frozen=True, slots=True)
class PrivateFile:
    """A file that holds passwords. `mode` is None where there is no such file."""

    path: str
    mode: int | None
    readable: bool = True


@dataclass(frozen=True, slots=True)
class Disk:
    """The file system of the folder `path`, in bytes; `problem` is why nothing can be written there."""

    path: str
    free: int
    total: int
    exists: bool = True
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Wire:
    """How one of our connections travels."""

    address: str
    local: bool
    encrypted: bool


@dataclass(frozen=True, slots=True)
class Role:
    """A role of PostgreSQL and its rights. `owns` is one of our tables that it owns, itself or through a role."""

    name: str
    superuser: bool
    bypasses_rls: bool
    creates_roles: bool
    creates_databases: bool
    replicates: bool
    is_admin: bool
    owns: str | None


@dataclass(frozen=True, slots=True)
class Place:
    """Which database a connection ended up in: `cluster` is the system identifier."""

    cluster: int
    database: str


@dataclass(frozen=True, slots=True)
class Connections:
    """How many connections PostgreSQL takes (for ordinary roles), and how many are open."""

    limit: int
    limited_by: str
    used: int


@dataclass(frozen=True, slots=True)
class Replica:
    """A replica. `behind` is how old its data is, in seconds; None where it has replayed nothing."""

    in_recovery: bool
    receiving: bool
    caught_up: bool
    behind: float | None


@dataclass(frozen=True, slots=True)
class Partition:
    """A partition with its bounds, the upper one not included; without bounds it is the DEFAULT one."""

    table: str
    name: str
    low: dt.date | None
    high: dt.date | None
    detach_pending: bool = False


@dataclass(frozen=True, slots=True)
class Index:
    """An index that PostgreSQL does not use."""

    name: str
    table: str
    unique: bool


@dataclass(frozen=True, slots=True)
class Kind:
    """A row of jobs.kinds, or what it should be."""

    name: str
    queue: str
    max_attempts: int
    time_limit: int


@dataclass(frozen=True, slots=True)
class Process:
    """A process of the platform that was seen `seconds_ago`."""

    name: str
    kind: str
    version: str
    seconds_ago: float
    timetable: str | None = None


@dataclass(frozen=True, slots=True)
class Troubled:
    """Schedules, by name: those whose fire is overdue, and those that beat has paused, each with its reason."""

    overdue: list[str]
    paused: dict[str, str]


@dataclass(frozen=True, slots=True)
class StoredZone:
    """A zone that `rows` rows of a table name."""

    table: str
    zone: str
    rows: int


@dataclass(frozen=True, slots=True)
class RedisServer:
    """A Redis or Valkey server, as INFO tells. Memory is in bytes, and a `memory_limit` of 0 is none."""

    name: str
    version: str
    compatible: str
    role: str
    cluster: bool
    policy: str
    append_only: bool
    last_write_ok: bool
    memory_used: int
    memory_limit: int


@dataclass(frozen=True, slots=True)
class RedisDoor:
    """Who gets in. `config` is None where CONFIG may not be used, and then `refused` says why."""

    open_to_all: bool
    local: bool
    config: dict[str, str] | None
    refused: str = ""


@dataclass(frozen=True, slots=True)
class MailServer:
    """The mail server, tried out as far as a login. `problem` is why nothing can be sent through it."""

    address: str
    local: bool
    encrypted: bool
    problem: str | None


@dataclass(frozen=True, slots=True)
class PushKey:
    """The key that signs what is pushed. `public` is what browsers are given, None where it is no key."""

    public: str | None


@dataclass(frozen=True, slots=True)
class ZoneData:
    """Where two copies of the zone data disagree, of `compared` zones."""

    compared: int
    unknown: list[str] = field(default_factory=list)
    different: list[str] = field(default_factory=list)

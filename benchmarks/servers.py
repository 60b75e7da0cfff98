"""The servers of a run, in a temporary folder: a durable PostgreSQL and a Redis, and a new database each time."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

import psycopg
from psycopg import sql
from redis import Redis

from benchmarks.peers import work
from benchmarks.systems import System
from kitaab_jobs.db import migrate
from kitaab_jobs.devstack.postgres import DATABASE, EmbeddedPostgres
from kitaab_jobs.devstack.redis import EmbeddedRedis

# What stands in the way of each system alike: its effects, and when its jobs started.
_EFFECTS = f"""
CREATE SCHEMA bench;
CREATE TABLE bench.effects (
    id integer PRIMARY KEY, n bigint NOT NULL DEFAULT 0, first timestamptz, last timestamptz
) WITH (fillfactor = 50);
INSERT INTO bench.effects (id) SELECT generate_series(0, {work.ROWS - 1});
CREATE TABLE bench.starts (sent double precision NOT NULL, started double precision NOT NULL);
CREATE TABLE bench.fires (n integer NOT NULL, started double precision NOT NULL);
GRANT USAGE ON SCHEMA bench TO kitaab_worker;
GRANT ALL ON bench.effects, bench.starts, bench.fires TO kitaab_worker;
"""


class Database:
    """One system's database: new, with the table of effects, and for ours with the migrated schema."""

    def __init__(self, servers: Servers, system: System) -> None:
        self._servers = servers
        name = f"bench_{system.name}"
        template = DATABASE if system.is_ours else "template0"
        with psycopg.connect(servers.postgres.superuser_url, autocommit=True) as connection:
            connection.execute(
                sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
            )
            connection.execute(
                sql.SQL("CREATE DATABASE {} OWNER kitaab_admin TEMPLATE {}").format(
                    sql.Identifier(name), sql.Identifier(template)
                )
            )
        self.owner_url = servers.postgres.url("kitaab_admin", name)
        self._superuser_url = servers.postgres.url("postgres", name)
        with psycopg.connect(self.owner_url, autocommit=True) as connection:
            connection.execute(_EFFECTS.encode())
        with Redis.from_url(servers.redis.url()) as redis:
            redis.flushall()
        data = servers.folder / "data"
        self.env = {
            "BENCH_DATABASE_URL": self.owner_url,
            "BENCH_REDIS_URL": servers.redis.url(),
            "KITAAB_DATABASE_URL": servers.postgres.url("kitaab_worker", name),
            "KITAAB_REDIS_URL": servers.redis.url(),
            "KITAAB_DATA_DIR": str(data),
            "KITAAB_LOG_LEVEL": "WARNING",
        }

    def connect(self) -> psycopg.Connection:
        """Return a connection as the owner."""
        return psycopg.connect(self.owner_url, autocommit=True)

    def settle(self, *tables: str) -> None:
        """Write out what is dirty, so that no checkpoint of what came before falls into what is measured."""
        with psycopg.connect(self._superuser_url, autocommit=True) as connection:
            for table in tables:
                connection.execute(f"VACUUM ANALYZE {table}".encode())
            connection.execute("CHECKPOINT")


class Servers:
    """PostgreSQL and Redis for as long as the `with` block runs."""

    def __init__(self, **options: str) -> None:
        """`options` are settings of postgresql.conf."""
        self.folder = Path(tempfile.mkdtemp(prefix="kitaab-bench-"))
        self.folder.chmod(0o755)
        self.postgres = EmbeddedPostgres(self.folder / "postgres", durable=True, options=options)
        self.redis = EmbeddedRedis(self.folder / "redis")

    def __enter__(self) -> Self:
        try:
            self.postgres.start()
            self.redis.start()
            self.postgres.provision(DATABASE)
            migrate.upgrade(self.postgres.url("kitaab_admin", DATABASE))
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.redis.stop()
        self.postgres.stop(immediate=True)
        shutil.rmtree(self.folder, ignore_errors=True)

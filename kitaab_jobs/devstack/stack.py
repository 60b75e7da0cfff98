"""The embedded stack: the servers that the environment does not name, on one data folder."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from kitaab_jobs.devstack.account import server_account
from kitaab_jobs.devstack.folder import FolderLock, explained, write_private
from kitaab_jobs.devstack.home import servers_home
from kitaab_jobs.devstack.mail import MailSink
from kitaab_jobs.devstack.named import check_postgres, check_redis
from kitaab_jobs.devstack.ports import HOST
from kitaab_jobs.devstack.postgres import DATABASE, EmbeddedPostgres
from kitaab_jobs.devstack.redis import EmbeddedRedis
from kitaab_jobs.devstack.server import EmbeddedServer
from kitaab_jobs.errors import SettingsError
from kitaab_jobs.settings import Settings, redacted


class Stack:
    """Servers for the platform, for as long as the `with` block runs.

    PostgreSQL is embedded unless the environment sets KITAAB_DATABASE_URL, and Redis unless it sets
    KITAAB_REDIS_URL; what an earlier `stack.env` says does not count. Named servers are checked and
    left alone. E-mails go to a sink where the database is embedded: in one that is named, people are
    real. While it runs, `stack.env` in the data folder tells every other process the addresses, and
    `pgpass` tells psql the passwords.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        environ: Mapping[str, str] | None = None,
        postgres_binaries: Path | None = None,
        durable: bool = True,
    ) -> None:
        self.data_dir = settings.data_dir.expanduser().absolute()
        self.logs = self.data_dir / "logs"
        self.postgres: EmbeddedPostgres | None = None
        self.redis: EmbeddedRedis | None = None
        self.mail: MailSink | None = None
        self._environ = dict(os.environ if environ is None else environ)
        self._named = {name.upper() for name, value in self._environ.items() if value}
        self._given = settings
        self._postgres_binaries = postgres_binaries
        self._durable = durable
        self._file = self.data_dir / settings.stack_file.name
        self._pgpass = self.data_dir / "pgpass"
        self._lock = FolderLock(self.data_dir / "stack.lock")

    @property
    def settings(self) -> Settings:
        """The settings with the addresses of the servers that run."""
        return Settings.load(self._environ, data_dir=self.data_dir)

    @property
    def servers(self) -> list[EmbeddedServer]:
        """The servers that we run ourselves, in the order in which they start."""
        return [server for server in (self.postgres, self.redis) if server is not None]

    @property
    def addresses(self) -> dict[str, str]:
        """Where each server is, by name and without passwords."""
        now = self.settings
        return {"PostgreSQL": redacted(now.database), "Redis": redacted(now.redis)}

    @property
    def psql(self) -> str:
        """A line for a shell that opens psql as the owner of the tables, and shows no password."""
        if self.postgres is None:
            return 'psql "$KITAAB_DATABASE_URL"'
        program = shlex.quote(str(self.postgres.bin / "psql"))
        where = f"-h {HOST} -p {self.postgres.port} -U kitaab_admin {DATABASE}"
        return f"PGPASSFILE={shlex.quote(str(self._pgpass))} {program} {where}"

    def start(self) -> None:
        """Start what is needed and write `stack.env`.

        Raises `AlreadyRunning` with the other's process id and addresses, `SettingsError` where the
        environment contradicts itself, `ServerError` for a named server and `StackError` for ours.
        """
        self._refuse_contradictions()
        account = server_account()
        with explained("make", self.data_dir):
            self.data_dir.mkdir(mode=0o711 if account else 0o700, parents=True, exist_ok=True)
        self._lock.take()
        try:
            with explained("write", self.data_dir):
                self._withdraw()
                self.logs.mkdir(mode=0o700, exist_ok=True)
            self._check_named()
            home = servers_home(self.data_dir, account)
            self._start_postgres(home / "postgres")
            self._start_redis(home / "redis")
            if self.postgres and "KITAAB_SMTP_URL" not in self._named:
                self.mail = MailSink.choose()
            self._publish()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Remove `stack.env` and stop our servers. Does nothing where it is stopped."""
        if self._lock.held:
            with suppress(OSError):
                self._withdraw()
        try:
            for server in reversed(self.servers):
                server.stop()
        finally:
            self._lock.free()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def child_env(self) -> dict[str, str]:
        """Return the environment for our child processes: ours, and the data folder by name."""
        return {**self._environ, "KITAAB_DATA_DIR": str(self.data_dir)}

    def _start_postgres(self, folder: Path) -> None:
        if "KITAAB_DATABASE_URL" in self._named:
            return
        self.postgres = EmbeddedPostgres(
            folder, binaries=self._postgres_binaries, durable=self._durable, log=self.logs / "postgres.log"
        )
        self.postgres.start()
        self.postgres.provision()

    def _start_redis(self, folder: Path) -> None:
        if "KITAAB_REDIS_URL" in self._named:
            return
        self.redis = EmbeddedRedis(folder, log=self.logs / "redis.log")
        self.redis.start()

    def _publish(self) -> None:
        lines = [
            f"# The servers of 'kitaab-jobs up', pid {os.getpid()}, since {datetime.now(UTC):%F %T} UTC.",
            "# It is removed when they stop. What the environment sets wins over these lines.",
        ]
        if self.postgres:
            worker = self.postgres.url("kitaab_worker", DATABASE)
            admin = self.postgres.url("kitaab_admin", DATABASE)
            lines += [
                "# As the workers connect:",
                f"KITAAB_DATABASE_URL={worker}",
                "# The owner of the tables, for migrations:",
                f"KITAAB_ADMIN_URL={admin}",
            ]
        if self.redis:
            lines += ["# The Celery broker and the caches:", f"KITAAB_REDIS_URL={self.redis.url()}"]
        if self.mail:
            lines += ["# E-mails go to the sink, whose pages show them:"]
            lines += [f"{name}={value}" for name, value in self.mail.variables(self.data_dir).items()]
        with explained("write", self._file):
            if self.postgres:
                write_private(self._pgpass, self.postgres.pgpass())
            if self.servers:
                write_private(self._file, "\n".join(lines) + "\n")
        self._lock.note(", ".join(f"{server.name} on {HOST}:{server.port}" for server in self.servers))

    def _withdraw(self) -> None:
        self._file.unlink(missing_ok=True)
        self._pgpass.unlink(missing_ok=True)

    def _check_named(self) -> None:
        """Try the servers that the environment names, before anything is started or written."""
        timeout = self._given.connect_timeout
        if "KITAAB_DATABASE_URL" in self._named:
            check_postgres("KITAAB_DATABASE_URL", self._given.database, timeout=timeout)
            if "KITAAB_ADMIN_URL" in self._named:
                check_postgres("KITAAB_ADMIN_URL", self._given.admin, timeout=timeout)
        if "KITAAB_REDIS_URL" in self._named:
            check_redis("KITAAB_REDIS_URL", self._given.redis, timeout=timeout)

    def _refuse_contradictions(self) -> None:
        """An address of another database beside an embedded one would send half of the work elsewhere."""
        if "KITAAB_DATABASE_URL" in self._named:
            return
        for name in ("KITAAB_ADMIN_URL", "KITAAB_DIRECT_URL", "KITAAB_REPLICA_URL"):
            if name in self._named:
                value = getattr(self._given, name.removeprefix("KITAAB_").lower())
                shown = redacted(value.get_secret_value()) if value else "set"
                raise SettingsError(
                    f"{name} is {shown}, but KITAAB_DATABASE_URL is not set",
                    remedy="set KITAAB_DATABASE_URL too, or unset both to use the embedded PostgreSQL",
                )

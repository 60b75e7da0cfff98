"""An embedded Redis server: Valkey, which speaks the same protocol."""

from __future__ import annotations

import signal
import subprocess
import tempfile
from pathlib import Path
from typing import ClassVar

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from kitaab_jobs.devstack.binaries import valkey_server
from kitaab_jobs.devstack.folder import explained
from kitaab_jobs.devstack.ports import HOST
from kitaab_jobs.devstack.server import EmbeddedServer, Signals

_PASSWORD = "redis"
# The driver's default repeats a refused connection for seconds.
ONCE = Retry(NoBackoff(), 0)


class EmbeddedRedis(EmbeddedServer):
    """Redis in `folder`, on a loopback port, with a password, an append-only file and no eviction.

    `program` names a redis-server or valkey-server other than the installed wheel's.
    """

    name = "Redis"
    stop_signals: ClassVar[Signals] = ((signal.SIGTERM, 30.0),)
    abort_signals: ClassVar[Signals] = ()
    death_signal: ClassVar[signal.Signals] = signal.SIGTERM  # which saves, see below

    def __init__(
        self, folder: Path, *, program: Path | None = None, port: int | None = None, log: Path | None = None
    ) -> None:
        super().__init__(folder, port=port, log=log)
        self._program = program

    def url(self, database: int = 0) -> str:
        """Return the address, with the password."""
        return f"redis://:{self.secrets[_PASSWORD]}@{HOST}:{self.port}/{database}"

    def _prepare(self) -> None:
        _ = self.secrets[_PASSWORD]
        with explained("make", self.data):
            if not self.data.exists():
                self.data.mkdir(mode=0o700)
                if self.account:
                    self.account.own(self.data)

    def _launch(self, port: int) -> subprocess.Popen[bytes]:
        # Through stdin, so that the password is in no second file and in no list of processes.
        with tempfile.TemporaryFile() as config:
            config.write(self._config(port).encode())
            config.seek(0)
            return self._spawn([valkey_server(self._program, self.account), "-"], cwd=self.data, stdin=config)

    def _config(self, port: int) -> str:
        lines = {
            "bind": HOST,
            "port": port,
            "protected-mode": "yes",
            "requirepass": self.secrets[_PASSWORD],
            "daemonize": "no",
            "logfile": '""',
            "loglevel": "notice",
            "dir": '"' + str(self.data).replace("\\", "\\\\").replace('"', '\\"') + '"',
            "appendonly": "yes",
            "appendfsync": "everysec",
            "maxmemory-policy": "noeviction",  # evicting a broker's keys would lose messages
            "save": '""',  # the append-only file has it all
            "tcp-keepalive": 60,
        }
        return "".join(f"{name} {value}\n" for name, value in lines.items())

    def _is_ready(self) -> bool:
        try:
            with Redis.from_url(self.url(), socket_timeout=5, retry=ONCE) as client:
                return bool(client.info("server").get("process_id") == self.pid)
        except RedisError:
            return False

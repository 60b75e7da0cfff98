"""A PostgreSQL data folder: made whole or not at all, and configured anew at every start."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import psutil

from kitaab_jobs.devstack.account import Account, user_name
from kitaab_jobs.devstack.folder import write_private
from kitaab_jobs.devstack.ports import HOST

CONF = "kitaab.conf"
SUPPORTED = range(15, 19)

_MB = 1 << 20


def initdb_options(major: int, pwfile: Path, *, durable: bool) -> list[str | Path]:
    """Return the options of initdb: passwords always, UTF-8, one collation on every machine, checksums."""
    if major >= 17:
        locale = ["--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"]
    else:
        locale = ["--locale-provider=libc", "--locale=C.UTF-8"]
    safety = [] if durable else ["--no-sync"]
    if major >= 16:
        # If it is killed, what it shared is then in the half-made folder, and goes with that.
        safety += ["-c", "dynamic_shared_memory_type=mmap"]
    return [
        "--username=postgres",
        "--auth=scram-sha-256",
        f"--pwfile={pwfile}",
        "--encoding=UTF8",
        "--data-checksums",
        *locale,
        *safety,
    ]


def configure(
    data: Path, account: Account | None, port: int, *, durable: bool, preload: str, options: Mapping[str, str]
) -> None:
    """Write `kitaab.conf` in the data folder, which `postgresql.conf` includes."""
    values = {
        "listen_addresses": HOST,
        "port": str(port),
        "unix_socket_directories": "",
        "password_encryption": "scram-sha-256",
        "max_connections": "200",
        "shared_buffers": f"{_shared_buffers()}MB",
        "work_mem": "16MB",
        "maintenance_work_mem": "128MB",
        "max_wal_size": "2GB",
        "checkpoint_timeout": "15min",
        "random_page_cost": "1.1",
        "max_locks_per_transaction": "256",  # a statement on a partitioned table locks every partition
        "jit": "off",
        "timezone": "UTC",
        "log_timezone": "UTC",
        "log_line_prefix": "%m [%p] %q%u@%d ",
        "shared_preload_libraries": preload,
        "dynamic_shared_memory_type": _shared_memory(account),
    }
    if not durable:
        # A power cut may now destroy everything, but a killed server still loses nothing committed:
        # synchronous_commit stays on, since without it a crash test would test the wrong thing.
        values |= {"fsync": "off", "full_page_writes": "off"}
    values |= options
    quoted = {name: value.replace("\\", "\\\\").replace("'", "''") for name, value in values.items()}
    text = "# Written at every start; change postgresql.conf instead, below its include line.\n" + "".join(
        f"{name} = '{value}'\n" for name, value in quoted.items()
    )
    write_private(data / CONF, text)
    if account:
        account.own(data / CONF)


def include(data: Path) -> None:
    """Make a new data folder read `kitaab.conf`."""
    with (data / "postgresql.conf").open("a", encoding="utf-8") as file:
        file.write(f"\ninclude_if_exists = '{CONF}'\n# Your own settings go below this line.\n")


def made_by(data: Path) -> int | None:
    """Return the major version that made the data folder, or None where it is no data folder."""
    try:
        return int((data / "PG_VERSION").read_text(encoding="ascii").strip())
    except (OSError, ValueError):
        return None


def shm_problem(account: Account | None) -> str | None:
    """Return why POSIX shared memory and semaphores do not work here, or None where they do."""
    shm = Path("/dev/shm")
    if not shm.is_dir():
        return "/dev/shm does not exist" if os.uname().sysname == "Linux" else None
    if os.statvfs(shm).f_flag & os.ST_RDONLY:
        return "/dev/shm is mounted read-only"
    may = account.may(shm, 3) if account else os.access(shm, os.W_OK | os.X_OK)
    return (
        None
        if may
        else f"/dev/shm cannot be written by {account.name if account else user_name(os.geteuid())}"
    )


def _shared_memory(account: Account | None) -> str:
    """Where /dev/shm cannot be used, PostgreSQL takes System V memory."""
    return "sysv" if shm_problem(account) else "posix"


def _shared_buffers() -> int:
    """Return megabytes: an eighth of the memory that we may use, between 32 and 256."""
    total = psutil.virtual_memory().total
    with suppress(OSError, ValueError):
        total = min(total, int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii")))
    return max(32, min(256, total // _MB // 8))

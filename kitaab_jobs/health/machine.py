"""What can be seen of this machine without asking a server."""

from __future__ import annotations

import multiprocessing
import os
import platform
import shutil
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from kitaab_jobs.health.facts import Disk, Package, PrivateFile

DISTRIBUTION = "kitaab-jobs"


def own_version() -> str:
    """Return the version of this package."""
    return version(DISTRIBUTION)


def packages() -> list[Package]:
    """Return Python, and each package that pyproject.toml asks for at run time, as installed."""
    asked = distribution(DISTRIBUTION)
    python = SpecifierSet(asked.metadata["Requires-Python"])
    here = platform.python_version()
    return [
        Package("Python", here, str(python), python.contains(here, prereleases=True)),
        *_required(asked.requires or []),
    ]


def _required(lines: list[str]) -> Iterator[Package]:
    for line in lines:
        wanted = Requirement(line)
        if wanted.marker and not wanted.marker.evaluate({"extra": ""}):
            continue
        try:
            found = version(wanted.name)
        except PackageNotFoundError:
            yield Package(wanted.name, None, str(wanted.specifier), False)
            continue
        fits = wanted.specifier.contains(found, prereleases=True)
        yield Package(wanted.name, found, str(wanted.specifier), fits)


def private_file(path: Path) -> PrivateFile:
    """Return the mode of a file that should be closed to others."""
    try:
        mode = path.stat().st_mode & 0o7777
    except OSError:
        return PrivateFile(str(path), None)
    return PrivateFile(str(path), mode, os.access(path, os.R_OK))


def shared_memory_problem() -> str | None:
    """Return why no semaphore can be made, or None. It tries, as every prefork worker does when it starts."""
    try:
        multiprocessing.get_context("fork").Lock()
    except (OSError, ImportError, ValueError) as error:
        return str(error)
    return None


def disk(data_dir: Path) -> Disk:
    """Return the file system of the embedded servers' data, or the one on which it would be made."""
    folder = data_dir.expanduser().absolute()
    servers = folder / "servers"
    there = servers.resolve() if servers.is_symlink() else folder
    while not there.exists() and there != there.parent:
        there = there.parent
    usage = shutil.disk_usage(there)
    problem = None
    if not there.is_dir():
        problem = f"{there} is not a folder"
    elif not os.access(folder if folder.exists() else there, os.W_OK | os.X_OK):
        problem = f"{there} cannot be written"
    return Disk(str(folder), usage.free, usage.total, folder.exists(), problem)

"""This machine: what is installed, set, and to be had."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

from kitaab_jobs.health.facts import Disk, Package, PrivateFile
from kitaab_jobs.health.rules.finding import OK, Verdict, fail, listed, ok, warn
from kitaab_jobs.health.rules.limits import DISK_FREE_BYTES

PREFIX = "KITAAB_"


def package(found: Package) -> Verdict:
    """Is the installed version one that pyproject.toml asks for?"""
    if found.installed is None:
        return fail(f"{found.name} is not installed", "install the requirements: make install")
    if not found.fits:
        return fail(
            f"{found.name} is {found.installed}, and {found.wanted} is wanted",
            "install it again from requirements.txt",
        )
    return ok(f"{found.name} {found.installed}")


def unread_variables(present: Iterable[str], known: Iterable[str]) -> Verdict:
    """Does every KITAAB_ variable belong to a setting? `known` are the settings' variables."""
    settings = {name.upper() for name in known}
    strays = sorted(
        name for name in present if name.upper().startswith(PREFIX) and name.upper() not in settings
    )
    if not strays:
        return ok("every KITAAB_ variable is one that is read")
    near = {name: get_close_matches(name.upper(), settings, n=1, cutoff=0.75) for name in strays}
    meant = [f"{found[0]} for {name}" for name, found in near.items() if found]
    verb = "is" if len(strays) == 1 else "are"
    return warn(
        f"{listed(strays)} {verb} set, and nothing reads {'it' if len(strays) == 1 else 'them'}",
        f"did you mean {listed(meant)}?" if meant else "unset it; --help and the README name the settings",
    )


def pool(size: int, most: int) -> Verdict:
    """Do the pool's two sizes agree?"""
    if size > most:
        return warn(
            f"KITAAB_POOL_SIZE is {size}, but KITAAB_POOL_MAX allows only {most}",
            f"set KITAAB_POOL_SIZE to {most} or less",
        )
    return ok(f"a process keeps {size} connections and opens at most {most}")


def private_file(found: PrivateFile) -> Verdict:
    """Is the file with the passwords closed to others?"""
    if found.mode is None:
        return ok("no embedded stack runs here")
    if not found.readable:
        return fail(f"{found.path} cannot be read", "run this as the user who started the embedded stack")
    if found.mode & 0o077:
        return fail(
            f"{found.path} holds passwords and has mode {found.mode:04o}", f"run chmod 600 {found.path}"
        )
    return ok(f"{found.path} is private")


def shared_memory(problem: str | None) -> Verdict:
    """Can processes share semaphores? Without them, worker processes die without a word."""
    if problem:
        return fail(
            f"worker processes cannot start, because a semaphore could not be made: {problem}",
            "mount /dev/shm writable for everyone (mode 1777), with some room",
        )
    return ok("worker processes can share memory")


def disk(found: Disk) -> Verdict:
    """Can the embedded servers' data folder be written, and is there room?"""
    remedy = "make room, or choose another folder with KITAAB_DATA_DIR"
    if not found.exists and (found.problem or not found.total):
        return ok(f"{found.path} does not exist, and only the embedded servers would need it")
    if found.problem:
        return warn(f"{found.problem}, so no embedded server can run", remedy)
    free = f"{_size(found.free)} of {_size(found.total)} are free for {found.path}"
    level = DISK_FREE_BYTES.level(found.free)
    return ok(free) if level == OK else Verdict(level, f"only {free}", remedy)


def _size(number: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number < 1024:
            return f"{number:.0f} {unit}"
        number /= 1024
    return f"{number:.1f} TiB"

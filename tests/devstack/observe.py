"""What tests look at from outside: processes, their arguments, and when something becomes true."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import psutil

T = TypeVar("T")


def wait_for(what: Callable[[], T], *, seconds: float = 20.0) -> T:
    """Return the first true result of `what`, and fail where there is none in time."""
    deadline = time.monotonic() + seconds
    while not (result := what()):
        assert time.monotonic() < deadline, f"nothing after {seconds:.0f} s"
        time.sleep(0.02)
    return result


def is_gone(pid: int) -> bool:
    """Whether no process has that id, or only one that nobody has waited for yet."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def at_work_in(folder: Path) -> list[int]:
    """Return the processes that work in `folder` or below, as the servers do."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if Path(process.cwd()).is_relative_to(folder):
                found.append(process.pid)
    return found


def family(pid: int) -> list[psutil.Process]:
    """Return the process and everything below it."""
    parent = psutil.Process(pid)
    return [parent, *parent.children(recursive=True)]


def family_words(pid: int) -> list[list[str]]:
    """Return the command lines of the process and of everything below it that has not ended meanwhile."""
    found = []
    for process in family(pid):
        with suppress(psutil.NoSuchProcess):
            found.append(process.cmdline())
    return found

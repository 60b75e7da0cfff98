"""Who the servers run as: PostgreSQL refuses to run as root, so under root they become `nobody`."""

from __future__ import annotations

import os
import pwd
import stat
from dataclasses import dataclass
from pathlib import Path

from kitaab_jobs.errors import StackError


@dataclass(frozen=True, slots=True)
class Account:
    """An operating system user."""

    name: str
    uid: int
    gid: int

    def may(self, path: Path, bits: int) -> bool:
        """Whether the mode of `path` gives this user all of `bits` (4 read, 2 write, 1 enter or run)."""
        try:
            info = path.stat()
        except OSError:
            return False
        shift = 6 if info.st_uid == self.uid else 3 if info.st_gid == self.gid else 0
        return (stat.S_IMODE(info.st_mode) >> shift) & bits == bits

    def stopped_at(self, path: Path) -> Path | None:
        """Return the first folder above `path` that this user may not enter, or None."""
        ways = reversed([*path.absolute().parents, *path.resolve().parents])
        return next((folder for folder in ways if not self.may(folder, 1)), None)

    def own(self, path: Path) -> None:
        """Give `path` to this user."""
        os.chown(path, self.uid, self.gid)


def server_account() -> Account | None:
    """Return the user that servers become, or None where they stay who we are (not root).

    Raises `StackError` where root has no user `nobody` to become.
    """
    if os.geteuid() != 0:
        return None
    try:
        found = pwd.getpwnam("nobody")
    except KeyError:
        raise StackError(
            "this is root, and there is no user 'nobody' to run the embedded servers as",
            remedy="run it as an ordinary user",
        ) from None
    return Account(found.pw_name, found.pw_uid, found.pw_gid)


def user_name(uid: int) -> str:
    """Return the name of `uid`, or its number where it has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"

"""Where the servers' files are when root's data folder cannot be entered by the servers' user.

Root's home is closed to everyone, and it stays so: the servers' files then go below a shared folder
of root's, and the link `servers` in the data folder says where.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path

from kitaab_jobs.devstack.account import Account
from kitaab_jobs.devstack.binaries import shared_folder
from kitaab_jobs.devstack.folder import explained

LINK = "servers"
_GRACE_DAYS = 14


def servers_home(data_dir: Path, account: Account | None) -> Path:
    """Return the folder for the servers' files: `data_dir`, or the one that its link names."""
    link = data_dir / LINK
    if link.is_symlink() and link.is_dir():
        return link.resolve()
    if account is None or (data_dir / "postgres").exists() or account.stopped_at(link) is None:
        return data_dir
    with explained("make a folder for the servers of", data_dir):
        shared = shared_folder(account)
        _remove_abandoned(shared)
        home = Path(tempfile.mkdtemp(dir=shared, prefix="data-"))
        (home / "origin").write_text(str(link), encoding="utf-8")
        home.chmod(0o711)
        link.unlink(missing_ok=True)
        link.symlink_to(home)
    return home


def _remove_abandoned(shared: Path) -> None:
    """Remove folders that no link names any more and that nobody started for two weeks."""
    for home in shared.glob("data-*"):
        try:
            link = Path((home / "origin").read_text(encoding="utf-8"))
            used = max(path.stat().st_mtime for path in (home / "origin", *home.glob("*/server.json")))
        except OSError:
            continue
        abandoned = not (link.is_symlink() and link.resolve() == home)
        if abandoned and time.time() - used > _GRACE_DAYS * 86_400:
            shutil.rmtree(home, ignore_errors=True)

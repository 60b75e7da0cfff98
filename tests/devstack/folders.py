"""Folders for real servers."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path


def make_folder() -> Path:
    """Make a folder in memory where there is room, since the servers write a lot at their start."""
    shm = Path("/dev/shm")
    roomy = shm.is_dir() and os.access(shm, os.W_OK) and shutil.disk_usage(shm).free > 2 << 30
    made = Path(tempfile.mkdtemp(prefix="kitaab-test-", dir=shm if roomy else None))
    made.chmod(0o711)
    return made

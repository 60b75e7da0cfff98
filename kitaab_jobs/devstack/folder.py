"""Files that the stack keeps: written whole or not at all, private, and locked while in use."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from kitaab_jobs.errors import AlreadyRunning, StackError

_REMEDIES = {
    errno.ENOSPC: "free some disk space",
    errno.EDQUOT: "free some of your quota",
    errno.EROFS: "choose a folder that can be written with --data-dir",
    errno.EACCES: "choose a folder that you may write with --data-dir",
    errno.EPERM: "choose a folder that you may write with --data-dir",
    errno.ENOTDIR: "choose a folder with --data-dir",
    errno.EEXIST: "choose a folder with --data-dir",
}


@contextmanager
def explained(doing: str, path: Path) -> Iterator[None]:
    """Turn an OSError into a `StackError` that says what could not be done to which path, and why."""
    try:
        yield
    except OSError as error:
        where = f"{error.filename}" if error.filename else f"{path}"
        reason = error.strerror or str(error)
        raise StackError(
            f"cannot {doing} {where} ({reason})", remedy=_REMEDIES.get(error.errno or 0)
        ) from error


def write_private(path: Path, text: str, *, durable: bool = False) -> None:
    """Write `path` atomically with mode 0600: a reader sees the old text or the new, never a part.

    With `durable` it survives a power cut from then on.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(name)
        raise


class Secrets:
    """Random passwords in a file of mode 0600, made at the first question and kept from then on."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __getitem__(self, name: str) -> str:
        known = self._read()
        if name not in known:
            known[name] = secrets.token_urlsafe(24)
            with explained("write", self.path):
                write_private(self.path, json.dumps(known, indent=1) + "\n", durable=True)
        return known[name]

    def __contains__(self, name: str) -> bool:
        return name in self._read()

    def _read(self) -> dict[str, str]:
        with explained("read", self.path):
            try:
                text = self.path.read_text(encoding="utf-8")
            except FileNotFoundError:
                return {}
        try:
            known = json.loads(text)
        except ValueError as error:
            raise StackError(
                f"{self.path} is damaged ({error})",
                remedy=f"restore it, or move {self.path.parent} away to start with an empty one",
            ) from None
        return {str(k): str(v) for k, v in known.items()}


class FolderLock:
    """An exclusive lock on a folder, held by the process and freed by the kernel when it dies.

    The file carries who holds it and where its servers are, for the message to the second comer.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handle: int | None = None

    @property
    def held(self) -> bool:
        """Whether we hold it."""
        return self._handle is not None

    def take(self) -> None:
        """Take the lock; raise `AlreadyRunning` with the holder's note where it is taken."""
        with explained("write", self.path):
            handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(handle, 4096, 0).decode("utf-8", "replace").strip() or "another process"
            os.close(handle)
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise StackError(f"cannot lock {self.path} ({error.strerror})") from error
            raise AlreadyRunning(
                f"{self.path.parent} is in use by {holder}",
                remedy="use that one, stop it first, or choose another folder with --data-dir",
            ) from None
        self._handle = handle
        self.note("")

    def note(self, text: str) -> None:
        """Say what runs here; the process id is added."""
        if self._handle is not None:
            line = f"pid {os.getpid()}" + (f": {text}" if text else "") + "\n"
            with explained("write", self.path):
                os.ftruncate(self._handle, 0)
                os.pwrite(self._handle, line.encode(), 0)

    def free(self) -> None:
        """Give the lock back. The file stays: removing it would let two processes lock two files."""
        if self._handle is not None:
            with suppress(OSError):
                os.ftruncate(self._handle, 0)
            os.close(self._handle)
            self._handle = None

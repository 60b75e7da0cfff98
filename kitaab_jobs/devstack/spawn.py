"""Start a child that never outlives us, whichever thread asks for it and however we die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

from kitaab_jobs.devstack import launcher
from kitaab_jobs.devstack.account import Account

# The kernel sends the death signal when the *thread* that started the child ends. So one thread
# starts them all, and it lives as long as the process.
_keeper = ThreadPoolExecutor(max_workers=1, thread_name_prefix="kitaab-spawn")


def spawn(
    command: Sequence[str | Path],
    *,
    log: int | IO[bytes],
    env: Mapping[str, str],
    death_signal: signal.Signals = signal.SIGKILL,
    account: Account | None = None,
    cwd: Path = Path("/"),
    stdin: IO[bytes] | None = None,
    umask: int = -1,
) -> subprocess.Popen[bytes]:
    """Start `command` in its own session, its output going to `log`, and return its process.

    It gets `death_signal` when we die, by whatever cause. With `account` it runs as that user. Where
    the command cannot be run, the process ends with 126 and a line in the log that says why.
    """
    who = f"{account.uid}:{account.gid}" if account else "-"
    words = [str(word) for word in command]
    launch = [sys.executable, "-I", "-S", launcher.__file__, str(os.getpid()), str(int(death_signal)), who]

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            launch + words,
            stdin=stdin or subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=dict(env),
            cwd=cwd,
            start_new_session=True,
            umask=umask,
        )

    return _keeper.submit(start).result()


def signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Send a signal to a child and everything in its process group."""
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return
    except PermissionError:
        process.send_signal(number)


def ended(process: subprocess.Popen[bytes]) -> str:
    """Say how a process ended, as in `(pid 12) was killed by SIGKILL`."""
    code = process.returncode
    if code is None or code >= 0:
        return f"(pid {process.pid}) ended with exit code {code}"
    try:
        return f"(pid {process.pid}) was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"(pid {process.pid}) was killed by signal {-code}"


def server_env() -> dict[str, str]:
    """Return a bare environment: a server must not see our secrets, nor obey our PG* variables."""
    return {"PATH": os.defpath, "LANG": "C", "LC_ALL": "C", "TZ": "UTC", "HOME": "/"}

"""Run as a script in a new process: change the user, die with the parent, become the command.

    python -I -S launcher.py PARENT_PID DEATH_SIGNAL UID:GID|- COMMAND ...

This is a program and not a `preexec_fn`, because the latter may deadlock in a process with threads.
Only the standard library is imported, and only what it needs: it costs about 15 ms.
"""

import ctypes
import os
import signal
import sys


def main() -> None:
    """Become the command; exit 126 with one line where that fails."""
    parent, death, who, *command = sys.argv[1:]
    try:
        if who != "-":
            uid, gid = map(int, who.split(":"))
            os.setgroups([])
            os.setgid(gid)
            os.setuid(uid)
        if sys.platform == "linux":
            # After the change of user, which clears it; and it is sent only for a parent that dies
            # from now on, so one that is gone already has to be noticed.
            ctypes.CDLL(None).prctl(1, int(death), 0, 0, 0)
            if os.getppid() != int(parent):
                sys.exit(125)
        for name in ("SIGPIPE", "SIGXFSZ"):  # Python ignores them, and the command would inherit that
            signal.signal(getattr(signal, name), signal.SIG_DFL)
        os.execv(command[0], command)
    except OSError as error:
        sys.stderr.write(f"FATAL: cannot run {command[0]} ({error.strerror})\n")
        sys.exit(126)


if __name__ == "__main__":
    main()

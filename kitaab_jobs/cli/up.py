"""`kitaab-jobs up`: the whole platform in one terminal."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from kitaab_jobs.cli.interruption import until_interrupted
from kitaab_jobs.errors import StackError, UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from kitaab_jobs.devstack.stack import Stack


def _folder(text: str) -> Path:
    """Return the folder; an empty one is a variable that was not set, and would mean the current folder."""
    if not text.strip():
        raise UsageError("--data-dir is empty", remedy="name a folder, or leave it out for yours")
    return Path(text)


DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        metavar="FOLDER",
        parser=_folder,
        help="Folder of the embedded servers [default: KITAAB_DATA_DIR, or yours].",
    ),
]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("up", help="Run PostgreSQL, Redis, workers, beat and Flower in this terminal.")(up)


def up(
    data_dir: DataDir = None,
    no_workers: Annotated[bool, typer.Option("--no-workers", help="Run only the servers.")] = False,
) -> None:
    """Start everything, show where it is, and stop it cleanly at Ctrl-C or SIGTERM."""
    from rich.console import Console

    from kitaab_jobs.devstack.processes import flower_address, platform_processes
    from kitaab_jobs.devstack.stack import Stack
    from kitaab_jobs.devstack.supervisor import Supervisor
    from kitaab_jobs.settings import Settings

    console = Console(highlight=False, soft_wrap=True)
    settings = Settings.load(data_dir=data_dir) if data_dir else Settings.load()
    if not no_workers:
        refuse_without_shared_memory()
    starting = console.status("Starting ...")  # shown on a terminal only
    with stoppable() as on_second_signal, starting, Stack(settings) as stack:
        os.environ["KITAAB_DATA_DIR"] = str(stack.data_dir)  # for what asks for settings() in here
        migrate(stack)
        supervisor = Supervisor(
            logs=stack.logs,
            env=stack.child_env(),
            servers=stack.servers,
            report=lambda line: console.print(f"{time.strftime('%H:%M:%S')} {line}", markup=False),
        )
        on_second_signal(supervisor.hurry)
        with supervisor:
            processes = [] if no_workers else platform_processes(stack.data_dir)
            supervisor.start([*([stack.mail.process] if stack.mail else []), *processes])
            starting.stop()
            wait_for_signal(lambda: show(console, stack, flower_address(processes)))
            console.print("Stopping ...")
    console.print("Stopped.")


def migrate(stack: Stack) -> None:
    """Bring the database's schema up to date, as its owner."""
    from kitaab_jobs.db.migrate import upgrade

    upgrade(stack.settings.admin)


def show(console: Console, stack: Stack, flower: str | None) -> None:
    """Print where everything is."""
    from kitaab_jobs.settings import default_folder

    rows = {
        "PostgreSQL": stack.psql,
        "Redis": stack.addresses["Redis"],
        "Flower": flower or "not started",
        "E-mails": stack.mail.address if stack.mail else "go to KITAAB_SMTP_URL",
        "Logs": str(stack.logs),
    }
    if stack.servers:
        rows["Passwords"] = str(stack.data_dir / "stack.env")
    if stack.data_dir != default_folder():
        rows["Elsewhere"] = (
            f"export KITAAB_DATA_DIR={shlex.quote(str(stack.data_dir))}  # for the other commands"
        )
    for name, value in rows.items():
        console.print(f"{name:<12}{value}", markup=False)  # never wrapped, so that it can be copied
    console.print("Press Ctrl-C to stop.")


def refuse_without_shared_memory() -> None:
    """Raise `StackError` where /dev/shm cannot be used: worker processes would die without a word."""
    from kitaab_jobs.devstack.cluster import shm_problem

    if problem := shm_problem(None):
        raise StackError(
            f"{problem}, so the workers cannot start", remedy="mount it with mode 1777, or use --no-workers"
        )


@contextmanager
def stoppable() -> Iterator[Callable[[Callable[[], None]], None]]:
    """Make the first SIGINT, SIGTERM or SIGHUP raise KeyboardInterrupt, so that everything unwinds once.

    Yields a function that takes what the later ones do (until then: nothing), since an interrupt
    in the middle of the unwinding would leave things behind.
    """
    later: list[Callable[[], None]] = []
    seen = 0

    def handle(_number: int, _frame: FrameType | None) -> None:
        nonlocal seen
        seen += 1
        if seen == 1:
            raise KeyboardInterrupt
        for action in later:
            action()

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield later.append
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def wait_for_signal(tell: Callable[[], None]) -> None:
    """Tell that all is up, and return when the process is asked to stop, be it at once."""
    with until_interrupted():
        tell()
        sys.stdout.flush()
        while True:
            time.sleep(3600)

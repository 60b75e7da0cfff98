"""How far long work is: a bar for each stage on a terminal, a line now and then elsewhere; both on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

import typer

if TYPE_CHECKING:
    from rich.console import Console

# Without a terminal: one line in so many seconds.
QUIET_SECONDS = 10.0


class OnProgress(Protocol):
    """Called with the stage, and how much of it is done, of how much where that is known."""

    def __call__(self, stage: str, done: int, total: int | None = None, /) -> None: ...


@contextmanager
def progress(
    console: Console | None = None, say: Callable[[str], None] | None = None
) -> Iterator[OnProgress]:
    """Yield a function to call as the work goes on. `console` is where the bar goes, `say` takes a line."""
    if not (console.is_terminal if console else sys.stderr.isatty()):
        yield _plain(say or (lambda line: typer.echo(line, err=True)))
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description:<10}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[count]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console or Console(stderr=True), transient=True) as bar:
        tasks: dict[str, TaskID] = {}

        def show(stage: str, done: int, total: int | None = None, /) -> None:
            if stage not in tasks:
                for old in [
                    old for old, id in tasks.items() if bar.tasks[bar.task_ids.index(id)].total is None
                ]:
                    bar.remove_task(tasks.pop(old))  # nobody knew how long it would take, and it is over
                tasks[stage] = bar.add_task(stage, total=None, count="")
            bar.update(tasks[stage], completed=done, total=total, count=_count(done, total))

        yield show


def _plain(say: Callable[[str], None]) -> OnProgress:
    last = time.monotonic()

    def show(stage: str, done: int, total: int | None = None, /) -> None:
        nonlocal last
        if time.monotonic() - last >= QUIET_SECONDS:
            last = time.monotonic()
            say(f"{stage}: {_count(done, total)}".removesuffix(": "))

    return show


def _count(done: int, total: int | None) -> str:
    if total is None:
        return f"{done:,}" if done else ""
    return f"{done:,} of {total:,}"

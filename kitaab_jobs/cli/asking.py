"""The question before a change, and the options that spare it."""

from __future__ import annotations

from typing import Annotated

import typer

from kitaab_jobs.cli.interruption import is_interruption
from kitaab_jobs.errors import UsageError

DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


def confirmed(question: str) -> bool:
    """Ask; raise `UsageError` where nobody can answer, and KeyboardInterrupt at Ctrl-C."""
    try:
        return typer.confirm(question)
    except typer.Abort as error:
        typer.echo(err=True)
        if is_interruption(error):
            raise KeyboardInterrupt from None
        raise UsageError(f"nobody answered '{question}'", remedy="say --yes") from None

"""`kitaab-jobs reminders`: what people are reminded of, and how they are reached."""

from __future__ import annotations

import typer

from kitaab_jobs.cli import reminders_send_test


def register(app: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(help="Look at reminders, and try out how people are reached.", no_args_is_help=True)
    group.callback()(lambda: None)  # a group stays one with a single command
    reminders_send_test.register(group)
    app.add_typer(group, name="reminders")

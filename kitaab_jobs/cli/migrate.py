"""`kitaab-jobs migrate`: bring the schema up to date."""

from __future__ import annotations

from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("migrate", help="Bring the database's schema up to date, as its owner.")(migrate)


def migrate(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be applied.")] = False,
    sql: Annotated[
        bool, typer.Option("--sql", help="Print the SQL of all migrations; needs no server.")
    ] = False,
) -> None:
    """Apply the migrations that the database at KITAAB_ADMIN_URL lacks. Safe to repeat and to interrupt."""
    from kitaab_jobs.db import migrate as migrations
    from kitaab_jobs.settings import redacted, settings

    if sql:
        migrations.print_sql()
        return
    url = settings().admin
    todo = migrations.pending(url)
    if dry_run:
        typer.echo("\n".join(f"would apply {revision}" for revision in todo) or "nothing to apply")
        return
    for revision in migrations.upgrade(url):
        typer.echo(f"applied {revision}")
    typer.echo(f"{redacted(url)} is at {migrations.head()}")

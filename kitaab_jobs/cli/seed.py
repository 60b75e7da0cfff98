"""`kitaab-jobs seed`: sample data into the database."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Annotated

import typer

from kitaab_jobs.cli.bars import progress


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("seed", help="Write sample data that looks like life.")(seed)


def seed(
    people: Annotated[int, typer.Option("--people", help="How many people.")] = 500,
    years: Annotated[int, typer.Option("--years", help="Years of entries, up to today.")] = 3,
    number: Annotated[
        int, typer.Option("--seed", help="The same number gives the same data on the same day.")
    ] = 1,
    add: Annotated[bool, typer.Option("--add", help="Also where people are there already.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Report as JSON.")] = False,
) -> None:
    """Write made-up people with years of deeds, entries, merits and reminders.

    It goes into the database at KITAAB_ADMIN_URL, whole or not at all.
    """
    from kitaab_jobs.devstack.sample import load
    from kitaab_jobs.settings import settings

    with progress() as on_progress:
        report = load(
            settings().admin,
            people=people,
            years=years,
            seed=number,
            today=datetime.now(UTC).date(),
            on_progress=on_progress,
            add=add,
        )
    if as_json:
        typer.echo(json.dumps(report.as_dict()))
        return
    typer.echo(
        f"{report.people:,} people in {report.zones} zones and {report.entries:,} entries"
        f" from {report.first_day} to {report.last_day}, in {report.seconds:.1f} s"
    )
    typer.echo(f"merits that lack one small entry: {report.nearly_there:,}")

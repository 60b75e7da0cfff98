"""`kitaab-jobs progress`: how far people are, and why. What changes it is in progress_change.py."""

from __future__ import annotations

from typing import Annotated

import typer

from kitaab_jobs.cli.progress_change import as_owner, recompute
from kitaab_jobs.cli.tables import Json
from kitaab_jobs.cli.times import day, now


def register(app: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(help="See how far people are and why, and compute it again.", no_args_is_help=True)
    group.command("show", help="Show somebody's merits, targets and streaks.")(show)
    group.command("explain", help="Say which entries a goal counts, and why not others.")(explain)
    group.command("recompute", help="Compute goals again, and say what was wrong.")(recompute)
    app.add_typer(group, name="progress")


def show(
    user: Annotated[str, typer.Argument(metavar="USER", help="Their id or e-mail.")],
    everything: Annotated[
        bool, typer.Option("--all", help="Those too that are deleted or switched off.")
    ] = False,
    limit: Annotated[int, typer.Option("--limit", min=1, max=100_000, help="How many of each.")] = 50,
    as_json: Json = False,
) -> None:
    """Show what the goals of a person show now, their last two weeks, and the streaks of their items."""
    from kitaab_jobs.cli import progress_text
    from kitaab_jobs.progress import shown

    with as_owner() as session:
        found = shown.show(session, user.strip(), now=now(), everything=everything, limit=limit)
    progress_text.show_json(found) if as_json else progress_text.show(found)


def explain(
    goal: Annotated[int, typer.Argument(metavar="MERIT", help="The merit's id.")],
    target: Annotated[bool, typer.Option("--target", help="It is a target's id.")] = False,
    on: Annotated[
        str | None, typer.Option("--on", help="Look at the window that ends on this day: 2026-11-25.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=0, help="How many entries of a kind.")] = 20,
    as_json: Json = False,
) -> None:
    """Say for each item of a goal which entries count in its window, and why the others do not."""
    from kitaab_jobs.cli import progress_text
    from kitaab_jobs.progress import shown

    until = None if on is None else day(on, "--on")
    with as_owner() as session:
        found = shown.explain(session, "target" if target else "merit", goal, now=now(), on=until)
    progress_text.explain_json(found) if as_json else progress_text.explain(found, limit)

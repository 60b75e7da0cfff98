"""`kitaab-jobs progress recompute`: compare, ask, compute in batches, say what was wrong."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from kitaab_jobs.cli.asking import DryRun, Yes, confirmed
from kitaab_jobs.cli.bars import progress
from kitaab_jobs.cli.times import now
from kitaab_jobs.errors import KitaabError, UsageError

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from kitaab_jobs.progress.queries.plan import Look, Planned

# So many differences are written one by one, and changed without a question.
NAMED = 50
MUCH = 20


def recompute(
    user: Annotated[str | None, typer.Option("--user", help="All of a person, by id or e-mail.")] = None,
    merit: Annotated[int | None, typer.Option("--merit", help="One merit, by its id.")] = None,
    target: Annotated[int | None, typer.Option("--target", help="One target, by its id.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Everybody's.")] = False,
    dry_run: DryRun = False,
    yes: Yes = False,
) -> None:
    """Compare what goals show with their entries, say which differ, and compute those again.

    It asks first where more than 20 goals would change. progress.reconcile sees to the same every night.
    """
    from kitaab_jobs.db.engines import primary
    from kitaab_jobs.progress import recompute as work

    if sum([user is not None, merit is not None, target is not None, everything]) != 1:
        raise UsageError(
            "it was not said what to compute", remedy="give one of --user, --merit, --target and --all"
        )
    engine, at = primary("kitaab-jobs cli"), now()
    goals: Iterable[tuple[str, list[int]]]
    if merit is not None or target is not None:
        goals = [_one(merit, target)]
    else:
        goals = work.of_person(engine, None if user is None else _person(user))
    planned: list[Planned] = []
    compared = 0
    with progress() as on_progress:
        for kind, ids in goals:
            planned += work.plan(engine, kind, ids, at)
            compared += len(ids)
            on_progress("comparing", compared)
    _tell(planned, compared)
    if dry_run or not planned:
        return
    if len(planned) > MUCH and not yes and not confirmed(f"compute {_goals(len(planned))} again?"):
        typer.echo("nothing was changed", err=True)
        raise typer.Exit(1)
    changed = completed = postponed = 0
    try:
        with progress() as on_progress:
            for batch in work.apply(engine, planned, at):
                changed += len(batch.changed)
                completed += sum(goal.completed_now for goal in batch.changed)
                postponed += batch.postponed
                on_progress("computing", changed, len(planned))
    finally:  # also where it was interrupted, or failed: what is done is done
        typer.echo(f"{_goals(changed)} changed, {completed:,} of them completed by it")
        if postponed:
            typer.echo(f"{_goals(postponed)} held by somebody else, and marked for progress.refresh")


def _one(merit: int | None, target: int | None) -> tuple[str, list[int]]:
    """Return the one goal that is meant; raise where there is none, or it is not computed any more."""
    from kitaab_jobs.progress.shown import find_goal

    kind, id = ("merit", merit) if target is None else ("target", target)
    assert id is not None
    with as_owner() as session:
        goal = find_goal(session, kind, id)
    states = {"deleted": goal.is_deleted, "switched off": not goal.is_active, "frozen": goal.is_frozen}
    if why := next((state for state, holds in states.items() if holds), None):
        raise KitaabError(f"{kind} {id} is {why}, so it keeps what it shows", remedy="bring it back first")
    return kind, [id]


def _person(who: str) -> int:
    from kitaab_jobs.progress.shown import find

    with as_owner() as session:
        return find(session, who.strip()).id


def _tell(planned: list[Planned], compared: int) -> None:
    """Write what differs."""
    for one in planned[:NAMED]:
        typer.echo(f"{one.kind} {one.id} of person {one.user_id}: {_change(one.shows, one.will_show)}")
    if len(planned) > NAMED:
        typer.echo(f"and {len(planned) - NAMED:,} more")
    typer.echo(f"{_goals(compared)} compared, {f'{len(planned):,}' if planned else 'none'} out of date")


def _change(before: Look, after: Look) -> str:
    parts = []
    if before.percent != after.percent:
        parts.append(f"{before.percent} % -> {after.percent} %")
    if before.is_satisfied != after.is_satisfied:
        parts.append("satisfied now" if after.is_satisfied else "no longer satisfied")
    if before.completed_on != after.completed_on:
        parts.append(f"completed on {after.completed_on}")
    return ", ".join(parts)


def _goals(count: int) -> str:
    return f"{count:,} goal" if count == 1 else f"{count:,} goals"


@contextmanager
def as_owner() -> Iterator[Session]:
    """Yield a session that reads one moment's rows, as the owner: workers may not see what things are called."""
    from sqlalchemy.orm import Session

    from kitaab_jobs.db.engines import owner
    from kitaab_jobs.db.refusals import explained
    from kitaab_jobs.settings import settings

    config = settings()
    engine = owner(config, "kitaab-jobs progress").execution_options(
        isolation_level="REPEATABLE READ", postgresql_readonly=True
    )
    with explained(config.admin, setting="KITAAB_ADMIN_URL"), Session(engine) as session:
        yield session

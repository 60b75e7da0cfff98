"""`kitaab-jobs jobs retry|cancel|purge`: plan, ask, do it in batches, say what was done."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from kitaab_jobs.cli.asking import DryRun, Yes, confirmed
from kitaab_jobs.cli.bars import progress
from kitaab_jobs.cli.times import span
from kitaab_jobs.errors import UsageError

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from kitaab_jobs.runtime.changes import Action
    from kitaab_jobs.runtime.operators import Filter

_LOOK_EVERY_SECONDS = 0.5

Ids = Annotated[list[UUID] | None, typer.Argument(help="Ids of jobs.", metavar="[ID]...", show_default=False)]
State = Annotated[list[str] | None, typer.Option("--state", help="Only jobs in this state; may be repeated.")]
Name = Annotated[str | None, typer.Option("--name", help="Only jobs of this name; * stands for anything.")]
Queue = Annotated[str | None, typer.Option("--queue", help="Only jobs of this queue.")]
Older = Annotated[
    str | None, typer.Option("--older-than", help="Only jobs untouched for this long: 90s, 12h, 30d.")
]

# For each verdict: what would be done, and what was done.
_WOULD = {
    "replayed": "would run again",
    "twin": "would be skipped, as another one with the same name and unique key is active or newer",
    "waiting": "would be cancelled (waiting)",
    "running": "would be asked to stop (running)",
    "dead": "would be cancelled (dead)",
    "deleted": "would be deleted",
    "waited_for": "would be kept: dead, and other jobs wait for their group",
}
_DID = {
    "replayed": "will run again",
    "twin": "skipped, as another one with the same name and unique key is active or newer",
    "waiting": "cancelled (waiting)",
    "running": "asked to stop (running)",
    "dead": "cancelled (dead)",
    "deleted": "deleted",
    "waited_for": "kept: dead, and other jobs wait for their group",
}


def retry(
    ids: Ids = None,
    state: State = None,
    name: Name = None,
    queue: Queue = None,
    older_than: Older = None,
    dry_run: DryRun = False,
    yes: Yes = False,
) -> None:
    """Run dead or cancelled jobs again, with all their attempts; the dead ones where no state is named.

    Of jobs with the same name and unique key only the newest runs again, and none while one is active.
    """
    from kitaab_jobs.db.engines import primary
    from kitaab_jobs.runtime.changes import REPLAY

    refuse_states("run again", state, REPLAY.states)
    wanted = filter_(ids, state or (None if ids else REPLAY.default), name, queue, older_than)
    _change(primary("kitaab-jobs cli"), "run again", REPLAY, wanted, dry_run=dry_run, yes=yes)


def cancel(
    ids: Ids = None,
    state: State = None,
    name: Name = None,
    queue: Queue = None,
    older_than: Older = None,
    reason: Annotated[str, typer.Option("--reason", help="Kept with the job.")] = "cancelled by an operator",
    wait: Annotated[bool, typer.Option("--wait", help="Wait until those that run have ended.")] = False,
    dry_run: DryRun = False,
    yes: Yes = False,
) -> None:
    """Cancel jobs that wait, and ask those that run to stop; after 20 seconds they are interrupted.

    A dead job keeps the group that waits for it waiting. Cancelled by its id or with --state dead, it lets it go.
    """
    from kitaab_jobs.db.engines import primary
    from kitaab_jobs.runtime.changes import CANCEL

    refuse_states("be cancelled", state, CANCEL.states)
    if filter_(ids, state, name, queue, older_than).is_open:
        raise UsageError(
            "it was not said which jobs to cancel",
            remedy="give ids, --state, --name, --queue or --older-than; --name '*' means all",
        )
    wanted = filter_(ids, state or (None if ids else CANCEL.default), name, queue, older_than)
    engine = primary("kitaab-jobs cli")
    done = _change(engine, "cancel", CANCEL, wanted, dry_run=dry_run, yes=yes, reason=reason)
    if wait and done.get("running"):
        _wait_for(engine, done["running"])


def purge(
    older_than: Annotated[str, typer.Option("--older-than", help="Only jobs that ended this long ago: 30d.")],
    state: State = None,
    name: Name = None,
    queue: Queue = None,
    dry_run: DryRun = False,
    yes: Yes = False,
) -> None:
    """Delete rows of jobs that have ended, in small batches; not the dead ones for whose group others wait."""
    from kitaab_jobs.db.engines import primary
    from kitaab_jobs.runtime.changes import PURGE

    refuse_states("be purged", state, PURGE.states)
    wanted = filter_(None, state or PURGE.default, name, queue, older_than)
    _change(primary("kitaab-jobs cli"), "delete", PURGE, wanted, dry_run=dry_run, yes=yes)


def filter_(
    ids: Collection[UUID] | None,
    state: Collection[str] | None,
    name: str | None,
    queue: str | None,
    older: str | None,
) -> Filter:
    """Return the filter that the options mean."""
    from kitaab_jobs.runtime.operators import Filter

    age = None if older is None else span(older, "--older-than")
    return Filter(tuple(ids or ()), tuple(state or ()), name, queue, age)


def refuse_states(what: str, given: Collection[str] | None, allowed: Collection[str]) -> None:
    """Raise `UsageError` for a state that makes no sense here."""
    for state in given or ():
        if state not in allowed:
            raise UsageError(f"jobs that are {state!r} cannot {what}", remedy=f"give {' or '.join(allowed)}")


def _change(
    engine: Engine,
    verb: str,
    action: Action,
    wanted: Filter,
    *,
    dry_run: bool,
    yes: bool,
    reason: str | None = None,
) -> Mapping[str, list[UUID]]:
    """Plan, ask and do; return the jobs by what was done. Exit 1 where an id was given in vain."""
    from kitaab_jobs.runtime import changes, operators

    with engine.connect() as connection:
        in_vain = _in_vain(operators.states_of(connection, wanted.ids), action, wanted)
        planned = changes.plan(connection, action, wanted)
    total = sum(sum(planned.get(verdict, {}).values()) for verdict in action.changes)
    done: dict[str, list[UUID]] = {}
    if dry_run or not total:
        if not total:
            typer.echo(f"nothing to {verb}")
        for verdict, names in planned.items():
            typer.echo(f"{_jobs(sum(names.values()))} {_WOULD[verdict]}")
            for name, jobs in names.items():
                typer.echo(f"  {name}: {jobs:,}")
    else:
        if not yes and not confirmed(f"{verb} {_jobs(total)}?"):
            typer.echo("nothing was changed", err=True)
            raise typer.Exit(1)
        done = _apply(engine, verb, action, wanted, total, reason)
    for line in in_vain:
        typer.echo(line, err=True)
    if in_vain:
        raise typer.Exit(1)
    return done


def _apply(
    engine: Engine, verb: str, action: Action, wanted: Filter, total: int, reason: str | None
) -> dict[str, list[UUID]]:
    from kitaab_jobs.runtime import changes

    found: dict[str, list[UUID]] = {}
    try:
        with progress() as on_progress:
            for batch in changes.apply(engine, action, wanted, reason=reason):
                for verdict, ids in batch.items():
                    found.setdefault(verdict, []).extend(ids)
                on_progress(verb, min(total, sum(map(len, found.values()))), total)
    finally:  # also where it was interrupted, or failed: what is done is done
        for verdict, ids in found.items():
            typer.echo(f"{_jobs(len(ids))} {_DID[verdict]}")
    if not found:
        typer.echo(f"nothing to {verb} any more")
    return found


def _in_vain(states: Mapping[UUID, str], action: Action, wanted: Filter) -> list[str]:
    """Return a line for each id whose job is past this; raise where there is no such job at all."""
    from kitaab_jobs.runtime import operators

    if unknown := [id for id in wanted.ids if id not in states]:
        raise operators.no_job(*unknown)
    meant = wanted.within(action.states).states
    return [
        f"job {id} is {state}: only jobs that are {' or '.join(meant)} are meant"
        for id, state in states.items()
        if state not in meant
    ]


def _wait_for(engine: Engine, ids: list[UUID]) -> None:
    """Return when none of these jobs runs any more, and say how they ended."""
    from kitaab_jobs.cli.patience import Patience
    from kitaab_jobs.runtime import operators

    patience = Patience(lambda line: typer.echo(line, err=True))

    def states() -> list[str]:
        with engine.connect() as connection:
            return list(operators.states_of(connection, ids).values())

    with progress() as on_progress:
        while running := (found := patience.until_done(states)).count("running"):
            on_progress("waiting", len(ids) - running, len(ids))
            time.sleep(_LOOK_EVERY_SECONDS)
    ended = ", ".join(f"{found.count(state)} {state}" for state in operators.STATES if state in found)
    typer.echo(f"no longer running: {ended}")


def _jobs(count: int) -> str:
    return f"{count:,} job" if count == 1 else f"{count:,} jobs"

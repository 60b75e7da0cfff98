"""`kitaab-jobs schedules pause|resume|run|backfill|remove`. What is written by hand is in schedules_write.py."""

from __future__ import annotations

import datetime as dt
import getpass
import socket
from typing import TYPE_CHECKING, Annotated

import typer

from kitaab_jobs.cli.asking import DryRun, Yes, confirmed
from kitaab_jobs.cli.enqueue import tell, waited
from kitaab_jobs.cli.schedules_text import count_of, when
from kitaab_jobs.cli.times import instant
from kitaab_jobs.errors import UsageError

if TYPE_CHECKING:
    from kitaab_jobs.runtime.backfills import Backfill
    from kitaab_jobs.runtime.policies import Overlap

Name = Annotated[str, typer.Argument(help="Its name.", metavar="NAME")]
Names = Annotated[list[str], typer.Argument(help="Names of schedules.", metavar="NAME...")]

_OVERLAPS: tuple[Overlap, ...] = ("queue", "allow")


def pause(
    names: Names,
    note: Annotated[str, typer.Option("--note", help="Why; kept with the pause.")] = "",
) -> None:
    """Pause schedules until they are resumed.

    What they plan meanwhile is recorded as skipped. A pause outlives deploys, of schedules of beat_schedule.py too.
    Pausing again changes the note. All that are named are paused, or none.
    """
    from kitaab_jobs.db.engines import primary
    from kitaab_jobs.runtime import roster, schedules

    with primary("kitaab-jobs cli").begin() as connection:
        now = roster.clock(connection)
        paused = [schedules.pause(connection, name, now=now, by=operator(), note=note) for name in names]
    for entry in paused:
        typer.echo(f"{entry.name} is {entry.pause}")


def resume(names: Names) -> None:
    """Let paused schedules fire again, from now on.

    What was planned meanwhile stays skipped; `backfill` runs it. All that are named are resumed, or none.
    """
    from kitaab_jobs.db.engines import primary
    from kitaab_jobs.runtime import roster, schedules

    with primary("kitaab-jobs cli").begin() as connection:
        now = roster.clock(connection)
        resumed = [schedules.resume(connection, name, now=now) for name in names]
    for entry in resumed:
        if entry.next_fire_at is None:
            typer.echo(f"{entry.name} is resumed, but has ended")
        else:
            typer.echo(
                f"{entry.name} is resumed, and fires at {entry.next_fire_at.isoformat(timespec='seconds')}"
            )


def run(
    name: Name,
    beside: Annotated[
        bool, typer.Option("--beside", help="Even while another run of it is not over.")
    ] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait for its end; exit 1 unless it succeeds.")
    ] = False,
) -> None:
    """Run a schedule's job now, beside its plan.

    Whether it is paused or not. The job's id is printed; with --wait also its result.
    """
    from kitaab_jobs.db.engines import primary
    from kitaab_jobs.runtime import roster, schedules

    engine = primary("kitaab-jobs cli")
    with engine.begin() as connection:
        now = roster.clock(connection)
        id = schedules.run_now(connection, name, now=now, by=operator(), beside=beside)
    if wait:
        tell(waited(engine, id))
    else:
        typer.echo(str(id))


def backfill(
    name: Name,
    since: Annotated[
        str, typer.Option("--from", help="From here: 2026-11-01T00:00Z, or 2026-11-01 in its zone.")
    ],
    until: Annotated[str, typer.Option("--to", help="Up to here, included.")],
    overlap: Annotated[
        str | None, typer.Option("--overlap", help="queue: one after the other; allow: all at once.")
    ] = None,
    dry_run: DryRun = False,
    yes: Yes = False,
) -> None:
    """Run the planned fires of a range that were not run.

    That is what was missed or skipped, or what it would have fired before it was added. What was fired is left alone.
    They run one after the other, unless the schedule or --overlap says "allow".
    """
    from kitaab_jobs.db.engines import primary
    from kitaab_jobs.runtime import backfills, roster, schedules
    from kitaab_jobs.settings import settings

    way = _way(overlap)
    engine = primary("kitaab-jobs cli")
    with engine.connect() as connection:
        zone = schedules.get(connection, name).zone
        start, end = instant(since, "--from", zone), instant(until, "--to", zone)
        now = roster.clock(connection)
        plan = backfills.plan(connection, name, start, end, now=now, overlap=way)
    _say(plan, start, end)
    _say_forgotten(plan, settings().keep_fires_days)
    if dry_run or not plan.runs:
        return
    if not yes and not confirmed(f"run {count_of(plan.runs)} of {name}?"):
        typer.echo("nothing was changed", err=True)
        raise typer.Exit(1)
    with engine.begin() as connection:
        now = roster.clock(connection)
        done = backfills.run(connection, name, start, end, now=now, by=operator(), overlap=way)
    typer.echo(f"{count_of(done.runs)} of {name} will run" + _in_turn(done))


def remove(name: Name, dry_run: DryRun = False, yes: Yes = False) -> None:
    """Remove a schedule that was added live.

    What became of its fires stays on record. A run that is not over goes on; what waits for it is skipped.
    """
    from kitaab_jobs.db.engines import primary
    from kitaab_jobs.runtime import roster, schedules

    engine = primary("kitaab-jobs cli")
    with engine.connect() as connection:  # rolled back: it says what would be, with every check
        waiting = schedules.waiting(connection, name)
        entry = schedules.remove(connection, name, now=roster.clock(connection))
    skipped = f"; {count_of(waiting)} waiting for a run would be skipped" if waiting else ""
    typer.echo(f"{name}: {when(entry)}, {entry.job}{skipped}")
    if dry_run:
        return
    if not yes and not confirmed(f"remove {name}?"):
        typer.echo("nothing was changed", err=True)
        raise typer.Exit(1)
    with engine.begin() as connection:
        schedules.remove(connection, name, now=roster.clock(connection))
    typer.echo(f"{name} removed")


def operator() -> str:
    """Return who asks, for the record: user@host."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a user id without a name, as in a container
        user = "?"
    return f"{user}@{socket.gethostname()}"


def _way(overlap: str | None) -> Overlap | None:
    for known in _OVERLAPS:
        if overlap == known:
            return known
    if overlap is not None:
        raise UsageError(f"--overlap is {overlap!r}", remedy=f"it takes {' or '.join(_OVERLAPS)}")
    return None


def _say(plan: Backfill, start: dt.datetime, end: dt.datetime) -> None:
    """Print what a backfill would do."""
    typer.echo(
        f"{plan.entry.name} has {count_of([*plan.runs, *plan.done])} from {_minute(start)} to {_minute(end)}"
    )
    for outcome in sorted(set(plan.done.values())):
        typer.echo(f"  {list(plan.done.values()).count(outcome):,} {outcome} already")
    if len(plan.runs) > 1:
        typer.echo(
            f"  {len(plan.runs):,} to run{_in_turn(plan)}: {_minute(plan.runs[0])} to {_minute(plan.runs[-1])}"
        )
    elif plan.runs:
        typer.echo(f"  1 to run: {_minute(plan.runs[0])}")
    else:
        typer.echo("  nothing to run")


def _say_forgotten(plan: Backfill, days: int) -> None:
    """Print how many of the runs may be second ones, since the rows that would say so are gone."""
    if plan.unrecorded:
        typer.echo(
            f"  {len(plan.unrecorded):,} without a row, which is kept for {days} days (KITAAB_KEEP_FIRES_DAYS):"
            " what was run then runs again"
        )


def _minute(moment: dt.datetime) -> str:
    """Return a time in UTC, with its seconds only where there are any."""
    form = "%Y-%m-%dT%H:%M:%SZ" if moment.second or moment.microsecond else "%Y-%m-%dT%H:%MZ"
    return f"{moment:{form}}"


def _in_turn(plan: Backfill) -> str:
    if len(plan.runs) < 2:
        return ""
    return ", one after the other" if plan.one_by_one else ", beside each other"

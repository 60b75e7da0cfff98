"""`kitaab-jobs jobs`: what is in the ledger, and what to do about it."""

from __future__ import annotations

import datetime as dt
import json
import re
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

from kitaab_jobs.errors import UsageError

if TYPE_CHECKING:
    from kitaab_jobs.runtime.operators import Filter

_AGE = re.compile(r"(\d+)\s*([smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_TAIL_EVERY_SECONDS = 0.5

Ids = Annotated[list[UUID] | None, typer.Argument(help="Ids of jobs.", metavar="[ID]...", show_default=False)]
State = Annotated[list[str] | None, typer.Option("--state", help="Only jobs in this state; may be repeated.")]
Name = Annotated[str | None, typer.Option("--name", help="Only jobs of this name; * stands for anything.")]
Queue = Annotated[str | None, typer.Option("--queue", help="Only jobs of this queue.")]
Older = Annotated[
    str | None, typer.Option("--older-than", help="Only jobs untouched for this long: 90s, 12h, 30d.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


def register(app: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(help="Look at jobs, replay the dead, cancel, purge.", no_args_is_help=True)
    group.command("list", help="Show the newest jobs.")(list_)
    group.command("show", help="Show everything about one job.")(show)
    group.command("stats", help="Show how many jobs are in each state, and the oldest.")(stats)
    group.command("tail", help="Show jobs as they end, until Ctrl-C.")(tail)
    group.command("retry", help="Run dead or cancelled jobs again.")(retry)
    group.command("cancel", help="Cancel jobs that wait.")(cancel)
    group.command("purge", help="Delete rows of jobs that have ended.")(purge)
    app.add_typer(group, name="jobs")


def list_(
    state: State = None,
    name: Name = None,
    queue: Queue = None,
    older_than: Older = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=10_000, help="How many.")] = 50,
    as_json: Json = False,
) -> None:
    """Show the newest jobs that match."""
    from kitaab_jobs.db.engines import primary
    from kitaab_jobs.runtime import operators

    wanted = _filter(None, state, name, queue, older_than)
    with primary("kitaab-jobs cli").connect() as connection:
        jobs = operators.find(connection, wanted, limit)
    if as_json:
        typer.echo(json.dumps(jobs, default=str))
        return
    _table(
        ("id", "name", "state", "attempt", "created", "took", "what"),
        [
            (
                str(j["id"]),
                j["name"],
                j["state"],
                f"{j['attempt']}/{j['max_attempts']}",
                f"{j['created_at']:%m-%d %H:%M:%S}",
                _took(j),
                _progress(j) or j["error"] or "",
            )
            for j in jobs
        ],
    )


def show(id: UUID, as_json: Json = False) -> None:
    """Show everything about one job."""
    from kitaab_jobs.db.engines import primary
    from kitaab_jobs.runtime import operators

    with primary("kitaab-jobs cli").connect() as connection:
        job = operators.show(connection, id)
    if as_json:
        typer.echo(json.dumps(job))
        return
    for key, value in job.items():
        if value is not None:
            typer.echo(f"{key:<15} {json.dumps(value) if isinstance(value, dict) else value}")


def stats(as_json: Json = False) -> None:
    """Show counts and oldest ages; of the ended states, what ended within a day."""
    from kitaab_jobs.db.engines import primary
    from kitaab_jobs.runtime import operators

    with primary("kitaab-jobs cli").connect() as connection:
        rows = operators.stats(connection)
    if as_json:
        typer.echo(json.dumps(rows))
        return
    _table(
        ("state", "jobs", "oldest"),
        [(r["state"], str(r["jobs"]), _age(r["oldest_seconds"])) for r in rows],
    )


def tail(name: Name = None) -> None:
    """Show each job as it ends."""
    from kitaab_jobs.db.engines import primary
    from kitaab_jobs.runtime import operators

    engine = primary("kitaab-jobs cli")
    wanted = operators.Filter(states=operators.ENDED, name=name)
    seen: set[UUID] | None = None
    while True:
        with engine.connect() as connection:
            jobs = operators.find(connection, wanted, 500)
        for job in reversed(jobs):
            if seen is not None and job["id"] not in seen:
                typer.echo(
                    f"{job['finished_at']:%H:%M:%S} {job['state']:<10} {job['name']:<26} {_took(job)} {job['error'] or ''}"
                )
        seen = {job["id"] for job in jobs}
        time.sleep(_TAIL_EVERY_SECONDS)


def retry(
    ids: Ids = None,
    state: State = None,
    name: Name = None,
    queue: Queue = None,
    older_than: Older = None,
    dry_run: DryRun = False,
    yes: Yes = False,
) -> None:
    """Run dead or cancelled jobs again, with all their attempts."""
    from kitaab_jobs.runtime import operators

    wanted = _filter(ids, state or ["dead"] if not ids else state, name, queue, older_than)
    _act("replay", wanted, operators.replay, dry_run=dry_run, yes=yes)


def cancel(
    ids: Ids = None,
    name: Name = None,
    queue: Queue = None,
    older_than: Older = None,
    reason: Annotated[str, typer.Option("--reason", help="Kept with the job.")] = "cancelled by an operator",
    dry_run: DryRun = False,
    yes: Yes = False,
) -> None:
    """Cancel jobs that wait. A job that runs goes on."""
    from kitaab_jobs.runtime import operators

    wanted = _filter(ids, list(operators.WAITING), name, queue, older_than)
    _act("cancel", wanted, lambda e, f: operators.cancel(e, f, reason), dry_run=dry_run, yes=yes)


def purge(
    older_than: Annotated[str, typer.Option("--older-than", help="Only jobs that ended this long ago: 30d.")],
    state: State = None,
    name: Name = None,
    dry_run: DryRun = False,
    yes: Yes = False,
) -> None:
    """Delete rows of jobs that have ended, in small batches."""
    from kitaab_jobs.runtime import operators

    for given in state or ():
        if given not in operators.ENDED:
            raise UsageError(
                f"jobs that are {given!r} cannot be purged", remedy=f"these can: {', '.join(operators.ENDED)}"
            )
    wanted = _filter(None, state or list(operators.ENDED), name, None, older_than)
    _act("delete", wanted, operators.purge, dry_run=dry_run, yes=yes)


def _filter(
    ids: list[UUID] | None, state: list[str] | None, name: str | None, queue: str | None, older: str | None
) -> Filter:
    from kitaab_jobs.runtime.operators import Filter

    return Filter(tuple(ids or ()), tuple(state or ()), name, queue, _timedelta(older) if older else None)


def _act(verb: str, wanted: Filter, act: Callable[..., Iterator[int]], *, dry_run: bool, yes: bool) -> None:
    """Say what is meant, ask, and do it in batches, with the count so far on a terminal."""
    from kitaab_jobs.db.engines import primary
    from kitaab_jobs.runtime import operators

    engine = primary("kitaab-jobs cli")
    with engine.connect() as connection:
        counts = operators.count(connection, wanted)
    total = sum(counts.values())
    if dry_run or not total:
        typer.echo(f"would {verb} {_jobs(total)}" if total else f"nothing to {verb}")
        for name, jobs in counts.items():
            typer.echo(f"  {name}: {jobs}")
        return
    if not yes and not typer.confirm(f"{verb} {_jobs(total)}?"):
        raise typer.Exit(1)
    done = 0
    for size in act(engine, wanted):
        done += size
        if sys.stderr.isatty():
            typer.echo(f"\r{done} of {total}", nl=False, err=True)
    if sys.stderr.isatty():
        typer.echo("\r", nl=False, err=True)
    typer.echo(f"{verb}: {_jobs(done)}")


def _jobs(count: int) -> str:
    return f"{count} job" if count == 1 else f"{count} jobs"


def _timedelta(text: str) -> dt.timedelta:
    match = _AGE.fullmatch(text.strip())
    if match is None:
        raise UsageError(
            f"--older-than {text!r} is not a time", remedy="write it like 90s, 15m, 12h, 30d or 4w"
        )
    return dt.timedelta(**{_UNITS[match[2]]: int(match[1])})


def _took(job: dict[str, Any]) -> str:
    if not (job["started_at"] and job["finished_at"]):
        return ""
    return f"{(job['finished_at'] - job['started_at']).total_seconds():.2f} s"


def _progress(job: dict[str, Any]) -> str:
    return f"{job['progress_done']} of {job['progress_total']}" if job["progress_total"] else ""


def _age(seconds: float | None) -> str:
    return "" if seconds is None else str(dt.timedelta(seconds=round(seconds)))


def _table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    """Print columns that fit their content; the last one is cut at the terminal's width."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name in header:
        table.add_column(name, no_wrap=True, overflow="ellipsis" if name == header[-1] else "ignore")
    for row in rows:
        table.add_row(*row)
    Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 240).print(table)

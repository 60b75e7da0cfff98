"""`kitaab-jobs jobs`: what is in the ledger. What changes it is in jobs_change.py."""

from __future__ import annotations

import datetime as dt
import json
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

from kitaab_jobs.cli.jobs_change import (
    Name,
    Older,
    Queue,
    State,
    cancel,
    filter_,
    purge,
    refuse_states,
    retry,
)
from kitaab_jobs.cli.tables import Json, clock, one_line, table

if TYPE_CHECKING:
    from kitaab_jobs.runtime.operators import Count

_TAIL_EVERY_SECONDS = 0.5


def register(app: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(help="Look at jobs, replay the dead, cancel, purge.", no_args_is_help=True)
    group.command("list", help="Show the newest jobs.")(list_)
    group.command("show", help="Show everything about one job.")(show)
    group.command("stats", help="Show how many jobs are in each state, and the oldest.")(stats)
    group.command("tail", help="Show jobs as they end, until Ctrl-C.")(tail)
    group.command("retry", help="Run dead or cancelled jobs again.")(retry)
    group.command("cancel", help="Cancel jobs that wait, ask those that run to stop, let go of dead ones.")(
        cancel
    )
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

    wanted = filter_(None, state, name, queue, older_than)
    with primary("kitaab-jobs cli").connect() as connection:
        jobs = operators.find(connection, wanted, limit)
    if as_json:
        typer.echo(json.dumps(jobs))
        return
    header = ("id", "name", "state", "attempt", "created", "took", "what")
    table(
        header,
        [
            (
                j["id"],
                j["name"],
                j["state"],
                f"{j['attempt']}/{j['max_attempts']}",
                clock(j["created_at"]),
                _took(j),
                _what(j),
            )
            for j in jobs
        ],
    )


def show(id: Annotated[UUID, typer.Argument(help="Its id.", metavar="ID")], as_json: Json = False) -> None:
    """Show everything about one job."""
    from kitaab_jobs.db.engines import primary
    from kitaab_jobs.runtime import operators

    with primary("kitaab-jobs cli").connect() as connection:
        job = operators.show(connection, id)
    if as_json:
        typer.echo(json.dumps(job))
        return
    for key, value in job.items():
        if value is None or value is False:
            continue
        written = json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list | bool) else value
        typer.echo(f"{key:<20} {written}")


def stats(as_json: Json = False) -> None:
    """Show counts and oldest ages, in all and by queue; of the ended states, what ended within 24 hours."""
    from kitaab_jobs.contract import QUEUES
    from kitaab_jobs.db.engines import primary
    from kitaab_jobs.runtime import operators

    with primary("kitaab-jobs cli").connect() as connection:
        found = operators.stats(connection)
    queues = {
        queue: {state: found.get(queue, {}).get(state, operators.Count()) for state in operators.STATES}
        for queue in (*QUEUES, *sorted(found.keys() - QUEUES.keys()))
    }
    states = {
        state: sum((of[state] for of in queues.values()), operators.Count()) for state in operators.STATES
    }
    if as_json:
        typer.echo(
            json.dumps(
                {
                    "states": {state: asdict(count) for state, count in states.items()},
                    "queues": {q: {s: asdict(count) for s, count in of.items()} for q, of in queues.items()},
                    "ended_within_hours": operators.COUNTED_HOURS,
                }
            )
        )
        return
    table(("state", "jobs", "oldest"), [(s, f"{c.jobs:,}", _age(c)) for s, c in states.items()])
    typer.echo()
    table(
        ("queue", *operators.STATES),
        [(q, *(f"{of[s].jobs:,}" for s in operators.STATES)) for q, of in queues.items()],
    )


def tail(state: State = None, name: Name = None, queue: Queue = None) -> None:
    """Show each job as it ends."""
    from kitaab_jobs.cli.patience import Patience
    from kitaab_jobs.db.engines import primary
    from kitaab_jobs.runtime import operators
    from kitaab_jobs.runtime.tail import Endings

    refuse_states("have ended", state, operators.ENDED)
    engine = primary("kitaab-jobs cli")
    with engine.connect() as connection:
        endings = Endings(connection, filter_(None, state, name, queue, None))
        jobs = endings.new(connection)
    typer.echo("what ends from now on is shown; Ctrl-C ends this", err=True)
    patience = Patience(lambda line: typer.echo(line, err=True))
    while True:
        for job in jobs:
            took = f"{job.seconds:.2f} s" if job.started_at else "-"
            what = one_line(job.error) or (json.dumps(job.result) if job.result else "")
            typer.echo(
                f"{job.finished_at:%H:%M:%S} {job.state:<10} {job.name:<26} {took:>9}  {job.id}  {what}".rstrip()
            )
        if not jobs:
            time.sleep(_TAIL_EVERY_SECONDS)
        jobs = []
        with patience.outage(), engine.connect() as connection:
            jobs = endings.new(connection)


# --- how it is written ---------------------------------------------------------------------------


def _what(job: dict[str, Any]) -> str:
    """Return what there is to say of it beside its state."""
    parts = []
    if job["state"] == "running" and job["cancel_requested_at"]:
        parts.append("asked to stop")
    if job["after_group"]:
        parts.append(f"after group {job['after_group']}")
    elif job["state"] == "scheduled":
        parts.append(f"due {clock(job['run_at'])}")
    if job["progress_total"]:
        parts.append(f"{job['progress_done'] or 0:,} of {job['progress_total']:,}")
    parts.append(one_line(job["error"]))
    return "; ".join(filter(None, parts))


def _took(job: dict[str, Any]) -> str:
    try:
        started, finished = (dt.datetime.fromisoformat(job[key]) for key in ("started_at", "finished_at"))
    except (TypeError, ValueError):  # not started, or not of this era
        return ""
    return f"{(finished - started).total_seconds():.2f} s"


def _age(count: Count) -> str:
    return "" if count.oldest_seconds is None else str(dt.timedelta(seconds=round(count.oldest_seconds)))

"""`kitaab-jobs enqueue`: one job, now or later."""

from __future__ import annotations

import datetime as dt
import json
import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kitaab_jobs.errors import BadPayload, UsageError

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy import Engine

_LOOK_EVERY_SECONDS = 0.2


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("enqueue", help="Enqueue one job.")(enqueue)


def enqueue(
    name: Annotated[str, typer.Argument(help="Its name, such as progress.refresh.")],
    args: Annotated[str, typer.Option("--args", help="Its arguments, a JSON object.")] = "{}",
    unique: Annotated[
        str | None, typer.Option("--unique", help="While a job with this key has not ended, add none.")
    ] = None,
    at: Annotated[
        str | None, typer.Option("--at", help="Not before this time: 2026-11-23T07:00+05:00 or ...Z.")
    ] = None,
    priority: Annotated[int, typer.Option("--priority", help="Higher goes first.")] = 0,
    queue: Annotated[str | None, typer.Option("--queue", help="Another queue than its own.")] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait for its end; exit 1 unless it succeeds.")
    ] = False,
) -> None:
    """Enqueue one job and print its id."""
    from kitaab_jobs import client
    from kitaab_jobs.contract import QUEUES
    from kitaab_jobs.db.engines import primary

    if queue is not None and queue not in QUEUES:
        raise UsageError(f"no queue is called {queue!r}", remedy=f"the queues are {', '.join(QUEUES)}")
    engine = primary("kitaab-jobs cli")
    with engine.begin() as connection:
        id = client.enqueue(
            connection,
            name,
            parsed(args),
            unique_key=unique,
            run_at=instant(at) if at else None,
            priority=priority,
            queue=queue,
        )
    typer.echo(str(id))
    if wait:
        job = wait_for(engine, id)
        typer.echo(
            json.dumps(job["result"]) if job["state"] == "succeeded" else f"{job['state']}: {job['error']}"
        )
        if job["state"] != "succeeded":
            raise typer.Exit(1)


def parsed(args: str) -> dict[str, Any]:
    """Return the object in `args`; raise `BadPayload` with the place of the error."""
    try:
        found = json.loads(args)
    except ValueError as error:
        raise BadPayload(
            f"--args {args[:80]!r} is not JSON: {error}", remedy="""write it like '{"limit": 5}'"""
        ) from None
    if not isinstance(found, dict):
        raise BadPayload(f"--args {args[:80]!r} is not an object", remedy="""write it like '{"limit": 5}'""")
    return found


def instant(text: str) -> dt.datetime:
    """Return the aware time in `text`; raise `UsageError` where it has no zone or cannot be read."""
    try:
        found = dt.datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"--at {text!r} is not a time", remedy="write it like 2026-11-23T07:00Z") from None
    if found.tzinfo is None:
        raise UsageError(f"--at {text!r} has no offset", remedy=f"write {text}Z or {text}+05:00")
    return found


def wait_for(engine: Engine, id: UUID) -> dict[str, Any]:
    """Return the job when it has ended; a terminal shows a bar meanwhile."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from kitaab_jobs.runtime import operators

    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(file=sys.stderr), transient=True) as bar:
        task = bar.add_task("enqueued", total=None)
        while True:
            with engine.connect() as connection:
                job = operators.show(connection, id)
            if job["state"] in operators.ENDED:
                return job
            state = f"{job['state']} (attempt {job['attempt']} of {job['max_attempts']})"
            bar.update(
                task, description=state, completed=job["progress_done"] or 0, total=job["progress_total"]
            )
            time.sleep(_LOOK_EVERY_SECONDS)

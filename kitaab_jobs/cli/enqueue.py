"""`kitaab-jobs enqueue`: one job, now or later."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kitaab_jobs.cli.bars import progress
from kitaab_jobs.cli.interruption import is_interruption
from kitaab_jobs.cli.times import instant, span
from kitaab_jobs.errors import BadPayload, UsageError

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy import Engine

_LOOK_EVERY_SECONDS = 0.2


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("enqueue", help="Enqueue one job and print its id.")(enqueue)


def enqueue(
    name: Annotated[str, typer.Argument(help="Its name, such as progress.refresh.")],
    args: Annotated[str, typer.Option("--args", help="Its arguments, a JSON object.")] = "{}",
    unique: Annotated[
        str | None, typer.Option("--unique", help="While a job with this key has not ended, add none.")
    ] = None,
    unique_for: Annotated[
        str | None, typer.Option("--unique-for", help="Nor for so long after it was enqueued: 90s, 12h, 7d.")
    ] = None,
    at: Annotated[
        str | None, typer.Option("--at", help="Not before this time: 2026-11-23T07:00+05:00 or ...Z.")
    ] = None,
    priority: Annotated[int, typer.Option("--priority", help="Higher goes first.")] = 0,
    max_attempts: Annotated[
        int | None, typer.Option("--max-attempts", help="How often it is started at most.")
    ] = None,
    queue: Annotated[str | None, typer.Option("--queue", help="Another queue than its own.")] = None,
    group: Annotated[
        str | None, typer.Option("--group", help="Put it in this group, which others may wait for.")
    ] = None,
    after_group: Annotated[
        str | None, typer.Option("--after-group", help="Start it when every job of this group has finished.")
    ] = None,
    limit_key: Annotated[
        str | None, typer.Option("--limit-key", help="Of those with this key, only so many run at once.")
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait for its end; exit 1 unless it succeeds.")
    ] = False,
) -> None:
    """Enqueue one job and print its id; with --wait also its result."""
    from kitaab_jobs import client
    from kitaab_jobs.contract import QUEUES, job_named
    from kitaab_jobs.db.engines import primary

    kind = job_named(name)
    if queue is not None and queue not in QUEUES:
        raise UsageError(f"no queue is called {queue!r}", remedy=f"the queues are {', '.join(QUEUES)}")
    if unique_for is not None and unique is None and not kind.unique_args:
        raise UsageError("--unique-for says how long a key counts, and there is none", remedy="add --unique")
    given = {
        "unique_key": unique,
        "unique_for": None if unique_for is None else span(unique_for, "--unique-for"),
        "run_at": None if at is None else instant(at, "--at"),
        "max_attempts": max_attempts,
        "queue": queue,
        "group": group,
        "after_group": after_group,
        "limit_key": limit_key,
    }
    more: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    engine = primary("kitaab-jobs cli")
    with engine.begin() as connection:
        id = client.enqueue(connection, name, parsed(args), priority=priority, **more)
    if wait:
        tell(waited(engine, id))
    else:
        typer.echo(str(id))


def parsed(args: str) -> dict[str, Any]:
    """Return the object in `args`; raise `BadPayload` with the place of the error."""
    try:
        found = json.loads(args)
    except (ValueError, RecursionError) as error:
        raise BadPayload(
            f"--args {args[:80]!r} is not JSON: {error}", remedy="""write it like '{"limit": 5}'"""
        ) from None
    if not isinstance(found, dict):
        raise BadPayload(f"--args {args[:80]!r} is not an object", remedy="""write it like '{"limit": 5}'""")
    return found


def tell(job: dict[str, Any]) -> None:
    """Print the result, or say what became of it and exit 1."""
    if job["state"] == "succeeded":
        typer.echo(json.dumps(job["result"]))
        return
    typer.echo(f"{job['state']}: {job['error']}", err=True)
    raise typer.Exit(1)


def waited(engine: Engine, id: UUID) -> dict[str, Any]:
    """Print the id at once and return the job when it has ended; show meanwhile how far it is."""
    from kitaab_jobs.cli.patience import Patience
    from kitaab_jobs.runtime import operators

    patience = Patience(lambda line: typer.echo(line, err=True))

    def look() -> dict[str, Any]:
        with engine.connect() as connection:
            return operators.show(connection, id)

    try:
        typer.echo(str(id))
        with progress() as on_progress:
            while (job := patience.until_done(look))["state"] not in operators.ENDED:
                on_progress(job["state"], job["progress_done"] or 0, job["progress_total"])
                time.sleep(_LOOK_EVERY_SECONDS)
            return job
    except (KeyboardInterrupt, Exception) as error:
        if is_interruption(error):
            typer.echo(f"job {id} goes on: see 'kitaab-jobs jobs show {id}'", err=True)
        raise

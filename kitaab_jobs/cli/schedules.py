"""`kitaab-jobs schedules`: what the timetable is, and what became of it. What changes it is in schedules_change.py."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kitaab_jobs import timing
from kitaab_jobs.cli.schedules_change import backfill, pause, remove, resume, run
from kitaab_jobs.cli.schedules_text import (
    Dst,
    Zone,
    count_of,
    instants,
    line_in,
    plain,
    show_fires,
    when,
    written,
)
from kitaab_jobs.cli.schedules_write import add, edit
from kitaab_jobs.cli.tables import Json, clock, one_line, table
from kitaab_jobs.cli.times import instant
from kitaab_jobs.errors import KitaabError, UsageError

if TYPE_CHECKING:
    from kitaab_jobs.runtime.roster import Entry

OUTCOMES = ("fired", "skipped", "missed", "backfilled")

_NOTHING: tuple[object, ...] = (None, "", {}, 0, dt.timedelta(0))

Name = Annotated[str, typer.Argument(help="Its name.", metavar="NAME")]
Before = Annotated[
    str | None, typer.Option("--before", help="Only fires planned before this time: 2026-11-23T07:00Z.")
]


def register(app: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(help="Look at schedules, add, pause, run, backfill.", no_args_is_help=True)
    group.command("list")(list_)
    group.command("show")(show)
    group.command("next")(next_)
    group.command("history")(history)
    group.command("add")(add)
    group.command("edit")(edit)
    group.command("pause")(pause)
    group.command("resume")(resume)
    group.command("run")(run)
    group.command("backfill")(backfill)
    group.command("remove")(remove)
    app.add_typer(group, name="schedules")


def list_(
    name: Annotated[
        str | None, typer.Option("--name", help="Only those of this name; * stands for anything.")
    ] = None,
    paused: Annotated[bool, typer.Option("--paused", help="Only those that are paused.")] = False,
    as_json: Json = False,
) -> None:
    """Show the schedules, the next to fire first."""
    from kitaab_jobs.db.engines import primary
    from kitaab_jobs.runtime import schedules

    with primary("kitaab-jobs cli").connect() as connection:
        found = [
            each for each in schedules.find(connection, name) if each.paused_at is not None or not paused
        ]
    if as_json:
        typer.echo(json.dumps([plain(each) for each in found]))
        return
    table(
        ("name", "when", "next (UTC)", "from", "what"),
        [
            (
                each.name,
                when(each),
                "" if each.next_fire_at is None else clock(each.next_fire_at.isoformat()),
                each.source,
                _what(each),
            )
            for each in found
        ],
    )


def show(
    name: Name,
    count: Annotated[int, typer.Option("--count", min=0, max=1000, help="How many fires to come.")] = 3,
    as_json: Json = False,
) -> None:
    """Show everything about one schedule.

    Also when it fires next, and how many fires wait for the run before them.
    """
    from kitaab_jobs.db.engines import primary
    from kitaab_jobs.runtime import roster, schedules

    with primary("kitaab-jobs cli").connect() as connection:
        entry = schedules.get(connection, name)
        waiting = schedules.waiting(connection, name)
        now = roster.clock(connection)
    try:
        fires = schedules.next_fires(entry, now, count)
    except KitaabError as error:  # spoiled by other means than ours: that is what one wants to see here
        fires = []
        typer.echo(f"its line cannot be read: {error}", err=True)
    if as_json:
        shown = {**plain(entry), "next_fires": instants(fires, entry.zone), "waiting": _rows(waiting)}
        typer.echo(json.dumps(shown))
        return
    said = {key: value for key, value in asdict(entry).items() if value not in _NOTHING}
    if waiting:
        said["waiting"] = f"{count_of(waiting)}, since {waiting[0]['fire_at'].isoformat()}"
    for key, value in said.items():
        typer.echo(
            f"{key:<20} {json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else written(value)}"
        )
    if fires:
        typer.echo()
        show_fires(fires, entry.zone, now)


def next_(
    name_or_cron: Annotated[
        str,
        typer.Argument(help="A schedule's name, or a line such as '0 21 * * 1-5'.", metavar="NAME_OR_CRON"),
    ],
    zone: Zone = None,
    dst: Dst = None,
    after: Annotated[
        str | None, typer.Option("--after", help="Look from here, not from now: 2026-11-23T07:00Z.")
    ] = None,
    count: Annotated[int, typer.Option("--count", min=1, max=1000, help="How many.")] = 5,
    as_json: Json = False,
) -> None:
    """Show when a schedule or a cron line fires next.

    Each fire is shown in its zone and in UTC. For a cron line no database is needed.

    A cron line is read in --zone and under the rule --dst. A schedule has its own; its fires are shown in --zone.
    """
    since = dt.datetime.now(dt.UTC) if after is None else instant(after, "--after")
    if " " in name_or_cron.strip() or name_or_cron.startswith("@"):
        cadence = line_in(name_or_cron, zone, dst)
        name, fires = None, timing.next_fires(cadence, since, count)
    else:
        if dst is not None:
            raise UsageError(f"{name_or_cron} has its own rule at clock changes", remedy="leave --dst out")
        entry, fires = _fires_of(name_or_cron, zone or "UTC", since, count)
        name, cadence = entry.name, entry.plan.cadence
    shown_in = zone or cadence.zone
    if as_json:
        said = {"schedule": name, "line": cadence.line, "zone": cadence.zone, "dst": cadence.dst}
        typer.echo(json.dumps({**said, "fires": instants(fires, shown_in)}))
    elif fires:
        show_fires(fires, shown_in, since)
    else:
        typer.echo(f"{name} does not fire after {since.isoformat(timespec='seconds')}", err=True)


def history(
    name: Name,
    outcome: Annotated[
        str | None,
        typer.Option("--outcome", help="Only fires that were fired, skipped, missed or backfilled."),
    ] = None,
    before: Before = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=10_000, help="How many.")] = 20,
    as_json: Json = False,
) -> None:
    """Show what became of a schedule's planned fires."""
    from kitaab_jobs.db.engines import primary
    from kitaab_jobs.runtime import schedules

    if outcome is not None and outcome not in OUTCOMES:
        raise UsageError(
            f"{outcome!r} is not an outcome", remedy=f"a fire is {', '.join(OUTCOMES[:-1])} or {OUTCOMES[-1]}"
        )
    until = None if before is None else instant(before, "--before")
    with primary("kitaab-jobs cli").connect() as connection:
        found = schedules.history(connection, name, limit, before=until, outcome=outcome)
    if as_json:
        typer.echo(json.dumps(_rows(found)))
        return
    if not found:
        typer.echo("no fire is on record" + (" that matches" if outcome or before else ""))
        return
    table(
        ("planned (UTC)", "outcome", "late", "run", "job", "why"),
        [
            (
                clock(fire["fire_at"].isoformat()),
                fire["outcome"],
                _late(fire["lateness"]),
                fire["job_state"] or ("gone" if fire["job_id"] else ""),
                str(fire["job_id"] or ""),
                one_line("; ".join(filter(None, (fire["reason"], fire["error"])))),
            )
            for fire in found
        ],
    )


# --- how it is written ---------------------------------------------------------------------------


def _fires_of(name: str, zone: str, after: dt.datetime, count: int) -> tuple[Entry, list[dt.datetime]]:
    from kitaab_jobs.db.engines import primary
    from kitaab_jobs.runtime import schedules

    timing.zone(zone)  # an unknown one is said before a database is looked for
    with primary("kitaab-jobs cli").connect() as connection:
        entry = schedules.get(connection, name)
    if entry.pause:
        typer.echo(f"{name} is {entry.pause}", err=True)
    return entry, schedules.next_fires(entry, after, count)


def _what(entry: Entry) -> str:
    """Return what there is to say of it beside its plan."""
    parts = []
    if entry.pause:
        parts.append(entry.pause)
    if entry.next_fire_at is None:
        parts.append("has ended")
    if entry.failures:
        most = f" of {entry.pause_after_failures}" if entry.pause_after_failures else ""
        parts.append(f"failed {entry.failures}{most} times in a row")
    parts.append(entry.note)
    return one_line("; ".join(filter(None, parts)))


def _late(seconds: float) -> str:
    """Return how late a fire was recorded: to the tenth as long as these count, then in hours."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"


def _rows(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: written(value) for key, value in row.items()} for row in rows]

"""`kitaab-jobs reminders`: when reminders come, what is due, and why somebody got one or did not."""

from __future__ import annotations

import datetime as dt
import json
from typing import Annotated

import typer

from kitaab_jobs.cli.tables import Json, table
from kitaab_jobs.cli.times import day
from kitaab_jobs.errors import UsageError

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


def register(app: typer.Typer) -> None:
    """Add the group."""
    from kitaab_jobs.cli import reminders_send_test
    from kitaab_jobs.cli.reminders_explain import explain

    group = typer.Typer(
        help="Say when reminders come, what is due, and why somebody got one or did not.",
        no_args_is_help=True,
    )
    group.command("preview", help="Show the next instants of a local time in a zone. Needs no database.")(
        preview
    )
    group.command("due", help="Show what is due now and soon, by zone.")(due)
    group.command("explain", help="Tell, in order, what was decided about a person's reminders.")(explain)
    reminders_send_test.register(group)
    app.add_typer(group, name="reminders")


def preview(
    zone: Annotated[str, typer.Option("--zone", help="IANA zone, such as Asia/Karachi.")],
    time: Annotated[str, typer.Option("--time", help="Local time, HH:MM.")],
    start: Annotated[str, typer.Option("--from", help="First local date, YYYY-MM-DD.")],
    count: Annotated[int, typer.Option("--count", min=1, max=1000, help="How many.")] = 10,
    days: Annotated[
        str | None, typer.Option("--days", help="Days of the week, such as mon,thu. [default: every day]")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show the next instants, and what the clock does to them."""
    from kitaab_jobs.reminders.preview import occurrences
    from kitaab_jobs.reminders.rules import Rule
    from kitaab_jobs.timing import zone as checked

    checked(zone)
    rule = Rule(_time(time), zone, _days(days))
    found = occurrences(rule, day(start, "--from"), count)
    if as_json:
        typer.echo(json.dumps([line.as_dict() for line in found]))
        return
    rows = [(f"{line.date:%a %Y-%m-%d}", line.local, line.utc, line.offset, line.note) for line in found]
    table(("date", "local", "UTC", "offset", ""), rows)


def due(
    zone: Annotated[str | None, typer.Option("--zone", help="Of this zone alone.")] = None,
    as_json: Json = False,
) -> None:
    """Show for each zone what is due and not claimed yet, what comes within the hour, and what waits to be sent."""
    from kitaab_jobs.db.engines import primary
    from kitaab_jobs.reminders import readings
    from kitaab_jobs.timing import is_zone

    now = dt.datetime.now(dt.UTC)
    with primary("kitaab-jobs cli").connect() as connection:
        zones = readings.due(connection, now, now + dt.timedelta(hours=1), zone)
    if zone is not None and not zones and not is_zone(zone):
        from kitaab_jobs.timing import zone as checked

        checked(zone)
    if as_json:
        for row in zones:
            row["known"] = is_zone(row["zone"])
        typer.echo(json.dumps(zones, default=lambda instant: instant.isoformat()))
        return
    rows: list[tuple[str, ...]] = [
        (
            row["zone"] + ("" if is_zone(row["zone"]) else " (no zone: counts as UTC)"),
            f"{row['due']:,}",
            f"{(now - row['oldest']).total_seconds():.0f} s" if row["oldest"] else "",
            f"{row['soon']:,}",
            f"{row['next']:%H:%MZ}" if row["next"] else "",
            f"{row['unplanned']:,}",
            f"{row['open']:,}",
        )
        for row in zones
    ]
    if not rows:
        typer.echo("nothing is due now or within the hour")
        return
    if len(rows) > 1:
        sums = [f"{sum(row[name] for row in zones):,}" for name in ("due", "soon", "unplanned", "open")]
        rows.append((f"{len(rows)} zones", sums[0], "", sums[1], "", *sums[2:]))
    table(("zone", "due", "late by", "within the hour", "first", "to plan", "to send"), rows, numbers=True)


# --- how it is read and written ------------------------------------------------------------------


def _time(text: str) -> dt.time:
    hours, _, minutes = text.strip().partition(":")
    if not (
        hours.isdecimal()
        and minutes.isdecimal()
        and len(minutes) == 2
        and int(hours) < 24
        and int(minutes) < 60
    ):
        raise UsageError(f"--time {text!r} is not a local time", remedy="write it like 07:00")
    return dt.time(int(hours), int(minutes))


def _days(text: str | None) -> frozenset[int] | None:
    if text is None:
        return None
    words = [word.strip().lower()[:3] for word in text.split(",") if word.strip()]
    for word in words:
        if word not in DAYS:
            raise UsageError(f"--days {text!r} names no day: {word!r}", remedy=f"of {', '.join(DAYS)}")
    if not words:
        raise UsageError(f"--days {text!r} names no day", remedy=f"of {', '.join(DAYS)}")
    return frozenset(DAYS.index(word) for word in words)

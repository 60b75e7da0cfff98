"""Schedules and their fires, as people and programs read them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

from kitaab_jobs import timing
from kitaab_jobs.cli.tables import table
from kitaab_jobs.errors import UsageError

if TYPE_CHECKING:
    from kitaab_jobs.runtime.roster import Entry

Zone = Annotated[str | None, typer.Option("--zone", help="An IANA time zone, such as Asia/Karachi.")]
Dst = Annotated[
    str | None,
    typer.Option("--dst", help="The rule for times that a clock change skips or repeats: cron or literal."),
]


def line_in(line: str, zone: str | None, dst: str | None, *, otherwise: str = "UTC") -> timing.Cadence:
    """Return the schedule that a line means, in `otherwise` where neither it nor `zone` names a zone.

    Raises `UsageError` where both do, and not the same.
    """
    cadence = timing.parse(line, zone or otherwise, dst=dst or "cron")
    if zone is not None and cadence.zone != zone:
        raise UsageError(f"{line!r} names a zone, and --zone names {zone}", remedy="leave one of the two out")
    return cadence


def show_fires(fires: Sequence[dt.datetime], zone: str, since: dt.datetime) -> None:
    """Print a table of fires in `zone` and in UTC; where its clock was changed since the one before, it says so."""
    form = "%a %Y-%m-%d %H:%M:%S" if any(fire.second for fire in fires) else "%a %Y-%m-%d %H:%M"
    if zone == "UTC":
        table(("UTC",), [(f"{fire:{form}}",) for fire in fires])
        return
    rows = []
    before = _offset(since, zone)
    for fire in fires:
        offset = _offset(fire, zone)
        local = f"{fire.astimezone(timing.zone(zone)):{form}}"
        rows.append((local, _signed(offset), f"{fire:{form}}", _change(offset - before)))
        before = offset
    if any(row[-1] for row in rows):
        table((zone, "offset", "UTC", ""), rows)
    else:
        table((zone, "offset", "UTC"), [row[:-1] for row in rows])


def count_of(fires: Sequence[object]) -> str:
    """Return how many fires these are, in words."""
    return f"{len(fires):,} fire" + ("" if len(fires) == 1 else "s")


def instants(fires: Sequence[dt.datetime], zone: str) -> list[dict[str, str]]:
    """Return fires for JSON: each in UTC and in the zone."""
    return [
        {"utc": fire.isoformat(), "local": fire.astimezone(timing.zone(zone)).isoformat()} for fire in fires
    ]


def when(entry: Entry) -> str:
    """Return its line, with the zone where that counts."""
    return entry.line if entry.line.startswith("every") else f"{entry.line} {entry.zone}"


def plain(entry: Entry) -> dict[str, Any]:
    """Return a schedule for JSON: times as text, spans in seconds."""
    found: dict[str, Any] = {}
    for key, value in asdict(entry).items():
        if isinstance(value, dt.timedelta):
            found[f"{key}_seconds"] = value.total_seconds()
        elif key == "catch_up_window":
            found[f"{key}_seconds"] = None
        else:
            found[key] = written(value)
    return found


def written(value: Any) -> Any:
    """Return a value of a row as JSON has it."""
    if isinstance(value, dt.datetime):
        return value.isoformat()
    return str(value) if isinstance(value, UUID | dt.timedelta) else value


def _offset(moment: dt.datetime, zone: str) -> dt.timedelta:
    return moment.astimezone(timing.zone(zone)).utcoffset() or dt.timedelta()


def _signed(offset: dt.timedelta) -> str:
    return f"{'-' if offset < dt.timedelta() else '+'}{_clock(offset)}"


def _change(difference: dt.timedelta) -> str:
    if not difference:
        return ""
    return f"the clock was set {'forward' if difference > dt.timedelta() else 'back'} by {_clock(difference)}"


def _clock(span: dt.timedelta) -> str:
    seconds = round(abs(span).total_seconds())
    text = f"{seconds // 3600:02}:{seconds // 60 % 60:02}"
    return f"{text}:{seconds % 60:02}" if seconds % 60 else text

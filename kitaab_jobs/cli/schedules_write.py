"""`kitaab-jobs schedules add|edit`: read what is asked, show when it will fire, ask, and save."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kitaab_jobs.cli.asking import DryRun, Yes, confirmed
from kitaab_jobs.cli.enqueue import parsed
from kitaab_jobs.cli.schedules_change import Name
from kitaab_jobs.cli.schedules_text import Dst, Zone, line_in, show_fires, written
from kitaab_jobs.errors import UsageError

if TYPE_CHECKING:
    from kitaab_jobs.runtime.roster import Entry

_SHOWN = 5
# In edit, this takes away what may be absent.
NONE = "none"
_ABSENT = ("window", "overlap", "jitter", "starts_at", "ends_at")

Args = Annotated[str | None, typer.Option("--args", help="Its job's arguments, a JSON object.")]
CatchUp = Annotated[
    str | None,
    typer.Option(
        "--catch-up", help="Of fires that were due without a beat, run: skip (none), latest or all."
    ),
]
Window = Annotated[
    str | None, typer.Option("--window", help="None of those found later than this: 30m, 3h, 2d.")
]
Overlap = Annotated[
    str | None,
    typer.Option("--overlap", help="While a run is not over: skip, queue, allow or cancel_running."),
]
Jitter = Annotated[str | None, typer.Option("--jitter", help="Start each run up to so much later: 30s, 5m.")]
Starts = Annotated[
    str | None,
    typer.Option("--starts-at", help="Nothing fires before: '2026-12-01 09:00' in its zone, or ...Z."),
]
Ends = Annotated[str | None, typer.Option("--ends-at", help="Nothing fires after.")]
Failures = Annotated[
    str | None, typer.Option("--pause-after-failures", help="Pause it after so many dead runs in a row.")
]
Note = Annotated[str | None, typer.Option("--note", help="What it is there for.")]


def add(
    name: Name,
    job: Annotated[str, typer.Argument(help="The job's name, such as progress.reconcile.", metavar="JOB")],
    cron: Annotated[
        str, typer.Argument(help="'0 21 * * 1-5', '@daily', 'every 30s'; a zone may follow.", metavar="CRON")
    ],
    zone: Zone = None,
    dst: Dst = None,
    args: Args = None,
    catch_up: CatchUp = None,
    window: Window = None,
    overlap: Overlap = None,
    jitter: Jitter = None,
    starts_at: Starts = None,
    ends_at: Ends = None,
    pause_after_failures: Failures = None,
    note: Note = None,
    dry_run: DryRun = False,
    yes: Yes = False,
) -> None:
    """Add a schedule live, after showing when it fires.

    Shows the next five fires and asks. What never fires is refused. The zone is UTC where neither --zone nor the line
    names another. For what is to stand under review, beat_schedule.py is the place: a schedule of that file takes
    the place of a live one of its name.
    """
    from kitaab_jobs.contract import job_named
    from kitaab_jobs.db.engines import primary
    from kitaab_jobs.runtime import roster, schedules
    from kitaab_jobs.runtime.timetable import Schedule

    cadence, kind = line_in(cron, zone, dst), job_named(job)
    said = _said(
        args=args, catch_up=catch_up, window=window, overlap=overlap, jitter=jitter, starts_at=starts_at,
        ends_at=ends_at, pause_after_failures=pause_after_failures, note=note,
    )  # fmt: skip
    line = Schedule(name, kind, cadence.line, cadence.zone, dst=cadence.dst, **said)
    engine = primary("kitaab-jobs cli")
    # Rolled back: it shows what would be, with every check of the database.
    with engine.connect() as connection:
        now = roster.clock(connection)
        _show(schedules.add(connection, line, now=now), now)
    if dry_run:
        return
    _ask(yes, f"add {name}?")
    with engine.begin() as connection:
        schedules.add(connection, line, now=roster.clock(connection))
    typer.echo(f"{name} added")


def edit(
    name: Name,
    job: Annotated[str | None, typer.Option("--job", help="Another job.")] = None,
    cron: Annotated[str | None, typer.Option("--cron", help="Another line; a zone may follow.")] = None,
    zone: Zone = None,
    dst: Dst = None,
    args: Args = None,
    catch_up: CatchUp = None,
    window: Window = None,
    overlap: Overlap = None,
    jitter: Jitter = None,
    starts_at: Starts = None,
    ends_at: Ends = None,
    pause_after_failures: Failures = None,
    note: Note = None,
    dry_run: DryRun = False,
    yes: Yes = False,
) -> None:
    """Change a schedule that was added live.

    What is not named stays; `none` takes away what need not be. Where the change says when it fires, it is planned
    anew from now: what was due until then is recorded as missed.
    """
    from kitaab_jobs.contract import job_named
    from kitaab_jobs.db.engines import primary
    from kitaab_jobs.runtime import roster, schedules

    engine = primary("kitaab-jobs cli")
    with engine.connect() as connection:  # rolled back, as in add
        now = roster.clock(connection)
        before = schedules.get(connection, name)
        changes = _said(
            args=args, catch_up=catch_up, window=window, overlap=overlap, jitter=jitter, starts_at=starts_at,
            ends_at=ends_at, pause_after_failures=pause_after_failures, note=note,
        )  # fmt: skip
        if job is not None:
            changes["job"] = job_named(job)
        if (cron, zone, dst) != (None, None, None):
            cadence = line_in(cron or before.line, zone, dst or before.dst, otherwise=before.zone)
            changes |= {"cron": cadence.line, "zone": cadence.zone, "dst": cadence.dst}
        if not changes:
            raise UsageError(
                "it was not said what to change", remedy="see 'kitaab-jobs schedules edit --help'"
            )
        after = schedules.edit(connection, name, changes, now=now)
    if not _show_changes(before, after):
        typer.echo(f"{name} says so already")
        return
    _show(after, now)
    if dry_run:
        return
    _ask(yes, f"change {name}?")
    with engine.begin() as connection:
        schedules.edit(connection, name, changes, now=roster.clock(connection))
    typer.echo(f"{name} changed")


def _said(*, args: str | None, pause_after_failures: str | None, **given: str | None) -> dict[str, Any]:
    """Return the fields of a schedule that options name, as it takes them; `none` stands for nothing."""
    said: dict[str, Any] = {
        {"window": "catch_up_window"}.get(option, option): None
        if text == NONE and option in _ABSENT
        else text
        for option, text in given.items()
        if text is not None
    }
    if args is not None:
        said["args"] = parsed(args)
    if pause_after_failures is not None:
        said["pause_after_failures"] = _number(pause_after_failures)
    return said


def _number(text: str) -> int | None:
    from kitaab_jobs.runtime.timetable import MOST_FAILURES

    if text == NONE:
        return None
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:12]) <= MOST_FAILURES:
        raise UsageError(
            f"--pause-after-failures is {text[:40]!r}",
            remedy=f"give a number from 1 to {MOST_FAILURES:,}, or none",
        )
    return int(text)


def _ask(yes: bool, question: str) -> None:
    if not yes and not confirmed(question):
        typer.echo("nothing was changed", err=True)
        raise typer.Exit(1)


def _show(entry: Entry, now: dt.datetime) -> None:
    """Print the next fires."""
    from kitaab_jobs.runtime import schedules

    show_fires(schedules.next_fires(entry, now, _SHOWN), entry.zone, now)


def _show_changes(before: Entry, after: Entry) -> bool:
    """Print what changes, and tell whether anything does."""
    old, new = asdict(before), asdict(after)
    differing = [key for key in new if old[key] != new[key] and key != "next_fire_at"]
    for key in differing:
        typer.echo(f"{key}: {_word(old[key])} becomes {_word(new[key])}")
    return bool(differing)


def _word(value: Any) -> str:
    if value in (None, dt.timedelta(0)):
        return NONE
    if isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False)
    return repr(value) if isinstance(value, str) else str(written(value))

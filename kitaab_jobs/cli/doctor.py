"""`kitaab-jobs doctor`: what is configured, reachable, too old, missing or unsafe, and what to do."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from itertools import groupby
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from kitaab_jobs.errors import SettingsError

if TYPE_CHECKING:
    from rich.table import Table

    from kitaab_jobs.health.rules import Finding

SUMMARY = "Check what is configured, reachable, too old or unsafe."

# How wide lines are where no terminal says: nobody wants a report in a file cut at 80.
WIDTH = 160

LEVEL_WIDTH = 7
NAME_WIDTH = 18

# Each level's word in a row, and its style.
LEVELS = {
    "fail": ("failed", "bold red"),
    "warn": ("warning", "yellow"),
    "ok": ("ok", "green"),
    "skip": ("not run", "dim"),
}


class Row(NamedTuple):
    """A line of the table: several findings that are in order may share one."""

    level: str
    name: str
    what: str
    remedy: str | None


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("doctor", help=SUMMARY)(doctor)


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print a list of objects, for machines.")] = False,
) -> None:
    """Print what was found. Exit 1 when something failed; warnings do not count."""
    from kitaab_jobs.health.jobs import examine
    from kitaab_jobs.settings import Settings

    settings: Settings | SettingsError
    try:
        settings = Settings.load()
    except SettingsError as error:
        settings = error
    except (ValueError, OSError) as error:  # a stack.env that is no text
        settings = SettingsError(f"the settings cannot be read: {error}")
    findings = examine(settings, now=datetime.now(UTC))
    if as_json:
        typer.echo(json.dumps([finding._asdict() for finding in findings], indent=2))
    else:
        show(findings)
    if any(finding.level == "fail" for finding in findings):
        raise typer.Exit(1)


def show(findings: list[Finding]) -> None:
    """Print a heading and a table for each area, and the summary line."""
    from rich.console import Console
    from rich.text import Text

    from kitaab_jobs.health.rules import AREAS

    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = WIDTH
    for area, found in groupby(findings, key=lambda finding: finding.area):
        console.print(Text(AREAS[area], style="bold underline"))
        console.print(table(rows(found)))
        console.print()
    console.print(summary(findings))


def table(lines: Iterable[Row]) -> Table:
    """Return the rows as a table, each problem with its remedy below it."""
    from rich.table import Table
    from rich.text import Text

    made = Table.grid(padding=(0, 2))
    made.add_column(width=LEVEL_WIDTH)
    made.add_column(width=NAME_WIDTH)
    made.add_column(overflow="fold")
    for line in lines:
        word, style = LEVELS[line.level]
        text = Text(line.what)
        if line.remedy:
            text.append(f"\n-> {line.remedy}", style="bold")
        made.add_row(
            Text(word, style=style), Text(line.name), text, style="dim" if line.level == "skip" else ""
        )
    return made


def rows(findings: Iterable[Finding]) -> Iterator[Row]:
    """Yield the rows of one area: problems first, then what is in order, then what was not run.

    Findings that are in order share a row when they are parts of one check (`area.check.part`), and
    those that were not run when they have the same reason.
    """
    found = list(findings)
    for level in ("fail", "warn"):
        for one in found:
            if one.level == level:
                yield Row(level, _check(one), one.what, one.remedy)
    for name, same in _alike(found, "ok", _check).items():
        yield Row("ok", name, ", ".join(one.what for one in same), None)
    for why, same in _alike(found, "skip", lambda one: one.what).items():
        names = dict.fromkeys(_check(one) for one in same)
        yield Row("skip", "", f"{', '.join(names)}: {why}", None)


def summary(findings: Iterable[Finding]) -> str:
    """Return one line with the number of checks by level."""
    counts = Counter(finding.level for finding in findings)
    words = {"fail": "failed", "warn": "warning" if counts["warn"] == 1 else "warnings", "ok": "ok"}
    words["skip"] = "not run"
    parts = [f"{counts[level]} {word}" for level, word in words.items() if counts[level]]  # type: ignore[index]
    return f"{counts.total()} checks: {', '.join(parts)}."


def _check(finding: Finding) -> str:
    return finding.check.split(".")[1].replace("_", " ")


def _alike(findings: list[Finding], level: str, key: Callable[[Finding], str]) -> dict[str, list[Finding]]:
    found: dict[str, list[Finding]] = {}
    for finding in findings:
        if finding.level == level:
            found.setdefault(key(finding), []).append(finding)
    return found

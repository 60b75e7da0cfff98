"""How commands that only look write what they have found."""

from __future__ import annotations

import datetime as dt
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.text import Text

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def table(header: Sequence[str], rows: Sequence[Sequence[str | Text]]) -> None:
    """Print columns that fit their content; the last one is cut at the terminal's width."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    columns = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for number, name in enumerate(header):
        width = max((len(row[number]) for row in rows), default=0)
        last = number == len(header) - 1
        columns.add_column(
            name, no_wrap=True, overflow="ellipsis", min_width=None if last else max(width, len(name))
        )
    for row in rows:
        columns.add_row(*(cell if isinstance(cell, Text) else Text(cell) for cell in row))
    Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 240).print(columns)


def one_line(text: str | None) -> str:
    """Return a text without its line breaks."""
    return " ".join((text or "").split())


def clock(text: str) -> str:
    """Return a time without its year, or as it stands where Python knows no such time."""
    try:
        return f"{dt.datetime.fromisoformat(text):%m-%d %H:%M:%S}"
    except ValueError:
        return text

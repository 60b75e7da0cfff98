"""How commands that only look write what they have found."""

from __future__ import annotations

import datetime as dt
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from rich.text import Text

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]

_PAD = 2
# So much of the last column is always shown.
_LAST = 10


def table(header: Sequence[str], rows: Sequence[Sequence[str | Text]], *, numbers: bool = False) -> None:
    """Print columns that fit their content; the last one is cut at the terminal's width.

    `numbers`: all but the first stand to the right.
    Where not even the others fit, their lines run over its edge, whole: rich would leave columns out.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 240)
    *widths, last = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    room = console.width - sum(width + _PAD for width in widths) - _PAD
    widths.append(max(min(last, room), min(last, _LAST)))
    console.width = max(console.width, sum(width + _PAD for width in widths))
    columns = Table(box=None, padding=(0, _PAD, 0, 0), header_style="bold")
    for place, (name, width) in enumerate(zip(header, widths, strict=True)):
        side: Literal["left", "right"] = "right" if numbers and place else "left"
        columns.add_column(name, justify=side, no_wrap=True, overflow="ellipsis", width=width)
    for row in rows:
        columns.add_row(*(cell if isinstance(cell, Text) else Text(cell) for cell in row))
    with console.capture() as written:
        console.print(columns)
    for line in written.get().splitlines():
        typer.echo(line.rstrip())


def one_line(text: str | None) -> str:
    """Return a text without its line breaks."""
    return " ".join((text or "").split())


def clock(text: str) -> str:
    """Return a time without its year, or as it stands where Python knows no such time."""
    try:
        return f"{dt.datetime.fromisoformat(text):%m-%d %H:%M:%S}"
    except ValueError:
        return text

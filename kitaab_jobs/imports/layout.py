"""Which column of the file holds what: the header line and the delimiter. Pure."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from kitaab_jobs.errors import UsageError
from kitaab_jobs.imports.wording import listed, shown

DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab"}

# The first name of a column is the one that messages use. Case, spaces, hyphens and underscores of a
# header do not count.
COLUMNS: dict[str, tuple[str, ...]] = {
    "email": ("email", "mail", "email address", "person", "person email", "user", "user email"),
    "deed": ("deed", "deed name", "habit"),
    "item": ("item", "item path", "deed item", "item name", "path"),
    "date": ("date", "entry date", "local date", "day"),
    "value": ("value", "count or scale value"),
    "count": ("count", "count value", "amount", "quantity"),
    "scale": ("scale", "scale value"),
    "note": ("note", "notes", "comment", "comments"),
}
EXAMPLE = "email,deed,item,date,value,note"


@dataclass(frozen=True, slots=True)
class Layout:
    """Where a record holds what: the place of each column, or None where the file has no such column.

    `width` is how many columns the header names.
    """

    width: int
    email: int
    deed: int
    item: int
    date: int
    value: int | None
    count: int | None
    scale: int | None
    note: int | None


def detect_delimiter(line: str) -> str:
    """Return the one of comma, semicolon and tab that makes known columns of the header `line`."""

    def known(delimiter: str) -> tuple[int, int]:
        try:
            cells = next(csv.reader([line], delimiter=delimiter), [])
        except csv.Error:
            return (0, 0)
        return (sum(_column(cell) is not None for cell in cells), len(cells))

    return max(DELIMITERS, key=known)


def read_header(cells: Sequence[str], line: int) -> Layout:
    """Return the layout that a header names; raise `UsageError` for columns missing, unknown or twice."""
    cells = list(cells)
    while cells and not cells[-1].strip():  # spreadsheets end lines with empty cells
        cells.pop()
    places: dict[str, int] = {}
    for place, cell in enumerate(cells):
        column = _column(cell)
        if column is None:
            raise _unknown(cell, cells, line)
        if column in places:
            raise UsageError(
                f"line {line}: the columns {shown(cells[places[column]])} and {shown(cell)} both hold the {column}",
                remedy="keep one of them",
            )
        places[column] = place
    _check_complete(places, cells, line)
    return Layout(len(cells), **{column: places.get(column) for column in COLUMNS})  # type: ignore[arg-type]


def _folded(name: str) -> str:
    return "".join(c for c in name.casefold() if c not in " -_\u00a0\ufeff\t")


_BY_NAME = {_folded(name): column for column, names in COLUMNS.items() for name in names}


def _column(cell: str) -> str | None:
    return _BY_NAME.get(_folded(cell))


def _unknown(cell: str, cells: Sequence[str], line: int) -> UsageError:
    if not any(map(_column, cells)):
        return UsageError(
            f"line {line} names no column that an import knows, but has {listed(cells)}",
            remedy=f"the file must start with a header line such as {EXAMPLE}",
        )
    near = get_close_matches(_folded(cell), _BY_NAME, n=1, cutoff=0.7)
    hint = f"did you mean {_BY_NAME[near[0]]!r}? " if near else ""
    return UsageError(
        f"line {line}: unknown column {shown(cell)}",
        remedy=f"{hint}take it out or rename it; the columns are {', '.join(COLUMNS)}",
    )


def _check_complete(places: dict[str, int], cells: Sequence[str], line: int) -> None:
    missing = [column for column in ("email", "deed", "item", "date") if column not in places]
    if not places.keys() & {"value", "count", "scale"}:
        missing.append("value")
    if missing:
        raise UsageError(
            f"line {line}: the column {' and the column '.join(map(repr, missing))} "
            f"{'is' if len(missing) == 1 else 'are'} missing; the file has {listed(cells)}",
            remedy=f"the file must start with a header line such as {EXAMPLE}",
        )
    if "value" in places and (both := places.keys() & {"count", "scale"}):
        raise UsageError(
            f"line {line}: the column 'value' stands beside {listed(sorted(both))}",
            remedy="keep 'value', or 'count' and 'scale'",
        )

"""What one line says: its e-mail, names, date, value and note, checked as far as the line alone tells.

Pure: no I/O and no database. A line that is wrong raises `BadLine`, whose text names the value and says
what to write instead.
"""

from __future__ import annotations

import datetime as dt
import re
import unicodedata
from calendar import monthrange
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from kitaab_jobs.imports.layout import Layout
from kitaab_jobs.imports.wording import shown

MAX_NAME = 255
MAX_NOTE = 10_000
MAX_COUNT = "99999999.99"
OLDEST_YEAR = 1900

Span = tuple[dt.date, dt.date]  # the first day of a partition, and the first day after it


class BadLine(Exception):
    """A line that is refused; the text is the reason."""


class Draft(NamedTuple):
    """A line that is well formed. What its names stand for is not known yet.

    `as_count` and `as_scale` are what the columns of these names hold, `value` what the column holds that
    may be either; exactly one of the three is not empty.
    """

    line: int
    email: str
    deed: str
    item: str
    day: dt.date
    value: str
    as_count: str
    as_scale: str
    note: str | None


def read_line(layout: Layout, line: int, fields: Sequence[str]) -> Draft:
    """Return what a record says; raise `BadLine`."""
    if len(fields) != layout.width:
        _check_width(layout, fields)
    _check_characters(fields)
    day = read_date(fields[layout.date].strip())
    value = "" if layout.value is None else fields[layout.value].strip()
    count = "" if layout.count is None else fields[layout.count].strip()
    scale = "" if layout.scale is None else fields[layout.scale].strip()
    if bool(value) + bool(count) + bool(scale) != 1:
        raise BadLine(
            f"it gives both the count {shown(count)} and the scale value {shown(scale)}: leave one of them empty"
            if count and scale
            else "it has no value: give a count, or a value of the item's scale"
        )
    note = "" if layout.note is None else fields[layout.note]
    if len(note) > MAX_NOTE:
        raise BadLine(f"the note has {len(note):,} characters: shorten it to {MAX_NOTE:,}")
    return Draft(
        line,
        _email(fields[layout.email].strip()),
        _named("deed", fields[layout.deed].strip()),
        _named("item", fields[layout.item].strip(), parts=20),
        day,
        value,
        count,
        _named("scale value", scale, parts=2) if scale else "",
        note if note.strip() else None,
    )


def _check_width(layout: Layout, fields: Sequence[str]) -> None:
    if len(fields) < layout.width or any(map(str.strip, fields[layout.width :])):
        raise BadLine(
            f"it has {len(fields)} fields and the header {layout.width}: quote fields that hold the delimiter"
        )


def _check_characters(fields: Sequence[str]) -> None:
    whole = "".join(fields)
    if "\0" in whole:
        bad = next(field for field in fields if "\0" in field)
        raise BadLine(f"{shown(bad)} holds a NUL character: take it out")
    if not whole.isascii() and any("\ud800" <= c <= "\udfff" for c in whole):
        raise BadLine("it holds half a surrogate pair, which is no character: take it out")


def _email(text: str) -> str:
    if not text:
        raise BadLine("it has no e-mail: give the person's")
    if len(text) > MAX_NAME:
        raise BadLine(f"the e-mail {shown(text)} has {len(text)} characters: {MAX_NAME} at most")
    if "@" not in text[1:]:
        raise BadLine(f"{shown(text)} is no e-mail address: write one such as name@example.org")
    return text


def _named(what: str, text: str, *, parts: int = 1) -> str:
    if not text:
        raise BadLine(f"it has no {what}: give its name")
    if len(text) > MAX_NAME and (
        len(text) > MAX_NAME * parts * 2
        or max(map(len, split_path(text) if parts > 1 else [text])) > MAX_NAME
    ):
        raise BadLine(f"the {what} {shown(text)} has {len(text)} characters: a name has {MAX_NAME} at most")
    return text


# --- names ---------------------------------------------------------------------------------------


def tidy(name: str) -> str:
    """Return `name` with single spaces and composed letters: what a person sees, however it is stored."""
    return unicodedata.normalize("NFC", " ".join(name.split()))


def split_path(path: str) -> list[str]:
    r"""Return the names in a path: `A / B` and `A/B` are two, `A\/B` is one with a slash in it."""
    if "\\" not in path:
        return [tidy(part) for part in path.split("/")]
    parts = [""]
    for piece in re.findall(r"\\[\\/]|.", path, flags=re.DOTALL):
        if piece == "/":
            parts.append("")
        else:
            parts[-1] += piece[1] if piece in (r"\/", r"\\") else piece
    return [tidy(part) for part in parts]


def join_path(names: Sequence[str]) -> str:
    r"""Return the path that `split_path` takes apart into `names`."""
    return " / ".join(name.replace("\\", "\\\\").replace("/", "\\/") for name in names)


# --- dates ---------------------------------------------------------------------------------------

_ISO = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_YEAR_FIRST = re.compile(r"(\d{4})[-/. ](\d{1,2})[-/. ](\d{1,2})([T ].*)?", re.ASCII)
_YEAR_LAST = re.compile(r"(\d{1,2})[-/. ](\d{1,2})[-/. ](\d{4})([T ].*)?", re.ASCII)


@lru_cache(maxsize=8192)  # a file has the same few thousand dates over and over
def read_date(text: str) -> dt.date:
    """Return an ISO date, `2026-04-03`; raise `BadLine` for anything else, with what to write."""
    if _ISO.fullmatch(text):
        try:
            return dt.date.fromisoformat(text)
        except ValueError:
            raise BadLine(f"there is no date {text}: {_what_exists(text)}") from None
    if not text:
        raise BadLine("it has no date: write one such as 2026-04-03")
    raise BadLine(f"the date {shown(text)} is not written as year-month-day: {_what_to_write(text)}")


def _what_exists(text: str) -> str:
    year, month = int(text[:4]), int(text[5:7])
    if year and 1 <= month <= 12:
        return f"{text[:7]} has the days 01 to {monthrange(year, month)[1]}"
    return "years start with 0001 and months are 01 to 12"


def _what_to_write(text: str) -> str:
    if found := _YEAR_FIRST.fullmatch(text):
        meant = [_iso(*found.group(1, 2, 3))]
    elif found := _YEAR_LAST.fullmatch(text):
        first, second, year = found.group(1, 2, 3)
        meant = [_iso(year, second, first), _iso(year, first, second)]
    else:
        meant = []
    valid = list(dict.fromkeys(day for day in meant if day))
    if len(valid) == 2:
        return f"it may be either, so write {valid[0]} or {valid[1]}"
    return f"write {valid[0]}" if valid else "write one such as 2026-04-03"


def _iso(year: str, month: str, day: str) -> str | None:
    try:
        return dt.date(int(year), int(month), int(day)).isoformat()
    except ValueError:
        return None


def check_day(day: dt.date, today: dt.date, zone: str, partitions: Sequence[Span]) -> None:
    """Raise `BadLine` for a day after `today` in `zone`, and for one that no partition holds."""
    if day > today:
        raise BadLine(f"the date {day} is in the future: today is {today} in {zone}")
    if day.year < OLDEST_YEAR:
        raise BadLine(f"the date {day} lies before {OLDEST_YEAR}: is the year right?")
    for first, end in partitions:
        if first <= day < end:
            return
    raise BadLine(no_partition(day, partitions))


def no_partition(day: dt.date, partitions: Sequence[Span]) -> str:
    """Return why an entry of `day` has no place, and the statement that makes one."""
    first, end = dt.date(day.year, 1, 1), dt.date(min(day.year + 1, 9999), 1, 1)
    if any(low < end and high > first for low, high in partitions):  # the year is there in months
        first = day.replace(day=1)
        end = (first + dt.timedelta(days=32)).replace(day=1)
    return (
        f"no partition of entries holds the date {day}: "
        f"make one with SELECT jobs.make_partition('entries', '{first}', '{end}')"
    )


# --- counts --------------------------------------------------------------------------------------

_COUNT = re.compile(r"\+?0*(\d{1,8})(\.\d{1,2})?", re.ASCII)
_NUMBER = re.compile(r"\+?\d+(\.\d*)?", re.ASCII)


def read_count(text: str) -> str:
    """Return a count as PostgreSQL takes it, with at most 8 digits and 2 decimals; raise `BadLine`."""
    if found := _COUNT.fullmatch(text):
        return found[1] + (found[2] or "")
    raise BadLine(f"the count {shown(text)} {_why_no_count(text)}")


def _why_no_count(text: str) -> str:
    if text[:1] == "-" and _NUMBER.fullmatch(text[1:]):
        return f"is negative: write a number from 0 to {MAX_COUNT}"
    if _NUMBER.fullmatch(text):
        whole, _, decimals = text.partition(".")
        if len(whole.lstrip("+0")) > 8:
            return f"is too large: {MAX_COUNT} at most"
        if len(decimals) > 2:
            return f"has {len(decimals)} decimals: 2 at most"
    if re.fullmatch(r"[\d.,]+", text, flags=re.ASCII) and "," in text:
        return "has a comma: write decimals with a point and thousands without a mark"
    if re.fullmatch(r"[-+]?[\d.]+e[-+]?\d+", text, flags=re.ASCII | re.IGNORECASE):
        return f"has an exponent: write the number out, {MAX_COUNT} at most"
    return "is not a plain number: write one such as 3 or 2.5, with the digits 0 to 9"

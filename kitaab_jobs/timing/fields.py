"""The five fields of a cron line, read strictly and put into plain forms for the calendar search.

croniter's own parser is not asked: to it `5-5` means every minute, `21-4/2` is 21, 23, 2, 4, and `H`,
`R`, `W`, seconds and years are welcome.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from kitaab_jobs.errors import BadCron


class _Field(NamedTuple):
    name: str
    low: int
    high: int
    names: tuple[str, ...] = ()  # names[0] stands for `low`
    extra: str = ""

    @property
    def accepted(self) -> str:
        names = f" or {self.names[0]} to {self.names[-1]}" if self.names else ""
        top = 7 if self is _DOW else self.high
        return f"{self.low} to {top}{names}, as value, list 1,2, range 1-5, step */2, or *{self.extra}"


_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_DOM = _Field("day of month", 1, 31, extra="; L is the last day")
_DOW = _Field("day of week", 0, 6, _DAYS, extra="; 5#2 is the second Friday, L5 the last")
_FIELDS = (_Field("minute", 0, 59), _Field("hour", 0, 23), _DOM, _Field("month", 1, 12, _MONTHS), _DOW)
# Signs of other crons, by a pattern; refused, since to guess at them is to fire on the wrong day.
_FOREIGN = {
    r"^\?$": " (? is not used here: write *)",
    r"^\d*l?w\d*$": " (W, the nearest weekday, is not supported)",
    r"^[hr]\b": " (H and R, a value of the machine's choosing, are not supported)",
    r"^\dl$": " (the last Friday is L5)",
}

_ITEM = re.compile(r"(?P<first>\*|[0-9a-z]+)(?:-(?P<last>[0-9a-z]+))?(?:/(?P<step>[0-9]{1,9}))?")
_NTH = re.compile(r"(?P<day>[0-9a-z]+)#(?P<nth>[1-5])")
_LAST = re.compile(r"l(?P<day>[0-7])")


class Fields(NamedTuple):
    """A line that was read.

    `calendar` holds lines of `*`, numbers in lists, `l`, `l5` and `5#2` alone, of which each day field
    has one kind and restricts (AND); a time at which any of them matches counts. `wildcard` is the star
    flag of Debian's `entry.c`: the minute or the hour field begins with `*`.
    """

    calendar: tuple[str, ...]
    wildcard: bool


def read(line: str, words: list[str]) -> Fields:
    """Read the words of a line; `line` is what an error quotes. Raises BadCron."""
    if len(words) != 5:
        raise BadCron(
            f"{line!r} has {len(words)} fields instead of 5",
            remedy="give minute, hour, day of month, month and day of week, then a zone if you like"
            " (there are no seconds and no years; for less than a minute write 'every 30s')",
        )
    minute, hour, dom, month, dow = (_read(f, word, line) for f, word in zip(_FIELDS, words, strict=True))
    # One plain thing to a search. croniter alone takes `13 * 5#2` for both, not either, and
    # `1,3-31,L` for every day, since it counts the L as one more number.
    if words[2].startswith("*") or words[4].startswith("*"):
        days = [(d, w) for d in dom for w in dow]
    else:
        days = [*((d, "*") for d in dom), *(("*", w) for w in dow)]
    calendar = tuple(f"{minute[0]} {hour[0]} {d} {month[0]} {w}" for d, w in days)
    return Fields(calendar, words[0].startswith("*") or words[1].startswith("*"))


def _read(field: _Field, text: str, line: str) -> list[str]:
    """One field in its plain forms, any of which may match: `*` or its numbers; and what L and # give."""
    values: set[int] = set()
    special: set[str] = set()
    for item in text.lower().split(","):
        if field is _DOM and item == "l":
            special.add(item)
        elif field is _DOW and (match := _NTH.fullmatch(item) or _LAST.fullmatch(item)):
            day = _value(field, match["day"], text, line) % 7
            special.add(f"l{day}" if item.startswith("l") else f"{day}#{match['nth']}")
        elif match := _ITEM.fullmatch(item):
            values |= _values(field, match, text, line)
        else:
            raise _refused(field, item, text, line)
    if len(values) == field.high - field.low + 1:
        return ["*"]
    return [",".join(map(str, sorted(group, key=str))) for group in (values, special) if group]


def _values(field: _Field, match: re.Match[str], text: str, line: str) -> set[int]:
    first, last, step = match["first"], match["last"], match["step"]
    size = field.high - field.low + 1
    if step is not None and int(step) == 0:
        raise BadCron(f"{field.name} {text!r} in {line!r} has a step of 0", remedy="a step is 1 or more")
    if first == "*":
        if last:
            raise _refused(field, match[0], text, line)
        low, high = field.low, field.high
    else:
        low = _value(field, first, text, line)
        high = _value(field, last, text, line) if last else field.high if step else low
    if high < low:  # over the end: fri-mon, 22-2
        high += size
    return {(value - field.low) % size + field.low for value in range(low, high + 1, int(step or 1))}


def _value(field: _Field, word: str, text: str, line: str) -> int:
    if word in field.names:
        return field.low + field.names.index(word)
    top = 7 if field is _DOW else field.high
    if len(word) < 9 and word.isdecimal() and field.low <= int(word) <= top:
        return int(word)
    raise _refused(field, word, text, line)


def _refused(field: _Field, part: str, text: str, line: str) -> BadCron:
    place = f"{field.name} {text!r}" if part == text.lower() else f"{part!r} in {field.name} {text!r}"
    foreign = next((why for sign, why in _FOREIGN.items() if re.search(sign, part)), "")
    return BadCron(
        f"{place} of {line!r} cannot be read{foreign}", remedy=f"{field.name} takes {field.accepted}"
    )

"""What a line's names stand for: a person's deeds, the paths of their items, and the values of scales.

Pure: built from rows that `queries` reads. A name matches however it is spaced and composed and
whatever its case; where two differ in nothing else, the exact spelling decides. What was deleted is
found only where nothing else has the name, and refused. What is not active any more is accepted: old
diaries are full of it.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, Protocol, TypeVar

from kitaab_jobs.imports.rules import BadLine, Draft, Span, check_day, join_path, read_count, split_path, tidy
from kitaab_jobs.imports.wording import Nearest, listed, shown


class Named(Protocol):
    """What the catalogue finds by name."""

    @property
    def deleted(self) -> bool:
        """Whether it, or what it belongs to, is soft-deleted."""


Thing = TypeVar("Thing", bound=Named)


class Names(Generic[Thing]):
    """Things by a name, or by the names along a path; several may differ only in case."""

    def __init__(self) -> None:
        self._by_key: dict[str, list[tuple[str, Thing]]] = {}

    def add(self, names: Iterable[str], thing: Thing) -> None:
        """Enter a thing under its name, or the names along its path."""
        spelled = _joined(names)
        self._by_key.setdefault(spelled.casefold(), []).append((spelled, thing))

    def find(self, names: Iterable[str]) -> list[Thing]:
        """Return what has the name: live before deleted, and of these an exact spelling before others."""
        spelled = _joined(names)
        found = self._by_key.get(spelled.casefold(), ())
        found = [pair for pair in found if not pair[1].deleted] or found
        return [thing for name, thing in found if name == spelled] or [thing for _, thing in found]

    def live(self) -> Iterator[str]:
        """Yield the names of what is not deleted, as paths."""
        for pairs in self._by_key.values():
            for spelled, thing in pairs:
                if not thing.deleted:
                    yield join_path(spelled.split("\0"))


def _joined(names: Iterable[str]) -> str:
    return "\0".join(map(tidy, names))


class Value(NamedTuple):
    """A value of a version of a scale."""

    scale_value_id: int
    scale_id: int
    scale: str
    rank: tuple[bool, int]  # in use or not, then the version
    deleted: bool


class Item(NamedTuple):
    """An item of a deed; `counted` tells a count from a value of a scale."""

    deed_item_id: int
    counted: bool
    deleted: bool


@dataclass(slots=True)
class Deed:
    """A deed with its items and the values of its scales. `found` is what lines have named so far."""

    name: str
    deleted: bool
    items: Names[Item] = field(default_factory=Names)
    values: Names[Value] = field(default_factory=Names)
    found: dict[str, Value] = field(default_factory=dict)


@dataclass(slots=True)
class Person:
    """A person, today's date in their zone, and their deeds.

    `size` is how many names they bring; `found` is what lines have named so far.
    """

    user_id: int
    email: str
    zone: str
    today: dt.date
    deeds: Names[Deed] = field(default_factory=Names)
    size: int = 1
    found: dict[tuple[str, str], tuple[Deed, Item]] = field(default_factory=dict)


class Row(NamedTuple):
    """A good line, as it goes into the database."""

    line: int
    user_id: int
    deed_item_id: int
    entry_date: dt.date
    count_value: str | None
    scale_id: int | None
    scale_value_id: int | None
    notes: str | None


def resolve(draft: Draft, person: Person, partitions: Sequence[Span], nearest: Nearest) -> Row:
    """Return the entry that a line stands for; raise `BadLine` where it names what is not there."""
    names = (draft.deed, draft.item)
    target = person.found.get(names)
    if target is None:
        deed = _deed(draft.deed, person, nearest)
        target = person.found[names] = (deed, _item(draft.item, deed, person, nearest))
    deed, item = target
    check_day(draft.day, person.today, person.zone, partitions)
    count, value = _measure(draft, deed, item, nearest)
    return Row(
        draft.line,
        person.user_id,
        item.deed_item_id,
        draft.day,
        count,
        value.scale_id if value else None,
        value.scale_value_id if value else None,
        draft.note,
    )


def _deed(name: str, person: Person, nearest: Nearest) -> Deed:
    found = person.deeds.find([name])
    if not found:
        reason = f"{shown(person.email)} has no deed {shown(name)}"
        raise BadLine(f"{reason}: {_instead(name, person.deeds, nearest)}")
    return _single(found, f"the deed {shown(name)} of {shown(person.email)}")


def _item(path: str, deed: Deed, person: Person, nearest: Nearest) -> Item:
    names = split_path(path)
    if not all(names):
        raise BadLine(
            f"the item {shown(path)} has an empty name in its path: write A / B, and a slash in a name as \\/"
        )
    found = deed.items.find(names)
    if not found:
        reason = f"the deed {shown(deed.name)} of {shown(person.email)} has no item {shown(path)}"
        raise BadLine(f"{reason}: {_instead(path, deed.items, nearest)}")
    return _single(found, f"the item {shown(path)} of the deed {shown(deed.name)} of {shown(person.email)}")


def _single(found: list[Thing], what: str) -> Thing:
    if found[0].deleted:
        raise BadLine(f"{what} was deleted: restore it, or leave this line out")
    if len(found) > 1:
        raise BadLine(
            f"{what} may be any of {len(found)}, which differ in upper and lower case: spell it exactly"
        )
    return found[0]


def _instead(name: str, known: Names[Thing], nearest: Nearest) -> str:
    names = list(known.live())
    # Whoever gives the last name of a path alone means that path.
    ends = [path for path in names if path.casefold().endswith(" / " + name.casefold())]
    near = f"did you mean {shown(ends[0])}?" if len(ends) == 1 else nearest.to(name, names)
    if near:
        return near
    return f"name one of {listed(names)}, or add it first" if names else "add it first"


def _measure(draft: Draft, deed: Deed, item: Item, nearest: Nearest) -> tuple[str | None, Value | None]:
    if item.counted:
        if draft.as_scale:
            raise BadLine(
                f"the item {shown(draft.item)} is counted: give a count, not the scale value {shown(draft.as_scale)}"
            )
        return read_count(draft.as_count or draft.value), None
    if draft.as_count:
        raise BadLine(
            f"the item {shown(draft.item)} is measured on a scale: give one of {listed(deed.values.live())}, "
            f"not the count {shown(draft.as_count)}"
        )
    text = draft.as_scale or draft.value
    if (value := deed.found.get(text)) is None:
        value = deed.found[text] = _value(text, deed, shown(draft.item), nearest)
    return None, value


def _value(text: str, deed: Deed, item: str, nearest: Nearest) -> Value:
    found = deed.values.find([text])
    if not found and len(parts := split_path(text)) == 2:
        found = [v for v in deed.values.find(parts[1:]) if v.scale.casefold() == parts[0].casefold()]
    if not found:
        instead = _instead(text, deed.values, nearest)
        raise BadLine(f"{shown(text)} is no value of the scale of {item}: {instead}")
    if found[0].deleted:
        raise BadLine(
            f"the scale with the value {shown(text)} was deleted: restore it, or leave this line out"
        )
    best: dict[str, Value] = {}
    for value in found:
        if value.scale not in best or value.rank > best[value.scale].rank:
            best[value.scale] = value
    used = [value for value in best.values() if value.rank[0]] or list(best.values())
    if len(used) > 1:
        ways = listed(join_path([value.scale, text]) for value in used)
        raise BadLine(
            f"the value {shown(text)} stands in {len(used)} scales of the deed: write one of {ways}"
        )
    return used[0]

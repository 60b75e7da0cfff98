"""Each person's deeds with their items and scales, and which of the items they record."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from random import Random
from typing import NamedTuple

from kitaab_jobs.devstack.sample.calendar import Calendar
from kitaab_jobs.devstack.sample.catalogue import DEEDS, SCALES, Count, Deed, Item
from kitaab_jobs.devstack.sample.people import Person
from kitaab_jobs.devstack.sample.rows import NULL

# A stream draws its values from this many samples, so that one random byte picks one.
SAMPLES = 64
NEVER = 1 << 30

# Local minutes at which people record, and how many do then: after Fajr, at noon, in the evening.
_HOURS = ((390, 3), (780, 2), (1140, 3), (1290, 6), (1350, 4))


class Node(NamedTuple):
    """An item of somebody's tree."""

    item_id: int
    name: str
    value_type: str


class Samples(NamedTuple):
    """What somebody records for an item: the columns scale_id, scale_value_id and count_value as text.

    `amounts` are the same as numbers, which are counts or keys of scale values.
    """

    texts: list[str]
    amounts: list[float]


@dataclass(slots=True, kw_only=True)
class Stream:
    """What one person records for one item of a good deed, or of one to improve.

    - `line`: the item, last, below those above it.
    - `samples`: what is recorded; from the day `revised_on` on that of `revised`.
    - `minutes`: samples of the local minute of the day at which it is recorded.
    - `often`: the share of the days of `pattern` (a byte for each day) that have an entry.
    - `days`: those that have one, in order, with four random bytes for each in `noise`.
    - `helper`: who records some of them, between `helped_from` and `helped_until`.
    """

    person: Person
    good: bool
    deed_id: int
    line: tuple[Node, ...]
    samples: Samples
    revised: Samples
    revised_on: int
    minutes: list[int]
    often: float
    pattern: bytes
    first: int
    end: int
    days: array[int] = field(default_factory=lambda: array("H"))
    noise: bytes = b""
    helper: int | None = None
    helped_from: int = NEVER
    helped_until: int = NEVER

    @property
    def node(self) -> Node:
        """The item."""
        return self.line[-1]

    def amount(self, index: int) -> float:
        """Return what entry `index` records: a count, or the key of a scale value."""
        samples = self.samples if self.days[index] < self.revised_on else self.revised
        return samples.amounts[self.noise[4 * index] % SAMPLES]

    def drop_from(self, day: int) -> None:
        """Take away the entries of `day` and of all later days."""
        while self.days and self.days[-1] >= day:
            self.days.pop()


@dataclass(slots=True, kw_only=True)
class _Scale:
    """The two versions of a scale: (columns, key) of each value, best first."""

    versions: list[list[tuple[str, int]]]
    revised_on: int


def streams_of(calendar: Calendar, person: Person) -> list[Stream]:
    """Add the deeds of `person` and return what they record."""
    random = person.random
    good = [deed for deed in DEEDS if deed.category == "hasanaat"]
    bad = [deed for deed in DEEDS if deed.category != "hasanaat"]
    chosen = random.sample(good, random.choice((2, 2, 3, 3, 4))) + random.sample(
        bad, random.choice((1, 1, 2))
    )
    streams: list[Stream] = []
    for order, deed in enumerate(chosen):
        begun = person.joined if order < 2 else person.joined + int(random.expovariate(1 / 60))
        begun = min(begun, person.left - 2, person.today - 1)
        streams += _Planting(calendar, person, deed, order, max(begun, person.joined)).streams()
    return streams


class _Planting:
    """One deed of one person: its row, its scales, its items, and the streams of those that are recorded."""

    def __init__(self, calendar: Calendar, person: Person, deed: Deed, order: int, begun: int) -> None:
        self.calendar, self.person, self.deed, self.begun = calendar, person, deed, begun
        self.tables, self.random = person.tables, person.random
        # A deed given up is soft-deleted: entries stay, none are added.
        self.end = person.left
        if order > 1 and self.random.random() < 0.12 and person.today - begun > 90:
            self.end = min(self.end, begun + 30 + self.random.randrange(person.today - begun - 60))
        self.created = self._instant(begun)
        self.ended = self._instant(self.end) if self.end < min(person.left, person.today) else None
        self.scales: dict[str, _Scale] = {}
        self.deed_id = self.tables.add(
            "deeds",
            person.user_id,
            deed.category,
            deed.name,
            deed.description if self.random.random() < 0.5 else None,
            order,
            self.ended is None,
            self.created,
            self.ended or self.created,
            self.ended,
        )

    def streams(self) -> list[Stream]:
        """Add the items and return the streams of those that the person records."""
        return list(self._branch(self.deed.below, ()))

    def _instant(self, day: int) -> datetime:
        return self.calendar.past(self.person.place.zone, day, 600 + self.person.user_id % 300)

    def _branch(self, items: Sequence[Item], above: tuple[Node, ...]) -> Iterator[Stream]:
        for order, item in enumerate(items):
            value_type = "count" if isinstance(item.measure, Count) else "scale"
            item_id = self.tables.add(
                "deed_items",
                self.deed_id,
                above[-1].item_id if above else None,
                len(above) + 1,
                item.name,
                value_type,
                order,
                self.ended is None,
                self.created,
                self.ended or self.created,
                self.ended,
            )
            line = (*above, Node(item_id, item.name, value_type))
            if self.random.random() < 0.2 + 0.5 * item.often:
                yield self._stream(item, line)
            yield from self._branch(item.below, line)

    def _stream(self, item: Item, line: tuple[Node, ...]) -> Stream:
        random, person, calendar = self.random, self.person, self.calendar
        samples, revised, revised_on = self._samples(item)
        hour = random.choices([minute for minute, _ in _HOURS], [weight for _, weight in _HOURS])[0]
        spread = random.choice((10, 25, 60))
        return Stream(
            person=person,
            good=self.deed.category == "hasanaat",
            deed_id=self.deed_id,
            line=line,
            samples=samples,
            revised=revised,
            revised_on=revised_on,
            minutes=[min(max(int(random.gauss(hour, spread)), 240), 1430) for _ in range(SAMPLES)],
            often=item.often * (0.5 + person.steadiness),
            pattern=_pattern(item.days, person.place.weekend, calendar.start.weekday(), calendar.span),
            first=min(self.begun + int(random.expovariate(1 / 10)), self.end - 1),
            end=self.end,
        )

    def _samples(self, item: Item) -> tuple[Samples, Samples, int]:
        """Return what is recorded first and later, and the day on which that changes."""
        if isinstance(item.measure, Count):
            numbers = _numbers(item.measure, self.random)
            samples = Samples([f"{NULL}\t{NULL}\t{number:g}" for number in numbers], numbers)
            return samples, samples, NEVER
        scale = self.scales.get(item.measure) or self._scale(item.measure)
        drawn = [self._drawn(version) for version in scale.versions]
        return drawn[0], drawn[-1], scale.revised_on

    def _drawn(self, version: Sequence[tuple[str, int]]) -> Samples:
        """Return samples of the values: mostly the better ones, the more so the steadier somebody is."""
        lean = 0.35 + 0.4 * (1 - self.person.steadiness)
        weights = [lean**rank for rank in range(len(version))]
        drawn = self.random.choices(version, weights, k=SAMPLES)
        return Samples([columns for columns, _ in drawn], [float(key) for _, key in drawn])

    def _scale(self, name: str) -> _Scale:
        """Add a scale of this deed, one in four with a second version, begun some time later."""
        days = min(self.end, self.person.today) - self.begun
        revised = days > 60 and self.random.random() < 0.25
        revised_on = self.begun + 20 + self.random.randrange(days - 40) if revised else NEVER
        made = _Scale(versions=[], revised_on=revised_on)
        for version, values in enumerate(SCALES[name][: 2 if revised else 1], start=1):
            at = self.created if version == 1 else self._instant(revised_on)
            current = version == 1 + revised
            changed = at if current else self._instant(revised_on)
            scale_id = self.tables.add("scales", self.deed_id, name, version, current, at, changed)
            made.versions.append([])
            for order, value in enumerate(values):
                key = self.tables.add("scale_values", scale_id, value, order, True, at, at)
                made.versions[-1].append((f"{scale_id}\t{key}\t{NULL}", key))
        self.scales[name] = made
        return made


def _numbers(count: Count, random: Random) -> list[float]:
    """Return samples of a count as one person records it: they keep to a part of the range."""
    top = count.low + (count.high - count.low) * (random.uniform(0.4, 1) if count.skew >= 1 else 1)
    raw = (count.low + (top - count.low) * random.random() ** count.skew for _ in range(SAMPLES))
    return [round(count.low + round((value - count.low) / count.step) * count.step, 2) for value in raw]


@cache
def _pattern(days: str, weekend: tuple[int, ...], first_weekday: int, span: int) -> bytes:
    """Return a byte for each day: 1 where entries of that kind are usual."""
    usual = {
        "all": range(7),
        "work": [day for day in range(7) if day not in weekend],
        "rest": weekend,
        "fasts": (0, 3),
    }[days]
    return bytes((first_weekday + day) % 7 in usual for day in range(span + 1))

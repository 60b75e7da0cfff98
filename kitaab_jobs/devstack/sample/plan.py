"""The whole sample in memory: rows of the small tables as text, and the streams that entries come from."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date

from kitaab_jobs.devstack.sample.calendar import Calendar
from kitaab_jobs.devstack.sample.daily import add_messages, add_reflections, add_reminders
from kitaab_jobs.devstack.sample.deeds import Stream, streams_of
from kitaab_jobs.devstack.sample.entries import Piece, fill, pieces
from kitaab_jobs.devstack.sample.goals import Goals
from kitaab_jobs.devstack.sample.people import people
from kitaab_jobs.devstack.sample.rows import Keys, Tables
from kitaab_jobs.devstack.sample.sharing import add_relations

# Part of what a sample is, whatever machine it is made on: the keys of entries depend on it.
LANES = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """Every second person with all that is theirs, which refers to nothing in the other lane."""

    number: int
    tables: Tables
    streams: list[Stream]
    calendar: Calendar
    first_entry: int

    @property
    def entries(self) -> int:
        """How many entries the lane has."""
        return sum(len(stream.days) for stream in self.streams)

    def pieces(self) -> Iterator[Piece]:
        """Return the entries as text for COPY, in the order of their days."""
        return pieces(self.streams, self.calendar, self.first_entry + self.number, LANES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What is to be loaded: the lanes, in any order, and then `between`, which refers to both.

    `zones` counts the zones that have people, `nearly` the merits that lack one small entry.
    """

    keys: Keys
    calendar: Calendar
    lanes: list[Lane]
    between: Tables
    zones: int
    nearly: int

    @property
    def entries(self) -> int:
        """How many entries there are."""
        return sum(lane.entries for lane in self.lanes)

    def rows(self) -> dict[str, int]:
        """Return the number of rows of each table."""
        counts: dict[str, int] = defaultdict(int, entries=self.entries)
        for tables in (*(lane.tables for lane in self.lanes), self.between):
            for table, lines in tables.lines.items():
                counts[table] += len(lines)
        return dict(counts)


def plan(
    *,
    first: dict[str, int],
    number: int,
    years: int,
    seed: int,
    today: date,
    on_person: Callable[[int, int], None],
) -> Sample:
    """Return a sample of `number` people; the same arguments always give the same rows.

    `first` has the first key of each table, and `on_person` is told how many people of how many
    are done.
    """
    calendar, keys = Calendar(today, years), Keys(first)
    parts, between = [Tables(keys) for _ in range(LANES)], Tables(keys)
    everybody = list(people(parts, calendar, number, seed))
    kept = {person.user_id: streams_of(calendar, person) for person in everybody}
    streams = [stream for of_person in kept.values() for stream in of_person]
    fill(streams, calendar, number)
    add_relations(between, calendar, everybody, kept, seed)
    nearly = 0
    for done, person in enumerate(everybody, start=1):
        add_reflections(calendar, person)
        add_messages(calendar, person)
        add_reminders(calendar, person)
        goals = Goals(calendar, person, kept[person.user_id])
        goals.add()
        nearly += goals.nearly
        on_person(done, number)
    lanes = [
        Lane(
            number=number,
            tables=part,
            streams=[stream for stream in streams if stream.person.tables is part],
            calendar=calendar,
            first_entry=first["entries"],
        )
        for number, part in enumerate(parts)
    ]
    keys.take("entries", LANES * max(lane.entries for lane in lanes))
    return Sample(
        keys=keys,
        calendar=calendar,
        lanes=lanes,
        between=between,
        zones=len({person.place.zone for person in everybody}),
        nearly=nearly,
    )

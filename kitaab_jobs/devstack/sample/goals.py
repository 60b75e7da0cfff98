"""Merits and targets in all stages, measured against what the streams really record.

Nothing here is marked complete: the platform computes that.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from kitaab_jobs.devstack.sample.calendar import Calendar
from kitaab_jobs.devstack.sample.deeds import Node, Stream
from kitaab_jobs.devstack.sample.people import Person

_DURATIONS = (7, 14, 30, 40, 90, 100, 365)
_STAGES = (("done", 34), ("under way", 44), ("begun", 12), ("off", 7), ("empty", 3))


class Part(NamedTuple):
    """One item of a goal: the amount `goal` of it, or so many entries with the scale value `key`."""

    node: Node
    key: int | None
    goal: float


class Goals:
    """The merits and targets of one person.

    `streams` are all that the person records, with their entries decided; `nearly` counts the merits
    that lack one small entry.
    """

    def __init__(self, calendar: Calendar, person: Person, streams: Sequence[Stream]) -> None:
        self.calendar, self.person, self.all_streams = calendar, person, streams
        self.tables, self.random = person.tables, person.random
        # Nobody is proud of many cigarettes; but "Held back", forty times, is a goal.
        self.streams = [s for s in streams if s.days and (s.good or s.node.value_type == "scale")]
        self.nearly = 0

    def add(self) -> None:
        """Add them."""
        if not self.streams:
            return
        # First, since it takes the entries of the day away.
        if self.person.stays and self.random.random() < 0.3:
            self._nearly_there()
        for _ in range(self.random.choice((0, 1, 1, 2, 2, 3))):
            self._merit()
        for _ in range(self.random.choice((0, 0, 1, 1, 2))):
            self._target()

    # --- merits ------------------------------------------------------------------------------------

    def _nearly_there(self) -> None:
        """Add a merit that one more entry on one item completes, today or in the days to come."""
        today, random = self.person.today, self.random
        fresh = [s for s in self.streams if s.end > today and s.days[-1] > today - 5 and len(s.days) > 10]
        if not fresh:
            return
        stream = random.choice(fresh)
        duration = None if random.random() < 0.4 else random.choice((30, 40, 90, 100, 365))
        start = self.person.joined
        if duration:
            start = max(start, today - random.randrange(duration // 2, duration - 4))
        stream.drop_from(today)
        key = self._frequent_key(stream)
        done = self._done(stream.node, key, start, today)
        if done <= 0:
            return
        amounts = sorted(amount for amount in stream.samples.amounts if amount > 0) or [1.0]
        parts = [Part(stream.node, key, done + (amounts[len(amounts) // 2] if key is None else 1))]
        logic = "AND"
        others = [other for other in self._of_deed(stream) if other is not stream]
        if others and random.random() < 0.5:
            logic = random.choice(("AND", "AND", "OR"))
            parts.append(self._part(random.choice(others), start, today, 0.7 if logic == "AND" else 9))
            if logic == "AND" and self._done(parts[1].node, parts[1].key, start, today) < parts[1].goal:
                parts.pop()
        self.nearly += 1
        self._add_merit(stream, parts, logic, start, duration, active=True)

    def _merit(self) -> None:
        random, person = self.random, self.person
        stage = random.choices([name for name, _ in _STAGES], [weight for _, weight in _STAGES])[0]
        stream = random.choice(self.streams)
        duration = None if random.random() < 0.45 else random.choice(_DURATIONS)
        until = min(person.left, person.today)
        start = random.choice((person.joined, stream.first, random.randrange(person.joined, until + 1)))
        if stage == "begun":
            start = person.today + random.randrange(-3, 8)
        # Without a duration every entry counts, whenever the merit was made.
        window = random.randrange(start, max(until - duration, start) + 1) if duration else 0
        end = window + duration - 1 if duration else until
        kept = self._of_deed(stream)
        chosen = random.sample(kept, min(len(kept), random.choice((1, 1, 2, 2, 3))))
        logic = "AND" if random.random() < 0.7 else "OR"
        parts = []
        for index, part in enumerate(chosen if stage != "empty" else ()):
            # Of an OR, one item is enough, so the others may be far away.
            done = stage == "done" and (index == 0 or logic == "AND")
            parts.append(
                self._part(part, window, end, random.uniform(0.4, 0.98) if done else random.uniform(1.2, 4))
            )
        self._add_merit(stream, parts, logic, start, duration, active=stage != "off")

    def _add_merit(
        self,
        stream: Stream,
        parts: Sequence[Part],
        logic: str,
        start: int,
        duration: int | None,
        *,
        active: bool,
    ) -> None:
        made = self.calendar.past(self.person.place.zone, start, 1200)
        what = " and ".join(dict.fromkeys(part.node.name for part in parts)) or stream.node.name
        merit_id = self.tables.add(
            "merits",
            self.person.user_id,
            stream.deed_id,
            f"{duration} days: {what}" if duration else f"In all my days: {what}",
            None,
            logic,
            self.calendar.date(start),
            duration,
            active,
            made,
            made,
        )
        self._add_parts("merit_items", (merit_id, stream.deed_id), parts, made)

    # --- targets -----------------------------------------------------------------------------------

    def _target(self) -> None:
        """Add a target over up to three deeds: past, running or to come."""
        random, today = self.random, self.person.today
        stage = random.choices(("past", "running", "to come"), (45, 42, 13))[0]
        if stage == "past":
            end = random.randrange(self.person.joined + 3, max(today - 2, self.person.joined + 4))
            start = max(self.person.joined, end - random.choice((6, 13, 29, 89)))
        else:
            start = today - random.randrange(4, 45) if stage == "running" else today + random.randrange(2, 20)
            end = max(start, today) + random.choice((1, 3, 7, 14, 30))
        by_deed = {stream.deed_id: stream for stream in random.sample(self.streams, len(self.streams))}
        chosen = list(by_deed.values())[: random.choice((1, 2, 2, 3))]
        eager = random.choice(((0.5, 0.99), (1.01, 1.15), (1.2, 2.5)))
        parts = [self._part(stream, start, end, random.uniform(*eager)) for stream in chosen]
        made = self.calendar.past(self.person.place.zone, start, 1205)
        target_id = self.tables.add(
            "targets",
            self.person.user_id,
            f"{self.calendar.date(start)} to {self.calendar.date(end)}: {' and '.join(part.node.name for part in parts)}",
            "AND" if random.random() < 0.7 else "OR",
            self.calendar.date(start),
            self.calendar.date(end),
            random.random() < 0.95,
            made,
            made,
        )
        self._add_parts("target_items", (target_id,), parts, made)

    def _add_parts(self, table: str, goal: tuple[int, ...], parts: Sequence[Part], made: datetime) -> None:
        for node, key, amount in parts:
            self.tables.add(table, *goal, node.item_id, node.value_type, key, amount, made, made)

    # --- measures ----------------------------------------------------------------------------------

    def _part(self, stream: Stream, start: int, end: int, factor: float) -> Part:
        """Return an item whose goal is `factor` times what `start` to `end` (both included) gave.

        The item is the stream's, or now and then the one above it, which counts those below too.
        """
        key, node = self._frequent_key(stream), stream.node
        above = stream.line[-2:-1]
        if key is None and above and above[0].value_type == "count" and self.random.random() < 0.3:
            node = above[0]
        done = self._done(node, key, start, end)
        goal = done * factor if done else factor * (3 if key else stream.samples.amounts[0] + 1)
        return Part(node, key, max(1, int(goal)) if factor < 1 else int(goal) + 1)

    def _done(self, node: Node, key: int | None, start: int, end: int) -> float:
        """Return what the item and those below it have from `start` to `end`, both included."""
        done = 0.0
        for stream in self.all_streams:
            if node in stream.line and stream.node.value_type == node.value_type:
                first, stop = bisect_left(stream.days, start), bisect_left(stream.days, end + 1)
                amounts = (stream.amount(index) for index in range(first, stop))
                done += sum(amounts) if key is None else sum(amount == key for amount in amounts)
        return round(done, 2)

    def _frequent_key(self, stream: Stream) -> int | None:
        """Return the scale value that the stream records most often now, or None if it counts."""
        if stream.node.value_type == "count":
            return None
        latest = (stream.samples if stream.days[-1] < stream.revised_on else stream.revised).amounts
        return int(max(sorted(set(latest)), key=latest.count))

    def _of_deed(self, stream: Stream) -> list[Stream]:
        return [other for other in self.streams if other.deed_id == stream.deed_id]

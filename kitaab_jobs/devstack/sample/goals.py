"""Merits and targets in all stages, measured against what the streams really record.

Nothing here is marked complete: the platform computes that.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import NamedTuple

from kitaab_jobs.devstack.sample.calendar import Calendar
from kitaab_jobs.devstack.sample.deeds import Stream
from kitaab_jobs.devstack.sample.people import Person

_DURATIONS = (7, 14, 30, 40, 90, 100, 365)
_STAGES = (("done", 34), ("under way", 44), ("begun", 12), ("off", 7), ("empty", 3))


class Part(NamedTuple):
    """One item of a goal: the amount `goal` of an item, or so many entries with the scale value `key`."""

    stream: Stream
    item_id: int
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
        self.streams = [s for s in streams if s.days and (s.good or s.value_type == "scale")]
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
        start = max(
            self.person.joined, today - random.randrange(duration // 2, duration - 4) if duration else 0
        )
        stream.drop_from(today)
        key = self._frequent_key(stream)
        done = self._done(stream.item_id, key, start, today)
        if done <= 0:
            return
        amounts = sorted(amount for amount in stream.amounts if amount > 0) or [1.0]
        parts = [Part(stream, stream.item_id, key, done + (amounts[len(amounts) // 2] if key is None else 1))]
        logic = "AND"
        others = [other for other in self._of_deed(stream) if other is not stream]
        if others and random.random() < 0.5:
            logic = random.choice(("AND", "AND", "OR"))
            parts.append(self._part(random.choice(others), start, today, 0.7 if logic == "AND" else 9))
            if logic == "AND" and self._done(*parts[1][1:3], start, today) < parts[1].goal:
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
        what = " and ".join(dict.fromkeys(part.stream.name for part in parts)) or stream.name
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
        for part in parts:
            kind = part.stream.value_type
            self.tables.add(
                *(
                    "merit_items",
                    merit_id,
                    stream.deed_id,
                    part.item_id,
                    kind,
                    part.key,
                    part.goal,
                    made,
                    made,
                )
            )

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
            f"{self.calendar.date(start):%d %B} to {self.calendar.date(end):%d %B}: {len(parts)} deeds",
            "AND" if random.random() < 0.7 else "OR",
            self.calendar.date(start),
            self.calendar.date(end),
            random.random() < 0.95,
            made,
            made,
        )
        for part in parts:
            kind = part.stream.value_type
            self.tables.add(*("target_items", target_id, part.item_id, kind, part.key, part.goal, made, made))

    # --- measures ----------------------------------------------------------------------------------

    def _part(self, stream: Stream, start: int, end: int, factor: float) -> Part:
        """Return an item whose goal is `factor` times what `start` to `end` (both included) gave.

        The item is the stream's, or now and then the one above it, which counts those below too.
        """
        key = self._frequent_key(stream)
        item_id = stream.item_id
        if key is None and len(stream.line) > 1 and stream.parent_counts and self.random.random() < 0.3:
            item_id = stream.line[-2]
        done = self._done(item_id, key, start, end)
        goal = done * factor if done else factor * (3 if key else stream.amounts[0] + 1)
        return Part(stream, item_id, key, max(1, int(goal)) if factor < 1 else int(goal) + 1)

    def _done(self, item_id: int, key: int | None, start: int, end: int) -> float:
        """Return what the item and those below it have from `start` to `end`, both included."""
        done = 0.0
        for stream in self.all_streams:
            if item_id not in stream.line:
                continue
            first, stop = bisect_left(stream.days, start), bisect_left(stream.days, end + 1)
            amounts = (stream.amount(index) for index in range(first, stop))
            if key is not None:
                done += sum(amount == key for amount in amounts) if stream.value_type == "scale" else 0
            elif stream.value_type == "count":
                done += sum(amounts)
        return round(done, 2)

    def _frequent_key(self, stream: Stream) -> int | None:
        """Return the scale value that the stream records most often now, or None if it counts."""
        if stream.value_type == "count":
            return None
        latest = stream.amounts if stream.days[-1] < stream.revised_on else stream.revised_amounts
        return int(max(sorted(set(latest)), key=latest.count))

    def _of_deed(self, stream: Stream) -> list[Stream]:
        return [other for other in self.streams if other.deed_id == stream.deed_id]

"""The entries: on which days each stream has one, with streaks and gaps, and their text for COPY.

The days are decided first, for all streams, so that the number of entries is known before the first
is loaded. The text is made day by day, over all people, as entries come in in life.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import compress
from math import log
from typing import NamedTuple

from kitaab_jobs.devstack.sample.calendar import DAY_MINUTES, Calendar
from kitaab_jobs.devstack.sample.deeds import SAMPLES, Stream
from kitaab_jobs.devstack.sample.rows import NULL
from kitaab_jobs.devstack.sample.texts import NOTES

# A million entries for 500 people in three years, and a little more so that chance takes none away.
_PER_PERSON_AND_DAY = 1_000_000 / 500 / (3 * 365.25)
_MARGIN = 1.02

_ROWS_IN_PIECE = 5_000

# Of 256 values of a random byte, those for which an entry was recorded the day after, and those for
# which it has a note, if the person likes to write or does not.
_LATE_BELOW = 14
_NOTE_FROM = {True: 234, False: 253}


class Piece(NamedTuple):
    """Some entries as COPY reads them."""

    rows: int
    text: str


def fill(streams: Sequence[Stream], calendar: Calendar, people: int) -> int:
    """Decide the days of every stream and return how many entries that makes.

    What people would do on their own is stretched or thinned to the number that `people` over the
    days of the calendar are to have.
    """
    possible = [_possible(stream) for stream in streams]
    expected = sum(
        stream.often * sum(days[stream.first : stream.end])
        for stream, days in zip(streams, possible, strict=True)
    )
    factor = _PER_PERSON_AND_DAY * _MARGIN * people * calendar.span / max(expected, 1)
    for stream, days in zip(streams, possible, strict=True):
        _keep(stream, days, min(0.97, stream.often * factor), calendar)
    return sum(len(stream.days) for stream in streams)


def _possible(stream: Stream) -> bytes:
    """Return a byte for each day: 1 where the item is usual and the person is not away."""
    usual, there = (int.from_bytes(days, "big") for days in (stream.pattern, stream.person.present))
    return (usual & there).to_bytes(len(stream.pattern), "big")


def _keep(stream: Stream, possible: bytes, share: float, calendar: Calendar) -> None:
    """Give the stream runs of days with entries and gaps between them, `share` of the days in all."""
    person, random = stream.person, stream.person.random
    run_mean = 1.5 + 40 * person.steadiness**3 * share
    gap_mean = run_mean * (1 - share) / share
    run_rate, gap_rate = -log(1 - 1 / run_mean), log(1 + 1 / gap_mean)
    day = stream.first
    while day < stream.end:
        stop = min(day + 1 + int(random.expovariate(run_rate)), stream.end)
        stream.days.extend(compress(range(day, stop), possible[day:stop]))
        day = stop + int(random.expovariate(gap_rate))
    stream.noise = random.randbytes(4 * len(stream.days))
    today, passed = calendar.last(person.place.zone)
    if stream.days and stream.days[-1] == today:  # only what is recorded by now
        recorded = stream.minutes[stream.noise[4 * len(stream.days) - 3] % SAMPLES]
        if recorded >= passed:
            stream.days.pop()


class _Track(NamedTuple):
    """A stream as the loop over the rows wants it: everything looked up once."""

    noise: bytes
    minutes: list[int]
    ahead: list[int]
    head: str
    helped_head: str
    helped_from: int
    helped_until: int
    values: list[str]
    revised: list[str]
    revised_on: int
    notes: tuple[str, ...]
    note_from: int
    yesterday: int


def pieces(streams: Sequence[Stream], calendar: Calendar, first_id: int, step: int) -> Iterator[Piece]:
    """Return all entries as text, day by day; their keys are `first_id` and every `step`th after it."""
    by_day: list[list[int]] = [[] for _ in range(calendar.span + 1)]
    for number, stream in enumerate(streams):
        for day in stream.days:
            by_day[day].append(number)
    tracks = [_track(stream, calendar) for stream in streams]
    used = [0] * len(streams)
    dates = [calendar.date(day).isoformat() for day in range(-1, calendar.span + 3)]
    clock = [f"{minute // 60:02}:{minute % 60:02}:" for minute in range(DAY_MINUTES)]
    seconds = [f"{byte % 60:02}+00" for byte in range(256)]
    lines: list[str] = []
    entry_id = first_id
    for day, numbers in enumerate(by_day):
        date = dates[day + 1]
        for number in numbers:
            track = tracks[number]
            noise, minutes, ahead, head, helped, helped_from, helped_until, values, *_ = track
            at = used[number]
            used[number] = at + 4
            value, minute, luck, other = noise[at : at + 4]
            if helped_from <= day < helped_until and other % 3 == 0:
                head = helped
            if day >= track.revised_on:
                values = track.revised
            late = DAY_MINUTES if luck < _LATE_BELOW and day < track.yesterday else 0
            passed, clock_minute = divmod(minutes[minute % SAMPLES] - ahead[day] + late, DAY_MINUTES)
            moment = f"{dates[day + 1 + passed]} {clock[clock_minute]}{seconds[other]}"
            note = track.notes[other % len(track.notes)] if luck >= track.note_from else NULL
            lines.append(f"{entry_id}\t{date}{head}{values[value % SAMPLES]}\t{note}\t{moment}\t{moment}\n")
            entry_id += step
        if len(lines) >= _ROWS_IN_PIECE or day == calendar.span:
            yield Piece(len(lines), "".join(lines))
            lines = []


def _track(stream: Stream, calendar: Calendar) -> _Track:
    person = stream.person
    return _Track(
        noise=stream.noise,
        minutes=stream.minutes,
        ahead=calendar.offsets(person.place.zone),
        head=f"\t{person.user_id}\t{stream.node.item_id}\t{NULL}\t",
        helped_head=f"\t{person.user_id}\t{stream.node.item_id}\t{stream.helper}\t",
        helped_from=stream.helped_from,
        helped_until=stream.helped_until,
        values=stream.samples.texts,
        revised=stream.revised.texts,
        revised_on=stream.revised_on,
        notes=NOTES.get(person.language, NOTES["en"]),
        note_from=_NOTE_FROM[person.talkative],
        yesterday=person.today - 1,
    )

"""Relations between people, what they permit each other, and who records for whom."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from random import Random

from kitaab_jobs.devstack.sample.calendar import Calendar
from kitaab_jobs.devstack.sample.deeds import Stream
from kitaab_jobs.devstack.sample.people import Person
from kitaab_jobs.devstack.sample.rows import Tables

_STATUSES = (("accepted", 66), ("pending", 20), ("rejected", 6), ("blocked", 8))


def add_relations(
    tables: Tables, calendar: Calendar, people: Sequence[Person], kept: Mapping[int, list[Stream]], seed: int
) -> None:
    """Add relations (a little more than one a person) and permissions, and set the streams' helpers.

    `kept` has the streams of each person. Most relations are between people of one culture, the rest between any two.
    """
    random = Random(f"{seed}/relations")
    near: dict[str, list[Person]] = defaultdict(list)
    for person in people:
        near[person.place.culture].append(person)
    pairs: set[tuple[int, int]] = set()
    for requester in people:
        for _ in range(random.choice((0, 0, 1, 1, 1, 2, 3))):
            circle = near[requester.place.culture] if random.random() < 0.8 else people
            requestee = random.choice(circle)
            pair = (requester.user_id, requestee.user_id)
            if requester is requestee or pair in pairs:
                continue
            pairs.add(pair)
            _relate(tables, calendar, requester, requestee, kept[requestee.user_id], random)


def _relate(
    tables: Tables,
    calendar: Calendar,
    requester: Person,
    requestee: Person,
    streams: Sequence[Stream],
    random: Random,
) -> None:
    since = max(requester.joined, requestee.joined)
    until = min(requester.left, requestee.left, requester.today, requestee.today)
    if until - since < 10:
        return
    zone = requestee.place.zone
    asked_on = since + random.randrange(until - since - 5)
    asked = calendar.past(zone, asked_on, random.randrange(480, 1300))
    status = random.choices([name for name, _ in _STATUSES], [weight for _, weight in _STATUSES])[0]
    answered_on = asked_on + random.choice((0, 0, 1, 1, 2, 4))
    answered = max(calendar.past(zone, answered_on, random.randrange(480, 1300)), asked)
    ended = status == "accepted" and until - answered_on > 60 and random.random() < 0.06
    relation_id = tables.add(
        "relations",
        requester.user_id,
        requestee.user_id,
        status,
        answered if status == "accepted" else None,
        asked,
        asked if status == "pending" else answered,
        calendar.past(zone, answered_on + 50, 700) if ended else None,
    )
    if status != "accepted":
        return
    until = answered_on + 50 if ended else until
    for stream in random.sample(streams, min(len(streams), random.choice((1, 2, 2, 3, 4)))):
        _permit(tables, calendar, relation_id, requester, stream, answered_on, until, random)


def _permit(
    tables: Tables,
    calendar: Calendar,
    relation_id: int,
    requester: Person,
    stream: Stream,
    day: int,
    until: int,
    random: Random,
) -> None:
    """Let `requester` read or write the stream's item from `day` on; some is widened or taken back."""
    zone = stream.person.place.zone
    given = calendar.past(zone, day, 1310)
    history = random.choices((("read",), ("write",), ("read", "write"), ("write", "read")), (45, 30, 15, 10))[
        0
    ]
    last_change = day
    for version, kind in enumerate(history, start=1):
        current = version == len(history)
        revoked_on: int | None = None
        if not current or random.random() < 0.12:
            revoked_on = min(last_change + 5 + int(random.expovariate(1 / 60)), until)
        revoked = None if revoked_on is None else calendar.past(zone, revoked_on, 1311)
        tables.add(
            "permissions",
            relation_id,
            stream.node.item_id,
            kind,
            version,
            revoked is None,
            revoked,
            given,
            revoked or given,
        )
        # Only among those whose rows are loaded together: an entry refers to who recorded it.
        together = requester.tables is stream.person.tables
        if kind == "write" and together and stream.helper is None:
            stop = until if revoked_on is None else revoked_on
            stream.helper, stream.helped_from, stream.helped_until = requester.user_id, last_change + 1, stop
        if revoked_on is not None and revoked is not None:
            last_change, given = revoked_on, revoked

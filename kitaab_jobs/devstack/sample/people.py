"""The people: where they live, when they joined, whether they stayed, and how steady they are."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random

from kitaab_jobs.devstack.sample.calendar import Calendar
from kitaab_jobs.devstack.sample.names import NAMES
from kitaab_jobs.devstack.sample.places import PLACES, Place
from kitaab_jobs.devstack.sample.rows import Tables

# Reserved for examples (RFC 2606): no mail to them ever reaches anybody.
_DOMAINS = ("example.org", "example.com", "example.net", "mail.example.org", "inbox.example.net")


@dataclass(slots=True, kw_only=True)
class Person:
    """Somebody, and the days (numbers of the calendar) between which they use the app.

    `joined` is the first and `left` the first day without them; `today` is the day that it is now
    where they are. Their rows go into `tables`. `present` has one byte for each day: 0 where they were away from everything.
    """

    user_id: int
    tables: Tables
    place: Place
    language: str
    joined: int
    left: int
    today: int
    alive: bool
    steadiness: float
    talkative: bool
    present: bytes
    random: Random

    @property
    def stays(self) -> bool:
        """Whether they still use the app and have done so for a month."""
        return self.alive and self.left > self.today and self.today - self.joined > 30


def people(parts: Sequence[Tables], calendar: Calendar, number: int, seed: int) -> Iterator[Person]:
    """Add `number` people to `parts` in turn and return them: somebody in every place, more in the larger."""
    shared = Random(f"{seed}/places")
    everywhere = shared.sample(PLACES, len(PLACES))
    weights = [place.weight for place in PLACES]
    for index in range(number):
        # One generator for each person, so that a change for one leaves all others as they are.
        random = Random(f"{seed}/person/{index}")
        place = everywhere[index] if index < len(everywhere) else shared.choices(PLACES, weights)[0]
        yield _person(parts[index % len(parts)], calendar, place, random)


def _person(tables: Tables, calendar: Calendar, place: Place, random: Random) -> Person:
    today, _ = calendar.last(place.zone)
    joined = random.randrange(14) if random.random() < 0.45 else int(random.random() * (today - 5))
    left = today + 1
    if random.random() < 0.22:  # gave up, most of them early
        left = min(left, joined + 5 + int(random.expovariate(1 / 150)))
    gone = left <= today and random.random() < 0.4
    inactive = gone or random.random() < 0.02
    deleted = gone and random.random() < 0.4
    language = place.language if random.random() < 0.85 else "en"
    given, family = (random.choice(names) for names in NAMES[place.culture])
    created = calendar.instant(place.zone, joined, random.randrange(7 * 60, 10 * 60))
    seen = calendar.instant(place.zone, min(left, today) - 1, random.randrange(5 * 60, 23 * 60))
    ended = calendar.past(place.zone, left + 2, 600) if inactive else None
    user_id = tables.keys.take("users")
    tables.add(
        "users",
        f"{given[1]}.{family[1]}{user_id}@{random.choices(_DOMAINS, (8, 3, 2, 1, 1))[0]}",
        _unusable_hash(random),
        f"{given[0]} {family[0]}",
        place.zone,
        language,
        _preferences(random, place),
        random.random() < 0.93,
        not inactive,
        seen if seen > created else created,
        created,
        max(created, ended or created),
        ended if deleted else None,
        key=user_id,
    )
    return Person(
        user_id=user_id,
        tables=tables,
        place=place,
        language=language,
        joined=joined,
        left=left,
        today=today,
        alive=not inactive,
        steadiness=random.betavariate(4, 2.5),
        talkative=random.random() < 0.35,
        present=_present(random, calendar),
        random=random,
    )


def _present(random: Random, calendar: Calendar) -> bytes:
    """Return a byte for each day, 0 on holidays, in illness, and in weeks without heart for it."""
    days = bytearray(b"\1") * (calendar.span + 1)
    day = int(random.expovariate(1 / 120))
    while day <= calendar.span:
        away = random.choice((2, 3, 5, 8, 12, 21))
        days[day : day + away] = bytes(min(away, calendar.span + 1 - day))
        day += away + 20 + int(random.expovariate(1 / 110))
    return bytes(days)


def _preferences(random: Random, place: Place) -> str:
    first_day = "saturday" if 4 in place.weekend else "monday"
    theme = random.choice(("light", "dark", "system"))
    return f'{{"theme": "{theme}", "week_starts_on": "{first_day}", "show_streaks": {str(random.random() < 0.8).lower()}}}'


def _unusable_hash(random: Random) -> str:
    """Return a well-formed Argon2 hash of nothing: random bytes, so no password has it."""
    salt, digest = (b64encode(random.randbytes(size)).decode().rstrip("=") for size in (16, 32))
    return f"$argon2id$v=19$m=65536,t=3,p=4${salt}${digest}"

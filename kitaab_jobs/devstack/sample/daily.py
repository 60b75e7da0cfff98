"""What surrounds the entries: reflections, messages with support, and reminders."""

from __future__ import annotations

from random import Random

from kitaab_jobs.devstack.sample.calendar import Calendar
from kitaab_jobs.devstack.sample.people import Person
from kitaab_jobs.devstack.sample.places import PLACES
from kitaab_jobs.devstack.sample.texts import REFLECTIONS, THREADS

# Local hours at which people want to be reminded, and how many do: before dawn, breakfast, evening.
_REMINDER_HOURS = (
    (4, 5),
    (5, 14),
    (6, 12),
    (7, 8),
    (8, 5),
    (12, 4),
    (18, 6),
    (20, 10),
    (21, 24),
    (22, 18),
    (23, 4),
)


def add_reflections(calendar: Calendar, person: Person) -> None:
    """Add what `person` wrote about days: some every week, most now and then, some never."""
    random = person.random
    every = random.choices((0, 90, 25, 7), (25, 40, 25, 10))[0]  # days between two
    texts = REFLECTIONS.get(person.language, REFLECTIONS["en"])
    day = person.joined + int(random.expovariate(1 / every)) if every else person.left
    while day < min(person.left, person.today):
        written = calendar.instant(person.place.zone, day, random.randrange(1260, 1430))
        for kind, of_kind in zip(("hasanaat", "saiyyiaat"), texts, strict=True):
            if random.random() < 0.6:
                content = random.choice(of_kind)
                person.tables.add(
                    "reflection_messages",
                    person.user_id,
                    calendar.date(day),
                    kind,
                    content,
                    written,
                    written,
                )
        day += 1 + int(random.expovariate(1 / every))


def add_messages(calendar: Calendar, person: Person) -> None:
    """Add a thread or two with support, for one person in ten; the newest may wait for an answer."""
    random, zone = person.random, person.place.zone
    if random.random() >= 0.1:
        return
    for subject, question, answer in random.sample(THREADS, random.choice((1, 1, 2))):
        day = person.joined + random.randrange(max(min(person.left, person.today) - person.joined, 1))
        asked = calendar.past(zone, day, random.randrange(540, 1300))
        opened = person.tables.add(
            "messages", person.user_id, None, "user", subject, question, asked, asked, asked
        )
        answered = calendar.instant(zone, day + random.choice((0, 1, 1, 2)), 1320)
        if answered < calendar.now:
            read = answered if random.random() < 0.7 else None
            person.tables.add(
                "messages", person.user_id, opened, "support", None, answer, read, answered, answered
            )


def add_reminders(calendar: Calendar, person: Person) -> None:
    """Add reminders that were given up, and the one that is active for nearly all who are still here."""
    random = person.random
    given_up = random.choices((0, 1, 2), (70, 22, 8))[0]
    made = calendar.instant(person.place.zone, person.joined, 605)
    for _ in range(given_up):
        later = calendar.past(person.place.zone, person.joined + 10 + random.randrange(60), 610)
        _add_reminder(person, random, active=False, made=made, changed=max(made, later))
    if person.alive and random.random() < 0.92:
        _add_reminder(person, random, active=True, made=made, changed=made)


def _add_reminder(person: Person, random: Random, *, active: bool, made: object, changed: object) -> None:
    hour = random.choices([hour for hour, _ in _REMINDER_HOURS], [weight for _, weight in _REMINDER_HOURS])[0]
    minute = random.choice((0, 0, 0, 30, 30, 15, 45, random.randrange(60)))
    # A few have travelled, and a few want a time that the clock change takes away or gives twice.
    zone = person.place.zone if random.random() < 0.96 else random.choice(PLACES).zone
    if random.random() < 0.02:
        hour, minute = 2, 30
    person.tables.add("notifications", person.user_id, f"{hour:02}:{minute:02}", zone, active, made, changed)

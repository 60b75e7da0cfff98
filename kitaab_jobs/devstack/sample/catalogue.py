"""The deeds that people choose from: trees of items three levels deep, and how each is measured."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

# Each scale: its values from the best to the worst, and those of its second version.
SCALES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "Punctuality": (
        ("In congregation", "On time", "Late", "Missed"),
        ("In congregation", "On time", "After its time", "Made up later", "Missed"),
    ),
    "Focus": (("Present", "Wandering", "Absent"), ("Present", "Mostly present", "Wandering", "Absent")),
    "Contact": (("Visited", "Called", "Wrote", "Nothing"), ("Visited", "Called", "Message", "Nothing")),
    "Rest": (("Well rested", "Fair", "Poor"), ("Well rested", "Good", "Fair", "Poor")),
    "Restraint": (
        ("Held back", "Slipped once", "Slipped often"),
        ("Held back", "Slipped", "Slipped and made up", "Slipped often"),
    ),
    "Temper": (("Calm", "Irritated", "Lost it"), ("Calm", "Irritated", "Raised my voice", "Lost it")),
}

# A line without an indent is a deed: category, name, description. Below it stand its items, two more
# spaces for each level: name | measure | how often those who keep it record it | days.
# A measure is a scale's name, or a count: lowest..highest, in steps of /step (1), leaning towards the
# low end with ^above 1 (2) and towards the high end with ^below 1. Days are `all` (if none are given),
# `work` (few on days of rest), `rest` (mostly then) or `fasts` (Mondays and Thursdays).
_OUTLINE = """\
hasanaat: Prayer: The five, and what comes around them
  Five prayers             | 0..5 ^0.25       | 0.90
    Fajr                   | Punctuality      | 0.75
      Sunnah before Fajr   | 1..2             | 0.50
    Asr                    | Punctuality      | 0.50 | work
    Isha                   | Punctuality      | 0.60
      Witr                 | 1..3 /2 ^1       | 0.50
  Night prayer             | 2..11            | 0.25
hasanaat: Qur'an: Reading, learning, understanding
  Recitation               | 1..20 ^2.5       | 0.75
    Morning pages          | 1..20 ^2.5       | 0.50
      With translation     | 1..8             | 0.35
    Evening pages          | 1..20 ^2.5       | 0.40
  Memorisation             | 1..15            | 0.40 | work
    Revision               | 2..40            | 0.45
      With a teacher       | 5..90 /5         | 0.20 | rest
  Attentiveness            | Focus            | 0.40
hasanaat: Charity: Money and time
  Given                    | 0.5..150 /0.5 ^4 | 0.25
    Neighbours             | 1..5             | 0.20 | rest
      Meals brought        | 1..4             | 0.15 | rest
    By standing order      | 1..50 ^4         | 0.10
  Time given               | 0.25..4 /0.25    | 0.20 | rest
hasanaat: Family: Those who are closest
  Parents                  | Contact          | 0.50
    Errands for them       | 1..4             | 0.20 | rest
      To the doctor        | 1..2             | 0.06 | work
  Children                 | 5..90 /5         | 0.60
    Homework together      | 5..90 /5         | 0.45 | work
      Reading aloud        | 5..40 /5         | 0.45
hasanaat: Remembrance: A moist tongue
  Dhikr                    | 33..999 /33 ^2.5 | 0.75
    After prayer           | 33..165 /33 ^1   | 0.60
      Before sleep         | 33..99 /33 ^1    | 0.50
hasanaat: Fasting: Outside Ramadan
  Voluntary fasts          | 1..1             | 0.60 | fasts
    Shared iftar           | 1..8             | 0.25 | fasts
      Guests               | 1..12            | 0.15 | rest
hasanaat: Body: It has a right over me
  Walking, km              | 0.5..14 /0.1     | 0.70
    To work, km            | 0.5..4 /0.1 ^1   | 0.60 | work
      Flights of stairs    | 1..25            | 0.50 | work
  Sleep                    | Rest             | 0.65
  Glasses of water         | 1..12 ^0.8       | 0.60
hasanaat: Study: A little every day
  Arabic, minutes          | 5..90 /5         | 0.55 | work
    Words learned          | 1..30            | 0.45 | work
      Old cards            | 5..120 /5        | 0.50
  Pages read               | 1..60 ^2.5       | 0.50
saiyyiaat: Tongue: What was said and should not have been
  Gossip                   | 0..6             | 0.60
    At work                | 0..6             | 0.50 | work
      In group chats       | 0..6             | 0.40
  Harsh words              | Restraint        | 0.60
saiyyiaat: Screen: Hours that do not come back
  Screen time, minutes     | 10..300 /5 ^1.5  | 0.80
    Social media, minutes  | 5..180 /5        | 0.70
      In bed, minutes      | 5..90 /5         | 0.50
saiyyiaat: Anger: The strong one is who masters it
  Temper                   | Temper           | 0.65
    In traffic             | Temper           | 0.50 | work
      On the way home      | Temper           | 0.40 | work
saiyyiaat: Smoking: Fewer every month
  Cigarettes               | 0..20 ^1.5       | 0.85
    With coffee            | 0..6             | 0.60 | work
      After dinner         | 0..3             | 0.50
saiyyiaat: Waste: Food, money, time
  Food thrown away         | 0..6             | 0.35 | rest
    Leftovers              | 0..6             | 0.30
      Bread                | 0..6             | 0.30
  Bought on impulse        | 1..150 ^4        | 0.25 | rest
"""


class Count(NamedTuple):
    """A number from `low` to `high` in steps; a `skew` above 1 leans to the low end, below 1 to the high."""

    low: float
    high: float
    step: float
    skew: float


@dataclass(frozen=True, slots=True)
class Item:
    """An item of a deed: what it measures (a count, or a scale by name), how often, on which days."""

    name: str
    measure: Count | str
    often: float
    days: str
    below: list[Item] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Deed:
    """A deed of one category with its items of level 1 in `below`."""

    category: str
    name: str
    description: str
    below: list[Item] = field(default_factory=list)


def _measure(text: str) -> Count | str:
    if text in SCALES:
        return text
    bounds, *more = text.split()
    options = {word[0]: float(word[1:]) for word in more}
    low, high = (float(bound) for bound in bounds.split(".."))
    return Count(low, high, options.get("/", 1.0), options.get("^", 2.0))


def _read(outline: str) -> tuple[Deed, ...]:
    deeds: list[Deed] = []
    for row in outline.splitlines():
        depth = (len(row) - len(row.lstrip())) // 2
        if depth == 0:
            category, name, description = row.split(": ")
            deeds.append(Deed(category, name, description))
            parents: list[list[Item]] = [deeds[-1].below]
            continue
        name, measure, often, *days = (cell.strip() for cell in row.split("|"))
        item = Item(name, _measure(measure), float(often), days[0] if days else "all")
        parents[depth - 1].append(item)
        parents[depth:] = [item.below]
    return tuple(deeds)


DEEDS = _read(_OUTLINE)

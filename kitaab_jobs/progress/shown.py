"""What there is to see of one person's progress, and why a goal shows what it shows."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from decimal import Decimal

from sqlalchemy.orm import Session

from kitaab_jobs.errors import KitaabError, UsageError
from kitaab_jobs.progress import verdicts
from kitaab_jobs.progress.queries import history, reading
from kitaab_jobs.timing import is_zone, local_date

CHART_DAYS = 14
LARGEST_ID = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Shown:
    """A person's progress on their `today`; `charts` has the last days of each goal, by kind and id.

    `more` says that there are more goals than were asked for.
    """

    person: reading.Person
    today: dt.date
    goals: list[reading.Goal]
    charts: dict[tuple[str, int], list[history.Day]]
    streaks: list[reading.Streak]
    more: bool


@dataclass(frozen=True, slots=True)
class Counted:
    """An entry that counts, and how much."""

    entry: reading.Entry
    amount: Decimal


@dataclass(frozen=True, slots=True)
class LeftOut:
    """An entry that does not count, and why."""

    entry: reading.Entry
    reason: str


@dataclass(frozen=True, slots=True)
class Item:
    """One item of a goal in its window: what counted, and what did not though it is of that item."""

    part: reading.Part
    window: verdicts.Window
    done: Decimal
    recorded_days: int
    is_met: bool
    counted: list[Counted]
    left_out: list[LeftOut]


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a goal shows what it shows; `others` are entries of its deeds that no item of it counts.

    The windows are those that are looked at `today`, or that end `on` a day.
    """

    person: reading.Person
    today: dt.date
    on: dt.date | None
    goal: reading.Goal
    items: list[Item]
    others: list[LeftOut]
    mark_waits: bool


def show(session: Session, who: str, *, now: dt.datetime, everything: bool, limit: int) -> Shown:
    """Return the progress of the person with an id or e-mail; raise `KitaabError` where there is none."""
    person = find(session, who)
    today = today_of(person, now)
    merits = reading.goals(session, "merit", person.id, all=everything, limit=limit + 1)
    targets = reading.goals(session, "target", person.id, all=everything, limit=limit + 1)
    goals = [*merits[:limit], *targets[:limit]]
    first = today - dt.timedelta(days=CHART_DAYS - 1)
    charts = {
        (kind, id): days
        for kind in ("merit", "target")
        for id, days in history.read(
            session, kind, [g.id for g in goals if g.kind == kind], first, today
        ).items()
    }
    more = max(len(merits), len(targets)) > limit
    return Shown(person, today, goals, charts, reading.streaks(session, person.id, today), more)


def explain(
    session: Session, kind: str, id: int, *, now: dt.datetime, on: dt.date | None = None
) -> Explanation:
    """Return why a goal shows what it shows today, or what the window that ends `on` a day holds."""
    goal = find_goal(session, kind, id)
    person = reading.person(session, str(goal.user_id))
    assert person is not None, "the goal's row refers to it"
    today = today_of(person, now)
    if on is not None and on > today:
        raise UsageError(
            f"--on {on} has yet to come: it is {today} in {person.zone}", remedy="give a day until today"
        )
    parts = reading.parts(session, kind, id)
    entries = reading.entries(session, goal)
    items = [_item(goal, part, parts, entries, today, on) for part in parts]
    listed = frozenset().union(*(part.below for part in parts))
    others = [LeftOut(entry, "another item") for entry in entries if entry.item_id not in listed]
    return Explanation(person, today, on, goal, items, others, reading.has_marks(session, goal, listed))


def _item(
    goal: reading.Goal,
    part: reading.Part,
    parts: list[reading.Part],
    entries: list[reading.Entry],
    today: dt.date,
    on: dt.date | None,
) -> Item:
    window = verdicts.window(goal, on or verdicts.until(goal, part, parts, today))
    counted, left_out = [], []
    for entry in entries:
        if entry.item_id not in part.below:
            continue
        reason = verdicts.why_not(goal, part, entry, window, today)
        if reason is None:
            counted.append(Counted(entry, verdicts.amount(part, entry)))
        else:
            left_out.append(LeftOut(entry, reason))
    done = sum((one.amount for one in counted), Decimal(0))
    recorded = len({one.entry.day for one in counted})
    is_met = verdicts.is_met(goal, part, done, recorded)
    return Item(part, window, done, recorded, is_met, counted, left_out)


def find_goal(session: Session, kind: str, id: int) -> reading.Goal:
    """Return a merit or a target; raise `KitaabError` where there is none."""
    goal = reading.goal(session, kind, id) if 0 < id <= LARGEST_ID else None
    if goal is None:
        raise KitaabError(
            f"there is no {kind} {id}", remedy="see 'kitaab-jobs progress show' for those of a person"
        )
    return goal


def find(session: Session, who: str) -> reading.Person:
    """Return the person with an id or e-mail; raise where it is neither, or nobody has it."""
    if "@" not in who and not (
        who.isascii() and who.isdigit() and len(who) < 20 and 0 < int(who) <= LARGEST_ID
    ):
        raise UsageError(
            f"{who!r} is neither an id nor an e-mail", remedy="give one, such as 17 or a@example.org"
        )
    person = reading.person(session, who)
    if person is None:
        has = "has the e-mail" if "@" in who else "has the id"
        raise KitaabError(f"nobody {has} {who}", remedy="check it; ids and e-mails are in the table users")
    return person


def today_of(person: reading.Person, now: dt.datetime) -> dt.date:
    """Return the person's today; a zone that nobody knows counts as UTC."""
    return local_date(now, person.zone if is_zone(person.zone) else "UTC")

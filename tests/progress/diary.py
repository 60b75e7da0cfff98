"""One person's deeds, entries and goals in a database, in the words of the tests."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from itertools import count
from typing import Any, NamedTuple

from sqlalchemy import Connection, text
from sqlalchemy.orm import Session

from kitaab_jobs.progress import jobs

# Noon in UTC on a Friday, soon after a leap day, and five days after the clocks changed in New York.
NOW = dt.datetime(2024, 3, 15, 12, tzinfo=dt.UTC)
TODAY = NOW.date()
YEARS = range(2023, 2026)

Amount = Decimal | float | int
Goal = tuple[str, int]


class Part(NamedTuple):
    """One item of a goal: so much of a count, or so many entries with a scale value; or at most so much."""

    item: int
    goal: Amount
    value: int | None = None
    at_most: bool = False


class Progress(NamedTuple):
    """What a goal shows."""

    percent: int
    is_satisfied: bool
    completed_on: dt.date | None


def before(days: int) -> dt.date:
    """The date so many days before today."""
    return TODAY - dt.timedelta(days=days)


def make_years(connection: Connection) -> None:
    """Make the partitions of the years in which the tests take place, where they are missing."""
    for year in YEARS:
        connection.execute(
            text(
                "SELECT jobs.make_partition('entries', make_date(:year, 1, 1), make_date(:year + 1, 1, 1))"
                " WHERE to_regclass('entries_' || :year) IS NULL"
            ),
            {"year": year},
        )


@contextmanager
def session_on(connection: Connection) -> Iterator[Session]:
    """A session that works in the connection's own transaction and does not end it."""
    with Session(connection, join_transaction_mode="rollback_only") as session:
        yield session


def waiting_marks(connection: Connection) -> int:
    """How many marks wait."""
    return int(connection.scalar(text("SELECT count(*) FROM jobs.progress_marks")) or 0)


def refresh_all(connection: Connection, now: dt.datetime = NOW, limit: int = 1000) -> list[jobs.Report]:
    """Refresh until no mark is left."""
    reports = []
    with session_on(connection) as session:
        while True:
            reports.append(jobs.refresh(session, now=now, limit=limit))
            if not waiting_marks(connection):
                return reports


def look(connection: Connection, now: dt.datetime = NOW) -> jobs.Reconciled:
    """Reconcile everything, and leave what was marked."""
    with session_on(connection) as session:
        return jobs.reconcile(session, now=now)


def reconcile(connection: Connection, now: dt.datetime = NOW) -> jobs.Reconciled:
    """Reconcile everything, and refresh what was marked."""
    found = look(connection, now)
    refresh_all(connection, now)
    return found


numbers = count()


class Diary:
    """A person with one deed, written through one connection. Methods return the keys they made."""

    def __init__(self, connection: Connection, zone: str = "UTC") -> None:
        self.connection = connection
        self.person: int = self._add(
            "users", "user_id", email=f"{self.name()}@example.org", password_hash="", full_name="P"
        )
        self.change_zone(zone)
        self.deed = self.make_deed()

    def name(self) -> str:
        """A name that no diary has given before."""
        return f"n{next(numbers)}"

    def run(self, statement: str, **values: Any) -> None:
        """Execute a statement."""
        self.connection.execute(text(statement), values)

    def _add(self, table: str, key: str, **values: Any) -> int:
        names = ", ".join(values)
        marks = ", ".join(f":{name}" for name in values)
        made = self.connection.scalar(
            text(f"INSERT INTO {table} ({names}) VALUES ({marks}) RETURNING {key}"), values
        )
        return int(made or 0)

    # --- people and deeds

    def change_zone(self, zone: str) -> None:
        """Move the person to another time zone."""
        self.run("UPDATE users SET timezone = :zone WHERE user_id = :person", zone=zone, person=self.person)

    def make_deed(self) -> int:
        """Make another deed."""
        return self._add("deeds", "deed_id", user_id=self.person, category_type="hasanaat", name=self.name())

    def item(self, parent: int | None = None, *, scale: bool = False, deed: int | None = None) -> int:
        """Make an item that counts, or one that is measured on a scale."""
        return self._add(
            "deed_items",
            "deed_item_id",
            deed_id=deed or self.deed,
            parent_deed_item_id=parent,
            name=self.name(),
            value_type="scale" if scale else "count",
        )

    def values(self, number: int = 1, *, deed: int | None = None, version: int = 1) -> list[int]:
        """Make a scale with so many values, and return those."""
        scale = self._add("scales", "scale_id", deed_id=deed or self.deed, name=self.name(), version=version)
        return [
            self._add("scale_values", "scale_value_id", scale_id=scale, value_name=self.name())
            for _ in range(number)
        ]

    def move(self, item: int, parent: int | None) -> None:
        """Place an item below another one."""
        self.run(
            "UPDATE deed_items SET parent_deed_item_id = :parent WHERE deed_item_id = :item",
            item=item,
            parent=parent,
        )

    # --- entries

    def record(self, item: int, day: dt.date, count: Amount | None = None, value: int | None = None) -> None:
        """Record what was done on a day; a second time on the same day replaces the first."""
        self.run(
            "INSERT INTO entries (user_id, deed_item_id, entry_date, count_value, scale_value_id)"
            " VALUES (:person, :item, :day, :count, :value)"
            " ON CONFLICT (user_id, deed_item_id, entry_date) DO UPDATE"
            " SET count_value = excluded.count_value, scale_value_id = excluded.scale_value_id",
            person=self.person,
            item=item,
            day=day,
            count=count,
            value=value,
        )

    def erase(self, item: int, day: dt.date) -> None:
        """Delete an entry."""
        self.run("DELETE FROM entries WHERE deed_item_id = :item AND entry_date = :day", item=item, day=day)

    def move_entry(self, item: int, day: dt.date, to_item: int, to_day: dt.date) -> None:
        """Say that an entry was of another item or day."""
        self.run(
            "UPDATE entries SET deed_item_id = :to_item, entry_date = :to_day"
            " WHERE deed_item_id = :item AND entry_date = :day",
            item=item,
            day=day,
            to_item=to_item,
            to_day=to_day,
        )

    # --- goals

    def merit(
        self,
        *parts: Part,
        logic: str = "AND",
        days: int | None = None,
        start: dt.date | None = None,
        deed: int | None = None,
    ) -> Goal:
        """Make a merit, begun long ago unless `start` is given."""
        merit = self._add(
            "merits",
            "merit_id",
            user_id=self.person,
            deed_id=deed or self.deed,
            name="m",
            merit_type=logic,
            start_date=start or before(300),
            duration_days=days,
        )
        for part in parts:
            self.add_part(("merit", merit), part)
        return "merit", merit

    def target(self, *parts: Part, start: dt.date, end: dt.date, logic: str = "AND") -> Goal:
        """Make a target."""
        target = self._add(
            "targets",
            "target_id",
            user_id=self.person,
            name="t",
            target_type=logic,
            start_date=start,
            end_date=end,
        )
        for part in parts:
            self.add_part(("target", target), part)
        return "target", target

    def add_part(self, goal: Goal, part: Part) -> int:
        """Add an item to a goal."""
        kind, id = goal
        deed = {"deed_id": self.deed_of(part.item)} if kind == "merit" else {}
        return self._add(
            f"{kind}_items",
            f"{kind}_item_id",
            **{f"{kind}_id": id},
            **deed,
            deed_item_id=part.item,
            item_type="count" if part.value is None else "scale",
            scale_value_id=part.value,
            target_value=part.goal,
            direction="at_most" if part.at_most else "at_least",
        )

    def deed_of(self, item: int) -> int:
        """The deed of an item."""
        return int(
            self.connection.scalar(
                text("SELECT deed_id FROM deed_items WHERE deed_item_id = :item"), {"item": item}
            )
            or 0
        )

    def turn_part(self, kind: str, part: int, *, at_most: bool) -> None:
        """Ask for at most, or at least."""
        self.run(
            f"UPDATE {kind}_items SET direction = CAST(:direction AS goal_direction_enum)"
            f" WHERE {kind}_item_id = :part",
            direction="at_most" if at_most else "at_least",
            part=part,
        )

    def change_part(self, kind: str, part: int, goal: Amount) -> None:
        """Ask for more or less of one item of a goal."""
        self.run(
            f"UPDATE {kind}_items SET target_value = :goal WHERE {kind}_item_id = :part", goal=goal, part=part
        )

    def remove_part(self, kind: str, part: int) -> None:
        """Take an item out of a goal."""
        self.run(f"DELETE FROM {kind}_items WHERE {kind}_item_id = :part", part=part)

    def change(self, goal: Goal, **values: Any) -> None:
        """Change columns of a goal."""
        kind, id = goal
        changes = ", ".join(f"{name} = :{name}" for name in values)
        self.run(f"UPDATE {kind}s SET {changes} WHERE {kind}_id = :id", id=id, **values)

    def shown(self, goal: Goal) -> Progress:
        """What a goal shows."""
        kind, id = goal
        row = self.connection.execute(
            text(f"SELECT percent, is_satisfied, completed_on FROM {kind}s WHERE {kind}_id = :id"), {"id": id}
        ).one()
        return Progress(*row)

    # --- the jobs

    def refresh(self, now: dt.datetime = NOW) -> list[jobs.Report]:
        """Refresh until no mark is left."""
        return refresh_all(self.connection, now)

    def reconcile(self, now: dt.datetime = NOW) -> jobs.Reconciled:
        """Reconcile everything."""
        return reconcile(self.connection, now)

    def progress(self, goal: Goal, now: dt.datetime = NOW) -> Progress:
        """What a goal shows after a refresh, which a reconcile must agree with."""
        self.refresh(now)
        assert self.reconcile(now).marked == 0
        return self.shown(goal)

"""Random people, trees, entries, goals and edits: what is stored is always what the oracle says."""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Callable
from decimal import Decimal
from typing import Any, NamedTuple

from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, text

from tests.progress import oracle
from tests.progress.diary import (
    NOW,
    TODAY,
    Diary,
    Part,
    make_years,
    reconcile,
    refresh_all,
    waiting_marks,
)

EXAMPLES = int(os.environ.get("KITAAB_TEST_EXAMPLES", "60"))

ZONES = ["UTC", "Pacific/Kiritimati", "Pacific/Pago_Pago", "America/New_York", "Asia/Kathmandu", "no/zone"]
LOGICS = ["AND", "AND", "OR"]
LENGTHS = [None, None, 1, 2, 3, 7, 30, 2_147_483_647]
# Goals and amounts meet often: a goal is reached exactly, missed by a hundredth, or by far.
AMOUNTS = [Decimal(a) for a in ("0", "0.01", "0.33", "1", "1", "2", "2.5", "3", "6.99", "99999999.99")]
GOALS = [Decimal(g) for g in ("0.01", "1", "1", "2", "3", "3", "5", "6", "7", "10", "99999999.99")]

MOST = [Decimal(g) for g in ("0", "0", "1", "2", "5", "99999999.99")]

picks = st.integers(0, 999)
days = st.integers(-24, 3)


class Edit(NamedTuple):
    """Something that happens to the world; `a` to `d` say to what and how, each kind in its own way."""

    kind: str
    a: int
    b: int
    c: int
    d: int
    day: int


class Script(NamedTuple):
    """A world to make, and rounds of edits with a refresh after each."""

    hour: int
    zones: list[str]
    items: list[tuple[int, int, bool]]
    entries: list[Edit]
    goals: list[tuple[int, int, int, int, int, list[tuple[int, int, int]]]]
    rounds: list[tuple[int, list[Edit]]]


KINDS = [
    "record", "record", "record", "erase", "move_entry", "move_entry", "reparent", "reparent",
    "change_part", "turn_part", "add_part", "remove_part", "change_length", "change_start", "change_logic",
    "retire", "retire", "delete_item",
]  # fmt: skip


def edits(kinds: list[str], days: st.SearchStrategy[int] = days) -> st.SearchStrategy[Edit]:
    return st.builds(Edit, st.sampled_from(kinds), picks, picks, picks, picks, days)


parts = st.lists(st.tuples(picks, picks, picks), max_size=3)
scripts = st.builds(
    Script,
    hour=st.integers(0, 23),
    zones=st.lists(st.sampled_from(ZONES), min_size=1, max_size=2),
    items=st.lists(st.tuples(picks, picks, st.sampled_from([False, False, True])), min_size=1, max_size=8),
    entries=st.lists(edits(["record"]), max_size=30),
    goals=st.lists(st.tuples(picks, picks, picks, days, picks, parts), min_size=1, max_size=6),
    rounds=st.lists(st.tuples(st.sampled_from([1, 3, 1000]), st.lists(edits(KINDS), min_size=1, max_size=4)), max_size=4),
)  # fmt: skip


class Play:
    """Keeps the database and the oracle's world in step."""

    def __init__(self, connection: Connection, script: Script) -> None:
        self.connection = connection
        self.now = NOW.replace(hour=script.hour, minute=30)
        self.world = oracle.World()
        self.diaries: dict[int, Diary] = {}
        self.values: dict[int, list[int]] = {}
        for zone in script.zones:
            self.add_person(zone)
        for pick, parent, scale in script.items:
            self.add_item(pick, parent, scale)
        for entry in script.entries:
            self.record(entry)
        for goal in script.goals:
            self.add_goal(*goal)

    # --- making a world

    def add_person(self, zone: str) -> None:
        diary = Diary(self.connection, zone)
        self.diaries[diary.person] = diary
        self.world.zones[diary.person] = zone if zone != "no/zone" else "UTC"
        for deed in (diary.deed, diary.make_deed()):
            self.values[deed] = diary.values(2, deed=deed)

    def add_item(self, pick: int, parent_pick: int, scale: bool) -> None:
        deed = chosen(list(self.values), pick)
        person = next(p for p, d in self.diaries.items() if deed in (d.deed, d.deed + 1))
        siblings = [i for i, item in self.world.items.items() if item.deed == deed and self.depth(i) < 4]
        parent = chosen([None, *siblings, *siblings], parent_pick)
        item = self.diaries[person].item(parent, scale=scale, deed=deed)
        self.world.items[item] = oracle.Item(person, deed, parent, scale)

    def add_goal(
        self, pick: int, length: int, logic: int, start: int, kind: int, parts: list[tuple[int, int, int]]
    ) -> None:
        person = chosen(list(self.diaries), pick)
        diary, first = self.diaries[person], day_of(start)
        made = oracle.Goal(person, None, chosen(LOGICS, logic), first)
        if kind % 3:
            made.deed = chosen([diary.deed, diary.deed + 1], kind)
            made.days = chosen(LENGTHS, length)
            key = diary.merit(logic=made.logic, days=made.days, start=first, deed=made.deed)
        else:
            made.end = first + dt.timedelta(days=length % 20)
            key = diary.target(logic=made.logic, start=first, end=made.end)
        self.world.goals[key] = made
        for item, goal, value in parts:
            self.give_part(key, item, goal, value)

    def give_part(self, key: tuple[str, int], item_pick: int, goal: int, value: int) -> None:
        made = self.world.goals[key]
        items = {
            i: item
            for i, item in self.world.items.items()
            if item.person == made.person and made.deed in (None, item.deed)
        }
        if not items:
            return
        item = chosen(list(items), item_pick)
        chosen_value = chosen(self.values[items[item].deed], value) if items[item].scale else None
        part = oracle.Part(item, chosen(GOALS, goal), chosen_value, at_most=goal % 3 == 0)
        if part.at_most:
            part.goal = chosen(MOST, goal)
        id = self.diaries[made.person].add_part(key, Part(part.item, part.goal, part.value, part.at_most))
        made.parts[id] = part

    def depth(self, item: int) -> int:
        parent = self.world.items[item].parent
        return 1 if parent is None else 1 + self.depth(parent)

    # --- what happens to it

    def record(self, edit: Edit) -> None:
        item = chosen(list(self.world.items), edit.a)
        about = self.world.items[item]
        entry = oracle.Entry()
        if about.scale or edit.d % 7 == 0:
            entry.value = chosen(self.values[about.deed], edit.b)
        if not about.scale or edit.d % 5 == 0:
            entry.count = chosen(AMOUNTS, edit.c)
        self.world.entries[item, day_of(edit.day)] = entry
        self.diaries[about.person].record(item, day_of(edit.day), entry.count, entry.value)

    def erase(self, edit: Edit) -> None:
        if self.world.entries:
            item, day = chosen(list(self.world.entries), edit.a)
            del self.world.entries[item, day]
            self.any_diary.erase(item, day)

    def move_entry(self, edit: Edit) -> None:
        if not self.world.entries:
            return
        item, day = chosen(list(self.world.entries), edit.a)
        deed = self.world.items[item].deed
        to_item = chosen([item, *(i for i, about in self.world.items.items() if about.deed == deed)], edit.b)
        to = (to_item, day_of(edit.day))
        if to not in self.world.entries:
            self.world.entries[to] = self.world.entries.pop((item, day))
            self.any_diary.move_entry(item, day, *to)

    def reparent(self, edit: Edit) -> None:
        item = chosen(list(self.world.items), edit.a)
        about = self.world.items[item]
        parents = [
            i
            for i, other in self.world.items.items()
            if other.deed == about.deed and not self.world.is_below(i, item)
        ]
        about.parent = chosen([None, *parents], edit.b)
        self.any_diary.move(item, about.parent)

    def delete_item(self, edit: Edit) -> None:
        item = chosen(list(self.world.items), edit.a)
        self.any_diary.run("UPDATE deed_items SET deleted_at = now() WHERE deed_item_id = :item", item=item)

    def part_of(self, edit: Edit) -> tuple[tuple[str, int], oracle.Goal, int] | None:
        key = chosen(list(self.world.goals), edit.a)
        goal = self.world.goals[key]
        return (key, goal, chosen(list(goal.parts), edit.b)) if goal.parts else None

    def change_zone(self, edit: Edit) -> None:
        person = chosen(list(self.diaries), edit.a)
        zone = chosen(ZONES, edit.b)
        self.world.zones[person] = zone if zone != "no/zone" else "UTC"
        self.diaries[person].change_zone(zone)

    def change_part(self, edit: Edit) -> None:
        if found := self.part_of(edit):
            key, goal, part = found
            goal.parts[part].goal = chosen(GOALS, edit.c)
            self.any_diary.change_part(key[0], part, goal.parts[part].goal)

    def turn_part(self, edit: Edit) -> None:
        if found := self.part_of(edit):
            key, goal, id = found
            part = goal.parts[id]
            if part.goal:
                part.at_most = not part.at_most
                self.any_diary.turn_part(key[0], id, at_most=part.at_most)

    def remove_part(self, edit: Edit) -> None:
        if found := self.part_of(edit):
            key, goal, part = found
            del goal.parts[part]
            self.any_diary.remove_part(key[0], part)

    def add_part(self, edit: Edit) -> None:
        self.give_part(chosen(list(self.world.goals), edit.a), edit.b, edit.c, edit.d)

    def change_length(self, edit: Edit) -> None:
        key = chosen(list(self.world.goals), edit.a)
        goal = self.world.goals[key]
        if goal.end is not None:
            end = goal.start + dt.timedelta(days=edit.b % 20)
            goal.frozen = goal.frozen and end == goal.end
            goal.end = end
            self.any_diary.change(key, end_date=goal.end)
        else:
            goal.days = chosen(LENGTHS, edit.b)
            self.any_diary.change(key, duration_days=goal.days)

    def change_start(self, edit: Edit) -> None:
        key = chosen(list(self.world.goals), edit.a)
        goal = self.world.goals[key]
        goal.start = min(day_of(edit.day), goal.end or dt.date.max)
        self.any_diary.change(key, start_date=goal.start)

    def change_logic(self, edit: Edit) -> None:
        key = chosen(list(self.world.goals), edit.a)
        goal = self.world.goals[key]
        goal.logic = chosen(LOGICS, edit.b)
        column = f"{key[0]}_type"
        self.any_diary.run(
            f"UPDATE {key[0]}s SET {column} = CAST(:logic AS goal_logic_enum) WHERE {key[0]}_id = :id",
            logic=goal.logic,
            id=key[1],
        )

    def retire(self, edit: Edit) -> None:
        """Delete a goal or switch it off, or bring it back."""
        key = chosen(list(self.world.goals), edit.a)
        goal = self.world.goals[key]
        goal.live = not goal.live
        self.any_diary.change(key, is_active=goal.live or edit.b % 2 == 0)
        gone = NOW if not goal.live and edit.b % 2 == 0 else None
        self.any_diary.change(key, deleted_at=gone)

    @property
    def any_diary(self) -> Diary:
        return next(iter(self.diaries.values()))

    # --- and what must come of it

    def check(self, limit: int) -> None:
        refresh_all(self.connection, self.now, limit)
        assert waiting_marks(self.connection) == 0
        self.compare()
        assert reconcile(self.connection, self.now).marked == 0

    def compare(self, *, only_of_today: bool = False) -> None:
        """Every goal shows what the oracle says; or every one that was computed today."""
        goals = self.world.goals
        if only_of_today:
            goals = {
                key: goal
                for key, goal in goals.items()
                if self.as_of(key) == self.world.today(goal.person, self.now)
            }
        oracle.refresh(self.world, self.now, goals.values())
        for key, goal in goals.items():
            shown = oracle.Shown(*self.any_diary.shown(key))
            assert shown == goal.shown, (key, goal)

    def as_of(self, key: tuple[str, int]) -> dt.date | None:
        """The day that a goal was computed for."""
        day: dt.date | None = self.connection.scalar(
            text(f"SELECT as_of FROM {key[0]}s WHERE {key[0]}_id = :id"), {"id": key[1]}
        )
        return day


def chosen(options: list[Any], pick: int) -> Any:
    """One of the options."""
    return options[pick % len(options)]


def day_of(offset: int) -> dt.date:
    return TODAY + dt.timedelta(days=offset)


def bounded(examples: int) -> settings:
    """So many random examples, each in a transaction on the one connection."""
    return settings(
        max_examples=max(examples, 1),
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    )


def in_a_world(connection: Connection, script: Script, play: Callable[[Play], None]) -> None:
    """Run `play` in the script's world, and undo everything."""
    with connection.begin_nested() as savepoint:
        make_years(connection)
        play(Play(connection, script))
        savepoint.rollback()


@bounded(EXAMPLES)
@given(script=scripts)
def test_refresh_and_reconcile_and_the_oracle_agree(connection: Connection, script: Script) -> None:
    def play(world: Play) -> None:
        world.check(1000)
        for limit, happenings in script.rounds:
            for edit in happenings:
                note(str(edit))
                getattr(world, edit.kind)(edit)
            world.check(limit)

    in_a_world(connection, script, play)


@bounded(EXAMPLES // 3)
@given(
    script=scripts,
    hours=st.lists(st.integers(0, 24 * 9), min_size=4, max_size=4),
    zone=edits(["change_zone"]),
)
def test_reconcile_agrees_when_days_have_passed(
    connection: Connection, script: Script, hours: list[int], zone: Edit
) -> None:
    """No edit marks what the calendar changes, so the refresh may be behind, and the reconcile repairs it."""

    def play(world: Play) -> None:
        world.check(1000)
        world.change_zone(zone)
        for passed, (limit, happenings) in zip(hours, [*script.rounds, (1000, [])], strict=False):
            for edit in happenings:
                getattr(world, edit.kind)(edit)
            world.now += dt.timedelta(hours=passed)
            refresh_all(world.connection, world.now, limit)
            world.compare(only_of_today=True)
            assert not reconcile(world.connection, world.now).defects
            world.compare()
            assert reconcile(world.connection, world.now).marked == 0

    in_a_world(connection, script, play)


# Merits of a few days that little has completed yet, edits of entries and trees, and days on which nothing happens:
# what a mark says of days decides, and the day of which a goal was last computed.
near = st.integers(-9, 9)
sliding = st.builds(
    Script,
    hour=st.integers(0, 23),
    zones=st.just(["UTC"]),
    items=st.lists(st.tuples(st.just(0), st.just(0), st.just(False)), min_size=2, max_size=4),
    entries=st.lists(edits(["record"], near), min_size=2, max_size=10),
    goals=st.lists(
        st.tuples(st.just(0), st.integers(3, 5), picks, st.just(-24), st.just(2),
                  st.lists(st.tuples(picks, st.sampled_from([4, 5, 8]), picks), min_size=1, max_size=2)),
        min_size=3, max_size=5),
    rounds=st.lists(
        st.tuples(st.sampled_from([1, 1000]),
                  st.lists(edits(["record", "record", "move_entry", "reparent"], near), min_size=1, max_size=3)),
        min_size=2, max_size=5),
)  # fmt: skip


@bounded(EXAMPLES)
@given(
    script=sliding,
    passed=st.lists(st.sampled_from([0, 0, 1, 2, 4]), min_size=5, max_size=5),
)
def test_what_a_refresh_leaves_out_the_oracle_does_not_miss(
    connection: Connection, script: Script, passed: list[int]
) -> None:
    def play(world: Play) -> None:
        world.check(1000)
        for days, (limit, happenings) in zip(passed, script.rounds, strict=False):
            world.now += dt.timedelta(days=days)
            for edit in happenings:
                getattr(world, edit.kind)(edit)
            refresh_all(world.connection, world.now, limit)
            world.compare(only_of_today=True)
        assert not reconcile(world.connection, world.now).defects
        world.compare()

    in_a_world(connection, script, play)

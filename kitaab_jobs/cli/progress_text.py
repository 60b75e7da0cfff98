"""How progress is written: bars and tables on a terminal, plain lines in a log, and JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from decimal import Decimal
from itertools import groupby
from typing import TYPE_CHECKING, Any

import typer

from kitaab_jobs.cli.tables import table

if TYPE_CHECKING:
    from rich.text import Text

    from kitaab_jobs.progress.queries.history import Day
    from kitaab_jobs.progress.queries.reading import Entry, Goal, Person
    from kitaab_jobs.progress.shown import Explanation, Item, LeftOut, Shown

_BAR = 20
_LEVELS = "▁▂▃▄▅▆▇█"


# --- show ----------------------------------------------------------------------------------------


def show(found: Shown) -> None:
    """Write a person's goals and streaks."""
    typer.echo(_who(found.person, str(found.today)))
    for kind in ("merit", "target"):
        goals = [goal for goal in found.goals if goal.kind == kind]
        typer.echo()
        if goals:
            _goals(kind, goals, found)
        else:
            typer.echo(f"no {kind}s")
    if found.more:
        typer.echo("\nthere are more: say --limit")
    if found.streaks:
        typer.echo()
        table(
            ("streak", "since", "longest", "since", "last recorded", "item"),
            [
                (
                    _days(s.current_days),
                    str(s.current_since or ""),
                    _days(s.longest_days),
                    str(s.longest_since or ""),
                    str(s.last_day or "never"),
                    said(s.item),
                )
                for s in found.streaks
            ],
        )


def _goals(kind: str, goals: Sequence[Goal], found: Shown) -> None:
    table(
        (kind, "progress", "two weeks", "now", "completed on", "name"),
        [
            (
                str(goal.id),
                _bar(goal.percent),
                _line(found.charts[kind, goal.id]),
                _now(goal),
                str(goal.completed_on or ""),
                said(goal.name),
            )
            for goal in goals
        ],
    )


def _bar(percent: int) -> Text:
    """Return a bar on a terminal, and the number everywhere: full only when it is complete, empty only at none."""
    from rich.text import Text

    written = f"{percent:3} %"
    if not sys.stdout.isatty():
        return Text(written)
    full = _BAR * percent // 100 if percent in (0, 100) else min(max(_BAR * percent // 100, 1), _BAR - 1)
    colour = "green" if percent == 100 else "cyan"
    bar = (_drawn("█", "#") * full, colour), (_drawn("░", ".") * (_BAR - full), "dim")
    return Text.assemble(*bar, f" {written}")


def _line(days: Sequence[Day]) -> str:
    """Return one character for each day, higher the more was done."""
    if _drawn("█", ""):
        return "".join(_LEVELS[day.percent * (len(_LEVELS) - 1) // 100] for day in days)
    return "".join("*" if day.percent == 100 else str(day.percent // 10) for day in days)


def _drawn(sign: str, instead: str) -> str:
    """Return a sign, or what stands for it where the output cannot show it."""
    try:
        sign.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return instead
    return sign


def _now(goal: Goal) -> str:
    if state := _state(goal):
        return state
    return "satisfied" if goal.is_satisfied else "not satisfied"


def _state(goal: Goal) -> str:
    """Return why a goal is not computed any more, or nothing."""
    if goal.is_deleted:
        return "deleted"
    if not goal.is_active:
        return "switched off"
    return "frozen" if goal.is_frozen else ""


# --- explain -------------------------------------------------------------------------------------


def explain(found: Explanation, limit: int) -> None:
    """Write why a goal shows what it shows, with up to `limit` entries of a kind."""
    goal = found.goal
    typer.echo(f"{goal.kind} {goal.id} {said(goal.name)!r} of {_who(found.person, str(found.today))}")
    typer.echo(f"  asks for {_asks(found)}")
    typer.echo(f"  shows {goal.percent} %, {', '.join(_shows(found))}")
    if not found.items:
        typer.echo("  has no items, so it is never complete")
    if goal.completed_on and found.on is None:
        typer.echo(f"  the window that completed it: --on {goal.completed_on}")
    for item in found.items:
        typer.echo()
        _item(item, limit)
    if found.others:
        typer.echo(f"\nentries of other items: {len(found.others):,}, not counted")
        for items in _by_item(found.others)[:limit]:
            days = [one.entry.day for one in items]
            span = f"{min(days)}" if len(days) == 1 else f"{min(days)} to {max(days)}, {len(days):,} entries"
            typer.echo(f"  {said(items[0].entry.item)}: {span}")


def _asks(found: Explanation) -> str:
    goal = found.goal
    which = "all of its items" if goal.logic == "AND" else "any of its items"
    if goal.end is not None:
        return f"{which} from {goal.start} to {goal.end}"
    if goal.days is None:
        return f"{which}, over all days"
    return f"{which} in any {_days(goal.days)} in a row since {goal.start}"


def _shows(found: Explanation) -> list[str]:
    goal = found.goal
    said = ["satisfied now" if goal.is_satisfied else "not satisfied now"]
    said.append(f"completed on {goal.completed_on}" if goal.completed_on else "not completed")
    said.append(f"computed for {goal.as_of}" if goal.as_of else "never computed")
    if state := _state(goal):
        said.append(f"{state}, so it keeps what it shows")
    elif found.mark_waits:
        said.append("to be computed again in a moment")
    return said


def _item(item: Item, limit: int) -> None:
    part = item.part
    what = f" of {said(part.value)!r}" if part.value is not None else ""
    asks = f"at {'most' if part.at_most else 'least'} {number(part.target)}{what}"
    typer.echo(f"{said(part.item)}: {asks}, {'met' if item.is_met else 'not met'}")
    recorded = f", {_days(item.recorded_days)} recorded" if part.at_most else ""
    typer.echo(f"  {item.window}: {number(item.done)} counted{recorded}")
    _entries(
        "counted", [(str(c.entry.day), number(c.amount), _of(item, c.entry)) for c in item.counted], limit
    )
    _entries(
        "not counted",
        [
            (str(one.entry.day), _recorded(one.entry), _of(item, one.entry), one.reason)
            for one in item.left_out
        ],
        limit,
    )


def _entries(title: str, rows: Sequence[Sequence[str]], limit: int) -> None:
    if not rows:
        return
    typer.echo(f"  {title}")
    widths = [max(len(row[column]) for row in rows[:limit] or rows) for column in range(len(rows[0]))]
    for row in rows[:limit]:
        cells = [
            cell.rjust(width) if n == 1 else cell.ljust(width)
            for n, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        typer.echo(f"    {'  '.join(cells)}".rstrip())
    if len(rows) > limit:
        typer.echo(
            f"    and {len(rows) - limit:,} before {rows[limit - 1][0] if limit else 'today'}: say --limit"
        )


def _of(item: Item, entry: Entry) -> str:
    """Return the item of an entry where it is one below the listed one."""
    return "" if entry.item_id == item.part.item_id else said(entry.item)


def _recorded(entry: Entry) -> str:
    values = [number(entry.count)] if entry.count is not None else []
    return ", ".join([*values, *([said(entry.value)] if entry.value is not None else [])])


def _by_item(left_out: Sequence[LeftOut]) -> list[list[LeftOut]]:
    def key(one: LeftOut) -> tuple[str, int]:
        return one.entry.item, one.entry.item_id

    return [list(same) for _, same in groupby(sorted(left_out, key=key), key=key)]


# --- words and numbers ---------------------------------------------------------------------------


def _who(person: Person, today: str) -> str:
    left = ", deleted" if person.is_deleted else "" if person.is_active else ", not active"
    return f"{said(person.name)} <{said(person.email)}>, person {person.id}{left}; in {said(person.zone)} it is {today}"


def said(name: str) -> str:
    """Return what a person called something, without what would move a terminal's cursor."""
    return "".join(sign if sign.isprintable() else "�" for sign in name)


def number(amount: Decimal) -> str:
    """Return an amount without zeros that say nothing."""
    return f"{amount.normalize():,f}"


def _days(count: int) -> str:
    return f"{count:,} day" if count == 1 else f"{count:,} days"


# --- JSON ----------------------------------------------------------------------------------------


def show_json(found: Shown) -> None:
    """Write a person's goals and streaks as one object."""
    goals = [
        {**asdict(goal), "history": [asdict(day) for day in found.charts[goal.kind, goal.id]]}
        for goal in found.goals
    ]
    _write(
        {
            "person": asdict(found.person),
            "today": found.today,
            "merits": [goal for goal in goals if goal["kind"] == "merit"],
            "targets": [goal for goal in goals if goal["kind"] == "target"],
            "streaks": [asdict(streak) for streak in found.streaks],
            "more": found.more,
        }
    )


def explain_json(found: Explanation) -> None:
    """Write an explanation as one object, with all entries."""
    _write(asdict(found))


def _write(value: dict[str, Any]) -> None:
    typer.echo(json.dumps(value, ensure_ascii=False, default=_plain))


def _plain(value: object) -> object:
    if isinstance(value, Decimal):
        return int(value) if value == int(value) else float(value)
    if isinstance(value, frozenset):
        return sorted(value)
    return str(value)

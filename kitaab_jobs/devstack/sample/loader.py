"""Load the sample by COPY: two lanes, then what connects them. Every trigger runs.

What a lane writes is seen by nobody before both lanes are complete. A load that is killed leaves
nothing behind, but for the instant in which the lanes are committed one after the other; what that
leaves is recognised and refused.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import date
from time import perf_counter
from typing import Any

from psycopg.types.json import Jsonb
from sqlalchemy import Engine

from kitaab_jobs.devstack.sample import database
from kitaab_jobs.devstack.sample.lanes import SETTINGS, Connection, copy_lanes, copy_tables
from kitaab_jobs.devstack.sample.plan import Sample, plan
from kitaab_jobs.errors import UsageError

MOST_PEOPLE = 20_000
MOST_YEARS = 10

OnProgress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What was loaded: rows for each table, and the first and the last day of entries.

    `nearly_there` counts the merits that lack one small entry; `seconds` is the time of the whole load.
    """

    people: int
    zones: int
    entries: int
    nearly_there: int
    first_day: date
    last_day: date
    rows: dict[str, int]
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        days = {"first_day": self.first_day.isoformat(), "last_day": self.last_day.isoformat()}
        return asdict(self) | days


def load(
    engine_or_url: Engine | str,
    *,
    people: int = 500,
    years: int = 3,
    seed: int = 1,
    today: date,
    on_progress: OnProgress | None = None,
    add: bool = False,
) -> Report:
    """Load sample data for `people` over the `years` before `today`, as the owner of the tables.

    The same arguments give the same rows in every database that nobody has used. `on_progress` is told
    a stage (`people`, `entries`), how many are done and of how many. A database that has people is
    refused unless `add` is true. Three connections are opened at once. Raises `UsageError` for a number
    out of range, `KitaabError` for a database in use, and `ServerError` for what PostgreSQL refuses.
    """
    _check("people", people, MOST_PEOPLE)
    _check("years", years, MOST_YEARS)
    tell = on_progress or (lambda _stage, _done, _total: None)
    begun = perf_counter()
    with (
        database.explained(engine_or_url),
        database.connected(engine_or_url) as connection,
        database.alone(connection),
    ):
        with connection.transaction():
            connection.execute(SETTINGS)
            database.refuse_unfit(connection, add=add)
            first = database.first_keys(connection, add=add)
        sample = plan(
            first=first,
            number=people,
            years=years,
            seed=seed,
            today=today,
            on_person=lambda done, total: tell("people", done, total),
        )
        with connection.transaction():
            database.make_partitions(connection, sample.calendar.start, today)
            if add:  # before the first row, so that nobody else is given these keys meanwhile
                database.advance_sequences(connection, sample.keys)
        _copy_lanes(engine_or_url, sample, tell)
        with connection.transaction():
            connection.execute(SETTINGS)
            copy_tables(connection, sample.between)
            if not add:  # after the last row, so that a load that is killed leaves no gap either
                database.advance_sequences(connection, sample.keys)
            database.note(connection, database.COMPLETE, Jsonb(sample.rows()))
        database.analyze(connection)
    return _report(sample, people, perf_counter() - begun)


def _check(name: str, value: int, most: int) -> None:
    if not 1 <= value <= most:
        raise UsageError(f"{name} cannot be {value}", remedy=f"give a number from 1 to {most}")


def _copy_lanes(engine_or_url: Engine | str, sample: Sample, tell: OnProgress) -> None:
    total, done = sample.entries, 0

    def on_rows(rows: int) -> None:
        nonlocal done
        done += rows
        tell("entries", done, total)

    with ExitStack() as opened:
        connections: list[Connection] = [
            opened.enter_context(database.connected(engine_or_url)) for _ in sample.lanes
        ]
        copy_lanes(connections, sample.lanes, on_rows)
        database.note(connections[0], database.BEGUN, Jsonb(sample.rows()))
        for connection in connections:
            connection.commit()


def _report(sample: Sample, people: int, seconds: float) -> Report:
    used = [stream.days for lane in sample.lanes for stream in lane.streams if stream.days]
    last = sample.calendar.span
    return Report(
        people=people,
        zones=sample.zones,
        entries=sample.entries,
        nearly_there=sample.nearly,
        first_day=sample.calendar.date(min((days[0] for days in used), default=last)),
        last_day=sample.calendar.date(max((days[-1] for days in used), default=last)),
        rows=sample.rows(),
        seconds=round(seconds, 3),
    )

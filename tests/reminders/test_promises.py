"""Random edits, outages and clock jumps: never two for one local date, and every date accounted for."""

from __future__ import annotations

import datetime as dt
from typing import Any

from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, text

from tests.reminders.simulator import History, Row, Setting
from tests.reminders.test_dispatch import World, superuser  # noqa: F401
from tests.timing.examples import EXAMPLES

# Around clock changes of each kind, and on both sides of the date line.
ZONES = (
    "UTC",
    "America/New_York",
    "Europe/Dublin",
    "Asia/Karachi",
    "Pacific/Auckland",
    "Pacific/Honolulu",
    "Africa/Cairo",
    "Australia/Lord_Howe",
    "America/Scoresbysund",
)
STARTS = tuple(
    dt.datetime.fromisoformat(f"{day}T00:00+00:00") for day in ("2026-03-07", "2026-03-28", "2026-10-31")
)

few = settings(
    max_examples=EXAMPLES // 5,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
times = st.builds(dt.time, st.integers(0, 23), st.sampled_from((0, 15, 30, 59)))
zones = st.sampled_from(ZONES)
days = st.none() | st.sets(st.integers(1, 7), min_size=1).map(sorted)
# What happens next, and how many minutes later. A dispatcher that is away simply does not come.
steps = st.lists(
    st.tuples(
        st.one_of(
            st.just(("dispatch", None)),
            st.just(("dispatch", None)),
            st.tuples(st.just("notification_time"), times),
            st.tuples(st.just("timezone"), zones),
            st.tuples(st.just("weekdays"), days),
            st.tuples(st.just("is_active"), st.booleans()),
        ),
        st.one_of(st.integers(1, 90), st.integers(1, 1500), st.integers(1, 6000)),
    ),
    min_size=3,
    max_size=18,
)
# How far the dispatcher's clock is off at a dispatch, in minutes.
jumps = st.lists(st.sampled_from((0, 0, 0, 0, -180, 45, 1500)), min_size=18, max_size=18)


@few
@given(start=st.sampled_from(STARTS), time=times, zone=zones, steps=steps)
def test_nothing_is_doubled_or_lost(
    superuser: Engine,  # noqa: F811
    start: dt.datetime,
    time: dt.time,
    zone: str,
    steps: list[tuple[tuple[str, Any], int]],
) -> None:
    history, now = play(superuser, start, time, zone, steps, [0] * len(steps))
    note(f"{history}")
    assert history.complaints(now) == []


@few
@given(start=st.sampled_from(STARTS), time=times, zone=zones, steps=steps, jumps=jumps)
def test_a_clock_that_jumps_doubles_nothing(
    superuser: Engine,  # noqa: F811
    start: dt.datetime,
    time: dt.time,
    zone: str,
    steps: list[tuple[tuple[str, Any], int]],
    jumps: list[int],
) -> None:
    """A dispatcher that believes it is tomorrow sends early; what it has used up it does not send again."""
    history, _ = play(superuser, start, time, zone, steps, jumps)
    note(f"{history}")
    assert [wrong for wrong in history.complaints(start) if "two for" in wrong or "are both" in wrong] == []


def play(
    engine: Engine,
    start: dt.datetime,
    time: dt.time,
    zone: str,
    steps: list[tuple[tuple[str, Any], int]],
    jumps: list[int],
) -> tuple[History, dt.datetime]:
    """Do it all in the database, and return what came of it."""
    now = start
    with engine.connect() as connection:
        transaction = connection.begin()
        world = World(connection)
        id = world.reminder(f"{time:%H:%M}", zone, set_at=now)
        history = History([Setting(now, time, zone)])
        made: dict[int, dt.datetime] = {}
        world.dispatch(now)
        history.dispatched = now
        for ((what, value), minutes), jump in zip(steps, jumps, strict=False):
            now += dt.timedelta(minutes=minutes)
            if what == "dispatch":
                clock = now + dt.timedelta(minutes=jump)
                world.dispatch(clock)
                seen(world, made, clock)
                history.dispatched = now
                continue
            world.edit(id, now, **{what: value})
            last = history.settings[-1]
            changed = Setting(now, last.time, last.zone, last.active, last.weekdays)
            if what == "notification_time":
                changed.time = value
            elif what == "timezone":
                changed.zone = value
            elif what == "weekdays":
                changed.weekdays = None if value is None else frozenset(day - 1 for day in value)
            else:
                changed.active = value
            if changed != Setting(now, last.time, last.zone, last.active, last.weekdays):
                history.edit(changed)
        # In the end it is on, and the dispatcher comes.
        now += dt.timedelta(minutes=1)
        if not history.settings[-1].active:
            world.edit(id, now, is_active=True)
            last = history.settings[-1]
            history.edit(Setting(now, last.time, last.zone, True, last.weekdays))
        world.dispatch(now)
        seen(world, made, now)
        rows = connection.execute(
            text(
                "SELECT delivery_id, due_at, due_date, zone, state::text FROM jobs.deliveries ORDER BY due_at"
            )
        )
        history.rows = [Row(at, date, where, state, made[id]) for id, at, date, where, state in rows]
        transaction.rollback()
    return history, now


def seen(world: World, made: dict[int, dt.datetime], now: dt.datetime) -> None:
    """Note when each delivery was made, by the dispatcher's clock."""
    for id in world.connection.scalars(text("SELECT delivery_id FROM jobs.deliveries")):
        made.setdefault(id, now)

"""What was planned with one release of the zone data, under the next one."""

from __future__ import annotations

import datetime as dt

from sqlalchemy import text
from sqlalchemy.orm import Session

from kitaab_jobs.reminders import rules, zone_data
from kitaab_jobs.reminders.rules import Due, Rule
from kitaab_jobs.reminders.zone_data import Reresolved
from tests.reminders.test_dispatch import World, superuser, world  # noqa: F401

NOW = dt.datetime(2026, 11, 21, 12, tzinfo=dt.UTC)
DATE = dt.date(2026, 11, 22)
OLD = dt.datetime(2026, 11, 22, 6, tzinfo=dt.UTC)  # 07:00 in Casablanca by 2025b
NEW = dt.datetime(2026, 11, 22, 7, tzinfo=dt.UTC)  # by 2026f


def reresolve(world: World, now: dt.datetime = NOW, version: str = "2026f") -> Reresolved:  # noqa: F811
    world.connection.execute(text("SET LOCAL ROLE kitaab_worker"))
    try:
        with Session(world.connection, join_transaction_mode="create_savepoint") as session, session.begin():
            return zone_data.reresolve(session, now=now, version=version)
    finally:
        world.connection.execute(text("RESET ROLE"))


def planned(world: World, at: dt.datetime, zone: str = "Africa/Casablanca", time: str = "07:00") -> int:  # noqa: F811
    id = world.reminder(time, zone, set_at=NOW)
    world.connection.execute(
        text("UPDATE notifications SET next_due_at = :at, next_due_date = :date WHERE notification_id = :id"),
        {"at": at, "date": DATE, "id": id},
    )
    return id


def test_the_instant_moves_and_the_date_stays(world: World) -> None:  # noqa: F811
    moved, right = planned(world, OLD), planned(world, NEW)
    assert reresolve(world) == Reresolved(looked=True, kinds=2, moved=1)
    assert world.next(moved) == world.next(right) == (NEW, DATE)
    row = world.connection.execute(text("SELECT version, moved FROM jobs.zone_data")).one()
    assert tuple(row) == ("2026f", 1)
    audited = world.connection.scalars(
        text(
            "SELECT new_values ->> 'decision' FROM audit_log WHERE record_id = :id AND action_type = 'reminder'"
        ),
        {"id": moved},
    )
    assert list(audited) == ["moved by release 2026f of the zone data, from 2026-11-22 06:00Z"]


def test_once_for_a_release_and_once_a_day(world: World) -> None:  # noqa: F811
    assert reresolve(world).looked
    late = planned(world, OLD)  # by a worker that has not been updated
    assert not reresolve(world, NOW + dt.timedelta(minutes=10)).looked
    assert reresolve(world, NOW + dt.timedelta(minutes=10), "2026g").moved == 1
    again = planned(world, OLD)
    assert reresolve(world, NOW + dt.timedelta(hours=14), "2026f").looked is False
    assert world.next(late) == (NEW, DATE)
    assert reresolve(world, NOW + dt.timedelta(hours=17, minutes=59), "2026h").moved == 1
    assert world.next(again) == (NEW, DATE)


def test_what_is_due_is_left_to_the_dispatcher(world: World) -> None:  # noqa: F811
    due = planned(world, OLD)
    assert reresolve(world, OLD).moved == 0
    assert world.next(due) == (OLD, DATE)


def test_an_instant_that_an_edit_has_kept_stays(world: World) -> None:  # noqa: F811
    """07:00 in New York has passed; the one that was planned in Los Angeles was kept for that date."""
    kept = planned(world, dt.datetime(2026, 11, 22, 15, tzinfo=dt.UTC), "America/New_York")
    assert reresolve(world, dt.datetime(2026, 11, 22, 13, tzinfo=dt.UTC)).moved == 0
    assert world.next(kept)[0].hour == 15


def test_a_date_that_the_zone_lost_is_made_up_at_once_after_it() -> None:
    eve = dt.datetime(2011, 12, 29, 12, tzinfo=dt.UTC)
    lost = Due(dt.datetime(2011, 12, 30, 18, tzinfo=dt.UTC), dt.date(2011, 12, 30))
    found = rules.planned_anew(Rule(dt.time(8), "Pacific/Apia"), lost, eve)
    assert found == Due(dt.datetime(2011, 12, 30, 10, tzinfo=dt.UTC), lost.date)

"""The dispatcher, as a worker runs it: planned, due, once a local day, never silently lost."""

from __future__ import annotations

import datetime as dt
import itertools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from kitaab_jobs.reminders import jobs, queries
from kitaab_jobs.reminders.jobs import Dispatched
from tests.conftest import engine_for

_emails = itertools.count()


def utc(day: int, hour: int = 0, minute: int = 0, second: int = 0) -> dt.datetime:
    return dt.datetime(2026, 3, day, hour, minute, second, tzinfo=dt.UTC)


class World:
    """People, their reminders, and a dispatcher with the rights of a worker."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def person(self, **given: Any) -> int:
        values = {"is_active": True, "deleted_at": None} | given
        return self._one(
            """
            INSERT INTO users (email, password_hash, full_name, is_active, deleted_at)
            VALUES (:email, 'x', 'A person', :is_active, :deleted_at) RETURNING user_id
            """,
            values | {"email": f"reminded{next(_emails)}@example.org"},
        )

    def reminder(self, at: str = "08:00", zone: str = "UTC", *, set_at: dt.datetime, **given: Any) -> int:
        """Add a reminder that was set at that instant."""
        values = {
            "user_id": given.pop("user_id", None) or self.person(),
            "notification_time": dt.time.fromisoformat(at),
            "timezone": zone,
            "updated_at": set_at,
        } | given
        names = ", ".join(values)
        slots = ", ".join(f":{name}" for name in values)
        return self._one(
            f"INSERT INTO notifications ({names}) VALUES ({slots}) RETURNING notification_id", values
        )

    def record_entry(self, user_id: int, date: dt.date) -> None:
        """Let somebody record something for a date, whether or not the migrations have made a partition for it."""
        self.connection.execute(
            text(
                "SELECT jobs.make_partition('entries', make_date(:year, 1, 1), make_date(:year + 1, 1, 1))"
                " WHERE to_regclass('entries_' || :year) IS NULL"
            ),
            {"year": date.year},
        )
        deed = self._one(
            "INSERT INTO deeds (user_id, category_type, name) VALUES (:user, 'hasanaat', 'a deed') RETURNING deed_id",
            {"user": user_id},
        )
        item = self._one(
            "INSERT INTO deed_items (deed_id, name, value_type) VALUES (:deed, 'an item', 'count') RETURNING deed_item_id",
            {"deed": deed},
        )
        self._one(
            "INSERT INTO entries (user_id, deed_item_id, entry_date, count_value, created_by_user_id)"
            " VALUES (:user, :item, :date, 1, :user) RETURNING entry_id",
            {"user": user_id, "item": item, "date": date},
        )

    def edit(self, id: int, at: dt.datetime, **values: Any) -> None:
        """Change a reminder as the app does, at that instant; what is the same already is no edit."""
        sets = ", ".join(f"{name} = :{name}" for name in values)
        differs = " OR ".join(f"{name} IS DISTINCT FROM :{name}" for name in values)
        changed = self.connection.execute(
            text(f"UPDATE notifications SET {sets} WHERE notification_id = :id AND ({differs})"),
            values | {"id": id},
        )
        if not changed.rowcount:
            return
        self.connection.execute(
            text(
                "UPDATE notifications SET updated_at = :at, before_edit = CASE WHEN before_edit IS NOT NULL"
                " THEN before_edit || jsonb_build_object('edited_at', CAST(:at AS timestamptz)) END"
                " WHERE notification_id = :id"
            ),
            {"at": at, "id": id},
        )

    def dispatch(self, now: dt.datetime, limit: int = 100, lane: int = 0) -> Dispatched:
        """Run the job's function, with no more rights than a worker has."""
        self.connection.execute(text("SET LOCAL ROLE kitaab_worker"))
        try:
            with (
                Session(self.connection, join_transaction_mode="create_savepoint") as session,
                session.begin(),
            ):
                return jobs.dispatch(session, now=now, limit=limit, lane=lane)
        finally:
            self.connection.execute(text("RESET ROLE"))

    def next(self, id: int) -> tuple[dt.datetime, dt.date]:
        row = self.connection.execute(
            text("SELECT next_due_at, next_due_date FROM notifications WHERE notification_id = :id"),
            {"id": id},
        ).one()
        return (row.next_due_at, row.next_due_date)

    def deliveries(self) -> list[tuple[dt.datetime, str]]:
        rows = self.connection.execute(
            text("SELECT due_at, state::text FROM jobs.deliveries ORDER BY due_at, delivery_id")
        )
        return [tuple(row) for row in rows]

    def reasons(self) -> list[str | None]:
        return list(
            self.connection.scalars(text("SELECT reason FROM jobs.deliveries ORDER BY due_at, delivery_id"))
        )

    def enqueued(self, name: str = "reminders.deliver") -> list[dict[str, Any]]:
        statement = "SELECT args FROM jobs.jobs WHERE name = :name ORDER BY args ->> 'zone', args::text"
        return list(self.connection.scalars(text(statement), {"name": name}))

    def _one(self, statement: str, values: dict[str, Any]) -> int:
        value = self.connection.scalar(text(statement), values)
        assert value is not None
        return int(value)


@pytest.fixture(scope="module")
def superuser(_cloned: Callable[[], str], url_for: Callable[[str, str], str]) -> Iterator[Engine]:
    engine = engine_for(url_for("postgres", _cloned()))
    yield engine
    engine.dispose()


@pytest.fixture
def world(superuser: Engine) -> Iterator[World]:
    """A database without reminders, as one who may take any role; it is as it was when the test ends."""
    with superuser.connect() as connection:
        transaction = connection.begin()
        yield World(connection)
        transaction.rollback()


class TestPlan:
    def test_a_new_reminder_is_planned(self, world: World) -> None:
        id = world.reminder("08:00", "Asia/Karachi", set_at=utc(1, 0))
        assert world.dispatch(utc(1, 0)) == Dispatched(planned=1, due=0, to_send=0, missed=0)
        assert world.next(id) == (utc(1, 3), dt.date(2026, 3, 1))
        assert world.deliveries() == []

    def test_nothing_is_planned_twice(self, world: World) -> None:
        world.reminder(set_at=utc(1))
        world.dispatch(utc(1))
        assert world.dispatch(utc(1)) == Dispatched(0, 0, 0, 0)

    def test_an_unknown_zone_counts_as_utc(self, world: World) -> None:
        id = world.reminder("08:00", "Mars/Olympus", set_at=utc(1, 7))
        world.dispatch(utc(1, 7))
        assert world.next(id) == (utc(1, 8), dt.date(2026, 3, 1))
        assert world.dispatch(utc(1, 8)).to_send == 1
        assert world.enqueued()[0]["zone"] == "Mars/Olympus"

    def test_an_inactive_one_is_not(self, world: World) -> None:
        world.reminder(set_at=utc(1), is_active=False)
        assert world.dispatch(utc(1)).planned == 0

    def test_set_in_the_minute_before_it_is_due(self, world: World) -> None:
        """The dispatcher looks once a minute: when it first sees this one, its time has come."""
        world.reminder("08:00", set_at=utc(1, 7, 59, 30))
        assert world.dispatch(utc(1, 8, 0, 1)) == Dispatched(planned=1, due=0, to_send=1, missed=0)
        assert world.deliveries() == [(utc(1, 8), "pending")]

    def test_set_just_after_its_time_it_is_for_tomorrow(self, world: World) -> None:
        id = world.reminder("08:00", set_at=utc(1, 8, 0, 10))
        assert world.dispatch(utc(1, 8, 1)).due == 0
        assert world.next(id) == (utc(2, 8), dt.date(2026, 3, 2))


class TestDue:
    def test_is_recorded_enqueued_and_planned_anew(self, world: World) -> None:
        id = world.reminder("08:00", set_at=utc(1))
        world.dispatch(utc(1))
        assert world.dispatch(utc(1, 7, 59)) == Dispatched(0, 0, 0, 0)
        assert world.dispatch(utc(1, 8)) == Dispatched(planned=0, due=1, to_send=1, missed=0)
        assert world.deliveries() == [(utc(1, 8), "pending")]
        assert world.next(id) == (utc(2, 8), dt.date(2026, 3, 2))
        (job,) = world.enqueued()
        assert (job["zone"], len(job["delivery_ids"])) == ("UTC", 1)
        audited = world.connection.scalar(
            text("SELECT new_values ->> 'state' FROM audit_log WHERE action_type = 'reminder'")
        )
        assert audited == "pending"

    def test_a_week_over_a_change_of_the_clock(self, world: World) -> None:
        """Looked at every two hours, with a time that does not exist on 8 March: one for each local date."""
        world.reminder("02:30", "America/New_York", set_at=utc(5))
        for hour in range(0, 7 * 24, 2):
            world.dispatch(utc(5) + dt.timedelta(hours=hour, minutes=35))
        statement = "SELECT due_date, state::text FROM jobs.deliveries ORDER BY due_date"
        found = [tuple(row) for row in world.connection.execute(text(statement))]
        assert found == [(dt.date(2026, 3, day), "pending") for day in range(5, 12)]

    @pytest.mark.parametrize("gone", [{"is_active": False}, {"deleted_at": utc(1)}])
    def test_people_who_left_get_none_and_lose_no_place(self, world: World, gone: dict[str, Any]) -> None:
        id = world.reminder("08:00", set_at=utc(1), user_id=world.person(**gone))
        world.dispatch(utc(1))
        assert world.dispatch(utc(1, 8)) == Dispatched(planned=0, due=1, to_send=0, missed=0, skipped=1)
        assert world.deliveries() == [(utc(1, 8), "skipped")]
        assert world.reasons() == ["the account is not active"]
        assert world.enqueued() == []
        assert world.next(id) == (utc(2, 8), dt.date(2026, 3, 2))

    def test_one_that_was_turned_off_gets_none(self, world: World) -> None:
        id = world.reminder("08:00", set_at=utc(1))
        world.dispatch(utc(1))
        world.edit(id, utc(1, 7), is_active=False)
        assert world.dispatch(utc(1, 8)) == Dispatched(0, 0, 0, 0)


class TestLate:
    def test_within_two_hours_it_is_sent(self, world: World) -> None:
        world.reminder("08:00", set_at=utc(1))
        world.dispatch(utc(1))
        assert world.dispatch(utc(1, 9, 59)).to_send == 1

    def test_later_it_is_missed_with_the_reason(self, world: World) -> None:
        id = world.reminder("08:00", set_at=utc(1))
        world.dispatch(utc(1))
        assert world.dispatch(utc(1, 10, 1)) == Dispatched(planned=0, due=1, to_send=0, missed=1)
        assert world.deliveries() == [(utc(1, 8), "missed")]
        reason = world.connection.scalar(text("SELECT reason FROM jobs.deliveries"))
        assert "found 121 minutes late" in str(reason)
        assert world.enqueued() == []
        assert world.next(id) == (utc(2, 8), dt.date(2026, 3, 2))

    def test_after_the_local_day_it_is_missed(self, world: World) -> None:
        world.reminder("23:30", "Asia/Karachi", set_at=utc(1))
        world.dispatch(utc(1))
        assert world.dispatch(utc(1, 19, 5)).missed == 1  # 00:05 there
        assert world.deliveries() == [(utc(1, 18, 30), "missed")]

    def test_after_days_without_a_dispatcher_todays_still_comes(self, world: World) -> None:
        """Those before are missed; today's was due an hour ago, and that is not too late."""
        world.reminder("08:00", set_at=utc(1))
        world.dispatch(utc(1))
        assert world.dispatch(utc(4, 9)) == Dispatched(planned=0, due=1, to_send=1, missed=3)
        assert world.deliveries() == [*((utc(day, 8), "missed") for day in (1, 2, 3)), (utc(4, 8), "pending")]
        assert world.dispatch(utc(4, 9, 2)) == Dispatched(0, 0, 0, 0)

    def test_a_missed_one_does_not_use_up_the_day(self, world: World) -> None:
        """Moved to the evening after the morning's was missed: there is one for that day after all."""
        id = world.reminder("08:00", set_at=utc(1))
        world.dispatch(utc(1))
        world.dispatch(utc(1, 11))
        assert world.deliveries() == [(utc(1, 8), "missed")]
        world.edit(id, utc(1, 12), notification_time=dt.time(20), timezone="Asia/Karachi")
        world.dispatch(utc(1, 12, 1))
        assert world.next(id) == (utc(1, 15), dt.date(2026, 3, 1))


class TestOnceADay:
    """Whatever is edited: one for a person and local date."""

    def test_the_time_moved_on_after_todays(self, world: World) -> None:
        id = world.reminder("08:00", set_at=utc(1))
        world.dispatch(utc(1))
        world.dispatch(utc(1, 8))
        world.edit(id, utc(1, 8, 30), notification_time=dt.time(9))
        world.dispatch(utc(1, 8, 31))
        assert world.next(id) == (utc(2, 9), dt.date(2026, 3, 2))
        assert world.dispatch(utc(1, 9)).due == 0

    def test_the_time_moved_before_todays_was_due(self, world: World) -> None:
        id = world.reminder("08:00", set_at=utc(1))
        world.dispatch(utc(1))
        world.edit(id, utc(1, 7), notification_time=dt.time(9))
        world.dispatch(utc(1, 7, 1))
        assert world.dispatch(utc(1, 8)).due == 0
        assert world.dispatch(utc(1, 9)).to_send == 1
        assert world.deliveries() == [(utc(1, 9), "pending")]

    def test_travelled_west_after_todays(self, world: World) -> None:
        id = world.reminder("08:00", "Asia/Karachi", set_at=utc(1))
        world.dispatch(utc(1))
        world.dispatch(utc(1, 3))
        world.edit(id, utc(1, 4), timezone="America/Los_Angeles")  # where it is still 28 February
        world.dispatch(utc(1, 4, 1))
        assert world.next(id) == (utc(1, 16), dt.date(2026, 3, 1))
        # Its nominal date is that of the one in Karachi, and it is another day.
        assert world.dispatch(utc(1, 16)).to_send == 1
        assert world.next(id) == (utc(2, 16), dt.date(2026, 3, 2))

    def test_turned_off_and_on_again(self, world: World) -> None:
        id = world.reminder("08:00", set_at=utc(1))
        world.dispatch(utc(1))
        world.dispatch(utc(1, 8))
        world.edit(id, utc(1, 8, 10), is_active=False)
        world.edit(id, utc(1, 8, 20), is_active=True)
        world.dispatch(utc(1, 8, 21))
        assert world.next(id) == (utc(2, 8), dt.date(2026, 3, 2))

    def test_replaced_by_another_of_the_same_person(self, world: World) -> None:
        person = world.person()
        first = world.reminder("08:00", set_at=utc(1), user_id=person)
        world.dispatch(utc(1))
        world.dispatch(utc(1, 8))
        world.edit(first, utc(1, 8, 30), is_active=False)
        world.reminder("10:00", set_at=utc(1, 8, 30), user_id=person)
        world.dispatch(utc(1, 8, 31))
        assert world.dispatch(utc(1, 10)).to_send == 0
        assert world.deliveries() == [(utc(1, 8), "pending")]
        assert world.dispatch(utc(2, 10)).to_send == 1


class TestChunks:
    def test_one_job_for_each_zone_and_chunk(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(jobs, "CHUNK", 3)
        for zone, count in (("UTC", 4), ("Africa/Abidjan", 3), ("Atlantic/Reykjavik", 1)):
            for _ in range(count):
                world.reminder("08:00", zone, set_at=utc(1))
        world.dispatch(utc(1))
        assert world.dispatch(utc(1, 8)).to_send == 8
        sizes = sorted((job["zone"], len(job["delivery_ids"])) for job in world.enqueued())
        assert sizes == [("Africa/Abidjan", 3), ("Atlantic/Reykjavik", 1), ("UTC", 1), ("UTC", 3)]
        sent = [id for job in world.enqueued() for id in job["delivery_ids"]]
        assert len(sent) == len(set(sent)) == 8

    def test_more_than_the_limit_is_followed_up(self, world: World) -> None:
        for _ in range(5):
            world.reminder("08:00", set_at=utc(1))
        assert world.dispatch(utc(1), limit=3).planned == 3
        assert world.enqueued("reminders.dispatch") == [{"limit": 3, "lane": lane} for lane in (1, 2)]
        assert world.dispatch(utc(1), limit=3, lane=1).planned == 2
        assert len(world.enqueued("reminders.dispatch")) == 2
        assert [world.dispatch(utc(1, 8), limit=3, lane=1).to_send for _ in range(2)] == [3, 2]
        assert world.enqueued("reminders.dispatch")[-1] == {"limit": 3, "lane": 2}
        assert [job["lane"] for job in world.enqueued("reminders.dispatch")] == [1, 1, 2]


class TestWanted:
    def test_each_channel_has_its_delivery(self, world: World) -> None:
        world.reminder("08:00", set_at=utc(1), channels=["email", "push"])
        world.dispatch(utc(1))
        assert world.dispatch(utc(1, 8)) == Dispatched(planned=0, due=1, to_send=2, missed=0)

    def test_not_if_an_entry_was_recorded_for_that_date(self, world: World) -> None:
        person, lazy = world.person(), world.person()
        for id in (person, lazy):
            world.reminder("08:00", "Asia/Karachi", set_at=utc(1), user_id=id, skip_if_recorded=True)
        world.record_entry(person, dt.date(2026, 3, 1))
        world.record_entry(lazy, dt.date(2026, 2, 28))
        world.dispatch(utc(1))
        assert world.dispatch(utc(1, 3)) == Dispatched(planned=0, due=2, to_send=1, missed=0, skipped=1)
        assert sorted(map(str, world.reasons())) == ["None", "an entry was recorded for that date already"]

    def test_in_the_quiet_hours_it_is_skipped_and_the_date_not_used_up(self, world: World) -> None:
        quiet: dict[str, Any] = {"quiet_from": dt.time(22), "quiet_until": dt.time(8, 30)}
        id = world.reminder("08:00", set_at=utc(1), **quiet)
        world.dispatch(utc(1))
        assert world.dispatch(utc(1, 8)).skipped == 1
        assert world.reasons() == ["it falls into the quiet hours 22:00 to 08:30"]
        world.edit(id, utc(1, 8, 10), notification_time=dt.time(9))
        world.dispatch(utc(1, 8, 11))
        assert world.dispatch(utc(1, 9)).to_send == 1

    def test_on_the_chosen_days(self, world: World) -> None:
        world.reminder("08:00", set_at=utc(1), weekdays=[2, 4])  # 1 March 2026 is a Sunday
        for hour in range(0, 14 * 24, 8):
            world.dispatch(utc(1) + dt.timedelta(hours=hour))
        assert [at.day for at, _ in world.deliveries()] == [3, 5, 10, 12]

    def test_a_date_that_was_used_is_not_used_again(self, world: World) -> None:
        """Whatever stands in next_due_at, by whoever: last_due_date decides, under the row's lock."""
        id = world.reminder("08:00", set_at=utc(1))
        world.dispatch(utc(1))
        world.dispatch(utc(1, 8))
        world.connection.execute(
            text(
                "UPDATE notifications SET next_due_at = :at, next_due_date = :day WHERE notification_id = :id"
            ),
            {"at": utc(1, 9), "day": dt.date(2026, 3, 1), "id": id},
        )
        assert world.dispatch(utc(1, 9)) == Dispatched(planned=0, due=1, to_send=0, missed=0, skipped=1)
        assert world.next(id) == (utc(2, 8), dt.date(2026, 3, 2))

    def test_zones_that_are_none_are_counted(self, world: World) -> None:
        world.reminder("08:00", "Mars/Olympus", set_at=utc(1))
        assert world.dispatch(utc(1)).unknown_zones == 1
        assert world.dispatch(utc(1, 8)).unknown_zones == 1


class TestPlainSql:
    """Another app's UPDATE, with no call of ours."""

    def test_an_edit_keeps_what_was_planned_until_it_is_resolved(self, world: World) -> None:
        id = world.reminder("08:00", set_at=utc(1))
        world.dispatch(utc(1))
        for zone in ("Asia/Karachi", "Asia/Tokyo"):
            world.edit(id, utc(1, 7), timezone=zone)
        before = world.connection.scalar(text("SELECT before_edit FROM notifications"))
        assert {key: before[key] for key in ("zone", "time", "date")} == {
            "zone": "UTC",
            "time": "08:00:00",
            "date": "2026-03-01",
        }
        assert dt.datetime.fromisoformat(before["at"]) == utc(1, 8)
        world.dispatch(utc(1, 7, 1))
        assert world.connection.scalar(text("SELECT before_edit FROM notifications")) is None

    def test_due_and_unclaimed_it_is_sent_as_it_was(self, world: World) -> None:
        id = world.reminder("08:00", set_at=utc(1))
        world.dispatch(utc(1))
        world.edit(id, utc(1, 8, 0, 20), notification_time=dt.time(20))
        assert world.dispatch(utc(1, 8, 1)).to_send == 1
        assert world.deliveries() == [(utc(1, 8), "pending")]
        assert world.next(id) == (utc(2, 20), dt.date(2026, 3, 2))

    def test_turned_off_and_on_it_owes_nothing_of_before(self, world: World) -> None:
        id = world.reminder("08:00", set_at=utc(1))
        world.dispatch(utc(1))
        world.edit(id, utc(1, 8, 10), is_active=False)
        world.edit(id, utc(1, 8, 20), is_active=True)
        assert world.dispatch(utc(1, 8, 21)).to_send == 0
        assert world.next(id) == (utc(2, 8), dt.date(2026, 3, 2))

    @pytest.mark.parametrize(
        "bad",
        [
            "weekdays = '{0}'",
            "weekdays = '{}'",
            "weekdays = '{8}'",
            "quiet_from = '22:00'",
            "channels = '{}'",
        ],
    )
    def test_what_makes_no_sense_is_refused(self, world: World, bad: str) -> None:
        world.reminder("08:00", set_at=utc(1))
        with pytest.raises(IntegrityError, match="notifications_"):
            world.connection.execute(text(f"UPDATE notifications SET {bad}"))


STEPS = ("cleared", "due", "settle")


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("step", STEPS)
def test_killed_at_any_step_nothing_is_lost_or_doubled(
    step: str, after: bool, engine_as: Callable[[str], Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its connection dies before or after each statement; what the next dispatcher finds is as if it never was."""
    database = engine_as("postgres")
    with database.begin() as connection:
        world = World(connection)
        for _ in range(20):
            world.reminder("08:00", set_at=utc(1))
        world.dispatch(utc(1))
        world.reminder("09:00", set_at=utc(1))  # one to plan
    real = getattr(queries, step)

    def dies(session: Session, *given: Any) -> Any:
        result = real(session, *given) if after else None
        session.connection().connection.driver_connection.close()  # type: ignore[union-attr]
        return result if after else real(session, *given)

    with monkeypatch.context() as patch:
        patch.setattr(queries, step, dies)
        with pytest.raises(Exception, match=r"closed|invalid transaction"), database.begin() as connection:
            World(connection).dispatch(utc(1, 8))
    with database.begin() as connection:
        world = World(connection)
        assert world.deliveries() == []
        assert world.enqueued() == []
        assert world.dispatch(utc(1, 8)) == Dispatched(planned=1, due=20, to_send=20, missed=0)
        ids = [id for job in world.enqueued() for id in job["delivery_ids"]]
        assert len(ids) == len(set(ids)) == 20
        assert world.dispatch(utc(1, 8)) == Dispatched(0, 0, 0, 0)


def test_many_dispatchers_at_once(engine_as: Callable[[str], Engine]) -> None:
    """They share the work, and nobody gets two."""
    database = engine_as("postgres")
    with database.begin() as connection:
        world = World(connection)
        for _ in range(200):
            world.reminder("08:00", set_at=utc(1))
        world.dispatch(utc(1), limit=1000)
    barrier = threading.Barrier(4)
    sent: list[int] = []

    def run() -> None:
        barrier.wait()
        for _ in range(8):
            with database.begin() as connection:
                sent.append(World(connection).dispatch(utc(1, 8), limit=25).to_send)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(sent) == 200
    with database.connect() as connection:
        world = World(connection)
        assert world.deliveries() == [(utc(1, 8), "pending")] * 200
        ids = [id for job in world.enqueued() for id in job["delivery_ids"]]
        assert len(ids) == len(set(ids)) == 200


@pytest.mark.parametrize("step", ["cleared", "due"])
def test_an_edit_while_it_is_decided_waits_and_is_not_lost(
    step: str, engine_as: Callable[[str], Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between reading a row and moving it on, somebody edits it and another dispatcher comes: the row is locked."""
    database = engine_as("postgres")
    with database.begin() as connection:
        world = World(connection)
        id = world.reminder("08:00", set_at=utc(1))
        if step == "due":
            world.dispatch(utc(1))
    real = queries.settle
    edited = threading.Event()

    def edit() -> None:
        with database.begin() as connection:
            World(connection).edit(id, utc(1, 8, 0, 20), notification_time=dt.time(8, 30))
        edited.set()

    editor = threading.Thread(target=edit)

    def slowly(session: Session, decisions: Any, now: dt.datetime) -> Any:
        if decisions and not editor.ident:
            editor.start()
            waits_or_ends(database, editor)
            assert not edited.is_set()
            with database.begin() as connection:
                assert World(connection).dispatch(utc(1, 8, 0, 30)) == Dispatched(0, 0, 0, 0)
        return real(session, decisions, now)

    with monkeypatch.context() as patch, database.begin() as connection:
        patch.setattr(queries, "settle", slowly)
        first = World(connection).dispatch(utc(1, 8) if step == "due" else utc(1))
    editor.join(30)
    with database.begin() as connection:
        world = World(connection)
        world.dispatch(utc(1, 8, 1))
        if step == "due":
            assert first.to_send == 1
            assert world.deliveries() == [(utc(1, 8), "pending")]
            assert world.next(id) == (utc(2, 8, 30), dt.date(2026, 3, 2)), "as it was edited, on another date"
        else:
            assert first.planned == 1
            assert world.deliveries() == [(utc(1, 8), "pending")], "due and unclaimed when it was edited"
            assert world.next(id) == (utc(2, 8, 30), dt.date(2026, 3, 2))


def waits_or_ends(database: Engine, thread: threading.Thread) -> None:
    """Return when a statement waits for a lock, or the thread has ended."""
    statement = text(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    )
    while thread.is_alive():
        with database.connect() as connection:
            if connection.scalar(statement):
                return
        thread.join(0.02)


def test_no_plan_is_made_for_ten_rows_and_used_for_ten_thousand(superuser: Engine) -> None:
    """After some runs PostgreSQL would take a plan that fits arrays of any length, and it fits only short ones."""
    with superuser.connect() as connection:
        transaction = connection.begin()
        world = World(connection)
        for _ in range(50):
            world.reminder("08:00", set_at=utc(1))
        world.dispatch(utc(1))
        for day in range(1, 20):
            assert world.dispatch(utc(day, 8)).to_send == 50
        plans = connection.execute(
            text(
                "SELECT generic_plans, custom_plans FROM pg_prepared_statements"
                " WHERE statement LIKE '%INSERT INTO jobs.deliveries%'"
            )
        ).all()
        transaction.rollback()
    assert [row.generic_plans for row in plans] == [0]
    assert plans[0].custom_plans > 10


def test_rolled_back_nothing_has_moved(world: World) -> None:
    id = world.reminder("08:00", set_at=utc(1))
    world.dispatch(utc(1))
    with world.connection.begin_nested() as savepoint:
        world.dispatch(utc(1, 8))
        savepoint.rollback()
    assert world.next(id) == (utc(1, 8), dt.date(2026, 3, 1))
    assert world.deliveries() == []
    assert world.dispatch(utc(1, 8)).to_send == 1

"""A beat on a clock that the test sets: hours without it, clocks that jump, a broker and a database that are away."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator

import pytest
from celery import Celery
from sqlalchemy import Connection, Engine, text
from structlog.testing import capture_logs

from kitaab_jobs import contract
from kitaab_jobs.devstack.redis import EmbeddedRedis
from kitaab_jobs.runtime import relay as relay_module
from kitaab_jobs.runtime.scheduler import LedgerScheduler
from kitaab_jobs.runtime.timetable import Schedule
from tests.devstack.observe import wait_for
from tests.runtime.beating import beats
from tests.runtime.conftest import celery_on, closing
from tests.runtime.relaying import MakeRelay, ids, running, states
from tests.runtime.test_fires import HOUR, MINUTE, NOON, end_runs, explained, fired_jobs, recorded

HOURS = [NOON + n * HOUR for n in range(1, 10)]


class Simulated(LedgerScheduler):
    """A scheduler at a time that is set. It starts at NOON."""

    at = NOON

    def clock(self, _connection: Connection) -> dt.datetime:
        """Return the time that is set."""
        return self.at

    def tick_at(self, at: dt.datetime) -> None:
        """Tick at that time."""
        self.at = at
        self.tick()


MakeBeat = Callable[..., Simulated]


@pytest.fixture
def beat(
    app: Celery, worker_engine: Engine, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[MakeBeat]:
    """Start a beat with these lines, at NOON."""
    with beats(Simulated, app, worker_engine, redis_url, monkeypatch) as make:

        def at_noon(*lines: Schedule, at: dt.datetime = NOON) -> Simulated:
            scheduler = make(*lines)
            scheduler.tick_at(at)
            return scheduler

        yield at_noon


def line(name: str = "a", **given: object) -> Schedule:
    return Schedule(name, contract.PROGRESS_REFRESH, **({"cron": "@hourly", "overlap": "allow"} | given))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "outcomes"),
    [
        ({"catch_up": "skip"}, "missed missed missed"),
        ({"catch_up": "latest"}, "missed missed fired"),
        ({"catch_up": "latest", "catch_up_window": "20m"}, "missed missed missed"),
        ({"catch_up": "all"}, "fired fired fired"),
        ({"catch_up": "all", "catch_up_window": "2h"}, "missed fired fired"),
        ({"catch_up": "all", "overlap": "skip"}, "fired skipped skipped"),
        ({"catch_up": "all", "overlap": "cancel_running"}, "skipped skipped fired"),
    ],
)  # fmt: skip
def test_three_hours_without_a_beat(
    effects: Engine, beat: MakeBeat, given: dict[str, str], outcomes: str
) -> None:
    beat(line(**given))
    successor = beat(line(**given), at=NOON + 3.5 * HOUR)
    successor.tick_at(NOON + 4 * HOUR)
    with effects.connect() as connection:
        found = recorded(connection, "a")
        assert list(found) == HOURS[:4]
        assert " ".join(list(found.values())[:3]) == outcomes
        fired = [at for at, outcome in found.items() if outcome == "fired"]
        assert fired_jobs(connection, "a") == fired
        late = connection.scalar(
            text("SELECT max(lateness) FROM jobs.fires WHERE fire_at = :at"), {"at": HOURS[0]}
        )
        assert late == 2.5 * HOUR


def test_three_hours_without_a_beat_and_one_run_after_the_other(effects: Engine, beat: MakeBeat) -> None:
    lines = [line(catch_up="all", overlap=None)]
    beat(*lines)
    successor = beat(*lines, at=NOON + 3.5 * HOUR)
    order: list[dt.datetime] = []
    for n in range(3):
        with effects.begin() as connection:
            order += connection.scalars(text("SELECT fire_at FROM jobs.jobs WHERE finished_at IS NULL")).all()
            assert end_runs(connection, "a") == 1
        successor.tick_at(NOON + 3.5 * HOUR + n * MINUTE)
    assert order == HOURS[:3]
    with effects.connect() as connection:
        assert list(recorded(connection, "a").values()) == ["fired"] * 3


def test_a_clock_that_goes_back_an_hour_and_forward_again(effects: Engine, beat: MakeBeat) -> None:
    lines = [line("a", cron="*/20 * * * *"), line("b", cron="every 25m"), line("c", cron="30 12-20 * * *")]
    scheduler = beat(*lines)
    with capture_logs() as logs:
        for minutes in (30, 60, 90, 31, 60, 95, 125, 65, 130, 150, 180):  # after 90: back; and so after 125
            scheduler.tick_at(NOON + minutes * MINUTE)
    with effects.connect() as connection:
        for schedule in lines:
            planned = schedule.plan.fires(NOON, NOON + 3 * HOUR, 100)
            assert list(recorded(connection, schedule.name)) == planned
            fired = [at for at, outcome in recorded(connection, schedule.name).items() if outcome == "fired"]
            assert fired_jobs(connection, schedule.name) == fired
    assert [entry["seconds"] for entry in logs if entry["action"] == "clock_set_back"] == [59 * 60, 60 * 60]


def test_a_clock_that_is_an_hour_ahead_and_put_right(effects: Engine, beat: MakeBeat) -> None:
    """What it fired early is fired; from then on all is as planned."""
    scheduler = beat(line())
    scheduler.tick_at(NOON + 0.5 * HOUR)
    scheduler.tick_at(NOON + 1.5 * HOUR)
    scheduler.tick_at(NOON + 0.5 * HOUR)
    for n in (1, 2, 3):
        scheduler.tick_at(NOON + n * HOUR)
    with effects.connect() as connection:
        assert recorded(connection, "a") == dict.fromkeys(HOURS[:3], "fired")
        assert fired_jobs(connection, "a") == HOURS[:3]


def test_a_clock_that_is_put_right_in_a_tick_that_fails(effects: Engine, beat: MakeBeat) -> None:
    """What was planned anew is rolled back with it; the next one does it again."""
    scheduler = beat(line())
    scheduler.tick_at(NOON + 5.5 * HOUR)
    with effects.begin() as connection:
        connection.execute(text("ALTER TABLE jobs.kinds RENAME TO away"))
    try:
        with capture_logs() as logs:
            scheduler.tick_at(NOON + 0.5 * HOUR)
        assert "beat_waits" in {entry["action"] for entry in logs}
    finally:
        with effects.begin() as connection:
            connection.execute(text("ALTER TABLE jobs.away RENAME TO kinds"))
    scheduler.tick_at(NOON + 0.5 * HOUR + MINUTE)
    with effects.connect() as connection:
        planned = connection.scalar(text("SELECT next_fire_at FROM jobs.schedules WHERE name = 'a'"))
    assert planned == HOURS[0]


def test_a_clock_that_was_ten_years_ahead_for_a_tick(effects: Engine, beat: MakeBeat) -> None:
    scheduler = beat(line(cron="@daily"))
    scheduler.tick_at(NOON + 3650 * 24 * HOUR)
    for n in range(1, 60):
        scheduler.tick_at(NOON + n * HOUR)
    days = [NOON + 12 * HOUR + n * 24 * HOUR for n in range(2)]
    with effects.connect() as connection:
        found = recorded(connection, "a")
        assert list(found)[:2] == fired_jobs(connection, "a")[:2] == days
        assert set(found.values()) == {"fired"}
        assert len(found) == 3, "and the one that it fired ten years ahead"


def test_a_broker_that_refuses_for_ten_minutes(
    effects: Engine,
    beat: MakeBeat,
    make_relay: MakeRelay,
    own_redis: EmbeddedRedis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(relay_module, "LONGEST_PAUSE_SECONDS", 0.2)
    # It may come back in two passes, and nobody takes the messages of the first.
    monkeypatch.setattr(relay_module, "FEW_MESSAGES", 100)
    scheduler = beat(line(cron="* * * * *"))
    url = own_redis.url(3)
    with closing(celery_on(url)) as app, capture_logs() as logs, running(make_relay(app, poll_seconds=0.1)):
        own_redis.stop()
        for n in range(1, 11):
            scheduler.tick_at(NOON + n * MINUTE)
        wait_for(lambda: any(entry["action"] == "relay_waits" for entry in logs))
        assert states(effects) == {"ready": 10}
        own_redis.start()
        wait_for(lambda: states(effects) == {"published": 10})
        assert len(set(ids(url))) == len(ids(url)) == 10
    with effects.connect() as connection:
        assert list(recorded(connection, "a").values()) == ["fired"] * 10


def test_a_database_that_is_away_for_a_minute(
    effects: Engine, superuser_engine: Engine, beat: MakeBeat
) -> None:
    scheduler = beat(line(cron="every 10s", catch_up="all"))
    scheduler.tick_at(NOON + MINUTE)
    with superuser_engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        name = effects.url.database
        connection.exec_driver_sql(f"ALTER DATABASE {name} CONNECTION LIMIT 0")
        try:
            connection.exec_driver_sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND usename = 'kitaab_worker'"
            )
            with capture_logs() as logs:
                for n in range(6):
                    scheduler.tick_at(NOON + MINUTE + n * MINUTE / 6)
            assert {entry["action"] for entry in logs} == {"beat_waits"}
        finally:
            connection.exec_driver_sql(f"ALTER DATABASE {name} CONNECTION LIMIT -1")
    scheduler.tick_at(NOON + 2 * MINUTE)
    with effects.connect() as connection:
        found = explained(connection, "a")
        assert [at for at, _, _ in found] == [NOON + n * MINUTE / 6 for n in range(1, 13)]
        assert fired_jobs(connection, "a") == [at for at, _, _ in found]

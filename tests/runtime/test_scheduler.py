"""The scheduler that beat runs: many at once, one bad schedule, no database."""

from __future__ import annotations

import datetime as dt
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery import Celery
from sqlalchemy import Engine, text
from structlog.testing import capture_logs

from kitaab_jobs import contract
from kitaab_jobs.errors import UsageError
from kitaab_jobs.runtime import fires
from kitaab_jobs.runtime.scheduler import LedgerScheduler
from kitaab_jobs.runtime.timetable import Schedule
from tests.devstack.observe import wait_for
from tests.runtime.beating import beats
from tests.runtime.conftest import celery_on, closing
from tests.runtime.test_fires import add_schedule, names, recorded, schedule

MakeBeat = Callable[..., LedgerScheduler]


@pytest.fixture
def app(redis_url: str) -> Iterator[Celery]:
    """A Celery app on an empty Redis database."""
    with closing(celery_on(redis_url)) as app:
        yield app


@pytest.fixture
def beat(
    app: Celery, worker_engine: Engine, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[MakeBeat]:
    """Make a scheduler with lines of the test's own, without its relay, as `celery beat` would."""
    with beats(LedgerScheduler, app, worker_engine, redis_url, monkeypatch) as make:
        yield make


def every(name: str, interval: str, job: contract.Job = contract.PROGRESS_REFRESH) -> Schedule:
    return Schedule(name, job, cron=f"every {interval}")


@pytest.fixture
def at_half_past(monkeypatch: pytest.MonkeyPatch) -> dt.datetime:
    """Return the hour before: it is half past for all beats, however long the test takes."""
    now = dt.datetime.now(dt.UTC).replace(minute=0, second=0, microsecond=0)
    monkeypatch.setattr(LedgerScheduler, "clock", lambda *_: now + dt.timedelta(minutes=30))
    return now


def end_all_jobs(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE jobs.jobs SET state = 'succeeded', finished_at = now() WHERE finished_at IS NULL")
        )


def test_reads_its_lines_fires_and_says_when_to_look_again(effects: Engine, beat: MakeBeat) -> None:
    scheduler = beat(every("often", "1s"), every("seldom", "365d"))
    assert 0 < scheduler.tick() <= 1
    with effects.connect() as connection:
        assert names(connection) == ["often", "seldom"]
        assert connection.scalar(text("SELECT count(*) FROM jobs.kinds")) == len(contract.JOBS)
        assert connection.scalar(text("SELECT kind FROM jobs.processes")) == "beat"
    # Where a second has passed within the first tick, its job has not ended, and nothing more would fire.
    end_all_jobs(effects)
    time.sleep(1.1)
    scheduler.tick()
    with effects.connect() as connection:
        assert list(recorded(connection, "often").values())[-1] == "fired"
        assert recorded(connection, "seldom") == {}


def test_a_deploy_with_other_lines(effects: Engine, beat: MakeBeat) -> None:
    with effects.begin() as connection:
        add_schedule(connection, "live", next_fire_at=dt.datetime(2100, 1, 1, tzinfo=dt.UTC))
    beat(every("old", "1h"), every("both", "1h")).tick()
    with capture_logs() as logs:
        beat(every("new", "1h"), every("both", "2h")).tick()
    said = {(entry["action"], entry.get("schedule")): entry for entry in logs}
    assert {("schedule_added", "new"), ("schedule_changed", "both"), ("schedule_removed", "old")} <= set(said)
    assert said["schedule_changed", "both"]["fields"] == ["line"]
    with effects.connect() as connection:
        assert names(connection) == ["both", "live", "new"]


def test_three_beats_at_once(effects: Engine, beat: MakeBeat) -> None:
    """Real time, real ticks: each second that was planned has one row, and each fired one has one job."""
    lines = [every(f"s{n}", "1s") for n in range(5)]
    beats = [beat(*lines) for _ in range(3)]
    enough = threading.Event()

    def run(scheduler: LedgerScheduler) -> None:
        while not enough.is_set():
            time.sleep(min(scheduler.tick(), 0.2))

    def work() -> None:
        while not enough.is_set():
            end_all_jobs(effects)
            time.sleep(0.05)

    def fewest() -> int:
        with effects.connect() as connection:
            return min(len(recorded(connection, one.name)) for one in lines)

    threads = [threading.Thread(target=run, args=(each,)) for each in beats] + [threading.Thread(target=work)]
    for thread in threads:
        thread.start()
    try:
        wait_for(lambda: fewest() >= 3, seconds=60)
    finally:
        enough.set()
        for thread in threads:
            thread.join()
    with effects.connect() as connection:
        for one in lines:
            planned = recorded(connection, one.name)
            first, last = min(planned), max(planned)
            assert len(planned) == (last - first).total_seconds() + 1, "a planned fire left no row"
        jobs = connection.execute(text("SELECT schedule, fire_at FROM jobs.jobs")).all()
        fired = connection.execute(
            text("SELECT schedule, fire_at FROM jobs.fires WHERE outcome = 'fired'")
        ).all()
    assert Counter(map(tuple, jobs)) == Counter(map(tuple, fired))
    assert max(Counter(map(tuple, jobs)).values()) == 1


def test_a_late_beat_finds_what_is_due_once(
    effects: Engine, beat: MakeBeat, at_half_past: dt.datetime
) -> None:
    """Two beats come back at the same moment after hours in which there was none."""
    now = at_half_past
    with effects.begin() as connection:
        for n in range(20):
            add_schedule(connection, f"live{n:02}", next_fire_at=now - dt.timedelta(hours=3))
    beats = [beat(), beat()]
    barrier = threading.Barrier(2)

    def tick(scheduler: LedgerScheduler) -> None:
        barrier.wait()
        scheduler.tick()

    threads = [threading.Thread(target=tick, args=(each,)) for each in beats]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wanted = {now - dt.timedelta(hours=n): "missed" for n in (3, 2, 1)} | {now: "fired"}
    with effects.connect() as connection:
        for n in range(20):
            assert recorded(connection, f"live{n:02}") == wanted
        assert connection.scalar(text("SELECT count(*) FROM jobs.jobs")) == 20


class TestOneBadSchedule:
    """It is on record, and the others fire."""

    @pytest.fixture
    def now(self, at_half_past: dt.datetime) -> dt.datetime:
        return at_half_past

    def check(self, effects: Engine, scheduler: LedgerScheduler, now: dt.datetime, reason: str) -> Any:
        with capture_logs() as logs:
            scheduler.tick()
        assert [entry["action"] for entry in logs if entry["log_level"] == "error"] == ["schedule_failed"]
        with effects.connect() as connection:
            assert recorded(connection, "good") == {now: "fired"}
            assert recorded(connection, "bad") == {now: "skipped"}
            assert reason in str(
                connection.scalar(text("SELECT reason FROM jobs.fires WHERE schedule = 'bad'"))
            )
            return schedule(connection, "bad")

    def test_its_job_is_gone(self, effects: Engine, beat: MakeBeat, now: dt.datetime) -> None:
        with effects.begin() as connection:
            add_schedule(connection, "bad", job="gone.job", next_fire_at=now)
            add_schedule(connection, "good", next_fire_at=now)
        row = self.check(effects, beat(), now, "no job is called 'gone.job'")
        assert row.paused_at is None
        assert row.next_fire_at == now + dt.timedelta(hours=1)

    def test_its_line_cannot_be_read(self, effects: Engine, beat: MakeBeat, now: dt.datetime) -> None:
        with effects.begin() as connection:
            add_schedule(connection, "bad", line="61 * * * *", next_fire_at=now)
            add_schedule(connection, "good", next_fire_at=now)
        row = self.check(effects, beat(), now, "minute '61'")
        assert "minute '61'" in row.paused_note

    def test_its_zone_is_unknown(self, effects: Engine, beat: MakeBeat, now: dt.datetime) -> None:
        with effects.begin() as connection:
            add_schedule(connection, "bad", zone="Mars/Olympus", next_fire_at=now)
            add_schedule(connection, "good", next_fire_at=now)
        row = self.check(effects, beat(), now, "Mars/Olympus")
        assert row.paused_at is not None


def test_a_fire_that_is_anothers_is_no_tight_loop(effects: Engine, beat: MakeBeat) -> None:
    scheduler = beat()
    scheduler.tick()
    with effects.begin() as connection:
        add_schedule(connection, "a")
    with effects.connect() as other:
        assert len(fires.due(other, dt.datetime.now(dt.UTC))) == 1
        assert scheduler.tick() >= 0.05


def test_waits_for_a_database_that_is_away(effects: Engine, superuser_engine: Engine, beat: MakeBeat) -> None:
    scheduler = beat(every("a", "1s"))
    scheduler.tick()
    with superuser_engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("ALTER TABLE jobs.schedules RENAME TO away"))
        try:
            with capture_logs() as logs:
                assert scheduler.tick() == 1.0
            assert [entry["action"] for entry in logs] == ["beat_waits"]
        finally:
            connection.execute(text("ALTER TABLE jobs.away RENAME TO schedules"))
        connection.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE usename = 'kitaab_worker' AND datname = current_database()"
            )
        )
    time.sleep(1.1)
    scheduler.tick()
    with effects.connect() as connection:
        assert "fired" in recorded(connection, "a").values()


def test_a_bad_timetable_ends_it_with_one_line(
    beat: MakeBeat, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scheduler = beat()

    def bad() -> list[Schedule]:
        raise UsageError("two schedules are called 'a'", remedy="rename one in beat_schedule.py")

    monkeypatch.setattr(scheduler, "timetable", bad)
    with pytest.raises(SystemExit) as ended:
        scheduler.setup_schedule()
    assert ended.value.code == 2
    assert capsys.readouterr().err == (
        "error: two schedules are called 'a': rename one in beat_schedule.py\n"
    )


def test_close_stops_the_relay(beat: MakeBeat) -> None:
    scheduler = beat()
    assert not relays()
    scheduler.setup_schedule()
    assert len(relays()) == 1
    scheduler.close()
    assert not relays()


def relays() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "relay"]

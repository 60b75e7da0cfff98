"""The server: roles, settings, connections, clocks and zones."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable

import pytest
from sqlalchemy import Connection, Engine

from tests.health.conftest import Doctor

Run = Callable[..., None]
UrlFor = Callable[[str, str], str]


def test_the_usual_server_is_in_order(doctor: Doctor) -> None:
    found = doctor.examine()
    unsafe = {"postgres.settings.fsync", "postgres.settings.full_page_writes"}  # the tests' cluster is
    bad = [one for one in found.values() if one.level != "ok" and one.area == "postgres"]
    assert {one.check for one in bad} == unsafe
    assert found["time.postgres_clock"].level == "ok"


def test_a_superuser_is_no_worker(doctor: Doctor, connection: Connection, url_for: UrlFor) -> None:
    doctor.set(database_url=url_for("postgres", connection.engine.url.database or ""))
    found = doctor.check("postgres.role.database")
    assert found.level == "fail"
    assert "jobs would run as postgres, which is a superuser" in found.what
    assert "kitaab_worker" in (found.remedy or "")


def test_the_owner_of_the_tables_is_no_worker(
    doctor: Doctor, connection: Connection, url_for: UrlFor
) -> None:
    doctor.set(database_url=url_for("kitaab_admin", connection.engine.url.database or ""))
    found = doctor.check("postgres.role.database")
    assert found.level == "fail"
    assert "is a member of kitaab_admin" in found.what


@pytest.mark.parametrize(
    ("rights", "level", "said"),
    [
        ("IN ROLE kitaab_worker", "ok", "only do what they need"),
        ("BYPASSRLS IN ROLE kitaab_worker", "fail", "bypasses row-level security"),
        ("IN ROLE kitaab_worker, kitaab_admin", "fail", "member of kitaab_admin"),
        ("CREATEROLE CREATEDB IN ROLE kitaab_worker", "warn", "may create roles and may create databases"),
        ("REPLICATION IN ROLE kitaab_worker", "warn", "may replicate"),
    ],
)
def test_rights_that_jobs_do_not_need(
    doctor: Doctor, login: Callable[[str], str], rights: str, level: str, said: str
) -> None:
    doctor.set(database_url=login(rights))
    found = doctor.check("postgres.role.database")
    assert (found.level, said in found.what) == (level, True), found


def test_an_owner_of_one_table_is_told(own_doctor: Doctor, run_as_superuser: Run, database: Engine) -> None:
    """Whoever a table was given to may do to it as they like, row-level security or not."""
    run_as_superuser(database.url.database, "ALTER TABLE jobs.kinds OWNER TO kitaab_worker")
    found = own_doctor.check("postgres.role.database")
    assert (found.level, "owns jobs.kinds" in found.what) == ("fail", True)


def test_a_stranger_lacks_the_rights(doctor: Doctor, login: Callable[[str], str]) -> None:
    doctor.set(database_url=login(""))
    assert doctor.check("schema.grants").level == "fail"


def test_the_admin_must_be_able_to_migrate(doctor: Doctor, connection: Connection, url_for: UrlFor) -> None:
    doctor.set(admin_url=url_for("kitaab_worker", connection.engine.url.database or ""))
    found = doctor.check("postgres.role.admin")
    assert (found.level, "no member of kitaab_admin" in found.what) == ("fail", True)


def test_a_machine_without_an_admin_is_in_order(doctor: Doctor) -> None:
    doctor.settings = doctor.settings.model_copy(update={"admin_url": None})
    assert doctor.check("postgres.role.admin").level == "ok"


def test_each_unsafe_setting_is_told(own_doctor: Doctor, run_as_superuser: Run, database: Engine) -> None:
    for setting, value, level in (
        ("synchronous_commit", "off", "fail"),
        ("track_activities", "off", "warn"),
        ("track_counts", "off", "warn"),
        ("password_encryption", "md5", "warn"),
    ):
        run_as_superuser("postgres", f"ALTER DATABASE {database.url.database} SET {setting} = '{value}'")
        found = own_doctor.check(f"postgres.settings.{setting}")
        assert found.level == level
        assert found.what.startswith(f"{setting} is {value}: ")
        assert found.remedy


@pytest.mark.parametrize("setting", ["fsync", "full_page_writes"])
def test_a_server_that_trades_safety_for_speed_is_told(doctor: Doctor, setting: str) -> None:
    """As the cluster of the tests does."""
    found = doctor.check(f"postgres.settings.{setting}")
    assert (found.level, f"{setting} = on" in (found.remedy or "")) == ("fail", True)


def test_too_few_connections(own_doctor: Doctor, run_sql: Run, database: Engine) -> None:
    run_sql(f"ALTER DATABASE {database.url.database} CONNECTION LIMIT 30")
    found = own_doctor.check("postgres.connections")
    assert (found.level, "2 processes may open 40" in found.what) == ("warn", True)
    run_sql(f"ALTER DATABASE {database.url.database} CONNECTION LIMIT 19")
    found = own_doctor.check("postgres.connections")
    assert (found.level, "CONNECTION LIMIT of the database" in found.what) == ("fail", True)


def test_addresses_of_different_databases(doctor: Doctor, url_for: UrlFor) -> None:
    doctor.set(direct_url=url_for("kitaab_worker", "postgres"))
    found = doctor.check("postgres.same.direct")
    assert (found.level, "KITAAB_DIRECT_URL leads to 'postgres'" in found.what) == ("fail", True)


def test_a_replica_that_is_none(doctor: Doctor) -> None:
    doctor.set(replica_url=doctor.settings.database)
    assert doctor.check("postgres.replica").level == "warn"
    assert doctor.check("postgres.same.replica").level == "ok"


@pytest.mark.parametrize(("seconds", "level"), [(0, "ok"), (-10, "warn"), (10, "warn"), (120, "fail")])
@pytest.mark.parametrize("server", ["postgres", "redis"])
def test_a_clock_that_is_wrong(doctor: Doctor, server: str, seconds: int, level: str) -> None:
    doctor.now = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=seconds)
    found = doctor.check(f"time.{server}_clock")
    assert found.level == level, found
    if seconds:
        assert ("ahead of" if seconds > 0 else "behind") in found.what


def test_zones_are_compared_with_the_servers_copy(doctor: Doctor) -> None:
    """The wheel's copy is older than pytz's, or it agrees; what is missing or wrong is named."""
    found = doctor.check("time.zone_data")
    assert found.level in ("ok", "warn")
    assert "could not be checked" not in found.what


def test_unknown_zones_are_named(own_doctor: Doctor, run_sql: Run) -> None:
    run_sql(
        "INSERT INTO users (email, password_hash, full_name, timezone) VALUES ('a@b', 'x', 'A', 'Asia/Karachi')"
    )
    assert own_doctor.check("time.stored_zones").level == "ok"
    for table, statement in {
        "users": "UPDATE users SET timezone = 'Mars/Olympus'",
        "notifications": "INSERT INTO notifications (user_id, notification_time, timezone)"
        " SELECT user_id, '08:00', 'asia/karachi' FROM users",
        "jobs.schedules": "INSERT INTO jobs.schedules (name, job, line, zone, source)"
        " VALUES ('x', 'progress.refresh', '@daily', 'Factory', 'live')",
    }.items():
        run_sql(statement)
        found = own_doctor.check("time.stored_zones")
        assert (found.level, f" in 1 of {table}" in found.what) == ("warn", True), found
    for name in ("'Mars/Olympus' in 1 of users", "'asia/karachi'", "'Factory'", "count as UTC"):
        assert name in found.what


def test_schedules_that_are_overdue_or_paused_by_beat(own_doctor: Doctor, run_sql: Run) -> None:
    add = "INSERT INTO jobs.schedules (name, job, line, source, next_fire_at, paused_at, paused_by, paused_note) VALUES "
    run_sql(f"{add} ('soon', 'j', '@daily', 'live', now() - interval '50 s', NULL, NULL, NULL)")
    run_sql(f"{add} ('holiday', 'j', '@daily', 'live', now() + interval '1 h', now(), 'amira', 'holiday')")
    assert own_doctor.check("processes.schedules").level == "ok"
    run_sql(
        f"{add} ('fails', 'j', '@daily', 'live', now() + interval '1 h', now(), 'beat', '3 runs in a row ended dead')"
    )
    found = own_doctor.check("processes.schedules")
    assert (found.level, "fails (3 runs in a row ended dead)" in found.what) == ("warn", True)
    assert "holiday" not in found.what
    run_sql(f"{add} ('late', 'j', '@daily', 'live', now() - interval '61 s', NULL, NULL, NULL)")
    found = own_doctor.check("processes.schedules")
    assert (found.level, found.what) == ("warn", "overdue for more than 60 s: late")


def test_beats_with_different_timetables(own_doctor: Doctor, run_sql: Run) -> None:
    add = "INSERT INTO jobs.processes (name, kind, version, timetable) VALUES"
    assert own_doctor.check("processes.timetables").what == "no beat runs"
    run_sql(f"{add} ('beat@a', 'beat', '1', 'old'), ('beat@b', 'beat', '1', 'old')")
    assert own_doctor.check("processes.timetables").level == "ok"
    run_sql(f"{add} ('beat@c', 'beat', '1', 'new')")
    found = own_doctor.check("processes.timetables")
    assert found.level == "warn"
    assert "2 versions of beat_schedule.py: beat@a, beat@b and beat@c" in found.what
    run_sql("UPDATE jobs.processes SET seen_at = now() - interval '31 seconds' WHERE timetable = 'old'")
    assert own_doctor.check("processes.timetables").level == "ok"


def test_processes_that_run_and_that_do_not(own_doctor: Doctor, run_sql: Run) -> None:
    for kind in ("worker", "beat", "relay"):
        found = own_doctor.check(f"processes.{kind}")
        assert (found.level, "celery -A kitaab_jobs" in (found.remedy or "")) == ("warn", True)
        run_sql(f"INSERT INTO jobs.processes (name, kind, version) VALUES ('{kind}@here', '{kind}', '0.0.1')")
        assert own_doctor.check(f"processes.{kind}").level == "ok"
    found = own_doctor.check("processes.versions")
    assert (found.level, "worker@here runs 0.0.1" in found.what) == ("warn", True)
    run_sql("UPDATE jobs.processes SET seen_at = now() - interval '31 seconds'")
    found = own_doctor.check("processes.worker")
    assert (found.level, "the last was seen 31 s ago" in found.what) == ("warn", True)
    assert own_doctor.check("processes.versions").what == "no process runs"

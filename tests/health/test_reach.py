"""Servers that cannot be reached, and servers that hang."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import nullcontext

import pytest
from redis import Redis
from sqlalchemy import Connection, Engine

from kitaab_jobs.devstack.ports import free_port
from kitaab_jobs.devstack.redis import EmbeddedRedis
from kitaab_jobs.errors import SettingsError
from kitaab_jobs.health import sources
from kitaab_jobs.health.checks import DATABASE, REDIS
from kitaab_jobs.health.probes import Check, Probe, run
from kitaab_jobs.health.rules import Finding, Verdict, ok
from kitaab_jobs.health.sources import Database
from tests.health.conftest import Doctor, silent_port, stopped

Run = Callable[..., None]
SECRET = "hunter2-hunter2"


def failures(found: dict[str, Finding]) -> dict[str, Finding]:
    """Return those that failed because a server cannot be used."""
    return {name: f for name, f in found.items() if f.level == "fail" and "reachable" in name}


def at_port(url: str, port: int) -> str:
    """Return the address with another port."""
    head, _, tail = url.rpartition(":")
    return f"{head}:{port}/{tail.partition('/')[2]}"


def test_all_addresses_answer(doctor: Doctor) -> None:
    found = doctor.examine()
    assert failures(found) == {}
    assert [f for f in found.values() if f.level == "skip"] == []
    assert "KITAAB_ADMIN_URL" in found["postgres.reachable.admin"].what
    # Neither twice nor not at all, whatever a server takes.
    assert {*(check.name for check in DATABASE), *(check.name for check in REDIS)} <= found.keys()


def test_a_closed_port_is_one_finding(doctor: Doctor) -> None:
    port = free_port()
    doctor.set(
        database_url=at_port(doctor.settings.database, port), admin_url=at_port(doctor.settings.admin, port)
    )
    doctor.environ = {"KITAAB_DATABASE_URL": "set", "KITAAB_ADMIN_URL": "set"}
    found = doctor.examine()
    assert failures(found).keys() == {"postgres.reachable.database"}
    told = found["postgres.reachable.database"]
    assert f"127.0.0.1:{port}" in told.what
    assert "KITAAB_DATABASE_URL, KITAAB_ADMIN_URL" in told.what
    assert "Connection refused" in told.what
    assert told.remedy == "start the server, or correct KITAAB_DATABASE_URL"
    assert found["postgres.reachable.admin"].what == "the same as postgres.reachable.database"
    for check in DATABASE:
        assert (found[check.name].level, found[check.name].what) == ("skip", "PostgreSQL cannot be reached")
    assert found["redis.version"].level == "ok"


def test_an_embedded_server_that_is_gone(doctor: Doctor) -> None:
    doctor.set(database_url=at_port(doctor.settings.database, free_port()))
    assert "kitaab-jobs up" in (doctor.examine()["postgres.reachable.database"].remedy or "")


def test_a_closed_port_of_redis(doctor: Doctor) -> None:
    doctor.set(redis_url=f"redis://:{SECRET}@127.0.0.1:{free_port()}/0")
    found = doctor.examine()
    assert failures(found).keys() == {"redis.reachable"}
    assert all(found[check.name].level == "skip" for check in REDIS)
    assert found["postgres.version"].level == "ok"


@pytest.mark.parametrize(
    ("change", "reason", "remedy"),
    [
        ({"password": SECRET}, "password authentication failed", "correct the user and the password"),
        ({"username": "nobody_here"}, "password authentication failed", "correct the user"),
        ({"database": "nowhere"}, 'database "nowhere" does not exist', "create the database"),
        ({"host": "no-such-host.invalid"}, "resolve", "correct the host"),
    ],
)
def test_a_wrong_address(
    doctor: Doctor, connection: Connection, change: dict[str, str], reason: str, remedy: str
) -> None:
    url = connection.engine.url.set(drivername="postgresql", **change)  # type: ignore[arg-type]
    doctor.set(database_url=url.render_as_string(hide_password=False))
    told = doctor.examine()["postgres.reachable.database"]
    assert told.level == "fail"
    assert reason in told.what
    assert remedy in (told.remedy or "")


def test_a_wrong_password_of_redis(doctor: Doctor, redis_url: str) -> None:
    port = redis_url.rpartition(":")[2].partition("/")[0]
    doctor.set(redis_url=f"redis://:{SECRET}@127.0.0.1:{port}/0")
    told = doctor.examine()["redis.reachable"]
    assert (told.level, "password" in (told.remedy or "")) == ("fail", True)
    assert SECRET not in str(told)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for two seconds where it is usually five: the shortest that libpq knows."""
    monkeypatch.setattr(sources, "CONNECT_SECONDS", 2)


def test_ports_that_never_answer(doctor: Doctor, impatient: None) -> None:
    with silent_port() as port:
        doctor.set(
            database_url=at_port(doctor.settings.database, port), redis_url=f"redis://127.0.0.1:{port}/0"
        )
        found = doctor.examine(deadline=60)
    assert failures(found).keys() == {"postgres.reachable.database", "redis.reachable"}
    for told in failures(found).values():
        assert "firewall" in (told.remedy or ""), told


def test_a_server_that_is_stopped(
    doctor: Doctor, broker: Redis, own_redis: EmbeddedRedis, impatient: None
) -> None:
    with stopped(own_redis.pid or 0):
        told = doctor.examine(deadline=60)["redis.reachable"]
    assert (told.level, "firewall" in (told.remedy or "")) == ("fail", True)
    assert doctor.examine()["redis.reachable"].level == "ok"


def test_a_check_that_hangs_ends_with_the_deadline() -> None:
    over, ended = threading.Event(), threading.Event()

    def hang(_: None) -> Verdict:
        over.wait(60)
        ended.set()
        return ok("at last")

    probe = Probe(
        "it",
        lambda: nullcontext(None),
        [
            Check("a.first", lambda _: ok("fine")),
            Check("a.hangs", hang),
            Check("a.last", lambda _: ok("fine")),
        ],
        lost=lambda _: False,
        reason=str,
    )
    run([probe], 2)
    assert not ended.is_set()
    over.set()
    assert probe.failure == "it does not answer"
    levels = [(f.check, f.level, f.what) for f in probe.complete()]
    assert levels == [
        ("a.first", "ok", "fine"),
        ("a.hangs", "skip", "it was lost"),
        ("a.last", "skip", "it was lost"),
    ]


def test_a_connection_that_is_lost_on_the_way(
    own_doctor: Doctor, database: Engine, run_as_superuser: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(_: Database) -> Verdict:
        run_as_superuser(
            "postgres",
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            f" WHERE datname = '{database.url.database}' AND application_name = 'kitaab-jobs doctor'",
        )
        return ok("cut")

    first, *others = DATABASE
    monkeypatch.setattr("kitaab_jobs.health.checks.DATABASE", (first, Check("postgres.cut", cut), *others))
    found = own_doctor.examine()
    assert "was lost" in found["postgres.reachable.database"].what
    assert found["postgres.version"].level == "ok"
    assert (found["schema.kinds"].level, found["schema.kinds"].what) == ("skip", "PostgreSQL was lost")


def test_nothing_is_set(doctor: Doctor) -> None:
    doctor.settings = type(doctor.settings).load({}, data_dir=doctor.settings.data_dir)
    found = doctor.examine()
    for name, server in (("postgres.reachable.database", "DATABASE"), ("redis.reachable", "REDIS")):
        assert found[name].level == "fail"
        assert f"KITAAB_{server}_URL is not set" in found[name].what
        assert "kitaab-jobs up" in (found[name].remedy or "")
    assert found["schema.kinds"].level == "skip"


def test_settings_that_cannot_be_read(doctor: Doctor) -> None:
    doctor.settings = SettingsError("KITAAB_REDIS_URL: http://x is no address")  # type: ignore[assignment]
    found = doctor.examine()
    assert found["settings.readable"].level == "fail"
    assert found["schema.kinds"].level == "skip"
    assert found["settings.versions.celery"].level == "ok"

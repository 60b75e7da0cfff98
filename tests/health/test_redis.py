"""The broker: what would lose messages, refuse them, or let anyone in."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from redis import Redis

from kitaab_jobs.devstack.redis import EmbeddedRedis
from kitaab_jobs.health.checks import REDIS
from tests.health.conftest import Doctor


def test_the_usual_server_is_in_order(doctor: Doctor) -> None:
    found = [doctor.check(check.name) for check in REDIS]
    assert len(found) > 5
    assert [one for one in found if one.level != "ok"] == []


@pytest.mark.parametrize(
    ("setting", "value", "level"),
    [
        ("maxmemory-policy", "allkeys-lru", "fail"),
        ("appendonly", "no", "fail"),
        ("protected-mode", "no", "warn"),
    ],
)
def test_an_unsafe_setting_is_told(
    doctor: Doctor, broker: Redis, setting: str, value: str, level: str
) -> None:
    broker.config_set(setting, value)
    found = doctor.check(f"redis.settings.{setting}")
    assert found.level == level
    assert f"CONFIG SET {setting}" in (found.remedy or "")


@pytest.mark.parametrize(("share", "level"), [(0.5, "ok"), (0.85, "warn"), (0.99, "fail")])
def test_memory_that_runs_out(doctor: Doctor, broker: Redis, share: float, level: str) -> None:
    used = int(broker.info("memory")["used_memory"])
    broker.config_set("maxmemory", int(used / share))
    assert doctor.check("redis.memory").level == level


def test_a_replica_refuses_writes(doctor: Doctor, broker: Redis) -> None:
    broker.replicaof("127.0.0.1", 1)
    try:
        assert doctor.check("redis.role").level == "fail"
    finally:
        broker.replicaof("NO", "ONE")


def test_a_server_without_a_password(doctor: Doctor, broker: Redis, own_redis: EmbeddedRedis) -> None:
    password = urlsplit(own_redis.url()).password or ""
    broker.config_set("requirepass", "")
    try:
        found = doctor.check("redis.password")
        assert (found.level, "this machine only" in found.what) == ("ok", True)
        broker.config_set("bind", "127.0.0.1 127.0.0.2")  # not only what every machine calls itself
        found = doctor.check("redis.password")
        assert (found.level, "protected-mode" in found.what) == ("warn", True)
        broker.config_set("protected-mode", "no")
        found = doctor.check("redis.password")
        assert (found.level, "requirepass" in (found.remedy or "")) == ("fail", True)
    finally:
        broker.config_set("bind", "127.0.0.1")
        broker.config_set("requirepass", password)
    assert doctor.check("redis.password").level == "ok"


def test_a_server_that_hides_its_settings(doctor: Doctor, broker: Redis, own_redis: EmbeddedRedis) -> None:
    broker.acl_setuser("plain", enabled=True, passwords=["+pw"], commands=["+@all", "-config"], keys=["*"])
    doctor.set(redis_url=f"redis://plain:pw@127.0.0.1:{own_redis.port}/0")
    try:
        found = doctor.check("redis.settings.protected-mode")
        assert (found.level, "CONFIG cannot be used" in found.what) == ("skip", True)
        assert doctor.check("redis.settings.maxmemory-policy").level == "ok"
        assert doctor.check("redis.settings.appendonly").level == "ok"
        assert doctor.check("redis.password").level == "ok"
    finally:
        broker.acl_deluser("plain")

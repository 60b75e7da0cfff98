"""Decisions, without a server: the bounds, and what no test server can be made to be."""

from __future__ import annotations

import datetime as dt

import pytest

from kitaab_jobs.health import zones
from kitaab_jobs.health.addresses import is_local, reason, remedy, shown
from kitaab_jobs.health.facts import (
    Connections,
    Disk,
    Package,
    Partition,
    Place,
    RedisDoor,
    RedisServer,
    Replica,
    Role,
    Wire,
    ZoneData,
)
from kitaab_jobs.health.rules import clock, machine, postgres, redis, schema
from kitaab_jobs.health.rules.limits import Limit
from kitaab_jobs.timing import zone_names

TODAY = dt.date(2026, 3, 1)


@pytest.mark.parametrize(("value", "level"), [(2, "ok"), (2.1, "warn"), (30, "warn"), (30.1, "fail")])
def test_a_limit_upwards(value: float, level: str) -> None:
    assert Limit(2, 30).level(value) == level


@pytest.mark.parametrize(("value", "level"), [(60, "ok"), (59, "warn"), (7, "warn"), (6, "fail")])
def test_a_limit_downwards(value: float, level: str) -> None:
    assert Limit(60, 7).level(value) == level


@pytest.mark.parametrize(
    ("installed", "fits", "level"), [("5.7.0", True, "ok"), ("5.6.0", False, "fail"), (None, False, "fail")]
)
def test_packages(installed: str | None, fits: bool, level: str) -> None:
    assert machine.package(Package("celery", installed, ">=5.7,<5.8", fits)).level == level


@pytest.mark.parametrize(("free", "level"), [(3 << 30, "ok"), (1 << 30, "warn"), (1 << 20, "fail")])
def test_disk(free: int, level: str) -> None:
    assert machine.disk(Disk("/data", free, 10 << 30)).level == level


def test_shared_memory() -> None:
    assert machine.shared_memory(None).level == "ok"
    assert machine.shared_memory("[Errno 13] Permission denied").level == "fail"


@pytest.mark.parametrize(
    ("number", "level"), [(140011, "fail"), (150002, "ok"), (180006, "ok"), (190000, "warn")]
)
def test_versions_of_postgresql(number: int, level: str) -> None:
    assert postgres.version(number, 15, 18).level == level


@pytest.mark.parametrize(
    ("version", "level", "recommended"),
    [("5.0.14", "fail", True), ("6.2.14", "ok", True), ("7.0.15", "ok", True), ("7.2.4", "ok", False)],
)
def test_versions_of_redis(version: str, level: str, recommended: bool) -> None:
    found = redis.version(redis_like("Redis", version))
    assert found.level == level
    assert ("Valkey 8" in f"{found.what} {found.remedy}") is recommended


def redis_like(name: str, version: str) -> RedisServer:
    return RedisServer(name, version, version, "master", False, "noeviction", True, True, 10, 0)


@pytest.mark.parametrize(
    ("local", "encrypted", "level"), [(True, False, "ok"), (False, True, "ok"), (False, False, "warn")]
)
def test_encryption(local: bool, encrypted: bool, level: str) -> None:
    assert postgres.encryption(Wire("x", local, encrypted)).level == level


@pytest.mark.parametrize(
    ("host", "local"),
    [("localhost", True), ("127.0.0.9", True), ("::1", True), ("/run/postgresql", True), (None, True),
     ("10.0.0.1", False), ("db.example.org", False)],
)  # fmt: skip
def test_what_is_local(host: str | None, local: bool) -> None:
    assert is_local(host) is local


def role(name: str, **rights: bool) -> Role:
    flags = dict.fromkeys(
        ("superuser", "bypasses_rls", "creates_roles", "creates_databases", "replicates", "is_admin"), False
    )
    return Role(name, owns=None, **{**flags, **rights})


def test_roles() -> None:
    there = [role(name, is_admin=name == "kitaab_admin") for name in postgres.ROLES]
    assert postgres.roles(there).level == "ok"
    assert "kitaab_worker" in postgres.roles(there[:3]).what
    for right in ("superuser", "bypasses_rls", "is_admin"):
        spoiled = [*there[:1], role("kitaab_app", **{right: True}), *there[2:]]
        found = postgres.roles(spoiled)
        assert (found.level, "does not bind kitaab_app" in found.what) == ("fail", True)


def test_poolers() -> None:
    assert postgres.pooler(7, 7, direct=True).level == "ok"
    assert postgres.pooler(7, 8, direct=False).level == "ok"
    assert postgres.pooler(7, 8, direct=True).level == "warn"


def test_places() -> None:
    here = Place(1, "kitaab")
    assert postgres.same_place("KITAAB_ADMIN_URL", here, here).level == "ok"
    assert postgres.same_place("KITAAB_ADMIN_URL", Place(2, "kitaab"), here).level == "fail"
    assert postgres.same_place("KITAAB_ADMIN_URL", Place(1, "other"), here).level == "fail"


@pytest.mark.parametrize(
    ("used", "limit", "processes", "level"),
    [(10, 100, 0, "ok"), (85, 100, 0, "warn"), (96, 100, 0, "fail"), (1, 100, 6, "warn"), (1, 10, 0, "fail")],
)
def test_connections(used: int, limit: int, processes: int, level: str) -> None:
    assert postgres.connections(Connections(limit, "max_connections", used), 20, processes).level == level


@pytest.mark.parametrize(
    ("facts", "level"),
    [
        ((True, True, True, 5000.0), "ok"),  # an idle primary: old, and complete
        ((True, True, False, 3.0), "ok"),
        ((True, False, False, 3.0), "warn"),
        ((True, True, False, 61.0), "warn"),
        ((True, True, False, 901.0), "fail"),
        ((True, True, False, None), "warn"),
        ((False, False, True, None), "warn"),
    ],
)
def test_replicas(facts: tuple[bool, bool, bool, float | None], level: str) -> None:
    assert postgres.replica(Replica(*facts)).level == level


def part(low: dt.date | None, high: dt.date | None, *, pending: bool = False, table: str = "t") -> Partition:
    return Partition(table, "t_x", low, high, pending)


def day(number: int) -> dt.date:
    return TODAY + dt.timedelta(days=number)


@pytest.mark.parametrize(
    ("parts", "level"),
    [
        ([part(day(-50), day(60))], "ok"),
        ([part(day(-50), day(59))], "warn"),
        ([part(day(20), day(90)), part(day(-50), day(20))], "ok"),
        ([part(day(-50), day(20)), part(day(21), day(90))], "warn"),
        ([part(day(-50), day(6))], "fail"),
        ([part(day(1), day(90))], "fail"),  # today is missing
        ([part(day(0), day(90))], "fail"),  # it is still yesterday somewhere
        ([part(day(-50), day(60), pending=True)], "fail"),
        ([part(None, None)], "fail"),
        ([part(day(-50), day(90), table="other")], "fail"),
        ([], "fail"),
    ],
)
def test_partitions(parts: list[Partition], level: str) -> None:
    found = schema.partitions(["t"], parts, TODAY, 400)
    assert found.level == level, found


def test_no_more_partitions_are_asked_for_than_are_made() -> None:
    assert schema.partitions(["t"], [part(day(-9), day(31))], TODAY, 31).level == "ok"
    assert schema.partitions(["t"], [part(day(-9), day(30))], TODAY, 31).level == "warn"


def test_the_first_day_without_a_partition_is_told() -> None:
    assert f"t from {day(59)} on" in schema.partitions(["t"], [part(day(-9), day(59))], TODAY, 400).what
    assert f"t from {TODAY} on" in schema.partitions(["t"], [], TODAY, 400).what


@pytest.mark.parametrize(
    ("versions", "level"),
    [
        ({"pytz": "2026f", "tzdata": "2026f", "system": "2025b"}, "ok"),
        ({"pytz": "2026a", "system": "unknown"}, "ok"),
        ({"pytz": "2025b", "system": "2026a"}, "warn"),
        ({"pytz": "2024b", "system": "2024a"}, "warn"),
    ],
)
def test_zone_versions(versions: dict[str, str], level: str) -> None:
    assert clock.zone_versions(versions, TODAY).level == level


def test_an_uncertain_clock_is_not_blamed() -> None:
    assert clock.difference("Redis", 3.0, 2.0).level == "ok"
    assert clock.difference("Redis", 3.0, 0.5).level == "warn"


def test_zones_that_another_copy_has_wrong() -> None:
    now = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
    asked = zones.samples(now)
    assert asked.keys() == zone_names()
    told = {name: list(zones._ours(name, instants)) for name, instants in asked.items()}
    assert zones.compare(asked, told) == ZoneData(len(asked))
    assert clock.zone_data(zones.compare(asked, told)).level == "ok"
    told["Asia/Karachi"][-1] += 3600
    del told["Africa/Cairo"]
    found = zones.compare(asked, told)
    assert (found.unknown, found.different) == (["Africa/Cairo"], ["Asia/Karachi"])
    verdict = clock.zone_data(found)
    assert verdict.level == "warn"
    assert "Asia/Karachi" in verdict.what
    assert "Africa/Cairo" in verdict.what


def test_both_sides_of_a_change_are_asked_about() -> None:
    instants = zones.samples(dt.datetime(2026, 3, 1, tzinfo=dt.UTC))["Europe/Paris"]
    spring = dt.datetime(2026, 3, 29, 1, tzinfo=dt.UTC)
    assert {spring, spring - dt.timedelta(seconds=1)} <= set(instants)


NETWORK = {"bind": "* -::*", "port": "6379", "protected-mode": "no"}


@pytest.mark.parametrize(
    ("door", "level"),
    [
        (RedisDoor(False, False, None, "forbidden"), "ok"),
        (RedisDoor(True, True, None, "forbidden"), "warn"),
        (RedisDoor(True, False, None, "forbidden"), "fail"),
        (RedisDoor(True, True, {**NETWORK, "bind": "127.0.0.1 -::1"}), "ok"),
        (RedisDoor(True, True, {**NETWORK, "port": "0"}), "ok"),
        (RedisDoor(True, True, {**NETWORK, "protected-mode": "yes"}), "warn"),
        (RedisDoor(True, True, NETWORK), "fail"),
        (RedisDoor(True, True, {**NETWORK, "bind": ""}), "fail"),
        (RedisDoor(True, False, {**NETWORK, "protected-mode": "yes"}), "fail"),
    ],
)
def test_who_gets_into_redis(door: RedisDoor, level: str) -> None:
    assert redis.password(door).level == level


def test_a_cluster_and_a_full_disk() -> None:
    cluster = RedisServer("Redis", "7.2.0", "7.2.0", "master", True, "noeviction", True, True, 1, 0)
    assert redis.role(cluster).level == "fail"
    broken = RedisServer("Redis", "7.2.0", "7.2.0", "master", False, "", True, False, 1, 0)
    assert redis.writes_to_disk(broken).level == "fail"
    assert redis.eviction(broken).level == "skip"


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("postgresql://u:s3cret@h:5432/db", "postgresql://u@h:5432/db"),
        ("postgresql+psycopg://u:s3cret@h/db?sslmode=require", "postgresql://u@h/db"),
        ("postgresql://h/db?password=s3cret", "postgresql://h/db"),
        ("redis://:s3cret@h:6379/1", "redis://h:6379/1"),
        ("unix:///run/redis.sock?password=s3cret", "unix:///run/redis.sock"),
        ("redis://:s3cret@h:port/1", "redis://..."),
    ],
)
def test_addresses_are_shown_without_passwords(url: str, text: str) -> None:
    assert shown(url) == text


@pytest.mark.parametrize("url", ["postgresql://u:s3%40cret@h/db", "postgresql://h/db?password=s3%40cret"])
def test_reasons_hold_no_password(url: str) -> None:
    assert "cret" not in reason(ValueError("bad password s3@cret, or s3%40cret?"), url)


def test_every_remedy_names_the_variable_where_it_can() -> None:
    assert remedy("Connection refused", "KITAAB_REDIS_URL") == "start the server, or correct KITAAB_REDIS_URL"
    assert "kitaab-jobs up" in remedy("Connection refused", "KITAAB_REDIS_URL", embedded=True)
    assert remedy("something new", "KITAAB_REDIS_URL").startswith("correct KITAAB_REDIS_URL")

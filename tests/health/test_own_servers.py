"""A cluster that is set up as it should be, its replica, and what happens when it hangs."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import psycopg
import pytest

from kitaab_jobs.db import migrate
from kitaab_jobs.devstack.postgres import EmbeddedPostgres
from kitaab_jobs.health import checks, sources
from kitaab_jobs.settings import Settings
from tests.devstack.folders import make_folder
from tests.health.conftest import Doctor, stopped


class Pair(NamedTuple):
    """A primary and its replica."""

    primary: EmbeddedPostgres
    replica: EmbeddedPostgres


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    """A safe cluster with a migrated database, and a streaming replica of it."""
    folder = make_folder()
    # Made without syncing, which takes long, and then run as safely as people's own.
    safe = {"fsync": "on", "full_page_writes": "on", "synchronous_commit": "on"}
    with EmbeddedPostgres(folder / "primary", durable=False, options=safe) as primary:
        primary.provision()
        migrate.upgrade(primary.url("kitaab_admin", "kitaab"))
        replica = EmbeddedPostgres(folder / "replica", durable=False)
        copy(primary, replica.folder)
        with replica:
            yield Pair(primary, replica)
    shutil.rmtree(folder, ignore_errors=True)


def copy(primary: EmbeddedPostgres, to: Path) -> None:
    """Make the data folder of a replica, owned by whoever runs the servers."""
    to.mkdir(mode=0o711)
    shutil.copy(primary.secrets.path, to / "secrets.json")
    (to / "data").mkdir(mode=0o700)
    if primary.account:
        primary.account.own(to / "data")
    subprocess.run(
        [
            primary.bin / "pg_basebackup",
            "-D",
            to / "data",
            "-R",
            "-N",
            "-c",
            "fast",
            "-d",
            primary.superuser_url,
        ],
        user=primary.account.uid if primary.account else None,
        group=primary.account.gid if primary.account else None,
        cwd="/",
        stdin=subprocess.DEVNULL,
        check=True,
    )


@pytest.fixture
def cluster_doctor(pair: Pair, redis_url: str, tmp_path: Path) -> Doctor:
    """The doctor of that cluster."""
    return Doctor(
        Settings.load(
            {},
            data_dir=tmp_path,
            database_url=pair.primary.url("kitaab_worker", "kitaab"),
            admin_url=pair.primary.url("kitaab_admin", "kitaab"),
            replica_url=pair.replica.url("kitaab_worker", "kitaab"),
            redis_url=redis_url,
        )
    )


def test_nothing_fails_where_all_is_in_order(cluster_doctor: Doctor) -> None:
    found = cluster_doctor.examine()
    assert [one for one in found.values() if one.level in ("fail", "skip")] == []
    warned = {one.check for one in found.values() if one.level == "warn"}
    nobody_runs = {"processes.worker", "processes.beat", "processes.relay"}
    zones = {"time.zone_data", "time.zone_versions"}  # as old as the copies that are installed
    no_mail_server = {"channels.email"}
    assert nobody_runs | no_mail_server <= warned <= nobody_runs | no_mail_server | zones


def test_a_replica_that_stops_replaying(
    pair: Pair, cluster_doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "CATCH_UP_SECONDS", 0.2)
    with (
        psycopg.connect(pair.primary.url(), autocommit=True) as primary,
        psycopg.connect(pair.replica.url(), autocommit=True) as replica,
    ):
        primary.execute("CREATE TABLE one ()")
        _until(lambda: cluster_doctor.check("postgres.replica").what == "the replica has everything")
        replica.execute("SELECT pg_wal_replay_pause()")
        primary.execute("CREATE TABLE two ()")
        monkeypatch.setattr("kitaab_jobs.health.rules.postgres.REPLICA_BEHIND_SECONDS", _Limit())
        found = cluster_doctor.check("postgres.replica")
        assert (found.level, " s behind" in found.what) == ("warn", True)
        replica.execute("SELECT pg_wal_replay_resume()")
        _until(lambda: cluster_doctor.check("postgres.replica").level == "ok")


class _Limit:
    """A limit that everything is beyond, so that nobody has to wait for a minute."""

    def level(self, value: float) -> str:
        assert 0 <= value < 60
        return "warn"


def _until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_an_address_of_another_server(cluster_doctor: Doctor, addresses: dict[str, str]) -> None:
    cluster_doctor.set(direct_url=addresses["kitaab_worker"].replace("{database}", "postgres"))
    found = cluster_doctor.check("postgres.same.direct")
    assert (found.level, "KITAAB_DIRECT_URL leads to another server" in found.what) == ("fail", True)


def test_a_server_that_hangs_is_one_finding(
    pair: Pair, cluster_doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "CONNECT_SECONDS", 2)
    with stopped(pair.primary.pid or 0):
        found = cluster_doctor.examine(deadline=9)
    failed = [one.check for one in found.values() if one.level == "fail"]
    assert failed == ["postgres.reachable.database"]
    assert "firewall" in (found["postgres.reachable.database"].remedy or "")
    assert found["postgres.reachable.admin"].what == "the same as postgres.reachable.database"
    assert found["postgres.reachable.replica"].level == "ok"
    assert found["postgres.same.replica"].level == "skip"
    assert found["redis.version"].level == "ok"

"""One embedded Redis."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import AuthenticationError

from kitaab_jobs.devstack.redis import ONCE, EmbeddedRedis
from kitaab_jobs.errors import AlreadyRunning, StackError
from tests.devstack.observe import family, is_gone, wait_for


@pytest.fixture
def redis(folder: Path) -> Iterator[EmbeddedRedis]:
    """Give a server that runs."""
    with EmbeddedRedis(folder) as server:
        yield server


def test_it_keeps_data_password_and_port_over_a_restart(redis: EmbeddedRedis) -> None:
    url = redis.url()
    with Redis.from_url(url) as client:
        client.set("kept", "42")
    redis.stop()
    redis.start()
    assert redis.url() == url
    with Redis.from_url(url) as client:
        assert client.get("kept") == b"42"


def test_it_is_a_safe_broker(redis: EmbeddedRedis) -> None:
    wanted = {
        "maxmemory-policy": "noeviction",
        "appendonly": "yes",
        "bind": "127.0.0.1",
        "protected-mode": "yes",
    }
    with Redis.from_url(redis.url(), decode_responses=True) as client:
        assert {name: client.config_get(name)[name] for name in wanted} == wanted
    with Redis(port=redis.port, retry=ONCE) as client, pytest.raises(AuthenticationError):
        client.ping()


def test_a_server_killed_with_9_loses_nothing_that_was_written_out(redis: EmbeddedRedis) -> None:
    with Redis.from_url(redis.url()) as client:
        client.set("kept", "42")
        wait_for(lambda: int(client.info("persistence")["aof_pending_bio_fsync"]) == 0)
    assert redis.pid is not None
    os.kill(redis.pid, 9)
    redis.restart()
    with Redis.from_url(redis.url()) as client:
        assert client.get("kept") == b"42"


def test_stop_ends_the_process(redis: EmbeddedRedis) -> None:
    pid = redis.pid
    redis.stop()
    redis.stop()
    assert pid is not None
    assert is_gone(pid)


def test_the_password_is_in_no_argument_environment_or_log(redis: EmbeddedRedis) -> None:
    assert redis.pid is not None
    secrets = json.loads(redis.secrets.path.read_text())
    assert redis.secrets.path.stat().st_mode & 0o077 == 0
    seen = redis.log.read_text()
    for process in family(redis.pid):
        seen += " ".join(process.cmdline()) + " ".join(process.environ().values())
    assert [name for name, password in secrets.items() if password in seen] == []


def test_a_second_one_on_the_folder_is_told_where_the_first_is(redis: EmbeddedRedis) -> None:
    with pytest.raises(AlreadyRunning, match=rf"pid {os.getpid()}: Redis on 127.0.0.1:{redis.port}"):
        EmbeddedRedis(redis.folder).start()


def test_a_port_that_is_insisted_on_and_in_use(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StackError, match=f"port {port} of 127.0.0.1 is in use, so Redis cannot"):
            EmbeddedRedis(folder, port=port).start()


def test_a_wrong_program(folder: Path) -> None:
    with pytest.raises(StackError, match=r"nowhere does not exist: name a redis-server or valkey-server"):
        EmbeddedRedis(folder, program=folder / "nowhere").start()


def test_a_damaged_append_only_file_is_named(redis: EmbeddedRedis) -> None:
    redis.stop()
    for path in redis.data.rglob("*.manifest"):
        path.write_text("what is this?\n")
    with pytest.raises(
        StackError,
        match=r"Redis did not start on .*AOF MANIFEST FILE ERROR.*Invalid AOF manifest",
    ):
        redis.start()


def test_a_folder_with_an_odd_name(folder: Path) -> None:
    with EmbeddedRedis(folder / "a \"b\\ %s $x 'كتاب' #;") as server, Redis.from_url(server.url()) as client:
        assert client.ping()

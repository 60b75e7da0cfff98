"""The stack: which servers it runs, what it writes, and what it refuses."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from subprocess import Popen

import psycopg
import pytest
from redis import Redis

from kitaab_jobs.devstack import named
from kitaab_jobs.devstack.postgres import EmbeddedPostgres
from kitaab_jobs.devstack.redis import EmbeddedRedis
from kitaab_jobs.devstack.stack import Stack
from kitaab_jobs.errors import AlreadyRunning, ServerError, SettingsError
from kitaab_jobs.settings import Settings

pytestmark = pytest.mark.usefixtures("no_servers")


def stack_on(folder: Path, **named_servers: str) -> Stack:
    """Return a stack as the command line makes one in an environment that names these servers."""
    for name, value in named_servers.items():
        os.environ[name] = value  # the fixture no_servers takes it back
    return Stack(Settings.load(data_dir=folder), durable=False)


@pytest.fixture
def redis(folder: Path) -> Iterator[EmbeddedRedis]:
    """Give a Redis that is none of the stack's."""
    with EmbeddedRedis(folder / "named-redis") as server:
        yield server


@pytest.fixture
def postgres(postgres_folder: Path, folder: Path) -> Iterator[EmbeddedPostgres]:
    """Give a PostgreSQL that is none of the stack's."""
    with EmbeddedPostgres(postgres_folder.rename(folder / "named-postgres"), durable=False) as server:
        yield server


@pytest.mark.usefixtures("postgres_folder")
def test_every_process_finds_the_servers_through_the_file(folder: Path) -> None:
    with stack_on(folder) as stack:
        file = folder / "stack.env"
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert stat.S_IMODE((folder / "pgpass").stat().st_mode) == 0o600
        elsewhere = Settings.load(data_dir=folder)
        for url, role in ((elsewhere.database, "kitaab_worker"), (elsewhere.admin, "kitaab_admin")):
            with closing(psycopg.connect(url)) as connection:
                assert connection.info.user == role
                assert connection.info.dbname == "kitaab"
        with Redis.from_url(elsewhere.redis) as client:
            assert client.ping()
        assert "***" in stack.addresses["PostgreSQL"]
        assert "***" in stack.addresses["Redis"]
    assert not file.exists()
    assert not (folder / "pgpass").exists()
    assert not any(server.running for server in stack.servers)


@pytest.mark.usefixtures("postgres_folder")
def test_the_psql_line_opens_psql(folder: Path) -> None:
    with stack_on(folder) as stack:
        with os.popen(f"{stack.psql} -Atc 'SELECT current_user'") as shell:
            assert shell.read() == "kitaab_admin\n"
        assert stack.postgres is not None
        assert stack.postgres.secrets["kitaab_admin"] not in stack.psql


@pytest.mark.usefixtures("postgres_folder")
def test_a_second_one_is_refused_with_the_addresses(folder: Path) -> None:
    with stack_on(folder) as first:
        assert first.postgres is not None
        assert first.redis is not None
        where = f"PostgreSQL on 127.0.0.1:{first.postgres.port}, Redis on 127.0.0.1:{first.redis.port}"
        with pytest.raises(AlreadyRunning, match=f"in use by pid {os.getpid()}: {where}: use that one"):
            stack_on(folder).start()
        assert (folder / "stack.env").exists()
        assert first.postgres.running
    stack_on(folder).stop()


@pytest.mark.usefixtures("postgres_folder")
def test_it_starts_again_on_the_same_ports(folder: Path) -> None:
    with stack_on(folder) as stack:
        before = stack.addresses
    with stack_on(folder) as stack:
        assert stack.addresses == before


def test_servers_of_the_environment_are_used_and_none_is_started(
    folder: Path, postgres: EmbeddedPostgres, redis: EmbeddedRedis
) -> None:
    url = postgres.url("kitaab_worker", "kitaab")
    with stack_on(folder, KITAAB_DATABASE_URL=url, KITAAB_REDIS_URL=redis.url()) as stack:
        assert stack.servers == []
        assert stack.settings.database == url
        assert stack.settings.redis == redis.url()
        assert not (folder / "stack.env").exists()


@pytest.mark.usefixtures("postgres_folder")
def test_only_what_the_environment_leaves_open_is_embedded(folder: Path, redis: EmbeddedRedis) -> None:
    with stack_on(folder, KITAAB_REDIS_URL=redis.url()) as stack:
        assert stack.redis is None
        assert stack.settings.redis == redis.url()
        assert stack.postgres is not None
        assert stack.settings.database == stack.postgres.url("kitaab_worker", "kitaab")
        assert "KITAAB_REDIS_URL" not in (folder / "stack.env").read_text()


@pytest.mark.usefixtures("postgres_folder")
def test_a_file_that_a_killed_stack_left_names_no_server(folder: Path) -> None:
    (folder / "stack.env").write_text(
        "KITAAB_DATABASE_URL=postgresql://kitaab_worker:old@127.0.0.1:1/kitaab\n"
        "KITAAB_REDIS_URL=redis://:old@127.0.0.1:1/0\n"
    )
    with stack_on(folder) as stack:
        assert len(stack.servers) == 2
        assert ":1/" not in stack.settings.database


@pytest.mark.parametrize("name", ["KITAAB_ADMIN_URL", "KITAAB_DIRECT_URL", "KITAAB_REPLICA_URL"])
def test_another_databases_address_beside_the_embedded_one(folder: Path, name: str) -> None:
    with pytest.raises(
        SettingsError, match=rf"{name} is postgresql://x:\*\*\*@db/k, but KITAAB_DATABASE_URL is not"
    ):
        stack_on(folder, **{name: "postgresql://x:secret@db/k"}).start()
    assert list(folder.iterdir()) == []


def test_a_named_database_that_does_not_answer(folder: Path) -> None:
    url = "postgresql://kitaab_worker:secret@127.0.0.1:1/kitaab"
    with pytest.raises(
        ServerError, match=r"KITAAB_DATABASE_URL \(.*:\*\*\*@127.0.0.1:1/kitaab\) cannot be used"
    ) as told:
        stack_on(folder, KITAAB_DATABASE_URL=url).start()
    assert "secret" not in str(told.value)
    assert not (folder / "postgres").exists()


def test_a_named_redis_that_does_not_answer(folder: Path) -> None:
    with pytest.raises(
        ServerError, match=r"KITAAB_REDIS_URL \(redis://:\*\*\*@127.0.0.1:1/0\) cannot be used"
    ) as told:
        stack_on(folder, KITAAB_REDIS_URL="redis://:secret@127.0.0.1:1/0").start()
    assert "secret" not in str(told.value)


def test_a_named_redis_with_a_wrong_password(folder: Path, redis: EmbeddedRedis) -> None:
    url = f"redis://:wrong-one@127.0.0.1:{redis.port}/0"
    with pytest.raises(ServerError, match="cannot be used") as told:
        stack_on(folder, KITAAB_REDIS_URL=url).start()
    assert "wrong-one" not in str(told.value)


def test_named_servers_that_are_too_old(
    monkeypatch: pytest.MonkeyPatch, postgres: EmbeddedPostgres, redis: EmbeddedRedis
) -> None:
    monkeypatch.setattr(named, "OLDEST_POSTGRES", 99)
    monkeypatch.setattr(named, "OLDEST_REDIS", (99, 0))
    with pytest.raises(ServerError, match=r"is PostgreSQL 18: use version 99 or later"):
        named.check_postgres("KITAAB_DATABASE_URL", postgres.superuser_url, timeout=5)
    with pytest.raises(ServerError, match=r"is Redis \d+\.\d+\.\d+: use version"):
        named.check_redis("KITAAB_REDIS_URL", redis.url(), timeout=5)


def test_an_ordinary_user_without_the_right_to_write(folder: Path, python: Callable[..., Popen[str]]) -> None:
    program = """
        import os, pwd, sys; from pathlib import Path
        from kitaab_jobs.devstack.stack import Stack
        from kitaab_jobs.errors import KitaabError
        from kitaab_jobs.settings import Settings
        settings = Settings.load(data_dir=Path(sys.argv[1]))
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            os.setgroups([]); os.setgid(nobody.pw_gid); os.setuid(nobody.pw_uid)
        try:
            Stack(settings).start()
        except KitaabError as error:
            print(error)
    """
    folder.chmod(0o555)
    for data_dir in (folder, folder / "below"):
        said, errors = python(program, data_dir).communicate(timeout=30)
        assert f"{data_dir}" in said, errors
        assert said.endswith("(Permission denied): choose a folder that you may write with --data-dir\n")
    folder.chmod(0o711)
    assert list(folder.iterdir()) == []


def test_a_file_where_the_folder_should_be(folder: Path) -> None:
    (folder / "file").write_text("")
    with pytest.raises(
        Exception, match=r"cannot make .*/file \(File exists\): choose a folder with --data-dir"
    ):
        stack_on(folder / "file").start()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's folders are closed to the servers' user")
def test_root_with_a_closed_data_folder(folder: Path) -> None:
    closed = folder / "home"
    closed.mkdir(mode=0o700)
    with stack_on(closed / "data") as stack:
        home = (closed / "data" / "servers").resolve()
        assert stack.postgres is not None
        assert stack.postgres.folder == home / "postgres"
        before = stack.addresses
    try:
        assert stat.S_IMODE(closed.stat().st_mode) == 0o700
        with stack_on(closed / "data") as stack:
            assert stack.addresses == before
    finally:
        os.system(f"rm -rf {home}")

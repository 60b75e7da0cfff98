"""One embedded PostgreSQL: start, stop, and every state in which a folder can be found."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from subprocess import Popen
from types import SimpleNamespace

import psutil
import psycopg
import pytest

from kitaab_jobs.devstack.account import server_account
from kitaab_jobs.devstack.postgres import ROLES, EmbeddedPostgres
from kitaab_jobs.devstack.spawn import server_env, spawn
from kitaab_jobs.errors import AlreadyRunning, StackError
from tests.devstack.observe import family, is_gone, wait_for


@pytest.fixture
def postgres(postgres_folder: Path) -> Iterator[EmbeddedPostgres]:
    """Give a server that has been made and is not running, and stop it in the end."""
    server = EmbeddedPostgres(postgres_folder, durable=False)
    yield server
    server.stop(immediate=True)


def ask(url: str, query: str) -> object:
    with closing(psycopg.connect(url, connect_timeout=5)) as connection:
        row = connection.execute(query.encode()).fetchone()
    assert row is not None
    return row[0]


def test_it_keeps_data_passwords_and_port_over_a_restart(postgres: EmbeddedPostgres) -> None:
    postgres.start()
    with psycopg.connect(postgres.superuser_url) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    url = postgres.superuser_url
    postgres.stop()
    assert not postgres.running
    postgres.start()
    assert postgres.superuser_url == url
    assert ask(url, "SELECT answer FROM kept") == 42


def test_start_and_stop_may_be_repeated(postgres: EmbeddedPostgres) -> None:
    postgres.start()
    pid = postgres.pid
    postgres.start()
    assert postgres.pid == pid
    postgres.stop()
    postgres.stop()
    assert pid is not None
    assert is_gone(pid)


@pytest.mark.parametrize("immediate", [False, True])
def test_restart_keeps_the_port_and_what_was_committed(postgres: EmbeddedPostgres, immediate: bool) -> None:
    postgres.start()
    with psycopg.connect(postgres.superuser_url) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    before = postgres.pid, postgres.port
    postgres.restart(immediate=immediate)
    assert postgres.pid != before[0]
    assert postgres.port == before[1]
    assert ask(postgres.superuser_url, "SELECT answer FROM kept") == 42


def test_the_cluster_is_as_the_platform_wants_it(postgres: EmbeddedPostgres) -> None:
    postgres.start()
    wanted = {
        "server_encoding": "UTF8",
        "data_checksums": "on",
        "TimeZone": "UTC",
        "fsync": "off",
        "max_connections": "200",
        "listen_addresses": "127.0.0.1",
        "password_encryption": "scram-sha-256",
        "shared_preload_libraries": "pg_stat_statements",
    }
    found = {name: ask(postgres.superuser_url, f"SELECT current_setting('{name}')") for name in wanted}
    assert found == wanted
    assert (
        ask(postgres.superuser_url, "SELECT datlocale FROM pg_database WHERE datname = 'template1'")
        == "C.UTF-8"
    )


def test_options_win_and_are_quoted(postgres_folder: Path) -> None:
    options = {"work_mem": "3MB", "cluster_name": r"it's a \ test"}
    with EmbeddedPostgres(postgres_folder, durable=False, options=options) as postgres:
        assert ask(postgres.superuser_url, "SELECT current_setting('work_mem')") == "3MB"
        assert (
            ask(postgres.superuser_url, "SELECT current_setting('cluster_name')") == options["cluster_name"]
        )


def test_a_wrong_password_is_refused(postgres: EmbeddedPostgres) -> None:
    postgres.start()
    url = f"postgresql://postgres:wrong@127.0.0.1:{postgres.port}/postgres"
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        ask(url, "SELECT 1")


def test_provision_makes_roles_that_are_no_superusers(postgres: EmbeddedPostgres) -> None:
    postgres.start()
    postgres.provision()
    postgres.provision()
    for role in ROLES:
        assert ask(postgres.url(role, "kitaab"), "SELECT current_user::text") == role
    query = "SELECT pg_get_userbyid(datdba)::text FROM pg_database WHERE datname = 'kitaab'"
    assert ask(postgres.superuser_url, query) == "kitaab_admin"
    mighty = "rolsuper OR rolcreaterole OR rolcreatedb OR rolbypassrls OR rolreplication"
    query = f"SELECT count(*) FROM pg_roles WHERE rolname LIKE 'kitaab%' AND ({mighty})"
    assert ask(postgres.superuser_url, query) == 0
    with psycopg.connect(postgres.url("kitaab_admin", "kitaab")) as connection:
        connection.execute("CREATE TABLE owned (x int)")


def test_passwords_are_in_one_private_file_only(postgres: EmbeddedPostgres) -> None:
    postgres.start()
    postgres.provision()
    assert postgres.pid is not None
    mode = stat.S_IMODE(postgres.secrets.path.stat().st_mode)
    assert mode == 0o600
    secrets = json.loads(postgres.secrets.path.read_text())
    assert len(set(secrets.values())) == len(ROLES) + 1
    seen = postgres.log.read_text()
    for process in family(postgres.pid):
        with suppress(psutil.NoSuchProcess):  # backends come and go
            seen += " ".join(process.cmdline()) + " ".join(process.environ().values())
    assert [name for name, password in secrets.items() if password in seen] == []


def test_a_second_one_on_the_folder_is_told_where_the_first_is(postgres: EmbeddedPostgres) -> None:
    postgres.start()
    second = EmbeddedPostgres(postgres.folder, durable=False)
    with pytest.raises(AlreadyRunning, match=rf"pid {os.getpid()}: PostgreSQL on 127.0.0.1:{postgres.port}"):
        second.start()
    assert postgres.running


def test_a_stale_pid_file_whose_number_is_another_program_now(postgres: EmbeddedPostgres) -> None:
    postgres.start()
    postgres.stop()
    with postgres.log.open("ab") as log:
        other = spawn(["/bin/sleep", "60"], log=log, env=server_env(), account=server_account())
    try:
        pid_file = postgres.data / "postmaster.pid"
        pid_file.write_text(
            f"{other.pid}\n{postgres.data}\n1700000000\n{postgres.port}\n\n127.0.0.1\n\nready\n"
        )
        postgres.start()
        assert ask(postgres.superuser_url, "SELECT 1") == 1
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_a_server_that_someone_else_started_there_is_left_alone(postgres: EmbeddedPostgres) -> None:
    postgres.start()
    postgres.stop()
    with postgres.log.open("ab") as log:
        command = [str(postgres.bin / "postgres"), "-D", str(postgres.data)]
        other = spawn(command, log=log, env=server_env(), account=server_account())
    try:
        wait_for(lambda: (postgres.data / "postmaster.pid").exists())
        with pytest.raises(StackError, match=f"started by other means runs .*pid {other.pid}"):
            postgres.start()
        assert other.poll() is None
    finally:
        other.send_signal(signal.SIGINT)
        other.wait(20)


def test_a_half_made_folder_is_made_anew(folder: Path, python: Callable[..., Popen[str]]) -> None:
    program = """
        import sys; from pathlib import Path
        from kitaab_jobs.devstack.postgres import EmbeddedPostgres
        EmbeddedPostgres(Path(sys.argv[1])).start()
    """
    maker = python(program, folder)
    wait_for(lambda: list(folder.glob("making-*/data/PG_VERSION")))
    maker.kill()
    maker.wait()
    assert not (folder / "data").exists()
    with EmbeddedPostgres(folder, durable=False) as postgres:
        assert ask(postgres.superuser_url, "SELECT 1") == 1
    assert list(folder.glob("making-*")) == []


def test_a_port_that_is_insisted_on_and_in_use(postgres_folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StackError, match=f"port {port} of 127.0.0.1 is in use"):
            EmbeddedPostgres(postgres_folder, durable=False, port=port).start()


def test_the_last_port_is_given_up_when_it_is_in_use(postgres: EmbeddedPostgres) -> None:
    postgres.start()
    before = postgres.port
    postgres.stop()
    with socket.create_server(("127.0.0.1", before)):
        postgres.start()
        assert postgres.port != before


@pytest.mark.parametrize("name", ["nowhere", "."])
def test_wrong_binaries(folder: Path, name: str) -> None:
    with pytest.raises(
        StackError, match=r"holds no initdb and no postgres that can be run: name the bin folder"
    ):
        EmbeddedPostgres(folder / "pg", binaries=folder / name).start()


def test_another_major_version_is_refused(postgres: EmbeddedPostgres) -> None:
    postgres.start()
    postgres.stop()
    (postgres.data / "PG_VERSION").write_text("16\n")
    with pytest.raises(
        StackError, match=r"was made by PostgreSQL 16, and the installed one is 18: use PostgreSQL 16"
    ):
        postgres.start()


def test_what_the_server_said_is_in_the_message(postgres_folder: Path) -> None:
    with pytest.raises(
        StackError, match=r"did not start on .*invalid value for parameter.*work_mem.* its log is"
    ):
        EmbeddedPostgres(postgres_folder, durable=False, options={"work_mem": "lots"}).start()


def test_damaged_secrets_are_named(postgres: EmbeddedPostgres) -> None:
    postgres.start()
    postgres.stop()
    postgres.secrets.path.write_text("{")
    with pytest.raises(StackError, match=r"secrets.json is damaged"):
        postgres.start()
    postgres.secrets.path.unlink()
    with pytest.raises(StackError, match=r"secrets.json is missing or has no password"):
        postgres.start()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has files that it owns and the server cannot enter")
def test_root_is_told_which_folder_the_servers_may_not_enter(folder: Path) -> None:
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(
        StackError, match=f"'nobody', as whom PostgreSQL runs, may not enter {closed}: chmod o\\+x"
    ):
        EmbeddedPostgres(closed / "pg", durable=False).start()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
@pytest.mark.parametrize(
    "case",
    [
        SimpleNamespace(
            mount="mount -t tmpfs -o size=6m,mode=711 none {0}", folder="{0}", says="No space left"
        ),
        SimpleNamespace(mount="mount -t tmpfs -o ro none {0}", folder="{0}", says="Read-only file system"),
        SimpleNamespace(mount="mount -t tmpfs -o mode=755 none /dev/shm", folder="{0}", says="started sysv"),
    ],
    ids=["full disk", "read-only folder", "unwritable shared memory"],
)
def test_hostile_mounts(folder: Path, python: Callable[..., Popen[str]], case: SimpleNamespace) -> None:
    program = """
        import ctypes, subprocess, sys; from pathlib import Path
        assert ctypes.CDLL(None).unshare(0x00020000) == 0  # mounts of our own
        subprocess.run(["mount", "--make-rprivate", "/"], check=True)
        subprocess.run(sys.argv[1].split(), check=True)
        import psycopg
        from kitaab_jobs.devstack.postgres import EmbeddedPostgres
        from kitaab_jobs.errors import KitaabError
        try:
            with EmbeddedPostgres(Path(sys.argv[2]), log=Path(sys.argv[3]), durable=False) as postgres:
                with psycopg.connect(postgres.superuser_url) as connection:
                    print("started", *connection.execute("SHOW dynamic_shared_memory_type").fetchone())
        except KitaabError as error:
            print(error)
    """
    (folder / "mounted").mkdir(mode=0o711)
    where = folder / "mounted"
    process = python(program, case.mount.format(where), case.folder.format(where), folder / "server.log")
    said, errors = process.communicate(timeout=60)
    assert case.says in said, errors
    assert len(said.splitlines()) == 1

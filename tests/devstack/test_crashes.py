"""kill -9 of whoever started the servers: nothing is left running, and the next start works."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from subprocess import Popen

import psycopg
import pytest
from redis import Redis

from kitaab_jobs.devstack.postgres import EmbeddedPostgres
from kitaab_jobs.devstack.stack import Stack
from kitaab_jobs.settings import Settings
from tests.devstack.observe import family, is_gone, wait_for

pytestmark = pytest.mark.usefixtures("no_servers")

# Started from a thread that ends, since the kernel ties the death signal to a thread and not a process.
RUN = """
    import json, sys, threading, time; from pathlib import Path
    from kitaab_jobs.devstack.stack import Stack
    from kitaab_jobs.settings import Settings
    stack = Stack(Settings.load(data_dir=Path(sys.argv[1])))
    starter = threading.Thread(target=stack.start)
    starter.start()
    starter.join()
    time.sleep(0.5)
    assert all(server.running for server in stack.servers)
    print(json.dumps([server.pid for server in stack.servers]), flush=True)
    time.sleep(600)
"""

# Writes for a second, or until its folder is gone.
WRITE_ON = """
    import itertools, pathlib, sys, time
    making = pathlib.Path(sys.argv[1])
    deadline = time.monotonic() + 1
    for number in itertools.count():
        if time.monotonic() > deadline:
            break
        try:
            (making / f"{number}.{sys.argv[2]}").touch()
        except FileNotFoundError:
            break
"""


def running(python: Callable[..., Popen[str]], folder: Path) -> tuple[Popen[str], list[int]]:
    process = python(RUN, folder)
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, process.communicate()[1]
    return process, json.loads(line)


@pytest.mark.usefixtures("postgres_folder")
def test_kill_9_of_the_parent_leaves_no_orphan_and_loses_nothing(
    folder: Path, python: Callable[..., Popen[str]]
) -> None:
    parent, servers = running(python, folder)
    settings = Settings.load(data_dir=folder)
    with psycopg.connect(settings.admin) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    with Redis.from_url(settings.redis) as client:
        client.set("kept", "42")
    everyone = [child.pid for server in servers for child in family(server)]
    with closing(psycopg.connect(settings.admin)) as client_that_stays:
        client_that_stays.execute("SELECT * FROM kept")
        parent.kill()
        parent.wait()
        wait_for(lambda: all(is_gone(pid) for pid in everyone))
    assert (folder / "stack.env").exists(), "a killed process cannot tidy up"
    with Stack(settings) as stack:
        assert stack.settings.database == settings.database, "the ports stay"
        with psycopg.connect(stack.settings.admin) as connection:
            assert connection.execute("SELECT answer FROM kept").fetchone() == (42,)
        with Redis.from_url(stack.settings.redis) as client:
            assert client.get("kept") == b"42"


@pytest.mark.usefixtures("postgres_folder")
def test_a_start_at_once_after_kill_9_waits_for_the_old_servers(
    folder: Path, python: Callable[..., Popen[str]]
) -> None:
    parent, servers = running(python, folder)
    settings = Settings.load(data_dir=folder)
    for pid in servers:
        os.kill(pid, signal.SIGSTOP)  # servers that take their time to save
    parent.kill()
    parent.wait()
    second = python(RUN, folder)
    try:
        wait_for(lambda: (folder / "postgres" / "lock").read_text().startswith(f"pid {second.pid}"))
    finally:
        for pid in servers:
            os.kill(pid, signal.SIGCONT)
    assert second.stdout is not None
    new = json.loads(second.stdout.readline())
    assert set(new).isdisjoint(servers)
    assert Settings.load(data_dir=folder).database == settings.database


@pytest.mark.usefixtures("postgres_folder")
def test_kill_9_of_everything_at_once(folder: Path, python: Callable[..., Popen[str]]) -> None:
    parent, servers = running(python, folder)
    everyone = [child.pid for server in servers for child in family(server)]
    for pid in (parent.pid, *everyone):
        with suppress(ProcessLookupError):  # it has noticed the others' end
            os.kill(pid, signal.SIGKILL)
    parent.wait()
    wait_for(lambda: all(is_gone(pid) for pid in everyone))
    with (
        Stack(Settings.load(data_dir=folder)) as stack,
        psycopg.connect(stack.settings.database) as connection,
    ):
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_kill_9_at_any_moment_of_the_first_start(folder: Path, python: Callable[..., Popen[str]]) -> None:
    for pause in (0.2, 0.5, 0.8, 1.1):
        process = python(RUN, folder)
        with pytest.raises(Exception, match="timed out"):
            process.wait(pause)
        process.kill()
        process.wait()
    with (
        Stack(Settings.load(data_dir=folder)) as stack,
        psycopg.connect(stack.settings.database) as connection,
    ):
        assert connection.execute("SELECT 1").fetchone() == (1,)
    assert list(folder.glob("postgres/making-*")) == []


def test_what_a_killed_initdb_leaves_is_removed_though_it_writes_on(
    folder: Path, python: Callable[..., Popen[str]]
) -> None:
    """Its own children notice a moment later."""
    making = folder / "postgres" / "making-killed"
    making.mkdir(parents=True)
    writers = [python(WRITE_ON, making, number) for number in range(3)]
    wait_for(lambda: len({path.suffix for path in making.iterdir()}) == len(writers))
    with EmbeddedPostgres(folder / "postgres"):
        assert not making.exists()
    for writer in writers:
        writer.wait()

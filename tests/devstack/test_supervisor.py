"""The supervisor: what dies comes back, what is stopped stays away, and nothing is left."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import Popen

import psycopg
import pytest
from redis import Redis

from kitaab_jobs.devstack.postgres import EmbeddedPostgres
from kitaab_jobs.devstack.redis import EmbeddedRedis
from kitaab_jobs.devstack.spawn import server_env
from kitaab_jobs.devstack.supervisor import Process, Supervisor
from tests.devstack.observe import family, is_gone, wait_for

SLEEP = "import time; time.sleep(600)"
STUBBORN = (
    f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); {SLEEP}"
)
PARENT = "import subprocess, sys; p = subprocess.Popen(['sleep', '600']); print(p.pid, flush=True); p.wait()"


@pytest.fixture
def lines() -> list[str]:
    """Give the list that takes the supervisor's reports."""
    return []


@pytest.fixture
def supervisor(folder: Path, lines: list[str]) -> Iterator[Supervisor]:
    """Give a supervisor of no servers."""
    made = Supervisor(logs=folder / "logs", env=server_env(), report=lines.append)
    yield made
    made.hurry()
    made.stop()


def program(name: str, text: str, *, stop_within: float = 20.0) -> Process:
    return Process(name, (sys.executable, "-c", text), stop_within=stop_within)


def test_a_child_runs_with_its_log_and_environment(folder: Path, lines: list[str]) -> None:
    text = f"import os; print('hello', os.environ['MINE'], os.environ['ALL'], flush=True); {SLEEP}"
    child = Process("greeter", (sys.executable, "-c", text), env={"MINE": "mine"})
    log = folder / "logs" / "greeter.log"
    with Supervisor(
        logs=folder / "logs", env=server_env() | {"ALL": "all"}, report=lines.append
    ) as supervisor:
        supervisor.start([child])
        wait_for(lambda: log.exists() and "hello mine all\n" in log.read_text())
        pid = supervisor.pids["greeter"]
    assert is_gone(pid)
    assert lines == []
    with Supervisor(
        logs=folder / "logs", env=server_env() | {"ALL": "all"}, report=lines.append
    ) as supervisor:
        supervisor.start([child])
    assert "hello" in log.with_name("greeter.log.1").read_text(), "the log of the run before is kept"


def test_a_child_that_is_killed_is_started_again(supervisor: Supervisor, lines: list[str]) -> None:
    supervisor.start([program("sleeper", SLEEP)])
    first = supervisor.pids["sleeper"]
    os.kill(first, signal.SIGKILL)
    second = wait_for(lambda: supervisor.pids.get("sleeper", first) != first and supervisor.pids["sleeper"])
    assert f"sleeper (pid {first}) was killed by SIGKILL: it is started again in 1 s; see " in lines[0]
    supervisor.stop()
    assert is_gone(second)


def test_the_pause_grows_for_a_child_that_keeps_dying(supervisor: Supervisor, lines: list[str]) -> None:
    supervisor.start([program("broken", "raise SystemExit(3)")])
    wait_for(lambda: len(lines) >= 3)
    assert "ended with exit code 3: it is started again in 1 s" in lines[0]
    pauses = [line.partition("again in ")[2].partition(" s;")[0] for line in lines[:3]]
    assert pauses == ["1", "2", "4"]


def test_a_command_that_does_not_exist_says_so_in_its_log(
    folder: Path, supervisor: Supervisor, lines: list[str]
) -> None:
    supervisor.start([Process("nothing", ("/nowhere/nothing",))])
    wait_for(lambda: lines)
    assert "exit code 126" in lines[0]
    assert "cannot run /nowhere/nothing (No such file" in (folder / "logs" / "nothing.log").read_text()


def test_a_child_that_ignores_sigterm_is_killed_after_its_deadline(
    folder: Path, supervisor: Supervisor, lines: list[str]
) -> None:
    supervisor.start([program("stubborn", STUBBORN, stop_within=0.3), program("polite", SLEEP)])
    wait_for(lambda: "ready" in (folder / "logs" / "stubborn.log").read_text())
    pids = supervisor.pids
    supervisor.stop()
    assert lines == [f"stubborn (pid {pids['stubborn']}) did not stop in time: it is killed"]
    assert all(is_gone(pid) for pid in pids.values())


def test_what_a_child_started_goes_with_it(folder: Path, supervisor: Supervisor) -> None:
    supervisor.start([program("parent", PARENT)])
    log = folder / "logs" / "parent.log"
    grandchild = int(wait_for(lambda: log.read_text().strip()))
    os.kill(supervisor.pids["parent"], signal.SIGKILL)
    wait_for(lambda: is_gone(grandchild))
    second = int(wait_for(lambda: len(log.read_text().split()) > 1 and log.read_text().split()[1]))
    supervisor.stop()
    wait_for(lambda: is_gone(second))


@pytest.mark.parametrize("make", [EmbeddedPostgres, EmbeddedRedis])
def test_a_server_killed_with_9_comes_back_on_its_port(
    postgres_folder: Path, lines: list[str], make: Callable[[Path], EmbeddedPostgres | EmbeddedRedis]
) -> None:
    folder = postgres_folder.parent
    with make(postgres_folder if make is EmbeddedPostgres else folder / "redis") as server:
        before = server.pid
        assert before is not None
        url = server.url()
        with Supervisor(logs=folder / "logs", env={}, report=lines.append, servers=[server]):
            os.kill(before, signal.SIGKILL)
            wait_for(lambda: len(lines) == 2)
        assert lines == [
            f"{server.name} (pid {before}) was killed by SIGKILL: it is started again on port {server.port}",
            f"{server.name} runs again (pid {server.pid})",
        ]
        assert server.url() == url
        if isinstance(server, EmbeddedPostgres):
            with psycopg.connect(url) as connection:
                assert connection.execute("SELECT 1").fetchone() == (1,)
        else:
            with Redis.from_url(url) as client:
                assert client.ping()


def test_a_server_that_does_not_come_back_is_tried_again(folder: Path, lines: list[str]) -> None:
    with EmbeddedRedis(folder / "server") as server:
        with Supervisor(logs=folder / "logs", env={}, report=lines.append, servers=[server]):
            manifest = next(server.data.rglob("*.manifest"))
            good = manifest.read_text()
            manifest.write_text("what is this?\n")
            assert server.pid is not None
            os.kill(server.pid, signal.SIGKILL)
            wait_for(lambda: len(lines) >= 2)
            manifest.write_text(good)
            wait_for(lambda: "runs again" in lines[-1])
        assert "did not start" in lines[1]
        assert lines[1].endswith("the next try is in 1 s")


def test_kill_9_of_the_supervisor_takes_the_children_along(
    folder: Path, python: Callable[..., Popen[str]]
) -> None:
    parent = python(
        """
        import sys, time; from pathlib import Path
        from kitaab_jobs.devstack.supervisor import Process, Supervisor
        supervisor = Supervisor(logs=Path(sys.argv[1]), env={}, report=print)
        supervisor.start([Process("sleeper", ("/bin/sleep", "600"))])
        print(supervisor.pids["sleeper"], flush=True)
        time.sleep(600)
        """,
        folder / "logs",
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    wait_for(lambda: family(child)[0].name() == "sleep")
    parent.kill()
    wait_for(lambda: is_gone(child))

"""`kitaab-jobs demo` from outside: what it shows, how it ends, and that it outlives its PostgreSQL."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kitaab_jobs.cli.demo_view import View
from tests.cli.conftest import PROGRAM, ROOT, Command
from tests.devstack.conftest import clean_env
from tests.devstack.folders import make_folder
from tests.devstack.observe import at_work_in, is_gone, wait_for

Demo = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that the servers' user can enter."""
    import shutil

    made = make_folder()
    yield made
    wait_for(lambda: not at_work_in(made), seconds=60)
    shutil.rmtree(made)


@pytest.fixture
def demo(folder: Path) -> Iterator[Demo]:
    """Return a function that runs a small demo; what still runs at the end is killed."""
    running: list[subprocess.Popen[str]] = []

    def run(*words: object) -> subprocess.Popen[str]:
        small = ("--people", 60, "--years", 1, "--data-dir", folder)
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, "demo", *map(str, (*small, *words))],
            cwd=ROOT, env=clean_env(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, bufsize=1,
        )  # fmt: skip
        running.append(process)
        return process

    yield run
    for process in running:
        process.kill()
        process.communicate()


def until(process: subprocess.Popen[str], what: str) -> str:
    """Return what it prints up to the line in which `what` is found."""
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if re.search(what, line):
            return said
    pytest.fail(f"it ended without {what!r}:\n{said}")


def test_it_shows_what_the_platform_does_and_ends_by_itself(demo: Demo) -> None:
    process = demo("--for", "12s")
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert re.search(r"60 people in \d+ zones and [\d,]+ entries", said)
    assert "psql   PGPASSFILE=" in said
    assert re.search(r"merit +'.*' of .* is complete +[\d.]+ s after the entry", said)
    assert re.search(r"\n  Merits +[1-9]\d* completed\n", said)
    assert re.search(r"\n  Jobs +[1-9]\d* succeeded, 0 dead\n", said)
    assert re.search(r"\n  Entry to merit +[1-9]\d* seen, [\d.]+ s on average\n$", said)
    assert "lost" not in said


def test_a_postmaster_that_is_killed_is_waited_out(demo: Demo, folder: Path) -> None:
    process = demo("--for", "20s")
    said = until(process, r" records ")
    pid = json.loads((folder / "postgres" / "server.json").read_text())["pid"]
    os.kill(pid, signal.SIGKILL)
    said += process.communicate(timeout=300)[0]
    assert process.returncode == 0, said
    assert re.search(r"PostgreSQL .* it is started again on port", said)
    # It is started again so soon that the demo may not notice; test_patience.py has the outage that lasts.
    assert said.count("the connection to PostgreSQL is lost, waiting for it") <= 1
    assert re.search(r"\n  Jobs +[1-9]\d* succeeded", said.partition("Summary")[2])
    assert is_gone(pid)


def test_a_second_demo_starts_from_the_people_of_the_first_and_ctrl_c_ends_it(demo: Demo) -> None:
    first = demo("--for", "1s")
    first.communicate(timeout=300)
    second = demo()
    said = until(second, r"Logs ")
    assert "60 people are there from an earlier demo" in said
    second.send_signal(signal.SIGINT)
    assert "Stopping ..." in second.communicate(timeout=120)[0]
    assert second.returncode == 0


@pytest.mark.parametrize("given", ["", "soon", "10", "-5s", "99999999999d"])
def test_a_time_that_is_none(command: Command, given: str) -> None:
    code, out, err = command("demo", f"--for={given}")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"error: --for '{given}' is ")


def test_real_servers_are_left_alone(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KITAAB_DATABASE_URL", "postgresql://a:b@127.0.0.1:1/k")
    code, _, err = command("demo")
    assert (code, err.partition(",")[0]) == (2, "error: KITAAB_DATABASE_URL is set")


def test_places_stand_above_the_live_part_where_nothing_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("TERM", "xterm")
    view = View()
    view.console._force_terminal = True
    view.places = {"psql": "PGPASSFILE=" + "x" * 200}
    with view.console.capture() as captured, view.live(None):
        pass
    said = captured.get()
    assert said.startswith(f"psql   PGPASSFILE={'x' * 200}\n")
    assert said.count("PGPASSFILE") == 1

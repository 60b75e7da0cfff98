"""Folders and processes for tests that run real servers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kitaab_jobs.devstack.postgres import EmbeddedPostgres
from tests.devstack.folders import make_folder
from tests.devstack.observe import at_work_in, wait_for

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def folder() -> Iterator[Path]:
    """Give a folder that the servers' user can enter, which pytest's own is not under root."""
    made = make_folder()
    yield made
    wait_for(lambda: not at_work_in(made))
    shutil.rmtree(made)


@pytest.fixture(scope="session")
def made_once() -> Iterator[Path]:
    """Make one PostgreSQL folder with the platform's roles and database; initdb is the slow part of a start."""
    home = make_folder()
    with EmbeddedPostgres(home / "postgres", durable=False) as server:
        server.provision()
    yield server.folder
    shutil.rmtree(home)


@pytest.fixture
def postgres_folder(made_once: Path, folder: Path) -> Path:
    """Give a folder of a stopped PostgreSQL; it is where a stack on `folder` looks for it."""
    ours = folder / "postgres"
    subprocess.run(["cp", "-a", made_once, ours], check=True)
    (ours / "server.json").unlink()
    return ours


@pytest.fixture
def python(folder: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Give a function that runs a program text in another Python; what still runs at the end is killed."""
    running: list[subprocess.Popen[str]] = []

    def run(text: str, *words: object, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(text), *map(str, words)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=REPOSITORY,
            env=clean_env() | (env or {}),
        )
        running.append(process)
        return process

    yield run
    for process in running:
        process.kill()
        process.communicate()


@pytest.fixture
def no_servers() -> Iterator[None]:
    """Make the environment name no server and no folder, and take back what the test adds to it."""
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update(clean_env())
    yield
    os.environ.clear()
    os.environ.update(before)


def clean_env() -> dict[str, str]:
    """Return our environment without KITAAB_*."""
    return {name: value for name, value in os.environ.items() if not name.upper().startswith("KITAAB_")}

"""The command line on a ledger of its own, in this process or in another."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from kitaab_jobs import cli
from kitaab_jobs.db import engines
from kitaab_jobs.settings import settings
from tests.cli import schedules
from tests.conftest import engine_for

ROOT = Path(__file__).parents[2]
PROGRAM = "import sys; sys.argv[0] = 'kitaab-jobs'; from kitaab_jobs.cli import main; main()"

Command = Callable[..., tuple[int, str, str]]
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture(scope="module")
def _database_of_module(_cloned: Callable[[], str], url_for: Callable[[str, str], str]) -> Iterator[Engine]:
    engine = engine_for(url_for("kitaab_admin", _cloned()))
    yield engine
    engine.dispose()


@pytest.fixture
def ledger(
    _database_of_module: Engine, url_for: Callable[[str, str], str], named: Callable[[str], None]
) -> Engine:
    """An engine, as the owner, on an empty ledger, which the settings name as the workers see it."""
    engine = _database_of_module
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM jobs.jobs"))
    assert engine.url.database is not None
    named(url_for("kitaab_worker", engine.url.database))
    return engine


@pytest.fixture
def timetable(ledger: Engine) -> Engine:
    """The ledger, without any schedule."""
    schedules.clear(ledger)
    return ledger


@pytest.fixture
def named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[[str], None]]:
    """Return a function that makes the settings name a database."""

    def name(url: str) -> None:
        _forget()
        monkeypatch.setenv("KITAAB_DATABASE_URL", url)

    monkeypatch.setenv("KITAAB_DATA_DIR", str(tmp_path / "nothing"))
    _forget()
    yield name
    _forget()


def _forget() -> None:
    for engine in engines._POOLS.values():
        engine.dispose()
    engines.forget()
    settings.cache_clear()


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    """Return a function that runs `kitaab-jobs` here and gives its exit code and what it printed."""

    def run(*words: object) -> tuple[int, str, str]:
        arguments = list(map(str, words))
        code = cli.run(lambda: cli.build(arguments)(arguments))
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


@pytest.fixture
def start() -> Iterator[Start]:
    """Return a function that runs `kitaab-jobs` in a process of its own; what still runs at the end is killed."""
    running: list[subprocess.Popen[str]] = []

    def run(*words: object, stdin: int = subprocess.DEVNULL, **env: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *map(str, words)],
            cwd=ROOT,
            env={**os.environ, **env},
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        running.append(process)
        return process

    yield run
    for process in running:
        process.kill()
        process.communicate()

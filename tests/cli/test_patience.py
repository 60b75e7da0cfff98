"""An outage is said once, and so is its end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import DBAPIError

from kitaab_jobs.cli import patience
from kitaab_jobs.cli.interruption import until_interrupted
from kitaab_jobs.cli.patience import Patience


@pytest.fixture
def nowhere() -> Engine:
    """A PostgreSQL that is not there."""
    return create_engine("postgresql+psycopg://a@127.0.0.1:1/k")


def test_an_outage_is_said_once_and_so_is_its_end(nowhere: Engine, database: Engine) -> None:
    said: list[str] = []
    waiting = Patience(said.append)
    for engine in (nowhere, nowhere, database, database, nowhere):
        with waiting.outage(), engine.connect():
            pass
    lost = "the connection to PostgreSQL is lost, waiting for it: "
    assert [line.startswith(lost) for line in said] == [True, False, True]
    assert said[1] == "PostgreSQL is back"


def test_work_is_done_again_until_it_is_done(
    nowhere: Engine, database: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "AGAIN_SECONDS", 0.01)
    engines = iter((nowhere, nowhere, database))

    def work() -> Any:
        with next(engines).connect() as connection:
            return connection.scalar(text("SELECT 42"))

    assert Patience(lambda _: None).until_done(work) == 42


def test_what_is_no_outage_is_not_swallowed(database: Engine) -> None:
    with pytest.raises(DBAPIError), Patience(pytest.fail).outage(), database.connect() as connection:
        connection.execute(text("SELECT 1 / 0"))


@contextmanager
def interrupted_statement(engine: Engine) -> Iterator[None]:
    """Lose the connection while Ctrl-C unwinds: what is raised is the loss, and Ctrl-C is behind it."""
    try:
        raise KeyboardInterrupt
    finally:
        engine.connect()
    yield


def test_ctrl_c_is_no_outage(nowhere: Engine) -> None:
    with pytest.raises(DBAPIError), Patience(pytest.fail).outage(), interrupted_statement(nowhere):
        pass


def test_ctrl_c_in_the_middle_of_a_statement_leaves_the_block(nowhere: Engine) -> None:
    with until_interrupted(), interrupted_statement(nowhere):
        pass
    with until_interrupted():
        raise KeyboardInterrupt
    with pytest.raises(DBAPIError), until_interrupted():
        nowhere.connect()

"""What PostgreSQL refuses is one line: where, what is wrong, what to do; no SQL, no parameters, no password."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import Engine, text

from kitaab_jobs import cli
from kitaab_jobs.settings import settings
from tests.cli.conftest import Command
from tests.cli.rows import add

COMMANDS = (
    ("jobs", "list"),
    ("jobs", "show", "0190cafe-0000-7000-8000-000000000000"),
    ("jobs", "stats"),
    ("jobs", "tail"),
    ("jobs", "retry", "--yes"),
    ("jobs", "cancel", "--name", "*", "--yes"),
    ("jobs", "purge", "--older-than", "1d", "--yes"),
    ("enqueue", "progress.refresh", "--args", '{"limit": 77}'),
    ("schedules", "list"),
    ("schedules", "history", "nightly"),
    ("schedules", "pause", "nightly"),
    ("schedules", "add", "nightly", "progress.refresh", "@daily", "--yes"),
)
each_command = pytest.mark.parametrize("words", COMMANDS, ids=lambda words: " ".join(words[:2]))


def told(printed: tuple[int, str, str]) -> str:
    """Return the one line, without its head."""
    code, out, err = printed
    assert (code, out, err.count("\n")) == (1, "", 1), err
    assert err.startswith("error: ")
    for secret in (
        "sqlalche.me",
        "[SQL",
        "parameters",
        "psycopg",
        "SELECT",
        "Traceback",
        "secret",
        "--debug",
    ):
        assert secret not in err
    return err.removeprefix("error: ").rstrip("\n")


@each_command
def test_out_of_reach(command: Command, named: Callable[[str], None], words: tuple[str, ...]) -> None:
    named("postgresql://kitaab_worker:secret@127.0.0.1:1/kitaab")
    assert told(command(*words)) == (
        "PostgreSQL at postgresql://kitaab_worker:***@127.0.0.1:1/kitaab cannot be used: Connection refused: check "
        "KITAAB_DATABASE_URL and that the server runs, see 'kitaab-jobs doctor', then try again"
    )


@each_command
def test_not_migrated(
    command: Command, named: Callable[[str], None], url_for: Callable[[str, str], str], words: tuple[str, ...]
) -> None:
    named(url_for("postgres", "postgres"))
    said = told(command(*words))
    assert " has no tables of Kitaab, or old ones: " in said
    assert ": run 'kitaab-jobs migrate', or set KITAAB_DATABASE_URL to the right database" in said


@each_command
def test_a_role_without_rights(
    command: Command,
    ledger: Engine,
    named: Callable[[str], None],
    url_for: Callable[[str, str], str],
    words: tuple[str, ...],
) -> None:
    assert ledger.url.database is not None
    add(ledger, "dead")
    named(url_for("kitaab_readonly" if words[0] == "enqueue" else "kitaab_app", ledger.url.database))
    said = told(command(*words))
    assert " refused: permission denied for " in said
    assert said.endswith(": set KITAAB_DATABASE_URL to a role that may, kitaab_worker")


@pytest.mark.parametrize("words", [("retry", "--yes"), ("purge", "--older-than", "1s", "--yes")])
def test_a_role_that_may_only_read(
    command: Command,
    ledger: Engine,
    named: Callable[[str], None],
    url_for: Callable[[str, str], str],
    words: tuple[str, ...],
) -> None:
    from tests.cli.rows import ago

    assert ledger.url.database is not None
    add(ledger, "dead", at=ago(hours=1))
    named(url_for("kitaab_readonly", ledger.url.database))
    assert command("jobs", "list")[0] == 0
    assert command("jobs", *words, "--dry-run")[0] == 0
    assert " refused: permission denied for table jobs: set " in told(command("jobs", *words))


def test_a_database_that_is_not_there(
    command: Command, named: Callable[[str], None], url_for: Callable[[str, str], str]
) -> None:
    named(url_for("kitaab_worker", "nosuch"))
    assert '/nosuch cannot be used: database "nosuch" does not exist: check ' in told(command("jobs", "list"))


def test_a_wrong_password(
    command: Command, named: Callable[[str], None], url_for: Callable[[str, str], str]
) -> None:
    url = url_for("kitaab_worker", "postgres")
    head, _, place = url.rpartition("@")
    named(f"{head.rpartition(':')[0]}:secret@{place}")
    said = told(command("jobs", "list"))
    assert ":***@127.0.0.1" in said
    assert 'password authentication failed for user "kitaab_worker"' in said


def test_a_name_that_is_unknown(command: Command, named: Callable[[str], None]) -> None:
    named("postgresql://a:secret@no-such-host.invalid/kitaab")
    assert "no-such-host.invalid/kitaab cannot be used: " in told(command("jobs", "list"))


def test_a_statement_that_takes_too_long(
    command: Command, ledger: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kitaab_jobs.runtime import operators

    monkeypatch.setattr(operators, "_STATS", text("SELECT pg_sleep(60)"))
    monkeypatch.setenv("KITAAB_STATEMENT_TIMEOUT", "1")
    settings.cache_clear()
    assert told(command("jobs", "stats")).endswith(": ask for less, or raise KITAAB_STATEMENT_TIMEOUT")


def test_what_the_database_refuses_by_itself(command: Command, ledger: Engine) -> None:
    """Its own words and its hint, as for a job that this version knows and the database does not yet."""
    with ledger.begin() as connection:
        kept = connection.execute(
            text("DELETE FROM jobs.kinds WHERE name = 'progress.refresh' RETURNING *")
        ).one()
    try:
        said = told(command("enqueue", "progress.refresh"))
        assert said.startswith("PostgreSQL refused: no job is called 'progress.refresh': ")
    finally:
        names = ", ".join(kept._fields)
        with ledger.begin() as connection:
            slots = ", ".join(f":{name}" for name in kept._fields)
            connection.execute(text(f"INSERT INTO jobs.kinds ({names}) VALUES ({slots})"), kept._asdict())


def test_debug_shows_all(ledger: Engine, named: Callable[[str], None]) -> None:
    from sqlalchemy.exc import OperationalError

    named("postgresql://a:b@127.0.0.1:1/kitaab")
    words = ["jobs", "list"]
    with pytest.raises(OperationalError):
        cli.run(lambda: cli.build(words)(words), debug=True)

"""`alembic upgrade --sql`: what a DBA reviews and runs is what the online run does."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from pathlib import Path

import pytest
from alembic import command

from kitaab_jobs.db import migrate
from kitaab_jobs.devstack.account import server_account
from kitaab_jobs.devstack.binaries import postgres_bin
from tests.migrations.catalog import Catalog, difference
from tests.migrations.conftest import Server, read, revision_of

REPOSITORY = Path(__file__).parents[2]


def printed_sql() -> str:
    """Return the SQL of all migrations, as Alembic prints it."""
    config = migrate.config()
    config.output_buffer = io.StringIO()
    command.upgrade(config, "head", sql=True)
    return config.output_buffer.getvalue()


def run_with_psql(url: str, sql: str) -> None:
    psql = postgres_bin(None, server_account()) / "psql"
    done = subprocess.run(
        [psql, "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", url],
        input=sql,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("role", ["kitaab_admin", "postgres"])
def test_psql_makes_of_it_what_an_upgrade_makes(
    role: str, empty: str, url_for: Server, catalog_at: dict[str | None, Catalog]
) -> None:
    run_with_psql(url_for(role, empty.rpartition("/")[2]), printed_sql())
    assert revision_of(empty) == migrate.head()
    theirs = {key: value for key, value in read(empty).items() if key != "schema public"}
    ours = {key: value for key, value in catalog_at[migrate.head()].items() if key != "schema public"}
    assert difference(ours, theirs) == []


def test_squawk_finds_nothing(tmp_path: Path) -> None:
    """What is excluded, and why, stands in .squawk.toml."""
    file = tmp_path / "migrations.sql"
    file.write_text(printed_sql(), encoding="utf-8")
    squawk = Path(sys.executable).with_name("squawk")
    config = REPOSITORY / ".squawk.toml"
    done = subprocess.run(
        [squawk, "--config", config, file], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_squawk_would_find_something(tmp_path: Path) -> None:
    file = tmp_path / "migrations.sql"
    dangerous = "ALTER TABLE users ADD COLUMN age bigint NOT NULL;\nCREATE INDEX idx_age ON users (age);\n"
    file.write_text(dangerous, encoding="utf-8")
    squawk = Path(sys.executable).with_name("squawk")
    done = subprocess.run(
        [squawk, "--config", REPOSITORY / ".squawk.toml", file], capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "adding-required-field" in done.stdout
    assert "require-concurrent-index-creation" in done.stdout


def test_limits_are_set_before_anything_else() -> None:
    first = printed_sql().strip().splitlines()[0]
    assert first == f"SET lock_timeout = '{migrate.LOCK_TIMEOUT}';"
    assert f"SET statement_timeout = '{migrate.STATEMENT_TIMEOUT}';" in printed_sql().partition("BEGIN;")[0]


def test_no_migration_holds_what_offline_mode_would_change() -> None:
    """A percent sign is doubled, and `:name` is taken for a parameter."""
    for file in (migrate.scripts() / "versions").glob("*.py"):
        text = file.read_text(encoding="utf-8")
        assert "%" not in text, file.name
        assert not re.search(r"(?<![:\w]):[a-z_]+(?!:)\b(?=[\s,)])", "\n".join(_statements(text))), file.name


def _statements(source: str) -> list[str]:
    """Return the strings in triple quotes, which are the SQL, without the one that documents the module."""
    return re.findall(r'"""(.*?)"""', source, flags=re.DOTALL)[1:]


def test_no_migration_holds_a_password() -> None:
    for file in (migrate.scripts() / "versions").glob("*.py"):
        assert not re.search(r"\bPASSWORD\s+'", file.read_text(encoding="utf-8")), file.name

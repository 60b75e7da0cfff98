"""What cannot be migrated is refused in one line that says why and what to do."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest

from kitaab_jobs.db import migrate
from kitaab_jobs.errors import KitaabError, ServerError
from tests.migrations.conftest import Server, execute, read, revision_of


def one_line(error: KitaabError) -> str:
    """Return the message after checking what is true of each."""
    said = str(error)
    assert "\n" not in said
    assert error.remedy
    assert error.exit_code in {1, 2}
    return said


@pytest.mark.parametrize(
    "run", [migrate.upgrade, migrate.pending, lambda url: migrate.downgrade(url, "base")]
)
def test_a_revision_that_this_version_does_not_know(run: Callable[[str], object], empty: str) -> None:
    migrate.upgrade(empty, "0001")
    execute(empty, "UPDATE alembic_version SET version_num = '9999'")
    before = read(empty)
    with pytest.raises(ServerError) as caught:
        run(empty)
    assert "9999" in one_line(caught.value)
    assert "newest version" in (caught.value.remedy or "")
    assert revision_of(empty) == "9999"
    assert read(empty) == before


@pytest.mark.parametrize("run", [migrate.upgrade, migrate.pending])
def test_a_server_that_is_too_old(
    run: Callable[[str], object], empty: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrate, "OLDEST_SERVER", 99)
    with pytest.raises(ServerError, match=r"PostgreSQL \d\d is too old") as caught:
        run(empty)
    assert "use 99 to" in one_line(caught.value)
    assert revision_of(empty) is None


def test_a_wrong_password(empty: str) -> None:
    head, _, tail = empty.rpartition("@")
    url = f"{head.rpartition(':')[0]}:not-it@{tail}"
    with pytest.raises(ServerError) as caught:
        migrate.upgrade(url)
    said = one_line(caught.value)
    assert "password authentication failed" in said
    assert "KITAAB_ADMIN_URL" in said
    assert "not-it" not in said


@pytest.mark.parametrize("role", ["kitaab_worker", "kitaab_app", "kitaab_readonly"])
def test_a_role_without_the_rights(role: str, empty: str, url_for: Server) -> None:
    before = read(empty)
    with pytest.raises(ServerError) as caught:
        migrate.upgrade(url_for(role, empty.rpartition("/")[2]))
    assert "permission denied" in one_line(caught.value)
    assert "connect as kitaab_admin" in (caught.value.remedy or "")
    assert read(empty) == before


def test_a_role_without_the_rights_in_the_middle(empty: str, url_for: Server) -> None:
    migrate.upgrade(empty, "0004")
    before = read(empty)
    with pytest.raises(ServerError, match="connect as kitaab_admin"):
        migrate.upgrade(url_for("kitaab_worker", empty.rpartition("/")[2]))
    assert read(empty) == before


def test_a_database_that_does_not_exist(url_for: Server) -> None:
    with pytest.raises(ServerError, match='database "nowhere" does not exist') as caught:
        migrate.upgrade(url_for("kitaab_admin", "nowhere"))
    one_line(caught.value)


def test_a_server_that_does_not_run() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    with pytest.raises(ServerError, match=f"port {port}") as caught:
        migrate.upgrade(f"postgresql://kitaab_admin:secret@127.0.0.1:{port}/kitaab")
    assert "secret" not in one_line(caught.value)


def test_a_broken_address() -> None:
    with pytest.raises(KitaabError) as caught:
        migrate.upgrade("postgresql://kitaab_admin:secret@[::1/kitaab")
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_somebody_elses_table_in_the_way(empty: str) -> None:
    """Nothing of a migration that fails is kept, and what was there stays."""
    execute(empty, "CREATE TABLE users (theirs integer)")
    with pytest.raises(ServerError, match="already exists") as caught:
        migrate.upgrade(empty)
    one_line(caught.value)
    assert revision_of(empty) == "0001"
    execute(empty, "SELECT theirs FROM users")

"""Up, up again, down, up again; each step alone; on the newest and the oldest server."""

from __future__ import annotations

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from kitaab_jobs.contract import JOBS
from kitaab_jobs.db import migrate
from kitaab_jobs.db.engines import sqlalchemy_url
from kitaab_jobs.devstack.postgres import ROLES, EmbeddedPostgres
from kitaab_jobs.errors import ServerError
from tests.migrations.catalog import Catalog, difference
from tests.migrations.conftest import Databases, Server, execute, read, revision_of, revisions


def scalars(url: str, query: str) -> list[object]:
    with create_engine(sqlalchemy_url(url), poolclass=NullPool).connect() as connection:
        return list(connection.scalars(text(query)))


def test_there_is_one_head_and_one_line_to_it() -> None:
    scripts = ScriptDirectory.from_config(migrate.config())
    assert scripts.get_heads() == [migrate.head()] == revisions()[-1:]
    assert [len(script._all_down_revisions) for script in scripts.walk_revisions()][:-1] == [1] * (
        len(revisions()) - 1
    )


def test_up_twice_down_and_up_again(server: Server, databases: Databases) -> None:
    url = databases.new(server)
    before = read(url)
    assert migrate.upgrade(url) == revisions()
    assert revision_of(url) == migrate.head()
    migrated = read(url)
    assert migrate.upgrade(url) == []
    assert difference(migrated, read(url)) == []
    assert migrate.downgrade(url, "base") == revisions()
    assert difference(before, read(url)) == []
    assert set(scalars(url, "SELECT rolname FROM pg_roles")) >= set(ROLES)
    assert migrate.upgrade(url) == revisions()
    assert difference(migrated, read(url)) == []


def test_the_oldest_and_the_newest_server_hold_the_same(
    oldest_server: Server, databases: Databases, catalog_at: dict[str | None, Catalog]
) -> None:
    url = databases.new(oldest_server)
    migrate.upgrade(url)
    assert difference(_portable(catalog_at[migrate.head()]), _portable(read(url))) == []


def _portable(found: Catalog) -> Catalog:
    """Leave out what a version adds by itself: NOT NULL as constraints (18), the MAINTAIN right (17)."""
    words = [" may kitaab_admin MAINTAIN f", " may postgres MAINTAIN f"]
    kept = {k: v for k, v in found.items() if not (k.startswith("constraint") and v.startswith("NOT NULL"))}
    for word in words:
        kept = {key: value.replace(word, "") for key, value in kept.items()}
    return kept


def test_each_step_up_and_down(empty: str, catalog_at: dict[str | None, Catalog]) -> None:
    """Each downgrade takes back exactly what its upgrade made, whatever came before it."""
    migrate.upgrade(empty)
    for revision, below in zip(reversed(revisions()), [*reversed(revisions()[:-1]), None], strict=True):
        assert migrate.downgrade(empty, below or "base") == [revision]
        assert revision_of(empty) == below
        assert difference(catalog_at[below], read(empty)) == []
    for revision in revisions():
        assert migrate.upgrade(empty, revision) == [revision]
        assert difference(catalog_at[revision], read(empty)) == []


def test_each_step_up_and_down_on_the_oldest(oldest_server: Server, databases: Databases) -> None:
    url = databases.new(oldest_server)
    found: dict[str | None, Catalog] = {None: read(url)}
    for revision in revisions():
        assert migrate.upgrade(url, revision) == [revision]
        found[revision] = read(url)
    for below in [*reversed(revisions()[:-1]), None]:
        migrate.downgrade(url, below or "base")
        assert difference(found[below], read(url)) == []


def test_down_with_rows_in_the_tables(empty: str, catalog_at: dict[str | None, Catalog]) -> None:
    migrate.upgrade(empty)
    execute(
        empty,
        "INSERT INTO users (email, password_hash, full_name) VALUES ('a@example.org', 'x', 'A')",
        "INSERT INTO deeds (user_id, category_type, name) SELECT user_id, 'hasanaat', 'Prayer' FROM users",
        "INSERT INTO deed_items (deed_id, name, value_type) SELECT deed_id, 'Fajr', 'count' FROM deeds",
        "INSERT INTO entries (user_id, deed_item_id, entry_date, count_value)"
        " SELECT user_id, deed_item_id, current_date, 1 FROM users, deed_items",
        "SELECT jobs.enqueue('progress.refresh')",
    )
    migrate.downgrade(empty, "base")
    assert difference(catalog_at[None], read(empty)) == []


def test_archived_partitions_are_not_thrown_away_by_a_downgrade(empty: str) -> None:
    migrate.upgrade(empty)
    execute(empty, "CREATE TABLE archive.entries_2001 AS SELECT 1 AS kept")
    with pytest.raises(ServerError, match="archive"):
        migrate.downgrade(empty, "base")
    assert revision_of(empty) == "0001"
    assert scalars(empty, "SELECT kept FROM archive.entries_2001") == [1]


def test_an_upgrade_writes_the_kinds_of_jobs(empty: str) -> None:
    migrate.upgrade(empty)
    assert set(scalars(empty, "SELECT name FROM jobs.kinds")) == set(JOBS)
    execute(empty, "UPDATE jobs.kinds SET queue = 'another'", "DELETE FROM jobs.kinds WHERE name LIKE 'p%'")
    migrate.upgrade(empty)
    assert set(scalars(empty, "SELECT name FROM jobs.kinds WHERE queue <> 'another'")) == set(JOBS)


def test_a_superuser_migrates_for_the_owner(
    empty: str, url_for: Server, catalog_at: dict[str | None, Catalog]
) -> None:
    """Whoever migrates, every object belongs to kitaab_admin, and it can go on from there."""
    name = empty.rpartition("/")[2]
    superuser = url_for("postgres", name)
    for revision in ("0002", "0005"):  # each in a session of its own
        migrate.upgrade(superuser, revision)
    migrate.upgrade(empty)
    assert difference(_owned(catalog_at[migrate.head()]), _owned(read(empty))) == []
    assert migrate.downgrade(superuser, "base") == revisions()
    assert migrate.upgrade(superuser) == revisions()


def _owned(found: Catalog) -> Catalog:
    """Leave the schema public out: only there a superuser has to grant what the owner has anyway."""
    return {key: value for key, value in found.items() if key != "schema public"}


def test_a_server_without_our_roles_gets_them(bare_server: EmbeddedPostgres) -> None:
    """As on a managed service: no superuser, only a login that may make roles and owns the database."""
    execute(
        bare_server.url(),
        "CREATE ROLE dba LOGIN CREATEROLE PASSWORD 'dba-secret'",
        "CREATE DATABASE managed OWNER dba TEMPLATE template0",
    )
    url = bare_server.url(database="managed").replace(bare_server.secrets["postgres"], "dba-secret")
    url = url.replace("//postgres:", "//dba:")
    assert migrate.upgrade(url) == revisions()
    assert migrate.upgrade(url) == []
    roles = "SELECT rolname FROM pg_authid WHERE rolname LIKE 'kitaab%' AND NOT rolcanlogin AND rolpassword IS NULL"
    assert set(scalars(bare_server.url(), roles)) == set(ROLES)
    owners = "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname IN ('public', 'jobs')"
    assert scalars(url, owners) == ["kitaab_admin"]
    assert migrate.downgrade(url, "base") == revisions()

"""The schema: what is missing, switched off, or half done."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import psycopg
import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from kitaab_jobs.db.engines import libpq_url
from kitaab_jobs.db.migrate import head, scripts
from kitaab_jobs.health.checks import DATABASE
from kitaab_jobs.health.rules.schema import WORKER_FUNCTIONS, WORKER_SCHEMAS, WORKER_TABLES
from tests.health.conftest import Doctor

Run = Callable[..., None]


def test_a_fresh_database_is_in_order(doctor: Doctor) -> None:
    found = [doctor.check(check.name) for check in DATABASE if check.name.startswith("schema.")]
    assert len(found) > 5
    assert [one for one in found if one.level != "ok"] == []


def test_an_older_revision_is_to_be_migrated(own_doctor: Doctor, run_sql: Run) -> None:
    run_sql("UPDATE alembic_version SET version_num = '0003'")
    found = own_doctor.check("schema.revision")
    assert (found.level, found.remedy) == ("fail", "run 'kitaab-jobs migrate'")
    revisions = sorted(file.stem[:4] for file in (scripts() / "versions").glob("[0-9]*.py"))
    assert f"0003, {len(revisions) - 3} behind {head()}" in found.what


def test_an_unknown_revision_is_a_newer_one(own_doctor: Doctor, run_sql: Run) -> None:
    run_sql("UPDATE alembic_version SET version_num = 'ffff'")
    found = own_doctor.check("schema.revision")
    assert found.level == "fail"
    assert "ffff" in found.what
    assert "deploy" in (found.remedy or "")


def test_an_empty_database_is_to_be_migrated(
    doctor: Doctor, url_for: Callable[[str, str], str], run_as_superuser: Run, worker_id: str
) -> None:
    name = f"doctor_empty_{worker_id}"
    run_as_superuser("postgres", f"CREATE DATABASE {name} OWNER kitaab_admin")
    try:
        doctor.set(database_url=url_for("kitaab_worker", name), admin_url=url_for("kitaab_admin", name))
        found = doctor.examine()
        assert found["schema.revision"].level == "fail"
        assert found["schema.revision"].remedy == "run 'kitaab-jobs migrate'"
        needs_tables = (
            "schema.grants",
            "schema.partitions",
            "schema.kinds",
            "time.stored_zones",
            "processes.beat",
        )
        for check in needs_tables:
            assert (found[check].level, found[check].what) == ("skip", "the database was never migrated")
        assert found["postgres.version"].level == "ok"
    finally:
        run_as_superuser("postgres", f"DROP DATABASE {name} WITH (FORCE)")


def test_each_missing_right_is_named(own_doctor: Doctor, run_sql: Run) -> None:
    rights = {
        "INSERT ON jobs.jobs": "INSERT on jobs.jobs",
        "UPDATE (percent) ON merits": "UPDATE(percent) on public.merits",
        "USAGE ON SCHEMA jobs": "USAGE on schema jobs",
        "EXECUTE ON FUNCTION jobs.make_partition(text, date, date)": "EXECUTE on jobs.make_partition",
    }
    for right, name in rights.items():
        run_sql(f"REVOKE {right} FROM kitaab_worker")
        found = own_doctor.check("schema.grants")
        assert (found.level, found.what.endswith(f"lacks 1 of its rights: {name}")) == ("fail", True), found
        run_sql(f"GRANT {right} TO kitaab_worker")
    assert own_doctor.check("schema.grants").level == "ok"


def test_a_schema_that_is_closed_is_told_without_an_error(own_doctor: Doctor, run_sql: Run) -> None:
    run_sql("REVOKE USAGE ON SCHEMA jobs FROM kitaab_worker")
    found = own_doctor.examine()
    assert "USAGE on schema jobs" in found["schema.grants"].what
    assert found["schema.kinds"].level == "warn"
    assert "permission denied" in found["schema.kinds"].what


def test_the_rights_that_are_asked_for_are_those_that_migrations_grant(connection: Connection) -> None:
    granted = set(
        connection.scalars(
            text(
                """
                SELECT n.nspname || '.' || c.relname || ' ' || a.privilege_type
                FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
                CROSS JOIN aclexplode(c.relacl) AS a
                WHERE a.grantee = 'kitaab_worker'::regrole AND c.relkind IN ('r', 'p', 'v', 'm')
                UNION ALL
                SELECT n.nspname || '.' || c.relname || ' ' || a.privilege_type || ' ' || t.attname
                FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
                JOIN pg_attribute AS t ON t.attrelid = c.oid CROSS JOIN aclexplode(t.attacl) AS a
                WHERE a.grantee = 'kitaab_worker'::regrole
                UNION ALL
                SELECT 'schema ' || n.nspname FROM pg_namespace AS n CROSS JOIN aclexplode(n.nspacl) AS a
                WHERE a.grantee = 'kitaab_worker'::regrole AND a.privilege_type = 'USAGE'
                UNION ALL
                SELECT 'function ' || n.nspname || '.' || p.proname
                FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace
                CROSS JOIN aclexplode(p.proacl) AS a WHERE a.grantee = 'kitaab_worker'::regrole
                """
            )
        )
    )
    asked = {
        *(f"{r.object} {r.privilege} {c}".strip() for r in WORKER_TABLES for c in r.columns or ("",)),
        *(f"schema {name}" for name in WORKER_SCHEMAS),
        *(f"function {name}" for name in WORKER_FUNCTIONS),
    }
    assert asked == granted, "bring kitaab_jobs/health/rules/schema.py in line with the migrations"


def test_each_table_without_row_security_is_named(own_doctor: Doctor, run_sql: Run) -> None:
    partition = f"entries_{time.gmtime().tm_year}"
    for table in ("users", "jobs.deliveries", "deed_items", partition, "audit_log"):
        run_sql(f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY")
        found = own_doctor.check("schema.row_security")
        assert (found.level, f"{table}: every person" in found.what) == ("fail", True), found
        run_sql(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
    assert own_doctor.check("schema.row_security").level == "ok"


def test_a_new_table_of_people_needs_row_security(own_doctor: Doctor, run_sql: Run) -> None:
    run_sql("CREATE TABLE diaries (user_id bigint)", "CREATE TABLE archive.old (user_id bigint)")
    found = own_doctor.check("schema.row_security")
    assert "public.diaries" in found.what
    assert "archive.old" in found.what


def test_a_missing_partition_is_found_before_it_is_needed(own_doctor: Doctor, run_sql: Run) -> None:
    year = time.gmtime().tm_year
    run_sql(f"ALTER TABLE entry_history DETACH PARTITION entry_history_{year}")
    found = own_doctor.check("schema.partitions")
    assert found.level == "fail"
    assert "entry_history from" in found.what
    assert "archive.make_partitions" in (found.remedy or "")


def test_a_half_detached_partition_is_found(database: Engine, own_doctor: Doctor, run_sql: Run) -> None:
    """A reader of the table makes DETACH CONCURRENTLY wait; one that is interrupted there stays half done."""
    year = time.gmtime().tm_year - 3
    url = libpq_url(database.url.render_as_string(hide_password=False))
    with psycopg.connect(url) as reader, psycopg.connect(url, autocommit=True) as detacher:
        reader.execute("SELECT count(*) FROM entries")
        ended = threading.Thread(target=_detach, args=(detacher, f"entries_{year}"))
        ended.start()
        _until(lambda: own_doctor.check("schema.detached").level == "warn")
        detacher.cancel()
        ended.join(10)
    found = own_doctor.check("schema.detached")
    assert found.level == "warn"
    assert f"ALTER TABLE entries DETACH PARTITION entries_{year} FINALIZE" in (found.remedy or "")
    run_sql(f"ALTER TABLE entries DETACH PARTITION entries_{year} FINALIZE")
    assert own_doctor.check("schema.detached").level == "ok"


def _detach(connection: psycopg.Connection, partition: str) -> None:
    with pytest.raises(psycopg.errors.QueryCanceled):
        connection.execute(f"ALTER TABLE entries DETACH PARTITION {partition} CONCURRENTLY".encode())


def _until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_default_partition_is_found(own_doctor: Doctor, run_sql: Run) -> None:
    run_sql(
        "CREATE TABLE entries_rest PARTITION OF entries DEFAULT",
        "ALTER TABLE entries_rest ENABLE ROW LEVEL SECURITY",
    )
    found = own_doctor.check("schema.default_partitions")
    assert (found.level, "entries_rest" in found.what) == ("warn", True)
    assert own_doctor.check("schema.partitions").level == "ok"


def test_an_index_that_failed_to_build_is_found(database: Engine, own_doctor: Doctor, run_sql: Run) -> None:
    run_sql("CREATE TABLE samples (value int)", "INSERT INTO samples VALUES (0), (0)")
    with database.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for index, level in (
            ("INDEX CONCURRENTLY plain ON samples ((1 / value))", "warn"),
            ("UNIQUE INDEX CONCURRENTLY strict ON samples (value)", "fail"),
        ):
            with pytest.raises(DBAPIError):
                connection.execute(text(f"CREATE {index}"))
            found = own_doctor.check("schema.indexes")
            assert (found.level, "public.plain on samples" in found.what) == (level, True)


def test_a_job_that_the_database_does_not_know_is_named(own_doctor: Doctor, run_sql: Run) -> None:
    run_sql("UPDATE jobs.kinds SET queue = 'other' WHERE name = 'progress.refresh'")
    assert own_doctor.check("schema.kinds").level == "warn"
    run_sql("DELETE FROM jobs.kinds WHERE name = 'progress.refresh'")
    found = own_doctor.check("schema.kinds")
    assert (found.level, "progress.refresh" in found.what) == ("fail", True)


def test_a_table_that_is_locked_is_told_and_stops_nothing_else(database: Engine, own_doctor: Doctor) -> None:
    with database.begin() as connection:
        connection.execute(text("LOCK TABLE users IN ACCESS EXCLUSIVE MODE"))
        found = own_doctor.check("time.stored_zones")
    assert found.level == "warn"
    assert "lock timeout" in found.what

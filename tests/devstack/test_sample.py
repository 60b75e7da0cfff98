"""The sample data keeps its promises: it looks like life, comes out the same, and is there whole or not at all."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from kitaab_jobs import cli
from kitaab_jobs.db.engines import libpq_url, sqlalchemy_url
from kitaab_jobs.devstack.sample import database as sample_database
from kitaab_jobs.devstack.sample import load, nearly_there
from kitaab_jobs.devstack.sample.calendar import Calendar
from kitaab_jobs.devstack.sample.rows import COLUMNS
from kitaab_jobs.errors import KitaabError, ServerError, UsageError
from kitaab_jobs.progress import jobs as progress
from kitaab_jobs.settings import settings
from tests.devstack.observe import wait_for

TODAY = date(2026, 11, 22)
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
PEOPLE = 50

Ask = Callable[..., Any]


def url_of(engine: Engine) -> str:
    return engine.url.render_as_string(hide_password=False)


def small(engine: Engine | str, **options: Any) -> Any:
    """Load a sample that takes half a second."""
    return load(engine, **{"people": 8, "years": 1, "today": TODAY, **options})


def fingerprint(engine: Engine) -> dict[str, str]:
    """Return a hash of the rows of each table."""
    hashes = {}
    with engine.connect() as connection:
        for table, columns in COLUMNS.items():
            hashes[table] = connection.scalar(
                text(
                    f"SELECT md5(coalesce(string_agg(t::text, '|' ORDER BY t.{columns[0]}), '')) FROM {table} AS t"
                )
            )
    return hashes


def left_behind(engine: Engine) -> dict[str, int]:
    """Return the tables that have rows, and the sequences that were used."""
    tables = [*COLUMNS, "entry_history", "audit_log", "jobs.progress_marks"]
    found = {}
    with engine.connect() as connection:
        for table in tables:
            found[table] = connection.scalar(text(f"SELECT count(*) FROM {table}"))
        for table, columns in COLUMNS.items():
            name = f"{table}_{columns[0]}_seq"
            found[name] = connection.scalar(text(f"SELECT is_called::integer FROM {name}"))
    return {name: number for name, number in found.items() if number}


@pytest.fixture(scope="module")
def loaded(_cloned: Callable[[], str], url_for: Callable[[str, str], str]) -> tuple[Engine, Any]:
    """A database with a sample, and the load's report; tests only read it."""
    engine = create_engine(sqlalchemy_url(url_for("kitaab_admin", _cloned())), poolclass=NullPool)
    return engine, load(engine, people=PEOPLE, years=1, today=TODAY)


@pytest.fixture
def ask(loaded: tuple[Engine, Any]) -> Ask:
    """Return a function that gives the first column of a query's first row."""

    def one(query: str, **values: Any) -> Any:
        with loaded[0].connect() as connection:
            return connection.scalar(text(query), values)

    return one


# --- determinism -----------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_rows(database_factory: Callable[[], Engine]) -> None:
    one, two, other = database_factory(), database_factory(), database_factory()
    small(one, seed=5)
    small(url_of(two), seed=5)
    small(other, seed=6)
    assert fingerprint(one) == fingerprint(two)
    same = {table for table, found in fingerprint(other).items() if found == fingerprint(one)[table]}
    assert not same - {"relations", "permissions", "messages"}  # which so few people may lack


def test_a_leap_day_has_an_anniversary() -> None:
    calendar = Calendar(date(2028, 2, 29), 1)
    assert calendar.start == date(2027, 2, 28)
    assert calendar.date(calendar.span) == date(2028, 2, 29)


# --- looks like life -------------------------------------------------------------------------------


def test_the_report_counts_what_is_there(loaded: tuple[Engine, Any], ask: Ask) -> None:
    report = loaded[1]
    for table in COLUMNS:
        assert report.rows[table] == ask(f"SELECT count(*) FROM {table}"), table
    assert report.people == PEOPLE == report.rows["users"]
    assert report.zones == ask("SELECT count(DISTINCT timezone) FROM users")
    assert (report.first_day, report.last_day) == (
        ask("SELECT min(entry_date) FROM entries"),
        ask("SELECT max(entry_date) FROM entries"),
    )
    # A million for 500 people and three years.
    assert PEOPLE / 500 / 3 <= report.entries / 1_000_000 <= 1.06 * PEOPLE / 500 / 3


def test_people_live_everywhere_and_nobody_can_be_written_to(ask: Ask) -> None:
    assert ask("SELECT count(DISTINCT timezone) FROM users") >= 40
    assert ask("SELECT count(DISTINCT language) FROM users") >= 8
    reserved = r"@([a-z]+\.)?example\.(org|com|net)$"
    assert ask("SELECT count(*) FROM users WHERE email !~ :reserved", reserved=reserved) == 0
    assert ask("SELECT count(*) FROM users WHERE password_hash !~ '^\\$argon2id\\$v=19\\$'") == 0
    assert ask("SELECT count(DISTINCT password_hash) FROM users") == PEOPLE


def test_deeds_are_trees_of_three_levels(ask: Ask) -> None:
    assert ask("SELECT array_agg(DISTINCT level ORDER BY level) FROM deed_items") == [1, 2, 3]
    assert ask("SELECT count(DISTINCT category_type) FROM deeds") == 2
    assert ask("SELECT count(DISTINCT value_type) FROM deed_items") == 2
    assert ask("SELECT count(DISTINCT i.level) FROM entries JOIN deed_items AS i USING (deed_item_id)") == 3


def test_a_new_version_of_a_scale_takes_over(ask: Ask) -> None:
    assert ask("SELECT count(*) FROM scales WHERE version = 2 AND is_active") > 0
    assert ask("SELECT count(*) FROM scales WHERE version = 1 AND NOT is_active") > 0
    overlaps = """
        SELECT count(*) FROM (
            SELECT FROM entries AS e JOIN scales AS s USING (scale_id)
            GROUP BY e.deed_item_id, s.name
            HAVING max(e.entry_date) FILTER (WHERE s.version = 1) >= min(e.entry_date) FILTER (WHERE s.version = 2)
        ) AS items"""
    assert ask(overlaps) == 0
    # The best value is the most frequent one by far.
    assert (
        ask("SELECT avg((v.value_order = 0)::int) FROM entries JOIN scale_values AS v USING (scale_value_id)")
        > 0.4
    )


def test_entries_have_streaks_and_gaps(ask: Ask) -> None:
    runs = """
        WITH numbered AS (
            SELECT deed_item_id, entry_date,
                   entry_date - (row_number() OVER (PARTITION BY deed_item_id ORDER BY entry_date))::int AS run,
                   entry_date - lag(entry_date) OVER (PARTITION BY deed_item_id ORDER BY entry_date) AS gap
            FROM entries
        ), lengths AS (SELECT count(*) AS days FROM numbered GROUP BY deed_item_id, run)
        SELECT {} """
    assert ask(runs.format("count(*) FROM lengths WHERE days >= 21")) >= 10
    assert ask(runs.format("count(*) FROM lengths WHERE days = 1")) >= 10
    assert ask(runs.format("count(*) FROM numbered WHERE gap >= 10")) >= 10


def test_weekends_people_who_gave_up_and_people_who_came_late(ask: Ask) -> None:
    on_rest_days = """
        SELECT avg((extract(isodow FROM entry_date) >= 6)::int) FROM entries JOIN deed_items USING (deed_item_id)
        JOIN users USING (user_id) WHERE name = :name AND timezone LIKE 'Europe/%'"""
    assert (ask(on_rest_days, name="Homework together") or 0) < 0.2
    assert (ask(on_rest_days, name="Meals brought") or 1) > 0.4
    spans = (
        "(SELECT user_id, min(entry_date) AS first, max(entry_date) AS last FROM entries GROUP BY user_id)"
    )
    quiet_for = f"SELECT count(*) FROM {spans} AS s WHERE last < CAST(:today AS date) - 60"
    assert ask(quiet_for, today=TODAY) >= 3
    came_late = f"SELECT count(*) FROM {spans} AS s WHERE first > CAST(:start AS date) + 90"
    assert ask(came_late, start=TODAY - timedelta(days=365)) >= 10


def test_nothing_lies_in_the_future(ask: Ask) -> None:
    midnight = datetime(TODAY.year, TODAY.month, TODAY.day, tzinfo=UTC)
    tables = [table for table, columns in COLUMNS.items() if "created_at" in columns]
    for table in tables:
        query = f"SELECT count(*) FROM {table} WHERE greatest(created_at, updated_at) > :midnight"
        assert ask(query, midnight=midnight) == 0, table
    # Recorded on its own day, where that person is, or the day after.
    days = """SELECT array_agg(DISTINCT (e.created_at AT TIME ZONE u.timezone)::date - e.entry_date)
              FROM entries AS e JOIN users AS u USING (user_id)"""
    assert ask(days) == [0, 1]


def test_notes_are_in_several_languages(ask: Ask) -> None:
    assert 0.01 < ask("SELECT avg((notes IS NOT NULL)::int) FROM entries") < 0.1
    assert ask("SELECT count(*) FROM entries WHERE notes ~ '[ء-ي]'") > 0
    assert ask("SELECT count(*) FROM entries WHERE notes ~ '^[ -~]+$'") > 0


def test_relations_and_permissions_come_in_all_states(ask: Ask) -> None:
    assert ask("SELECT array_agg(DISTINCT status::text) FROM relations") >= ["accepted", "blocked", "pending"]
    assert ask("SELECT count(DISTINCT (permission_type, is_active)) FROM permissions") == 4
    assert ask("SELECT max(version) FROM permissions") == 2
    unpermitted = """
        SELECT count(*) FROM entries AS e WHERE created_by_user_id IS NOT NULL AND NOT EXISTS (
            SELECT FROM relations AS r JOIN permissions AS p USING (relation_id)
            WHERE r.requester_id = e.created_by_user_id AND r.requestee_id = e.user_id AND r.status = 'accepted'
              AND p.deed_item_id = e.deed_item_id AND p.permission_type = 'write'
              AND p.created_at < e.created_at)"""
    assert ask("SELECT count(*) FROM entries WHERE created_by_user_id IS NOT NULL") > 0
    assert ask(unpermitted) == 0


def test_reminders_are_at_many_local_times(ask: Ask) -> None:
    assert ask("SELECT count(*) FROM notifications WHERE is_active") >= 0.7 * PEOPLE
    assert ask("SELECT count(*) FROM notifications WHERE NOT is_active") > 0
    assert ask("SELECT count(DISTINCT notification_time) FROM notifications WHERE is_active") >= 15
    assert ask("SELECT count(*) FROM notifications WHERE next_due_at IS NOT NULL") == 0
    of_gone = "SELECT count(*) FROM notifications AS n JOIN users AS u USING (user_id) WHERE n.is_active AND NOT u.is_active"
    assert ask(of_gone) == 0


def test_goals_come_in_all_kinds_and_none_is_complete_yet(ask: Ask) -> None:
    for table, kind in (("merits", "merit_type"), ("targets", "target_type")):
        assert ask(f"SELECT array_agg(DISTINCT {kind}::text ORDER BY {kind}::text) FROM {table}") == [
            "AND",
            "OR",
        ]
        assert ask(f"SELECT count(*) FROM {table} WHERE completed_at IS NOT NULL OR percent > 0") == 0
    assert ask("SELECT count(DISTINCT (duration_days IS NULL)) FROM merits") == 2
    assert ask("SELECT max(n) FROM (SELECT count(*) AS n FROM merit_items GROUP BY merit_id) AS t") >= 2
    several = "SELECT count(DISTINCT i.deed_id) FROM target_items JOIN deed_items AS i USING (deed_item_id) GROUP BY target_id"
    assert ask(f"SELECT max(count) FROM ({several}) AS t") >= 2
    stages = "count(*) FILTER (WHERE end_date < :d), count(*) FILTER (WHERE start_date > :d), count(*)"
    assert all(ask(f"SELECT ARRAY[{stages}] FROM targets", d=TODAY))


def test_the_triggers_have_run(ask: Ask) -> None:
    assert ask("SELECT count(*) FROM entry_history WHERE operation = 'insert'") == ask(
        "SELECT count(*) FROM entries"
    )
    audited = "SELECT count(*) FROM audit_log WHERE table_name = :table AND action_type = 'insert'"
    for table in set(COLUMNS) - {"entries"}:
        assert ask(audited, table=table) == ask(f"SELECT count(*) FROM {table}"), table
    unmarked = """SELECT count(*) FROM (SELECT deed_item_id FROM entries
                  EXCEPT SELECT subject_id FROM jobs.progress_marks WHERE kind = 'item') AS t"""
    assert ask(unmarked) == 0


def test_new_rows_get_keys_after_the_samples(loaded: tuple[Engine, Any]) -> None:
    with loaded[0].connect() as connection:
        for table, columns in COLUMNS.items():
            last = connection.scalar(text(f"SELECT max({columns[0]}) FROM {table}"))
            following = connection.scalar(text(f"SELECT last_value + 1 FROM {table}_{columns[0]}_seq"))
            assert following > last, table


# --- merits that one entry completes ---------------------------------------------------------------


def test_one_entry_completes_what_is_nearly_there(database: Engine) -> None:
    report = load(database, people=30, years=1, seed=2, today=TODAY)
    record = text(
        "INSERT INTO entries (user_id, deed_item_id, entry_date, count_value, scale_value_id)"
        " VALUES (:user_id, :deed_item_id, :day, :count_value, :scale_value_id)"
    )
    with Session(database) as session:
        near = nearly_there(session.connection(), 100, now=NOON)
        assert len(near) >= report.nearly_there > 0
        assert nearly_there(session.connection(), 2, now=NOON) == near[:2]
        progress.refresh(session, now=NOON, limit=1_000_000)
        complete = text("SELECT merit_id FROM merits WHERE completed_at IS NOT NULL")
        before = set(session.scalars(complete))
        assert before, "some merits are complete without another entry"
        assert not before & {merit.merit_id for merit in near}
        for merit in near:
            count = merit.missing if merit.scale_value_id is None else None
            session.execute(record, {**merit._asdict(), "count_value": count})
        progress.refresh(session, now=NOON, limit=1_000_000)
        assert {merit.merit_id for merit in near} <= set(session.scalars(complete))
        assert nearly_there(session.connection(), 100, now=NOON) == []


# --- whole or not at all ---------------------------------------------------------------------------


def test_a_database_with_people_is_refused(database: Engine) -> None:
    small(database)
    before = fingerprint(database)
    with pytest.raises(KitaabError, match=r"already has 8 people.*--add"):
        small(database, seed=9)
    assert fingerprint(database) == before
    small(database, add=True)
    with database.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM users")) == 16


def test_an_error_half_way_leaves_nothing(database: Engine, database_factory: Callable[[], Engine]) -> None:
    def stop(stage: str, done: int, _total: int) -> None:
        if stage == "entries" and done > 1000:
            raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        small(database, on_progress=stop)
    assert left_behind(database) == {}
    other = database_factory()
    small(database)
    small(other)
    assert fingerprint(database) == fingerprint(other)


def test_a_killed_load_leaves_nothing(database: Engine) -> None:
    program = """
        import sys, time
        from datetime import date
        from kitaab_jobs.devstack.sample import load

        def tell(stage, done, total):
            if stage == "entries" and done > total / 2:
                print("half", flush=True)
                time.sleep(60)

        load(sys.argv[1], people=20, years=1, today=date(2026, 11, 22), on_progress=tell)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program), url_of(database)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == "half\n"
        os.kill(process.pid, signal.SIGKILL)
    process.wait()
    others = text("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'kitaab-jobs seed'")

    def gone() -> bool:
        with database.connect() as connection:
            return bool(connection.scalar(others) == 0)

    wait_for(gone)
    assert left_behind(database) == {}
    small(database)


def test_a_load_cut_off_between_its_commits_is_recognised(
    database: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("cut off")

    monkeypatch.setattr("kitaab_jobs.devstack.sample.loader.copy_tables", fail)
    with pytest.raises(RuntimeError, match="cut off"):
        small(database)
    monkeypatch.undo()
    with pytest.raises(KitaabError, match="a part of a sample: its load was cut off"):
        small(database)


def test_two_loads_at_once_are_refused(database: Engine) -> None:
    with (
        psycopg.connect(libpq_url(url_of(database))) as other,
        sample_database.alone(other),
        pytest.raises(KitaabError, match="another load"),
    ):
        small(database)
    assert left_behind(database) == {}


def test_missing_partitions_are_made(database: Engine) -> None:
    report = load(database, people=4, years=7, today=TODAY)
    assert report.first_day.year == 2019
    assert report.last_day >= TODAY - timedelta(days=1)


@pytest.mark.parametrize("wrong", [{"people": 0}, {"people": 20_001}, {"years": 0}, {"years": 11}])
def test_numbers_out_of_range_are_refused(wrong: dict[str, int]) -> None:
    (name, value), *_ = wrong.items()
    with pytest.raises(UsageError, match=f"{name} cannot be {value}: give a number from 1 to"):
        small("postgresql://nobody@127.0.0.1:1/none", **wrong)


def test_databases_that_cannot_take_it_are_named(
    database: Engine, engine_as: Callable[[str], Engine], url_for: Callable[[str, str], str]
) -> None:
    with pytest.raises(ServerError, match=r"nobody:\*\*\*@127.0.0.1:1/none cannot be used.*doctor"):
        small("postgresql://nobody:secret@127.0.0.1:1/none")
    with pytest.raises(ServerError, match=r"no tables of Kitaab.*migrate"):
        small(url_for("postgres", "postgres"))
    with pytest.raises(ServerError, match=r"permission denied.*KITAAB_ADMIN_URL to the owner of the tables"):
        small(engine_as("kitaab_worker"))


# --- the command -----------------------------------------------------------------------------------


def run(words: list[str]) -> int:
    return cli.run(lambda: cli.build(words)(words))


def test_the_command(
    database: Engine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KITAAB_DATABASE_URL", url_of(database))
    monkeypatch.setattr("kitaab_jobs.cli.bars.QUIET_SECONDS", 0.0)
    settings.cache_clear()
    try:
        assert run(["seed", "--people", "5", "--years", "1", "--json"]) == 0
        printed = capsys.readouterr()
        report = json.loads(printed.out)
        assert report["people"] == report["rows"]["users"] == 5
        assert f"entries: {report['entries']:,} of {report['entries']:,}" in printed.err
        assert run(["seed", "--people", "5"]) == 1
        assert capsys.readouterr().err.startswith("error: the database already has 5 people")
        assert run(["seed", "--people", "5", "--years", "1", "--add"]) == 0
        assert capsys.readouterr().out.startswith("5 people in 5 zones and ")
        assert run(["seed", "--people", "0"]) == 2
    finally:
        settings.cache_clear()

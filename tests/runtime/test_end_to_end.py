"""The platform as processes: a worker, a beat, PostgreSQL and Redis, of which anything may be killed."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg
from redis import Redis
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.pool import NullPool

from kitaab_jobs.db.engines import libpq_url
from kitaab_jobs.devstack.redis import EmbeddedRedis
from kitaab_jobs.runtime.job import job_id
from kitaab_jobs.runtime.messages import MANY
from kitaab_jobs.runtime.relay import FEW_MESSAGES
from kitaab_jobs.settings import VERSION
from tests.conftest import engine_for
from tests.devstack.observe import is_gone, wait_for
from tests.runtime import rows
from tests.runtime.platform import A_WHILE, LONG, Platform
from tests.runtime.platform_fixtures import _platform, database_name, folder, platform
from tests.runtime.processes import Celery, celery
from tests.runtime.sample_jobs import CRASH, ENDLESS, QUERY, WRITE

__all__ = ["_platform", "database_name", "folder", "platform"]

MERIT = """
    INSERT INTO users (user_id, email, password_hash, full_name) VALUES (1, 'amina@example.org', 'x', 'Amina');
    INSERT INTO deeds (deed_id, user_id, category_type, name) VALUES (1, 1, 'hasanaat', 'Reading');
    INSERT INTO deed_items (deed_item_id, deed_id, name, value_type) VALUES (1, 1, 'Pages', 'count');
    INSERT INTO merits (merit_id, user_id, deed_id, name, merit_type, start_date)
    VALUES (1, 1, 1, 'Ten pages', 'AND', CURRENT_DATE);
    INSERT INTO merit_items (merit_id, deed_id, deed_item_id, item_type, target_value) VALUES (1, 1, 1, 'count', 10)
"""
ENTRY = """
    INSERT INTO entries (user_id, deed_item_id, entry_date, count_value) VALUES (1, 1, CURRENT_DATE, 10)
"""


def test_an_entry_written_in_sql_completes_a_merit(
    tmp_path: Path,
    database: Engine,
    url_for: Callable[[str, str], str],
    redis_url: str,
) -> None:
    """The platform exactly as it is shipped."""
    assert database.url.database
    worker_url = url_for("kitaab_worker", database.url.database)
    admin = libpq_url(url_for("kitaab_admin", database.url.database))
    with (
        celery(tmp_path, worker_url, redis_url, "kitaab_jobs") as commands,
        psycopg.connect(admin, autocommit=True) as psql,
    ):
        worker, beat = commands.start("worker"), commands.start("beat")
        for statement in MERIT.split(";"):
            psql.execute(statement.encode())
        psql.execute(ENTRY)

        def completed() -> bool:
            row = psql.execute(
                "SELECT percent, completed_at IS NOT NULL, (SELECT count(*) FROM jobs.progress_marks) FROM merits"
            ).fetchone()
            return row == (100, True, 0)

        wait_for(completed, seconds=A_WHILE)
        assert (beat.terminate(), worker.terminate()) == (0, 0)
        for process in (worker, beat):
            assert "Traceback" not in process.output
        alive = psql.execute("SELECT kind FROM jobs.processes ORDER BY kind").fetchall()
        assert [kind for (kind,) in alive] == ["beat", "relay", "worker"]


class TestKilled:
    def test_a_workers_child(self, platform: Platform) -> None:
        note, pid = platform.running()
        main, before = platform.worker.pid, platform.worker.children
        os.kill(pid, signal.SIGKILL)
        row = platform.wait_until(note, "succeeded")
        assert row.attempt == 2
        assert platform.effects(note) == 1
        assert platform.worker.pid == main
        after = wait_for(lambda: [c for c in platform.worker.children if c not in before])
        assert pid not in after
        # What was forked while the parent had a connection of its own works as the others do.
        for other in [platform.add() for _ in range(8)]:
            platform.wait_until(other, "succeeded")

    def test_a_job_that_kills_its_process_each_time(self, platform: Platform) -> None:
        note = platform.add(job=CRASH)
        others = [platform.add() for _ in range(4)]
        row = platform.wait_until(note, "dead")
        assert row.attempt == row.max_attempts == 2
        assert "stopped while it ran this job (attempt 2 of 2)" in row.error
        assert platform.effects(note) == 0
        for other in others:
            platform.wait_until(other, "succeeded")

    def test_the_whole_worker(self, platform: Platform) -> None:
        note, pid = platform.running()
        platform.worker.kill()
        wait_for(lambda: is_gone(pid))
        platform.ready()
        assert platform.wait_until(note, "succeeded").attempt == 2
        assert platform.effects(note) == 1

    def test_beat(self, platform: Platform) -> None:
        before = len(platform.ticks())
        wait_for(lambda: len(platform.ticks()) > before, seconds=A_WHILE)
        platform.beat.kill()
        down = platform.add()
        time.sleep(2)
        assert platform.row(down).state == "ready"
        count = len(platform.ticks())
        _ = platform.beat
        platform.wait_until(down, "succeeded")
        wait_for(lambda: len(platform.ticks()) > count + 2, seconds=A_WHILE)
        ticks = platform.ticks()
        instants = [at for at, _ in ticks]
        assert len(set(instants)) == len(instants)
        seconds = (instants[-1] - instants[0]).total_seconds()
        assert len(instants) == seconds + 1, "a planned fire left no row"
        assert "missed" in {outcome for _, outcome in ticks}
        with platform.database.connect() as connection:
            doubled = connection.scalar(
                text(
                    "SELECT count(*) - count(DISTINCT (schedule, fire_at)) FROM jobs.jobs WHERE schedule IS NOT NULL"
                )
            )
        assert doubled == 0


class TestRedis:
    def test_is_wiped(self, platform: Platform) -> None:
        platform.worker.kill()
        notes = [platform.add() for _ in range(FEW_MESSAGES - 1)]  # with more, the relay holds back
        for note in notes:
            platform.wait_until(note, "published")
        flush(platform.redis)
        platform.ready()
        for note in notes:
            assert platform.wait_until(note, "succeeded").attempt == 1
            assert platform.effects(note) == 1

    def test_restarts_while_a_job_runs(self, platform: Platform) -> None:
        note, _ = platform.running(seconds=3)
        worker, beat = platform.worker.pid, platform.beat.pid
        platform.redis.restart(immediate=True)
        assert platform.wait_until(note, "succeeded").attempt == 1
        assert platform.effects(note) == 1
        platform.wait_until(platform.add(), "succeeded")
        assert (platform.worker.pid, platform.beat.pid) == (worker, beat)


def flush(server: EmbeddedRedis) -> None:
    client = Redis.from_url(server.url(0))
    client.flushall()
    client.close()


class TestPostgres:
    def test_is_away_when_a_message_comes(
        self, platform: Platform, database_name: str, url_for: Callable[[str, str], str]
    ) -> None:
        """A message without a row: were it acknowledged, nobody would know of it any more."""
        server = create_engine(
            engine_for(url_for("postgres", "postgres")).url, isolation_level="AUTOCOMMIT", poolclass=NullPool
        )
        with server.connect() as connection:
            connection.execute(text(f"ALTER DATABASE {database_name} ALLOW_CONNECTIONS false"))
            connection.execute(
                text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name"),
                {"name": database_name},
            )
        try:
            note, id = platform.send()
            wait_for(lambda: "was not started" in platform.worker.output, seconds=A_WHILE)
        finally:
            with server.connect() as connection:
                connection.execute(text(f"ALTER DATABASE {database_name} ALLOW_CONNECTIONS true"))
        row = platform.wait_until(note, "succeeded")
        assert row.id == id
        assert platform.effects(note) == 1


class TestStop:
    def test_sigterm_lets_the_job_end(self, platform: Platform) -> None:
        note, _ = platform.running(seconds=2)
        children = platform.worker.children
        assert platform.worker.terminate() == 0
        row = platform.row(note)
        assert (row.state, row.attempt) == ("succeeded", 1)
        assert platform.effects(note) == 1
        wait_for(lambda: all(map(is_gone, children)))

    def test_a_soft_shutdown_gives_the_job_back(self, platform: Platform) -> None:
        platform.worker.kill()
        worker = platform.commands.start("worker", "--without-mingle", REMAP_SIGTERM="SIGQUIT")
        note, pid = platform.running()
        assert worker.terminate() == 0
        row = platform.row(note)
        assert (row.attempt, row.error) == (0, "its worker gave it back")
        assert row.state in ("ready", "published")
        assert is_gone(pid)
        platform.ready()
        assert platform.wait_until(note, "succeeded").attempt == 1
        assert platform.effects(note) == 1

    def test_beat(self, platform: Platform) -> None:
        """Nor has it printed a traceback before, though other tests have taken its Redis away."""
        beat = platform.beat
        assert beat.terminate() == 0
        assert "Traceback" not in beat.output


def test_a_job_that_never_ends_is_stopped(platform: Platform) -> None:
    note = platform.add(job=ENDLESS)
    row = platform.wait_until(note, "dead")
    assert row.error == "the job ran longer than its time limit"
    assert platform.effects(note) == 0


def test_one_that_is_stopped_in_the_middle_of_a_statement(platform: Platform) -> None:
    note = platform.add(LONG, job=QUERY)
    row = platform.wait_until(note, "dead")
    assert row.error == "the job ran longer than its time limit"
    assert platform.effects(note) == 0
    # The process goes on, on another connection.
    for other in [platform.add() for _ in range(4)]:
        platform.wait_until(other, "succeeded")


def test_a_message_that_comes_twice(platform: Platform) -> None:
    """Sent past the ledger, the second time with the id of the first."""
    note, id = platform.send()
    row = platform.wait_until(note, "succeeded")
    assert (row.id, row.attempt, row.max_attempts) == (id, 1, WRITE.max_attempts)
    platform.send(note, id)
    wait_for(lambda: f"action=message_dropped id={id}" in platform.worker.output, seconds=A_WHILE)
    assert platform.effects(note) == 1


class TestMessages:
    """What clients send that know nothing of the ledger."""

    def test_positional_arguments_are_refused(self, platform: Platform) -> None:
        id = platform.send_raw(WRITE.name, args=["a note"])
        wait_for(lambda: platform.state(id) == "dead", seconds=A_WHILE)
        with platform.database.connect() as connection:
            row = rows.get(connection, id)
        assert row.error == ("sample.write: arguments have names, and 1 came without: send them as kwargs")
        assert (row.attempt, row.started_at) == (0, None)

    def test_an_id_that_is_no_uuid(self, platform: Platform) -> None:
        note = uuid4().hex
        given = f"order 66/{note}"
        for _ in range(2):
            platform.send_raw(WRITE.name, given, kwargs={"note": note})
        row = platform.wait_until(note, "succeeded")
        assert row.id == job_id(given)
        wait_for(lambda: f"action=message_dropped id={row.id}" in platform.worker.output, seconds=A_WHILE)
        assert platform.effects(note) == 1

    def test_a_job_that_this_version_does_not_know_waits(self, platform: Platform) -> None:
        id = platform.send_raw("sample.newer", kwargs={"a": 1})
        row = self.waits(platform, id)
        assert (row.name, row.args, row.queue) == ("sample.newer", {"a": 1}, "default")

    def test_so_do_many_in_one_message(self, platform: Platform) -> None:
        with platform.database.begin() as connection:
            ids = [rows.add(connection, "published", name="sample.newer", args={"n": n}) for n in range(3)]
        platform.send_raw("sample.newer", kwargs={MANY: [str(id) for id in ids]})
        assert [self.waits(platform, id).args for id in ids] == [{"n": n} for n in range(3)]

    def waits(self, platform: Platform, id: UUID) -> Any:
        wait_for(lambda: platform.state(id) == "scheduled", seconds=A_WHILE)
        with platform.database.begin() as connection:
            row = rows.get(connection, id)
            connection.execute(rows.DELETE, {"id": id})
        assert row.attempt == 0
        assert row.error == f"no worker of version {VERSION} knows the job 'sample.newer'"
        assert row.run_at > row.created_at
        return row


class TestCommands:
    """What anyone who knows Celery types."""

    def test_inspect_ping_status_report_and_call(self, platform: Platform) -> None:
        shipped = Celery(
            platform.commands.folder,
            platform.commands.env["KITAAB_DATABASE_URL"],
            platform.commands.env["KITAAB_REDIS_URL"],
            "kitaab_jobs",
        )
        # A beat that has just started, or lost its Redis in another test, listens a moment later: a ping is not kept for it.
        beat = f"celerybeat@{socket.gethostname()}: OK"
        wait_for(lambda: beat in shipped.ask("inspect", "ping", "--timeout", "2").stdout, seconds=A_WHILE)
        words = [
            ("inspect", "ping", "--timeout", "10"),
            ("status", "--timeout", "10"),
            ("report",),
            ("call", "progress.refresh", "--kwargs", '{"limit": 3}'),
        ]
        with ThreadPoolExecutor() as threads:
            ping, status, report, called = threads.map(lambda each: shipped.ask(*each), words)
        assert "pong" in ping.stdout
        assert beat in ping.stdout, "a beat that ticks answers too"
        assert "2 nodes online" in status.stdout
        assert "software -> celery:5.7" in report.stdout
        for done in (ping, status, report, called):
            assert done.returncode == 0
            assert "Traceback" not in done.stderr
            assert secret(shipped.env["KITAAB_REDIS_URL"]) not in done.stdout + done.stderr
        with platform.database.connect() as connection:
            statement = text("SELECT args FROM jobs.jobs WHERE id = :id AND state = 'succeeded'")
            called_id = {"id": called.stdout.strip()}
            wait_for(lambda: connection.scalar(statement, called_id) == {"limit": 3}, seconds=A_WHILE)

    def test_a_redis_url_that_cannot_be_used_is_one_clear_line(self, tmp_path: Path) -> None:
        commands = Celery(tmp_path, "postgresql://nobody@127.0.0.1:1/none", "redis://", "kitaab_jobs")
        cases = [
            ("worker", None, "error: no server: KITAAB_REDIS_URL is not set and no embedded stack runs on "),
            (
                "worker",
                "http://:hidden@localhost",
                "error: KITAAB_REDIS_URL: http://:***@localhost does not start ",
            ),
            (
                "beat",
                "redis://localhost:99999/0",
                "error: KITAAB_REDIS_URL: redis://... is not a URL",
            ),
        ]
        with ThreadPoolExecutor() as threads:
            ended = threads.map(lambda case: commands.ask(case[0], KITAAB_REDIS_URL=case[1]), cases)
        for done, (_, _, message) in zip(ended, cases, strict=True):
            assert done.returncode == 2
            assert done.stdout == ""
            assert done.stderr.startswith(message)
            assert done.stderr.count("\n") == 1

    def test_a_redis_that_is_not_there_is_waited_for(self, tmp_path: Path) -> None:
        url = "redis://:hidden@127.0.0.1:1/0"
        with celery(tmp_path, "postgresql://nobody@127.0.0.1:1/none", url, "kitaab_jobs") as commands:
            worker = commands.start("worker")
            wait_for(lambda: "Trying again" in worker.output, seconds=A_WHILE)
            assert worker.terminate() == 0
            assert "Traceback" not in worker.output
            assert "hidden" not in worker.output


def secret(url: str) -> str:
    return url.partition("//:")[2].partition("@")[0]

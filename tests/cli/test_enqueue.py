"""`kitaab-jobs enqueue` as a developer or operator sees it."""

from __future__ import annotations

import datetime as dt
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from uuid import UUID

import pytest
from sqlalchemy import Engine, text

from kitaab_jobs.contract import JOBS
from tests.cli.conftest import PROGRAM, ROOT, Command, Start
from tests.cli.rows import add, change, get
from tests.conftest import engine_for
from tests.devstack.observe import wait_for


def jobs(engine: Engine) -> int:
    with engine.connect() as connection:
        return int(connection.scalar(text("SELECT count(*) FROM jobs.jobs")) or 0)


def enqueued(engine: Engine, printed: tuple[int, str, str]) -> UUID:
    code, out, err = printed
    assert (code, err, out.count("\n")) == (0, "", 1)
    id = UUID(out.strip())
    assert get(engine, id) is not None
    return id


def test_the_id_is_printed(command: Command, ledger: Engine) -> None:
    row = get(ledger, enqueued(ledger, command("enqueue", "progress.refresh")))
    assert (row.name, row.state, row.queue, row.max_attempts, row.priority) == (
        "progress.refresh", "ready", "default", 5, 0,
    )  # fmt: skip


def test_each_flag_reaches_the_row(command: Command, ledger: Engine) -> None:
    words = ["--args", '{"limit": 7}', "--unique", "k", "--at", "2030-01-01T05:00+05:00", "--priority", "3"]
    words += ["--max-attempts", "2", "--queue", "long", "--group", "import-7", "--after-group", "import-6"]
    row = get(ledger, enqueued(ledger, command("enqueue", "progress.refresh", *words)))
    assert (row.args, row.unique_key, row.priority, row.max_attempts, row.queue, row.group_name, row.after_group) == (
        {"limit": 7}, "k", 3, 2, "long", "import-7", "import-6",
    )  # fmt: skip
    assert row.run_at == dt.datetime(2030, 1, 1, tzinfo=dt.UTC)
    assert row.state == "scheduled"


def test_a_limit_key(command: Command, ledger: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    limited = replace(JOBS["progress.refresh"], max_running=1)
    monkeypatch.setitem(JOBS, "progress.refresh", limited)
    with ledger.begin() as connection:
        connection.execute(text("UPDATE jobs.kinds SET max_running = 1 WHERE name = 'progress.refresh'"))
    try:
        id = enqueued(ledger, command("enqueue", "progress.refresh", "--limit-key", "amina"))
        assert get(ledger, id).limit_key == "progress.refresh/amina"
    finally:
        with ledger.begin() as connection:
            connection.execute(text("UPDATE jobs.kinds SET max_running = NULL"))


def test_a_unique_key(command: Command, ledger: Engine) -> None:
    first = enqueued(ledger, command("enqueue", "progress.refresh", "--unique", "k"))
    assert enqueued(ledger, command("enqueue", "progress.refresh", "--unique", "k")) == first
    change(ledger, first, "state = 'succeeded', finished_at = now()")
    again = ("enqueue", "progress.refresh", "--unique", "k", "--unique-for", "1h")
    assert enqueued(ledger, command(*again)) == first
    assert enqueued(ledger, command("enqueue", "progress.refresh", "--unique", "k")) != first


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["progres.refresh"], "no job is called 'progres.refresh': did you mean progress.refresh?"),
        (["refresh"], "no job is called 'refresh': did you mean progress.refresh?"),
        (["xyz"], "no job is called 'xyz': the jobs are archive.make_partitions, "),
        (["progress.refresh", "--at", ""], "--at '' is not a time: write it like 2026-11-23T07:00Z"),
        (["progress.refresh", "--at", "tomorrow"], "--at 'tomorrow' is not a time"),
        (["progress.refresh", "--at", "2026-11-23T07:00"], "--at '2026-11-23T07:00' has no offset"),
        (["progress.refresh", "--at", "9999-12-31T23:00-05:00"], "--at '9999-12-31T23:00-05:00' is beyond"),
        (["progress.refresh", "--args", ""], "--args '' is not JSON"),
        (["progress.refresh", "--args", "[1]"], "--args '[1]' is not an object"),
        (["progress.refresh", "--args", '{"limit": 0}'], "progress.refresh: limit: "),
        (["progress.refresh", "--args", '{"zone": 1}'], "progress.refresh: zone: "),
        (["progress.refresh", "--queue", "fast"], "no queue is called 'fast': the queues are default, "),
        (["progress.refresh", "--queue", ""], "no queue is called ''"),
        (["progress.refresh", "--unique", ""], "progress.refresh: unique_key '' has 0 characters"),
        (["progress.refresh", "--max-attempts", "0"], "progress.refresh: max_attempts is 0: it is 1 or more"),
        (["progress.refresh", "--priority", "3000000000"], "progress.refresh: priority 3000000000 is out"),
        (["progress.refresh", "--unique-for", "1h"], "--unique-for says how long a key counts, and there is"),
        (["progress.refresh", "--unique", "k", "--unique-for", "x"], "--unique-for 'x' is not a time"),
        (["progress.refresh", "--group", ""], "progress.refresh: group"),
        (["progress.refresh", "--after-group", "x" * 129], "progress.refresh: after_group"),
        (["progress.refresh", "--limit-key", "x" * 300], "progress.refresh: limit_key"),
    ],
)
def test_what_is_refused_is_one_line(command: Command, ledger: Engine, words: list[str], why: str) -> None:
    code, out, err = command("enqueue", *words)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"error: {why}")
    assert jobs(ledger) == 0


def test_wrong_usage(command: Command, ledger: Engine) -> None:
    for words in ([], ["progress.refresh", "surplus"], ["progress.refresh", "--priority", "high"]):
        assert command("enqueue", *words)[0] == 2
    assert jobs(ledger) == 0


class TestWait:
    def begun(self, ledger: Engine, process: subprocess.Popen[str]) -> UUID:
        """Return the id that it has printed, of a job that runs now."""
        assert process.stdout is not None
        id = UUID(process.stdout.readline().strip())
        change(ledger, id, "state = 'running', started_at = now(), heartbeat_at = now(), attempt = 1")
        return id

    def test_a_success_without_a_terminal(self, start: Start, ledger: Engine) -> None:
        process = start("enqueue", "progress.refresh", "--wait")
        id = self.begun(ledger, process)
        change(ledger, id, "state = 'succeeded', finished_at = now(), result = '{\"people\": 3}'")
        assert process.communicate(timeout=60) == ('{"people": 3}\n', "")
        assert process.returncode == 0

    @pytest.mark.parametrize("state", ["dead", "cancelled"])
    def test_anything_else_is_exit_1(self, start: Start, ledger: Engine, state: str) -> None:
        process = start("enqueue", "progress.refresh", "--wait")
        id = self.begun(ledger, process)
        change(ledger, id, f"state = '{state}', finished_at = now(), error = 'it broke'")
        assert process.communicate(timeout=60) == ("", f"{state}: it broke\n")
        assert process.returncode == 1

    def test_ctrl_c_leaves_the_job(self, start: Start, ledger: Engine) -> None:
        process = start("enqueue", "progress.refresh", "--wait")
        id = self.begun(ledger, process)
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=60) == (
            "",
            f"job {id} goes on: see 'kitaab-jobs jobs show {id}'\n",
        )
        assert process.returncode == 130
        assert get(ledger, id).state == "running"

    def test_a_bar_on_a_terminal(self, ledger: Engine) -> None:
        ours, theirs = pty.openpty()
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, "enqueue", "progress.refresh", "--wait"],
            cwd=ROOT, env={**os.environ, "TERM": "xterm", "COLUMNS": "100"}, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=theirs, text=True,
        )  # fmt: skip
        os.close(theirs)
        id = self.begun(ledger, process)
        change(ledger, id, "progress_done = 1200, progress_total = 5000")
        said = b""
        while b"1,200 of 5,000" not in said:
            said += os.read(ours, 4096)
        change(ledger, id, "state = 'succeeded', finished_at = now(), result = '{}'")
        assert process.communicate(timeout=60)[0] == "{}\n"
        os.close(ours)
        assert process.returncode == 0

    def test_lines_in_a_log(self, command: Command, ledger: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("kitaab_jobs.cli.bars.QUIET_SECONDS", 0.0)
        monkeypatch.setattr("kitaab_jobs.cli.enqueue._LOOK_EVERY_SECONDS", 0.0)
        id = add(ledger, "running", unique_key="k", progress_done=1, progress_total=9)
        steps = iter(["progress_done = 5", "state = 'succeeded', finished_at = now()"])
        monkeypatch.setattr("kitaab_jobs.cli.enqueue.time.sleep", lambda _: change(ledger, id, next(steps)))
        code, out, err = command("enqueue", "progress.refresh", "--unique", "k", "--wait")
        assert (code, out.splitlines()[0], err) == (0, str(id), "running: 1 of 9\nrunning: 5 of 9\n")

    def test_a_connection_that_is_lost_meanwhile(
        self, start: Start, ledger: Engine, url_for: Callable[[str, str], str]
    ) -> None:
        process = start("enqueue", "progress.refresh", "--wait")
        id = self.begun(ledger, process)
        # Nobody may connect for a while, as when the server restarts.
        database = ledger.url.database
        assert database is not None
        with engine_for(url_for("postgres", "postgres")).connect() as superuser:
            superuser = superuser.execution_options(isolation_level="AUTOCOMMIT")
            superuser.execute(text(f"ALTER DATABASE {database} ALLOW_CONNECTIONS false"))
            try:
                sql = text(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE application_name = 'kitaab-jobs cli' AND datname = :database"
                )
                wait_for(lambda: superuser.execute(sql, {"database": database}).all())
                assert process.stderr is not None
                assert process.stderr.readline().startswith("the connection to PostgreSQL is lost, waiting")
            finally:
                superuser.execute(text(f"ALTER DATABASE {database} ALLOW_CONNECTIONS true"))
        change(ledger, id, "state = 'succeeded', finished_at = now(), result = '{}'")
        assert process.communicate(timeout=60) == ("{}\n", "PostgreSQL is back\n")
        assert process.returncode == 0

"""`kitaab-jobs jobs list|show|stats|tail` as an operator sees it."""

from __future__ import annotations

import datetime as dt
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Connection, Engine, event, text

from kitaab_jobs.contract import QUEUES
from kitaab_jobs.runtime import operators
from kitaab_jobs.runtime.operators import Filter
from kitaab_jobs.runtime.tail import Endings
from tests.cli.conftest import PROGRAM, ROOT, Command, Start
from tests.cli.rows import add, ago, change, fill

STATES = ("scheduled", "ready", "published", "running", "succeeded", "dead", "cancelled")


def listed(command: Command, *words: object) -> list[str]:
    """Return the ids that `jobs list --json` gives."""
    code, out, err = command("jobs", "list", "--json", *words)
    assert (code, err) == (0, "")
    return [job["id"] for job in json.loads(out)]


class TestList:
    def test_the_table_has_the_newest_first(self, command: Command, ledger: Engine) -> None:
        old = add(ledger, "dead", at=ago(hours=2), error="ValueError: oh\n  and more", attempt=5)
        new = add(ledger, "running", progress_done=40, progress_total=1000, cancel_requested_at=ago())
        late = add(ledger, "scheduled", after_group="import-7", at=ago(hours=3))
        code, out, err = command("jobs", "list")
        lines = out.splitlines()
        assert (code, err) == (0, "")
        assert [line.split()[0] for line in lines] == ["id", str(new), str(old), str(late)]
        assert "asked to stop; 40 of 1,000" in lines[1]
        assert "5/5" in lines[2]
        assert "ValueError: oh and more" in lines[2]
        assert "after group import-7" in lines[3]

    def test_filters(self, command: Command, ledger: Engine) -> None:
        dead = add(ledger, "dead", at=ago(days=3))
        ready = add(ledger, "ready", name="reminders.dispatch", queue="reminders")
        both = {str(dead), str(ready)}
        assert set(listed(command)) == both
        assert set(listed(command, "--state", "dead", "--state", "ready")) == both
        for words in (
            ["--state", "dead"],
            ["--name", "progress.refresh"],
            ["--name", "progress.*"],
            ["--name", "*fresh"],
            ["--queue", "default"],
            ["--older-than", "2d"],
            ["--older-than", "2d", "--state", "dead", "--state", "ready"],
        ):
            assert listed(command, *words) == [str(dead)], words
        for words in (["--name", "progress"], ["--older-than", "4d"], ["--queue", "long"], ["--name", ""]):
            assert listed(command, *words) == [], words
        assert len(listed(command, "--limit", 1)) == 1

    def test_each_kind_of_id_has_its_place(self, command: Command, ledger: Engine) -> None:
        """Ids of our own, which grow with time; those of plain Celery messages; and one from a clock far ahead."""
        ours = [
            add(ledger, "succeeded", id=UUID(int=(n << 80) + (7 << 76) + (2 << 62)), at=ago(hours=9 - n))
            for n in (1, 3, 5, 7)
        ]
        plain = [add(ledger, "dead", at=ago(hours=9 - n)) for n in (0, 2, 4, 6)]
        ahead = add(
            ledger, "ready", id=UUID(int=(0x7000_0000_0000 << 80) + (7 << 76) + (2 << 62)), at=ago(hours=1)
        )
        newest_first = [ahead, *(id for pair in zip(ours[::-1], plain[::-1], strict=True) for id in pair)]
        for limit in (1, 2, 5, 9, 50):
            assert listed(command, "--limit", limit) == [str(id) for id in newest_first[:limit]]
        assert listed(command, "--state", "dead", "--limit", 2) == [str(id) for id in plain[:1:-1]]
        assert listed(command, "--state", "succeeded", "--older-than", "5h") == [str(ours[1]), str(ours[0])]

    def test_what_is_special_in_like_is_not_special_in_a_name(self, command: Command, ledger: Engine) -> None:
        odd = add(ledger, "ready", name="odd%_\\name")
        add(ledger, "ready", name="oddXXXname")
        assert listed(command, "--name", "odd%_\\*") == [str(odd)]
        assert listed(command, "--name", "odd%_\\name") == [str(odd)]

    def test_json_has_all_that_the_table_is_made_of(self, command: Command, ledger: Engine) -> None:
        add(ledger, "running", unique_key="u", limit_key="l", group_name="g")
        (job,) = json.loads(command("jobs", "list", "--json")[1])
        assert set(job) == {
            *("id", "name", "state", "queue", "priority", "attempt", "max_attempts", "run_at", "created_at"),
            *("started_at", "finished_at", "worker", "error", "progress_done", "progress_total"),
            *("unique_key", "limit_key", "group_name", "after_group", "cancel_requested_at"),
        }
        assert dt.datetime.fromisoformat(job["created_at"]).utcoffset() == dt.timedelta(0)

    @pytest.mark.parametrize("when", ["infinity", "-infinity", "20000-01-01 00:00Z", "0044-03-15 00:00Z BC"])
    def test_a_time_beyond_the_calendar_is_text(self, command: Command, ledger: Engine, when: str) -> None:
        id = add(ledger, "scheduled")
        change(ledger, id, f"run_at = '{when}', fire_at = '{when}'")
        code, out, _ = command("jobs", "list")
        assert code == 0
        assert when.split()[0].removeprefix("0044") in out
        assert json.loads(command("jobs", "list", "--json")[1])[0]["run_at"].startswith(when.split()[0])
        code, out, _ = command("jobs", "show", id)
        assert code == 0
        assert when.split()[0] in out
        change(ledger, id, "state = 'ready'")
        code, out, _ = command("jobs", "stats", "--json")
        assert code == 0
        json.loads(out, parse_constant=pytest.fail)  # infinity is no JSON

    @pytest.mark.parametrize(
        ("words", "why"),
        [
            (["--state", "done"], "error: 'done' is not a state: the states are scheduled, ready, "),
            (["--older-than", "soon"], "error: --older-than 'soon' is not a time: write it like 90s"),
            (["--older-than", "99999999999d"], "error: --older-than '99999999999d' is too long: at most"),
            (["--older-than", "40000d"], "error: --older-than '40000d' is too long: at most 36500d"),
            (["--older-than", ""], "error: --older-than '' is not a time"),
            (["--limit", "0"], "Usage"),
            (["--colour"], "Usage"),
            (["surplus"], "Usage"),
        ],
    )
    @pytest.mark.usefixtures("ledger")
    def test_wrong_usage(self, command: Command, words: list[str], why: str) -> None:
        code, out, err = command("jobs", "list", *words)
        assert (code, out) == (2, "")
        assert err.startswith(why)

    def test_columns_are_whole_on_a_narrow_terminal(self, ledger: Engine) -> None:
        id = add(ledger, "dead", error="x" * 300)
        ours, theirs = pty.openpty()
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, "jobs", "list"],
            cwd=ROOT, env={**os.environ, "COLUMNS": "60", "TERM": "xterm"}, stdout=theirs, stderr=theirs,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(theirs)
        said = read_all(ours)
        assert process.wait(60) == 0
        plain = re.sub("\x1b\\[[0-9;]*m", "", said).splitlines()
        assert plain[0].split() == ["id", "name", "state", "attempt", "created", "took", "what"]
        assert plain[1].split()[:4] == [str(id), "progress.refresh", "dead", "1/5"]
        assert plain[1].split()[-1] == "x" * 9 + "…"


def read_all(fd: int) -> str:
    """Return what comes out of a terminal until its last user has left."""
    said = b""
    while select.select([fd], [], [], 60)[0]:
        try:
            said += (piece := os.read(fd, 4096))
        except OSError:
            break
        if not piece:
            break
    os.close(fd)
    return said.decode()


class TestShow:
    def test_everything_about_a_job(self, command: Command, ledger: Engine) -> None:
        id = add(
            ledger,
            "running",
            group_name="import-7",
            limit_key="progress.refresh/a",
            unique_key="nightly",
            canvas={"chain": [1]},
            cancel_requested_at=ago(),
            progress_done=3,
            progress_total=9,
            args={"limit": 5, "zone": "Asia/Karachi"},
        )
        code, out, err = command("jobs", "show", id)
        assert (code, err) == (0, "")
        shown = dict(line.split(maxsplit=1) for line in out.splitlines())
        assert shown["id"] == str(id)
        assert shown["group_name"] == "import-7"
        assert shown["limit_key"] == "progress.refresh/a"
        assert shown["unique_key"] == "nightly"
        assert json.loads(shown["canvas"]) == {"chain": [1]}
        assert json.loads(shown["args"]) == {"limit": 5, "zone": "Asia/Karachi"}
        assert (shown["progress_done"], shown["progress_total"]) == ("3", "9")
        assert "cancel_requested_at" in shown
        assert "error" not in shown
        waits = add(ledger, "scheduled", after_group="import-7")
        assert "after_group          import-7" in command("jobs", "show", waits)[1]

    def test_json_is_the_row(self, command: Command, ledger: Engine) -> None:
        id = add(ledger, "dead", error="it broke")
        job = json.loads(command("jobs", "show", id, "--json")[1])
        with ledger.connect() as connection:
            columns = connection.scalars(
                text("SELECT attname FROM pg_attribute WHERE attrelid = 'jobs.jobs'::regclass AND attnum > 0")
            )
            assert set(job) == set(columns)
        assert (job["id"], job["state"], job["error"]) == (str(id), "dead", "it broke")

    @pytest.mark.usefixtures("ledger")
    def test_an_unknown_id(self, command: Command) -> None:
        id = uuid4()
        assert command("jobs", "show", id) == (
            1,
            "",
            f"error: there is no job {id}: see 'kitaab-jobs jobs list'\n",
        )

    @pytest.mark.usefixtures("ledger")
    def test_what_is_no_id(self, command: Command) -> None:
        code, out, err = command("jobs", "show", "7")
        assert (code, out) == (2, "")
        assert "Invalid value for 'ID'" in err
        assert command("jobs", "show")[0] == 2


class TestStats:
    @pytest.mark.usefixtures("ledger")
    def test_all_states_are_there_when_the_ledger_is_empty(self, command: Command) -> None:
        code, out, _ = command("jobs", "stats", "--json")
        none = {state: {"jobs": 0, "oldest_seconds": None} for state in STATES}
        assert code == 0
        assert json.loads(out) == {
            "states": none,
            "queues": dict.fromkeys(QUEUES, none),
            "ended_within_hours": 24,
        }

    def test_counts_and_ages(self, command: Command, ledger: Engine) -> None:
        for hours, state in enumerate(STATES, 1):
            add(ledger, state, at=ago(hours=hours))
            add(ledger, state, at=ago(minutes=1), queue="elsewhere")
        add(ledger, "scheduled", at=ago(hours=20), after_group="g")
        add(ledger, "ready", at=ago(hours=20), limit_key="progress.refresh")
        add(ledger, "dead", at=ago(hours=25))
        found = json.loads(command("jobs", "stats", "--json")[1])
        expected = dict(zip(STATES, (20, 20, 3, 4, 5, 6, 7), strict=True))
        jobs = {"scheduled": 3, "ready": 3}
        for state, hours in expected.items():
            assert found["states"][state]["jobs"] == jobs.get(state, 2), state
            assert found["states"][state]["oldest_seconds"] // 3600 == hours, state
        assert list(found["queues"]) == [*QUEUES, "elsewhere"]
        assert found["queues"]["elsewhere"]["dead"]["jobs"] == 1
        assert found["queues"]["default"]["ready"]["jobs"] == 2

    def test_the_age_of_a_ready_job_is_since_it_was_due(self, command: Command, ledger: Engine) -> None:
        id = add(ledger, "ready", at=ago(hours=5))
        change(ledger, id, "run_at = now() - interval '10 minutes'")
        found = json.loads(command("jobs", "stats", "--json")[1])
        assert found["states"]["ready"]["oldest_seconds"] // 60 == 10

    def test_the_tables(self, command: Command, ledger: Engine) -> None:
        add(ledger, "running", at=ago(hours=1), queue="long")
        code, out, _ = command("jobs", "stats")
        lines = [line.split() for line in out.splitlines()]
        assert code == 0
        assert [line[0] for line in lines[1:8]] == list(STATES)
        assert lines[4][:2] == ["running", "1"]
        assert lines[4][2].startswith("1:00:")
        assert lines[9] == ["queue", *STATES]
        assert ["long", "0", "0", "0", "1", "0", "0", "0"] in lines

    def test_no_plan_reads_the_whole_table(self, ledger: Engine) -> None:
        with ledger.begin() as connection:
            fill(connection, 198_000, "succeeded", dt.timedelta(days=60))
            fill(connection, 1_000, "ready")
            fill(connection, 500, "scheduled")
            fill(connection, 500, "running")
        with ledger.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("VACUUM ANALYZE jobs.jobs"))
        looks: dict[str, Callable[[Connection], Any]] = {
            "stats": lambda connection: connection.execute(operators._STATS).scalars(),
            "list": lambda connection: operators.find(connection, Filter(), 50),
            "list --state succeeded": lambda c: operators.find(c, Filter(states=("succeeded",)), 50),
            "list --state running": lambda c: operators.find(c, Filter(states=("running",)), 50),
            "list --name": lambda c: operators.find(c, Filter(name="progress.*"), 50),
            "list --queue": lambda c: operators.find(c, Filter(queue="default"), 50),
        }

        @event.listens_for(ledger, "before_cursor_execute", retval=True)
        def explain(_c: object, _cursor: object, sql: str, values: object, *_: object) -> tuple[str, object]:
            return f"EXPLAIN {sql}", values

        try:
            with ledger.connect() as connection:
                plans = {name: "\n".join(look(connection)) for name, look in looks.items()}
        finally:
            event.remove(ledger, "before_cursor_execute", explain)
        for name, plan in plans.items():
            assert "Index" in plan, name
            assert "Seq Scan" not in plan, f"{name}: {plan}"


class TestTail:
    def test_each_job_once_as_it_ends(self, start: Start, ledger: Engine) -> None:
        add(ledger, "succeeded", at=ago(hours=1))
        process = start("jobs", "tail")
        ids = following(ledger, process)
        change(ledger, ids[0], "state = 'dead', finished_at = now(), error = E'it\\nbroke'")
        change(
            ledger, ids[1], "state = 'succeeded', finished_at = clock_timestamp(), result = '{\"rows\": 7}'"
        )
        lines = [line(process), line(process)]
        assert str(ids[0]) in lines[0]
        assert "dead" in lines[0]
        assert lines[0].endswith("it broke\n")
        assert str(ids[1]) in lines[1]
        assert lines[1].endswith('{"rows": 7}\n')
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out, err) == (130, "", "")

    def test_filters(self, start: Start, ledger: Engine) -> None:
        process = start("jobs", "tail", "--state", "dead", "--name", "progress.*", "--queue", "default")
        ids = following(ledger, process)
        change(ledger, ids[1], "state = 'succeeded', finished_at = now()")
        change(ledger, ids[2], "state = 'dead', finished_at = now(), queue = 'long'")
        change(ledger, ids[3], "state = 'dead', finished_at = now(), name = 'archive.x'")
        change(ledger, ids[0], "state = 'dead', finished_at = now()")
        assert str(ids[0]) in line(process)

    def test_a_reader_that_leaves(self, start: Start, ledger: Engine) -> None:
        process = start("jobs", "tail")
        ids = following(ledger, process)
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        for id in ids[:2]:
            change(ledger, id, "state = 'dead', finished_at = clock_timestamp()")
        assert process.wait(60) == 1
        assert process.stderr.read() == ""

    def test_more_ends_at_once_than_one_look_takes(self, ledger: Engine) -> None:
        with ledger.connect() as connection:
            endings = Endings(connection)
            fill(connection, 2_500, "succeeded", dt.timedelta(0))
            sizes = [len(endings.new(connection)) for _ in range(4)]
        assert sizes == [1000, 1000, 500, 0]

    @pytest.mark.usefixtures("ledger")
    def test_only_states_that_end(self, command: Command) -> None:
        code, _, err = command("jobs", "tail", "--state", "ready")
        assert (code, err) == (
            2,
            "error: jobs that are 'ready' cannot have ended: give succeeded or dead or cancelled\n",
        )


def following(ledger: Engine, process: subprocess.Popen[str]) -> list[UUID]:
    """Return running jobs, when `jobs tail` follows what ends."""
    assert process.stderr is not None
    assert process.stderr.readline() == "what ends from now on is shown; Ctrl-C ends this\n"
    return [add(ledger, "running") for _ in range(4)]


def line(process: subprocess.Popen[str]) -> str:
    """Return the next line that it prints."""
    assert process.stdout is not None
    return process.stdout.readline()


def test_head_is_no_error(ledger: Engine) -> None:
    for _ in range(3):
        add(ledger, "dead", error="x" * 100)
    for words in ("jobs list", "jobs list --json", "jobs stats"):
        done = subprocess.run(
            f'{sys.executable} -c "{PROGRAM}" {words} | head -c 1',
            shell=True,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (done.returncode, len(done.stdout), done.stderr) == (0, 1, ""), words


def test_the_group_says_what_there_is(command: Command) -> None:
    code, out, _ = command("jobs", "--help")
    assert code == 0
    for name in ("list", "show", "stats", "tail", "retry", "cancel", "purge"):
        assert f"  {name} " in out
        assert command("jobs", name, "--help")[0] == 0
    assert command("jobs")[0] == 2
    assert command("jobs", "polish")[0] == 2

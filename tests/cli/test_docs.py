"""docs/jobs.md says what is true: its commands print what it shows, its snippets enqueue."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import threading
from pathlib import Path
from uuid import UUID

import pytest
from redis import Redis
from sqlalchemy import Engine, text

from kitaab_jobs.runtime import ledger as runtime_ledger
from tests.cli.conftest import ROOT, Command
from tests.cli.rows import ENDED, add, ago, change, get
from tests.devstack.observe import wait_for

PAGE = (ROOT / "docs" / "jobs.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
BIN = Path(sys.executable).parent

# What differs from one run to the next.
VARIABLE = (
    (r"\b01a1e2d0-[0-9a-f-]{27}\b|\b[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-(?!0{8})[0-9a-f]{12}\b", "<new id>"),
    (r"\d{4}-\d\d-\d\dT[\d:.]+\+00:00", "<time>"),
    (r"\b\d\d-\d\d \d\d:\d\d:\d\d", "<time>"),
    (r"\b\d+:\d\d:\d\d\b", "<age>"),
    (r" +$", ""),
)  # fmt: skip


def blocks(language: str, page: str = PAGE) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page, flags=re.DOTALL | re.MULTILINE)


def sessions(page: str = PAGE) -> list[tuple[str, str]]:
    """Return each command with the output that a page shows."""
    found = []
    for block in blocks("console", page):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, output = part.partition("\n")
            found.append((command, output))
    return found


def id(number: int) -> UUID:
    return UUID(f"0190a000-0000-7000-8000-{number:012}")


@pytest.fixture
def ledger_of_page(ledger: Engine) -> Engine:
    """The ledger that the page tells of."""
    long = {"name": "progress.reconcile", "queue": "long"}
    add(
        ledger, "running", id=id(1), at=ago(seconds=209), progress_done=40_000, progress_total=120_000, **long
    )
    add(ledger, "scheduled", id=id(2), at=ago(seconds=130), after_group="import-6", **long)
    add(ledger, "succeeded", id=id(3), at=ago(seconds=98))
    add(
        ledger,
        "dead",
        id=id(4),
        at=ago(seconds=70),
        name="reminders.deliver",
        queue="sending",
        attempt=5,
        group_name="import-6",
        worker="worker@host/4711",
        args={"zone": "Asia/Karachi", "delivery_ids": [7]},
        error="SMTPServerDisconnected: Connection unexpectedly closed",
    )
    change(ledger, id(3), "finished_at = started_at + interval '0.04 s'")
    change(ledger, id(4), "finished_at = started_at + interval '0.31 s'")
    return ledger


def normal(text: str) -> str:
    for pattern, name in VARIABLE:
        text = re.sub(pattern, name, text, flags=re.MULTILINE)
    return text


def test_each_command_prints_what_the_page_shows(command: Command, ledger_of_page: Engine) -> None:
    stops = threading.Thread(target=worker_that_stops, args=(ledger_of_page,))
    stops.start()
    for line, shown in sessions():
        if "jobs list --limit" in line:  # the page looks before it enqueues
            with ledger_of_page.begin() as connection:
                connection.execute(text("DELETE FROM jobs.jobs WHERE id::text NOT LIKE '0190a000%'"))
        if "|" in line:
            printed = in_a_shell(line)
        else:
            _, out, err = command(*shlex.split(line)[1:])
            printed = out + err
        assert normal(printed) == normal(shown), line
    stops.join(60)


def in_a_shell(line: str) -> str:
    env = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"}
    return subprocess.run(
        line, shell=True, cwd=ROOT, env=env, capture_output=True, text=True, check=True
    ).stdout


def worker_that_stops(ledger: Engine) -> None:
    """Do what a worker does with a job that is asked to stop."""
    wait_for(lambda: get(ledger, id(1)).cancel_requested_at, seconds=120)
    change(ledger, id(1), "state = 'cancelled', finished_at = now()")


def enqueued(ledger: Engine) -> int:
    with ledger.connect() as connection:
        return int(connection.scalar(text("SELECT count(*) FROM jobs.jobs WHERE args ? 'limit'")) or 0)


def test_the_snippets_enqueue(ledger: Engine, redis_url: str) -> None:
    in_your_own, with_celery = blocks("python")
    exec(in_your_own, {"engine": ledger})
    assert enqueued(ledger) == 101
    exec(with_celery, {"redis_url": redis_url})
    with Redis.from_url(redis_url) as client:
        assert client.llen("default") == 1
    enqueue, look = blocks("sql")
    with ledger.begin() as connection:
        for statement in enqueue.split(";\n"):
            if statement.strip():
                connection.exec_driver_sql(statement)
        connection.exec_driver_sql(look)
    assert enqueued(ledger) == 103  # the first one's key is that of the Python snippet


def test_the_drawing_is_that_of_the_code() -> None:
    assert runtime_ledger.__doc__ is not None
    drawing = re.search(r"^scheduled ─┐\n.*?cancelled$", runtime_ledger.__doc__, re.DOTALL | re.MULTILINE)
    assert drawing is not None
    assert f"```\n{drawing[0]}\n```" in PAGE


def test_each_option_of_the_commands_is_on_the_page() -> None:
    from typer.main import get_command

    from kitaab_jobs import cli

    words = {"enqueue": get_command(cli.build(["enqueue"])), "jobs": get_command(cli.build(["jobs"]))}
    found = {"enqueue": words["enqueue"].commands["enqueue"], **words["jobs"].commands["jobs"].commands}  # type: ignore[attr-defined]
    options = {o for command in found.values() for p in command.params for o in p.opts if o.startswith("--")}
    missing = {o for o in options if o not in PAGE} - {"--help"}
    assert missing == set()
    assert {f"`{state}`" for state in ENDED} <= set(re.findall(r"`\w+`", PAGE))


def test_the_readme_leads_here() -> None:
    assert "(docs/jobs.md)" in README

"""Every command and every snippet of the README is run, in its order, on a stack of its own."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from dotenv import dotenv_values

from beat_schedule import TIMETABLE
from kitaab_jobs.devstack.ports import free_port
from tests.devstack.folders import make_folder
from tests.devstack.observe import wait_for

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
BIN = Path(sys.executable).parent


def blocks(language: str) -> list[str]:
    """Return the code blocks of a language."""
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands() -> list[str]:
    """Return the lines that a reader types."""
    lines = [line for block in blocks("console") for line in block.splitlines()]
    return [line.removeprefix("$ ").split("   #")[0].strip() for line in lines if line.startswith("$ ")]


# How each of them is run here: "stack" as it stands against the stack below; the others by the test named.
RUN = {
    "make demo": "test_make_names_exist",
    "make test": "test_make_names_exist",
    ".venv/bin/kitaab-jobs up": "stack",
    ".venv/bin/kitaab-jobs doctor": "test_commands_for_a_second_terminal",
    ".venv/bin/kitaab-jobs seed --people 50": "test_commands_for_a_second_terminal",
    r"""printf 'email,deed,item,date,value\namina@example.org,Salah,Fajr,%s,2\n' "$(date -u +%F)" """
    "| .venv/bin/kitaab-jobs import - --dry-run": "test_import_of_own_entries",
    ".venv/bin/kitaab-jobs enqueue progress.refresh --wait": "test_enqueue_and_list",
    ".venv/bin/kitaab-jobs jobs list": "test_enqueue_and_list",
    ".venv/bin/kitaab-jobs jobs stats": "test_enqueue_and_list",
    ".venv/bin/kitaab-jobs schedules next '30 2 * * * America/New_York'": "test_plan_and_list",
    ".venv/bin/kitaab-jobs schedules list": "test_plan_and_list",
    ".venv/bin/kitaab-jobs reminders preview --zone America/New_York --time 02:30 --from 2026-03-07": "test_reminders",
    ".venv/bin/kitaab-jobs reminders due": "test_reminders",
    "export KITAAB_DATABASE_URL=postgresql://kitaab_worker:...@db/kitaab": "test_own_servers",
    "export KITAAB_ADMIN_URL=postgresql://kitaab_admin:...@db/kitaab": "test_own_servers",
    "export KITAAB_REDIS_URL=redis://:...@redis/0": "test_own_servers",
    "kitaab-jobs migrate": "test_own_servers",
    "celery -A kitaab_jobs worker --queues default,reminders": "test_own_servers",
    "celery -A kitaab_jobs worker --queues sending --prefetch-multiplier 1 --hostname sending@%h": "test_own_servers",
    "celery -A kitaab_jobs worker --queues long --concurrency 1 --prefetch-multiplier 1 --hostname long@%h": "test_own_servers",
    "celery -A kitaab_jobs beat": "test_own_servers",
    "celery -A kitaab_jobs flower --address=127.0.0.1": "test_flower",
}


def environment(data_dir: Path) -> dict[str, str]:
    """Return an environment in which only the data folder is set."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("KITAAB_")}
    return {**kept, "KITAAB_DATA_DIR": str(data_dir), "PATH": f"{BIN}:{os.environ['PATH']}", "COLUMNS": "160"}


def run(command: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a command of the README from the top of the checkout."""
    line = command.replace(".venv/bin/", f"{BIN}/")
    return subprocess.run(
        line,
        shell=True,
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
        stdin=subprocess.DEVNULL,
    )


@pytest.fixture(scope="module")
def stack() -> Iterator[dict[str, str]]:
    """`kitaab-jobs up`, as the README has it, and the environment for a second terminal."""
    # Not pytest's own folder: the user of the servers cannot enter that, and they would move elsewhere under root.
    data_dir = make_folder()
    env = environment(data_dir)
    log = (data_dir / "up.log").open("w+")
    process = subprocess.Popen(
        [BIN / "kitaab-jobs", "up"], cwd=ROOT, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log
    )
    try:
        deadline = time.monotonic() + 60
        while "Press Ctrl-C" not in (data_dir / "up.log").read_text():
            assert process.poll() is None, (data_dir / "up.log").read_text()
            assert time.monotonic() < deadline, "up did not come up"
            time.sleep(0.2)
        yield env
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(90) == 0, (data_dir / "up.log").read_text()
        log.close()
        shutil.rmtree(data_dir, ignore_errors=True)


def addresses(env: dict[str, str]) -> dict[str, str]:
    """Return the addresses of the running stack."""
    return {k: v for k, v in dotenv_values(Path(env["KITAAB_DATA_DIR"]) / "stack.env").items() if v}


def test_each_command_is_run_by_a_test() -> None:
    assert commands() == list(RUN)
    assert {name for name in RUN.values() if name != "stack"} <= set(globals())


def test_make_names_exist() -> None:
    for command in ("make demo", 'make demo ARGS="--for 60s"', "make test"):
        assert command in README
        dry = subprocess.run(f"{command} --dry-run", shell=True, cwd=ROOT, capture_output=True, text=True)
        assert dry.returncode == 0, dry.stderr


@pytest.fixture(scope="module")
def seeded(stack: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """The sample data, which the README loads before anything else is written."""
    return run(".venv/bin/kitaab-jobs seed --people 50", stack)


def test_commands_for_a_second_terminal(
    stack: dict[str, str], seeded: subprocess.CompletedProcess[str]
) -> None:
    assert seeded.returncode == 0, seeded.stdout + seeded.stderr
    doctor = run(".venv/bin/kitaab-jobs doctor", stack)
    assert doctor.returncode == 0, doctor.stdout + doctor.stderr


@pytest.mark.usefixtures("seeded")
def test_import_of_own_entries(stack: dict[str, str]) -> None:
    person, *_ = blocks("sql")
    with psycopg.connect(addresses(stack)["KITAAB_ADMIN_URL"], autocommit=True) as connection:
        connection.execute(person)
    (command,) = (line for line in commands() if "import" in line)
    imported = run(command, stack)
    assert imported.returncode == 0, imported.stdout + imported.stderr
    assert "1 to add" in imported.stdout


def test_reminders(stack: dict[str, str]) -> None:
    preview, due = (line for line in commands() if " reminders " in line)
    shown = run(preview, stack)
    assert "Sun 2026-03-08  03:30  2026-03-08 07:30Z" in shown.stdout
    assert run(due, stack).returncode == 0


def test_enqueue_and_list(stack: dict[str, str]) -> None:
    done = run(".venv/bin/kitaab-jobs enqueue progress.refresh --wait", stack)
    assert done.returncode == 0, done.stderr
    id = done.stdout.splitlines()[0]
    listed = run(".venv/bin/kitaab-jobs jobs list", stack)
    assert listed.returncode == 0, listed.stderr
    (line,) = [line for line in listed.stdout.splitlines() if line.startswith(id)]
    assert "succeeded" in line
    stats = run(".venv/bin/kitaab-jobs jobs stats", stack)
    assert stats.returncode == 0, stats.stderr
    assert re.search(r"^succeeded +[1-9]", stats.stdout, re.MULTILINE)


def test_plan_and_list(stack: dict[str, str]) -> None:
    planned = run(".venv/bin/kitaab-jobs schedules next '30 2 * * * America/New_York'", stack)
    assert planned.returncode == 0, planned.stderr
    assert len(planned.stdout.splitlines()) == 1 + 5

    def listed() -> list[str]:
        found = run(".venv/bin/kitaab-jobs schedules list", stack)
        assert found.returncode == 0, found.stderr
        return [line.split()[0] for line in found.stdout.splitlines()[1:]]

    # beat may still be reading its timetable
    wait_for(lambda: {line.name for line in TIMETABLE} <= set(listed()))


def enqueued(env: dict[str, str]) -> int:
    """Return how many jobs the snippets have enqueued so far."""
    with psycopg.connect(addresses(env)["KITAAB_DATABASE_URL"]) as connection:
        found = connection.execute("SELECT count(*) FROM jobs.jobs WHERE args ->> 'limit' = '500'").fetchone()
    assert found is not None
    return int(found[0])


def test_python_snippet_enqueues(stack: dict[str, str]) -> None:
    (snippet,) = blocks("python")
    before = enqueued(stack)
    done = subprocess.run(
        [sys.executable, "-c", snippet], cwd=ROOT, env=stack, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert enqueued(stack) > before, "and perhaps the follow-up of another"


def test_sql_snippets(stack: dict[str, str]) -> None:
    _, enqueue, look = blocks("sql")
    before = enqueued(stack)
    with psycopg.connect(addresses(stack)["KITAAB_DATABASE_URL"], autocommit=True) as connection:
        connection.execute(enqueue)
        rows = connection.execute(look).fetchall()
    assert enqueued(stack) > before
    assert rows
    assert len(rows[0]) == 7


def test_own_servers(stack: dict[str, str]) -> None:
    """The servers of the stack, named as if they were one's own; each process answers and stops."""
    named = addresses(stack)
    env = {k: v for k, v in stack.items() if k != "KITAAB_DATA_DIR"} | named
    migrated = run("kitaab-jobs migrate", env)
    assert migrated.returncode == 0, migrated.stderr
    for command, ready in (
        ("celery -A kitaab_jobs worker --queues default,reminders --hostname readme@%h", "ready."),
        (
            "celery -A kitaab_jobs worker --queues sending --prefetch-multiplier 1 --hostname sending@%h",
            "ready.",
        ),
        (
            "celery -A kitaab_jobs worker --queues long --concurrency 1 --prefetch-multiplier 1 --hostname long@%h",
            "ready.",
        ),
        ("celery -A kitaab_jobs beat", "timetable read"),
    ):
        assert command.removesuffix(" --hostname readme@%h") in README
        with begun(command, env) as process:
            assert process.stdout is not None
            assert any(ready in line for line in process.stdout), f"{command} ended by itself"
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=60)


def test_flower(stack: dict[str, str]) -> None:
    """It answers. How it stops is its own affair: a SIGTERM while it logs makes it hang, and `up` kills it then."""
    command = "celery -A kitaab_jobs flower --address=127.0.0.1"
    assert command in README
    port = free_port()
    with begun(f"{command} --port={port}", stack | addresses(stack)) as process:
        wait_for(lambda: answers(f"http://127.0.0.1:{port}/healthcheck"), seconds=60)
        process.kill()
        process.communicate(timeout=60)


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return bool(response.status == 200)
    except OSError:
        return False


@contextmanager
def begun(command: str, env: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """A process of the command, which is killed where the test has not ended it."""
    process = subprocess.Popen(
        command.split(),
        cwd=ROOT,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def test_files_that_the_documents_name_exist() -> None:
    for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"):
        text = (ROOT / name).read_text()
        for target in re.findall(r"\]\(([^)#:]+)\)", text):
            assert (ROOT / target).exists(), f"{name} names {target}"
        for path in re.findall(r"`((?:kitaab_jobs|migrations|tests|deploy)/[\w./]+)`", text):
            assert (ROOT / path).exists(), f"{name} names {path}"


def test_settings_table_is_complete() -> None:
    from kitaab_jobs.settings import Settings

    named = set(re.findall(r"`(KITAAB_[A-Z_]+)`", README))
    assert named == {f"KITAAB_{field.upper()}" for field in Settings.model_fields}


def test_each_command_of_the_cli_is_described() -> None:
    from kitaab_jobs.cli import COMMANDS

    documents = README + "".join(p.read_text() for p in (ROOT / "docs").glob("*.md"))
    missing = [c.name for c in COMMANDS if f"kitaab-jobs {c.name}" not in documents]
    assert not missing

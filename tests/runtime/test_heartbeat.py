"""The heartbeat: a long job stays alive, a lost one is noticed, and no thread outlives its job."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from uuid import UUID

import pytest
from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.pool import NullPool
from structlog.testing import capture_logs

from kitaab_jobs.errors import Cancelled
from kitaab_jobs.runtime import heartbeat, ledger, outbox
from kitaab_jobs.runtime.context import Context
from kitaab_jobs.runtime.heartbeat import Heartbeat
from tests.devstack.observe import wait_for
from tests.runtime import rows

EVERY = 0.05
NOWHERE = "postgresql+psycopg://nobody@127.0.0.1:1/none"


def start(engine: Engine) -> Context:
    """A job that this process runs."""
    with engine.begin() as connection:
        id = rows.add(connection, "published")
        [claim] = ledger.claim(connection, [id], "w@here/1")
    return Context(claim, engine.begin)


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    """What a thread of one test still has to say must not be in the log of the next."""
    yield
    wait_for(lambda: not any(thread.name == "heartbeat" for thread in threading.enumerate()))


@pytest.fixture
def job(effects: Engine) -> Context:
    return start(effects)


def silent_for(engine: Engine, id: UUID) -> float:
    """Return the seconds since the last beat."""
    statement = "SELECT extract(epoch FROM clock_timestamp() - heartbeat_at) FROM jobs.jobs WHERE id = :id"
    with engine.connect() as connection:
        return float(connection.scalar(text(statement), {"id": id}) or 0)


def set_back(engine: Engine, *ids: UUID) -> None:
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE jobs.jobs SET heartbeat_at = now() - interval '1 hour' WHERE id = ANY (:ids)"),
            {"ids": list(ids)},
        )


def beats_for(engine: Engine, *ids: UUID) -> None:
    """Return when each of them has had another beat."""
    set_back(engine, *ids)
    wait_for(lambda: all(silent_for(engine, id) < 60 for id in ids))


def cancel(engine: Engine, id: UUID) -> None:
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE jobs.jobs SET cancel_requested_at = now() WHERE id = :id"), {"id": id}
        )


def rescue(engine: Engine, patience: outbox.Patience = outbox.PATIENCE) -> list[UUID]:
    with engine.begin() as connection:
        return [job.id for job in rows.rescue_running(connection, patience)]


def actions(logs: Sequence[Mapping[str, object]]) -> list[object]:
    return [line["action"] for line in logs]


@contextmanager
def counted(engine: Engine) -> Iterator[list[str]]:
    """The statements that are sent meanwhile."""
    statements: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        statements.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    try:
        yield statements
    finally:
        event.remove(engine, "before_cursor_execute", note)


class TestAlive:
    def test_a_long_job_is_kept_from_the_rescue(
        self, effects: Engine, worker_engine: Engine, job: Context
    ) -> None:
        beat = Heartbeat(worker_engine, every=EVERY)
        with beat.holding([job]):
            for _ in range(2):
                beats_for(effects, job.id)
            assert rescue(effects) == []
        wait_for(lambda: not alive(beat))
        set_back(effects, job.id)
        assert rescue(effects) == [job.id], "it beats on after the job's end"

    def test_one_statement_for_all_that_run(self, effects: Engine, worker_engine: Engine) -> None:
        jobs = [start(effects) for _ in range(5)]
        beat = Heartbeat(worker_engine, every=EVERY)
        with beat.holding(jobs[:3]), beat.holding(jobs[3:]):
            beats_for(effects, *[job.id for job in jobs])
            with counted(worker_engine) as statements:
                wait_for(lambda: len(statements) >= 2)
            with effects.connect() as connection:
                beaten = connection.scalars(text("SELECT DISTINCT heartbeat_at FROM jobs.jobs")).all()
        assert len(beaten) == 1
        assert all("heartbeat_at" in statement for statement in statements)

    def test_writes_how_far_the_job_is(self, effects: Engine, worker_engine: Engine, job: Context) -> None:
        def shown() -> tuple[int, int]:
            with effects.connect() as connection:
                row = rows.get(connection, job.id)
            return row.progress_done, row.progress_total

        with Heartbeat(worker_engine, every=EVERY).holding([job]):
            job.progress(3, 10)
            wait_for(lambda: shown() == (3, 10))
            job.progress(4)
            wait_for(lambda: shown() == (4, 10))

    def test_a_short_job_costs_no_statement(self, job: Context, monkeypatch: pytest.MonkeyPatch) -> None:
        """It is over before the thread has slept."""
        over = threading.Event()
        slept = SimpleNamespace(sleep=lambda _: over.wait(20), monotonic=time.monotonic)
        monkeypatch.setattr(heartbeat, "time", slept)
        beat = Heartbeat(create_engine(NOWHERE, poolclass=NullPool))
        with capture_logs() as logs:
            with beat.holding([job]):
                pass
            over.set()
            wait_for(lambda: not alive(beat))
        assert logs == []

    def test_the_jobs_of_a_process_one_after_the_other(self, effects: Engine, worker_engine: Engine) -> None:
        beat = Heartbeat(worker_engine, every=EVERY)
        for _ in range(2):
            job = start(effects)
            with beat.holding([job]):
                beats_for(effects, job.id)
            wait_for(lambda: not alive(beat))


class TestLost:
    def test_is_noticed_and_the_job_stops(self, effects: Engine, worker_engine: Engine, job: Context) -> None:
        with capture_logs() as logs, Heartbeat(worker_engine, every=EVERY).holding([job]):
            job.check()
            # A beat may hold the row just then, and the rescue passes over it: the relay comes again.
            assert wait_for(lambda: rescue(effects, outbox.Patience(running=-1))) == [job.id]
            with effects.begin() as connection:
                assert ledger.claim(connection, [job.id], "w@there/2")
            set_back(effects, job.id)
            wait_for(lambda: job.is_to_stop)
            with pytest.raises(Cancelled, match="was taken from this worker while it ran"):
                job.check()
            wait_for(lambda: "job_lost" in actions(logs))
        assert silent_for(effects, job.id) > 60, "it keeps another worker's attempt alive"

    def test_of_many_only_that_one(self, effects: Engine, worker_engine: Engine) -> None:
        lost, *others = (start(effects) for _ in range(3))
        with Heartbeat(worker_engine, every=EVERY).holding([lost, *others]):
            with effects.begin() as connection:
                ledger.settle(connection, ledger.released([lost.claim]))
            wait_for(lambda: lost.is_to_stop)
            beats_for(effects, *[job.id for job in others])
            assert not any(job.is_to_stop for job in others)

    def test_a_beat_that_meets_the_finish_is_no_loss(self, worker_engine: Engine, job: Context) -> None:
        finished, asked, left = threading.Event(), threading.Event(), threading.Event()
        beats = create_engine(worker_engine.url, poolclass=NullPool)
        event.listen(beats, "begin", lambda _: finished.wait(20))
        event.listen(beats, "commit", lambda _: asked.set())
        event.listen(beats, "commit", lambda _: left.wait(20))
        beat = Heartbeat(beats, every=EVERY)
        with capture_logs() as logs:
            with beat.holding([job]):
                with worker_engine.begin() as connection:
                    assert rows.finish(connection, job.claim, {})
                finished.set()
                assert asked.wait(20)
            left.set()
            wait_for(lambda: not alive(beat))
        assert job.is_to_stop, "the beat did not find it"
        assert logs == []


class TestCancelled:
    def test_the_job_is_asked_to_stop(self, effects: Engine, worker_engine: Engine, job: Context) -> None:
        other = start(effects)
        with capture_logs() as logs, Heartbeat(worker_engine, every=EVERY).holding([job, other]):
            cancel(effects, job.id)
            wait_for(lambda: job.is_to_stop)
            with pytest.raises(Cancelled, match=f"job {job.id} was cancelled while it ran"):
                job.check()
            other.check()
            beats_for(effects, job.id, other.id)
        assert actions(logs) == ["job_to_stop"], "it is said once"

    def test_who_does_not_stop_is_interrupted_and_then_killed(
        self, effects: Engine, worker_engine: Engine, job: Context, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(heartbeat, "KILL_SECONDS", 2 * EVERY)
        done: list[str] = []
        beat = Heartbeat(
            worker_engine,
            every=EVERY,
            grace=2 * EVERY,
            interrupt=lambda: done.append("interrupt"),
            kill=lambda: done.append("kill"),
        )
        with beat.holding([job]):
            cancel(effects, job.id)
            wait_for(lambda: "kill" in done)
        assert done[0] == "interrupt"
        assert done.count("interrupt") == 1

    def test_who_stops_in_time_is_not(self, effects: Engine, worker_engine: Engine) -> None:
        done: list[str] = []
        beat = Heartbeat(worker_engine, every=EVERY, grace=60, interrupt=self.add(done), kill=self.add(done))
        first, second = start(effects), start(effects)
        with beat.holding([first]):
            cancel(effects, first.id)
            wait_for(lambda: first.is_to_stop)
        with beat.holding([second]):
            beats_for(effects, second.id)
            beats_for(effects, second.id)
        assert done == []

    def test_who_is_interrupted_and_ends_is_not_killed(
        self, effects: Engine, worker_engine: Engine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(heartbeat, "KILL_SECONDS", 0)
        interrupted = threading.Event()
        killed: list[str] = []
        beat = Heartbeat(worker_engine, every=EVERY, grace=0, interrupt=interrupted.set, kill=lambda: kill())
        job, other = start(effects), start(effects)
        gone = threading.Event()

        def kill() -> None:
            if gone.is_set():
                killed.append("killed")

        with beat.holding([other]):
            with beat.holding([job]):
                cancel(effects, job.id)
                wait_for(interrupted.is_set)
            gone.set()
            beats_for(effects, other.id)
            beats_for(effects, other.id)
        assert killed == []

    def add(self, done: list[str]) -> Callable[[], None]:
        return lambda: done.append("it was pressed")


class TestOnBeat:
    def test_is_called_outside_of_the_jobs_thread(self, worker_engine: Engine, job: Context) -> None:
        threads: set[str] = set()
        with Heartbeat(worker_engine, every=EVERY).holding(
            [job], on_beat=lambda: threads.add(threading.current_thread().name)
        ):
            wait_for(lambda: threads)
        assert threads == {"heartbeat"}

    def test_what_it_lets_go_is_beaten_for_no_more(self, effects: Engine, worker_engine: Engine) -> None:
        kept, freed = start(effects), start(effects)
        with Heartbeat(worker_engine, every=EVERY).holding([kept, freed]) as held:
            beats_for(effects, kept.id, freed.id)
            held.contexts = [kept]
            beats_for(effects, kept.id)
            set_back(effects, freed.id)
            beats_for(effects, kept.id)
            assert silent_for(effects, freed.id) > 60


def test_a_database_that_is_away_is_waited_for(job: Context) -> None:
    nowhere = create_engine(NOWHERE, poolclass=NullPool)
    with capture_logs() as logs, Heartbeat(nowhere, every=EVERY).holding([job]):
        wait_for(lambda: len(logs) >= 2)
        assert not job.is_to_stop
    assert set(actions(logs)) == {"heartbeat_failed"}


def test_goes_on_after_its_connection_was_cut(
    effects: Engine, worker_engine: Engine, superuser_engine: Engine, job: Context
) -> None:
    pooled = create_engine(worker_engine.url, pool_size=1)
    try:
        with Heartbeat(pooled, every=EVERY).holding([job]):
            beats_for(effects, job.id)
            with superuser_engine.begin() as connection:
                connection.execute(
                    text(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                        " WHERE usename = 'kitaab_worker' AND datname = current_database()"
                    )
                )
            beats_for(effects, job.id)
    finally:
        pooled.dispose()


@pytest.mark.parametrize("error", [None, RuntimeError("it broke")])
def test_leaves_no_thread(worker_engine: Engine, job: Context, error: Exception | None) -> None:
    beat = Heartbeat(worker_engine, every=EVERY)
    try:
        with beat.holding([job]):
            assert alive(beat)
            if error:
                raise error
    except RuntimeError:
        pass
    wait_for(lambda: not alive(beat))


def alive(beat: Heartbeat) -> bool:
    """Whether its thread is there."""
    return beat._thread is not None and beat._thread in threading.enumerate()

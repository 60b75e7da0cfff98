"""The heartbeat: a long job stays alive, a lost one is noticed, and no thread outlives its job."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from uuid import UUID

import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool
from structlog.testing import capture_logs

from kitaab_jobs.runtime import ledger
from kitaab_jobs.runtime.heartbeat import beating
from kitaab_jobs.runtime.ledger import Claim
from tests.devstack.observe import wait_for
from tests.runtime import rows

EVERY = 0.05


@pytest.fixture
def claim(effects: Engine) -> Claim:
    """A job that this process runs."""
    with effects.begin() as connection:
        id = rows.add(connection, "published")
        claim = ledger.claim(connection, id, "w@here/1")
    assert claim is not None
    return claim


def silent_for(engine: Engine, id: UUID) -> float:
    """Return the seconds since the last beat."""
    statement = "SELECT extract(epoch FROM clock_timestamp() - heartbeat_at) FROM jobs.jobs WHERE id = :id"
    with engine.connect() as connection:
        return float(connection.scalar(text(statement), {"id": id}) or 0)


def set_back(engine: Engine, id: UUID) -> None:
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE jobs.jobs SET heartbeat_at = now() - interval '1 hour' WHERE id = :id"), {"id": id}
        )


def actions(logs: Sequence[Mapping[str, object]]) -> list[object]:
    return [line["action"] for line in logs]


def test_keeps_a_long_job_from_the_rescue(effects: Engine, worker_engine: Engine, claim: Claim) -> None:
    with beating(worker_engine, claim, EVERY):
        for _ in range(2):
            set_back(effects, claim.id)
            wait_for(lambda: silent_for(effects, claim.id) < 60)
        with effects.begin() as connection:
            assert ledger.rescue_running(connection, ledger.PATIENCE) == []
    set_back(effects, claim.id)
    time.sleep(3 * EVERY)
    assert silent_for(effects, claim.id) > 60, "it beats on after the job's end"
    with effects.begin() as connection:
        assert [id for id, *_ in ledger.rescue_running(connection, ledger.PATIENCE)] == [claim.id]


def test_a_lost_claim_is_noticed(effects: Engine, worker_engine: Engine, claim: Claim) -> None:
    with capture_logs() as logs, beating(worker_engine, claim, EVERY):
        with effects.begin() as connection:
            ledger.rescue_running(connection, ledger.Patience(running=0))
            assert ledger.claim(connection, claim.id, "w@there/2")
        set_back(effects, claim.id)
        wait_for(lambda: "job_lost" in actions(logs))
    assert silent_for(effects, claim.id) > 60, "it keeps another worker's attempt alive"


def test_a_beat_that_meets_the_finish_is_no_loss(
    effects: Engine, worker_engine: Engine, claim: Claim
) -> None:
    with capture_logs() as logs, beating(worker_engine, claim, EVERY):
        with Session(worker_engine) as session, session.begin():
            assert ledger.finish(session, claim, {})
            time.sleep(3 * EVERY)  # a beat waits for the row meanwhile
        time.sleep(2 * EVERY)
    assert logs == []


def test_a_database_that_is_away_is_waited_for(claim: Claim) -> None:
    nowhere = create_engine("postgresql+psycopg://nobody@127.0.0.1:1/none", poolclass=NullPool)
    with capture_logs() as logs, beating(nowhere, claim, EVERY):
        wait_for(lambda: len(logs) >= 2)
    assert set(actions(logs)) == {"heartbeat_failed"}


def test_goes_on_after_its_connection_was_cut(
    effects: Engine, worker_engine: Engine, superuser_engine: Engine, claim: Claim
) -> None:
    pooled = create_engine(worker_engine.url, pool_size=1)
    try:
        with beating(pooled, claim, EVERY):
            set_back(effects, claim.id)
            wait_for(lambda: silent_for(effects, claim.id) < 60)
            with superuser_engine.begin() as connection:
                connection.execute(
                    text(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                        " WHERE usename = 'kitaab_worker' AND datname = current_database()"
                    )
                )
            set_back(effects, claim.id)
            wait_for(lambda: silent_for(effects, claim.id) < 60)
    finally:
        pooled.dispose()


@pytest.mark.parametrize("error", [None, RuntimeError("it broke")])
def test_leaves_no_thread(worker_engine: Engine, claim: Claim, error: Exception | None) -> None:
    before = threading.active_count()
    try:
        with beating(worker_engine, claim, 60):
            assert threading.active_count() == before + 1
            if error:
                raise error
    except RuntimeError:
        pass
    assert threading.active_count() == before


def test_a_short_job_costs_no_statement(effects: Engine, claim: Claim) -> None:
    nowhere = create_engine("postgresql+psycopg://nobody@127.0.0.1:1/none", poolclass=NullPool)
    with capture_logs() as logs, beating(nowhere, claim):
        pass
    assert logs == []

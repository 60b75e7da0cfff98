"""Who waits for rows of several jobs locks them in the order of their ids; who need not wait, does not.

Each case holds one row, as somebody else's transaction does, and looks what the statement under test does meanwhile.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from uuid import UUID

import pytest
from sqlalchemy import Engine, text

from kitaab_jobs.runtime import changes, ledger, outbox
from kitaab_jobs.runtime.operators import Filter
from kitaab_jobs.runtime.outcome import SUCCEEDED
from tests.devstack.observe import wait_for
from tests.runtime import rows
from tests.runtime.doing import blocked

_LOCK = "SELECT id FROM jobs.jobs WHERE id = :id FOR UPDATE SKIP LOCKED"


@contextmanager
def held(engine: Engine, id: UUID) -> Iterator[bool]:
    """Hold a job's row in a transaction of somebody else's; False where another one holds it."""
    with engine.connect() as connection:
        yield connection.scalar(text(_LOCK), {"id": id}) == id


def is_free(engine: Engine, id: UUID) -> bool:
    """Whether nobody holds that row."""
    with held(engine, id) as is_held:
        return is_held


def ids_of(engine: Engine, state: str, **given: object) -> tuple[UUID, UUID]:
    """Commit two jobs, of which the one with the higher id was written first, and return the lower and the higher."""
    low, high = UUID(int=1), UUID(int=2)
    with engine.begin() as connection:
        for id in (high, low):
            rows.add(connection, state, id=id, **given)
    return low, high


def test_a_beat_waits_for_nobody(database: Engine) -> None:
    """Whose row is held is still ours; it says so at the next beat, and the others now."""
    low, high = ids_of(database, "running", age=60)
    with held(database, low), database.begin() as connection:
        connection.execute(text("SET LOCAL lock_timeout = '5s'"))
        pulses = [ledger.Pulse(rows.claim_of(connection, id), 3, 4) for id in (high, low)]
        assert ledger.beat(connection, pulses) == {low: False, high: False}
        assert rows.get(connection, high).progress_done == 3
        assert rows.get(connection, low).progress_done is None
    with database.begin() as connection:
        assert ledger.beat(connection, pulses) == {low: False, high: False}
        assert rows.get(connection, low).progress_done == 3


def test_the_rescue_of_published_jobs_waits_for_nobody(database: Engine) -> None:
    low, high = ids_of(database, "published", age=60)
    with held(database, low), database.begin() as connection:
        connection.execute(text("SET LOCAL lock_timeout = '5s'"))
        assert [job.id for job in outbox.rescue_published(connection, ["default"], outbox.PATIENCE)] == [high]


def _settle(engine: Engine, ids: tuple[UUID, ...]) -> None:
    with engine.begin() as connection:
        ledger.settle(
            connection, [ledger.Settled(rows.claim_of(connection, id), SUCCEEDED, {}) for id in ids]
        )


def _claim(engine: Engine, ids: tuple[UUID, ...]) -> None:
    with engine.begin() as connection:
        ledger.claim(connection, ids, "w@there/2")


def _cancel(engine: Engine, ids: tuple[UUID, ...]) -> None:
    assert list(changes.apply(engine, changes.CANCEL, Filter(ids=ids), reason="no longer wanted"))


@pytest.mark.parametrize(
    ("state", "change"), [("running", _settle), ("published", _claim), ("running", _cancel)]
)
def test_in_the_order_of_their_ids(
    database: Engine, state: str, change: Callable[[Engine, tuple[UUID, ...]], None]
) -> None:
    """While the lower row is held, it waits for that one, and does not hold the higher one yet."""
    low, high = ids_of(database, state)
    thread = threading.Thread(target=change, args=(database, (high, low)))
    with held(database, low):
        thread.start()
        wait_for(lambda: blocked(database))
        assert is_free(database, high)
    thread.join()


def test_the_look_itself(database: Engine) -> None:
    """A row that is held is seen to be."""
    low, high = ids_of(database, "running")
    with held(database, high):
        assert is_free(database, low)
        assert not is_free(database, high)

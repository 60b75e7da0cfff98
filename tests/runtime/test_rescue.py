"""The rescue: each rule at both sides of its limit."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Connection, Engine

from kitaab_jobs.runtime import ledger, outbox
from kitaab_jobs.runtime.outbox import PATIENCE, Patience, Rescued
from tests.runtime import rows

GONE = "the worker w@here/1 stopped while it ran this job"


class TestRunning:
    def test_a_heartbeat_that_is_only_late(self, connection: Connection) -> None:
        late, lost = rows.add(connection, "running", age=19), rows.add(connection, "running", age=21)
        assert rows.rescue_running(connection, PATIENCE) == [Rescued(lost, "progress.refresh", "ready")]
        assert rows.state(connection, late) == "running"
        assert rows.get(connection, lost).error == f"{GONE} (attempt 1 of 5)"

    def test_a_beat_saves_it(self, connection: Connection) -> None:
        id = rows.add(connection, "running", age=100)
        assert ledger.beat(connection, [ledger.Pulse(rows.claim_of(connection, id))])
        assert rows.rescue_running(connection, PATIENCE) == []

    # attempt, max_attempts, in a batch, to be cancelled; then: state, attempt, alone, error
    @pytest.mark.parametrize(
        ("given", "wanted"),
        [
            ((1, 5, False, False), ("ready", 1, False, " (attempt 1 of 5)")),
            ((4, 5, False, False), ("ready", 4, False, " (attempt 4 of 5)")),
            ((5, 5, False, False), ("dead", 5, False, " (attempt 5 of 5)")),
            ((1, 1, False, False), ("dead", 1, False, " (attempt 1 of 1)")),
            ((1, 5, False, True), ("cancelled", 1, False, " (attempt 1 of 5)")),
            ((5, 5, False, True), ("cancelled", 5, False, " (attempt 5 of 5)")),
            # Nobody knows which job of the batch it was: none is blamed.
            ((1, 5, True, False), ("ready", 0, True, " in a batch")),
            ((5, 5, True, False), ("ready", 4, True, " in a batch")),
            ((1, 1, True, False), ("ready", 0, True, " in a batch")),
            ((1, 1, True, True), ("cancelled", 0, True, " in a batch")),
        ],
    )
    def test_what_becomes_of_it(
        self, connection: Connection, given: tuple[int, int, bool, bool], wanted: tuple[Any, ...]
    ) -> None:
        attempt, most, in_batch, to_cancel = given
        id = rows.add(
            connection,
            "running",
            age=60,
            attempt=attempt,
            max_attempts=most,
            in_batch=in_batch,
            to_cancel=to_cancel,
        )
        assert [job.id for job in rows.rescue_running(connection, PATIENCE)] == [id]
        row = rows.get(connection, id)
        assert (row.state, row.attempt, row.alone, row.error.removeprefix(GONE)) == wanted
        assert (row.finished_at is not None) == (row.state in rows.ENDED)

    def test_what_was_alone_stays_alone(self, connection: Connection) -> None:
        id = rows.add(connection, "running", age=60, alone=True)
        rows.rescue_running(connection, PATIENCE)
        assert rows.get(connection, id).alone

    def test_alone_in_its_message_the_next_attempt_counts(self, connection: Connection) -> None:
        id = rows.add(connection, "running", age=60, in_batch=True, attempt=1, max_attempts=1)
        rows.rescue_running(connection, PATIENCE)
        [claim] = ledger.claim(connection, [id], "w")
        assert claim.attempt == 1
        assert not rows.get(connection, id).in_batch
        now = Patience(running=-1)
        assert [job.state for job in rows.rescue_running(connection, now)] == ["dead"]

    def test_one_that_just_ends_is_left(self, effects: Engine) -> None:
        """Its worker holds the row: it was slow, and not dead."""
        with effects.begin() as connection:
            ending, lost = (rows.add(connection, "running", age=60) for _ in range(2))
            claim = rows.claim_of(connection, ending)
        with effects.begin() as worker, effects.connect() as relay:
            rows.finish(worker, claim, {})
            assert [job.id for job in rows.rescue_running(relay, PATIENCE)] == [lost]
            relay.rollback()


class TestPublished:
    def rescued(self, connection: Connection, *empty: str, patience: Patience = PATIENCE) -> list[UUID]:
        return [job.id for job in outbox.rescue_published(connection, empty, patience)]

    def test_a_message_in_an_empty_queue(self, connection: Connection) -> None:
        fresh = rows.add(connection, "published", age=29)
        assert outbox.queues_with_unstarted(connection, PATIENCE) == []
        lost = rows.add(connection, "published", age=31)
        assert outbox.queues_with_unstarted(connection, PATIENCE) == ["default"]
        assert self.rescued(connection, "default") == [lost]
        assert rows.state(connection, fresh) == "published"
        assert rows.get(connection, lost).attempt == 0

    def test_a_message_that_may_still_wait(self, connection: Connection) -> None:
        waits = rows.add(connection, "published", age=599)
        elsewhere = rows.add(connection, "published", age=599, queue="long")
        assert self.rescued(connection, "long") == [elsewhere]
        assert rows.state(connection, waits) == "published"

    def test_a_message_so_old_that_it_is_lost_for_sure(self, connection: Connection) -> None:
        id = rows.add(connection, "published", age=601)
        assert self.rescued(connection) == [id]


def test_patience_is_a_parameter(connection: Connection) -> None:
    rows.add(connection, "running", age=3)
    rows.add(connection, "published", age=3)
    hasty = Patience(running=2, published=2)
    assert len(rows.rescue_running(connection, hasty)) == 1
    assert outbox.queues_with_unstarted(connection, hasty) == ["default"]
    assert len(outbox.rescue_published(connection, ["default"], hasty)) == 1

"""The helpers for other applications' tests, as they would use them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.orm import Session

from kitaab_jobs.client import enqueue
from kitaab_jobs.testing import assert_enqueued, assert_not_enqueued, enqueued, run_jobs

MARKS = text(
    "INSERT INTO jobs.progress_marks (kind, subject_id) SELECT 'item', n FROM generate_series(1, :marks) AS n"
)


@pytest.fixture
def session(connection: Connection) -> Iterator[Session]:
    """A session in the test's transaction."""
    with Session(connection, join_transaction_mode="create_savepoint") as session:
        yield session


def states(session: Session) -> list[str]:
    return list(session.scalars(text("SELECT CAST(state AS text) FROM jobs.jobs ORDER BY created_at, id")))


def test_what_waits_is_found_by_what_it_contains(session: Session) -> None:
    enqueue(session, "reminders.deliver", {"zone": "Asia/Karachi", "delivery_ids": [1]}, priority=5)
    [found] = assert_enqueued(
        session, "reminders.deliver", {"zone": "Asia/Karachi"}, priority=5, queue="sending"
    )
    assert found.args["delivery_ids"] == [1]
    assert enqueued(session) == [found]


def test_what_does_not_wait_is_told_beside_what_does(session: Session) -> None:
    enqueue(session, "progress.refresh", {"limit": 5})
    with pytest.raises(
        AssertionError,
        match=r"(?s)no progress.refresh with {'limit': 6} waits.*{'limit': 5} ready in default",
    ):
        assert_enqueued(session, "progress.refresh", {"limit": 6})
    with pytest.raises(AssertionError, match=r"no progress\.reconcile.*\n  none"):
        assert_enqueued(session, "progress.reconcile")
    with pytest.raises(AssertionError, match=r"1 of progress\.refresh with {'limit': 5} wait, not 0"):
        assert_not_enqueued(session, "progress.refresh", {"limit": 5})
    with pytest.raises(AssertionError, match=r"1 of progress\.refresh .* wait, not 2"):
        assert_enqueued(session, "progress.refresh", count=2)
    assert_not_enqueued(session, "progress.refresh", {"limit": 6})


def test_jobs_run_in_the_tests_transaction(session: Session) -> None:
    session.execute(MARKS, {"marks": 3})
    enqueue(session, "progress.refresh", {"limit": 2})
    ran = run_jobs(session)
    assert [(job.name, job.state) for job in ran] == [("progress.refresh", "succeeded")] * 2, (
        "with its follow-up"
    )
    assert [(job.result or {})["marks"] for job in ran] == [2, 1]
    assert session.scalar(text("SELECT count(*) FROM jobs.progress_marks")) == 0
    session.rollback()
    assert states(session) == []


def test_a_job_that_fails_is_recorded_and_the_rest_runs(session: Session) -> None:
    session.execute(text("SELECT jobs.enqueue('progress.refresh', '{\"limit\": -1}')"))
    enqueue(session, "progress.refresh")
    failed, well = run_jobs(session)
    assert (failed.state, well.state) == ("dead", "succeeded")
    assert failed.error is not None
    assert "limit" in failed.error


def test_what_waits_for_a_group_runs_after_it(session: Session) -> None:
    enqueue(session, "progress.refresh", {"limit": 2}, after_group="first")
    enqueue(session, "progress.reconcile", group="first")
    assert [job.name for job in run_jobs(session)] == ["progress.reconcile", "progress.refresh"]


def test_what_is_for_later_stays(session: Session) -> None:
    session.execute(text("SELECT jobs.enqueue('progress.refresh', run_at => now() + interval '1 hour')"))
    assert run_jobs(session) == []
    assert states(session) == ["scheduled"]


def test_jobs_without_end_are_an_error(session: Session) -> None:
    session.execute(MARKS, {"marks": 50})
    enqueue(session, "progress.refresh", {"limit": 1})
    with pytest.raises(AssertionError, match=r"10 jobs ran, and progress\.refresh is ready again"):
        run_jobs(session, limit=10)

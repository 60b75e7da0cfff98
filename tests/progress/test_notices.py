"""Who is told of a completion: once, in the transaction that completes, and not of what is long past."""

from __future__ import annotations

import datetime as dt
from concurrent.futures import Future
from typing import Any, NamedTuple

import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import IntegrityError

from kitaab_jobs import contract
from kitaab_jobs.client import enqueue
from kitaab_jobs.progress.queries import notices as outbox_rows
from kitaab_jobs.testing import assert_enqueued, assert_not_enqueued, enqueued, run_jobs
from tests.progress.diary import NOW, TODAY, Diary, Goal, Part, before, reconcile, refresh_all, session_on
from tests.progress.workers import PATIENCE, Worker, refresh_once, workers

DAY = dt.timedelta(days=1)


class Notice(NamedTuple):
    """A row of the outbox."""

    kind: str
    subject: int
    happened_on: dt.date
    state: str
    reason: str | None


def notices(connection: Connection) -> list[Notice]:
    rows = connection.execute(
        text(
            "SELECT kind, coalesce(merit_id, target_id), happened_on, state::text, reason"
            " FROM jobs.notices ORDER BY notice_id"
        )
    )
    return [Notice(*row) for row in rows]


def pending(goal: Goal, day: dt.date) -> Notice:
    return Notice(f"{goal[0]}_completed", goal[1], day, "pending", None)


def jobs_of(connection: Connection) -> list[list[int]]:
    """The notices of each job that waits."""
    return [job.args["notice_ids"] for job in enqueued(connection, contract.REMINDERS_NOTIFY)]


def make(diary: Diary, kind: str, part: Part) -> Goal:
    return diary.merit(part) if kind == "merit" else diary.target(part, start=before(20), end=before(-20))


@pytest.mark.parametrize("kind", ["merit", "target"])
def test_a_completion_has_one_row_and_a_job(diary: Diary, kind: str) -> None:
    item = diary.item()
    goal = make(diary, kind, Part(item, 2))
    diary.record(item, TODAY, 1)
    diary.refresh()
    assert notices(diary.connection) == []
    diary.record(item, TODAY, 2)
    diary.refresh()
    assert notices(diary.connection) == [pending(goal, TODAY)]
    [ids] = jobs_of(diary.connection)
    assert ids == list(diary.connection.scalars(text("SELECT notice_id FROM jobs.notices")))
    assert diary.connection.scalar(text("SELECT user_id FROM jobs.notices")) == diary.person


def test_a_merit_and_a_target_of_one_item_are_two(diary: Diary) -> None:
    item = diary.item()
    goals = [make(diary, kind, Part(item, 2)) for kind in ("merit", "target")]
    diary.record(item, TODAY, 2)
    diary.refresh()
    assert notices(diary.connection) == [pending(goal, TODAY) for goal in goals]


def test_reconcile_tells_too(diary: Diary) -> None:
    item = diary.item()
    merit = diary.merit(Part(item, 2))
    diary.record(item, before(-1), 2)
    diary.refresh()
    assert notices(diary.connection) == []
    diary.reconcile(NOW + DAY)
    assert notices(diary.connection) == [pending(merit, before(-1))]


def test_completing_again_is_not_told_again(diary: Diary) -> None:
    """Neither by edits, nor when somebody takes the completion back behind our back."""
    item = diary.item()
    merit = diary.merit(Part(item, 2))
    for count in (2, 1, 3):
        diary.record(item, TODAY, count)
        diary.refresh()
    diary.change(merit, completed_at=None, completed_on=None, percent=0)
    diary.record(item, TODAY, 4)
    [report] = diary.refresh()
    assert report.merits_completed == 1
    assert len(notices(diary.connection)) == 1
    assert len(jobs_of(diary.connection)) == 1


def test_the_key_refuses_a_second_one(diary: Diary) -> None:
    item = diary.item()
    for kind in ("merit", "target"):
        make(diary, kind, Part(item, 2))
    diary.record(item, TODAY, 2)
    diary.refresh()
    for kind in ("merit", "target"):
        copy = text(
            f"INSERT INTO jobs.notices (user_id, kind, {kind}_id, happened_on)"
            f" SELECT user_id, kind, {kind}_id, happened_on FROM jobs.notices WHERE {kind}_id IS NOT NULL"
        )
        with pytest.raises(IntegrityError, match=f"uq_notices_{kind}"), diary.connection.begin_nested():
            diary.connection.execute(copy)


# --- what is long past


@pytest.mark.parametrize(("days", "told"), [(0, True), (2, True), (3, False), (300, False)])
def test_only_what_is_recent_is_told(diary: Diary, days: int, told: bool) -> None:
    item = diary.item()
    diary.merit(Part(item, 2))
    diary.record(item, before(days), 2)
    diary.refresh()
    [notice] = notices(diary.connection)
    assert (notice.state, notice.happened_on) == ("pending" if told else "missed", before(days))
    assert bool(jobs_of(diary.connection)) == told
    if not told:
        assert notice.reason == f"seen on {TODAY}, more than 2 days later"


def test_recent_is_meant_in_the_persons_days(diary: Diary) -> None:
    """In Kiritimati it is tomorrow already, so what is two days old here is three days old there."""
    diary.change_zone("Pacific/Kiritimati")
    item = diary.item()
    diary.merit(Part(item, 2))
    diary.record(item, before(2), 2)
    diary.refresh()
    assert [notice.state for notice in notices(diary.connection)] == ["missed"]


def test_an_import_of_old_entries_is_no_storm(diary: Diary) -> None:
    item = diary.item()
    for goal in range(1, 31):
        diary.merit(Part(item, goal), days=goal)
    recent = diary.merit(Part(item, 300))
    for days in range(299, -1, -1):
        diary.record(item, before(days), 1)
    diary.refresh()
    states = [notice.state for notice in notices(diary.connection)]
    assert (states.count("missed"), states.count("pending")) == (30, 1)
    assert pending(recent, TODAY) in notices(diary.connection)
    assert [len(ids) for ids in jobs_of(diary.connection)] == [1]


def test_what_was_recorded_without_a_notice_is_not_told_later(diary: Diary) -> None:
    item = diary.item()
    merit = diary.merit(Part(item, 2))
    diary.record(item, before(30), 2)
    diary.refresh()
    diary.change(merit, completed_at=None, completed_on=None, percent=0)
    diary.erase(item, before(30))
    diary.record(item, TODAY, 2)
    diary.refresh()
    assert [notice.state for notice in notices(diary.connection)] == ["missed"]
    assert_not_enqueued(diary.connection, contract.REMINDERS_NOTIFY)


def test_many_at_once_are_several_jobs(diary: Diary) -> None:
    item = diary.item()
    diary.run(
        "INSERT INTO merits (user_id, deed_id, name, start_date) SELECT :person, :deed, 'm', :day"
        " FROM generate_series(1, 501)",
        person=diary.person,
        deed=diary.deed,
        day=TODAY,
    )
    diary.run(
        "INSERT INTO merit_items (merit_id, deed_id, deed_item_id, item_type, target_value)"
        " SELECT merit_id, deed_id, :item, 'count', 1 FROM merits",
        item=item,
    )
    diary.record(item, TODAY, 1)
    diary.refresh()
    assert [len(ids) for ids in jobs_of(diary.connection)] == [500, 1]


# --- at once, and killed


@pytest.fixture
def nearly(kept: Engine) -> Goal:
    """A merit that needs two items, each recorded in a transaction of its own, and not computed yet."""
    with kept.begin() as connection:
        diary = Diary(connection)
        items = [diary.item(), diary.item()]
        merit = diary.merit(*(Part(item, 1) for item in items))
        refresh_all(connection)
        for item in items:
            diary.record(item, TODAY, 1)
    return merit


def outbox(engine: Engine) -> tuple[list[Notice], list[list[int]]]:
    with engine.connect() as connection:
        return notices(connection), jobs_of(connection)


def test_two_workers_completing_at_once_tell_once(kept: Engine, nearly: Goal) -> None:
    with workers(kept) as (first, second):
        first.refresh(limit=1)
        second.refresh(limit=1)
        first.commit()
        second.refresh(limit=1)
        second.commit()
    told, sending = outbox(kept)
    assert told == [pending(nearly, TODAY)]
    assert len(sending) == 1


def test_a_crash_before_the_commit_tells_nobody(kept: Engine, nearly: Goal) -> None:
    with workers(kept, 1) as [worker]:
        assert worker.refresh().merits_completed == 1
        assert len(worker.do(notices)) == 1
        worker.crash()
    assert outbox(kept) == ([], [])
    with kept.begin() as connection:
        refresh_all(connection)
    assert len(outbox(kept)[1]) == 1


def test_a_crash_between_commit_and_send_loses_nothing_and_doubles_nothing(
    kept: Engine, nearly: Goal
) -> None:
    with workers(kept, 1) as [worker]:
        worker.refresh()
        worker.commit()
        worker.crash()
    with kept.begin() as connection, session_on(connection) as session:
        assert_enqueued(session, contract.REMINDERS_NOTIFY, count=1)
        [ran] = [job for job in run_jobs(session) if job.name == "reminders.notify"]
        assert ran.state == "succeeded"
    # Handed to delivery. How that ends is told in tests/reminders.
    assert [notice.state for notice in outbox(kept)[0]] == ["sending"]


def test_a_second_job_for_the_same_notice_sends_nothing(kept: Engine, nearly: Goal) -> None:
    with kept.begin() as connection:
        refresh_all(connection)
    seen = []
    for _ in range(2):
        with kept.begin() as connection, session_on(connection) as session:
            ids = connection.scalar(text("SELECT array_agg(notice_id) FROM jobs.notices"))
            enqueue(session, contract.REMINDERS_NOTIFY, {"notice_ids": ids})
            run_jobs(session)
            statement = (
                "SELECT n.state::text, d.* FROM jobs.notices AS n JOIN jobs.deliveries AS d USING (notice_id)"
            )
            seen.append(connection.execute(text(statement)).all())
    assert seen[0] == seen[1]
    assert seen[0][0][0] == "sending"


@pytest.mark.parametrize("left", ["deleted_at = now()", "is_active = false"])
def test_who_has_left_is_not_told(kept: Engine, nearly: Goal, left: str) -> None:
    with kept.begin() as connection, session_on(connection) as session:
        refresh_all(connection)
        connection.execute(text(f"UPDATE users SET {left}"))
        run_jobs(session)
    [notice] = outbox(kept)[0]
    assert (notice.state, bool(notice.reason)) == ("missed", True)


@pytest.mark.parametrize("first", ["refresh", "delete"])
def test_a_person_is_deleted_in_mid_run(kept: Engine, nearly: Goal, first: str) -> None:
    """The deletion waits for the refresh, and the refresh for nobody."""

    def delete(worker: Worker) -> None:
        worker.connection.execute(text("DELETE FROM users"))

    def refresh(worker: Worker) -> None:
        refresh_once(worker.connection)

    one, other = (refresh, delete) if first == "refresh" else (delete, refresh)
    with workers(kept) as (early, late):
        early.do(lambda _: one(early))
        second = late.start(lambda _: other(late))
        assert late.wait_until_blocked_or_done(second) == (first == "refresh")
        early.commit()
        second.result(PATIENCE)
        late.commit()
    with kept.begin() as connection:
        refresh_all(connection)
        assert notices(connection) == []
        assert reconcile(connection).marked == 0


def test_a_person_who_is_being_deleted_while_the_notice_is_written(
    kept: Engine, nearly: Goal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The goals are locked by the refresh when the deletion begins: it waits for them, the refresh for nobody."""
    record = outbox_rows.record
    with workers(kept) as (worker, person):
        deletions: list[Future[object]] = []

        def record_beside_a_deletion(*arguments: Any) -> list[int]:
            deletions.append(person.start(lambda connection: connection.execute(text("DELETE FROM users"))))
            person.wait_until_blocked(deletions[0])
            return record(*arguments)

        monkeypatch.setattr(outbox_rows, "record", record_beside_a_deletion)
        assert worker.refresh().merits_completed == 1
        worker.commit()
        deletions[0].result(PATIENCE)
        person.commit()
    assert outbox(kept)[0] == []

"""Marks: shared between workers, never lost, and taken together with what was computed from them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from uuid import UUID

import pytest
from sqlalchemy import Connection, Engine, event, text
from sqlalchemy.exc import DBAPIError

from kitaab_jobs import contract
from kitaab_jobs.client import enqueue
from kitaab_jobs.progress import jobs, queries, tasks
from kitaab_jobs.runtime.attempt import Runner
from kitaab_jobs.runtime.execute import execute
from kitaab_jobs.runtime.heartbeat import Heartbeat
from tests.progress.diary import (
    NOW,
    TODAY,
    Diary,
    Goal,
    Part,
    before,
    look,
    reconcile,
    refresh_all,
    session_on,
    waiting_marks,
)
from tests.progress.workers import PATIENCE, refresh_once, workers

# The statements of a refresh, at least: it takes marks with their goals, finds targets whose time is up, and for merits and
# then for targets locks them, sets joins, computes and writes the history.
STEPS = 10


def marked_items(engine: Engine, number: int) -> list[tuple[int, Goal]]:
    """So many items with a merit each, all of them recorded today, and one mark for each item."""
    with engine.begin() as connection:
        diary = Diary(connection)
        made = []
        for _ in range(number):
            item = diary.item()
            made.append((item, diary.merit(Part(item, 1))))
        refresh_all(connection)
        for item, _ in made:
            diary.record(item, TODAY, 1)
    return made


def take(limit: int) -> Callable[[Connection], set[int]]:
    """Take marks, leave the transaction open, and return the merits that they concern."""

    def taken(connection: Connection) -> set[int]:
        if not connection.in_transaction():
            connection.begin()
        with session_on(connection) as session:
            return set(queries.take(session, limit).goals["merit"])

    return taken


def counted(connection: Connection, table: str, condition: str = "true") -> int:
    return int(connection.scalar(text(f"SELECT count(*) FROM {table} WHERE {condition}")) or 0)


def waiting(engine: Engine) -> int:
    with engine.connect() as connection:
        return waiting_marks(connection)


def completed(engine: Engine) -> int:
    with engine.connect() as connection:
        return counted(connection, "merits", "completed_at IS NOT NULL")


# --- what marks what


def test_one_statement_marks_each_item_once(diary: Diary) -> None:
    items = [diary.item(), diary.item()]
    diary.run("DELETE FROM jobs.progress_marks")
    diary.run(
        "INSERT INTO entries (user_id, deed_item_id, entry_date, count_value)"
        " SELECT :person, item, :today - day, 1 FROM unnest(:items) AS item, generate_series(1, 50) AS day",
        person=diary.person,
        items=items,
        today=TODAY,
    )
    assert waiting_marks(diary.connection) == 2


def test_what_the_platform_computes_marks_nothing(diary: Diary) -> None:
    item = diary.item()
    diary.merit(Part(item, 1))
    diary.record(item, TODAY, 1)
    diary.refresh()
    assert waiting_marks(diary.connection) == 0
    diary.run("UPDATE merits SET percent = 100, name = 'new'")
    assert waiting_marks(diary.connection) == 0


def test_marks_of_what_is_gone_are_taken_away(diary: Diary) -> None:
    diary.run(
        "INSERT INTO jobs.progress_marks (kind, subject_id) VALUES ('item', -1), ('merit', -1), ('target', -1)"
    )
    [report] = diary.refresh()
    assert (report.marks, report.changed) == (3, 0)
    assert waiting_marks(diary.connection) == 0


# --- shared between workers


def test_two_refreshes_at_once_share_the_marks(kept: Engine) -> None:
    merits = {merit for _, (_, merit) in marked_items(kept, 5)}
    with workers(kept) as (one, other):
        first = one.do(take(2))
        second = other.do(take(100))
        assert len(first) == 2
        assert first | second == merits
        assert not first & second
        one.commit()
        other.commit()
    assert waiting(kept) == 0


def test_the_marks_of_a_worker_that_failed_are_there_for_the_next(kept: Engine) -> None:
    merits = {merit for _, (_, merit) in marked_items(kept, 5)}
    with workers(kept) as (one, other):
        failed = one.do(take(2))
        assert not failed & other.do(take(100))
        one.rollback()
        other.commit()
        assert other.do(take(100)) == failed
        other.rollback()
    assert waiting(kept) == 2
    assert failed < merits


def test_two_refreshes_at_once_share_the_work(kept: Engine) -> None:
    marked_items(kept, 6)
    with workers(kept) as (one, other):
        first, second = one.refresh(limit=3), other.refresh()
        assert (first.marks, second.marks) == (3, 3)
        one.commit()
        other.commit()
    assert (waiting(kept), completed(kept)) == (0, 6)


def test_a_refresh_takes_no_more_than_its_limit_and_the_oldest_first(kept: Engine) -> None:
    made = marked_items(kept, 4)
    with kept.begin() as connection:
        assert refresh_once(connection, limit=3).marks == 3
    with kept.begin() as connection:
        left = list(connection.scalars(text("SELECT subject_id FROM jobs.progress_marks")))
    assert left == [made[-1][0]]


def test_an_entry_does_not_wait_behind_what_the_platform_marked(kept: Engine) -> None:
    """Reconcile and the archive mark many goals at once; an entry comes last and is computed first."""
    with kept.begin() as connection:
        diary = Diary(connection)
        fresh = diary.item()
        merits = [diary.merit(Part(fresh, 1)), *(diary.merit(Part(diary.item(), n + 2)) for n in range(4))]
        other = diary.item()
        diary.record(other, dt.date(2023, 5, 1), 1)
        refresh_all(connection)
        for merit in merits[1:]:
            diary.change(merit, percent=7)
        connection.execute(text("DELETE FROM jobs.progress_marks"))
        assert look(connection).marked == 4
    with kept.begin() as connection:
        connection.execute(text("ALTER TABLE entries DETACH PARTITION entries_2023"))
        assert connection.scalar(text("SELECT jobs.mark_items_of('entries_2023')")) == 1
    with kept.begin() as connection:
        diary.connection = connection
        diary.record(fresh, TODAY, 1)
        assert refresh_once(connection, limit=1).merits_completed == 1
        assert [diary.shown(merit).percent for merit in merits] == [100, 7, 7, 7, 7]
        refresh_all(connection, limit=1)
        assert [diary.shown(merit).percent for merit in merits] == [100, 0, 0, 0, 0]


# --- the follow-up, and how late a refresh is


def follow_ups(engine: Engine) -> list[dict[str, int]]:
    with engine.connect() as connection:
        jobs_waiting = text("SELECT args FROM jobs.jobs WHERE name = 'progress.refresh' AND state = 'ready'")
        return list(connection.scalars(jobs_waiting))


def test_a_follow_up_comes_with_the_work_while_marks_remain(kept: Engine) -> None:
    marked_items(kept, 5)
    with workers(kept, 1) as [worker]:
        worker.refresh(limit=2)
        assert follow_ups(kept) == []
        worker.rollback()
        assert follow_ups(kept) == []
        worker.refresh(limit=2)
        worker.commit()
        assert follow_ups(kept) == [{"limit": 2}]
        worker.refresh(limit=4)
        worker.commit()
    assert follow_ups(kept) == [{"limit": 2}], "all were taken, so nothing follows"


def test_the_lag_is_the_age_of_the_oldest_mark(diary: Diary) -> None:
    item = diary.item()
    diary.merit(Part(item, 1))
    diary.run("UPDATE jobs.progress_marks SET marked_at = :then", then=NOW - dt.timedelta(seconds=90))
    diary.record(item, TODAY, 1)
    diary.run("UPDATE jobs.progress_marks SET marked_at = :now WHERE kind = 'item'", now=NOW)
    [report] = diary.refresh()
    assert report.lag_seconds == 90


def test_a_mark_is_as_old_as_its_statement(diary: Diary) -> None:
    """Not as its transaction, which may have loaded a file or compared all goals before."""
    item = diary.item()
    merit = diary.merit(Part(item, 1))
    diary.record(item, TODAY, 1)
    diary.refresh()
    diary.change(merit, percent=100, is_satisfied=False)
    diary.record(diary.item(), TODAY, 1)
    look(diary.connection)
    ages = diary.connection.scalars(text("SELECT marked_at > now() FROM jobs.progress_marks"))
    assert list(ages) == [True, True]


def test_what_nobody_waits_for_is_no_lag(diary: Diary) -> None:
    item = diary.item()
    diary.merit(Part(item, 1))
    diary.refresh()
    diary.record(item, TODAY, 1)
    diary.run("UPDATE jobs.progress_marks SET marked_at = :then", then=NOW - dt.timedelta(seconds=7))
    diary.run(
        "INSERT INTO jobs.progress_marks (kind, subject_id, marked_at, is_background) VALUES ('merit', -1, :then, true)",
        then=NOW - dt.timedelta(seconds=90),
    )
    [report] = diary.refresh()
    assert (report.marks, report.lag_seconds) == (2, 7)


def test_nothing_to_do_is_no_lag(diary: Diary) -> None:
    with session_on(diary.connection) as session:
        assert jobs.refresh(session, now=NOW, limit=10) == jobs.Report(0, 0, 0, 0, 0, 0.0)


# --- what happens beside a refresh, at each of its steps


@contextmanager
def before_statement(number: int, connection: Connection, happen: Callable[[], None]) -> Iterator[list[str]]:
    """Let something happen before the connection's statement of that number; give the statements' texts."""
    seen: list[str] = []

    def execute(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        seen.append(statement)
        if len(seen) == number + 1:
            happen()

    event.listen(connection, "before_cursor_execute", execute)
    try:
        yield seen
    finally:
        event.remove(connection, "before_cursor_execute", execute)


class Scene:
    """A merit and a target, half done and marked, and things that may happen to them and complete them.

    Apart from them is a merit that nothing has marked, which an entry completes.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        with connection.begin():
            self.diary = Diary(connection)
            self.top, self.stray = self.diary.item(), self.diary.item()
            self.child = self.diary.item(self.top)
            self.goals = [self.diary.merit(), self.diary.target(start=before(5), end=TODAY)]
            self.parts = [(goal[0], self.diary.add_part(goal, Part(self.top, 4))) for goal in self.goals]
            self.diary.record(self.stray, TODAY, 2)
            self.apart = self.diary.item()
            self.unmarked = self.diary.merit(Part(self.apart, 1))
            refresh_all(connection)
            self.diary.record(self.child, TODAY, 2)

    def an_entry(self) -> None:
        self.diary.record(self.top, before(1), 2)

    def an_entry_of_what_is_not_marked(self) -> None:
        self.goals = [self.unmarked]
        self.diary.record(self.apart, TODAY, 1)

    def an_edit(self) -> None:
        self.diary.record(self.child, TODAY, 4)

    def an_item_that_moves(self) -> None:
        self.diary.move(self.stray, self.child)

    def a_lower_goal(self) -> None:
        for kind, part in self.parts:
            self.diary.change_part(kind, part, 2)

    def commit(self, happening: str) -> None:
        """Let it happen in a transaction of its own."""
        with self.connection.begin():
            getattr(self, happening)()

    def is_done(self) -> bool:
        return all(self.diary.shown(goal) == (100, True, TODAY) for goal in self.goals)


@pytest.mark.parametrize(
    "happening",
    ["an_entry", "an_entry_of_what_is_not_marked", "an_edit", "an_item_that_moves", "a_lower_goal"],
)
def test_what_is_committed_beside_a_refresh_is_computed_or_leaves_its_mark(
    kept: Engine, happening: str
) -> None:
    """What is complete at the end of the refresh has more steps, since a notice is written: hence no fixed number."""
    step, statements = 0, [""]
    with kept.connect() as connection, kept.connect() as other:
        while step <= len(statements):
            scene = Scene(other)
            happen = partial(scene.commit, happening)
            with connection.begin():
                with before_statement(step, connection, happen) as statements:
                    refresh_once(connection)
                if step >= len(statements):
                    happen()
            with other.begin():
                assert scene.is_done() or waiting_marks(other), f"lost before {statements[step:][:1]}"
                refresh_all(other)
                assert scene.is_done()
                assert reconcile(other).marked == 0
            step += 1
    assert step > STEPS, "each step of a refresh has its turn"


def test_a_person_edits_a_merit_while_it_is_computed(kept: Engine) -> None:
    """The edit waits for the refresh, and its mark for the next."""
    [(_, merit)] = marked_items(kept, 1)
    shorten = text("UPDATE merits SET duration_days = 1, start_date = :day WHERE merit_id = :id")
    with workers(kept) as (worker, person):
        worker.refresh()
        edit = person.start(
            lambda connection: connection.execute(shorten, {"day": before(-1), "id": merit[1]}).rowcount
        )
        person.wait_until_blocked(edit)
        worker.commit()
        edit.result(PATIENCE)
        person.commit()
    assert waiting(kept) == 1
    with kept.begin() as connection:
        refresh_all(connection)
        assert reconcile(connection).marked == 0
        assert counted(connection, "merits", "percent = 100 AND NOT is_satisfied") == 1


def test_a_person_adds_an_item_to_a_merit_while_it_is_computed(kept: Engine) -> None:
    """A goal is locked against other workers, and not against rows that refer to it."""
    [(item, merit)] = marked_items(kept, 1)
    with workers(kept) as (worker, person):
        worker.refresh()

        def add(connection: Connection) -> None:
            connection.execute(text("SET LOCAL lock_timeout = '5s'"))
            Diary(connection).add_part(merit, Part(item, 5))

        person.do(add)
        person.commit()
        worker.commit()
    assert waiting(kept) == 1
    with kept.begin() as connection:
        refresh_all(connection)
        assert reconcile(connection).marked == 0


def test_reconcile_does_not_stand_in_the_way_of_a_refresh(kept: Engine) -> None:
    marked_items(kept, 2)
    with kept.begin() as connection:
        refresh_all(connection)
        connection.execute(text("UPDATE entries SET count_value = 2"))
    with workers(kept) as (nightly, worker):

        def begin(connection: Connection) -> jobs.Reconciled:
            connection.begin()
            return look(connection)

        report = nightly.do(begin)
        assert (report.goals, report.marked) == (2, 0)
        assert worker.refresh().marks == 2
        worker.commit()
        nightly.commit()


@pytest.mark.parametrize("is_computed", [False, True])
@pytest.mark.parametrize("is_marked_ahead", [False, True])
def test_what_is_committed_beside_a_reconcile_is_no_defect(
    kept: Engine, is_marked_ahead: bool, is_computed: bool
) -> None:
    """Windows slid since yesterday, so it looks at what was right then; an entry of that day comes at each step."""
    tomorrow = NOW + dt.timedelta(days=1)
    step, statements = 0, [""]
    with kept.connect() as connection, kept.connect() as other:
        while step < len(statements):
            with other.begin():
                diary = Diary(other)
                item = diary.item()
                diary.merit(Part(item, 4), days=3)
                diary.record(item, before(2), 1)
                refresh_all(other)
                if is_marked_ahead:
                    diary.record(item, before(-1), 2)

            def happen(diary: Diary = diary, item: int = item) -> None:
                with other.begin():
                    diary.record(item, TODAY, 2)
                    if is_computed:
                        refresh_all(other, tomorrow)

            with connection.begin(), before_statement(step, connection, happen) as statements:
                report = look(connection, tomorrow)
            assert report.defects == [], f"before {statements[step]}"
            with other.begin():
                refresh_all(other, tomorrow)
                assert look(other, tomorrow).marked == 0
                other.execute(text("DELETE FROM users"))
                other.execute(text("DELETE FROM jobs.progress_marks"))
            step += 1
    assert step > STEPS


# --- a refresh waits for nobody


RENAME = text("UPDATE merits SET name = 'new' WHERE merit_id = :id")


def test_a_person_edits_two_merits_in_the_other_order(kept: Engine) -> None:
    """The person has the second and wants the first, the refresh has the first: it does not wait for the second."""
    first, second = (merit for _, (_, merit) in marked_items(kept, 2))
    with workers(kept) as (worker, person):
        person.do(lambda connection: connection.execute(RENAME, {"id": second}))
        refresh = worker.start(refresh_once)
        worker.wait_until_blocked_or_done(refresh)
        edit = person.start(lambda connection: connection.execute(RENAME, {"id": first}))
        person.wait_until_blocked(edit)
        report = refresh.result(PATIENCE)
        assert (report.goals, report.changed, report.postponed) == (2, 1, 1)
        worker.commit()
        edit.result(PATIENCE)
        person.commit()
    assert (waiting(kept), completed(kept)) == (1, 1)
    with kept.begin() as connection:
        assert [report.merits_completed for report in refresh_all(connection)] == [1]
        assert reconcile(connection).marked == 0


def test_who_leaves_a_transaction_open_holds_up_nobody_else(kept: Engine) -> None:
    """Not even a refresh that follows itself: it would find the same again and again."""
    made = marked_items(kept, 3)
    with workers(kept) as (worker, person):
        person.do(lambda connection: connection.execute(RENAME, {"id": made[0][1][1]}))
        assert [worker.refresh(limit=n).postponed for n in (1, 2, 1)] == [1, 0, 1]
        worker.commit()
        assert (waiting(kept), completed(kept)) == (1, 2)
        assert [args["limit"] for args in follow_ups(kept)] == [2]
        person.commit()
    with kept.begin() as connection:
        refresh_all(connection)
    assert (waiting(kept), completed(kept)) == (0, 3)


def test_many_goals_that_somebody_holds_do_not_stand_before_what_others_enter(kept: Engine) -> None:
    """They fill a refresh each time: what is behind them follows at once, and they themselves only once."""
    with kept.begin() as connection:
        diary = Diary(connection)
        item, fresh = diary.item(), diary.item()
        held = [diary.merit(Part(item, 2))[1] for _ in range(4)]
        merit = diary.merit(Part(fresh, 1))
        refresh_all(connection)
        diary.record(item, TODAY, 1)
    with workers(kept) as (worker, person):
        rename = text("UPDATE merits SET name = 'new' WHERE merit_id = ANY (:ids)")
        person.do(lambda connection: connection.execute(rename, {"ids": held}))
        assert worker.refresh().postponed == 4
        worker.commit()
        with kept.begin() as connection:
            diary.connection = connection
            diary.record(fresh, TODAY, 1)
            diary.run("UPDATE jobs.progress_marks SET marked_at = :then", then=NOW - dt.timedelta(seconds=2))
        followed = []
        for _ in range(4):
            worker.refresh(limit=2)
            worker.commit()
            followed.append(len(follow_ups(kept)))
        assert followed == [1, 2, 3, 3]
    with kept.connect() as connection:
        diary.connection = connection
        assert diary.shown(merit) == (100, True, TODAY)


def test_what_nobody_waits_for_stays_so_while_somebody_holds_it(kept: Engine) -> None:
    """Unless an entry concerns it as well; its items may be marked either way."""
    with kept.begin() as connection:
        diary = Diary(connection)
        old, new = diary.item(), diary.item()
        [alone, both, *_] = [
            diary.merit(Part(old, 1)),
            diary.merit(Part(old, 1), Part(new, 1)),
            diary.target(Part(old, 1), start=before(5), end=TODAY),
        ]
        refresh_all(connection)
        diary.record(new, TODAY, 1)
        diary.run(
            "INSERT INTO jobs.progress_marks (kind, subject_id, is_background)"
            " VALUES ('item', :item, true), ('merit', :merit, true)",
            item=old,
            merit=alone[1],
        )
    lanes = text("SELECT kind, subject_id, is_background FROM jobs.progress_marks ORDER BY progress_mark_id")
    with workers(kept) as (worker, person):
        person.do(lambda connection: connection.execute(text("UPDATE merits SET name = 'new'")))
        assert worker.refresh().postponed == 2
        worker.commit()
    with kept.connect() as connection:
        assert [tuple(row) for row in connection.execute(lanes)] == [(*both, False), (*alone, True)]


def test_the_earliest_day_holds_of_marks_that_somebody_waits_for_and_others(diary: Diary) -> None:
    item = diary.item()
    merit = diary.merit(Part(item, 1))
    diary.refresh()
    for day, background in ((before(9), True), (before(2), False)):
        diary.run(
            "INSERT INTO jobs.progress_marks (kind, subject_id, since, is_background)"
            " VALUES ('item', :item, :day, :background)",
            item=item,
            day=day,
            background=background,
        )
    with session_on(diary.connection) as session:
        taken = queries.take(session, 10)
    assert (taken.marks, taken.goals, taken.background) == (
        2,
        {"merit": {merit[1]: before(9)}},
        {"merit": set()},
    )


def test_a_merit_that_is_being_deleted_is_marked_until_it_is_gone(kept: Engine) -> None:
    marked_items(kept, 1)
    with workers(kept) as (worker, owner):
        owner.do(lambda connection: connection.execute(text("DELETE FROM users")))
        assert worker.refresh().postponed == 1
        worker.commit()
        owner.commit()
    with kept.begin() as connection:
        refresh_all(connection)
    assert waiting(kept) == 0


# --- items that are removed


def test_an_item_that_is_removed_with_its_entries_takes_them_out_of_goals_above(kept: Engine) -> None:
    """One transaction, and the item is gone by the time its mark is taken."""
    with kept.begin() as connection:
        diary = Diary(connection)
        top = diary.item()
        middle = diary.item(top)
        leaf = diary.item(middle)
        merit = diary.merit(Part(top, 4))
        for item in (top, middle, leaf):
            diary.record(item, TODAY, 1)
        assert diary.progress(merit).percent == 75
    for items, percent in (([leaf], 50), ([middle], 25)):
        with kept.begin() as connection:
            diary.connection = connection
            diary.run("DELETE FROM entries WHERE deed_item_id = ANY (:items)", items=items)
            diary.run("DELETE FROM deed_items WHERE deed_item_id = ANY (:items)", items=items)
        with kept.begin() as connection:
            diary.connection = connection
            assert diary.progress(merit).percent == percent


def test_a_branch_that_is_removed_at_once(kept: Engine) -> None:
    with kept.begin() as connection:
        diary = Diary(connection)
        top = diary.item()
        middle = diary.item(top)
        branch = [middle, diary.item(middle)]
        merit = diary.merit(Part(top, 2))
        for item in branch:
            diary.record(item, TODAY, 1)
        assert diary.progress(merit).percent == 100
        diary.run("DELETE FROM entries")
        diary.run("DELETE FROM deed_items WHERE deed_item_id = ANY (:items)", items=branch)
        diary.refresh()
        assert diary.shown(merit) == (100, False, TODAY)


# --- entries that are archived


@pytest.mark.parametrize("is_told", [True, False])
def test_a_detached_partition_takes_its_entries_out_of_goals(
    kept: Engine, engine_as: Callable[[str], Engine], is_told: bool
) -> None:
    """No trigger fires when one is detached: the archive says so, or reconcile finds a defect. What is complete stays."""
    with kept.begin() as connection:
        diary = Diary(connection)
        item, old = diary.item(), dt.date(2023, 5, 1)
        half, whole = diary.merit(Part(item, 4)), diary.merit(Part(item, 2))
        slides = diary.merit(Part(item, 1), days=3, start=old)
        diary.record(item, old, 1)
        diary.record(item, TODAY, 1)
        diary.refresh()
    with kept.begin() as connection:
        connection.execute(text("ALTER TABLE entries DETACH PARTITION entries_2023"))
        connection.execute(text("ALTER TABLE entries_2023 SET SCHEMA archive"))
    if is_told:
        with engine_as("kitaab_worker").begin() as connection:
            assert connection.scalar(text("SELECT jobs.mark_items_of('archive.entries_2023')")) == 1
    with kept.begin() as connection:
        diary.connection = connection
        if is_told:
            diary.refresh()
        report = look(connection)
        assert report.defects == ([] if is_told else [f"merit {half[1]}", f"merit {whole[1]}"])
        diary.refresh()
        assert diary.shown(half) == (25, False, None)
        assert diary.shown(whole) == (100, False, TODAY)
        assert diary.shown(slides) == (100, True, old)


def test_only_partitions_of_entries_can_be_named(diary: Diary) -> None:
    with pytest.raises(DBAPIError, match="merits is no partition of entries"):
        diary.run("SELECT jobs.mark_items_of('merits')")


# --- the role


def test_the_workers_role_may_do_all_of_it(kept: Engine, engine_as: Callable[[str], Engine]) -> None:
    marked_items(kept, 3)
    with kept.begin() as connection:
        diary = Diary(connection)
        item = diary.item()
        diary.target(Part(item, 1), start=TODAY, end=dt.date(2100, 1, 1))
        diary.record(item, TODAY, 1)
    worker = engine_as("kitaab_worker")
    first = run_as_job(worker, contract.PROGRESS_REFRESH, {"limit": 1})
    assert first is not None
    assert (first["marks"], first["merits_completed"]) == (1, 1)
    [follow_up] = follow_ups(kept)
    second = run_as_job(worker, contract.PROGRESS_REFRESH, {"limit": 1000})
    assert follow_up == {"limit": 1}
    assert second is not None
    assert (second["merits_completed"], second["targets_completed"]) == (2, 1)
    with kept.begin() as connection:
        connection.execute(text("UPDATE merits SET is_satisfied = false"))
    found = run_as_job(worker, contract.PROGRESS_RECONCILE, {})
    assert found is not None
    assert (found["goals"], found["marked"]) == (4, 3)
    repaired = run_as_job(worker, contract.PROGRESS_REFRESH, {"limit": 1000})
    assert repaired is not None
    assert (repaired["goals"], repaired["changed"]) == (3, 3)
    assert (waiting(kept), completed(kept)) == (0, 3)


def run_as_job(engine: Engine, kind: contract.Job, args: dict[str, int]) -> dict[str, object] | None:
    """Enqueue a job and run it as a worker does."""
    function = tasks.refresh if kind is contract.PROGRESS_REFRESH else tasks.reconcile
    with engine.begin() as connection:
        id: UUID = enqueue(connection, kind, args)
    runner = Runner(kind, function, engine, "test", Heartbeat(engine))
    return execute(runner, id, args).result

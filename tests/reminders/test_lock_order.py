"""Those who lock the rows of several people, or several rows of one, do so in one order: nobody waits in a circle.

Each case stops one of the two between its locks, lets the other one come so far that it waits, and goes on.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.orm import Session

from kitaab_jobs.reminders import outgoing, queries, zone_data
from kitaab_jobs.reminders.outgoing import End
from tests.conftest import engine_for, in_transaction
from tests.devstack.observe import wait_for
from tests.reminders.postoffice import PostOffice
from tests.reminders.test_dispatch import World, utc
from tests.runtime.doing import waiting

NOW = dt.datetime(2026, 11, 25, 12, tzinfo=dt.UTC)
DELETE = text("DELETE FROM users WHERE user_id = :user")


@pytest.fixture
def superuser(database: Engine, url_for: Callable[[str, str], str]) -> Iterator[Engine]:
    """An engine for who may take any role."""
    assert database.url.database is not None
    engine = engine_for(url_for("postgres", database.url.database))
    yield engine
    engine.dispose()


def waits(engine: Engine, how_many: int = 1) -> None:
    """Return when so many wait."""
    wait_for(lambda: waiting(engine) >= how_many)


def test_a_person_is_deleted_while_they_are_reminded(
    superuser: Engine, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The dispatch has their reminder, and the deletion has them and waits for it: then the delivery is written."""
    with superuser.begin() as connection:
        world = World(connection)
        user = world.person()
        world.reminder("08:00", set_at=utc(1), user_id=user)
        world.dispatch(utc(1))
    deleting: list[Future[Any]] = []
    settle = queries.settle

    def then_delete(session: Session, decisions: Any, now: dt.datetime) -> Any:
        if decisions:
            deleting.append(
                pool.submit(in_transaction(superuser, lambda c: c.execute(DELETE, {"user": user})))
            )
            waits(superuser)
        return settle(session, decisions, now)

    monkeypatch.setattr(queries, "settle", then_delete)
    with superuser.begin() as connection:
        assert World(connection).dispatch(utc(1, 8)).to_send == 1
    deleting[0].result(30)
    with superuser.connect() as connection:
        for table in ("users", "notifications", "jobs.deliveries"):
            assert connection.scalar(text(f"SELECT count(*) FROM {table}")) == 0, table


def notice(office: PostOffice, user: int) -> int:
    """A notice that is being sent."""
    return int(
        office.one(
            """
            WITH deed AS (
                INSERT INTO deeds (user_id, category_type, name) VALUES (:u, 'hasanaat', 'a deed') RETURNING deed_id
            ), merit AS (
                INSERT INTO merits (user_id, deed_id, name, merit_type, start_date)
                SELECT :u, deed_id, 'forty days', 'AND', '2026-01-01' FROM deed RETURNING merit_id
            )
            INSERT INTO jobs.notices (user_id, kind, merit_id, happened_on, state)
            SELECT :u, 'merit_completed', merit_id, '2026-11-24', 'sending' FROM merit RETURNING notice_id
            """,
            u=user,
        )
    )


def of_notice(
    office: PostOffice, id: int, user: int, channel: str, job: Any, deadline: str = "1 hour"
) -> int:
    """A delivery of a notice that a job is sending."""
    return int(
        office.one(
            """
            INSERT INTO jobs.deliveries (notice_id, user_id, channel, due_at, due_date, zone, deadline, state, claimed_by)
            VALUES (:n, :u, :c, now(), current_date, 'UTC', now() + CAST(:d AS interval),
                    CASE WHEN CAST(:j AS uuid) IS NULL THEN 'pending' ELSE 'sending' END::jobs.delivery_state, :j)
            RETURNING delivery_id
            """,
            n=id,
            u=user,
            c=channel,
            j=job,
            d=deadline,
        )
    )


def test_a_person_is_deleted_while_their_notice_is_sent(office: PostOffice, pool: ThreadPoolExecutor) -> None:
    """A deletion goes from the notice to its deliveries, and so does who records how these ended."""
    user, job = office.person(), office.enqueue(1)
    delivery = of_notice(office, notice(office, user), user, "email", job)
    # Whoever holds the delivery stops both of them there.
    with office.owner.connect() as holder:
        holder.execute(text("SELECT FROM jobs.deliveries FOR UPDATE"))
        ending = pool.submit(
            in_transaction(office.worker, lambda c: outgoing.end(c, job, [End(delivery, "sent")], NOW))
        )
        waits(office.owner)
        deleting = pool.submit(in_transaction(office.owner, lambda c: c.execute(DELETE, {"user": user})))
        waits(office.owner, 2)
        holder.rollback()
    assert ending.result(30) == {delivery}
    deleting.result(30)
    assert office.one("SELECT count(*) FROM jobs.deliveries") == 0


def test_a_person_is_deleted_while_two_notices_of_theirs_end(
    office: PostOffice, pool: ThreadPoolExecutor
) -> None:
    """Their target was complete before their merit was; a deletion goes from the merits to the targets."""
    user, job = office.person(), office.enqueue(1)
    of_target = office.one(
        """
        WITH target AS (
            INSERT INTO targets (user_id, name, start_date, end_date)
            VALUES (:u, 'a target', '2026-01-01', '2026-12-31') RETURNING target_id
        )
        INSERT INTO jobs.notices (user_id, kind, target_id, happened_on, state)
        SELECT :u, 'target_completed', target_id, '2026-11-24', 'sending' FROM target RETURNING notice_id
        """,
        u=user,
    )
    ids = [of_notice(office, id, user, "email", job) for id in (of_target, notice(office, user))]
    with office.owner.connect() as holder:
        holder.execute(text("SELECT FROM jobs.notices WHERE notice_id = :n FOR UPDATE"), {"n": of_target})
        ending = pool.submit(
            in_transaction(
                office.worker, lambda c: outgoing.end(c, job, [End(id, "sent") for id in ids], NOW)
            )
        )
        waits(office.owner)
        deleting = pool.submit(in_transaction(office.owner, lambda c: c.execute(DELETE, {"user": user})))
        waits(office.owner, 2)
        holder.rollback()
    assert ending.result(30) == set(ids)
    deleting.result(30)


def test_the_last_two_of_a_notice_end_at_once(office: PostOffice) -> None:
    """Neither sees the other one's end: whoever comes second must, or nobody would end the notice."""
    user, job = office.person(), office.enqueue(1)
    id = notice(office, user)
    first, second = (of_notice(office, id, user, channel, job) for channel in ("email", "webpush"))
    with ThreadPoolExecutor(1) as pool, office.worker.begin() as one:
        assert outgoing.end(one, job, [End(first, "sent")], NOW) == {first}
        other = pool.submit(
            in_transaction(office.worker, lambda c: outgoing.end(c, job, [End(second, "failed", "no")], NOW))
        )
        wait_for(lambda: waiting(office.owner) or other.done())
        one.commit()
        assert other.result(30) == {second}
    assert office.one("SELECT state::text FROM jobs.notices WHERE notice_id = :n", n=id) == "sent"


def test_the_sweep_passes_over_a_notice_that_somebody_has(
    office: PostOffice, pool: ThreadPoolExecutor
) -> None:
    """Whoever deletes a person may be long about it: what is left behind of others is ended meanwhile."""
    people = [office.person() for _ in range(2)]
    held, free = (notice(office, user) for user in people)
    gone = "00000000-0000-0000-0000-000000000001"
    late, abandoned = (
        [
            of_notice(office, id, user, channel, job, "-1 minute")
            for id, user in zip((held, free), people, strict=True)
        ]
        for channel, job in (("log", None), ("email", gone))
    )

    def sweep() -> Any:
        return in_transaction(office.worker, lambda c: outgoing.sweep(c, 100, dt.datetime.now(dt.UTC)))()

    with office.owner.connect() as holder:
        holder.execute(text("SELECT FROM jobs.notices WHERE notice_id = :n FOR UPDATE"), {"n": held})
        assert pool.submit(sweep).result(30) == (1, 1)
        holder.rollback()
    assert [office.state(id)[0] for id in (late[1], abandoned[1])] == ["missed", "unknown"]
    assert sweep() == (1, 1)
    assert office.one("SELECT count(*) FROM jobs.notices WHERE state = 'unknown'") == 2


def test_notices_are_ended_from_the_lowest_on(office: PostOffice, pool: ThreadPoolExecutor) -> None:
    """Whoever waits for several notices begins with the lowest, whatever the order of the deliveries."""
    job = office.enqueue(1)
    people = [office.person() for _ in range(2)]
    low, high = (notice(office, user) for user in people)
    # The higher one's row comes first where the table is read from its beginning.
    office.run("UPDATE jobs.notices SET happened_on = happened_on WHERE notice_id = :n", n=low)
    ours = [of_notice(office, id, user, "email", job) for id, user in ((high, people[1]), (low, people[0]))]

    def end(connection: Connection) -> set[int]:
        connection.execute(text("SET LOCAL enable_indexscan = off; SET LOCAL enable_bitmapscan = off"))
        return outgoing.end(connection, job, [End(each, "sent") for each in ours], NOW)

    with office.owner.connect() as holder:
        holder.execute(text("SELECT FROM jobs.notices WHERE notice_id = :n FOR UPDATE"), {"n": low})
        ending = pool.submit(in_transaction(office.worker, end))
        waits(office.owner)
        # Whoever waits for the lower one has not got the higher one yet.
        assert holder.execute(
            text("SELECT notice_id FROM jobs.notices WHERE notice_id = :n FOR UPDATE SKIP LOCKED"),
            {"n": high},
        ).all()
        holder.rollback()
    assert ending.result(30) == set(ours)
    assert office.one("SELECT count(*) FROM jobs.notices WHERE state = 'sent'") == 2


def test_reminders_are_moved_in_the_order_of_their_keys(superuser: Engine, pool: ThreadPoolExecutor) -> None:
    """By new zone data, while somebody edits two of them: the lower first, as everybody does."""
    with superuser.begin() as connection:
        world = World(connection)
        low, high = (world.reminder("08:00", set_at=utc(1)) for _ in range(2))
        world.dispatch(utc(1))
        # The higher one's row comes first where the table is read from its beginning.
        connection.execute(
            text("UPDATE notifications SET channels = channels WHERE notification_id = :n"), {"n": low}
        )
        connection.execute(text("UPDATE notifications SET next_due_at = next_due_at + interval '1 hour'"))
        connection.execute(
            text("UPDATE notifications SET updated_at = updated_at WHERE notification_id = :n"), {"n": low}
        )

    def move(connection: Connection) -> int:
        with Session(connection) as session:
            return zone_data.reresolve(session, now=utc(1), version="2099z").moved

    edit = text("UPDATE notifications SET updated_at = now() WHERE notification_id = :n")
    with superuser.connect() as app:
        app.execute(edit, {"n": low})
        moving = pool.submit(in_transaction(superuser, move))
        waits(superuser)
        app.execute(text("SET LOCAL lock_timeout = '5s'"))
        app.execute(edit, {"n": high})
        app.commit()
    assert moving.result(30) == 2

"""Groups: what waits for one begins when each of its jobs has succeeded or was cancelled."""

from __future__ import annotations

from uuid import UUID

import psycopg
import pytest
from sqlalchemy import Connection, Engine, text

from kitaab_jobs.contract import QUEUES
from kitaab_jobs.db.engines import libpq_url
from kitaab_jobs.runtime import ledger, outbox
from kitaab_jobs.runtime.outcome import SUCCEEDED, Outcome
from tests.runtime import rows

HOLDS = ("scheduled", "ready", "published", "running", "dead")


def enqueue(connection: Connection, **given: str) -> UUID:
    """Enqueue a job as SQL does."""
    arguments = "".join(f", {name} => :{name}" for name in given)
    id = connection.scalar(text(f"SELECT jobs.enqueue('progress.refresh'{arguments})"), given)
    assert isinstance(id, UUID)
    return id


def waits(connection: Connection, group: str = "load", **given: str) -> UUID:
    return enqueue(connection, after_group=group, **given)


def passed(connection: Connection) -> set[UUID]:
    """What the relay takes in a few passes."""
    found: set[UUID] = set()
    for _ in range(2):
        outbox.promote(connection, 100)
        outbox.release_groups(connection, 100)
        rooms = {"default": 100}
        taken = outbox.take(connection, rooms, QUEUES.values(), limited_kinds=False)
        found |= {row.id for row in taken}
    return found


@pytest.mark.parametrize("state", HOLDS)
def test_waits_for_all_members(connection: Connection, state: str) -> None:
    rows.add(connection, "succeeded", group_name="load")
    last = rows.add(connection, state, group_name="load", due=-60)
    id = waits(connection)
    assert id not in passed(connection)
    row = rows.get(connection, id)
    assert (row.state, row.after_group) == ("scheduled", "load")
    connection.execute(
        text("UPDATE jobs.jobs SET state = 'succeeded', finished_at = now() WHERE id = :id"), {"id": last}
    )
    assert id in passed(connection)
    assert rows.get(connection, id).after_group is None


def test_a_dead_member_holds_until_it_is_replayed(connection: Connection) -> None:
    dead = rows.add(connection, "dead", group_name="load")
    id = waits(connection)
    assert passed(connection) == set()
    connection.execute(
        text("UPDATE jobs.jobs SET state = 'ready', finished_at = NULL, attempt = 0 WHERE id = :id"),
        {"id": dead},
    )
    assert passed(connection) == {dead}
    [claim] = ledger.claim(connection, [dead], "w")
    assert passed(connection) == set()
    rows.finish(connection, claim, {})
    assert passed(connection) == {id}


def test_a_cancelled_member_counts_no_more(connection: Connection) -> None:
    dead = rows.add(connection, "dead", group_name="load")
    rows.add(connection, "cancelled", group_name="load")
    id = waits(connection)
    assert passed(connection) == set()
    connection.execute(text("UPDATE jobs.jobs SET state = 'cancelled' WHERE id = :id"), {"id": dead})
    assert passed(connection) == {id}


def test_a_group_without_members_is_free_at_once(connection: Connection) -> None:
    assert passed(connection) == set()
    id = waits(connection)
    assert rows.state(connection, id) == "scheduled"
    assert passed(connection) == {id}


def test_a_later_time_is_waited_for_too(connection: Connection) -> None:
    member = rows.add(connection, "running", group_name="load")
    id = waits(connection, run_at="2100-01-01 00:00+00")
    rows.finish(connection, rows.claim_of(connection, member), {})
    assert passed(connection) == set()
    row = rows.get(connection, id)
    assert (row.state, row.after_group) == ("scheduled", None)
    connection.execute(text("UPDATE jobs.jobs SET run_at = now() WHERE id = :id"), {"id": id})
    assert passed(connection) == {id}


def test_many_wait_for_many(connection: Connection) -> None:
    """Each group for itself, however many wait for each."""
    waiting = {group: {waits(connection, group) for _ in range(3)} for group in "abcde"}
    members = {group: rows.add(connection, "running", group_name=group) for group in "bd"}
    assert passed(connection) == waiting["a"] | waiting["c"] | waiting["e"]
    rows.finish(connection, rows.claim_of(connection, members["d"]), {})
    assert passed(connection) == waiting["d"]
    rows.finish(connection, rows.claim_of(connection, members["b"]), {})
    assert passed(connection) == waiting["b"]


def test_a_chain_of_groups(connection: Connection) -> None:
    first = enqueue(connection, group_name="one")
    second = waits(connection, "one", group_name="two")
    third = waits(connection, "two")
    for id in (first, second, third):
        assert passed(connection) == {id}
        [claim] = ledger.claim(connection, [id], "w")
        rows.finish(connection, claim, {})


def test_so_many_at_a_time(connection: Connection) -> None:
    for _ in range(5):
        waits(connection)
    assert [outbox.release_groups(connection, 2) for _ in range(4)] == [2, 2, 1, 0]


@pytest.mark.parametrize(
    ("group", "outcome", "wanted"),
    [("load", SUCCEEDED, ["", "mark"]), ("load", Outcome("dead"), ["", "mark"]), (None, SUCCEEDED, ["mark"])],
)
def test_the_end_of_a_member_wakes_the_relay(
    effects: Engine, group: str | None, outcome: Outcome, wanted: list[str]
) -> None:
    with effects.begin() as connection:
        claim = rows.claim_of(connection, rows.add(connection, "running", group_name=group))
    url = libpq_url(effects.url.render_as_string(hide_password=False))
    with psycopg.connect(url, autocommit=True) as relay:
        relay.execute("LISTEN kitaab_jobs")
        with effects.begin() as connection:
            ledger.settle(connection, [ledger.Settled(claim, outcome)])
        with effects.begin() as connection:
            connection.execute(text("SELECT pg_notify('kitaab_jobs', 'mark')"))
        heard = [each.payload for each in relay.notifies(timeout=20, stop_after=len(wanted))]
    assert heard == wanted

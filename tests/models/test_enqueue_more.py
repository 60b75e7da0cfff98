"""jobs.enqueue and jobs.enqueue_many: keys with a period, limits, groups, many in one statement."""

from __future__ import annotations

import json
import random
import threading
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine

from kitaab_jobs.contract import MAX_PAYLOAD_BYTES
from kitaab_jobs.db.engines import libpq_url
from tests.devstack.observe import wait_for
from tests.models.world import World
from tests.runtime.doing import blocked

INVALID = "22023"
TOO_LARGE = "54000"
OUT_OF_RANGE = "22008"
PERIOD = "SELECT jobs.enqueue('progress.refresh', unique_key => 'k', unique_for => interval '1 hour')"
MANY = "SELECT jobs.enqueue_many('progress.refresh', CAST(CAST(:args AS text[]) AS jsonb[]))"


def end(world: World, state: str, ago: str = "0") -> None:
    world.run(
        "UPDATE jobs.jobs SET state = CAST(:state AS jobs.job_state), finished_at = now(),"
        " created_at = now() - CAST(:ago AS interval)",
        state=state,
        ago=ago,
    )


def limit_kind(world: World, name: str = "progress.refresh") -> None:
    world.run("UPDATE jobs.kinds SET max_running = 2 WHERE name = :name", name=name)


# A key that counts for a while


@pytest.mark.parametrize("state", ["succeeded", "dead"])
def test_within_its_period_a_key_counts_though_its_job_has_ended(state: str, world: World) -> None:
    first = world.one(PERIOD)
    end(world, state, "59 minutes")
    assert world.one(PERIOD) == first
    end(world, state, "61 minutes")
    assert world.one(PERIOD) != first


def test_what_was_cancelled_leaves_its_period_free(world: World) -> None:
    first = world.one(PERIOD)
    end(world, "cancelled")
    assert world.one(PERIOD) != first


def test_a_kind_may_have_a_period_and_its_arguments_as_key(world: World) -> None:
    world.run("UPDATE jobs.kinds SET unique_args = true, unique_seconds = 60 WHERE name = 'progress.refresh'")
    enqueue = "SELECT jobs.enqueue('progress.refresh', CAST(:args AS jsonb))"
    first = world.one(enqueue, args='{"limit": 1}')
    assert world.one(enqueue, args='{"limit": 2}') != first
    assert world.one(enqueue, args='{"limit":   1}') == first, "spaces make no difference"
    end(world, "succeeded")
    assert world.one(enqueue, args='{"limit": 1}') == first
    end(world, "succeeded", "2 minutes")
    assert world.one(enqueue, args='{"limit": 1}') != first


def test_two_at_once_within_a_period_get_the_same_job(database: Engine) -> None:
    """The second waits for the first one's commit, though that job has ended by then."""
    url = libpq_url(database.url.render_as_string(hide_password=False))
    found: list[Any] = []
    with psycopg.connect(url) as first, psycopg.connect(url) as second:
        row = first.execute(PERIOD).fetchone()
        assert row is not None
        first.execute("UPDATE jobs.jobs SET state = 'succeeded', finished_at = now()")
        other = threading.Thread(target=lambda: found.append(second.execute(PERIOD).fetchone()))
        other.start()
        wait_for(lambda: blocked(database))
        first.commit()
        other.join(20)
    assert found == [row]


# Times that would break whoever reads the row


@pytest.mark.parametrize("time", ["infinity", "-infinity", "10000-01-01", "1969-12-31"])
@pytest.mark.parametrize("what", ["run_at", "fire_at"])
def test_times_out_of_range_are_refused(time: str, what: str, world: World) -> None:
    with world.refused(OUT_OF_RANGE, f"{what} is "):
        world.one(f"SELECT jobs.enqueue('progress.refresh', {what} => CAST(:time AS timestamptz))", time=time)


def test_an_unknown_queue_is_refused(world: World) -> None:
    with world.refused(INVALID, "no queue is called 'fast'"):
        world.one("SELECT jobs.enqueue('progress.refresh', queue => 'fast')")
    with world.refused(INVALID, "no queue is called 'fast'"):
        world.all(
            "SELECT jobs.enqueue_many('progress.refresh', ARRAY['{}'::jsonb], queue => 'fast')".replace(
                "::", "\\:\\:"
            )
        )


# Limits and groups


def test_a_limit_counts_for_a_kind_and_a_key(world: World) -> None:
    limit_kind(world)
    world.one("SELECT jobs.enqueue('progress.refresh')")
    world.one("SELECT jobs.enqueue('progress.refresh', limit_key => 'tenant 7')")
    world.one("SELECT jobs.enqueue('progress.reconcile', limit_key => 'tenant 7')")
    keys = world.all("SELECT limit_key FROM jobs.jobs ORDER BY limit_key NULLS LAST")
    assert keys == ["progress.refresh", "progress.refresh/tenant 7", None]


def test_a_job_that_comes_after_a_group_is_scheduled(world: World) -> None:
    id = world.one("SELECT jobs.enqueue('progress.refresh', group_name => 'b', after_group => 'a')")
    row = world.row(
        "SELECT state::text, group_name, after_group FROM jobs.jobs WHERE id = :id".replace("::", "\\:\\:"),
        id=id,
    )
    assert tuple(row) == ("scheduled", "b", "a")


CHAINED = "SELECT jobs.enqueue('progress.refresh', group_name => :group, after_group => :after)"


def chain(world: World, *edges: str) -> None:
    """Enqueue a job for each "ab": one of group a that waits for b."""
    for edge in edges:
        world.one(CHAINED, group=edge[0], after=edge[1])


@pytest.mark.parametrize(
    ("before", "last", "way"),
    [
        (["ab"], "ba", "'a' waits for 'b'"),
        (["ab", "bc"], "ca", "'a' waits for 'b', which waits for 'c'"),
        (["cd", "bc", "ab"], "da", "'a' waits for 'b', which waits for 'c', which waits for 'd'"),
        (["zb", "xb", "ab", "ya", "yz"], "bz", "'z' waits for 'b'"),
    ],
)
def test_groups_that_would_wait_for_each_other_are_refused(
    before: list[str], last: str, way: str, world: World
) -> None:
    chain(world, *before)
    with world.refused(INVALID, f"group '{last[0]}' would wait for itself: {way}"):
        chain(world, last)
    with world.refused(INVALID, way):
        world.all(
            "SELECT jobs.enqueue_many('progress.refresh', CAST(ARRAY['{}', '{}'] AS jsonb[]),"
            " group_name => :group, after_group => :after)",
            group=last[0],
            after=last[1],
        )


def test_any_other_graph_of_groups_is_accepted(world: World) -> None:
    """A random graph, against a search that is plain and slow: what closes no circle is added, and nothing else is."""
    chosen = random.Random(11)
    edges: set[str] = set()

    def reaches(start: str, goal: str) -> bool:
        return start == goal or any(reaches(edge[1], goal) for edge in edges if edge[0] == start)

    refused = 0
    for _ in range(150):
        edge = "".join(chosen.sample("abcdefghij", 2))
        if reaches(edge[1], edge[0]):
            refused += 1
            with world.refused(INVALID, "would wait for itself"):
                chain(world, edge)
        else:
            chain(world, edge)
            edges.add(edge)
    assert refused > 20
    assert len(edges) > 20


def test_what_has_begun_waits_no_more(world: World) -> None:
    """The circle is closed only while its other half still waits."""
    chain(world, "ab")
    world.run("UPDATE jobs.jobs SET after_group = NULL, state = 'ready'")
    chain(world, "ba")
    world.run("UPDATE jobs.jobs SET state = 'cancelled', finished_at = now()")
    chain(world, "ab")


# Many


def test_many_in_one_statement_in_the_order_of_their_arguments(world: World) -> None:
    ids = world.all(MANY, args=[json.dumps({"limit": n + 1}) for n in range(500)])
    assert len(set(ids)) == 500
    rows = dict(world.rows("SELECT id, args FROM jobs.jobs"))
    assert [rows[id] for id in ids] == [{"limit": n + 1} for n in range(500)]


def test_many_take_what_one_takes(world: World) -> None:
    limit_kind(world)
    world.all(
        "SELECT jobs.enqueue_many('progress.refresh', CAST(ARRAY['{}', '{}'] AS jsonb[]), run_at => now() + interval '1 hour',"
        " priority => 3, max_attempts => 2, queue => 'long', limit_key => 'k', group_name => 'g', after_group => 'f')"
    )
    columns = (
        "state::text, priority, max_attempts, queue, limit_key, group_name, after_group,"
        " run_at = now() + interval '1 hour'"
    )
    one = ("scheduled", 3, 2, "long", "progress.refresh/k", "g", "f", True)
    assert world.rows(f"SELECT {columns} FROM jobs.jobs".replace("::", "\\:\\:")) == [one, one]


def test_many_with_keys(world: World) -> None:
    first = world.one("SELECT jobs.enqueue('progress.refresh', unique_key => 'a')")
    ids = world.all(
        "SELECT jobs.enqueue_many('progress.refresh', CAST(ARRAY['{}', '{}', '{}', '{}'] AS jsonb[]),"
        " unique_keys => ARRAY['b', 'a', NULL, 'b'])"
    )
    assert ids[1] == first
    assert ids[0] == ids[3]
    assert world.one("SELECT count(*) FROM jobs.jobs") == 3


def test_one_that_cannot_be_refuses_all(world: World) -> None:
    with world.refused(TOO_LARGE, "one of these progress.refresh have more than 65536 bytes"):
        world.all(MANY, args=["{}", json.dumps({"x": "y" * MAX_PAYLOAD_BYTES})])
    with world.refused("23514", "jobs_args_is_object"):
        world.all(MANY, args=["{}", "[]"])
    with world.refused(INVALID, "2 jobs have 1 unique keys"):
        world.all(
            "SELECT jobs.enqueue_many('progress.refresh', CAST(ARRAY['{}', '{}'] AS jsonb[]), unique_keys => ARRAY['a'])"
        )
    assert world.one("SELECT count(*) FROM jobs.jobs") == 0


def test_none_is_none(world: World) -> None:
    assert world.all(MANY, args=[]) == []

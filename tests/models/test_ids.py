"""The ids of jobs: of version 7, in order, and never two alike."""

from __future__ import annotations

import threading
import time
import uuid
from itertools import pairwise

from sqlalchemy import Engine

from tests.models.world import World

MANY = """
    SELECT jobs.enqueue_many('progress.refresh', ARRAY(
        SELECT jsonb_build_object('limit', n) FROM generate_series(1, CAST(:jobs AS integer)) AS n))
"""
TIME, RANDOM = 80, 61


def test_ids_are_uuids_of_version_7_and_carry_the_time(world: World) -> None:
    before = time.time()
    ids = world.all("SELECT jobs.new_id() FROM generate_series(1, 2000)") + world.all(MANY, jobs=2000)
    after = time.time()
    assert len(set(ids)) == 4000
    for id in ids:
        assert (id.version, id.variant) == (7, uuid.RFC_4122)
        assert before - 0.01 <= (id.int >> TIME) / 1000 <= after + 0.01


def test_ids_are_ordered_by_time(world: World) -> None:
    ids = [world.one("SELECT jobs.new_id() FROM (SELECT pg_sleep(0.002)) AS later") for _ in range(20)]
    assert ids == sorted(ids)
    assert world.all("SELECT id FROM unnest(CAST(:ids AS uuid[])) AS id ORDER BY id", ids=ids) == ids


def test_ids_grow_in_the_order_in_which_jobs_were_enqueued(world: World) -> None:
    ids = []
    for jobs in (3, 0, 1, 5000, 2):
        ids += world.all(MANY, jobs=jobs)
        ids.append(world.one("SELECT jobs.enqueue('progress.refresh', '{\"limit\": 0}')"))
    assert all(one < next for one, next in pairwise(ids))
    numbers = [*range(1, 4), 0, 0, 1, 0, *range(1, 5001), 0, 1, 2, 0]
    stored = world.rows("SELECT id, CAST(args ->> 'limit' AS integer) FROM jobs.jobs ORDER BY id")
    assert stored == list(zip(ids, numbers, strict=True))


def test_statements_of_one_microsecond_would_not_make_two_alike(world: World) -> None:
    """Whatever the clock says: without the time, each statement has numbers of its own, with room to count on."""
    runs = []
    for _ in range(150):
        numbers = [id.int & ((1 << 62) - 1) for id in world.all(MANY, jobs=20)]
        assert numbers == list(range(numbers[0], numbers[0] + 20))
        assert numbers[0] < 1 << RANDOM
        runs.append(numbers)
    runs.sort()
    assert all(one[-1] < next[0] for one, next in pairwise(runs))
    # Each of the bits is drawn.
    ones = [sum(run[0] >> bit & 1 for run in runs) for bit in range(8, RANDOM)]
    assert min(ones) > 20
    assert max(ones) < 130


def test_no_two_alike_from_many_at_once(database: Engine) -> None:
    found: list[list[uuid.UUID]] = []
    start = threading.Barrier(4)

    def enqueue() -> None:
        with database.begin() as connection:
            start.wait(10)
            ids = [id for _ in range(50) for id in World(connection).all(MANY, jobs=10)]
        found.append(ids)

    threads = [threading.Thread(target=enqueue) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    ids = [id for each in found for id in each]
    assert len(ids) == len(set(ids)) == 2000
    with database.connect() as connection:
        assert set(World(connection).all("SELECT id FROM jobs.jobs")) == set(ids)

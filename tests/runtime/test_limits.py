"""How many run at once: for each kind and key, and for each queue, with any number of relays."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable
from uuid import UUID

import pytest
from sqlalchemy import Connection, Engine, text

from kitaab_jobs.contract import Queue
from kitaab_jobs.runtime import outbox
from tests.runtime import rows

KINDS = {"sample.one": 1, "sample.two": 2, "sample.once_limited": None}
NARROW = Queue("narrow", "three at once", max_running=3)
WIDE = Queue("wide", "as many as there are")
BOTH = (WIDE, NARROW)


@pytest.fixture
def kinds(connection: Connection) -> None:
    """Kinds of jobs with a limit."""
    write_kinds(connection)


def write_kinds(connection: Connection) -> None:
    for name, limit in KINDS.items():
        connection.execute(
            text(
                "INSERT INTO jobs.kinds (name, queue, max_attempts, time_limit, max_running, summary)"
                " VALUES (:name, 'wide', 5, 60, :limit, '')"
            ),
            {"name": name, "limit": limit},
        )


def ready(connection: Connection, key: str | None = None, queue: str = "wide", state: str = "ready") -> UUID:
    """A job of the kind that the key begins with."""
    name = "sample.free" if key is None else key.partition("/")[0]
    return rows.add(connection, state, name=name, queue=queue, limit_key=key)


def take(connection: Connection, queues: Iterable[Queue] = (WIDE,), room: int = 100) -> list[UUID]:
    rooms = {queue.name: room for queue in queues}
    return [row.id for row in outbox.take(connection, rooms, queues, limited_kinds=True)]


@pytest.mark.usefixtures("kinds")
class TestKinds:
    @pytest.mark.parametrize(
        ("key", "active", "wanted"),
        [
            ("sample.one", [], 1),
            ("sample.two", [], 2),
            ("sample.two", ["published"], 1),
            ("sample.two", ["running"], 1),
            ("sample.two", ["published", "running"], 0),
            ("sample.two", ["running"] * 3, 0),
            ("sample.two", ["scheduled", "succeeded", "dead", "cancelled"], 2),
        ],
    )
    def test_as_many_as_there_is_room_for(
        self, connection: Connection, key: str, active: list[str], wanted: int
    ) -> None:
        for state in active:
            ready(connection, key, state=state)
        waiting = [ready(connection, key) for _ in range(4)]
        taken = take(connection)
        assert len(taken) == wanted
        assert set(taken) <= set(waiting)
        assert take(connection) == []

    def test_each_key_for_itself(self, connection: Connection) -> None:
        made = {
            key: [ready(connection, key) for _ in range(3)]
            for key in ("sample.one", "sample.one/a", "sample.one/b", "sample.two/a")
        }
        taken = set(take(connection))
        assert {key: len(taken & set(ids)) for key, ids in made.items()} == {
            "sample.one": 1, "sample.one/a": 1, "sample.one/b": 1, "sample.two/a": 2,
        }  # fmt: skip

    def test_one_that_ends_makes_room_for_one(self, connection: Connection) -> None:
        for _ in range(4):
            ready(connection, "sample.two")
        first = take(connection)
        connection.execute(
            text("UPDATE jobs.jobs SET state = 'dead', finished_at = now() WHERE id = :id"), {"id": first[0]}
        )
        assert len(take(connection)) == 1
        assert take(connection) == []

    def test_the_most_important_and_the_oldest_first(self, connection: Connection) -> None:
        common = {"name": "sample.two", "queue": "wide", "limit_key": "sample.two"}
        ids = [
            rows.add(connection, "ready", priority=p, due=d, **common)
            for p, d in [(0, 1), (0, 9), (5, 1), (0, 5)]
        ]
        assert take(connection) == [ids[2], ids[1]]

    def test_full_keys_hold_up_no_other(
        self, connection: Connection, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Also when they are more than are looked at together."""
        monkeypatch.setattr(outbox, "KEYS_AT_ONCE", 3)
        for n in range(8):
            ready(connection, f"sample.one/{n}", state="running")
            ready(connection, f"sample.one/{n}")
        free = [ready(connection, "sample.one/9"), ready(connection, "sample.two")]
        plain = ready(connection)
        assert set(take(connection)) == {*free, plain}

    def test_what_has_no_limit_is_not_held_up(self, connection: Connection) -> None:
        ready(connection, "sample.one", state="running")
        ready(connection, "sample.one")
        free = [ready(connection) for _ in range(5)]
        assert sorted(take(connection)) == sorted(free)

    def test_what_has_no_limit_leaves_room_for_it(self, connection: Connection) -> None:
        for _ in range(5):
            ready(connection)
        limited = ready(connection, "sample.one")
        assert len(taken := take(connection, room=3)) == 3
        assert limited in taken

    def test_a_limit_that_was_taken_away(self, connection: Connection) -> None:
        """Enqueued when the kind still had one."""
        ids = [ready(connection, "sample.once_limited") for _ in range(5)]
        assert sorted(take(connection)) == sorted(ids)

    def test_no_more_than_the_relay_has_room_for(self, connection: Connection) -> None:
        for n in range(4):
            ready(connection, f"sample.two/{n}")
            ready(connection, f"sample.two/{n}")
        free = ready(connection)
        assert len(take(connection, room=3)) == 3
        assert len(take(connection, room=3)) == 3
        assert free in take(connection, room=3)


@pytest.mark.usefixtures("kinds")
class TestQueues:
    @pytest.mark.parametrize(
        ("active", "wanted"), [([], 3), (["published", "running"], 1), (["running"] * 3, 0), (["dead"], 3)]
    )
    def test_as_many_as_there_is_room_for(
        self, connection: Connection, active: list[str], wanted: int
    ) -> None:
        for state in active:
            ready(connection, queue="narrow", state=state)
        for _ in range(5):
            ready(connection, queue="narrow")
        assert len(take(connection, BOTH)) == wanted
        assert take(connection, BOTH) == []

    def test_over_full_is_not_less_than_nothing(self, connection: Connection) -> None:
        for _ in range(5):
            ready(connection, queue="narrow", state="running")
        ready(connection, queue="narrow")
        free = ready(connection)
        assert take(connection, BOTH) == [free]

    def test_kinds_with_limits_share_the_queues(self, connection: Connection) -> None:
        """Each key has room for more than the queue has."""
        for key in ("sample.one", "sample.two", "sample.two/a", "sample.two/b"):
            ready(connection, key, queue="narrow")
            ready(connection, key, queue="narrow")
        ready(connection, queue="narrow")
        assert len(take(connection, BOTH)) == 3
        assert take(connection, BOTH) == []

    def test_and_what_has_no_limit_of_its_own_fills_the_rest(self, connection: Connection) -> None:
        one = [ready(connection, "sample.one", queue="narrow") for _ in range(2)]
        free = [ready(connection, queue="narrow") for _ in range(5)]
        taken = set(take(connection, BOTH))
        assert (len(taken & set(one)), len(taken & set(free))) == (1, 2)

    def test_a_full_queue_holds_up_no_other(self, connection: Connection) -> None:
        for _ in range(3):
            ready(connection, queue="narrow", state="published")
        ready(connection, queue="narrow")
        free = [ready(connection), ready(connection, "sample.one")]
        assert set(take(connection, BOTH)) == set(free)


class TestTwoRelays:
    @pytest.fixture
    def effects(self, effects: Engine) -> Engine:
        with effects.begin() as connection:
            write_kinds(connection)
        return effects

    def test_while_one_decides_the_other_takes_only_what_is_free(self, effects: Engine) -> None:
        with effects.begin() as connection:
            for _ in range(4):
                ready(connection, "sample.two")
                ready(connection, queue="narrow")
        with effects.connect() as one, effects.connect() as other:
            assert len(take(one, BOTH)) == 2 + 3
            with effects.begin() as connection:
                free = ready(connection)
            assert take(other, BOTH) == [free]
            one.rollback()
            other.commit()
            assert len(take(other, BOTH)) == 2 + 3, "the first has died: its rows are there again"
            other.commit()
            assert take(one, BOTH) == []

    def test_who_has_found_nothing_to_count_leaves_it_to_the_other(self, effects: Engine) -> None:
        with effects.begin() as connection:
            free = ready(connection)
        with effects.connect() as one, effects.connect() as other:
            assert take(one, [WIDE]) == [free]
            with effects.begin() as connection:
                limited = ready(connection, "sample.one")
            assert take(other, [WIDE]) == [limited]

    def test_at_once_they_never_exceed(self, effects: Engine) -> None:
        """While what runs ends now and then, each look sees no more than may run."""
        keys = ("sample.one", "sample.two/a", "sample.two/b")
        with effects.begin() as connection:
            for key in keys:
                for _ in range(20):
                    ready(connection, key)
            for _ in range(30):
                ready(connection, queue="narrow")
        seen: list[Counter[str]] = []
        done = threading.Event()

        def relay() -> None:
            while not done.is_set():
                with effects.begin() as connection:
                    take(connection, BOTH)

        threads = [threading.Thread(target=relay) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            left = 1
            while left:
                with effects.begin() as connection:
                    seen.append(Counter(connection.scalars(ACTIVE)))
                    connection.execute(END_ONE_OF_EACH)
                    left = connection.scalar(LEFT) or 0
        finally:
            done.set()
            for thread in threads:
                thread.join()
        most: Counter[str] = Counter()
        for look in seen:
            most |= look
        assert most == {"sample.one": 1, "sample.two/a": 2, "sample.two/b": 2, "narrow": 3}


ACTIVE = text("SELECT coalesce(limit_key, queue) FROM jobs.jobs WHERE state IN ('published', 'running')")
LEFT = text("SELECT count(*) FROM jobs.jobs WHERE state IN ('ready', 'published')")
END_ONE_OF_EACH = text(
    """
    UPDATE jobs.jobs SET state = 'succeeded', finished_at = now() WHERE id IN (
        SELECT DISTINCT ON (coalesce(limit_key, queue)) id FROM jobs.jobs WHERE state = 'published'
        ORDER BY coalesce(limit_key, queue), random())
    """
)

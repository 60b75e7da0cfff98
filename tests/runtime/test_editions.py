"""Several timetables at work: the one that was read for the first time last counts, while a beat has it."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Connection, text
from structlog.testing import capture_logs

from kitaab_jobs import contract
from kitaab_jobs.runtime import editions
from kitaab_jobs.runtime.timetable import Schedule
from tests.runtime.test_fires import names
from tests.runtime.test_scheduler import MakeBeat, app, beat  # noqa: F401

OLD = Schedule("old", contract.PROGRESS_REFRESH, cron="0 0 1 1 *")
NEW = Schedule("new", contract.PROGRESS_REFRESH, cron="0 0 1 1 *")


def bring(connection: Connection, name: str, edition: str) -> str | None:
    return editions.bring(connection, name, "1", edition)


def silence(connection: Connection, name: str) -> None:
    connection.execute(
        text("UPDATE jobs.processes SET seen_at = now() - interval '31 s' WHERE name = :name"), {"name": name}
    )


def test_the_same_lines_are_the_same_edition() -> None:
    changed = Schedule("new", contract.PROGRESS_REFRESH, cron="0 0 1 1 *", note="why")
    assert editions.edition_of([OLD, NEW]) == editions.edition_of([NEW, OLD])
    assert len({editions.edition_of(lines) for lines in ([], [OLD], [NEW], [OLD, NEW], [changed])}) == 5


def test_a_deploy_is_not_taken_back_by_a_beat_of_the_version_before(connection: Connection) -> None:
    assert bring(connection, "one", "old") is None
    assert bring(connection, "two", "old") is None
    assert bring(connection, "three", "new") is None
    assert bring(connection, "two", "old") == "three"
    assert bring(connection, "three", "new") is None


@pytest.mark.parametrize("how", ["stopped", "silent", "deployed over"])
def test_whoever_goes_back_waits_until_no_later_one_is_left(connection: Connection, how: str) -> None:
    bring(connection, "one", "old")
    bring(connection, "two", "new")
    bring(connection, "three", "new")
    for name in ("three", "two"):
        assert bring(connection, "one", "old") == name
        if how == "stopped":
            editions.leave(connection, name)
        elif how == "silent":
            silence(connection, name)
        else:
            bring(connection, name, "old")
    assert bring(connection, "one", "old") is None
    assert bring(connection, "four", "new") is None, "and forth again"
    assert bring(connection, "one", "old") == "four"


def test_any_order_of_events_agrees_with_the_rule(connection: Connection) -> None:
    """The rule, told plainly: of the timetables at work, the one with the latest first look."""
    chosen = random.Random(6)
    first_read: dict[str, int] = {}
    at_work: dict[str, str] = {}
    counter: Iterator[int] = itertools.count()
    refused = 0
    for _ in range(200):
        name, edition = chosen.choice("abcd"), chosen.choice("uvwxyz")
        event: Any = chosen.choice(["bring", "bring", "leave", "silence"])
        if event == "bring":
            first_read.setdefault(edition, next(counter))
            connection.execute(text("DELETE FROM jobs.processes WHERE name = :name"), {"name": name})
            at_work[name] = edition
            latest = max(at_work.values(), key=first_read.__getitem__)
            owner = min(n for n, brought in at_work.items() if brought == latest)
            assert bring(connection, name, edition) == (None if edition == latest else owner)
            refused += edition != latest
        elif name in at_work:
            (editions.leave if event == "leave" else silence)(connection, name)
            del at_work[name]
    assert refused > 20


def test_a_beat_leaves_its_lines_out_and_says_so_until_it_is_its_turn(
    connection: Connection,
    effects: Any,
    beat: MakeBeat,  # noqa: F811
) -> None:
    old, new = beat(OLD), beat(NEW)
    old.name, new.name = "beat@old", "beat@new"

    def tick(scheduler: Any) -> list[str]:
        scheduler._brought_at = -1e9
        scheduler.tick()
        with effects.connect() as seen:
            return names(seen)

    assert tick(old) == ["old"]
    assert tick(new) == ["new"]
    with capture_logs() as logs:
        assert tick(old) == tick(old) == ["new"]
    assert [entry["beat"] for entry in logs if entry["action"] == "timetable_left_out"] == ["beat@new"]
    new.close()
    assert tick(old) == ["old"]

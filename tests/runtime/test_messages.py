"""Which jobs travel in one message."""

from __future__ import annotations

from uuid import UUID, uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kitaab_jobs.contract import Job
from kitaab_jobs.runtime.messages import AT_FIRST, MANY, SECONDS_IN_ONE, Message, fill, size
from kitaab_jobs.runtime.outbox import Ready

SINGLE = Job("sample.single", "goes by itself")
SMALL = Job("sample.small", "travels with others", batch=3)
OTHER = Job("sample.other", "travels too", batch=3)
LARGE = Job("sample.large", "many of them", batch=500)
JOBS = {job.name: job for job in (SINGLE, SMALL, OTHER, LARGE)}
CHAIN = {"chain": [{"task": "sample.single"}]}


def ready(line: str) -> list[Ready]:
    """Rows from words: `small`, and `small/long` for another queue, `small!` alone, `small>` with a canvas."""
    rows = []
    for word in line.split():
        name, _, queue = word.rstrip("!>").partition("/")
        rows.append(
            Ready(
                uuid4(),
                f"sample.{name}",
                {"note": word},
                queue or "default",
                alone=word.endswith("!"),
                canvas=CHAIN if word.endswith(">") else None,
            )
        )
    return rows


def carried(message: Message) -> list[UUID]:
    return [UUID(id) for id in message.args[MANY]] if MANY in message.args else [message.id]


def drawn(rows: list[Ready], messages: list[Message]) -> str:
    """Messages as the numbers of the rows that they carry."""
    places = {row.id: str(place) for place, row in enumerate(rows)}
    return " ".join("+".join(places[id] for id in carried(message)) for message in messages)


@pytest.mark.parametrize(
    ("rows", "messages"),
    [
        ("", ""),
        ("single single", "0 1"),
        ("small", "0"),
        ("small small", "0+1"),
        ("small small small small", "0+1+2 3"),
        ("small small small small small small small", "0+1+2 3+4+5 6"),
        # each goes out at the place of its first job
        ("small single small", "0+2 1"),
        ("single small single small other small other", "0 1+3+5 2 4+6"),
        # a full one is not waited for
        ("small small small single small", "0+1+2 3 4"),
        # queues do not mix
        ("small small/long small small/long", "0+2 1+3"),
        # what has killed a batch goes alone, and what has something behind it
        ("small small! small", "0+2 1"),
        ("small! small!", "0 1"),
        ("small small> small", "0+2 1"),
        # a job of another version
        ("gone small gone small", "0 1+3 2"),
    ],
)
def test_fill(rows: str, messages: str) -> None:
    made = ready(rows)
    assert drawn(made, fill(made, JOBS, {})) == messages


def test_a_single_message_is_its_row() -> None:
    for word in ("single", "small", "small!", "small/long", "gone"):
        (row,) = ready(word)
        (message,) = fill([row], JOBS, {})
        assert message == Message(row.id, row.name, row.queue, row.args, None)


def test_a_canvas_is_carried() -> None:
    (row,) = ready("small>")
    assert fill([row], JOBS, {})[0].canvas == CHAIN


def test_a_message_of_many_has_an_id_of_its_own_and_only_ids() -> None:
    rows = ready("small/long small/long")
    (message,) = fill(rows, JOBS, {})
    assert message.id not in {row.id for row in rows}
    assert (message.name, message.queue) == ("sample.small", "long")
    assert message.args == {MANY: [str(row.id) for row in rows]}


@pytest.mark.parametrize(
    ("job", "seconds", "wanted"),
    [
        (SINGLE, None, 1),
        (SINGLE, 1e-9, 1),
        (SMALL, None, 3),
        (LARGE, None, AT_FIRST),
        # as many as fill the time, up to what the job allows
        (LARGE, 0.0, 500),
        (LARGE, SECONDS_IN_ONE / 500, 500),
        (LARGE, SECONDS_IN_ONE / 100, 100),
        (LARGE, SECONDS_IN_ONE / 2, 2),
        (SMALL, SECONDS_IN_ONE / 100, 3),
        # a slow one holds up no other
        (LARGE, SECONDS_IN_ONE, 1),
        (LARGE, 3600, 1),
    ],
)
def test_size(job: Job, seconds: float | None, wanted: int) -> None:
    assert size(job, seconds) == wanted


def test_size_is_adapted_for_each_kind() -> None:
    rows = ready("large large large small small small")
    seconds = {LARGE.name: SECONDS_IN_ONE / 2}
    assert drawn(rows, fill(rows, JOBS, seconds)) == "0+1 2 3+4+5"


WORDS = st.sampled_from(
    ["single", "small", "small!", "small>", "small/long", "other", "large", "large/long", "gone"]
)


@given(words=st.lists(WORDS, max_size=60), seconds=st.floats(1e-6, 1))
@settings(max_examples=60, deadline=None)
def test_each_job_is_in_one_message_with_its_like(words: list[str], seconds: float) -> None:
    rows = ready(" ".join(words))
    by_id = {row.id: row for row in rows}
    messages = fill(rows, JOBS, {"sample.large": seconds})
    assert sorted(id for message in messages for id in carried(message)) == sorted(by_id)
    firsts = [rows.index(by_id[carried(message)[0]]) for message in messages]
    assert firsts == sorted(firsts)
    for message in messages:
        inside = [by_id[id] for id in carried(message)]
        assert {(row.name, row.queue) for row in inside} == {(message.name, message.queue)}
        assert [rows.index(row) for row in inside] == sorted(rows.index(row) for row in inside)
        if len(inside) > 1:
            assert len(inside) <= size(JOBS[message.name], seconds if "large" in message.name else None)
            assert not any(row.alone or row.canvas for row in inside)

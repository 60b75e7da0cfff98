"""Which jobs travel in one message. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

from kitaab_jobs.contract import Job
from kitaab_jobs.runtime.outbox import Ready

# The argument of a message that carries many jobs: their ids.
MANY = "_jobs"
# The header of a message that comes from the ledger: where its row is gone (purged), it is not recorded anew.
FROM_LEDGER = "kitaab_ledger"
# A message is to be worth its cost, and not to keep others waiting: about so much work goes into one.
SECONDS_IN_ONE = 0.25
# How many go into one while nobody knows how long such jobs take.
AT_FIRST = 20


@dataclass(slots=True)
class Message:
    """What is published: one job under its own id, or many under an id of their own."""

    id: UUID
    name: str
    queue: str
    args: dict[str, Any] = field(default_factory=dict)
    canvas: dict[str, Any] | None = None


def size(job: Job, seconds: float | None) -> int:
    """Return how many jobs of a kind go into one message; `seconds` is how long one took lately."""
    if seconds is None:
        return min(job.batch, AT_FIRST)
    return max(1, min(job.batch, int(SECONDS_IN_ONE / max(seconds, 1e-6))))


def fill(ready: Iterable[Ready], jobs: Mapping[str, Job], seconds: Mapping[str, float]) -> list[Message]:
    """Return the messages that carry `ready`, in its order: a message goes out at the place of its first job."""
    messages: list[Message] = []
    open_ones: dict[tuple[str, str], list[Ready]] = {}
    places: list[Message | list[Ready]] = []
    for row in ready:
        job = jobs.get(row.name)
        most = 1 if job is None else size(job, seconds.get(row.name))
        if most == 1 or row.alone or row.canvas:
            places.append(Message(row.id, row.name, row.queue, row.args, row.canvas))
            continue
        key = (row.queue, row.name)
        carried = open_ones.get(key)
        if carried is None or len(carried) >= most:
            carried = open_ones[key] = []
            places.append(carried)
        carried.append(row)
    for place in places:
        if isinstance(place, Message):
            messages.append(place)
        elif len(place) == 1:
            messages.append(Message(place[0].id, place[0].name, place[0].queue, place[0].args))
        else:
            ids = [str(row.id) for row in place]
            messages.append(Message(uuid4(), place[0].name, place[0].queue, {MANY: ids}))
    return messages

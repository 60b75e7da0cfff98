"""The contract of the jobs that only these tests have; app.py does them, load.py enqueues them."""

from __future__ import annotations

from pydantic import Field

from kitaab_jobs.contract import Backoff, Job, Payload


class Order(Payload):
    """What a job is to answer: `key` names it."""

    key: int
    wait: float = Field(0, description="seconds for which it holds its answer before the commit")
    times: int = Field(1, description="in how many of its attempts it does so")


SOON = Backoff(base=0.2, cap=1)

SINGLE = Job("faults.single", "leaves one answer", Order, max_attempts=50, backoff=SOON)
MANY = Job("faults.many", "leaves one answer, in a batch", Order, max_attempts=50, backoff=SOON, batch=20)
PARENT = Job(
    "faults.parent",
    "leaves one answer and enqueues a job of the opposite key",
    Order,
    max_attempts=50,
    backoff=SOON,
)
POISON = Job("faults.poison", "kills its process where its key is odd", Order, max_attempts=2)
POISON_MANY = Job(
    "faults.poison_many",
    "kills its process where its key is odd, in a batch",
    Order,
    max_attempts=2,
    batch=20,
)
LONG = Job("faults.long", "runs longer than the visibility timeout", Order, queue="long")
FLAKY = Job("faults.flaky", "fails the first time", Order, max_attempts=50, backoff=SOON)
LIMITED = Job("faults.limited", "one at a time", Order, max_running=1, max_attempts=50)
TICK = Job("faults.tick", "is fired every second", queue="reminders")

KINDS = {job.name: job for job in (SINGLE, MANY, PARENT, POISON, POISON_MANY, LONG, FLAKY, LIMITED, TICK)}


def answer(key: int) -> int:
    """Return what the job of that key has to answer."""
    return key * key + 7

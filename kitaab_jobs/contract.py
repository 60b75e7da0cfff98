"""Every job's name, queue and payload: what schedules, clients and tasks agree on.

A name is `<feature>.<verb>`; its first part is the package that does the work. Payloads are
frozen and strict about unknown fields, so that a typing error is refused where it is made.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kitaab_jobs.errors import BadPayload, UnknownJob

MAX_PAYLOAD_BYTES = 64 * 1024
MAX_DELIVERIES = 500


class Payload(BaseModel):
    """The arguments of a job; this one has none."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Batch(Payload):
    """A job that takes its work in batches."""

    limit: int = Field(2000, ge=1, le=100_000, description="rows of work to take at once")


class Dispatch(Payload):
    """Reminders to dispatch, in batches."""

    limit: int = Field(20_000, ge=1, le=100_000, description="reminders to take at once")
    lane: int = Field(0, ge=0, description="which of several side by side; 0 starts the others when needed")


class Deliver(Payload):
    """Deliveries to send, all in one time zone."""

    zone: str
    delivery_ids: list[int] = Field(min_length=1, max_length=MAX_DELIVERIES)


class Notify(Payload):
    """What people have reached, to be told to them: rows of jobs.notices."""

    notice_ids: list[int] = Field(min_length=1, max_length=500)


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long a failed job waits: `base` seconds, doubled after each attempt, at most `cap` seconds.

    Of that, between half and the whole at random, so that jobs that failed together do not come back together.
    """

    base: float = 2
    cap: float = 3600


@dataclass(frozen=True, slots=True)
class Job:
    """One kind of job.

    `max_attempts` counts starts, and `time_limit` is in seconds: after it the worker stops the job,
    which counts as a failed attempt. `batch`: up to so many travel in one message and share a transaction, in
    which one that fails is set aside; worth it for jobs of a few milliseconds. `max_running`: how many run at once,
    for each `limit_key` that they are enqueued with. `unique_args`: while one with the same arguments has not
    ended, no second one is added; `unique_seconds`: nor for so long after it was enqueued.
    """

    name: str
    summary: str
    payload: type[Payload] = Payload
    queue: str = "default"
    max_attempts: int = 5
    time_limit: int = 300
    backoff: Backoff = Backoff()
    batch: int = 1
    max_running: int | None = None
    unique_args: bool = False
    unique_seconds: int = 0

    @property
    def feature(self) -> str:
        """The package that does the work."""
        return self.name.partition(".")[0]

    def parse(self, args: Any) -> Payload:
        """Return `args` as this job's payload; raise `BadPayload` with the field and the reason."""
        try:
            return self.payload.model_validate({} if args is None else args)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"]) or "the arguments"
            raise BadPayload(
                f"{self.name}: {field}: {first['msg']} (it was {first['input']!r:.80})"
            ) from None


@dataclass(frozen=True, slots=True)
class Queue:
    """Where jobs wait for a worker. `max_running`: how many run at once, on all workers together."""

    name: str
    summary: str
    max_running: int | None = None


# Spaced as PostgreSQL spaces jsonb, so that both sides count the same bytes.
_JSON = json.JSONEncoder(ensure_ascii=False, allow_nan=False)


def encode(args: Mapping[str, Any] | list[dict[str, Any]]) -> str:
    """Return arguments as the JSON that the ledger stores; raise `BadPayload` where it cannot store them."""
    try:
        encoded = _JSON.encode(args)
        size = len(encoded.encode())
    except ValueError as error:  # not a number, or half of a surrogate pair
        raise BadPayload(f"the arguments are not JSON: {error}") from None
    if "\\u0000" in encoded and "\\u0000" in encoded.replace("\\\\", ""):
        raise BadPayload("the arguments contain a NUL character, which PostgreSQL cannot store")
    if size > MAX_PAYLOAD_BYTES:
        raise BadPayload(
            f"the arguments have {size} bytes, and {MAX_PAYLOAD_BYTES} are allowed",
            remedy="store the data in a table and pass its key",
        )
    return encoded


QUEUES: dict[str, Queue] = {
    queue.name: queue
    for queue in (
        Queue("default", "short jobs: progress, partitions"),
        Queue("reminders", "what a person waits for: who is to be reminded now"),
        Queue("sending", "what waits for mail servers and push services; has its own worker too"),
        Queue("long", "minutes to hours; has its own worker so that nothing waits behind it"),
    )
}

PROGRESS_REFRESH = Job("progress.refresh", "recompute the merits and targets that entries touched", Batch)
PROGRESS_RECONCILE = Job(
    "progress.reconcile",
    "compare every merit and target with its entries, report what differs and mark it for the refresh",
    queue="long",
    time_limit=3600,
)
PROGRESS_PURGE_HISTORY = Job("progress.purge_history", "thin out the charts of days long ago", Batch)
REMINDERS_DISPATCH = Job(
    "reminders.dispatch",
    "record the reminders that are due and hand them to delivery",
    Dispatch,
    queue="reminders",
    max_running=3,
)
# A few seconds each. The deadline of what is sent ends it, so a database that is away for a while does not.
# `max_running` is how many connections a mail server sees from us, however many workers there are.
REMINDERS_DELIVER = Job(
    "reminders.deliver",
    "send recorded reminders",
    Deliver,
    queue="sending",
    max_attempts=25,
    max_running=16,
)
REMINDERS_SWEEP = Job("reminders.sweep", "end what nobody sends any more", Batch, queue="reminders")
REMINDERS_NOTIFY = Job("reminders.notify", "tell people what they have completed", Notify, queue="reminders")
REMINDERS_RERESOLVE = Job(
    "reminders.reresolve",
    "move planned reminders to where a new release of the zone data puts them",
    queue="long",
    time_limit=3600,
    unique_args=True,
)
# Tried for about an hour. It waits for no lock for so long that a vacuum would give way to it.
ARCHIVE_MAKE_PARTITIONS = Job(
    "archive.make_partitions", "make the partitions that the next months need", max_attempts=12
)
ARCHIVE_PURGE_JOBS = Job("archive.purge_jobs", "remove the rows of jobs and fires that ended long ago", Batch)

JOBS: dict[str, Job] = {
    job.name: job
    for job in (
        PROGRESS_REFRESH,
        PROGRESS_RECONCILE,
        PROGRESS_PURGE_HISTORY,
        REMINDERS_DISPATCH,
        REMINDERS_DELIVER,
        REMINDERS_NOTIFY,
        REMINDERS_SWEEP,
        REMINDERS_RERESOLVE,
        ARCHIVE_MAKE_PARTITIONS,
        ARCHIVE_PURGE_JOBS,
    )
}


def job_named(name: str) -> Job:
    """Return the job called `name`; raise `UnknownJob` with the one that may be meant, or all that exist."""
    if name in JOBS:
        return JOBS[name]
    near = difflib.get_close_matches(name, JOBS, n=1, cutoff=0.5)
    remedy = f"did you mean {near[0]}?" if near else f"the jobs are {', '.join(sorted(JOBS))}"
    raise UnknownJob(f"no job is called {name!r}", remedy=remedy)

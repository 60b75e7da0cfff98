"""Every job's name, queue and payload: what schedules, clients and tasks agree on.

A name is `<feature>.<verb>`; its first part is the package that does the work. Payloads are
frozen and strict about unknown fields, so that a typing error is refused where it is made.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kitaab_jobs.errors import BadPayload, UnknownJob

MAX_PAYLOAD_BYTES = 64 * 1024


class Payload(BaseModel):
    """The arguments of a job; this one has none."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Batch(Payload):
    """A job that takes its work in batches."""

    limit: int = Field(2000, ge=1, le=100_000, description="rows of work to take at once")


class Deliver(Payload):
    """Deliveries to send, all in one time zone."""

    zone: str
    delivery_ids: list[int] = Field(min_length=1, max_length=500)


@dataclass(frozen=True, slots=True)
class Job:
    """One kind of job.

    `max_attempts` counts starts, and `time_limit` is in seconds: after it the worker stops the job,
    which counts as a failed attempt.
    """

    name: str
    summary: str
    payload: type[Payload] = Payload
    queue: str = "default"
    max_attempts: int = 5
    time_limit: int = 300

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


QUEUES: dict[str, str] = {
    "default": "short jobs: progress, partitions",
    "reminders": "what a person waits for",
    "long": "minutes to hours; has its own worker so that nothing waits behind it",
}

PROGRESS_REFRESH = Job("progress.refresh", "recompute the merits and targets that entries touched", Batch)
PROGRESS_RECONCILE = Job(
    "progress.reconcile",
    "recompute every merit and target and report differences",
    queue="long",
    time_limit=3600,
)
REMINDERS_DISPATCH = Job(
    "reminders.dispatch",
    "record the reminders that are due and hand them to delivery",
    Batch,
    queue="reminders",
)
REMINDERS_DELIVER = Job(
    "reminders.deliver", "send recorded reminders", Deliver, queue="reminders", max_attempts=1
)
ARCHIVE_MAKE_PARTITIONS = Job("archive.make_partitions", "make the partitions that the next months need")

JOBS: dict[str, Job] = {
    job.name: job
    for job in (
        PROGRESS_REFRESH,
        PROGRESS_RECONCILE,
        REMINDERS_DISPATCH,
        REMINDERS_DELIVER,
        ARCHIVE_MAKE_PARTITIONS,
    )
}


def job_named(name: str) -> Job:
    """Return the job called `name`; raise `UnknownJob` with the names that exist."""
    try:
        return JOBS[name]
    except KeyError:
        raise UnknownJob(
            f"no job is called {name!r}", remedy=f"the jobs are {', '.join(sorted(JOBS))}"
        ) from None

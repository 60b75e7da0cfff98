"""The decorator that makes a function a job.

    @job(contract.PROGRESS_REFRESH)
    def refresh(session: Session, now: datetime, payload: Batch) -> Report: ...

The function gets an open transaction, the instant at which it started (the database's clock) and its
payload, and returns a dataclass of counts. Everything else about the job is in contract.py.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any
from uuid import UUID

from celery import Task
from celery.exceptions import Reject

from kitaab_jobs.contract import Job
from kitaab_jobs.db.engines import primary
from kitaab_jobs.runtime.app import app
from kitaab_jobs.runtime.execute import JobFunction, NotStarted, execute

# After the soft limit a job has this long to end before its process is killed.
HARD_LIMIT_GRACE_SECONDS = 30
# Without the database nothing can run: a message goes back to the queue, but not in a tight loop.
NOT_STARTED_PAUSE_SECONDS = 2.0


def job(kind: Job) -> Callable[[JobFunction], JobFunction]:
    """Register a function as the job `kind` with Celery."""

    def register(function: JobFunction) -> JobFunction:
        def task(self: Task[Any, Any], /, **args: Any) -> dict[str, Any] | None:
            try:
                return execute(
                    kind,
                    function,
                    UUID(self.request.id),
                    args,
                    engine=primary("kitaab-jobs worker"),
                    worker=f"{self.request.hostname}/{os.getpid()}",
                )
            except NotStarted as error:
                time.sleep(NOT_STARTED_PAUSE_SECONDS)
                raise Reject(str(error), requeue=True) from None

        task.__doc__ = function.__doc__
        app.task(
            name=kind.name,
            bind=True,
            queue=kind.queue,
            soft_time_limit=kind.time_limit,
            time_limit=kind.time_limit + HARD_LIMIT_GRACE_SECONDS,
        )(task)
        return function

    return register

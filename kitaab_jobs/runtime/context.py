"""What a job may know of itself. It is an argument: nothing here is global or hangs on a thread."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from contextlib import AbstractContextManager
from uuid import UUID

from sqlalchemy import Connection

from kitaab_jobs.errors import Cancelled
from kitaab_jobs.runtime.ledger import Claim


class Context:
    """The job that runs: who it is, how far it is, and whether it is asked to stop."""

    def __init__(self, claim: Claim, begin: Callable[[], AbstractContextManager[Connection]]) -> None:
        self.claim = claim
        self._begin = begin
        self.done: int | None = None
        self.total: int | None = None
        self._stop: str | None = None

    @property
    def id(self) -> UUID:
        """The job's id; the same in each attempt, so it serves as an idempotency key outside the database."""
        return self.claim.id

    @property
    def attempt(self) -> int:
        """Which attempt this is, from 1."""
        return self.claim.attempt

    @property
    def max_attempts(self) -> int:
        """How many there are at most."""
        return self.claim.max_attempts

    @property
    def schedule(self) -> str | None:
        """The schedule that fired it, if one did."""
        return self.claim.schedule

    @property
    def fire_at(self) -> dt.datetime | None:
        """The instant for which it was planned, if a schedule fired it."""
        return self.claim.fire_at

    def apart(self) -> AbstractContextManager[Connection]:
        """Return a transaction that is committed when its block ends, whatever becomes of the job.

        For effects outside the database, which no rollback takes back: that one is about to happen must be on record
        before it does, and what came of it at once. Whoever runs the job again finds that record. For anything
        else there is the job's own session.
        """
        return self._begin()

    def progress(self, done: int, total: int | None = None) -> None:
        """Say how far the job is; costs nothing, the next heartbeat writes it."""
        self.done = done
        if total is not None:
            self.total = total

    @property
    def is_to_stop(self) -> bool:
        """Whether somebody cancelled the job, or another worker has it now."""
        return self._stop is not None

    @property
    def why(self) -> str | None:
        """Why it is to stop."""
        return self._stop

    def check(self) -> None:
        """Raise `Cancelled` if the job is to stop. A long job calls this between two pieces of work."""
        if self._stop is not None:
            raise Cancelled(self._stop)

    def stop(self, reason: str) -> None:
        """Ask the job to stop at its next `check`; called by the heartbeat."""
        self._stop = self._stop or reason

"""What the platform has done since a moment: read from the ledger, for `kitaab-jobs demo`."""

from __future__ import annotations

import datetime as dt
from collections import deque
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Engine, text

# Jobs commit a little after the instant that they write as their end, so each look goes back a bit.
_OVERLAP = dt.timedelta(seconds=10)

_FINISHED = text(
    """
    SELECT id, name, state::text AS state, attempt, started_at, finished_at, result, error
    FROM jobs.jobs
    WHERE state IN ('succeeded', 'dead', 'cancelled') AND finished_at >= :since
    ORDER BY finished_at LIMIT 500
    """
)

_RUNNING = text(
    "SELECT name, now() - started_at AS age FROM jobs.jobs WHERE state = 'running' ORDER BY 2 DESC"
)

_TOTALS = text(
    """
    SELECT (SELECT count(*) FROM merits WHERE completed_at >= :since) AS merits_completed,
           (SELECT count(*) FROM targets WHERE completed_at >= :since) AS targets_completed,
           (SELECT count(*) FROM jobs.deliveries WHERE created_at >= :since AND state = 'sent') AS reminders_sent,
           (SELECT count(*) FROM notifications WHERE is_active AND next_due_at < now() + interval '1 hour') AS reminders_soon,
           (SELECT count(*) FROM jobs.progress_marks) AS marks,
           (SELECT count(*) FROM jobs.fires WHERE recorded_at >= :since AND outcome = 'fired') AS fires,
           (SELECT count(*) FROM jobs.jobs WHERE finished_at >= :since AND state = 'succeeded') AS succeeded,
           (SELECT count(*) FROM jobs.jobs WHERE finished_at >= :since AND state = 'dead') AS dead
    """
)


@dataclass(frozen=True, slots=True)
class Finished:
    """A job that has ended."""

    id: UUID
    name: str
    state: str
    attempt: int
    started_at: dt.datetime | None
    finished_at: dt.datetime
    result: dict[str, Any] | None
    error: str | None

    @property
    def seconds(self) -> float:
        """How long its last attempt took."""
        return (self.finished_at - self.started_at).total_seconds() if self.started_at else 0.0

    @property
    def changed(self) -> dict[str, Any]:
        """What it counted, without the zeros: empty where it found nothing to do."""
        return {key: value for key, value in (self.result or {}).items() if value}


@dataclass(frozen=True, slots=True)
class Totals:
    """Counts since the watch began, and of what waits now."""

    merits_completed: int
    targets_completed: int
    reminders_sent: int
    reminders_soon: int
    marks: int
    fires: int
    succeeded: int
    dead: int


class Watch:
    """Looks at the ledger again and again, and tells what is new."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        with engine.connect() as connection:
            self.since: dt.datetime = connection.execute(text("SELECT now()")).scalar_one()
        self._from = self.since
        self._seen: deque[UUID] = deque(maxlen=5000)

    def finished(self) -> list[Finished]:
        """Return the jobs that have ended since the last call, in order."""
        with self.engine.connect() as connection:
            rows = [Finished(*row) for row in connection.execute(_FINISHED, {"since": self._from})]
        known = set(self._seen)
        new = [row for row in rows if row.id not in known and row.finished_at >= self.since]
        if rows:
            self._from = max(self._from, rows[-1].finished_at - _OVERLAP)
        self._seen.extend(row.id for row in new)
        return new

    def running(self) -> list[tuple[str, dt.timedelta]]:
        """Return the jobs that run now, the oldest first."""
        with self.engine.connect() as connection:
            return [(row.name, row.age) for row in connection.execute(_RUNNING)]

    def totals(self) -> Totals:
        """Return the counts so far."""
        with self.engine.connect() as connection:
            return Totals(*connection.execute(_TOTALS, {"since": self.since}).one())

"""What the platform has done since a moment: read from the ledger, for `kitaab-jobs demo`."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from sqlalchemy import Engine, text

from kitaab_jobs.runtime.tail import Endings, Finished

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
    """Looks at the ledger again and again, and tells what is new. `engine` is the owner's: workers may read no names."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        with engine.connect() as connection:
            self._endings = Endings(connection)

    @property
    def since(self) -> dt.datetime:
        """When the watch began, by the database's clock."""
        return self._endings.since

    def finished(self) -> list[Finished]:
        """Return the jobs that have ended since the last call, in order."""
        with self.engine.connect() as connection:
            return self._endings.new(connection)

    def running(self) -> list[tuple[str, dt.timedelta]]:
        """Return the jobs that run now, the oldest first."""
        with self.engine.connect() as connection:
            return [(row.name, row.age) for row in connection.execute(_RUNNING)]

    def totals(self) -> Totals:
        """Return the counts so far."""
        with self.engine.connect() as connection:
            return Totals(*connection.execute(_TOTALS, {"since": self.since}).one())

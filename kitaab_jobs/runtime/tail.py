"""Jobs as they end, for who follows them."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

from kitaab_jobs.runtime.operators import ENDED, Filter, statement

# Jobs commit a little after the instant that they write as their end, so each look goes back a bit.
_OVERLAP = dt.timedelta(seconds=10)
_LOOK = 1000

_NEW = """
    SELECT j.id, j.name, j.state::text AS state, j.attempt, j.started_at, j.finished_at, j.result, j.error
    FROM jobs.jobs AS j
    WHERE {where} AND j.finished_at >= :since AND j.id <> ALL (:ids)
    ORDER BY j.finished_at LIMIT :limit
"""


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


class Endings:
    """Tells of each job that ends, once."""

    def __init__(self, connection: Connection, wanted: Filter | None = None) -> None:
        self.since: dt.datetime = connection.execute(text("SELECT now()")).scalar_one()
        self._wanted = (wanted or Filter()).within(ENDED)
        self._from = self.since
        self._seen: dict[UUID, dt.datetime] = {}

    def new(self, connection: Connection) -> list[Finished]:
        """Return the jobs that have ended since the last call, in order, up to a thousand."""
        values = {"since": self._from, "ids": list(self._seen), "limit": _LOOK}
        sql = statement(_NEW.format(where=self._wanted.where()))
        found = [Finished(*row) for row in connection.execute(sql, {**self._wanted.values(), **values})]
        if found:
            self._from = max(self._from, found[-1].finished_at - _OVERLAP)
        self._seen |= {job.id: job.finished_at for job in found}
        self._seen = {id: at for id, at in self._seen.items() if at >= self._from}
        return found

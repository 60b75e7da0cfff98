"""Waiting out a PostgreSQL that is away for a while, for commands that only look."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from sqlalchemy.exc import DBAPIError

from kitaab_jobs.cli.interruption import is_interruption
from kitaab_jobs.db.refusals import reason
from kitaab_jobs.db.retries import is_connection_loss

T = TypeVar("T")

AGAIN_SECONDS = 0.5


class Patience:
    """Says once that the connection was lost, and once that it is back."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._away = False

    @contextmanager
    def outage(self) -> Iterator[None]:
        """Swallow the loss of the connection in this block."""
        try:
            yield
        except DBAPIError as error:
            if not is_connection_loss(error) or is_interruption(error):
                raise
            if not self._away:
                self._say(f"the connection to PostgreSQL is lost, waiting for it: {reason(error)}")
            self._away = True
        else:
            if self._away:
                self._say("PostgreSQL is back")
            self._away = False

    def until_done(self, work: Callable[[], T]) -> T:
        """Return what `work` returns, which is tried again after each loss, so it must bear that."""
        while True:
            with self.outage():
                return work()
            time.sleep(AGAIN_SECONDS)

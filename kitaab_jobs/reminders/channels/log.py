"""The channel `log`: a line in the worker's log. For the demo, and for whoever tries reminders out."""

from __future__ import annotations

import datetime as dt

import structlog
from sqlalchemy import ARRAY, BigInteger, bindparam, text

from kitaab_jobs.reminders.channels.protocol import Fate, Kind, Letter, Result
from kitaab_jobs.settings import Settings

log = structlog.stdlib.get_logger(__name__)


class LogChannel:
    """Writes a line. Nothing leaves the machine, so there is no limit, and many go at once."""

    at_once = 100
    per_second = None

    def send(self, letter: Letter, now: dt.datetime) -> Result:
        """Write the line."""
        log.info(
            f"{letter.kind} for user {letter.user_id}",
            action="letter_logged",
            kind=letter.kind,
            delivery_id=letter.delivery_id,
            user_id=letter.user_id,
            day=str(letter.day),
            seconds_left=round((letter.deadline - now).total_seconds()),
        )
        return Result(Fate.SENT)

    def close(self) -> None:
        """Nothing to let go of."""


def open_channel(_settings: Settings) -> LogChannel:
    """Return the channel; it needs no settings."""
    return LogChannel()


KIND = Kind(
    open_channel,
    text("SELECT user_id, jsonb_build_object() FROM users WHERE user_id = ANY (:users)").bindparams(
        bindparam("users", type_=ARRAY(BigInteger))
    ),
)

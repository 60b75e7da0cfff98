"""Whether any beat is at work. Each touches its row in jobs.processes after it has ticked, and workers look at it:
a beat that is gone cannot say so itself."""

from __future__ import annotations

from sqlalchemy import Connection, text

from kitaab_jobs.runtime.logs import logger

log = logger(__name__)

# A beat ticks every second and touches its row every five: after this long there is none.
BEAT_SILENT_SECONDS = 30
# While there is none, it is said again so often.
SAY_AGAIN_SECONDS = 300

_SILENCE = text(
    """
    SELECT extract(epoch FROM clock_timestamp() - max(seen_at))::double precision
    FROM jobs.processes WHERE kind = 'beat'
    """
)


def beat_silence(connection: Connection) -> float | None:
    """Return for how many seconds no beat has ticked; None where there never was one."""
    seconds: float | None = connection.scalar(_SILENCE)
    return seconds


class BeatWatch:
    """Logs an error when no beat has ticked for half a minute, and when one is back. Times are seconds of one clock."""

    def __init__(self, now: float) -> None:
        self._since = now
        self._said_at: float | None = None

    def look(self, silent: float | None, now: float) -> None:
        """Take notice of what `beat_silence` says. Where no beat was ever seen, its absence counts from the start."""
        seconds = now - self._since if silent is None else silent
        if seconds <= BEAT_SILENT_SECONDS:
            if self._said_at is not None:
                self._said_at = None
                log.info("beat is back", action="beat_back")
            return
        if self._said_at is None or now - self._said_at >= SAY_AGAIN_SECONDS:
            self._said_at = now
            log.error(
                f"no beat has ticked for {seconds:.0f} s, so no schedule fires and no job leaves the ledger",
                action="beat_silent",
                seconds=round(seconds),
                remedy="start one with 'celery -A kitaab_jobs beat'",
            )

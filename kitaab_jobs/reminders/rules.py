"""The decisions of reminders that need no database."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from kitaab_jobs.timing import local_date, next_local, zone_or_utc

SEND_WITHIN = dt.timedelta(hours=2)


@dataclass(frozen=True, slots=True)
class Due:
    """A reminder's next occurrence: its instant, and the local date that it belongs to."""

    at: dt.datetime
    date: dt.date


def known(zone: str) -> str:
    """Return `zone`, or UTC where that is not a zone."""
    return zone if zone_or_utc(zone)[1] else "UTC"


def look_from(since: dt.datetime | None, now: dt.datetime) -> dt.datetime:
    """Return the instant after which the next occurrence is looked for.

    That is since the reminder was set, or was last due, and not `now`: what became due in the meantime
    is still to be sent, as long as it may be sent at all.
    """
    return max(min(since or now, now), now - SEND_WITHIN)


def next_due(time: dt.time, zone: str, after: dt.datetime, last_date: dt.date | None) -> Due:
    """Return the first occurrence after `after` on a local date later than `last_date`."""
    first = last_date + dt.timedelta(days=1) if last_date else None
    date, at = next_local(after, time, known(zone), not_before_date=first)
    return Due(at, date)


def too_late(due: Due, zone: str, now: dt.datetime) -> str | None:
    """Return why a reminder that was due is not to be sent any more, or None."""
    late = now - due.at
    if late > SEND_WITHIN:
        return f"found {int(late.total_seconds() // 60)} minutes late; it is sent for {SEND_WITHIN} at most"
    if local_date(now, known(zone)) > max(due.date, local_date(due.at, known(zone))):
        return "found after the end of its local day"
    return None


# A notice is still news for so long.
NOTICE_WITHIN = dt.timedelta(hours=24)

# Between tries of what a provider refused without saying until when: seconds, doubled each time.
RETRY_SECONDS = 30.0
LONGEST_RETRY_SECONDS = 1800.0


def next_try(attempt: int, after: float | None, luck: float) -> float:
    """Return the seconds from attempt number `attempt`, from 1, to the next; `luck` is from 0 to 1.

    `after` is what the provider asked for; never earlier than that, and not all at the same moment.
    """
    if after is not None:
        return after + luck * min(10.0, after / 4)
    return min(LONGEST_RETRY_SECONDS, RETRY_SECONDS * 2.0 ** min(attempt - 1, 16)) * (0.75 + luck / 2)

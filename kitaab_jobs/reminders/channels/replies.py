"""What a provider's answer means. No I/O: tables of answers and what follows from them."""

from __future__ import annotations

import datetime as dt
import re
from email.utils import parsedate_to_datetime

from kitaab_jobs.reminders.channels.protocol import Fate, Result

# Nobody is kept waiting longer on a provider's word: the deadline of what is to be sent comes first anyway.
LONGEST_WAIT = 86_400.0
# What is wrong with us (a password, a certificate, a key) is not mended within seconds.
STOPPED_SECONDS = 300.0

_ENHANCED = re.compile(r"\b([245])\.(\d{1,3})\.(\d{1,3})\b")
# RFC 3463 and 7505: no such mailbox, domain or address; moved without a new one; disabled; takes no mail.
_NO_SUCH_ADDRESS = {"5.1.1", "5.1.2", "5.1.3", "5.1.6", "5.1.10", "5.2.1"}
# Where there is no such code, what these mean for a recipient in RFC 5321.
_NO_SUCH_MAILBOX = {550, 551, 553}
_BAD_SENDER = {"5.1.7", "5.1.8"}


def retry_after(value: str | None, now: dt.datetime) -> float | None:
    """Return the seconds that a Retry-After header asks for: it has seconds or a date. None where it says nothing."""
    if value is None:
        return None
    value = value.strip()
    if value.isascii() and value.isdigit():
        return min(float(value), LONGEST_WAIT)
    try:
        at = parsedate_to_datetime(value)
    except ValueError:
        return None
    if at.tzinfo is None:
        at = at.replace(tzinfo=dt.UTC)
    return min(max((at - now).total_seconds(), 0.0), LONGEST_WAIT)


def to_greeting(code: int, said: str) -> Result:
    """Before any message: the server is busy, does not know us, or wants another password."""
    if _is_passing(code):
        return Result(Fate.LATER, said, stops=True)
    return Result(Fate.LATER, said, after=STOPPED_SECONDS, stops=True, alerts=True)


def to_sender(code: int, said: str) -> Result:
    """To MAIL FROM. A lasting refusal concerns our sender, so everybody's e-mail."""
    if _is_passing(code):
        return Result(Fate.LATER, said)
    return Result(Fate.LATER, said, after=STOPPED_SECONDS, stops=True, alerts=True)


def to_recipient(code: int, said: str) -> Result:
    """To RCPT TO. Only what says that there is no such address suppresses it: a full mailbox or a policy may pass."""
    if _is_passing(code):
        return Result(Fate.LATER, said)
    found = _ENHANCED.search(said)
    enhanced = found.group(0) if found else None
    if enhanced in _BAD_SENDER:
        return to_sender(code, said)
    if enhanced in _NO_SUCH_ADDRESS or (enhanced is None and code in _NO_SUCH_MAILBOX):
        return Result(Fate.FAILED, said, bounced=True)
    return Result(Fate.FAILED, said, alerts=True)


def to_message(code: int, said: str) -> Result:
    """To DATA, and to the message itself."""
    if code == 250:
        return Result(Fate.SENT, provider_id=said)
    if _is_passing(code):
        return Result(Fate.LATER, said)
    return Result(Fate.FAILED, said, alerts=True)


def _is_passing(code: int) -> bool:
    return 400 <= code < 500


def to_push(status: int, after: str | None, host: str, now: dt.datetime) -> Result:
    """To one push message.

    404 and 410: the subscription is gone. 429 and 503 are sure refusals; another 5xx may come from a server that
    has passed the message on. 401 and 403 are about our key; any other answer says that we do it wrong.
    """
    said = f"{host} answered {status}"
    if 200 <= status < 300:
        return Result(Fate.SENT, provider_id=str(status))
    if status in (404, 410):
        return Result(Fate.FAILED, f"{said}: the subscription is gone", bounced=True)
    if status in (429, 503):
        return Result(Fate.LATER, said, after=retry_after(after, now))
    if status in (401, 403):
        why = f"{said}: it does not accept our key"
        return Result(Fate.LATER, why, after=STOPPED_SECONDS, stops=True, alerts=True)
    if status >= 500:
        return Result(Fate.UNKNOWN, f"{said}, which does not say whether it took the message")
    return Result(Fate.FAILED, said, alerts=True)

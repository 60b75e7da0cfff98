"""The e-mails that are kept: the last ones, in memory."""

from __future__ import annotations

import datetime as dt
import itertools
import threading
from collections import OrderedDict
from dataclasses import dataclass
from email import message_from_bytes, policy
from email.message import EmailMessage

KEPT = 200
MAX_BYTES = 1_000_000


@dataclass(frozen=True, slots=True)
class Mail:
    """One e-mail that came in."""

    number: int
    at: dt.datetime
    to: tuple[str, ...]
    source: bytes
    message: EmailMessage

    @property
    def subject(self) -> str:
        """The subject, decoded."""
        return str(self.message["Subject"] or "(no subject)")

    @property
    def language(self) -> str:
        """The language that the e-mail says it is in."""
        return str(self.message["Content-Language"] or "")

    @property
    def headers(self) -> list[tuple[str, str]]:
        """The headers, decoded, in their order."""
        return [(name, str(value)) for name, value in self.message.items()]

    def part(self, kind: str) -> str | None:
        """Return the text of the part "plain" or "html", or None where there is none."""
        found = self.message.get_body((kind,))
        return str(found.get_content()) if isinstance(found, EmailMessage) else None


class Store:
    """The last e-mails. May be used from several threads."""

    def __init__(self, kept: int = KEPT) -> None:
        self._kept = kept
        self._mails: OrderedDict[int, Mail] = OrderedDict()
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()

    def add(self, source: bytes, to: list[str], now: dt.datetime) -> Mail:
        """Keep an e-mail, and forget the oldest where there are too many."""
        message = message_from_bytes(source, policy=policy.default)
        assert isinstance(message, EmailMessage)
        with self._lock:
            mail = Mail(next(self._numbers), now, tuple(to), source, message)
            self._mails[mail.number] = mail
            while len(self._mails) > self._kept:
                self._mails.popitem(last=False)
        return mail

    def all(self) -> list[Mail]:
        """Return what is kept, the newest first."""
        with self._lock:
            return list(reversed(self._mails.values()))

    def get(self, number: int) -> Mail | None:
        """Return one of them."""
        with self._lock:
            return self._mails.get(number)

    @property
    def total(self) -> int:
        """How many have come in so far, those that are forgotten included."""
        with self._lock:
            return next(reversed(self._mails), 0)

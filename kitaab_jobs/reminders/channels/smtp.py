"""One dialogue with a mail server, step by step, so that it is known at each step what the server has taken.

Up to the line with the single dot that ends a message, the server has taken nothing, whatever breaks. From the
moment at which that line was handed to the network until the answer, nobody knows: that is `unknown`. Python's
own `sendmail` does not tell the two apart.
"""

from __future__ import annotations

import re
import smtplib
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import unquote, urlsplit

from kitaab_jobs.errors import SettingsError
from kitaab_jobs.reminders.channels import replies
from kitaab_jobs.reminders.channels.protocol import Fate, Result, masked

# Seconds for each step. RFC 5321 allows minutes; a person's reminder is tried again instead.
TIMEOUT = 15.0
END = b".\r\n"
_PORTS = {"smtps": 465, "smtp": 587, "smtp+plain": 25}
_LINE_WITH_DOT = re.compile(rb"^\.", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Server:
    """Where the mail server is and how to get in."""

    scheme: str
    host: str
    port: int
    user: str | None
    password: str | None = field(default=None, repr=False)

    @classmethod
    def of(cls, url: str) -> Self:
        """Read KITAAB_SMTP_URL; raise `SettingsError` where it would send a password in clear."""
        parts = urlsplit(url)
        user = unquote(parts.username) if parts.username else None
        password = unquote(parts.password) if parts.password else None
        if parts.scheme == "smtp+plain" and user:
            raise SettingsError(
                "KITAAB_SMTP_URL: smtp+plain:// would send the password in clear",
                remedy="use smtps:// (TLS) or smtp:// (STARTTLS)",
            )
        if not parts.hostname:
            raise SettingsError(
                "KITAAB_SMTP_URL names no host", remedy="an example: smtps://user:password@host:465"
            )
        return cls(parts.scheme, parts.hostname, parts.port or _PORTS[parts.scheme], user, password)


@dataclass(frozen=True, slots=True)
class Envelope:
    """A message as it goes out. `reason`s that a server gives are shown without what is in `secrets`."""

    sender: str
    recipient: str
    data: bytes = field(repr=False)
    wide: bool = False  # the recipient's address needs SMTPUTF8
    secrets: tuple[str, ...] = field(default=(), repr=False)


class _Refused(Exception):
    """The server said no; `result` is what follows."""

    def __init__(self, result: Result) -> None:
        super().__init__(result.reason)
        self.result = result


class Mailer:
    """Keeps one connection to the server over many messages. For one thread at a time."""

    def __init__(self, server: Server, *, timeout: float = TIMEOUT) -> None:
        self._server = server
        self._timeout = timeout
        self._smtp: smtplib.SMTP | None = None

    def send(self, envelope: Envelope) -> Result:
        """Send one message and say what became of it. It raises nothing but what ends the process."""
        was_open = self._smtp is not None
        result = self._try(envelope)
        if was_open and self._smtp is None and result.fate is Fate.LATER and not result.stops:
            # A server closes a connection that it finds old or full; nothing was taken, so once more on a new one.
            result = self._try(envelope)
        return result

    def close(self) -> None:
        """Say goodbye, where anybody listens."""
        if self._smtp is not None:
            with suppress(OSError, smtplib.SMTPException):
                self._smtp.quit()
            self._hang_up()

    def _try(self, envelope: Envelope) -> Result:
        handed_over = False
        try:
            smtp = self._connected(envelope)
            self._offer(smtp, envelope)
            smtp.send(_stuffed(envelope.data))
            handed_over = True
            smtp.send(END)
            code, said = _understood(smtp.getreply())
        except _Refused as refused:
            return refused.result
        except (OSError, smtplib.SMTPException, UnicodeError) as error:
            self._hang_up()
            if handed_over:
                return Result(
                    Fate.UNKNOWN, _said(envelope, f"no answer after the message was sent ({_why(error)})")
                )
            return Result(
                Fate.LATER,
                _said(envelope, f"the connection broke before the message was sent ({_why(error)})"),
            )
        if code == 421:
            self._hang_up()
        return replies.to_message(code, _reply(envelope, code, said))

    def _offer(self, smtp: smtplib.SMTP, envelope: Envelope) -> None:
        """Say from whom and to whom, and get the server ready for the message."""
        options = ["SMTPUTF8", "BODY=8BITMIME"] if envelope.wide else []
        if envelope.wide and "smtputf8" not in smtp.esmtp_features:
            raise _Refused(Result(Fate.FAILED, "the mail server takes no addresses beyond ASCII"))
        steps: tuple[
            tuple[Callable[[], tuple[int, bytes]], tuple[int, ...], Callable[[int, str], Result]], ...
        ] = (
            (lambda: smtp.mail(envelope.sender, options), (250,), replies.to_sender),
            (lambda: smtp.rcpt(envelope.recipient), (250, 251, 252), replies.to_recipient),
            (lambda: smtp.docmd("DATA"), (354,), replies.to_message),
        )
        for ask, good, meaning in steps:
            code, said = _understood(ask())
            if code in good:
                continue
            if code == 421:
                self._hang_up()
            else:
                with suppress(OSError, smtplib.SMTPException):
                    smtp.rset()
            raise _Refused(meaning(code, _reply(envelope, code, said)))

    def _connected(self, envelope: Envelope) -> smtplib.SMTP:
        if self._smtp is None:
            try:
                self._smtp = self._connect()
            except (OSError, smtplib.SMTPException) as error:
                raise _Refused(self._not_connected(envelope, error)) from None
        return self._smtp

    def _connect(self) -> smtplib.SMTP:
        server = self._server
        smtp = self._client()
        try:
            # The name that the certificate is checked against. The constructor takes it too, but connects at once, and
            # then nobody could close what it left open.
            vars(smtp)["_host"] = server.host
            code, said = smtp.connect(server.host, server.port)
            if code != 220:
                raise smtplib.SMTPConnectError(code, said)
            smtp.ehlo_or_helo_if_needed()
            if server.scheme == "smtp":
                # Raises where it is not offered: no clear text instead.
                smtp.starttls(context=ssl.create_default_context())
                smtp.ehlo_or_helo_if_needed()
            if server.user:
                smtp.login(server.user, server.password or "")
        except BaseException:
            smtp.close()
            raise
        return smtp

    def _client(self) -> smtplib.SMTP:
        name = socket.gethostname() or "localhost"  # without asking the name server, which may take its time
        if self._server.scheme == "smtps":
            context = ssl.create_default_context()
            return smtplib.SMTP_SSL(timeout=self._timeout, context=context, local_hostname=name)
        return smtplib.SMTP(timeout=self._timeout, local_hostname=name)

    def _not_connected(self, envelope: Envelope, error: Exception) -> Result:
        """Weigh what went wrong before any message: a server that is away, or one that does not accept us."""
        said = f"the mail server {self._server.host}:{self._server.port} cannot be used"
        if isinstance(error, smtplib.SMTPResponseException):
            told = _said(
                envelope, f"{said}: {_reply(envelope, error.smtp_code, error.smtp_error)}", self._server.user
            )
            return replies.to_greeting(error.smtp_code, told)
        # No STARTTLS or no login offered, a certificate that is not valid: it will be so the next time too.
        ours = isinstance(error, ssl.SSLError | smtplib.SMTPNotSupportedError) or (
            isinstance(error, smtplib.SMTPException) and not isinstance(error, smtplib.SMTPServerDisconnected)
        )
        told = _said(envelope, f"{said} ({_why(error)})", self._server.user)
        return Result(
            Fate.LATER, told, after=replies.STOPPED_SECONDS if ours else None, stops=True, alerts=ours
        )

    def _hang_up(self) -> None:
        if self._smtp is not None:
            self._smtp.close()
            self._smtp = None


def _stuffed(data: bytes) -> bytes:
    """Return the message with its lines as SMTP wants them: one that begins with a dot gets a second."""
    stuffed = _LINE_WITH_DOT.sub(b"..", data)
    return stuffed if stuffed.endswith(b"\r\n") else stuffed + b"\r\n"


def _understood(reply: tuple[int, bytes]) -> tuple[int, bytes]:
    """Return the reply; what is none is worth no more than a connection that broke."""
    if not 200 <= reply[0] <= 599:
        raise smtplib.SMTPServerDisconnected("it does not speak SMTP")
    return reply


def _why(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "timed out"
    return f"{type(error).__name__}: {error}".removesuffix(": ")


def _reply(envelope: Envelope, code: int, said: bytes | str) -> str:
    text = said.decode("utf-8", "replace") if isinstance(said, bytes) else said
    return _said(envelope, f"{code} {text}")


def _said(envelope: Envelope, text: str, *more: str | None) -> str:
    return masked(text, *envelope.secrets, *(secret for secret in more if secret))

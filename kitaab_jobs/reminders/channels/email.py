"""The channel `email`: SMTP, in plain text and HTML, with a link that unsubscribes.

Only to addresses that their owner has confirmed, and never to one of which a server has said that it does not exist.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Sequence
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP, SMTPUTF8
from email.utils import format_datetime, parseaddr
from urllib.parse import urlsplit

from sqlalchemy import ARRAY, BigInteger, Connection, String, bindparam, text

from kitaab_jobs.errors import SettingsError
from kitaab_jobs.reminders import unsubscribe
from kitaab_jobs.reminders.channels import wording
from kitaab_jobs.reminders.channels.protocol import Fate, Kind, Letter, Result
from kitaab_jobs.reminders.channels.smtp import Envelope, Mailer, Server
from kitaab_jobs.settings import Settings

# Stricter than RFC 5321 on purpose: no quotes, comments, or anything that could end a header or a command.
_ADDRESS = re.compile(r"[^\s\x00-\x1f\x7f<>()\[\]\\,;:\"@]{1,64}@[^\s\x00-\x1f\x7f<>()\[\]\\,;:\"@]{1,255}\Z")
# Lines of at most 998 bytes, and nothing beyond ASCII: every server takes that.
_POLICY = SMTP.clone(cte_type="7bit")
_WIDE = SMTPUTF8.clone(cte_type="7bit")

_ADDRESSES = text(
    """
    SELECT u.user_id, jsonb_build_object(
        'address', u.email,
        'refused', CASE WHEN NOT u.email_verified THEN 'the address is not confirmed'
                        WHEN s.address_hash IS NOT NULL THEN 'the address does not exist: ' || s.reason END)
    FROM users AS u
    LEFT JOIN suppressed_addresses AS s ON s.address_hash = sha256(convert_to(lower(u.email), 'UTF8'))
    WHERE u.user_id = ANY (:users)
    """
).bindparams(bindparam("users", type_=ARRAY(BigInteger)))

# By its hash: that it was refused is a fact about an address, and outlives the person's account.
_SUPPRESS = text(
    """
    INSERT INTO suppressed_addresses (address_hash, reason, created_at)
    SELECT DISTINCT ON (1) sha256(convert_to(lower(a.address), 'UTF8')), a.reason, CAST(:now AS timestamptz)
    FROM unnest(:addresses, :reasons) AS a (address, reason)
    ON CONFLICT DO NOTHING
    """
).bindparams(bindparam("addresses", type_=ARRAY(String)), bindparam("reasons", type_=ARRAY(String)))


class EmailChannel:
    """Sends e-mails over one connection, one after the other."""

    at_once = 1

    def __init__(self, server: Server, sender: str, public_url: str, secret: str, per_second: float) -> None:
        self.per_second = per_second
        self._mailer = Mailer(server)
        self._name, self._sender = parseaddr(sender)
        self._domain = self._sender.rpartition("@")[2]
        self._public_url = public_url
        self._secret = secret

    def send(self, letter: Letter, now: dt.datetime) -> Result:
        """Send one e-mail."""
        address = str(letter.to["address"])
        if not _ADDRESS.match(address):
            return Result(Fate.FAILED, "the address cannot be written to")
        ascii_or_wide = _mailbox(address)
        if ascii_or_wide is None:
            return Result(Fate.FAILED, "the address has a domain that cannot exist")
        mailbox, wide = ascii_or_wide
        message = self.message(letter, mailbox, now)
        data = message.as_bytes(policy=_WIDE if wide else _POLICY)
        secrets = (address, mailbox, address.partition("@")[0])
        return self._mailer.send(Envelope(self._sender, mailbox, data, wide, secrets))

    def message(self, letter: Letter, mailbox: str, now: dt.datetime) -> EmailMessage:
        """Return the e-mail for a letter."""
        said = wording.say(letter)
        kind = "reminder" if letter.kind == "reminder" else "completion"
        leave = unsubscribe.link(self._public_url, letter.user_id, letter.channel, kind, self._secret)
        message = EmailMessage(policy=_POLICY)
        message["From"] = Address(self._name, addr_spec=self._sender)
        message["To"] = mailbox
        message["Subject"] = said.subject
        message["Date"] = format_datetime(now)
        # The same in each attempt: where one was taken after all, mail programs show one.
        message["Message-ID"] = f"<{letter.key}@{self._domain}>"
        # RFC 8058. Mail programs show a button for it, and post to it without a question.
        message["List-Unsubscribe"] = f"<{leave}>"
        message["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"
        message["Auto-Submitted"] = "auto-generated"  # RFC 3834: no out-of-office answers
        message.set_content(wording.plain(said, link=self._public_url, unsubscribe=leave))
        message.add_alternative(wording.html(said, link=self._public_url, unsubscribe=leave), subtype="html")
        message["Content-Language"] = said.language  # before, it would move into the first part
        return message

    def close(self) -> None:
        """Say goodbye to the server."""
        self._mailer.close()


def open_channel(settings: Settings) -> EmailChannel:
    """Return the channel; raise `SettingsError` with the first setting that it lacks."""
    needed = {
        "KITAAB_SMTP_URL": settings.smtp_url,
        "KITAAB_MAIL_FROM": settings.mail_from,
        "KITAAB_PUBLIC_URL": settings.public_url,
    }
    for name, value in needed.items():
        if value is None:
            raise SettingsError(
                f"no e-mail can be sent: {name} is not set", remedy="docs/channels.md has an example"
            )
    assert settings.smtp_url is not None
    assert settings.mail_from is not None
    assert settings.public_url is not None
    return EmailChannel(
        Server.of(settings.smtp_url.get_secret_value()),
        settings.mail_from,
        settings.public_url,
        unsubscribe.secrets(settings)[0],
        settings.emails_per_second,
    )


def suppress(connection: Connection, results: Sequence[tuple[Letter, Result]], now: dt.datetime) -> None:
    """Write down the addresses that do not exist."""
    bounced = [(letter.to["address"], result.reason) for letter, result in results if result.bounced]
    if bounced:
        values = {"addresses": [a for a, _ in bounced], "reasons": [r for _, r in bounced], "now": now}
        connection.execute(_SUPPRESS, values)


def _mailbox(address: str) -> tuple[str, bool] | None:
    """Return the address with its domain as DNS has it, and whether the rest is beyond ASCII. None: no such domain."""
    before, _, domain = address.rpartition("@")
    try:
        plain = domain if domain.isascii() else domain.encode("idna").decode()
    except UnicodeError:
        return None
    if urlsplit(f"//{plain}").hostname is None:
        return None
    return f"{before}@{plain}", not before.isascii()


KIND = Kind(open_channel, _ADDRESSES, suppress)

"""The links in e-mails that unsubscribe, and what becomes of them. What an app's API imports:

    from kitaab_jobs.reminders.unsubscribe import unsubscribe

    @api.post("/unsubscribe")                # never GET: mail scanners follow links
    def one_click(token: str):
        with engine.begin() as connection:   # as kitaab_app
            unsubscribe(connection, token)

A token is `<user id>.<channel>.<kind>.<signature>`. The signature is HMAC-SHA256 over `kitaab-unsubscribe:` and all
that stands before the last dot, in URL-safe base64 without padding, with KITAAB_UNSUBSCRIBE_SECRET as the key; so an
app in another language checks it in three lines and inserts into `channel_opt_outs`. Tokens do not expire: who finds
an e-mail of last year may unsubscribe with it.
"""

from __future__ import annotations

import hmac
import re
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from urllib.parse import quote

from sqlalchemy import Connection, text
from sqlalchemy.orm import Session

from kitaab_jobs.errors import SettingsError, UsageError
from kitaab_jobs.settings import Settings, settings

KINDS = ("reminder", "completion")
# \Z and not $: that would also take a newline at the end.
_FORM = re.compile(r"([1-9]\d{0,18})\.([a-z]{1,32})\.([a-z]{1,32})\.([A-Za-z0-9_-]{43})\Z", re.ASCII)

_ACT_FOR = text("SELECT set_config('app.user_id', :user, true)")
_OPT_OUT = text(
    """
    INSERT INTO channel_opt_outs (user_id, channel, kind)
    SELECT user_id, CAST(:channel AS varchar), CAST(:kind AS varchar) FROM users WHERE user_id = :user
    ON CONFLICT DO NOTHING
    """
)


class BadToken(UsageError):
    """The link to unsubscribe is not one of ours"""


@dataclass(frozen=True, slots=True)
class Unsubscribed:
    """Who gets no more of what, and over which channel."""

    user_id: int
    channel: str
    kind: str


def secrets(config: Settings) -> list[str]:
    """Return the secrets that count, the one that signs first; raise `SettingsError` where there is none."""
    if config.unsubscribe_secret is None:
        raise SettingsError(
            "KITAAB_UNSUBSCRIBE_SECRET is not set", remedy="set it: openssl rand -hex 32 makes one"
        )
    return [one.strip() for one in config.unsubscribe_secret.get_secret_value().split(",")]


def token(user_id: int, channel: str, kind: str, secret: str) -> str:
    """Return the token that ends letters of that kind over that channel."""
    said = f"{user_id}.{channel}.{kind}"
    return f"{said}.{_signature(said, secret)}"


def link(public_url: str, user_id: int, channel: str, kind: str, secret: str) -> str:
    """Return the address for List-Unsubscribe."""
    return f"{public_url}/unsubscribe?token={quote(token(user_id, channel, kind, secret))}"


def read(given: str, known: Sequence[str]) -> Unsubscribed:
    """Return what a token stands for; raise `BadToken` unless one of the `known` secrets has signed it."""
    found = _FORM.match(given)
    said = given.rpartition(".")[0]
    genuine = [hmac.compare_digest(_signature(said, secret), found[4]) for secret in known] if found else []
    if found is None or not any(genuine) or found[3] not in KINDS:
        raise BadToken(remedy="open the link of the e-mail as it is, or change your reminders in the app")
    return Unsubscribed(int(found[1]), found[2], found[3])


def unsubscribe(connection: Connection | Session, given: str, config: Settings | None = None) -> Unsubscribed:
    """Apply a token in the caller's transaction, as kitaab_app or the owner; a second time changes nothing.

    The transaction acts for that person from then on. Raises `BadToken`.
    """
    found = read(given, secrets(config or settings()))
    connection.execute(_ACT_FOR, {"user": str(found.user_id)})
    connection.execute(_OPT_OUT, {"user": found.user_id, "channel": found.channel, "kind": found.kind})
    return found


def _signature(said: str, secret: str) -> str:
    digest = hmac.new(secret.encode(), f"kitaab-unsubscribe:{said}".encode(), sha256).digest()
    return urlsafe_b64encode(digest).decode().rstrip("=")

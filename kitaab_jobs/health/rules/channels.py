"""Can people be reached: are the channels configured, and do their providers accept us?"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

from kitaab_jobs.health.facts import MailServer, PushKey
from kitaab_jobs.health.rules.finding import Verdict, fail, listed, ok, warn

LOOPBACK = ("127.0.0.1", "::1", "localhost")
EXAMPLE = "set it as docs/channels.md has it"


def email(settings: Mapping[str, bool], server: MailServer | None) -> Verdict:
    """Can e-mails be sent? `settings` says which of those that are needed are set."""
    missing = [name for name, given in settings.items() if not given]
    if len(missing) == len(settings):
        return warn(f"no e-mail can be sent: {missing[0]} is not set", EXAMPLE)
    if missing or server is None:
        return fail(f"no e-mail can be sent: {listed(missing)} is not set", EXAMPLE)
    if server.problem:
        return fail(
            f"the mail server {server.address} cannot be used: {server.problem}", "correct KITAAB_SMTP_URL"
        )
    if not (server.encrypted or server.local):
        return warn(
            f"e-mails travel to {server.address} in clear", "use smtps:// or smtp:// in KITAAB_SMTP_URL"
        )
    return ok(f"the mail server {server.address} accepts us")


def public_url(url: str | None) -> Verdict:
    """Can people open what messages link to? One-click unsubscribing wants https (RFC 8058)."""
    if url is None:
        return ok("no message links anywhere: KITAAB_PUBLIC_URL is not set")
    parts = urlsplit(url)
    if parts.hostname in LOOPBACK:
        return ok(f"messages link to {url}, on this machine")
    if parts.scheme != "https":
        return warn(
            f"messages link to {url}: mail programs unsubscribe with one click over https only",
            "set KITAAB_PUBLIC_URL to an https:// address",
        )
    return ok(f"messages link to {url}")


def webpush(key: PushKey | None, mail_from: bool) -> Verdict:
    """Can messages be pushed?"""
    if key is None:
        return ok("nothing is pushed: KITAAB_VAPID_PRIVATE_KEY is not set")
    if key.public is None:
        return fail("KITAAB_VAPID_PRIVATE_KEY is no key of the curve P-256", EXAMPLE)
    if not mail_from:
        return fail("nothing can be pushed: KITAAB_MAIL_FROM is not set", EXAMPLE)
    return ok(f"what is pushed is signed; browsers subscribe with the key {key.public}")

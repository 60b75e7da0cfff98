"""What the doctor says of the channels."""

from __future__ import annotations

import pytest

from kitaab_jobs.health import channels
from kitaab_jobs.health.facts import MailServer as Seen
from kitaab_jobs.health.facts import PushKey
from kitaab_jobs.health.rules import channels as rules
from tests.reminders.channels.letters import VAPID, configured
from tests.reminders.channels.mailserver import MailServer

ALL = {"KITAAB_SMTP_URL": True, "KITAAB_MAIL_FROM": True}


@pytest.mark.parametrize(
    ("given", "server", "level", "said"),
    [
        (dict.fromkeys(ALL, False), None, "warn", "KITAAB_SMTP_URL is not set"),
        (
            ALL | {"KITAAB_MAIL_FROM": False},
            Seen("m:465", False, True, None),
            "fail",
            "KITAAB_MAIL_FROM is not",
        ),
        (ALL, Seen("m:465", False, True, "it answered 535"), "fail", "it answered 535"),
        (ALL, Seen("m:25", False, False, None), "warn", "in clear"),
        (ALL, Seen("127.0.0.1:25", True, False, None), "ok", "accepts us"),
        (ALL, Seen("m:465", False, True, None), "ok", "accepts us"),
    ],
)
def test_email(given: dict[str, bool], server: Seen | None, level: str, said: str) -> None:
    verdict = rules.email(given, server)
    assert verdict.level == level
    assert said in verdict.what


@pytest.mark.parametrize(
    ("url", "level"),
    [
        (None, "ok"),
        ("https://kitaab.example", "ok"),
        ("http://127.0.0.1:8025", "ok"),
        ("http://kitaab.example", "warn"),
    ],
)
def test_public_url(url: str | None, level: str) -> None:
    assert rules.public_url(url).level == level


@pytest.mark.parametrize(
    ("key", "sender", "level"),
    [
        (None, True, "ok"),
        (PushKey(None), True, "fail"),
        (PushKey("B"), False, "fail"),
        (PushKey("B"), True, "ok"),
    ],
)
def test_webpush(key: PushKey | None, sender: bool, level: str) -> None:
    assert rules.webpush(key, sender).level == level


def test_a_mail_server_is_tried_out_and_sent_nothing() -> None:
    server = MailServer()
    try:
        seen = channels.mail_server(configured(smtp_url=server.url))
        refused = channels.mail_server(configured(smtp_url=server.url.replace("smtp+plain", "smtp")))
    finally:
        server.stop()
    assert seen == Seen(f"127.0.0.1:{server.port}", True, False, None)
    assert refused is not None
    assert "STARTTLS" in (refused.problem or "")
    assert server.handler.connections == set()
    gone = channels.mail_server(configured(smtp_url=server.url))
    assert gone is not None
    assert "refused" in (gone.problem or "")


def test_the_key() -> None:
    assert channels.push_key(configured(vapid_private_key=None)) is None
    assert channels.push_key(configured(vapid_private_key="nothing")) == PushKey(None)
    found = channels.push_key(configured(vapid_private_key=VAPID))
    assert found is not None
    assert found.public is not None
    assert len(found.public) == 87

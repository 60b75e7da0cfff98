"""`kitaab-jobs reminders send-test`: one message, the provider's answer, and a line for whatever is in the way."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, text

from tests.cli.conftest import Command
from tests.reminders.channels.letters import SECRET
from tests.reminders.channels.mailserver import MailServer


@pytest.fixture
def mail(monkeypatch: pytest.MonkeyPatch) -> Iterator[MailServer]:
    server = MailServer()
    monkeypatch.setenv("KITAAB_SMTP_URL", server.url)
    monkeypatch.setenv("KITAAB_MAIL_FROM", "Kitaab <reminders@kitaab.example>")
    monkeypatch.setenv("KITAAB_PUBLIC_URL", "https://kitaab.example")
    monkeypatch.setenv("KITAAB_UNSUBSCRIBE_SECRET", SECRET)
    yield server
    server.stop()


@pytest.fixture
def person(ledger: Engine) -> Iterator[int]:
    with ledger.begin() as connection:
        user = connection.scalar(
            text(
                "INSERT INTO users (email, password_hash, full_name, email_verified, language)"
                " VALUES ('amina@example.org', 'x', 'Amina', true, 'ur') RETURNING user_id"
            )
        )
    assert user is not None
    yield int(user)
    with ledger.begin() as connection:
        connection.execute(text("DELETE FROM users"))


def test_sent_in_the_persons_language(mail: MailServer, person: int, command: Command) -> None:
    code, out, err = command("reminders", "send-test", person)
    assert (code, err) == (0, "")
    assert out == f"sent to person {person} over email: 250 2.0.0 queued as 4F2A1\n"
    [message] = mail.handler.taken
    assert message["Content-Language"] == "ur"
    assert mail.handler.recipients == ["amina@example.org"]


def test_what_the_provider_said_is_shown_without_the_address(
    mail: MailServer, person: int, command: Command
) -> None:
    mail.behaviour.rcpt_default = "550 5.7.1 <amina@example.org> is not welcome"
    code, out, err = command("reminders", "send-test", person, "--channel", "email")
    assert (code, out) == (1, "")
    assert err == "error: not sent (failed): 550 5.7.1 <***> is not welcome\n"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("999999",), 2, "nobody has the id '999999'"),
        (("PERSON", "--channel", "pigeon"), 2, "there is no channel 'pigeon': there are email, webpush, log"),
        (("PERSON", "--channel", "webpush"), 1, "has no address for webpush"),
        (("nobody",), 2, "'nobody' is neither an id nor an e-mail"),
    ],
)
def test_what_is_in_the_way(
    mail: MailServer, person: int, command: Command, words: tuple[str, ...], code: int, said: str
) -> None:
    given = [str(person) if word == "PERSON" else word for word in words]
    got, out, err = command("reminders", "send-test", *given)
    assert (got, out) == (code, "")
    assert said in err
    assert mail.handler.taken == []


def test_not_configured(person: int, command: Command) -> None:
    code, _, err = command("reminders", "send-test", person)
    assert (code, err.count("\n")) == (2, 1)
    assert "no e-mail can be sent: KITAAB_SMTP_URL is not set" in err

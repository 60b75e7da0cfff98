"""The e-mail that arrives: its headers, both parts, five languages, and what must not be in it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from email.message import EmailMessage
from urllib.parse import parse_qs, urlsplit

import pytest

from kitaab_jobs.errors import SettingsError
from kitaab_jobs.reminders import unsubscribe
from kitaab_jobs.reminders.channels import wording
from kitaab_jobs.reminders.channels.email import EmailChannel, open_channel
from kitaab_jobs.reminders.channels.protocol import Fate, masked
from tests.reminders.channels.letters import NOW, SECRET, configured, letter
from tests.reminders.channels.mailserver import MailServer

KINDS = ("reminder", "merit_completed", "target_completed")


@pytest.fixture
def channel(mail: MailServer) -> Iterator[EmailChannel]:
    channel = open_channel(configured(smtp_url=mail.url))
    yield channel
    channel.close()


def part(message: EmailMessage, kind: str) -> str:
    found = message.get_body((kind,))
    assert isinstance(found, EmailMessage)
    text: str = found.get_content()
    return text


class TestHeaders:
    def test_as_they_arrive(self, mail: MailServer, channel: EmailChannel) -> None:
        assert channel.send(letter(), NOW).fate is Fate.SENT
        [message] = mail.handler.taken
        assert message["From"] == "Kitaab <reminders@kitaab.example>"
        assert message["To"] == "amina@example.org"
        assert message["Subject"] == "Your Kitaab for 25 November 2026"
        assert message["Date"].datetime == NOW
        assert message["Message-ID"] == "<0b0e7d1c-0000-5000-8000-000000000007@kitaab.example>"
        assert message["Auto-Submitted"] == "auto-generated"
        assert message["Content-Language"] == "en"

    def test_the_message_id_is_that_of_the_delivery(self, mail: MailServer, channel: EmailChannel) -> None:
        channel.send(letter(), NOW)
        channel.send(letter(), NOW + dt.timedelta(minutes=5))
        assert len({each["Message-ID"] for each in mail.handler.taken}) == 1

    def test_one_click_unsubscribe(self, mail: MailServer, channel: EmailChannel) -> None:
        channel.send(letter(), NOW)
        channel.send(letter(kind="target_completed"), NOW)
        for message, kind in zip(mail.handler.taken, ("reminder", "completion"), strict=True):
            assert message["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
            header = message["List-Unsubscribe"].replace("\n", "").replace(" ", "")
            url = urlsplit(header.removeprefix("<").removesuffix(">"))
            assert f"{url.scheme}://{url.netloc}{url.path}" == "https://kitaab.example/unsubscribe"
            [token] = parse_qs(url.query)["token"]
            found = unsubscribe.read(token, [SECRET])
            assert (found.user_id, found.channel, found.kind) == (42, "email", kind)
            assert token in part(message, "plain")
            assert token in part(message, "html")


class TestLanguages:
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("language", wording.LANGUAGES)
    def test_every_one_has_every_kind(
        self, mail: MailServer, channel: EmailChannel, language: str, kind: str
    ) -> None:
        channel.send(letter(language=language, kind=kind), NOW)
        [message] = mail.handler.taken
        html, plain = part(message, "html"), part(message, "plain")
        direction = "rtl" if language in ("ar", "ur") else "ltr"
        assert f'<html lang="{language}" dir="{direction}">' in html
        said = wording.say(letter(language=language, kind=kind))
        for line in said.paragraphs():
            assert line in plain
            assert wording.say(letter(language=language, kind=kind)).button in html
        assert "{" not in plain.replace("{{", "")
        assert message["Content-Language"] == language

    def test_no_two_say_the_same(self) -> None:
        said = {wording.say(letter(language=each)).lines for each in wording.LANGUAGES}
        assert len(said) == len(wording.LANGUAGES)

    @pytest.mark.parametrize(
        ("given", "spoken"), [("ar-EG", "ar"), ("ur_PK", "ur"), ("TR", "tr"), ("de", "en"), ("", "en")]
    )
    def test_which_is_spoken(self, given: str, spoken: str) -> None:
        assert wording.language_of(given) == spoken

    def test_all_have_the_same_keys(self) -> None:
        def shape(words: dict[str, object]) -> dict[str, object]:
            return {
                key: shape(value) if isinstance(value, dict) else len(value) if isinstance(value, list) else 1
                for key, value in words.items()
            }

        shapes = [shape(wording._words(language)) for language in wording.LANGUAGES]
        assert all(each == shapes[0] for each in shapes)


class TestNames:
    """What a person has named is data: it must not become markup, a header, or turn the text around."""

    def test_in_both_bodies_and_nowhere_else(self, mail: MailServer, channel: EmailChannel) -> None:
        channel.send(letter(kind="merit_completed", name='Fajr <img src="x">\r\nBcc: all'), NOW)
        [message] = mail.handler.taken
        assert "&lt;img src=&#34;x&#34;&gt;" in part(message, "html")
        assert "<img" not in part(message, "html")
        assert "Fajr <img" in part(message, "plain")
        assert message["Bcc"] is None
        assert "Fajr" not in message["Subject"]

    def test_set_apart(self) -> None:
        said = wording.say(
            letter(kind="merit_completed", name="\u202eevil\u202c {day} {name}", language="ar")
        )
        assert said.name == "evil {day} {name}"
        assert "\u2068evil {day} {name}\u2069" in said.paragraphs()[1]


class TestAddresses:
    @pytest.mark.parametrize(
        "address",
        [
            "amina@example.org\r\nBcc: all@example.org",
            "a b@example.org",
            "<amina@example.org>",
            "amina@example.org,other@example.org",
            "amina",
            "@example.org",
            "amina@",
            "amina@exam\0ple.org",
            "amina@xn--\u0600.example",
            f"{'a' * 65}@example.org",
        ],
    )
    def test_what_cannot_be_written_to(self, mail: MailServer, channel: EmailChannel, address: str) -> None:
        result = channel.send(letter(to={"address": address}), NOW)
        assert (result.fate, result.bounced) == (Fate.FAILED, False)
        assert mail.handler.taken == []

    def test_a_domain_beyond_ascii(self, mail: MailServer, channel: EmailChannel) -> None:
        assert channel.send(letter(to={"address": "amina@bücher.example"}), NOW).fate is Fate.SENT
        assert mail.handler.recipients == ["amina@xn--bcher-kva.example"]

    def test_an_address_beyond_ascii(self, mail: MailServer, channel: EmailChannel) -> None:
        result = channel.send(letter(to={"address": "أمينة@example.org"}), NOW)
        assert result.fate in (Fate.SENT, Fate.FAILED)  # as the server can
        assert mail.handler.recipients == (["أمينة@example.org"] if result.fate is Fate.SENT else [])

    def test_nothing_of_it_in_what_is_stored(self, mail: MailServer, channel: EmailChannel) -> None:
        mail.behaviour.rcpt_default = (
            "550 5.1.1 <amina@example.org> Amina unknown, see https://h.example/t?a=amina"
        )
        result = channel.send(letter(), NOW)
        assert result.bounced
        assert "550 5.1.1" in (result.reason or "")
        assert "amina" not in (result.reason or "").lower()
        assert "h.example" not in (result.reason or "")
        assert "amina" not in repr(letter())


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("to a.b+c@ex-ample.org: no", "to ***: no"),
        ("see https://x.example/p?t=1 now", "see https://*** now"),
        ("one\r\ntwo\tthree", "one two three"),
        ("SECRET and Secret", "*** and ***"),
        ("bell \x07", "bell ?"),
        ("x" * 400, "x" * 297 + "..."),
    ],
)
def test_masked(said: str, shown: str) -> None:
    assert masked(said, "secret") == shown


class TestSettings:
    @pytest.mark.parametrize("missing", ["smtp_url", "mail_from", "public_url", "unsubscribe_secret"])
    def test_what_is_missing_is_named(self, missing: str) -> None:
        given = {"smtp_url": "smtps://mail.example", missing: None}
        with pytest.raises(SettingsError, match=f"KITAAB_{missing.upper()} is not set"):
            open_channel(configured(**given))

    def test_secrets_are_not_shown(self) -> None:
        shown = repr(configured(smtp_url="smtps://me:pass-word@mail.example"))
        assert "pass-word" not in shown
        assert SECRET not in shown

    @pytest.mark.parametrize(
        ("name", "value", "said"),
        [
            ("smtp_url", "http://mail.example", "smtps://"),
            ("smtp_url", "smtps://me:top/secret@mail.example", "is not a URL"),
            ("mail_from", "nobody", "is not a sender"),
            ("mail_from", "a@b.example\r\nBcc: c@d.example", "is not a sender"),
            ("public_url", "kitaab.example", "is not a web address"),
            ("public_url", "https://u:secret@kitaab.example", "is not a web address"),
            ("unsubscribe_secret", "short-secret", "shorter than 32"),
            ("unsubscribe_secret", f"{SECRET},short-secret", "shorter than 32"),
        ],
    )
    def test_what_is_wrong_is_said_without_secrets(self, name: str, value: str, said: str) -> None:
        with pytest.raises(SettingsError, match=said) as caught:
            configured(**{name: value})
        assert f"KITAAB_{name.upper()}" in str(caught.value)
        assert "secret" not in str(caught.value).replace("KITAAB_UNSUBSCRIBE_SECRET", "").lower()

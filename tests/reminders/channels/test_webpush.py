"""Web Push against a service that decrypts: what arrives, and what follows from each answer."""

from __future__ import annotations

import base64
import datetime as dt
import json
import socket
from collections.abc import Iterator
from email.utils import format_datetime
from typing import Any

import pytest
from py_vapid import Vapid02

from kitaab_jobs.errors import SettingsError
from kitaab_jobs.reminders.channels import webpush
from kitaab_jobs.reminders.channels.protocol import Fate, Letter
from kitaab_jobs.reminders.channels.webpush import WebPushChannel, key_of, open_channel, public_key
from tests.reminders.channels.letters import NOW, VAPID, configured, letter
from tests.reminders.channels.pushserver import Browser, PushServer


def to(*browsers: Browser, **given: Any) -> Letter:
    subscriptions = [
        {"id": number, "endpoint": each.endpoint, "p256dh": each.p256dh, "auth": each.auth}
        for number, each in enumerate(browsers, 1)
    ]
    return letter(channel="webpush", to={"subscriptions": subscriptions}, **given)


@pytest.fixture
def channel() -> Iterator[WebPushChannel]:
    channel = open_channel(configured())
    yield channel
    channel.close()


class TestMessage:
    def test_only_the_browser_can_read_it(self, push: PushServer, channel: WebPushChannel) -> None:
        browser, other = push.browser(), push.browser()
        assert channel.send(to(browser, language="ar"), NOW).fate is Fate.SENT
        [pushed] = push.pushed
        assert browser.decrypt(pushed.body) == {
            "title": "كتاب",
            "body": "لحظة هادئة لتدوين يومك.",
            "lang": "ar",
            "dir": "rtl",
            "tag": "0b0e7d1c-0000-5000-8000-000000000007",
            "url": "https://kitaab.example",
        }
        with pytest.raises(Exception, match="Decryption error"):
            other.decrypt(pushed.body)

    def test_headers(self, push: PushServer, channel: WebPushChannel) -> None:
        channel.send(to(push.browser()), NOW + dt.timedelta(minutes=20))
        channel.send(to(push.browser(), key="another", day=dt.date(2026, 11, 26)), NOW)
        channel.send(to(push.browser(), collapse="reminder/4"), NOW)
        first, second, third = (each.headers for each in push.pushed)
        assert first["TTL"] == "6000"  # to the deadline
        assert second["TTL"] == "7200"
        assert (first["Urgency"], first["Content-Encoding"]) == ("normal", "aes128gcm")
        assert first["Topic"] == second["Topic"] != third["Topic"]
        assert len(first["Topic"]) <= 32

    def test_signed_for_this_service(self, push: PushServer, channel: WebPushChannel) -> None:
        channel.send(to(push.browser()), NOW)
        header = push.pushed[0].headers["Authorization"]
        assert Vapid02.verify(header)
        token = header.partition("t=")[2].partition(",")[0]
        claims = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
        assert claims["aud"] == push.url
        assert claims["sub"] == "mailto:reminders@kitaab.example"
        assert f"k={public_key(key_of(VAPID))}" in header

    def test_nothing_a_lock_screen_should_not_show(self, push: PushServer, channel: WebPushChannel) -> None:
        browser = push.browser()
        channel.send(to(browser, kind="merit_completed", name="Stop smoking"), NOW)
        assert "smoking" not in json.dumps(browser.decrypt(push.pushed[0].body))

    def test_connections_are_kept(self, push: PushServer, channel: WebPushChannel) -> None:
        for _ in range(5):
            channel.send(to(push.browser()), NOW)
        push.answers["/push/abc"] = (410, {})
        for _ in range(5):
            channel.send(to(push.browser()), NOW)
        assert len(push.pushed) == 10
        assert len(push.connections) == 1


class TestAnswers:
    @pytest.mark.parametrize(
        ("status", "fate", "stops", "alerts", "gone"),
        [
            (200, Fate.SENT, False, False, ()),
            (201, Fate.SENT, False, False, ()),
            (202, Fate.SENT, False, False, ()),
            (404, Fate.FAILED, False, False, (1,)),
            (410, Fate.FAILED, False, False, (1,)),
            (400, Fate.FAILED, False, True, ()),
            (413, Fate.FAILED, False, True, ()),
            (301, Fate.FAILED, False, True, ()),
            (401, Fate.LATER, True, True, ()),
            (403, Fate.LATER, True, True, ()),
            (429, Fate.LATER, False, False, ()),
            (503, Fate.LATER, False, False, ()),
            (500, Fate.UNKNOWN, False, False, ()),
            (502, Fate.UNKNOWN, False, False, ()),
        ],
    )
    def test_status(
        self,
        push: PushServer,
        channel: WebPushChannel,
        status: int,
        fate: Fate,
        stops: bool,
        alerts: bool,
        gone: tuple[int, ...],
    ) -> None:
        push.default = (status, {"Location": f"{push.url}/elsewhere"} if status == 301 else {})
        result = channel.send(to(push.browser()), NOW)
        assert (result.fate, result.stops, result.alerts, result.gone) == (fate, stops, alerts, gone)
        assert len(push.pushed) == 1  # a redirection is not followed
        assert "/push/abc" not in repr(result)

    @pytest.mark.parametrize(
        ("header", "seconds"),
        [
            ("120", 120),
            (format_datetime(NOW + dt.timedelta(seconds=90), usegmt=True), 90),
            (format_datetime(NOW - dt.timedelta(hours=1), usegmt=True), 0),
            ("soon", None),
            ("-5", None),
            ("99999999999", 86_400),
            (None, None),
        ],
    )
    def test_retry_after(
        self, push: PushServer, channel: WebPushChannel, header: str | None, seconds: float | None
    ) -> None:
        push.default = (429, {} if header is None else {"Retry-After": header})
        assert channel.send(to(push.browser()), NOW).after == seconds

    def test_a_service_that_asks_to_wait_is_not_asked_again(
        self, push: PushServer, channel: WebPushChannel
    ) -> None:
        push.default = (503, {"Retry-After": "30"})
        channel.send(to(push.browser()), NOW)
        result = channel.send(to(push.browser("/push/other")), NOW)
        assert result.fate is Fate.LATER
        assert result.after == pytest.approx(30, abs=2)
        assert len(push.pushed) == 1

    def test_an_answer_that_does_not_come(
        self, push: PushServer, channel: WebPushChannel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(webpush, "ANSWER_SECONDS", 0.3)
        push.default = "hang"
        assert channel.send(to(push.browser()), NOW).fate is Fate.UNKNOWN

    def test_a_connection_that_breaks_after_the_request(
        self, push: PushServer, channel: WebPushChannel
    ) -> None:
        push.default = "drop"
        assert channel.send(to(push.browser()), NOW).fate is Fate.UNKNOWN

    def test_nobody_listens(self, channel: WebPushChannel) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        result = channel.send(to(Browser(f"http://127.0.0.1:{port}/secret-endpoint")), NOW)
        assert result.fate is Fate.LATER
        assert "secret" not in repr(result)


class TestSeveralBrowsers:
    @pytest.mark.parametrize(
        ("statuses", "fate", "gone", "used"),
        [
            ((201, 410), Fate.SENT, (2,), (1,)),
            ((429, 201), Fate.SENT, (), (2,)),
            ((500, 503), Fate.UNKNOWN, (), ()),
            ((404, 503), Fate.LATER, (1,), ()),
            ((410, 404), Fate.FAILED, (1, 2), ()),
        ],
    )
    def test_together(
        self,
        push: PushServer,
        channel: WebPushChannel,
        statuses: tuple[int, int],
        fate: Fate,
        gone: tuple[int, ...],
        used: tuple[int, ...],
    ) -> None:
        for number, status in enumerate(statuses):
            push.answers[f"/{number}"] = (status, {})
        result = channel.send(to(push.browser("/0"), push.browser("/1")), NOW)
        assert (result.fate, result.gone, result.used) == (fate, gone, used)


class TestWhoIsAsked:
    """A browser names the address to which we send: it must not be one of our own network."""

    @pytest.mark.parametrize(
        "endpoint",
        [
            "http://fcm.googleapis.com/x",
            "https://internal.example/x",
            "https://fcm.googleapis.com.evil.example/x",
            "https://evil-push.apple.com/x",
            "https://fcm.googleapis.com@127.0.0.1/x",
            "https://169.254.169.254/latest",
            "file:///etc/passwd",
            "https://[::1/x",
            "https://fcm.googleapis.com:99999/x",
            "",
        ],
    )
    def test_others_are_not(self, endpoint: str) -> None:
        channel = open_channel(configured(push_services="fcm.googleapis.com .push.apple.com"))
        result = channel.send(to(Browser(endpoint)), NOW)
        assert (result.fate, result.reason) == (
            Fate.FAILED,
            "its push service is not in KITAAB_PUSH_SERVICES",
        )

    def test_known_ones_are(self) -> None:
        channel = open_channel(configured(push_services="fcm.googleapis.com .push.apple.com"))
        assert channel._host("https://fcm.googleapis.com/fcm/send/x") == "fcm.googleapis.com"
        assert channel._host("https://web.push.apple.com/x") == "web.push.apple.com"

    def test_keys_that_are_none(self, push: PushServer, channel: WebPushChannel) -> None:
        bad = {"id": 9, "endpoint": push.url + "/x", "p256dh": "A" * 87, "auth": "B" * 22}
        result = channel.send(letter(channel="webpush", to={"subscriptions": [bad]}), NOW)
        assert (result.fate, result.gone) == (Fate.FAILED, (9,))
        assert push.pushed == []


class TestSettings:
    @pytest.mark.parametrize("missing", ["vapid_private_key", "mail_from", "public_url"])
    def test_what_is_missing_is_named(self, missing: str) -> None:
        with pytest.raises(SettingsError, match=f"KITAAB_{missing.upper()} is not set"):
            open_channel(configured(**{missing: None}))

    @pytest.mark.parametrize("key", ["no key at all", "QUFB", "!" * 43])
    def test_a_bad_key_is_not_quoted(self, key: str) -> None:
        with pytest.raises(SettingsError) as caught:
            open_channel(configured(vapid_private_key=key))
        assert key not in str(caught.value)

    def test_the_key_is_not_shown(self) -> None:
        assert VAPID not in repr(configured())

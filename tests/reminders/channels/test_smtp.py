"""What is known after each way in which a mail server can behave: sent, surely refused, or nobody knows."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kitaab_jobs.errors import SettingsError
from kitaab_jobs.reminders.channels.protocol import Fate, Result
from kitaab_jobs.reminders.channels.smtp import Envelope, Mailer, Server
from tests.reminders.channels.mailserver import PASSWORD, USER, MailServer, certificate

MESSAGE = b"Subject: dots\r\n\r\nfirst\r\n.\r\n..two\r\nlast\r\n"
SOMEBODY = "amina@example.org"
# In seconds: what a server that answers needs on a slow machine, however long that is.
SLOW = 30.0


def envelope(recipient: str = SOMEBODY, data: bytes = MESSAGE) -> Envelope:
    return Envelope(
        "reminders@kitaab.example", recipient, data, secrets=(recipient, recipient.partition("@")[0])
    )


@pytest.fixture
def mailer(mail: MailServer) -> Iterator[Mailer]:
    mailer = Mailer(Server.of(mail.url), timeout=SLOW)
    yield mailer
    mailer.close()


class TestTaken:
    def test_sent_as_it_is(self, mail: MailServer, mailer: Mailer) -> None:
        result = mailer.send(envelope())
        assert result == Result(Fate.SENT, provider_id="250 2.0.0 queued as 4F2A1")
        assert mail.handler.recipients == [SOMEBODY]
        [taken] = mail.handler.taken
        assert taken.get_content().replace("\r\n", "\n") == "first\n.\n..two\nlast\n"

    def test_one_connection_for_many(self, mail: MailServer, mailer: Mailer) -> None:
        for number in range(5):
            assert mailer.send(envelope(f"a{number}@example.org")).fate is Fate.SENT
        assert len(mail.handler.taken) == 5
        assert len(mail.handler.connections) == 1

    def test_a_server_that_closes_a_full_connection_gets_a_new_one(
        self, mail: MailServer, mailer: Mailer
    ) -> None:
        mail.behaviour.close_after = 2
        results = [mailer.send(envelope(f"a{number}@example.org")).fate for number in range(5)]
        assert results == [Fate.SENT] * 5
        assert len(mail.handler.connections) == 3


class TestRefused:
    @pytest.mark.parametrize(
        ("answer", "fate", "bounced"),
        [
            ("550 5.1.1 <amina@example.org>: no such user", Fate.FAILED, True),
            ("550 no mailbox here", Fate.FAILED, True),
            ("553 5.1.3 bad address syntax", Fate.FAILED, True),
            ("550 5.2.1 mailbox disabled", Fate.FAILED, True),
            ("556 5.1.10 domain takes no mail", Fate.FAILED, True),
            ("552 5.2.2 mailbox full", Fate.FAILED, False),
            ("550 5.7.1 blocked by policy", Fate.FAILED, False),
            ("554 relay access denied", Fate.FAILED, False),
            ("450 4.2.0 greylisted", Fate.LATER, False),
            ("421 4.3.0 shutting down", Fate.LATER, False),
        ],
    )
    def test_recipient(
        self, mail: MailServer, mailer: Mailer, answer: str, fate: Fate, bounced: bool
    ) -> None:
        mail.behaviour.rcpt[SOMEBODY] = answer
        result = mailer.send(envelope())
        assert (result.fate, result.bounced, result.stops) == (fate, bounced, False)
        assert result.reason is not None
        assert result.reason.startswith(answer[:3])
        assert mail.handler.taken == []

    def test_one_persons_refusal_hurts_nobody_else(self, mail: MailServer, mailer: Mailer) -> None:
        mail.behaviour.rcpt["no@example.org"] = "550 5.1.1 no such user"
        mail.behaviour.rcpt["gone@example.org"] = "drop"
        people = ["a@example.org", "no@example.org", "b@example.org", "gone@example.org", "c@example.org"]
        fates = [mailer.send(envelope(each)).fate for each in people]
        assert fates == [Fate.SENT, Fate.FAILED, Fate.SENT, Fate.LATER, Fate.SENT]

    def test_a_bad_sender_stops_the_channel(self, mail: MailServer, mailer: Mailer) -> None:
        mail.behaviour.mail = "553 5.7.1 you may not send as this"
        result = mailer.send(envelope())
        assert (result.fate, result.stops, result.alerts) == (Fate.LATER, True, True)

    @pytest.mark.parametrize(
        ("answer", "fate"),
        [("451 4.3.0 try later", Fate.LATER), ("554 5.6.0 content refused", Fate.FAILED)],
    )
    def test_message(self, mail: MailServer, mailer: Mailer, answer: str, fate: Fate) -> None:
        mail.behaviour.data = answer
        result = mailer.send(envelope())
        assert (result.fate, result.bounced) == (fate, False)
        mail.behaviour.data = "250 OK"
        assert mailer.send(envelope()).fate is Fate.SENT


class TestBroken:
    def test_nobody_listens(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        result = Mailer(Server.of(f"smtp+plain://127.0.0.1:{port}")).send(envelope())
        assert (result.fate, result.stops, result.alerts) == (Fate.LATER, True, False)
        assert "ConnectionRefusedError" in (result.reason or "")

    @pytest.mark.parametrize("step", ["mail", "rcpt"])
    def test_cut_before_the_message(self, mail: MailServer, mailer: Mailer, step: str) -> None:
        if step == "mail":
            mail.behaviour.mail = "drop"
        else:
            mail.behaviour.rcpt[SOMEBODY] = "drop"
        assert mailer.send(envelope()).fate is Fate.LATER

    def test_cut_after_the_message(self, mail: MailServer, mailer: Mailer) -> None:
        mail.behaviour.data = "drop"
        assert mailer.send(envelope()).fate is Fate.UNKNOWN

    def test_no_answer_in_time(self, mail: MailServer) -> None:
        mail.behaviour.data_seconds = 60
        mailer = Mailer(Server.of(mail.url), timeout=2)
        result = mailer.send(envelope())
        assert result.fate is Fate.UNKNOWN
        assert "timed out" in (result.reason or "")
        mail.behaviour.data_seconds = 0
        assert mailer.send(envelope()).fate is Fate.SENT
        mailer.close()

    def test_cut_in_the_middle_of_the_message(self, stuck: Callable[[], str]) -> None:
        """The server reads only a part of a large message and goes: the end was never handed over."""
        mailer = Mailer(Server.of(stuck()), timeout=SLOW)
        large = b"Subject: large\r\n\r\n" + b"x" * 78 + b"\r\n" * 1 + (b"y" * 78 + b"\r\n") * 200_000
        assert mailer.send(envelope(data=large)).fate is Fate.LATER

    def test_not_smtp(self) -> None:
        with speaking(b"HTTP/1.1 400 Bad Request\r\n\r\n") as url:
            result = Mailer(Server.of(url), timeout=SLOW).send(envelope())
        assert (result.fate, result.stops) == (Fate.LATER, True)

    def test_busy(self) -> None:
        with speaking(b"421 4.3.2 too busy\r\n") as url:
            result = Mailer(Server.of(url), timeout=SLOW).send(envelope())
        assert (result.fate, result.stops, result.alerts) == (Fate.LATER, True, False)


class speaking:
    """A server that says one thing to whoever connects, and hangs up."""

    def __init__(self, text: bytes) -> None:
        self._text = text
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> str:
        self._thread.start()
        return f"smtp+plain://127.0.0.1:{self._socket.getsockname()[1]}"

    def _serve(self) -> None:
        connection, _ = self._socket.accept()
        with connection:
            connection.sendall(self._text)

    def __exit__(self, *_: object) -> None:
        self._thread.join(5)
        self._socket.close()


@pytest.fixture
def stuck() -> Iterator[Callable[[], str]]:
    """A server that resets the connection after the first bytes of a message."""
    server = socket.create_server(("127.0.0.1", 0))
    threads: list[threading.Thread] = []

    def serve() -> None:
        connection, _ = server.accept()
        with connection, connection.makefile("rb") as lines:
            connection.sendall(b"220 ready\r\n")
            for answer in (b"250 hello", b"250 sender", b"250 recipient", b"354 go on"):
                lines.readline()
                connection.sendall(answer + b"\r\n")
            lines.read(1000)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    def start() -> str:
        threads.append(threading.Thread(target=serve, daemon=True))
        threads[-1].start()
        return f"smtp+plain://127.0.0.1:{server.getsockname()[1]}"

    yield start
    for thread in threads:
        thread.join(5)
    server.close()


class TestEncrypted:
    """The certificate is made here, and trusted by way of SSL_CERT_FILE."""

    @pytest.mark.filterwarnings(
        "ignore:Requiring AUTH while not requiring TLS"
    )  # TLS is there from the first byte
    @pytest.mark.parametrize("implicit", [False, True], ids=["starttls", "tls"])
    def test_sent_and_logged_in(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, implicit: bool
    ) -> None:
        context, trusted = certificate(tmp_path, "127.0.0.1", "localhost")
        monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
        server = MailServer(tls=context, implicit=implicit, login=True)
        scheme = "smtps" if implicit else "smtp"
        try:
            mailer = Mailer(
                Server.of(f"{scheme}://{USER}:s3cret%2Fpass@localhost:{server.port}"), timeout=SLOW
            )
            assert mailer.send(envelope()).fate is Fate.SENT
            mailer.close()
            assert server.handler.secure == [True]

            bad = Mailer(Server.of(f"{scheme}://{USER}:wrong-password@localhost:{server.port}"), timeout=SLOW)
            result = bad.send(envelope())
            assert (result.fate, result.stops, result.alerts) == (Fate.LATER, True, True)
            assert "535" in (result.reason or "")
            assert "wrong-password" not in repr(result) + repr(bad)
        finally:
            server.stop()

    @pytest.mark.parametrize("names", [("elsewhere.example",), None], ids=["another name", "not trusted"])
    def test_a_certificate_that_is_not_valid(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...] | None
    ) -> None:
        context, trusted = certificate(tmp_path, *(names or ("localhost",)))
        if names:
            monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
        server = MailServer(tls=context)
        try:
            result = Mailer(Server.of(f"smtp://localhost:{server.port}"), timeout=SLOW).send(envelope())
        finally:
            server.stop()
        assert (result.fate, result.stops, result.alerts) == (Fate.LATER, True, True)
        assert "certificate" in (result.reason or "").lower()
        assert server.handler.taken == []

    def test_no_clear_text_where_starttls_is_not_offered(self, mail: MailServer) -> None:
        result = Mailer(Server.of(f"smtp://127.0.0.1:{mail.port}"), timeout=SLOW).send(envelope())
        assert (result.fate, result.stops, result.alerts) == (Fate.LATER, True, True)
        assert "STARTTLS" in (result.reason or "")
        assert mail.handler.taken == []

    def test_no_password_in_clear(self) -> None:
        with pytest.raises(SettingsError, match="in clear"):
            Server.of(f"smtp+plain://{USER}:x@127.0.0.1:25")

    def test_the_password_is_not_shown(self) -> None:
        assert PASSWORD not in repr(Server.of(f"smtps://{USER}:s3cret%2Fpass@localhost:1"))

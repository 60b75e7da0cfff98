"""A real SMTP server for tests, which can be told to misbehave at each step."""

from __future__ import annotations

import asyncio
import datetime as dt
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

USER, PASSWORD = "mailer", "s3cret/pass"


@dataclass
class Behaviour:
    """What the server does: an answer for each step, or "drop" to cut the connection there."""

    mail: str = "250 2.1.0 OK"
    rcpt: dict[str, str] = field(default_factory=dict)
    rcpt_default: str = "250 2.1.5 OK"
    data: str = "250 2.0.0 queued as 4F2A1"
    data_seconds: float = 0.0
    close_after: int | None = None  # messages of one connection, after which MAIL FROM is answered with 421


class Handler:
    """Keeps what it takes, and answers as it is told."""

    def __init__(self) -> None:
        self.behaviour = Behaviour()
        self.taken: list[EmailMessage] = []
        self.recipients: list[str] = []
        self.times: list[float] = []
        self.connections: set[int] = set()
        self.secure: list[bool] = []
        self.begun = threading.Event()
        self.on_data: Callable[[], None] = lambda: None
        self._of_connection: dict[int, int] = {}
        self._sessions: list[Session] = []  # kept, or a later one might get the same id

    async def handle_MAIL(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        self.connections.add(id(session))
        self._sessions.append(session)
        most = self.behaviour.close_after
        if most is not None and self._of_connection.get(id(session), 0) >= most:
            return "421 4.7.0 too many messages on this connection"
        if self.behaviour.mail == "drop":
            _drop(server)
        if self.behaviour.mail.startswith("250"):
            envelope.mail_from = address
        return self.behaviour.mail

    async def handle_RCPT(
        self, server: SMTP, _session: Session, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        answer = self.behaviour.rcpt.get(address, self.behaviour.rcpt_default)
        if answer == "drop":
            _drop(server)
        if answer.startswith("250"):
            envelope.rcpt_tos.append(address)
        return answer

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        self.begun.set()
        self.on_data()
        await asyncio.sleep(self.behaviour.data_seconds)
        answer = self.behaviour.data
        if answer.startswith("250"):
            assert isinstance(envelope.content, bytes)
            message = message_from_bytes(envelope.content, policy=policy.default)
            assert isinstance(message, EmailMessage)
            self.taken.append(message)
            self.recipients += envelope.rcpt_tos
            self.times.append(time.monotonic())
            assert server.transport is not None
            self.secure.append(server.transport.get_extra_info("ssl_object") is not None)
            self._of_connection[id(session)] = self._of_connection.get(id(session), 0) + 1
        if answer == "drop":
            _drop(server)
        return answer


def _drop(server: SMTP) -> None:
    assert isinstance(server.transport, asyncio.Transport)
    server.transport.abort()


def _authenticate(_server: Any, _session: Any, _envelope: Any, _mechanism: str, data: Any) -> AuthResult:
    assert isinstance(data, LoginPassword)
    good = (data.login, data.password) == (USER.encode(), PASSWORD.encode())
    return AuthResult(success=good, handled=False)


class MailServer:
    """The server on a port of its own. `tls` is a server's context; `implicit` is TLS from the first byte."""

    def __init__(
        self, *, tls: ssl.SSLContext | None = None, implicit: bool = False, login: bool = False
    ) -> None:
        self.handler = Handler()
        options: dict[str, Any] = {"hostname": "127.0.0.1", "port": 0, "ready_timeout": 10.0}
        if tls is not None and implicit:
            options["ssl_context"] = tls
        elif tls is not None:
            options |= {"tls_context": tls, "require_starttls": True}
        if login:
            options |= {
                "authenticator": _authenticate,
                "auth_required": True,
                "auth_require_tls": not implicit,
            }
        self._controller = _OnFreePort(self.handler, **options)
        self._controller.start()

    @property
    def port(self) -> int:
        return int(self._controller.port)

    @property
    def url(self) -> str:
        return f"smtp+plain://127.0.0.1:{self.port}"

    @property
    def behaviour(self) -> Behaviour:
        return self.handler.behaviour

    def stop(self) -> None:
        self._controller.stop(no_assert=True)


class _OnFreePort(Controller):
    """A controller that is asked for port 0: it tries itself out by connecting, and must know which it got."""

    def _trigger_server(self) -> None:
        assert isinstance(self.server, asyncio.Server)
        self.port = self.server.sockets[0].getsockname()[1]
        super()._trigger_server()  # type: ignore[no-untyped-call]


def certificate(folder: Path, *names: str) -> tuple[ssl.SSLContext, Path]:
    """Make a certificate for these names, and return a server's context and the file that makes it trusted."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = dt.datetime.now(dt.UTC)
    alternatives: list[x509.GeneralName] = [
        x509.IPAddress(ip_address(each)) if each[0].isdigit() else x509.DNSName(each) for each in names
    ]
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    trusted, private = folder / "certificate.pem", folder / "key.pem"
    trusted.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(trusted, private)
    return context, trusted

"""What can be seen of the channels: the mail server, tried out as far as a login, and the key of Web Push."""

from __future__ import annotations

import smtplib
import ssl
from base64 import urlsafe_b64encode
from urllib.parse import unquote, urlsplit

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from py_vapid import Vapid02

from kitaab_jobs.health.facts import MailServer, PushKey
from kitaab_jobs.health.rules.channels import LOOPBACK
from kitaab_jobs.settings import Settings

SECONDS = 3.0
_PORTS = {"smtps": 465, "smtp": 587, "smtp+plain": 25}


def needed_for_email(settings: Settings) -> dict[str, bool]:
    """Return which of the settings that e-mail needs are there."""
    return {
        "KITAAB_SMTP_URL": settings.smtp_url is not None,
        "KITAAB_MAIL_FROM": settings.mail_from is not None,
        "KITAAB_PUBLIC_URL": settings.public_url is not None,
        "KITAAB_UNSUBSCRIBE_SECRET": settings.unsubscribe_secret is not None,
    }


def mail_server(settings: Settings, seconds: float = SECONDS) -> MailServer | None:
    """Return the mail server and what is wrong with it. Nothing is sent."""
    if settings.smtp_url is None:
        return None
    parts = urlsplit(settings.smtp_url.get_secret_value())
    host, port = parts.hostname or "", parts.port or _PORTS[parts.scheme]
    return MailServer(
        f"{host}:{port}",
        host in LOOPBACK,
        parts.scheme != "smtp+plain",
        _problem(parts.scheme, host, port, parts.username, parts.password, seconds),
    )


def push_key(settings: Settings) -> PushKey | None:
    """Return the key of Web Push."""
    if settings.vapid_private_key is None:
        return None
    try:
        key = Vapid02.from_string(settings.vapid_private_key.get_secret_value().strip())
        point = key.public_key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    except Exception:  # the library raises whatever it stumbles over, and quotes it
        return PushKey(None)
    return PushKey(urlsafe_b64encode(point).decode().rstrip("="))


def _problem(
    scheme: str, host: str, port: int, user: str | None, password: str | None, seconds: float
) -> str | None:
    if scheme == "smtp+plain" and user:
        return "smtp+plain:// would send the password in clear"
    try:
        context = ssl.create_default_context()
        client = (
            smtplib.SMTP_SSL(host, port, timeout=seconds, context=context, local_hostname="localhost")
            if scheme == "smtps"
            else smtplib.SMTP(host, port, timeout=seconds, local_hostname="localhost")
        )
        with client:
            if scheme == "smtp":
                client.starttls(context=context)
            if user:
                client.login(unquote(user), unquote(password or ""))
    except smtplib.SMTPResponseException as error:
        return f"it answered {error.smtp_code}"  # what else it says may repeat what it was told
    except (OSError, smtplib.SMTPException) as error:
        return " ".join(str(error).split()) or type(error).__name__
    return None

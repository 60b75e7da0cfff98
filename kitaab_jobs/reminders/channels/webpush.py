"""The channel `webpush`: to the browsers in which a person has allowed notifications.

Each message is encrypted for its browser, and signed with our key (VAPID). One that waits at the push service until
the deadline is dropped there, and a later one takes its place. It says no more than a lock screen may show.
"""

from __future__ import annotations

import datetime as dt
import json
import threading
import time
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from contextlib import suppress
from email.utils import parseaddr
from hashlib import sha256
from typing import Any
from urllib.parse import urlsplit

import requests
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from py_vapid import Vapid02
from pywebpush import WebPusher
from requests.adapters import HTTPAdapter
from sqlalchemy import ARRAY, BigInteger, Connection, bindparam, text
from urllib3.exceptions import HTTPError, MaxRetryError

from kitaab_jobs.errors import SettingsError
from kitaab_jobs.reminders.channels import replies, wording
from kitaab_jobs.reminders.channels.protocol import Fate, Kind, Letter, Result, masked
from kitaab_jobs.settings import Settings

CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 10.0
# How long a signature is used again. Push services take one for at most 24 hours.
SIGNED_FOR = 3600
_VALID_FOR = 12 * 3600
# A push service that asks one of us to wait is left alone by this run for so long at most.
LONGEST_HOLD = 60.0
LONGEST_ANSWER = 4096  # bytes
LOOPBACK = ("127.0.0.1", "::1", "localhost")

_ADDRESSES = text(
    """
    SELECT user_id, jsonb_build_object('subscriptions', jsonb_agg(jsonb_build_object(
        'id', push_subscription_id, 'endpoint', endpoint, 'p256dh', p256dh, 'auth', auth) ORDER BY push_subscription_id))
    FROM push_subscriptions WHERE user_id = ANY (:users) GROUP BY user_id
    """
).bindparams(bindparam("users", type_=ARRAY(BigInteger)))

_REMOVE = text("DELETE FROM push_subscriptions WHERE push_subscription_id = ANY (:ids)").bindparams(
    bindparam("ids", type_=ARRAY(BigInteger))
)
# To the day: who looks for old ones needs no more, and a push stays without a write.
_USED = text(
    """
    UPDATE push_subscriptions SET last_used_at = :now
    WHERE push_subscription_id = ANY (:ids)
      AND (last_used_at IS NULL OR last_used_at < CAST(:now AS timestamptz) - interval '1 day')
    """
).bindparams(bindparam("ids", type_=ARRAY(BigInteger)))


class WebPushChannel:
    """Sends to push services, over connections that are kept."""

    at_once = 16

    def __init__(
        self, key: Vapid02, contact: str, public_url: str, services: Sequence[str], per_second: float
    ) -> None:
        self.per_second = per_second
        self._key = key
        self._contact = contact
        self._public_url = public_url
        self._services = tuple(services)
        self._session = requests.Session()
        self._session.auth = lambda request: request  # or a .netrc would take the place of our signature
        for scheme in ("https://", "http://"):
            self._session.mount(
                scheme, HTTPAdapter(pool_connections=8, pool_maxsize=self.at_once, max_retries=0)
            )
        self._signed: dict[str, tuple[float, str]] = {}
        self._held: dict[str, float] = {}
        self._lock = threading.Lock()

    def send(self, letter: Letter, now: dt.datetime) -> Result:
        """Send to each of the person's browsers. It is sent where one of them was reached."""
        subscriptions = letter.to["subscriptions"]
        data = self.payload(letter)
        ttl = max(0, int((letter.deadline - now).total_seconds()))
        results = [(one["id"], self._push(one, letter, data, ttl, now)) for one in subscriptions]
        return together(results)

    def payload(self, letter: Letter) -> bytes:
        """Return what the app's service worker is given."""
        said = wording.say(letter)
        return json.dumps(
            {
                "title": said.brand,
                "body": said.short,
                "lang": said.language,
                "dir": said.direction,
                "tag": letter.key,
                "url": self._public_url,
            },
            ensure_ascii=False,
        ).encode()

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def _push(self, to: dict[str, Any], letter: Letter, data: bytes, ttl: int, now: dt.datetime) -> Result:
        host = self._host(to["endpoint"])
        if host is None:
            return Result(Fate.FAILED, "its push service is not in KITAAB_PUSH_SERVICES", alerts=True)
        if (left := self._held.get(host, 0) - time.monotonic()) > 0:
            return Result(Fate.LATER, f"{host} has asked us to wait", after=left)
        try:
            keys = {"p256dh": to["p256dh"], "auth": to["auth"]}
            body = WebPusher({"endpoint": to["endpoint"], "keys": keys}).encode(data)["body"]
        except Exception:  # whatever a browser has registered: as a key it is none, and never will be
            return Result(Fate.FAILED, "the subscription's keys are none", bounced=True)
        headers = {
            "TTL": str(ttl),
            "Urgency": "normal",
            "Topic": urlsafe_b64encode(sha256(letter.collapse.encode()).digest())[:32].decode(),
            "Content-Encoding": "aes128gcm",
            "Content-Type": "application/octet-stream",
            "Authorization": self._signature(to["endpoint"]),
        }
        result = self._post(to["endpoint"], host, body, headers, now)
        if result.fate is Fate.LATER and result.after is not None and not result.stops:
            with self._lock:
                self._held[host] = time.monotonic() + min(result.after, LONGEST_HOLD)
        return result

    def _post(
        self, endpoint: str, host: str, body: bytes, headers: dict[str, str], now: dt.datetime
    ) -> Result:
        try:
            # Not followed: who is asked is in our list, and where it would send us may not be.
            with self._session.post(
                endpoint,
                data=body,
                headers=headers,
                timeout=(CONNECT_SECONDS, ANSWER_SECONDS),
                allow_redirects=False,
                stream=True,
            ) as response:
                with suppress(HTTPError):  # to the end, or the connection could not be used again
                    response.raw.read(LONGEST_ANSWER)
                return replies.to_push(response.status_code, response.headers.get("Retry-After"), host, now)
        except requests.RequestException as error:
            return _broken(error, host)

    def _host(self, endpoint: str) -> str | None:
        """Return the host of a push service that we write to, or None for any other address."""
        try:
            parts = urlsplit(endpoint)
            host = parts.hostname or ""
            _ = parts.port
        except ValueError:
            return None
        if parts.scheme != "https" and not (parts.scheme == "http" and host in LOOPBACK):
            return None
        known = any(host == one or (one.startswith(".") and host.endswith(one)) for one in self._services)
        return host if known else None

    def _signature(self, endpoint: str) -> str:
        parts = urlsplit(endpoint)
        audience = f"{parts.scheme}://{parts.netloc}"
        with self._lock:
            until, header = self._signed.get(audience, (0.0, ""))
            if time.monotonic() >= until:
                claims = {"aud": audience, "exp": int(time.time()) + _VALID_FOR, "sub": self._contact}
                header = self._key.sign(claims)["Authorization"]
                self._signed[audience] = (time.monotonic() + SIGNED_FOR, header)
        return header


def together(results: Sequence[tuple[int, Result]]) -> Result:
    """Make one result of what became of each browser.

    One that was reached is enough. Of the others the one that may have been reached counts most: then nothing is
    sent again. It is tried again only where none was, or may have been, reached.
    """
    gone = tuple(id for id, result in results if result.bounced)
    used = tuple(id for id, result in results if result.fate is Fate.SENT)
    for fate in (Fate.SENT, Fate.UNKNOWN, Fate.LATER, Fate.FAILED):
        of_fate = [result for _, result in results if result.fate is fate]
        if not of_fate:
            continue
        waits = [result.after for result in of_fate if result.after is not None]
        return Result(
            fate,
            reason=None if fate is Fate.SENT else "; ".join(dict.fromkeys(r.reason or "" for r in of_fate)),
            provider_id=of_fate[0].provider_id,
            after=min(waits) if fate is Fate.LATER and waits else None,
            stops=any(result.stops for _, result in results),
            alerts=any(result.alerts for _, result in results),
            gone=gone,
            used=used,
        )
    return Result(Fate.FAILED, "no browser of theirs takes notifications")


def _broken(error: requests.RequestException, host: str) -> Result:
    """Tell apart what broke before the request was sent from what broke after it."""
    cause = error.args[0] if error.args else None
    if isinstance(error, requests.ConnectTimeout | requests.exceptions.SSLError) or isinstance(
        cause, MaxRetryError
    ):
        # No address, refused, no route, a bad certificate: there was no connection to send anything on.
        reason = getattr(cause, "reason", None) or error
        return Result(Fate.LATER, f"{host} cannot be reached ({type(reason).__name__})")
    if isinstance(error, requests.Timeout | requests.ConnectionError) or isinstance(cause, HTTPError):
        return Result(
            Fate.UNKNOWN, f"{host} did not answer after the request was sent ({type(error).__name__})"
        )
    return Result(
        Fate.FAILED, masked(f"the subscription cannot be used ({type(error).__name__})"), alerts=True
    )


def key_of(given: str) -> Vapid02:
    """Return the key of KITAAB_VAPID_PRIVATE_KEY; raise `SettingsError`, which does not quote it."""
    try:
        return Vapid02.from_string(given.strip())
    except Exception:
        raise SettingsError(
            "KITAAB_VAPID_PRIVATE_KEY is no key of the curve P-256",
            remedy="it has 32 bytes, or DER, in URL-safe base64; docs/channels.md has a line that makes one",
        ) from None


def public_key(key: Vapid02) -> str:
    """Return what the app passes to PushManager.subscribe as its applicationServerKey."""
    point = key.public_key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    return urlsafe_b64encode(point).decode().rstrip("=")


def open_channel(settings: Settings) -> WebPushChannel:
    """Return the channel; raise `SettingsError` with the first setting that it lacks."""
    needed = {
        "KITAAB_VAPID_PRIVATE_KEY": settings.vapid_private_key,
        "KITAAB_MAIL_FROM": settings.mail_from,
        "KITAAB_PUBLIC_URL": settings.public_url,
    }
    for name, value in needed.items():
        if value is None:
            raise SettingsError(
                f"nothing can be pushed: {name} is not set", remedy="docs/channels.md has an example"
            )
    assert settings.vapid_private_key is not None
    assert settings.mail_from is not None
    assert settings.public_url is not None
    return WebPushChannel(
        key_of(settings.vapid_private_key.get_secret_value()),
        f"mailto:{parseaddr(settings.mail_from)[1]}",
        settings.public_url,
        settings.push_services.lower().split(),
        settings.pushes_per_second,
    )


def note(connection: Connection, results: Sequence[tuple[Letter, Result]], now: dt.datetime) -> None:
    """Remove the subscriptions that are gone, and note which were used."""
    gone = [id for _, result in results for id in result.gone]
    used = [id for _, result in results for id in result.used]
    if gone:
        connection.execute(_REMOVE, {"ids": gone})
    if used:
        connection.execute(_USED, {"ids": used, "now": now})


KIND = Kind(open_channel, _ADDRESSES, note)

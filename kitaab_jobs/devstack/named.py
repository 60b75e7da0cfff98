"""Servers that the environment names: can they be reached, and are they recent enough?"""

from __future__ import annotations

from urllib.parse import unquote, urlsplit

import psycopg
from redis import Redis
from redis.exceptions import RedisError

from kitaab_jobs.devstack.redis import ONCE
from kitaab_jobs.errors import ServerError
from kitaab_jobs.settings import redacted

OLDEST_POSTGRES = 15
OLDEST_REDIS = (6, 2)


def check_postgres(name: str, url: str, *, timeout: int) -> None:
    """Connect once; raise `ServerError` with the setting's name where that fails or it is too old.

    `timeout` is in seconds.
    """
    where = f"{name} ({redacted(url)})"
    try:
        with psycopg.connect(url.replace("+psycopg", "", 1), connect_timeout=timeout) as connection:
            major = connection.info.server_version // 10_000
    except psycopg.Error as error:
        raise ServerError(
            f"{where} cannot be used: {_reason(error, url)}",
            remedy="correct the address or start that server, or unset it to use an embedded one",
        ) from None
    if major < OLDEST_POSTGRES:
        raise ServerError(f"{where} is PostgreSQL {major}", remedy=f"use version {OLDEST_POSTGRES} or later")


def check_redis(name: str, url: str, *, timeout: int) -> None:
    """Ping once; raise `ServerError` with the setting's name where that fails or it is too old."""
    where = f"{name} ({redacted(url)})"
    address = url.replace("redis+socket://", "unix://", 1)
    try:
        timeouts = {"socket_connect_timeout": timeout, "socket_timeout": timeout}
        with Redis.from_url(address, retry=ONCE, **timeouts) as client:
            client.ping()
            version = str(client.info("server").get("redis_version", ""))
    except (RedisError, ValueError, OSError) as error:
        raise ServerError(
            f"{where} cannot be used: {_reason(error, url)}",
            remedy="correct the address or start that server, or unset it to use an embedded one",
        ) from None
    parts = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if parts and parts < OLDEST_REDIS:
        raise ServerError(f"{where} is Redis {version}", remedy="use version 6.2 or later, or Valkey")


def _reason(error: Exception, url: str) -> str:
    """Return the first line of an error, without the password if a driver repeats it."""
    text = " ".join((str(error).strip() or type(error).__name__).splitlines()[0].split())
    password = urlsplit(url).password
    return text.replace(unquote(password), "***").replace(password, "***") if password else text

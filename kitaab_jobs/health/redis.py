"""What can be seen of a Redis or Valkey server."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from redis import ConnectionPool, Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError
from redis.retry import Retry

from kitaab_jobs.health.facts import RedisDoor, RedisServer

CONFIG = ("protected-mode", "bind", "port", "tls-port")

_CREDENTIALS = frozenset({"username", "password", "credential_provider"})


@contextmanager
def connected(url: str, seconds: float) -> Iterator[Redis]:
    """Yield a client that has been answered; nothing it asks takes longer than `seconds`, or is asked twice."""
    client = Redis.from_url(
        url.replace("redis+socket://", "unix://", 1),
        decode_responses=True,
        socket_connect_timeout=seconds,
        socket_timeout=seconds,
        retry=Retry(NoBackoff(), 0),
        client_name="kitaab-jobs-doctor",
    )
    try:
        client.ping()
        yield client
    finally:
        client.close()


def server(client: Redis) -> RedisServer:
    """Return what INFO tells."""
    info: dict[str, Any] = client.info()
    valkey = info.get("valkey_version")
    return RedisServer(
        name="Valkey" if valkey else "Redis",
        version=str(valkey or info.get("redis_version", "unknown")),
        compatible=str(info.get("redis_version", "0")),
        role=str(info.get("role", "master")),
        cluster=bool(info.get("cluster_enabled", 0)),
        policy=str(info.get("maxmemory_policy", "")),
        append_only=bool(info.get("aof_enabled", 0)),
        last_write_ok=all(
            info.get(name, "ok") == "ok" for name in ("aof_last_write_status", "rdb_last_bgsave_status")
        ),
        memory_used=int(info.get("used_memory", 0)),
        memory_limit=int(info.get("maxmemory", 0)),
    )


def door(client: Redis, *, local: bool) -> RedisDoor:
    """Return who gets in, which is tried, and where it listens; `local` is whether we are on its machine."""
    config, refused = _config(client)
    return RedisDoor(_open_to_all(client), local, config, refused)


def clock(client: Redis) -> dt.datetime:
    """Return what time it is for the server."""
    seconds, microseconds = client.time()
    return dt.datetime.fromtimestamp(seconds, dt.UTC) + dt.timedelta(microseconds=microseconds)


def _config(client: Redis) -> tuple[dict[str, str] | None, str]:
    """Return the settings in CONFIG, or None and why: hosted servers hide it, and an ACL may forbid it."""
    values: dict[str, str] = {}
    try:
        for name in CONFIG:
            values |= {str(key): str(value) for key, value in client.config_get(name).items()}
    except ResponseError as error:
        return None, " ".join(str(error).split())
    return values, ""


def _open_to_all(client: Redis) -> bool:
    """Try to get in without a password."""
    pool = client.connection_pool
    stranger = ConnectionPool(
        connection_class=pool.connection_class,
        **{name: value for name, value in pool.connection_kwargs.items() if name not in _CREDENTIALS},
    )
    try:
        return bool(Redis(connection_pool=stranger).ping())
    except RedisError:
        return False
    finally:
        stranger.disconnect()

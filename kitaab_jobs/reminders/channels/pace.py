"""How fast a channel may go, over all workers together.

A provider's limit is kept in Redis, not in PostgreSQL: a row that every message updates would grow by a dead
version each time, and no vacuum may remove one while a backup or a report holds a snapshot open. Redis keeps one
number for each channel (the instant up to which places are taken; GCRA), and its own clock decides, so those of the
workers do not matter.

Where Redis is away, nothing is sent: what nobody counts might be twice as fast as the provider allows. What was
to be sent waits in PostgreSQL, and no new job comes from Redis either.
"""

from __future__ import annotations

from typing import Protocol

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from kitaab_jobs.errors import ServerError

# Takes places if the first of them is free soon enough. Returns whether, and the microseconds until then. Numbers
# have 16 digits, of which Lua's own way to write them keeps 14.
_TAKE = """
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local free = tonumber(redis.call('GET', KEYS[1]) or '0')
if free < now then free = now end
local wait = free - now
if wait > tonumber(ARGV[3]) then return {0, string.format('%.0f', wait)} end
local until_then = free + ARGV[1] * ARGV[2]
redis.call('SET', KEYS[1], string.format('%.0f', until_then), 'PX', string.format('%.0f', (until_then - now) / 1000 + 60000))
return {1, string.format('%.0f', wait)}
"""
_SECOND = 1_000_000
SOCKET_SECONDS = 2.0


class PaceLost(ServerError):
    """Redis does not say how fast a channel may go"""


class Pace(Protocol):
    """Who says when the next messages may go."""

    def take(self, channel: str, number: int, per_second: float, at_most: float) -> tuple[bool, float]:
        """Take places for `number` messages. Return whether they were taken, and the seconds until the first.

        None is taken where that is more than `at_most` seconds. The others follow 1 / `per_second` apart.
        """

    def close(self) -> None:
        """Let go of connections."""


class SharedPace:
    """The pace that all workers share, in Redis."""

    def __init__(self, url: str, *, prefix: str = "kitaab:pace:") -> None:
        self._prefix = prefix
        self._redis = Redis.from_url(
            url.replace("redis+socket://", "unix://", 1),
            socket_timeout=SOCKET_SECONDS,
            socket_connect_timeout=SOCKET_SECONDS,
            retry=Retry(NoBackoff(), 1),  # a connection that Redis has closed meanwhile
            client_name="kitaab-jobs-pace",
        )
        self._take = self._redis.register_script(_TAKE)

    def take(self, channel: str, number: int, per_second: float, at_most: float) -> tuple[bool, float]:
        """Take places; raises `PaceLost` where Redis is away."""
        arguments = [_SECOND / per_second, number, at_most * _SECOND]
        try:
            taken, wait = self._take(keys=[self._prefix + channel], args=arguments)
        except RedisError as error:
            raise PaceLost(
                f"Redis does not say how fast {channel!r} may go ({type(error).__name__})"
            ) from None
        return bool(taken), float(wait) / _SECOND

    def close(self) -> None:
        """Close the connections."""
        self._redis.close()

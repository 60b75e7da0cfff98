"""Kombu's Redis transport, mended in one place: a worker must outlive its Redis, and not make a client for each command.

When Redis goes away while a job runs, kombu 5.7 closes the connection twice. The second time the channel
wants to give the job's message back, finds that it has no connection any more, and raises AttributeError.
Nothing above expects that: the worker ends with "Unrecoverable error". A connection error is what is
expected there. The message is not lost: the job's row is in the ledger.
"""

from __future__ import annotations

from typing import Any

from kombu.transport import TRANSPORT_ALIASES, redis
from redis.exceptions import ConnectionError


class Channel(redis.Channel):
    """A channel that says so when it is closed."""

    _plain: tuple[Any, Any] | None = None

    def _create_client(self, asynchronous: bool = False) -> Any:
        """Return the client of the pool; kombu makes one anew for each command, which costs more than the command."""
        if asynchronous:
            return super()._create_client(asynchronous=True)  # type: ignore[misc]  # the stubs lack it
        pool = self.pool
        if self._plain is None or self._plain[0] is not pool:
            self._plain = (pool, super()._create_client())  # type: ignore[misc]
        return self._plain[1]

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:
        if self.connection is None or self.connection.client is None:
            raise ConnectionError("the connection to Redis was closed")
        return dict(super()._connparams(asynchronous))  # type: ignore[misc]  # the stubs lack it


class Transport(redis.Transport):
    """The transport with that channel."""

    Channel = Channel


def install() -> None:
    """Make redis:// and rediss:// mean this transport, in this process."""
    name = f"{Transport.__module__}:{Transport.__name__}"
    TRANSPORT_ALIASES.update({"redis": name, "rediss": name})


def kombu_url(url: str) -> str:
    """Return a Redis URL as kombu wants it: it has names of its own for what redis-py calls unix:// and db."""
    if not url.startswith("unix://"):
        return url
    return url.replace("unix://", "redis+socket://", 1).replace("?db=", "?virtual_host=", 1)

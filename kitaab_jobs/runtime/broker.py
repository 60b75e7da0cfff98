"""Kombu's Redis transport, mended: a worker outlives its Redis, asks it less, and knows whether anybody listens.

Kombu notes each message that it hands out in Redis, and strikes it out when it is acknowledged, so that it can be handed
out again (after about 100 seconds) where its worker has died. These two trips are nearly half of what a worker's main
process does. A message of the ledger needs neither: its row says who runs it, and the rescue is sooner. So such a
message is kept in memory only, from where it is given back when the worker stops or loses the process that ran it.
Messages of other Celery clients, and those with a canvas, which only the message can continue, are noted as ever.

When Redis goes away while a job runs, kombu 5.7 closes the connection twice. The second time the channel
wants to give the job's message back, finds that it has no connection any more, and raises AttributeError.
Nothing above expects that: the worker ends with "Unrecoverable error". A connection error is what is
expected there. The message is not lost: the job's row is in the ledger.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from kombu.transport import TRANSPORT_ALIASES, redis, virtual
from kombu.utils.json import dumps
from redis.exceptions import ConnectionError

from kitaab_jobs.runtime.messages import FROM_LEDGER


def is_kept_by_ledger(message: Any) -> bool:
    """Tell whether the ledger's row is enough to find this message's job again."""
    headers = message.headers or {}
    # Where Celery must keep the result there is a canvas to go on with.
    return bool(headers.get(FROM_LEDGER)) and bool(headers.get("ignore_result"))


class QoS(redis.QoS):
    """What a channel has handed out and is not acknowledged: noted in Redis only where the ledger does not keep it."""

    def append(self, message: Any, delivery_tag: str) -> None:
        """Note a message that is handed out."""
        if is_kept_by_ledger(message):
            virtual.QoS.append(self, message, delivery_tag)
        else:
            super().append(message, delivery_tag)

    def ack(self, delivery_tag: str) -> None:
        """Forget a message that is done with."""
        if self._kept(delivery_tag) is not None:
            virtual.QoS.ack(self, delivery_tag)
        else:
            super().ack(delivery_tag)

    def restore_by_tag(self, tag: str, client: Any = None, leftmost: bool = False) -> None:
        """Put a message back into its queue; one that was acknowledged stays away."""
        message = self._kept(tag)
        if message is None:
            super().restore_by_tag(tag, client=client, leftmost=leftmost)
        elif tag not in (self._dirty or ()):
            where = message.delivery_info
            channel: Any = self.channel
            with channel.conn_or_acquire(client) as connected:
                pipe = connected.pipeline()
                channel._do_restore_message(
                    message._raw, where["exchange"], where["routing_key"], pipe, leftmost
                )
                pipe.execute()

    def _kept(self, tag: str) -> Any:
        delivered: Mapping[str, Any] = self._delivered or {}
        message = delivered.get(tag)
        return message if message is not None and is_kept_by_ledger(message) else None


class Channel(redis.Channel):
    """A channel that says so when it is closed."""

    QoS = QoS

    _plain: tuple[Any, Any] | None = None

    def __init__(self, *args: Any, **options: Any) -> None:
        self._unheard: dict[str, float] = {}
        super().__init__(*args, **options)

    def unheard(self, routing_key: str) -> float | None:
        """Return how many seconds ago something was published that nobody heard; None where the last was heard."""
        at = self._unheard.get(routing_key)
        return None if at is None else time.monotonic() - at

    def _put_fanout(self, exchange: str, message: Any, routing_key: str, **options: Any) -> None:
        """Publish to all who listen, and note where nobody does: Redis says how many they were."""
        if options.get("_publish_batch") is not None:
            super()._put_fanout(exchange, message, routing_key, **options)  # type: ignore[misc]
            return
        packed = dumps(message)
        with self.conn_or_acquire() as client:
            topics = self._get_publish_topics(exchange, routing_key)  # type: ignore[attr-defined]
            heard = sum(client.publish(topic, packed) for topic in topics)
        if heard:
            self._unheard.pop(routing_key, None)
        else:
            self._unheard[routing_key] = time.monotonic()

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

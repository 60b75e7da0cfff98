"""Celery's events, for Flower, sent a few times a second and not at each turn of the worker's loop.

A worker tells of each message four times (received, started, succeeded or failed). Celery gathers these while it is at
one turn of its loop and then publishes them: at full load that is nearly half of what the main process does. Here they
are gathered for a quarter of a second. Each event carries its own time, so Flower shows the same.

And where nobody listens, which Redis tells at each publish, nothing is gathered but one event a second, to see whether
somebody does by now. Nobody would have got the others: Redis keeps none for later.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from celery.app.events import Events as CeleryEvents
from celery.events.dispatcher import EventDispatcher
from kombu.asynchronous import get_event_loop

from kitaab_jobs.runtime.broker import Channel

GATHER_SECONDS = 0.25
# Where nobody listens, so often an event is sent to see whether somebody does by now.
ASK_SECONDS = 1.0
# Under this key gathered events of tasks are published.
_TASKS = "task.multi"


class GatheringDispatcher(EventDispatcher):
    """A dispatcher that flushes what it has buffered after a while."""

    def __init__(
        self, *args: Any, on_send_buffered: Callable[[], None] | None = None, **options: Any
    ) -> None:
        self._flush_soon = on_send_buffered
        self._waits = False
        super().__init__(*args, **options)
        self.on_send_buffered = None if on_send_buffered is None else self._buffered

    def is_unheard(self) -> bool:
        """Tell whether nobody listens to the events of tasks, as of a moment ago."""
        ago = self._unheard()
        return ago is not None and ago < ASK_SECONDS

    def send(self, type: str, *args: Any, **fields: Any) -> Any:
        """Send an event, or gather it."""
        if type.startswith("task-") and self.is_unheard():
            return None
        return super().send(type, *args, **fields)

    def _unheard(self) -> float | None:
        producer = getattr(self, "producer", None)  # the stubs lack it
        channel = producer.channel if producer is not None else None
        return channel.unheard(_TASKS) if isinstance(channel, Channel) else None

    def _buffered(self) -> None:
        """Called after each event that went into the buffer."""
        if self._waits or self._flush_soon is None:
            return
        loop = get_event_loop()
        if loop is None or self._unheard() is not None:
            self._flush_soon()
            return
        self._waits = True
        loop.call_later(GATHER_SECONDS, self._flush_now)

    def _flush_now(self) -> None:
        self._waits = False
        if self._flush_soon is not None:
            self._flush_soon()


class Events(CeleryEvents):
    """Celery's events with that dispatcher."""

    dispatcher_cls = f"{__name__}:{GatheringDispatcher.__name__}"

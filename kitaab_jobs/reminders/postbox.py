"""One channel for one run of a job: how letters go out together, and what is known of each when that is cut short.

Letters are sent from threads of their own. So a signal (the worker is told to stop, the time limit is over) never
cuts through a dialogue with a provider: it reaches the thread that waits, which begins no more, and lets those that
are on their way come to an end.
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager

from kitaab_jobs.reminders.channels.protocol import Channel, Fate, Letter, Result

# How long a worker that is told to stop waits for the answers to what it has begun to send, in seconds.
PATIENCE = 5.0

Clock = Callable[[], dt.datetime]


class Postbox:
    """Sends letters over a channel. `done` has the results, and `not_begun` the rest, also where it was cut short."""

    def __init__(self, channel: Channel, clock: Clock) -> None:
        self.channel = channel
        self.done: list[tuple[Letter, Result]] = []
        self.not_begun: list[Letter] = []
        self._clock = clock
        self._pool = ThreadPoolExecutor(max_workers=channel.at_once, thread_name_prefix="postbox")

    def load(self, letters: Sequence[Letter]) -> None:
        """Take in letters for the next `send`."""
        self.done, self.not_begun = [], list(letters)

    def send(self, first_at: float) -> None:
        """Send them, the first at `first_at` (of `time.monotonic`), the others as far apart as the channel's pace."""
        begun: list[tuple[Letter, Future[Result]]] = []
        apart = 1 / self.channel.per_second if self.channel.per_second else 0.0
        patience: float | None = PATIENCE
        try:
            for number, letter in enumerate(list(self.not_begun)):
                time.sleep(max(0.0, first_at + number * apart - time.monotonic()))
                begun.append((letter, self._pool.submit(self.channel.send, letter, self._clock())))
                self.not_begun.pop(0)
            wait([future for _, future in begun])
            patience = None
        finally:
            self.done = [(letter, _result(future, patience)) for letter, future in begun]

    def close(self) -> None:
        """Let go of threads and connections."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self.channel.close()


def _result(future: Future[Result], patience: float | None) -> Result:
    try:
        return future.result(timeout=patience)
    except TimeoutError:
        return Result(Fate.UNKNOWN, "the worker was stopped while it was being sent")
    except Exception as error:  # a defect of the channel; its text may hold an address
        return Result(Fate.UNKNOWN, f"the channel failed ({type(error).__name__})", alerts=True)


@contextmanager
def opened(channel: Channel, clock: Clock) -> Iterator[Postbox]:
    """Yield a postbox, and close it."""
    postbox = Postbox(channel, clock)
    try:
        yield postbox
    finally:
        postbox.close()

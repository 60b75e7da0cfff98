"""One channel for one run of a job: how letters go out together, and what is known of each when that is cut short.

Letters are sent from threads of their own. So a signal (the worker is told to stop, the time limit is over) never
cuts through a dialogue with a provider: it reaches the thread that waits, which begins no more, and lets those that
are on their way come to an end.
"""

from __future__ import annotations

import datetime as dt
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from kitaab_jobs.reminders.channels.protocol import Channel, Fate, Letter, Result

# How long a worker that is told to stop waits for the answers to what it has begun to send, in seconds.
PATIENCE = 5.0

Clock = Callable[[], dt.datetime]


class _Letter:
    """A letter in the pool. Either a thread begins with it or it is held back; whoever comes first decides."""

    def __init__(self, letter: Letter) -> None:
        self.letter = letter
        self._begins: dict[str, bool] = {}
        self._result: Result | None = None
        self._ended = threading.Event()

    def send(self, channel: Channel, now: dt.datetime) -> None:
        """Send it, unless it was held back."""
        if self._decide(begins=True):
            try:
                self._result = channel.send(self.letter, now)
            except Exception as error:  # a defect of the channel; its text may hold an address
                self._result = Result(
                    Fate.UNKNOWN, f"the channel failed ({type(error).__name__})", alerts=True
                )
            finally:
                self._ended.set()

    def hold_back(self) -> bool:
        """Tell whether no thread has begun with it; then none will."""
        return not self._decide(begins=False)

    def _decide(self, *, begins: bool) -> bool:
        """Say whether it begins, unless that is decided, and return what is: in one step, which a signal cannot cut."""
        return self._begins.setdefault("it", begins)

    def result(self, patience: float | None) -> Result:
        """Wait for what becomes of it."""
        self._ended.wait(patience)
        return self._result or Result(Fate.UNKNOWN, "the worker was stopped while it was being sent")


class Postbox:
    """Sends letters over a channel, and knows what became of each, also where that was cut short."""

    def __init__(self, channel: Channel, clock: Clock) -> None:
        self.channel = channel
        self._letters: list[_Letter] = []
        self._clock = clock
        self._pool = ThreadPoolExecutor(max_workers=channel.at_once, thread_name_prefix="postbox")

    def load(self, letters: Sequence[Letter]) -> None:
        """Take in letters for the next `send`."""
        self._letters = [_Letter(letter) for letter in letters]

    def send(self, first_at: float) -> None:
        """Send them, the first at `first_at` (of `time.monotonic`), the others as far apart as the channel's pace."""
        apart = 1 / self.channel.per_second if self.channel.per_second else 0.0
        for number, letter in enumerate(self._letters):
            time.sleep(max(0.0, first_at + number * apart - time.monotonic()))
            self._pool.submit(letter.send, self.channel, self._clock())
        for letter in self._letters:
            letter.result(None)

    def results(self) -> tuple[list[tuple[Letter, Result]], list[Letter]]:
        """Return what became of the letters that have begun, and the others: none of these will begin any more.

        The letters themselves are asked: what cuts `send` short, or this, may come between any two instructions.
        """
        held_back = [letter for letter in self._letters if letter.hold_back()]
        until = time.monotonic() + PATIENCE
        done = [
            (letter.letter, letter.result(max(0.0, until - time.monotonic())))
            for letter in self._letters
            if letter not in held_back
        ]
        return done, [letter.letter for letter in held_back]

    def close(self) -> None:
        """Let go of threads and connections."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self.channel.close()


@contextmanager
def opened(channel: Channel, clock: Clock) -> Iterator[Postbox]:
    """Yield a postbox, and close it."""
    postbox = Postbox(channel, clock)
    try:
        yield postbox
    finally:
        postbox.close()

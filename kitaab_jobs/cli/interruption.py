"""Ctrl-C, also where it comes in the middle of a statement: the driver's clearing up may end in an error of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from kitaab_jobs.errors import causes


def is_interruption(error: BaseException) -> bool:
    """Tell whether Ctrl-C is behind an error."""
    return any(isinstance(behind, KeyboardInterrupt) for behind in causes(error, suppressed=True))


@contextmanager
def until_interrupted() -> Iterator[None]:
    """Leave the block at Ctrl-C, and go on behind it."""
    try:
        yield
    except (KeyboardInterrupt, Exception) as error:
        if not is_interruption(error):
            raise

"""Ctrl-C, also where it comes in the middle of a statement: the driver's clearing up may end in an error of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


def is_interruption(error: BaseException | None) -> bool:
    """Tell whether Ctrl-C is behind an error."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, KeyboardInterrupt):
            return True
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return False


@contextmanager
def until_interrupted() -> Iterator[None]:
    """Leave the block at Ctrl-C, and go on behind it."""
    try:
        yield
    except (KeyboardInterrupt, Exception) as error:
        if not is_interruption(error):
            raise

"""How values and names stand in a message: short, on one line, and with what is near them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from itertools import islice

SHOWN = 60
LISTED = 6
_NEAR_POOL = 2000


def shown(value: str) -> str:
    """Return `value` in quotes, with control characters escaped, cut after 60 characters."""
    cut = value if len(value) <= SHOWN else value[:SHOWN] + "..."
    return repr(cut)


def listed(values: Iterable[str]) -> str:
    """Return the first values, each `shown`, and how many more there are."""
    every = list(values)
    rest = len(every) - LISTED
    return ", ".join(map(shown, every[:LISTED])) + (f" and {rest} more" if rest > 0 else "")


class Nearest:
    """Finds the names that somebody may have meant, a limited number of times.

    A comparison with every name is slow, and a file may have a million wrong ones: after `budget`
    searches nothing is near anything.
    """

    def __init__(self, budget: int = 500) -> None:
        self._budget = budget

    def to(self, wanted: str, known: Sequence[str]) -> str:
        """Return "did you mean ...?", or an empty text where nothing is near."""
        if self._budget <= 0:
            return ""
        self._budget -= 1
        spelled = {name.casefold(): name for name in islice(known, _NEAR_POOL)}
        near = get_close_matches(wanted.casefold()[:255], spelled, n=2, cutoff=0.7)
        return f"did you mean {' or '.join(shown(spelled[name]) for name in near)}?" if near else ""

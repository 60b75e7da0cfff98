"""The SQL of progress: one pass over the goals that it is given, however many.

- `marks`: what is to be computed again, and which goals that concerns.
- `state`: what a goal shows, from its entries. The one place that says it.
- `goals`: storing that, and comparing it with what is stored.
- `suspects`: one scan over all entries that finds which of all goals are worth comparing.
- `history`, `notices`: what follows from a change: a day of a chart, and who is told of a completion.
- `plan`: what computing goals again would change.
- `reading`: one person or one goal, with the names of things.
"""

from __future__ import annotations

from kitaab_jobs.progress.queries.goals import (
    Changed,
    Difference,
    compute,
    differences,
    goal_count,
    lock,
    overdue,
)
from kitaab_jobs.progress.queries.marks import Concerned, Taken, mark, take
from kitaab_jobs.progress.queries.state import KINDS
from kitaab_jobs.progress.queries.suspects import suspects

__all__ = [
    "KINDS",
    "Changed",
    "Concerned",
    "Difference",
    "Taken",
    "compute",
    "differences",
    "goal_count",
    "lock",
    "mark",
    "overdue",
    "suspects",
    "take",
]

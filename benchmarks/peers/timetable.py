"""The timetable that every scheduler gets: each schedule fires every ten minutes, a tenth of them at each full minute.

Needs nothing but the standard library, as work.py. Beside these, a few fire every two seconds, so that every process
has its connections when the minute comes; their numbers are negative, and they are not counted.
"""

from __future__ import annotations

import os

PERIOD_MINUTES = 10
SCHEDULES = int(os.environ.get("BENCH_SCHEDULES", "10000"))
WARM = range(-10, 0)
WARM_SECONDS = 2

# The one small statement of a fire's job: which schedule it is of, and when it was started.
STARTED = "INSERT INTO bench.fires (n, started) VALUES ({0}, {1})"


def minutes(n: int) -> str:
    """Return the minute field of a schedule's cron line."""
    return f"{n % PERIOD_MINUTES}-59/{PERIOD_MINUTES}"


def name(n: int) -> str:
    """Return a schedule's name."""
    return f"bench.{n:06}" if n >= 0 else f"bench.warm{-n}"

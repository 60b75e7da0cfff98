"""From where on something is a warning, and from where on a failure."""

from __future__ import annotations

from typing import NamedTuple

from kitaab_jobs.health.rules.finding import FAIL, OK, WARN, Level


class Limit(NamedTuple):
    """Two bounds of a value. Where `warn` is the larger one, small values are the bad ones."""

    warn: float
    fail: float

    def level(self, value: float) -> Level:
        """Return the level of `value`."""
        sign = 1 if self.fail >= self.warn else -1
        return FAIL if sign * value > sign * self.fail else WARN if sign * value > sign * self.warn else OK


CLOCK_DIFFERENCE_SECONDS = Limit(warn=2, fail=30)
PARTITIONS_READY_DAYS = Limit(warn=60, fail=7)
DISK_FREE_BYTES = Limit(warn=2 << 30, fail=256 << 20)
REDIS_MEMORY_SHARE = Limit(warn=0.80, fail=0.95)
CONNECTIONS_USED_SHARE = Limit(warn=0.80, fail=0.95)
REPLICA_BEHIND_SECONDS = Limit(warn=60, fail=900)

# A process touches its row every few seconds; after this long it counts as gone.
PROCESS_SILENT_SECONDS = 30

# beat looks every second; a fire that has waited so long is not being looked at.
FIRE_OVERDUE_SECONDS = 60

# A release of the zone data from before last year misses what governments have decided since.
ZONE_DATA_AGE_YEARS = 1

# Processes that hold pools of connections in the smallest installation: a worker and a beat.
FEWEST_PROCESSES = 2

OLDEST_REDIS = (6, 2)
RECOMMENDED_REDIS = (7, 2)

"""How patient the platform is in these tests, and how much they do: bounded, or long with KITAAB_TEST_SOAK=1."""

from __future__ import annotations

import os

from kitaab_jobs.runtime import outbox
from kitaab_jobs.runtime.outbox import Patience

SOAK = os.environ.get("KITAAB_TEST_SOAK") == "1"

HEARTBEAT = 0.4
PATIENCE = Patience(running=2, published=2)
RESCUE = 0.5
# Where attempts are counted, what a busy machine holds up must not be taken for lost: so long where something is lost
# too, and for ever where nothing is.
UNHURRIED = "5"
ENDLESS = "3600"
SHIPPED = str(outbox.PATIENCE.running)
VISIBILITY = 1.5
# By when a job that was held runs again, whatever else the machine does meanwhile.
AGAIN_WITHIN = 30.0
# So long a platform without rescue is watched: the whole one is done by then.
NO_RESCUE_IN = PATIENCE.running + RESCUE + 2.0

SEED = int(os.environ.get("KITAAB_TEST_SEED", "1"))
KILLS = 100 if SOAK else 4
REDIS_STOPPED = 60.0 if SOAK else 3.0
TERMINATING = 60.0 if SOAK else 3.0
RESTARTS = 10 if SOAK else 2
LONG_SECONDS = 60.0 if SOAK else 4.0
RELAY_DEATHS = 20 if SOAK else 3
CROWDED = 60.0 if SOAK else 4.0
# Jobs that are drained to measure a rate, in the long form only.
TO_DRAIN = 1500
# Until every job has ended; where one has not by then, the answers say which.
ENDS_WITHIN = 120.0 if SOAK else 45.0

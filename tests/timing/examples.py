"""How many random examples a property gets: few in an ordinary run, KITAAB_TEST_EXAMPLES for more."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

EXAMPLES = int(os.environ.get("KITAAB_TEST_EXAMPLES", "150"))
LONG = EXAMPLES > 1000

bounded = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])

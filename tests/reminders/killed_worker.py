"""A worker process, to be killed or listened to: python -m tests.reminders.killed_worker, with what it needs as JSON."""

from __future__ import annotations

import json
import sys
from uuid import UUID

from kitaab_jobs.runtime import logs
from kitaab_jobs.runtime.execute import execute
from kitaab_jobs.settings import Settings
from tests.conftest import engine_for
from tests.reminders.delivering import runner

# None that a slow machine could use up before the last channel: what is tested is how each letter ends.
BUDGET = 60.0

if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    settings = Settings.load({}, **given["settings"])
    logs.configure(settings)
    work = runner(engine_for(given["database"]), settings, "killed/1", BUDGET)
    execute(work, UUID(given["job"]), {}, from_ledger=True)

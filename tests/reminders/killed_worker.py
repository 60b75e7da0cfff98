"""A worker process, to be killed or listened to: python -m tests.reminders.killed_worker, with what it needs as JSON."""

from __future__ import annotations

import datetime as dt
import json
import sys
from uuid import UUID

from sqlalchemy.orm import Session

from kitaab_jobs import contract
from kitaab_jobs.reminders import sending
from kitaab_jobs.runtime import logs
from kitaab_jobs.runtime.attempt import Runner
from kitaab_jobs.runtime.context import Context
from kitaab_jobs.runtime.execute import execute
from kitaab_jobs.runtime.heartbeat import Heartbeat
from kitaab_jobs.settings import Settings
from tests.conftest import engine_for

if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    engine = engine_for(given["database"])
    settings = Settings.load({}, **given["settings"])
    logs.configure(settings)

    def deliver(
        session: Session, now: dt.datetime, payload: contract.Deliver, job: Context
    ) -> sending.Delivered:
        # No budget that a slow machine could use up before the last channel: what is tested is how each letter ends.
        return sending.deliver(
            session,
            now=now,
            zone=payload.zone,
            delivery_ids=payload.delivery_ids,
            job=job,
            settings=settings,
            budget=60.0,
        )

    runner = Runner(contract.REMINDERS_DELIVER, deliver, engine, "killed/1", Heartbeat(engine), True)
    execute(runner, UUID(given["job"]), {}, from_ledger=True)

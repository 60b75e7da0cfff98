"""The job that sends, as a worker runs it: for a test's own process and for one that is killed."""

from __future__ import annotations

import datetime as dt

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from kitaab_jobs import contract
from kitaab_jobs.reminders import sending
from kitaab_jobs.runtime.attempt import Runner
from kitaab_jobs.runtime.context import Context
from kitaab_jobs.runtime.heartbeat import Heartbeat
from kitaab_jobs.settings import Settings


def runner(engine: Engine, settings: Settings, worker: str, budget: float) -> Runner:
    """Return what runs `reminders.deliver` with these settings, for so many seconds."""

    def deliver(
        session: Session, now: dt.datetime, payload: contract.Deliver, job: Context
    ) -> sending.Delivered:
        return sending.deliver(
            session,
            now=now,
            zone=payload.zone,
            delivery_ids=payload.delivery_ids,
            job=job,
            settings=settings,
            budget=budget,
        )

    return Runner(contract.REMINDERS_DELIVER, deliver, engine, worker, Heartbeat(engine), True)

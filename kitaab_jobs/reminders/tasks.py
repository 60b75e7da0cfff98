"""The doorways of reminders."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.orm import Session

from kitaab_jobs import contract
from kitaab_jobs.reminders import jobs
from kitaab_jobs.runtime.job import job


@job(contract.REMINDERS_DISPATCH)
def dispatch(session: Session, now: datetime, payload: contract.Dispatch) -> jobs.Dispatched:
    """Record the reminders that are due and hand them to delivery."""
    return jobs.dispatch(session, now=now, limit=payload.limit, lane=payload.lane)


@job(contract.REMINDERS_DELIVER)
def deliver(session: Session, now: datetime, payload: contract.Deliver) -> jobs.Delivered:
    """Send recorded reminders."""
    return jobs.deliver(session, now=now, delivery_ids=payload.delivery_ids)

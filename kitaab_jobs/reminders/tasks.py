"""The doorways of reminders."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.orm import Session

from kitaab_jobs import contract
from kitaab_jobs.reminders import jobs, notices, sending, zone_data
from kitaab_jobs.runtime.context import Context
from kitaab_jobs.runtime.job import job
from kitaab_jobs.settings import settings
from kitaab_jobs.timing import zone_data_versions


@job(contract.REMINDERS_DISPATCH)
def dispatch(session: Session, now: datetime, payload: contract.Dispatch) -> jobs.Dispatched:
    """Record the reminders that are due and hand them to delivery."""
    return jobs.dispatch(session, now=now, limit=payload.limit, lane=payload.lane)


@job(contract.REMINDERS_RERESOLVE)
def reresolve(
    session: Session,
    now: datetime,
    payload: contract.Payload,  # noqa: ARG001
) -> zone_data.Reresolved:
    """Move planned reminders to where a new release of the zone data puts them."""
    return zone_data.reresolve(session, now=now, version=zone_data_versions()["pytz"])


@job(contract.REMINDERS_DELIVER)
def deliver(
    session: Session, now: datetime, payload: contract.Deliver, context: Context
) -> sending.Delivered:
    """Send recorded reminders."""
    return sending.deliver(
        session,
        now=now,
        zone=payload.zone,
        delivery_ids=payload.delivery_ids,
        job=context,
        settings=settings(),
    )


@job(contract.REMINDERS_NOTIFY)
def notify(session: Session, now: datetime, payload: contract.Notify) -> notices.Notified:
    """Tell people what they have completed."""
    return notices.notify(session, now=now, notice_ids=payload.notice_ids)


@job(contract.REMINDERS_SWEEP)
def sweep(session: Session, now: datetime, payload: contract.Batch) -> sending.Swept:
    """End what nobody sends any more."""
    return sending.sweep(session, now=now, limit=payload.limit)

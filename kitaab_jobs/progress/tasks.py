"""The doorways of progress."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.orm import Session

from kitaab_jobs import contract
from kitaab_jobs.progress import jobs
from kitaab_jobs.runtime.job import job


@job(contract.PROGRESS_REFRESH)
def refresh(session: Session, now: datetime, payload: contract.Batch) -> jobs.Report:
    """Compute again what entries and edits have marked."""
    return jobs.refresh(session, now=now, limit=payload.limit)


@job(contract.PROGRESS_RECONCILE)
def reconcile(session: Session, now: datetime, payload: contract.Payload) -> jobs.Reconciled:  # noqa: ARG001
    """Compare everything with the entries, and mark what differs for the refresh to compute."""
    return jobs.reconcile(session, now=now)


@job(contract.PROGRESS_PURGE_HISTORY)
def purge_history(session: Session, now: datetime, payload: contract.Batch) -> jobs.Purged:
    """Remove history that no chart needs any more."""
    return jobs.purge_history(session, now=now, limit=payload.limit)

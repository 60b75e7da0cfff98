"""The doorways of the archive."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.orm import Session

from kitaab_jobs import contract
from kitaab_jobs.archive import jobs
from kitaab_jobs.runtime.job import job
from kitaab_jobs.settings import settings


@job(contract.ARCHIVE_MAKE_PARTITIONS)
def make_partitions(session: Session, now: datetime, payload: contract.Payload) -> jobs.Report:  # noqa: ARG001
    """Make the partitions that the days to come need."""
    config = settings()
    return jobs.make_partitions(
        session, now=now, ahead_days=config.partitions_ahead_days, by=config.partition_by
    )


@job(contract.ARCHIVE_PURGE_JOBS)
def purge_jobs(session: Session, now: datetime, payload: contract.Batch) -> jobs.Purged:
    """Remove rows of what ended long ago."""
    config = settings()
    keep = jobs.Keep(config.keep_jobs_days, config.keep_dead_jobs_days, config.keep_fires_days)
    return jobs.purge_jobs(session, now=now, keep=keep, limit=payload.limit)

"""The doorways of partitions."""

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

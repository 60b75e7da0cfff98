"""A thread in each worker process that says, every few seconds, that its job still runs.

It is in the process that runs the job, not in its parent: when that process is killed, the heartbeat
stops with it, and the job is rescued.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from kitaab_jobs.runtime import ledger
from kitaab_jobs.runtime.logs import logger

log = logger(__name__)


@contextmanager
def beating(engine: Engine, claim: ledger.Claim, every: float | None = None) -> Iterator[None]:
    """Keep `claim` alive while the block runs. A short job never needs a beat, and costs no statement."""
    over = threading.Event()
    pause = ledger.HEARTBEAT_SECONDS if every is None else every

    def beat() -> None:
        while not over.wait(pause):
            try:
                with engine.begin() as connection:
                    ours = ledger.beat(connection, claim)
                if ours:
                    continue
                # Or it has just finished, and this block is about to end.
                if not over.wait(1):
                    log.warning("job is no longer ours", action="job_lost", id=str(claim.id))
                return
            except SQLAlchemyError as error:
                log.warning("heartbeat failed", action="heartbeat_failed", id=str(claim.id), error=str(error))

    thread = threading.Thread(target=beat, name=f"heartbeat {claim.id}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()

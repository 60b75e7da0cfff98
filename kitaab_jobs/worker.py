"""The door of every Celery command: the app with its settings and with all jobs registered."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
import warnings
from importlib import import_module
from typing import Any

from celery import signals
from celery.exceptions import CPendingDeprecationWarning
from sqlalchemy.exc import SQLAlchemyError

from kitaab_jobs.contract import JOBS
from kitaab_jobs.db.engines import forget, primary
from kitaab_jobs.db.migrate import sync_kinds
from kitaab_jobs.errors import KitaabError
from kitaab_jobs.runtime import arrival, ledger, logs
from kitaab_jobs.runtime.app import app, configuration
from kitaab_jobs.runtime.job import LAST, job_id
from kitaab_jobs.runtime.liveness import BeatWatch, beat_silence
from kitaab_jobs.runtime.messages import MANY
from kitaab_jobs.settings import VERSION, settings

__all__ = ["app"]

log = logs.logger(__name__)

FEATURES = sorted({job.feature for job in JOBS.values()})
TOUCH_SECONDS = 10.0
# A process that ends gives the answer to its last COMMIT so long.
LAST_COMMIT_SECONDS = 5.0

try:
    app.conf.update(configuration(settings()))
except KitaabError as error:
    sys.stderr.write(f"error: {error}\n")
    sys.exit(error.exit_code)
# runtime/app.py says why it is as it is; Celery would say so again whenever Redis goes away.
warnings.filterwarnings("ignore", r"\s*In Celery 5\.1 we introduced", CPendingDeprecationWarning)
for feature in FEATURES:
    import_module(f"kitaab_jobs.{feature}.tasks")


@signals.setup_logging.connect
def _log_our_way(**_: Any) -> None:
    logs.configure(settings())


@signals.worker_process_init.connect
def _leave_the_parents_connections(**_: Any) -> None:
    forget()


@signals.worker_process_shutdown.connect
def _wait_for_the_last_commit(**_: Any) -> None:
    """A commit that is refused now would be on record only when the rescue finds its job, as one whose worker died."""
    LAST.wait(LAST_COMMIT_SECONDS)


@signals.worker_ready.connect
def _announce(**_: Any) -> None:
    threading.Thread(target=_stay_announced, name="announce", daemon=True).start()


@signals.task_unknown.connect
def _put_off(message: Any = None, name: str = "", id: str = "", **_: Any) -> None:
    """A job that this version does not know waits for one that does; its message is gone, its row says so."""
    queue = (message.delivery_info or {}).get("routing_key", app.conf.task_default_queue)
    try:
        _, kwargs, _ = message.decode()
    except Exception:  # whatever came: it is on record that something did
        kwargs = {}
    args = kwargs if isinstance(kwargs, dict) else {}
    reason = f"no worker of version {VERSION} knows the job {name!r}"
    for each in args.get(MANY, [id]):
        with primary("kitaab-jobs worker").begin() as connection:
            arrival.postpone(connection, job_id(each), name, {} if MANY in args else args, queue, reason)
    log.error("job waits for a version that knows it", action="job_unknown", job=name, id=id)


def _stay_announced() -> None:
    name = f"worker@{socket.gethostname()}/{os.getpid()}"
    engine = primary("kitaab-jobs worker")
    known = False
    watch = BeatWatch(time.monotonic())
    while True:
        try:
            with engine.begin() as connection:
                if not known:
                    sync_kinds(connection)
                ledger.touch(connection, name, "worker", VERSION)
                silent = beat_silence(connection)
            known = True
            watch.look(silent, time.monotonic())
        except SQLAlchemyError as error:
            log.warning("worker not announced", action="announce_failed", error=str(error).splitlines()[0])
        threading.Event().wait(TOUCH_SECONDS)

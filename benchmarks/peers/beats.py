"""Celery with the timetable of the benchmark and `celery beat`: its PersistentScheduler, or celery-redbeat.

When a fire was published is written to a file by the beat that published it, since Redis does not keep it.
"""

from __future__ import annotations

import os
import time
from typing import Any

import psycopg
from celery import Celery
from celery.schedules import crontab, schedule
from celery.signals import after_task_publish

from benchmarks.peers import timetable, work

VARIANT = os.environ.get("BENCH_VARIANT", "celery")

app = Celery("bench", broker=work.REDIS_URL)
app.conf.update(
    task_ignore_result=True,
    task_acks_late=True,
    worker_hijack_root_logger=False,
    broker_connection_retry_on_startup=True,
    timezone="UTC",
    beat_schedule_filename=os.environ.get("BENCH_STATE", "celerybeat-schedule"),
)
if VARIANT.startswith("redbeat"):
    app.conf.update(beat_scheduler="redbeat.RedBeatScheduler", redbeat_redis_url=work.REDIS_URL)
    if VARIANT == "redbeat":
        app.conf.beat_max_loop_interval = 5

app.conf.beat_schedule = {
    timetable.name(n): {"task": "bench.fire", "schedule": when, "kwargs": {"n": n}}
    for numbers, schedule_of in (
        (range(timetable.SCHEDULES), lambda n: crontab(minute=timetable.minutes(n))),
        (timetable.WARM, lambda _: schedule(timetable.WARM_SECONDS)),
    )
    for n in numbers
    for when in [schedule_of(n)]
}

_connections: list[psycopg.Connection] = []
_sent = os.environ.get("BENCH_SENT")


@app.task(name="bench.fire")
def fire(n: int) -> None:
    """Write that it was started."""
    at = time.time()
    if not _connections:
        _connections.append(psycopg.connect(work.DATABASE_URL, autocommit=True))
    _connections[0].execute(timetable.STARTED.format("%s", "%s").encode(), (n, at))


if _sent:
    # Unbuffered: what was published before a kill -9 has been written too.
    _file = open(_sent, "ab", buffering=0)  # noqa: SIM115  # open as long as the process

    @after_task_publish.connect
    def published(body: Any = None, **_: Any) -> None:
        """Write the schedule's number and the time."""
        _file.write(f"{body[1]['n']} {time.time()}\n".encode())

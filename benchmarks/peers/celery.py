"""Celery as it comes, prefork with two processes: `default`, or `acks_late`."""

from __future__ import annotations

import os
import sys
import time

import psycopg
from celery import Celery

from benchmarks.peers import work
from kitaab_jobs.runtime.broker import kombu_url

app = Celery("bench", broker=kombu_url(work.REDIS_URL))
app.conf.task_ignore_result = True
app.conf.worker_hijack_root_logger = False
app.conf.broker_connection_retry_on_startup = True
if os.environ.get("BENCH_VARIANT") == "acks_late":
    app.conf.task_acks_late = True

_connections: list[psycopg.Connection] = []


@app.task(name="bench.job")
def job(n: int, sent: float | None = None) -> None:
    """Do one small statement on this process's connection."""
    sql, values = work.statement(n, sent)
    if not _connections:
        _connections.append(psycopg.connect(work.DATABASE_URL, autocommit=True))
    _connections[0].execute(sql.encode(), values)


def _fill(jobs: int) -> None:
    with app.producer_or_acquire() as producer:
        for chunk in work.chunks(jobs):
            with producer.batch():
                for n in chunk:
                    job.apply_async(kwargs={"n": n}, producer=producer)


def _send(rate: float, seconds: float) -> None:
    began = time.monotonic()
    with app.producer_or_acquire() as producer:
        for at, count in work.ticks(rate, seconds):
            time.sleep(work.ahead(began, at))
            now = time.time()
            for n in range(count):
                job.apply_async(kwargs={"n": n, "sent": now}, producer=producer)


def main() -> None:
    verb, first, second = work.verb()
    began = time.monotonic()
    if verb == "work":
        app.worker_main(["worker", "--pool", "prefork", "--concurrency", "2", "--loglevel", "WARNING"])
        sys.exit()
    if verb == "fill":
        _fill(int(first))
    elif verb == "send":
        _send(first, second)
    work.tell(began)


if __name__ == "__main__":
    main()

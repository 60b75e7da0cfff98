"""dramatiq on Redis: two processes of eight threads, its default but for the number of processes."""

# mypy: disable-error-code="import-not-found,untyped-decorator,no-any-return"

from __future__ import annotations

import os
import sys
import threading
import time

import dramatiq
import psycopg
from dramatiq.brokers.redis import RedisBroker

from benchmarks.peers import work

dramatiq.set_broker(RedisBroker(url=work.REDIS_URL))
_local = threading.local()


@dramatiq.actor(actor_name="bench_job")
def job(n: int, sent: float | None = None) -> None:
    """Do one small statement on this thread's connection."""
    sql, values = work.statement(n, sent)
    if not hasattr(_local, "connection"):
        _local.connection = psycopg.connect(work.DATABASE_URL, autocommit=True)
    _local.connection.execute(sql.encode(), values)


def _send(rate: float, seconds: float) -> None:
    began = time.monotonic()
    for at, count in work.ticks(rate, seconds):
        time.sleep(work.ahead(began, at))
        now = time.time()
        for n in range(count):
            job.send(n=n, sent=now)


def main() -> None:
    verb, first, second = work.verb()
    began = time.monotonic()
    if verb == "work":
        words = ["-m", "dramatiq", "benchmarks.peers.dramatiq", "--processes", "2", "--skip-logging"]
        os.execv(sys.executable, [sys.executable, *words])
    if verb == "fill":
        for n in range(int(first)):
            job.send(n=n)
    elif verb == "send":
        _send(first, second)
    work.tell(began)


if __name__ == "__main__":
    main()

"""oban-py: two processes, each with several jobs under way on its event loop (uvloop, as its own command does)."""

# mypy: disable-error-code="import-not-found,untyped-decorator,attr-defined"

from __future__ import annotations

import asyncio
import time
from typing import Any

import psycopg
import uvloop
from oban import Oban, worker
from oban.schema import install_sql
from psycopg_pool import AsyncConnectionPool

from benchmarks.peers import work

_pools: list[AsyncConnectionPool] = []


@worker(queue="default")
class Small:
    """The job."""

    async def process(self, job: Any) -> None:
        """Do one small statement on a pooled connection."""
        sql, values = work.statement(job.args["n"], job.args.get("sent"))
        async with _pools[0].connection() as connection:
            await connection.execute(sql, values)


async def _work(pool: Any) -> None:
    effects = AsyncConnectionPool(
        work.DATABASE_URL, min_size=4, max_size=10, open=False, kwargs={"autocommit": True}
    )
    await effects.open()
    _pools.append(effects)
    async with Oban(pool=pool, queues={"default": work.CONCURRENCY}):
        await asyncio.Event().wait()


async def _send(oban: Any, rate: float, seconds: float) -> None:
    began = time.monotonic()
    for at, count in work.ticks(rate, seconds):
        await asyncio.sleep(work.ahead(began, at))
        await oban.enqueue_many([Small.new({"n": n, "sent": time.time()}) for n in range(count)])


async def main() -> None:
    verb, first, second = work.verb()
    began = time.monotonic()
    if verb == "setup":
        with psycopg.connect(work.DATABASE_URL, autocommit=True) as connection:
            connection.execute(install_sql())
    else:
        pool = await Oban.create_pool(work.DATABASE_URL, min_size=2, max_size=work.CONCURRENCY)
        if verb == "work":
            await _work(pool)
        elif verb == "fill":
            for chunk in work.chunks(int(first)):
                await Oban(pool=pool).enqueue_many([Small.new({"n": n}) for n in chunk])
        elif verb == "send":
            await _send(Oban(pool=pool), first, second)
        await pool.close()
    work.tell(began)


if __name__ == "__main__":
    uvloop.run(main())

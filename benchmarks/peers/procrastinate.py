"""procrastinate: two processes, each with several jobs under way on its event loop."""

# mypy: disable-error-code="import-not-found,untyped-decorator,no-any-return"

from __future__ import annotations

import asyncio
import time

from procrastinate import App, PsycopgConnector
from psycopg_pool import AsyncConnectionPool

from benchmarks.peers import work

app = App(connector=PsycopgConnector(conninfo=work.DATABASE_URL, min_size=2, max_size=work.CONCURRENCY))
_pools: list[AsyncConnectionPool] = []


@app.task(name="bench_job")
async def job(n: int, sent: float | None = None) -> None:
    """Do one small statement on a pooled connection."""
    sql, values = work.statement(n, sent)
    async with _pools[0].connection() as connection:
        await connection.execute(sql, values)


async def _work() -> None:
    pool = AsyncConnectionPool(
        work.DATABASE_URL, min_size=4, max_size=10, open=False, kwargs={"autocommit": True}
    )
    await pool.open()
    _pools.append(pool)
    await app.run_worker_async(concurrency=work.CONCURRENCY)


async def _send(rate: float, seconds: float) -> None:
    began = time.monotonic()
    for at, count in work.ticks(rate, seconds):
        await asyncio.sleep(work.ahead(began, at))
        args = [{"n": n, "sent": time.time()} for n in range(count)]
        if count == 1:
            await job.defer_async(**args[0])
        else:
            await job.batch_defer_async(*args)


async def main() -> None:
    verb, first, second = work.verb()
    began = time.monotonic()
    async with app.open_async():
        if verb == "setup":
            await app.schema_manager.apply_schema_async()
        elif verb == "work":
            await _work()
        elif verb == "fill":
            for chunk in work.chunks(int(first)):
                await job.batch_defer_async(*({"n": n} for n in chunk))
        elif verb == "send":
            await _send(first, second)
    work.tell(began)


if __name__ == "__main__":
    asyncio.run(main())

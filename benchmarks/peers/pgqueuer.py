"""pgqueuer on asyncpg: two processes, batches of a hundred, as many as ours."""

# mypy: disable-error-code="import-not-found,untyped-decorator"

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import asyncpg
import uvloop
from pgqueuer import PgQueuer, Queries
from pgqueuer.adapters.drivers.asyncpg import AsyncpgPoolDriver

from benchmarks.peers import work

BATCH = 100


async def _work(pool: Any) -> None:
    queuer = PgQueuer.from_asyncpg_pool(pool)

    @queuer.entrypoint("bench_job")
    async def job(job: Any) -> None:
        args = json.loads(job.payload)
        sql, values = work.statement(args["n"], args.get("sent"), ("$1", "$2"))
        await pool.execute(sql, *values)

    await queuer.run(batch_size=BATCH)


async def _enqueue(queries: Any, jobs: list[dict[str, float]]) -> None:
    payloads = [json.dumps(args).encode() for args in jobs]
    await queries.enqueue(["bench_job"] * len(jobs), payloads, [0] * len(jobs))


async def _send(queries: Any, rate: float, seconds: float) -> None:
    began = time.monotonic()
    for at, count in work.ticks(rate, seconds):
        await asyncio.sleep(work.ahead(began, at))
        await _enqueue(queries, [{"n": n, "sent": time.time()} for n in range(count)])


async def main() -> None:
    verb, first, second = work.verb()
    began = time.monotonic()
    async with asyncpg.create_pool(work.DATABASE_URL, min_size=2, max_size=work.CONCURRENCY) as pool:
        queries = Queries(AsyncpgPoolDriver(pool))
        if verb == "setup":
            await queries.install()
        elif verb == "work":
            await _work(pool)
        elif verb == "fill":
            for chunk in work.chunks(int(first)):
                await _enqueue(queries, [{"n": n} for n in chunk])
        elif verb == "send":
            await _send(queries, first, second)
    work.tell(began)


if __name__ == "__main__":
    uvloop.run(main())

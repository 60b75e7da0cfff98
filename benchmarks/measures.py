"""What is measured. Each measure of each system has a new database, and gives figures by name."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import median

import psutil
import psycopg

from benchmarks.servers import Database, Servers
from benchmarks.systems import Installed, NotMeasured
from kitaab_jobs import client
from kitaab_jobs.contract import Job, Payload

Figures = dict[str, float]

POLL_SECONDS = 0.05
STUCK_SECONDS = 60.0
WARM_SECONDS = 1.0
BACKLOGS = (1_000, 100_000, 1_000_000)
STATEMENT = 10_000

# One snapshot: the times belong to exactly the effects that are counted.
_PROGRESS = "SELECT sum(n), extract(epoch FROM max(last) - min(first)) FROM bench.effects"

_FINISHED = """
INSERT INTO jobs.jobs (id, name, args, queue, state, run_at, attempt, max_attempts, created_at, published_at, started_at,
                       finished_at, heartbeat_at, worker, result)
SELECT jobs.new_id(), %(name)s, jsonb_build_object('n', g), 'default', 'succeeded', t, 1, 5, t, t, t, t, t, 'bench',
       '{"rows": 1}'
FROM (SELECT g, now() - g * interval '1 millisecond' AS t FROM generate_series(1, %(rows)s) AS g) AS many
"""
_WAITING = """
INSERT INTO jobs.jobs (id, name, args, queue, state, priority, max_attempts)
SELECT jobs.new_id(), %(name)s, jsonb_build_object('n', g), 'default', 'ready', -1, 5
FROM generate_series(1, %(rows)s) AS g
"""


class Bench:
    """What a measure needs: the servers, where logs go, and how large it is."""

    def __init__(self, servers: Servers, logs: Path, *, jobs: int, seconds: float, bulk: int) -> None:
        self.servers = servers
        self.logs = logs
        self.jobs = jobs
        self.seconds = seconds
        self.bulk = bulk

    def database(self, installed: Installed) -> Database:
        """Return a new database, set up for the system."""
        database = Database(self.servers, installed.system)
        installed.command(database.env, "setup")
        return database

    def log(self, installed: Installed) -> Path:
        """Return the file for the output of its processes."""
        return self.logs / f"{installed.system.name}.log"


def drain(bench: Bench, installed: Installed) -> Figures:
    """All jobs wait; then the workers start. From the first effect to the last."""
    database = bench.database(installed)
    took = installed.command(database.env, "fill", str(bench.jobs))
    database.settle()
    figures = _drain(bench, installed, database)
    return figures | {"enqueued_per_s": bench.jobs / took}


def latency(bench: Bench, installed: Installed) -> Figures:
    """Fifty jobs a second: milliseconds from enqueueing to starting."""
    return _paced(bench, installed, 50)


def single(bench: Bench, installed: Installed) -> Figures:
    """700 jobs a second, each enqueued in a transaction of its own by one client."""
    return _paced(bench, installed, 700)


def half(bench: Bench, installed: Installed, rate: float) -> Figures:
    """Half of what it drains."""
    return _paced(bench, installed, rate / 2)


def bulk(bench: Bench, installed: Installed) -> Figures:
    """Rows a second into the ledger, ten thousand in a statement: from Python, and in SQL alone."""
    database = bench.database(installed)
    kind = Job(_kind(installed), "", _Numbered)
    figures: Figures = {}
    with psycopg.connect(database.owner_url) as connection:

        def python(low: int) -> None:
            client.enqueue_many(connection, kind, [{"n": n} for n in range(low, low + STATEMENT)])

        def sql(low: int) -> None:
            connection.execute(
                "SELECT count(*) FROM jobs.enqueue_many(%s, (SELECT array_agg(jsonb_build_object('n', g))"
                " FROM generate_series(%s::int, %s::int) AS g))",
                [kind.name, low, low + STATEMENT - 1],
            )

        ways: tuple[tuple[str, Callable[[int], None]], ...] = (("client", python), ("sql", sql))
        for name, enqueue in ways:
            database.settle()
            began = time.monotonic()
            for low in range(0, bench.bulk, STATEMENT):
                enqueue(low)
                connection.commit()
            figures[f"{name}_rows_per_s"] = bench.bulk / (time.monotonic() - began)
    return figures


def flat(bench: Bench, installed: Installed, rows: int, kind: str) -> Figures:
    """Drain beside `rows` others in the ledger, `finished` or `waiting` behind; or with an `old` transaction."""
    database = bench.database(installed)
    with database.connect() as connection:
        if rows:
            statement = _FINISHED if kind == "finished" else _WAITING
            connection.execute(statement.encode(), {"name": _kind(installed), "rows": rows})
            database.settle("jobs.jobs")
        installed.command(database.env, "fill", str(bench.jobs))
        database.settle()
        with _old_transaction(database) if kind == "old" else _nothing():
            return _drain(bench, installed, database)


class _Numbered(Payload):
    n: int


def _kind(installed: Installed) -> str:
    return f"bench.{installed.system.variant}"


@contextmanager
def _nothing() -> Iterator[None]:
    yield


@contextmanager
def _old_transaction(database: Database) -> Iterator[None]:
    """Somebody's report, or a dump: no row that dies while it is open can be cleaned away."""
    with psycopg.connect(database.owner_url) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.execute("SELECT count(*) FROM bench.effects")
        yield


def _drain(bench: Bench, installed: Installed, database: Database) -> Figures:
    with database.connect() as connection:
        with installed.running(database.env, bench.log(installed)) as processes:
            servers = [bench.servers.postgres.pid, bench.servers.redis.pid]
            everybody = [pid for pid in (*servers, *(process.pid for process in processes)) if pid]
            _wait_for_first(connection)
            before, (done_before, _) = _cpu_seconds(everybody), _progress(connection)
            done, seconds, first_quarter, last_quarter = _watch(connection, bench.jobs)
            cpu = (_cpu_seconds(everybody) - before) / max(1, done - done_before)
        time.sleep(0.2)
        total, _ = _progress(connection)
    return {
        "jobs_per_s": (done - 1) / seconds,
        "cpu_ms": cpu * 1000,
        "first_quarter_per_s": first_quarter,
        "last_quarter_per_s": last_quarter,
        "effects_too_many": float(max(0, total - bench.jobs)),
    }


def _watch(connection: psycopg.Connection, jobs: int) -> tuple[int, float, float, float]:
    """Wait for so many effects; return how many there are, in how long, and the rates of the outer quarters."""
    seen: list[tuple[int, float]] = [(0, 0.0)]
    moved = time.monotonic()
    while seen[-1][0] < jobs:
        time.sleep(POLL_SECONDS)
        now = _progress(connection)
        if now[0] > seen[-1][0]:
            seen.append(now)
            moved = time.monotonic()
        elif time.monotonic() - moved > STUCK_SECONDS:
            raise NotMeasured(f"{now[0]} of {jobs} jobs were done, and no more for {STUCK_SECONDS:.0f} s")
    done, seconds = seen[-1]
    early = min(seen, key=lambda point: abs(point[0] - jobs / 4))
    late = min(seen, key=lambda point: abs(point[0] - jobs * 3 / 4))
    return (
        done,
        seconds,
        early[0] / early[1] if early[1] else float("nan"),
        (done - late[0]) / (seconds - late[1]) if seconds > late[1] else float("nan"),
    )


def _wait_for_first(connection: psycopg.Connection) -> None:
    """Return when something was done: until then processes start, which is not measured."""
    began = time.monotonic()
    while not _progress(connection)[0]:
        if time.monotonic() - began > STUCK_SECONDS:
            raise NotMeasured(f"no job was done within {STUCK_SECONDS:.0f} s")
        time.sleep(POLL_SECONDS / 5)


def _cpu_seconds(pids: Sequence[int]) -> float:
    """Return the processor time of these processes and all that they have started, ended or not."""
    spent = 0.0
    for pid in pids:
        with suppress(psutil.Error):
            root = psutil.Process(pid)
            for process in (root, *root.children(recursive=True)):
                with suppress(psutil.NoSuchProcess):
                    times = process.cpu_times()
                    spent += times.user + times.system + times.children_user + times.children_system
    return spent


def _progress(connection: psycopg.Connection) -> tuple[int, float]:
    row = connection.execute(_PROGRESS).fetchone()
    return (0, 0.0) if row is None or row[0] is None else (int(row[0]), float(row[1] or 0))


def _paced(bench: Bench, installed: Installed, rate: float) -> Figures:
    database = bench.database(installed)
    with database.connect() as connection, installed.running(database.env, bench.log(installed)):
        # Every process has started, and has its connections.
        expected = round(20 * WARM_SECONDS)
        installed.command(database.env, "send", "20", str(WARM_SECONDS))
        _wait_for_starts(connection, expected)
        time.sleep(1)
        connection.execute("TRUNCATE bench.starts")
        database.settle()
        took = installed.command(database.env, "send", f"{rate:g}", f"{bench.seconds:g}")
        expected = round(rate * bench.seconds)
        _wait_for_starts(connection, expected)
        rows = connection.execute("SELECT sent, started FROM bench.starts ORDER BY sent, started").fetchall()
    waits = [(started - sent) * 1000 for sent, started in rows]
    quarter = max(1, len(waits) // 4)
    last_sent = max(sent for sent, _ in rows)
    ordered = sorted(waits)
    return {
        "rate": rate,
        "sent_per_s": len(rows) / took,
        "p50_ms": median(waits),
        "p95_ms": ordered[int(len(ordered) * 0.95)],
        "max_ms": ordered[-1],
        "first_quarter_p50_ms": median(waits[:quarter]),
        "last_quarter_p50_ms": median(waits[-quarter:]),
        "behind_s": max(0.0, max(started for _, started in rows) - last_sent),
        "started_twice": float(max(0, len(rows) - expected)),
    }


def _wait_for_starts(connection: psycopg.Connection, jobs: int) -> None:
    seen, moved = -1, time.monotonic()
    while True:
        row = connection.execute("SELECT count(*) FROM bench.starts").fetchone()
        now = row[0] if row else 0
        if now >= jobs:
            return
        if now > seen:
            seen, moved = now, time.monotonic()
        elif time.monotonic() - moved > STUCK_SECONDS:
            raise NotMeasured(f"{now} of {jobs} jobs started, and no more for {STUCK_SECONDS:.0f} s")
        time.sleep(0.2)


def is_growing(figures: Figures) -> bool:
    """Whether the queue grew: at the end jobs wait clearly longer than at the beginning."""
    return figures["last_quarter_p50_ms"] > 2 * figures["first_quarter_p50_ms"] + 50

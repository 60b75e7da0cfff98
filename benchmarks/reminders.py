"""How fast reminders are dispatched, beside the ways that compare local times: `make bench-reminders ARGS="--quick"`.

One PostgreSQL (fsync on) in a temporary folder holds the people and their reminders; many of them are due in the same
minute. Two processes dispatch, as a worker does, and one of them is killed half-way. README.md beside this file says
what each figure means.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from statistics import median
from typing import Any

import psycopg
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from kitaab_jobs.db import migrate
from kitaab_jobs.db.engines import sqlalchemy_url
from kitaab_jobs.devstack.postgres import DATABASE, EmbeddedPostgres
from kitaab_jobs.reminders import jobs, rules
from kitaab_jobs.timing import local_time, zone_names

WORKERS = 2
PEER_SECONDS = 10.0
IDLE_TICKS = 50
PREPARED = "prepared.json"

Figures = dict[str, float]


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.reminders", description=__doc__.split("\n")[0])
    parser.add_argument("--people", type=int, default=5_000_000, help="reminders in all (default 5000000)")
    parser.add_argument("--due", type=int, default=1_000_000, help="due in one minute (default 1000000)")
    parser.add_argument("--limit", type=int, default=20_000, help="reminders in a batch (default 20000)")
    parser.add_argument("--quick", action="store_true", help="100000 people: to see that all of it works")
    parser.add_argument("--data", type=Path, help="make the data in this folder, or use what it holds")
    parser.add_argument("--prepare", action="store_true", help="make the data in --data and measure nothing")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE ('-': stdout)")
    given = parser.parse_args()
    if given.quick:
        given.people, given.due = min(given.people, 100_000), min(given.due, 20_000)
    if given.prepare and not given.data:
        parser.error("--prepare needs --data FOLDER")
    return given


def main() -> None:
    given = options()
    folder = given.data or Path(tempfile.mkdtemp(prefix="kitaab-bench-"))
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)
    postgres = EmbeddedPostgres(folder / "postgres", durable=True)
    try:
        postgres.start()
        if not (folder / PREPARED).exists():
            minute = prepare(postgres, given.people, given.due)
            (folder / PREPARED).write_text(json.dumps({"minute": minute.isoformat(), "due": given.due}))
        if given.prepare:
            return
        prepared = json.loads((folder / PREPARED).read_text())
        minute = dt.datetime.fromisoformat(prepared["minute"])
        figures = measure(postgres, minute, prepared["due"], given.limit)
    finally:
        postgres.stop(immediate=not given.prepare)
        if not given.prepare:
            shutil.rmtree(folder, ignore_errors=True)
    if given.json and str(given.json) != "-":
        given.json.write_text(json.dumps(figures, indent=1) + "\n")
    elif given.json:
        sys.stdout.write(json.dumps(figures, indent=1) + "\n")
    else:
        show(figures)


# --- the data --------------------------------------------------------------------------------------


def prepare(postgres: EmbeddedPostgres, people: int, due: int) -> dt.datetime:
    """Make people and reminders, each planned, `due` of them for one minute; return that minute."""
    postgres.provision(DATABASE)
    migrate.upgrade(postgres.url("kitaab_admin", DATABASE))
    now = dt.datetime.now(dt.UTC).replace(second=0, microsecond=0)
    minute = now + dt.timedelta(days=1)
    chosen = random.Random(7)
    zones = _zones()
    times = [dt.time(hour, quarter) for hour in range(24) for quarter in (0, 15, 30, 45)]
    with psycopg.connect(postgres.url("postgres", DATABASE), autocommit=True) as connection:
        connection.execute("SET session_replication_role = replica")  # no triggers: these rows are not news
        connection.execute(
            "CREATE UNLOGGED TABLE plan (n integer, zone text, time time, at timestamptz, date date)"
        )
        with connection.cursor().copy("COPY plan FROM STDIN") as copy:
            for number, zone in enumerate(zones):
                rule = rules.Rule(local_time(minute, zone), zone)
                found = rules.first_after(rule, minute - dt.timedelta(seconds=1), None)
                assert found.at == minute
                copy.write_row((number, zone, rule.time, found.at, found.date))
            # Nobody else is due within a quarter of an hour of it.
            for number in range(20_000):
                rule = rules.Rule(chosen.choice(times), chosen.choice(zones))
                found = rules.first_after(rule, minute + dt.timedelta(minutes=16), None)
                copy.write_row((len(zones) + number, rule.zone, rule.time, found.at, found.date))
        connection.execute("CREATE INDEX ON plan (n)")
        connection.execute(
            """
            INSERT INTO users (email, password_hash, full_name)
            SELECT 'person' || g || '@example.org', 'x', 'Person ' || g FROM generate_series(1, %s::int) AS g
            """,
            [people],
        )
        # Whose turn it is is spread over the whole table, and a few zones hold most people.
        connection.execute(
            """
            INSERT INTO notifications (user_id, notification_time, timezone, next_due_at, next_due_date, last_due_at,
                                       last_due_date, channels)
            SELECT g, p.time, p.zone, p.at, p.date, p.at - interval '1 day', p.date - 1, '{log}'
            FROM generate_series(1, %(people)s::int) AS g
            JOIN plan AS p ON p.n = CASE WHEN g * 7919::bigint %% %(people)s < %(due)s THEN
                                             floor(%(zones)s * power(g %% 9973 / 9973.0, 3))::int
                                         ELSE %(zones)s + g %% 20000 END
            ORDER BY g
            """,
            {"people": people, "due": due, "zones": len(zones)},
        )
        connection.execute("DROP TABLE plan")
        row = connection.execute(
            "SELECT count(*) FROM notifications WHERE next_due_at = %s", [minute]
        ).fetchone()
        assert row == (due,), row
        for table in ("users", "notifications"):
            connection.execute(f"VACUUM (ANALYZE, FREEZE) {table}".encode())
        connection.execute("CHECKPOINT")
    return minute


def _zones() -> list[str]:
    """Return the names of places, in an order that says nothing."""
    places = sorted(zone for zone in zone_names() if "/" in zone and not zone.startswith("Etc"))
    random.Random(3).shuffle(places)
    return places


# --- what is measured ------------------------------------------------------------------------------


def measure(postgres: EmbeddedPostgres, minute: dt.datetime, due: int, limit: int) -> Figures:
    """Measure everything, one after the other, on the same data."""
    url = postgres.url("kitaab_worker", DATABASE)
    with psycopg.connect(postgres.url("postgres", DATABASE), autocommit=True) as connection:
        figures = {"reminders": _count(connection, "SELECT count(*) FROM notifications"), "due": float(due)}
        figures |= computation()
        figures["idle_ms"] = idle(url, minute - dt.timedelta(seconds=1), limit)
        figures["convert_all_s"] = convert_all(connection)
        connection.execute(
            "CREATE INDEX bench_time ON notifications (timezone, notification_time) WHERE is_active"
        )
        owner = postgres.url("postgres", DATABASE)
        figures["seed_per_s"] = seeds_flow(url, owner, minute, each=True)
        figures["seed_bulk_per_s"] = seeds_flow(url, owner, minute, each=False)
        connection.execute("DROP INDEX bench_time")
        connection.execute("CHECKPOINT")
        figures |= rush(url, minute, due, limit)
        figures |= check(connection, minute)
        figures["idle_after_ms"] = idle(url, minute + dt.timedelta(seconds=1), limit)
    figures["times_seed"] = figures["per_s"] / figures["seed_per_s"]
    figures["times_seed_bulk"] = figures["per_s"] / figures["seed_bulk_per_s"]
    return figures


def computation() -> Figures:
    """Rows a second for which one process computes the next occurrence: as people share them, and all unlike."""
    chosen = random.Random(11)
    zones, now = sorted(zone_names()), dt.datetime(2026, 11, 22, 12, tzinfo=dt.UTC)
    shared = [
        rules.Rule(dt.time(chosen.randrange(24), chosen.choice((0, 30))), chosen.choice(zones[:60]))
        for _ in range(200_000)
    ]
    unlike = [
        rules.Rule(dt.time(chosen.randrange(24), chosen.randrange(60)), chosen.choice(zones))
        for _ in range(200_000)
    ]
    return {"shared_rows_per_s": _rate(shared, now), "unlike_rows_per_s": _rate(unlike, now)}


def _rate(all: list[rules.Rule], now: dt.datetime) -> float:
    began = time.perf_counter()
    for rule in all:
        rules.first_after(rule, now, None)
    return len(all) / (time.perf_counter() - began)


def idle(url: str, now: dt.datetime, limit: int) -> float:
    """Return the median of the milliseconds of a dispatch that finds nothing."""
    took = []
    with _dispatcher(url) as dispatch:
        for _ in range(IDLE_TICKS):
            began = time.perf_counter()
            report = dispatch(now, limit)
            took.append((time.perf_counter() - began) * 1000)
            assert report.due == report.planned == 0
    return median(took)


def convert_all(connection: psycopg.Connection) -> float:
    """Return the seconds for one look at every row that converts the time to its zone."""
    began = time.perf_counter()
    _count(
        connection,
        "SELECT count(*) FROM notifications"
        " WHERE is_active AND date_trunc('minute', now() AT TIME ZONE timezone)::time = notification_time",
    )
    return time.perf_counter() - began


def seeds_flow(url: str, owner: str, minute: dt.datetime, *, each: bool) -> float:
    """Return the rows a second of the flow in the seed: select by local time, then check and log row by row.

    `each`: with a commit after each row, as one needs who sends in between; else with one for each zone.
    """
    parts = [_zones()[number::WORKERS] for number in range(WORKERS)]
    with multiprocessing.get_context("spawn").Pool(WORKERS) as pool:
        done = pool.starmap(_seeds_worker, [(url, owner, minute, part, each) for part in parts])
    return sum(done)


def _seeds_worker(url: str, owner: str, minute: dt.datetime, zones: list[str], each: bool) -> float:
    rows, began = 0, time.perf_counter()
    with psycopg.connect(owner) as reader, psycopg.connect(url) as writer:
        for zone in zones:
            due = reader.execute(
                "SELECT notification_id FROM notifications WHERE is_active AND timezone = %s AND notification_time = %s",
                [zone, local_time(minute, zone)],
            ).fetchall()
            for (id,) in due:
                sent = reader.execute(
                    "SELECT 1 FROM audit_log WHERE table_name = 'notifications' AND record_id = %s AND created_at >= %s",
                    [id, minute - dt.timedelta(hours=12)],
                ).fetchone()
                if sent is None:
                    writer.execute(
                        "INSERT INTO audit_log (action_type, table_name, record_id) VALUES ('seed', 'notifications', %s)",
                        [id],
                    )
                    if each:
                        writer.commit()
                rows += 1
                if time.perf_counter() - began > PEER_SECONDS:
                    writer.commit()
                    return rows / (time.perf_counter() - began)
            writer.commit()
    return rows / (time.perf_counter() - began)


def rush(url: str, minute: dt.datetime, due: int, limit: int) -> Figures:
    """Dispatch everything that is due with two processes, and kill one of them half-way."""
    context = multiprocessing.get_context("spawn")
    gate = context.Event()
    workers: dict[Connection, BaseProcess] = {}

    def start() -> BaseProcess:
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_work, args=(url, minute, limit, gate, theirs), daemon=True)
        process.start()
        theirs.close()
        workers[ours] = process
        return process

    victim = start()
    for _ in range(WORKERS - 1):
        start()
    for pipe in list(workers):
        pipe.recv()  # it is connected
    done, killed_after = 0, 0.0
    began = time.perf_counter()
    gate.set()
    while workers:
        for pipe in wait(list(workers)):
            assert isinstance(pipe, Connection)
            try:
                done += pipe.recv()
            except EOFError:
                workers.pop(pipe).join()
        if not killed_after and done >= due / 2:
            os.kill(victim.pid or 0, signal.SIGKILL)
            killed_after = time.perf_counter() - began
            start()
    took = time.perf_counter() - began
    return {"seconds": took, "per_s": due / took, "killed_after_s": killed_after}


def _work(url: str, minute: dt.datetime, limit: int, gate: Any, told: Connection) -> None:
    """Dispatch batch after batch, until one is not full, as a lane of jobs does."""
    with _dispatcher(url) as dispatch:
        told.send(0)
        gate.wait()
        while True:
            report = dispatch(minute, limit)
            told.send(report.due)
            if report.due < limit:
                return


@contextmanager
def _dispatcher(url: str) -> Iterator[Callable[[dt.datetime, int], jobs.Dispatched]]:
    engine = create_engine(
        sqlalchemy_url(url), connect_args={"options": "-c timezone=UTC", "prepare_threshold": 5}
    )

    def dispatch(now: dt.datetime, limit: int) -> jobs.Dispatched:
        with Session(engine) as session, session.begin():
            return jobs.dispatch(session, now=now, limit=limit, lane=1)

    with engine.connect():
        pass
    yield dispatch
    engine.dispose()


def check(connection: psycopg.Connection, minute: dt.datetime) -> Figures:
    """Count what is lost or doubled: in the deliveries, in the audit log and in the delivery jobs."""
    due = "SELECT count(*) FROM notifications WHERE last_due_at = %(minute)s"
    deliveries = "SELECT count(*) FROM jobs.deliveries WHERE due_at = %(minute)s AND state = 'pending'"
    enqueued = """
        SELECT count(*), count(DISTINCT d.id) FROM jobs.jobs, jsonb_array_elements_text(args -> 'delivery_ids') AS d (id)
        WHERE name = 'reminders.deliver'
    """
    row = connection.execute(enqueued.encode()).fetchone()
    assert row is not None
    audited = "SELECT count(*) FROM audit_log WHERE action_type = 'reminder'"
    return {
        "left_behind": _count(
            connection, "SELECT count(*) FROM notifications WHERE next_due_at <= %(minute)s", minute
        ),
        "advanced": _count(connection, due, minute),
        "deliveries": _count(connection, deliveries, minute),
        "audited": _count(connection, audited, minute),
        "enqueued": float(row[0]),
        "enqueued_twice": float(row[0] - row[1]),
        "delivery_jobs": _count(
            connection, "SELECT count(*) FROM jobs.jobs WHERE name = 'reminders.deliver'", minute
        ),
    }


def _count(connection: psycopg.Connection, query: str, minute: dt.datetime | None = None) -> float:
    row = connection.execute(query.encode(), {"minute": minute}).fetchone()
    assert row is not None
    return float(row[0])


def show(figures: Figures) -> None:
    for name, value in figures.items():
        print(f"{name:20} {value:>14,.1f}")  # noqa: T201


if __name__ == "__main__":
    main()

"""What progress costs beside a plain GROUP BY and beside the seed's loop: `make bench-progress`.

One run makes diaries in an embedded PostgreSQL (benchmarks/diaries.py), computes all goals once, and then measures in
rounds, side by side, what each pass costs. README.md beside this file says what each figure means.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import resource
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

import psycopg
from rich.console import Console
from rich.table import Table
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.orm import Session

from benchmarks import diaries, plans
from kitaab_jobs.db import migrate
from kitaab_jobs.db.engines import sqlalchemy_url
from kitaab_jobs.devstack.postgres import EmbeddedPostgres
from kitaab_jobs.progress import jobs, rules

NOW = dt.datetime(2026, 11, 25, 12, tzinfo=dt.UTC)
MARKS = 1000
BATCH = 2000  # marks of a refresh, as its job takes them
SAMPLE = 300  # people of the seed's loop; the rest is computed from them
# Which merits are live in a pass: ever, in a sliding window, or all.
LIVE = {"fixed": "duration_days IS NULL", "rolling": "duration_days IS NOT NULL", "all": "true"}

# Items of people far apart, all of an item's places in turn.
_FAR_APART = """
    SELECT person, person * 5 + n % 5 AS item
    FROM generate_series(1, CAST(:marks AS integer)) AS n,
         LATERAL (SELECT 1 + n * (CAST(:people AS integer) / CAST(:marks AS numeric))::integer % CAST(:people AS integer))
             AS far (person)
"""

say = Console(stderr=True, highlight=False)


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.progress", description=__doc__.split("\n")[0])
    parser.add_argument(
        "--people", type=int, default=20_000, help="people, with five items each (default 20000)"
    )
    parser.add_argument("--entries", type=int, default=100, help="entries of each item (default 100)")
    parser.add_argument("--rounds", type=int, default=3, help="how often all is measured (default 3)")
    parser.add_argument(
        "--quick", action="store_true", help="1,000 people, one round: shows that all of it works"
    )
    parser.add_argument("--folder", type=Path, help="keep the servers' data here, and use what is there")
    parser.add_argument(
        "--only-make", action="store_true", help="make the data in --folder, and measure nothing"
    )
    parser.add_argument(
        "--write-plans", action="store_true", help="write the golden plans anew (benchmarks/plans/)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure to FILE")
    given = parser.parse_args()
    if given.quick:
        given.people, given.rounds = min(given.people, 1000), 1
    if given.only_make and not given.folder:
        parser.error("--only-make needs --folder")
    return given


class Bench:
    """One database of diaries, and what is measured in it."""

    def __init__(self, server: EmbeddedPostgres, people: int, entries: int) -> None:
        self.people, self.entries = people, entries
        self.name = f"diaries_{people}_{entries}"
        self.superuser_url = server.url("postgres", self.name)
        self.url = server.url("kitaab_worker", self.name)
        self.engine: Engine = create_engine(sqlalchemy_url(self.url))
        # What is measured and rolled back runs on one connection, as the jobs of a worker do.
        self.superuser: Engine = create_engine(sqlalchemy_url(self.superuser_url))
        with psycopg.connect(server.superuser_url) as connection:
            known = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [self.name]).fetchone()
        if not known:
            self._make(server)

    def _make(self, server: EmbeddedPostgres) -> None:
        server.provision(self.name)
        migrate.upgrade(server.url("kitaab_admin", self.name))
        with psycopg.connect(self.superuser_url, autocommit=True) as connection:
            diaries.make(
                connection,
                NOW.date(),
                self.people,
                self.entries,
                lambda line: say.print(f"{self.name}: {line}"),
            )
        began = time.monotonic()
        report = self.reconcile()
        batches = self.refresh_all()
        took = time.monotonic() - began
        say.print(
            f"{self.name}: {report.goals:,} goals computed for the first time in {took:.1f} s, {batches} commits"
        )
        self.live("all")

    def live(self, which: str) -> None:
        """Switch off the merits that are not to be looked at, and targets unless they are."""
        with psycopg.connect(self.superuser_url, autocommit=True) as connection:
            connection.execute("SET session_replication_role = replica")
            connection.execute(
                f"UPDATE merits SET is_active = ({LIVE[which]}) WHERE is_active <> ({LIVE[which]})".encode()
            )
            on = which != "rolling"
            connection.execute("UPDATE targets SET is_active = %s WHERE is_active <> %s", [on, on])
            connection.execute("VACUUM ANALYZE merits, targets")

    def group_by(self) -> None:
        """Run what a full pass is compared with, and throw its rows away."""
        with self.engine.connect() as connection:
            rows = connection.execute(
                text("SELECT deed_item_id, sum(count_value), count(*) FROM entries GROUP BY deed_item_id"),
                execution_options={"yield_per": 10_000},
            )
            for _ in rows.partitions():
                pass

    def reconcile(self) -> jobs.Reconciled:
        """Run the nightly pass and commit."""
        with Session(self.engine) as session, session.begin():
            return jobs.reconcile(session, now=NOW)

    def refresh_all(self) -> int:
        """Refresh until no mark is left, a commit each, and return how many it took."""
        for batch in count(1):
            with Session(self.engine) as session, session.begin():
                if jobs.refresh(session, now=NOW, limit=BATCH).marks < BATCH:
                    return batch
        raise AssertionError

    def todays_windows(self) -> float:
        """Reconcile what the seed's loop looks at, merits in the windows of today, and return the seconds.

        Of a merit that is complete no other window is looked at: so all are, in a transaction that is rolled back.
        """
        with Session(self.superuser) as session:
            session.execute(text("SET LOCAL session_replication_role = replica"))
            session.execute(text("UPDATE targets SET is_active = false"))
            complete = "percent = 100, completed_at = :now, completed_on = start_date"
            session.execute(
                text(f"UPDATE merits SET {complete} WHERE completed_at IS NULL AND is_active"), {"now": NOW}
            )
            session.execute(text("ANALYZE merits, targets"))
            session.execute(text("SET LOCAL session_replication_role = origin"))
            session.execute(text("SET LOCAL ROLE kitaab_worker"))
            began = time.perf_counter()
            report = jobs.reconcile(session, now=NOW)
            took = time.perf_counter() - began
            assert not report.marked, report
            session.rollback()
        return took

    def refresh(self) -> float:
        """Mark items of people far apart since today, refresh, roll back, and return the seconds of the refresh.

        Nothing has changed, so what is measured is finding and computing; `refresh_changed` writes as well.
        """
        with Session(self.superuser) as session:
            session.execute(text("DELETE FROM jobs.progress_marks"))
            session.execute(
                text(
                    "INSERT INTO jobs.progress_marks (kind, subject_id, since)"
                    f" SELECT 'item', item, :today FROM ({_FAR_APART}) AS i"
                ),
                {"people": self.people, "marks": MARKS, "today": NOW.date()},
            )
            return self._refresh(session)

    def refresh_changed(self) -> float:
        """Let as many items have a new entry or another amount today; the triggers mark them."""
        with Session(self.superuser) as session:
            session.execute(text("DELETE FROM jobs.progress_marks"))
            session.execute(
                text(
                    "INSERT INTO entries (user_id, deed_item_id, entry_date, count_value, scale_value_id)"
                    " SELECT person, item, :today, CASE WHEN item % 5 < 4 THEN 1 END,"
                    " CASE WHEN item % 5 = 4 THEN person * 4 END"
                    f" FROM ({_FAR_APART}) AS i ON CONFLICT (user_id, deed_item_id, entry_date) DO UPDATE"
                    " SET count_value = entries.count_value + 1, scale_value_id = excluded.scale_value_id"
                ),
                {"people": self.people, "marks": MARKS, "today": NOW.date()},
            )
            return self._refresh(session)

    def _refresh(self, session: Session) -> float:
        session.execute(text("SET LOCAL ROLE kitaab_worker"))
        began = time.perf_counter()
        report = jobs.refresh(session, now=NOW, limit=MARKS)
        took = time.perf_counter() - began
        assert report.marks == MARKS, report
        session.rollback()
        return took

    def seeds_loop(self) -> tuple[float, int]:
        """Do what the seed's plan describes for some people; return seconds and queries for all of them."""
        queries = 0
        sample = min(SAMPLE, self.people)
        with psycopg.connect(self.url) as connection:
            began = time.perf_counter()
            for person in range(1, self.people + 1, self.people // sample):
                queries += _loop_over(connection, person)
            took = time.perf_counter() - began
            connection.rollback()
        done = len(range(1, self.people + 1, self.people // sample))
        return took * self.people / done, queries * self.people // done


def _loop_over(connection: psycopg.Connection, person: int) -> int:
    """Compute the merits of one person as the seed does: a query for each merit and for each of its items."""
    today, queries = NOW.date(), 1
    merits = connection.execute(
        "SELECT merit_id, merit_type, duration_days FROM merits WHERE user_id = %s AND is_active", [person]
    ).fetchall()
    for merit, logic, days in merits:
        items = connection.execute(
            "SELECT deed_item_id, scale_value_id, target_value FROM merit_items WHERE merit_id = %s", [merit]
        ).fetchall()
        first = today - dt.timedelta(days=days - 1) if days else dt.date(1900, 1, 1)
        states = []
        for item, value, goal in items:
            row = connection.execute(
                "SELECT CASE WHEN %(value)s::bigint IS NULL THEN sum(count_value)"
                " ELSE count(*) FILTER (WHERE scale_value_id = %(value)s) END FROM entries"
                " WHERE user_id = %(person)s AND deed_item_id = %(item)s AND entry_date BETWEEN %(first)s AND %(today)s",
                {"value": value, "person": person, "item": item, "first": first, "today": today},
            ).fetchone()
            states.append(row is not None and (row[0] or 0) >= goal)
        _ = all(states) if logic == "AND" else any(states)
        queries += 1 + len(items)
    return queries


def seconds(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


@contextmanager
def server(folder: Path | None) -> Iterator[EmbeddedPostgres]:
    """A PostgreSQL with our settings, in a folder that is kept, or in one that goes away."""
    where = folder or Path(tempfile.mkdtemp(prefix="kitaab-bench-"))
    where.mkdir(parents=True, exist_ok=True)
    where.chmod(0o755)
    postgres = EmbeddedPostgres(where / "postgres", durable=False)
    try:
        postgres.start()
        yield postgres
    finally:
        postgres.stop()
        if not folder:
            shutil.rmtree(where, ignore_errors=True)


def measure(bench: Bench, small: Bench, rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each measure, round by round. One pass before the first round is for the caches."""
    found: dict[str, list[float]] = {}

    def note(name: str, value: float) -> None:
        found.setdefault(name, []).append(value)
        say.print(f"{name}: {value:,.3f}")

    bench.group_by()
    for _ in range(rounds):
        note("group by", seconds(bench.group_by))
        for which in ("fixed", "rolling"):
            bench.live(which)
            note(which, seconds(bench.reconcile))
        bench.live("all")
        note("full", seconds(bench.reconcile))
        note("today", bench.todays_windows())
        for name, one in (("refresh", bench), ("refresh, a tenth", small)):
            one.refresh()
            note(name, median(one.refresh() for _ in range(5)))
        note("refresh, changed", median(bench.refresh_changed() for _ in range(3)))
        took, number = bench.seeds_loop()
        note("loop", took)
        note("loop, queries", number)
    return found


def main() -> None:
    given = options()
    with server(given.folder) as postgres:
        bench = Bench(postgres, given.people, given.entries)
        small = Bench(postgres, max(given.people // 10, 1), given.entries)
        if given.only_make:
            return
        found = measure(bench, small, given.rounds)
        checked = plans.check(bench.engine, rules.today_everywhere(NOW), write=given.write_plans)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    figures = {name: median(values) for name, values in found.items()}
    report = {"people": given.people, "entries": given.people * diaries.ITEMS * given.entries, "peak_mb": peak,
              "seconds": found, "plans": checked}  # fmt: skip
    if given.json:
        given.json.write_text(json.dumps(report, indent=1) + "\n")
    show(given, figures, peak, checked)


def show(given: argparse.Namespace, figures: dict[str, float], peak: float, checked: dict[str, str]) -> None:
    base, full, today = figures["group by"], figures["full"], figures["today"]
    network = figures["loop"] + figures["loop, queries"] / 1000
    rows: list[tuple[Any, ...]] = [
        ("plain GROUP BY", base, "", ""),
        ("reconcile, lifetime merits and targets", figures["fixed"], f"{figures['fixed'] / base:.2f} x GROUP BY", "2.5"),
        ("reconcile, sliding windows", figures["rolling"], f"{figures['rolling'] / base:.2f} x GROUP BY", "6"),
        ("reconcile, all", full, f"{full / base:.2f} x GROUP BY", ""),
        ("the seed's loop", figures["loop"], f"{figures['loop'] / full:.1f} x reconcile", "5"),
        ("the seed's loop, 1 ms away", network, f"{network / full:.1f} x reconcile", "5"),
        ("reconcile of what the loop looks at", today, f"the loop takes {figures['loop'] / today:.1f} x as long", ""),
        (f"refresh of {MARKS:,} marks", figures["refresh"], f"1/{full / figures['refresh']:.0f} of reconcile", "1/50"),
        (f"refresh of {MARKS:,} new entries, with what it writes", figures["refresh, changed"],
         f"1/{full / figures['refresh, changed']:.0f} of reconcile", ""),
        ("refresh, with a tenth of the entries", figures["refresh, a tenth"],
         f"{figures['refresh'] / figures['refresh, a tenth']:.2f} x as long with all", "flat"),
    ]  # fmt: skip
    table = Table(
        "", "seconds", "ratio", "bar", title=f"{given.people * diaries.ITEMS * given.entries:,} entries"
    )
    for name, value, ratio, bar in rows:
        table.add_row(name, f"{value:,.3f}", ratio, bar)
    out = Console(highlight=False)
    out.print(table)
    out.print(f"Peak memory of the process that ran the jobs: {peak:.0f} MB (bar: 200)")
    for name, verdict in checked.items():
        out.print(f"plan of {name}: {verdict}")


if __name__ == "__main__":
    main()

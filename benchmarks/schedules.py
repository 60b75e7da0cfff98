"""How late and how surely schedules fire, beside celery beat and celery-redbeat: `make bench-schedules`.

All get the same timetable: 10,000 schedules, a thousand of which are due at each full minute. Each scheduler has one
worker with two processes. README.md beside this file says what each figure means.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import fires
from benchmarks.fires import Run
from benchmarks.jobs import chosen, describe, installed, say, tell, where
from benchmarks.measures import Figures
from benchmarks.peers import timetable
from benchmarks.servers import Servers
from benchmarks.systems import SCHEDULERS, Installed, NotMeasured

WHAT: dict[str, Callable[[Run], Figures]] = {
    "lateness": fires.lateness,
    "restart": fires.restart,
    "two": fires.two,
}
TICKS = "ticks"
SIZES = (1_000, 10_000, 100_000)
BASE = "celery"
DEFAULT = ("ours", "celery", "redbeat")

# By measure, then by scheduler: the figures of each round.
Results = dict[str, dict[str, list[Figures]]]


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.schedules", description=__doc__.split("\n")[0])
    parser.add_argument("--schedules", type=int, default=10_000, help="how many there are (default 10000)")
    parser.add_argument("--rounds", type=int, default=1, help="how often all is measured (default once)")
    parser.add_argument("--only", default=",".join(DEFAULT), help=f"of {','.join(SCHEDULERS)}")
    parser.add_argument("--what", default=",".join((*WHAT, TICKS)), help=f"of {','.join((*WHAT, TICKS))}")
    parser.add_argument(
        "--due", type=int, default=1_000, help="schedules due at once, for ticks (default 1000)"
    )
    parser.add_argument(
        "--most", type=int, default=SIZES[-1], help="most schedules of ticks (default 100000)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure to FILE ('-': stdout)")
    parser.add_argument("--logs", type=Path, help="keep the output of the schedulers in this folder")
    parser.add_argument(
        "--peers-dir", type=Path, default=Path(__file__).parent / ".peers", help="where peers are installed"
    )
    given = parser.parse_args()
    given.only = chosen(parser, given.only, SCHEDULERS)
    given.what = chosen(parser, given.what, (*WHAT, TICKS))
    if given.schedules < timetable.PERIOD_MINUTES:
        parser.error(f"--schedules must be at least {timetable.PERIOD_MINUTES}")
    return given


def main() -> None:
    given = options()
    logs = given.logs or Path(tempfile.mkdtemp(prefix="kitaab-bench-logs-"))
    logs.mkdir(parents=True, exist_ok=True)
    missing: dict[str, str] = {}
    systems = installed([SCHEDULERS[name] for name in given.only], given.peers_dir, missing)
    results: Results = {}
    began = time.monotonic()
    with Servers(track_commit_timestamp="on") as servers:
        # Stopped half-way, it shows what it has.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        with suppress(KeyboardInterrupt):
            for number in range(given.rounds):
                for what, system, schedules, run in _cases(given, systems):
                    title = f"round {number + 1} of {given.rounds}, {what}: {system.system.name}"
                    try:
                        figures = run(Run(servers, system, logs, schedules))
                    except NotMeasured as reason:
                        missing[f"{system.system.name}, {what}"] = str(reason)
                        say.print(f"{title}: not measured: {reason}")
                        continue
                    results.setdefault(what, {}).setdefault(system.system.name, []).append(figures)
                    say.print(f"{title}: " + ", ".join(f"{k} {v:,.1f}" for k, v in figures.items()))
        machine = describe(servers)
    machine["minutes"] = round((time.monotonic() - began) / 60, 1)
    if not given.logs:
        shutil.rmtree(logs, ignore_errors=True)
    report = {
        "machine": machine,
        "schedules": given.schedules,
        "due": given.due,
        "rounds": given.rounds,
        "versions": {each.system.name: each.version for each in systems},
        "not_measured": missing,
        "results": results,
    }
    tell(report, given.json, _show)


def _cases(
    given: argparse.Namespace, systems: list[Installed]
) -> list[tuple[str, Installed, int, Callable[[Run], Figures]]]:
    """Return what to measure, in which order: (what, system, how many schedules, the measure)."""
    cases: list[tuple[str, Installed, int, Callable[[Run], Figures]]] = [
        (what, system, given.schedules, WHAT[what])
        for what in given.what
        if what in WHAT
        for system in systems
    ]
    if TICKS in given.what:
        cases += [
            (f"{TICKS}, {size} schedules", system, size, lambda run: fires.ticks(run, given.due))
            for size in SIZES
            if size <= given.most
            for system in systems
            if system.system.is_ours
        ]
    return cases


def _middle(rounds: list[Figures], name: str) -> float:
    return median(figures[name] for figures in rounds)


def _show(report: dict[str, Any]) -> None:
    out = Console(highlight=False, width=max(110, Console().width))
    results: Results = report["results"]
    out.print(where(report))
    due = report["schedules"] // timetable.PERIOD_MINUTES
    if "lateness" in results:
        out.print(
            _lateness(
                results["lateness"], f"{due:,} of {report['schedules']:,} schedules due at a full minute"
            )
        )
    titles = {
        "restart": "kill -9 and 20 s without a beat, across a full minute and in the fires of one",
        "two": "Two beats, the first killed with -9 before the second minute",
    }
    for what, title in titles.items():
        if what in results:
            out.print(_faults(results[what], title))
    tick = {what: systems for what, systems in results.items() if what.startswith(TICKS)}
    if tick:
        table = Table("schedules", "system", "ms", "ms, none due", title=f"{report['due']:,} due at once")
        for what, systems in tick.items():
            for name, rounds in systems.items():
                cells = (f"{_middle(rounds, each):,.2f}" for each in ("fire_ms", "idle_ms"))
                table.add_row(what.partition(", ")[2].split()[0], name, *cells)
        out.print(table)
    for name, reason in report["not_measured"].items():
        out.print(f"not measured: {name}: {reason}")


def _lateness(results: dict[str, list[Figures]], title: str) -> Table:
    columns = [f"{what}_{which}_ms" for what in ("enqueued", "started") for which in ("p50", "p99", "max")]
    table = Table(
        "scheduler",
        *(column.replace("_", " ") for column in columns),
        f"enqueued p99, x {BASE}",
        title=f"{title}: how late",
    )
    for name, rounds in results.items():
        pairs = zip(rounds, results.get(BASE, []), strict=False)
        ratios = [one["enqueued_p99_ms"] / other["enqueued_p99_ms"] for one, other in pairs]
        table.add_row(
            name,
            *(f"{_middle(rounds, column):,.0f}" for column in columns),
            f"{median(ratios):.2f}" if ratios else "",
        )
    return table


def _faults(results: dict[str, list[Figures]], title: str) -> Table:
    columns = ("planned", "missed", "doubled", "late", "latest_s", "unplanned")
    table = Table("scheduler", *(column.replace("_", " ") for column in columns), title=title)
    for name, rounds in results.items():
        table.add_row(name, *(f"{_middle(rounds, column):,.0f}" for column in columns))
    return table


if __name__ == "__main__":
    main()

"""How fast the platform is beside others, on this machine: `make bench ARGS="--quick"`.

One run starts a PostgreSQL that is durable and a Redis in a temporary folder, and measures all systems in turn, in
rounds, so that a machine that is busy for a while is busy for all of them. It prints medians, and each system's
ratio to Celery with acks late in the same round. README.md beside this file says what each figure means.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from benchmarks import measures
from benchmarks.measures import Bench, Figures
from benchmarks.servers import Servers
from benchmarks.systems import SYSTEMS, Installed, NotMeasured, System, install

WHAT = ("drain", "latency", "single", "half", "bulk", "flat")
BASE = "acks_late"
# What a ratio is made of, for each measure.
MAIN = {"drain": "jobs_per_s", "latency": "p95_ms", "single": "p95_ms", "half": "p95_ms"}

# By measure, then by system: the figures of each round.
Results = dict[str, dict[str, list[Figures]]]

say = Console(stderr=True, highlight=False)


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.jobs", description=__doc__.split("\n")[0])
    parser.add_argument("--jobs", type=int, default=20_000, help="jobs to drain (default 20000)")
    parser.add_argument("--rounds", type=int, default=3, help="how often all is measured (default 3)")
    parser.add_argument("--seconds", type=float, default=20, help="length of a paced measure (default 20)")
    parser.add_argument("--bulk", type=int, default=100_000, help="rows to enqueue in bulk (default 100000)")
    parser.add_argument("--backlog", type=int, default=1_000_000, help="most rows of flat (default 1000000)")
    parser.add_argument("--only", default=",".join(SYSTEMS), help=f"systems, of {','.join(SYSTEMS)}")
    parser.add_argument("--what", default=",".join(WHAT), help=f"measures, of {','.join(WHAT)}")
    parser.add_argument("--quick", action="store_true", help="one short round: to see that all of it works")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure to FILE ('-': stdout)")
    parser.add_argument("--logs", type=Path, help="keep the output of the systems in this folder")
    parser.add_argument(
        "--peers-dir", type=Path, default=Path(__file__).parent / ".peers", help="where peers are installed"
    )
    given = parser.parse_args()
    if given.quick:
        given.jobs, given.rounds, given.seconds = min(given.jobs, 1000), 1, min(given.seconds, 4)
        given.bulk, given.backlog = min(given.bulk, 20_000), min(given.backlog, 100_000)
    given.only = chosen(parser, given.only, SYSTEMS)
    given.what = chosen(parser, given.what, WHAT)
    return given


def chosen(parser: argparse.ArgumentParser, given: str, known: Iterable[str]) -> list[str]:
    """Return the names in a list with commas; end the program where one is not known."""
    names = [name.strip() for name in given.split(",") if name.strip()]
    for name in names:
        if name not in known:
            parser.error(f"{name!r} is none of {', '.join(known)}")
    return names


def main() -> None:
    given = options()
    logs = given.logs or Path(tempfile.mkdtemp(prefix="kitaab-bench-logs-"))
    logs.mkdir(parents=True, exist_ok=True)
    missing: dict[str, str] = {}
    systems = installed([SYSTEMS[name] for name in given.only], given.peers_dir, missing)
    began = time.monotonic()
    with Servers() as servers:
        bench = Bench(servers, logs, jobs=given.jobs, seconds=given.seconds, bulk=given.bulk)
        results: Results = {}
        # Stopped half-way, it shows what it has.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        with suppress(KeyboardInterrupt):
            for number in range(given.rounds):
                _round(bench, systems, given, results, missing, f"round {number + 1} of {given.rounds}")
        machine = describe(servers)
    machine["minutes"] = round((time.monotonic() - began) / 60, 1)
    if not given.logs:
        shutil.rmtree(logs, ignore_errors=True)
    report = {
        "machine": machine,
        "jobs": given.jobs,
        "rounds": given.rounds,
        "seconds": given.seconds,
        "versions": {installed.system.name: installed.version for installed in systems},
        "not_measured": missing,
        "results": results,
    }
    tell(report, given.json, _show)


def tell(report: dict[str, Any], file: Path | None, show: Callable[[dict[str, Any]], None]) -> None:
    """Write the report to a file ('-': only to stdout), and show it."""
    written = json.dumps(report, indent=1) + "\n"
    if str(file) == "-":
        sys.stdout.write(written)
        return
    if file:
        file.write_text(written)
    show(report)


def installed(systems: Iterable[System], folder: Path, missing: dict[str, str]) -> list[Installed]:
    """Install them; those that cannot be go to `missing`, with the reason."""
    found = []
    for system in systems:
        try:
            found.append(install(system, folder))
        except NotMeasured as reason:
            missing[system.name] = str(reason)
            say.print(f"{system.name}: not measured: {reason}")
    return found


def _round(
    bench: Bench,
    systems: list[Installed],
    given: argparse.Namespace,
    results: Results,
    missing: dict[str, str],
    title: str,
) -> None:
    def measure(what: str, installed: Installed, run: Callable[[], Figures]) -> None:
        name = installed.system.name
        began = time.monotonic()
        try:
            figures = run()
        except NotMeasured as reason:
            missing[f"{name}, {what}"] = str(reason)
            say.print(f"{title}, {what}: {name}: not measured: {reason}")
            return
        results.setdefault(what, {}).setdefault(name, []).append(figures)
        main = next(iter(figures.items())) if what not in MAIN else (MAIN[what], figures[MAIN[what]])
        took = time.monotonic() - began
        say.print(f"{title}, {what}: {name}: {main[0]} {main[1]:,.1f}  [dim]({took:.0f} s)[/dim]")

    ours = [installed for installed in systems if installed.system.is_ours]
    if "drain" in given.what:
        for installed in systems:
            measure("drain", installed, lambda i=installed: measures.drain(bench, i))  # type: ignore[misc]  # a default binds it now
    if "latency" in given.what:
        for installed in systems:
            measure("latency", installed, lambda i=installed: measures.latency(bench, i))  # type: ignore[misc]  # as above
    if "single" in given.what:
        for installed in systems:
            measure("single", installed, lambda i=installed: measures.single(bench, i))  # type: ignore[misc]  # as above
    if "half" in given.what:
        for installed in systems:
            drained = results.get("drain", {}).get(installed.system.name)
            if drained:
                rate = median(figures["jobs_per_s"] for figures in drained)
                measure("half", installed, lambda i=installed, r=rate: measures.half(bench, i, r))  # type: ignore[misc]  # as above
    if "bulk" in given.what and ours:
        measure("bulk", ours[0], lambda: measures.bulk(bench, ours[0]))
    if "flat" in given.what:
        sizes = [rows for rows in measures.BACKLOGS if rows <= given.backlog]
        cases = [(rows, kind) for kind in ("finished", "waiting") for rows in sizes] + [(0, "old")]
        for rows, kind in cases:
            what = f"flat: {rows:,} {kind}" if rows else "flat: old transaction"
            for installed in ours:
                measure(what, installed, lambda i=installed, r=rows, k=kind: measures.flat(bench, i, r, k))  # type: ignore[misc]  # as above


def describe(servers: Servers) -> dict[str, Any]:
    """Return what the figures hang on: the machine, its load, and the versions."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "system": platform.platform(),
        "python": platform.python_version(),
        "postgresql": servers.postgres.version,
        "load_at_end": round(os.getloadavg()[0], 1),
    }


def _middle(rounds: list[Figures], name: str) -> float:
    return median(figures[name] for figures in rounds)


def _ratio(results: dict[str, list[Figures]], system: str, name: str) -> str:
    """Return the median of the ratios to Celery with acks late, round by round."""
    base = results.get(BASE)
    if not base or not results[system]:
        return ""
    pairs = zip(results[system], base, strict=False)
    return f"{median(one[name] / other[name] for one, other in pairs if other[name]):.2f}"


def where(report: Mapping[str, Any]) -> str:
    """Return the line above the tables."""
    machine = report["machine"]
    return (
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB, PostgreSQL "
        f"{machine['postgresql']}, Python {machine['python']}; rounds: {report['rounds']}, medians, "
        f"{machine['minutes']} minutes, load {machine['load_at_end']} at the end"
    )


def _show(report: dict[str, Any]) -> None:
    out = Console(highlight=False, width=max(110, Console().width))
    results = report["results"]
    out.print(where(report))
    if "drain" in results:
        table = Table(
            "system",
            "jobs/s",
            "x acks late",
            "CPU ms a job",
            "too many",
            "enqueued/s",
            title=f"Drain of {report['jobs']:,} jobs",
        )
        for name, rounds in results["drain"].items():
            table.add_row(
                name,
                f"{_middle(rounds, 'jobs_per_s'):,.0f}",
                _ratio(results["drain"], name, "jobs_per_s"),
                f"{_middle(rounds, 'cpu_ms'):.2f}",
                f"{_middle(rounds, 'effects_too_many'):.0f}",
                f"{_middle(rounds, 'enqueued_per_s'):,.0f}",
            )
        out.print(table)
    titles = {
        "latency": "50 jobs/s",
        "single": "700 jobs/s, one commit each",
        "half": "Half of its drain rate",
    }
    for what, title in titles.items():
        if what not in results:
            continue
        table = Table(
            "system",
            "jobs/s",
            "p50 ms",
            "p95 ms",
            "max ms",
            "behind s",
            "queue",
            title=f"{title}: enqueue to start",
        )
        for name, rounds in results[what].items():
            growing = sum(map(measures.is_growing, rounds)) * 2 > len(rounds)
            table.add_row(
                name,
                f"{_middle(rounds, 'sent_per_s'):,.0f}",
                *(f"{_middle(rounds, column):,.1f}" for column in ("p50_ms", "p95_ms", "max_ms", "behind_s")),
                "grows" if growing else "steady",
            )
        out.print(table)
    if "bulk" in results:
        for rounds in results["bulk"].values():
            out.print(
                f"Bulk: {_middle(rounds, 'client_rows_per_s'):,.0f} rows/s from Python, "
                f"{_middle(rounds, 'sql_rows_per_s'):,.0f} rows/s in SQL"
            )
    _show_flat(out, results)
    for name, reason in report["not_measured"].items():
        out.print(f"not measured: {name}: {reason}")


def _show_flat(out: Console, results: Results) -> None:
    flat = {what: systems for what, systems in results.items() if what.startswith("flat")}
    if not flat:
        return
    table = Table(
        "in the ledger", "system", "jobs/s", "us for a job", "first quarter/s", "last quarter/s", title="Flat"
    )
    for what, systems in flat.items():
        for name, rounds in systems.items():
            rate = _middle(rounds, "jobs_per_s")
            quarters = (f"{_middle(rounds, f'{end}_quarter_per_s'):,.0f}" for end in ("first", "last"))
            table.add_row(what.partition(": ")[2], name, f"{rate:,.0f}", f"{1e6 / rate:,.0f}", *quarters)
    out.print(table)


if __name__ == "__main__":
    main()

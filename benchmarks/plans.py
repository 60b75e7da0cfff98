"""Golden plans: how PostgreSQL runs the main queries of progress, node by node, without costs and names of partitions."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, TextClause, text

from kitaab_jobs.progress.jobs import BATCH
from kitaab_jobs.progress.queries.goals import COMPUTE
from kitaab_jobs.progress.queries.state import PLAIN_JOINS, values
from kitaab_jobs.progress.queries.suspects import SET, STATEMENTS

FOLDER = Path(__file__).parent / "plans"


def check(engine: Engine, days: Mapping[str, dt.date], *, write: bool) -> dict[str, str]:
    """Compare each plan with its file, or write the files; return a verdict for each."""
    found = {}
    for kind in ("merit", "target"):
        ids = range(1, BATCH + 1)
        now = dt.datetime.now(dt.UTC)
        found[f"suspects_{kind}"] = _outline(engine, SET, STATEMENTS[kind], values(days))
        found[f"compute_{kind}"] = _outline(
            engine,
            PLAIN_JOINS,
            COMPUTE[kind],
            {**values(days, ids), "sinces": [days["UTC"]] * len(ids), "now": now},
        )
    verdicts = {}
    for name, lines in found.items():
        file = FOLDER / f"{name}.txt"
        if write:
            file.parent.mkdir(exist_ok=True)
            file.write_text("\n".join(lines) + "\n", encoding="utf-8")
            verdicts[name] = "written"
        elif not file.exists():
            verdicts[name] = f"there is no {file.name}: run with --write-plans"
        else:
            verdicts[name] = (
                "as expected" if file.read_text(encoding="utf-8").splitlines() == lines else "DIFFERS"
            )
    return verdicts


def _outline(engine: Engine, settings: TextClause, query: TextClause, given: Mapping[str, Any]) -> list[str]:
    explain = text("EXPLAIN (FORMAT JSON) " + query.text).bindparams(*query._bindparams.values())
    with engine.connect() as connection:
        connection.execute(settings)
        plan = connection.scalar(explain, given)
        connection.rollback()
    return list(_lines(plan[0]["Plan"], 0))


def _lines(node: dict[str, Any], depth: int) -> Iterator[str]:
    """Give a line for each node; partitions look alike, and what repeats is said once."""
    words = [node["Node Type"], node.get("Join Type", ""), node.get("Strategy", "")]
    if node.get("Parallel Aware"):
        words.insert(0, "Parallel")
    name = node.get("CTE Name") or node.get("Relation Name") or node.get("Function Name") or ""
    words += [re.sub(r"_\d{4}$", "", name), f"[{node['Subplan Name']}]" if "Subplan Name" in node else ""]
    yield "  " * depth + " ".join(filter(None, words))
    said: set[tuple[str, ...]] = set()
    for child in node.get("Plans", []):
        lines = tuple(_lines(child, depth + 1))
        alike = (
            tuple(line.replace("Parallel ", "") for line in lines) if node["Node Type"] == "Append" else lines
        )
        if alike not in said:
            yield from lines
        said.add(alike)

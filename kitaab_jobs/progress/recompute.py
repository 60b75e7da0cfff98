"""Computing goals again because an operator asks: first the plan, then its goals in batches.

Each batch is a transaction of its own and computes what the entries say by then, so a plan that is out of date by
the time it is applied does no harm.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from itertools import groupby

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from kitaab_jobs.progress import jobs, rules
from kitaab_jobs.progress.queries import plan as queries

KINDS = ("merit", "target")


def of_person(engine: Engine, person: int | None) -> Iterator[tuple[str, list[int]]]:
    """Yield the kind and the ids of a person's live goals, or everybody's, a batch at a time."""
    for kind in KINDS:
        after = 0
        while True:
            with Session(engine) as session:
                ids = queries.live_ids(session, kind, person, after, jobs.BATCH)
            if not ids:
                break
            yield kind, ids
            after = ids[-1]


def plan(engine: Engine, kind: str, ids: Sequence[int], now: dt.datetime) -> list[queries.Planned]:
    """Return what computing these goals would change; nothing is locked or written."""
    with Session(engine) as session:
        return queries.plan(session, kind, ids, rules.today_everywhere(now))


def apply(engine: Engine, planned: Sequence[queries.Planned], now: dt.datetime) -> Iterator[jobs.Computed]:
    """Compute the planned goals, merits first as everywhere, and yield what each batch changed."""
    days = rules.today_everywhere(now)
    for kind, goals in groupby(sorted(planned, key=lambda one: (one.kind, one.id)), lambda one: one.kind):
        ids = [goal.id for goal in goals]
        for start in range(0, len(ids), jobs.BATCH):
            with Session(engine) as session, session.begin():
                done = jobs.compute(session, kind, dict.fromkeys(ids[start : start + jobs.BATCH]), days, now)
            yield done

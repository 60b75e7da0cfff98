"""What the progress jobs do. They know nothing of Celery."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import structlog
from sqlalchemy.orm import Session

from kitaab_jobs import contract
from kitaab_jobs.client import enqueue
from kitaab_jobs.progress import queries, rules
from kitaab_jobs.progress.queries import history, notices

# Goals that one statement computes: enough to make its planning cheap, few enough for the server's memory.
BATCH = 2000
# Notices for one job: one slow job holds up few.
CHUNK = 500
# Goals that somebody holds are looked at again after so many seconds at the earliest.
AGAIN_SECONDS = 1.0
# Differences that a reconcile names one by one; of more, it says how many there are.
NAMED = 100

log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Report:
    """What a pass did.

    `lag_seconds` is the age of the oldest mark that it took and that somebody waits for. `postponed`: so many goals
    were held by somebody else, and are marked again; that mark's age counts from then.
    """

    marks: int
    goals: int
    changed: int
    merits_completed: int
    targets_completed: int
    lag_seconds: float = 0.0
    postponed: int = 0


@dataclass(frozen=True, slots=True)
class Computed:
    """What computing goals changed, and how many of them somebody else held, so that they were only marked."""

    changed: list[queries.Changed]
    postponed: int


@dataclass(frozen=True, slots=True)
class Purged:
    """How many rows of history were removed."""

    rows: int


@dataclass(frozen=True, slots=True)
class Reconciled:
    """What a reconcile found: how many goals are live, how many were looked at closely, which were wrong.

    `marked` of them were marked, to be computed again by a refresh. `differences` says how many there were for each
    cause (`rules.CAUSES`); only `defect` is one. `defects` names them, up to a limit.
    """

    goals: int
    looked_at: int
    marked: int
    differences: dict[str, int]
    defects: list[str]


def refresh(session: Session, *, now: dt.datetime, limit: int) -> Report:
    """Compute the goals that up to `limit` marks concern, and follow up while marks remain.

    Targets whose time is up are computed a last time, up to `limit` as well. Marks, results and the follow-up job are
    one transaction: killed half-way, the marks stand.
    """
    days = rules.today_everywhere(now)
    taken = queries.take(session, limit)
    overdue = queries.overdue(session, days, limit)
    goals = taken.goals | {"target": dict.fromkeys(overdue) | taken.goals.get("target", {})}
    # Merits before targets, always.
    done = [
        compute(session, kind, goals[kind], days, now, background=taken.background.get(kind, ()))
        for kind in queries.KINDS
        if goals.get(kind)
    ]
    number = sum(map(len, goals.values()))
    postponed = sum(one.postponed for one in done)
    lag = (now - taken.oldest).total_seconds() if taken.oldest else 0.0
    # Where all are held by somebody, and were so just before, the next refresh comes soon enough. Older marks may
    # have others behind them that can be computed.
    only_held = 0 < number == postponed and lag < AGAIN_SECONDS
    if limit in (taken.marks, len(overdue)) and not only_held:
        enqueue(session, contract.PROGRESS_REFRESH, {"limit": limit})
    changed = [goal for one in done for goal in one.changed]
    completed = [goal.kind for goal in changed if goal.completed_now]
    return Report(
        taken.marks,
        number,
        len(changed),
        completed.count("merit"),
        completed.count("target"),
        round(max(lag, 0.0), 3),
        postponed,
    )


def reconcile(session: Session, *, now: dt.datetime) -> Reconciled:
    """Compare every goal with the entries, mark what differs, and say why it did.

    One scan finds the goals that may be wrong, and these are compared in bounded batches. It locks no goal and
    computes none: what differs is marked, and `progress.refresh` computes it as it does everything else, in batches with a
    commit each. So no goal is locked for longer than a batch takes, whatever is wrong.
    """
    days = rules.today_everywhere(now)
    causes = dict.fromkeys(rules.CAUSES, 0)
    defects: list[str] = []
    goals = looked_at = 0
    wrong: dict[str, list[int]] = {kind: [] for kind in queries.KINDS}
    for kind in queries.KINDS:
        goals += queries.goal_count(session, kind)
        suspects = queries.suspects(session, kind, days)
        looked_at += len(suspects)
        for ids in _batches(suspects):
            found = queries.differences(session, kind, ids, days)
            wrong[kind] += [one.id for one in found]
            for one in found:
                cause = rules.cause(one)
                causes[cause] += 1
                if cause == rules.DEFECT:
                    log.error(
                        "progress is wrong", action="progress_defect", kind=kind, id=one.id, as_of=one.as_of
                    )
                    defects += [f"{kind} {one.id}"] if len(defects) < NAMED else []
    for kind, ids in wrong.items():
        queries.mark(session, kind, ids, background=True)
    if marked := sum(causes.values()):
        enqueue(session, contract.PROGRESS_REFRESH, {})
    return Reconciled(goals, looked_at, marked, causes, defects)


def compute(
    session: Session,
    kind: str,
    goals: Mapping[int, dt.date | None],
    days: Mapping[str, dt.date],
    now: dt.datetime,
    *,
    background: Collection[int] = (),
) -> Computed:
    """Compute these merits or targets, and write in the same transaction what follows from a change.

    `goals` says for each since which day something has changed, None where any day may have. What follows is their
    history, and for a completion its notice with the job that sends it. Goals that somebody else holds are not waited
    for: a mark of theirs stands when that is over, in the background for those of `background`.
    """
    changed: list[queries.Changed] = []
    postponed = 0
    for ids in _batches(sorted(goals)):
        ours, held = queries.lock(session, kind, ids)
        queries.mark(session, kind, [id for id in held if id not in background])
        queries.mark(session, kind, [id for id in held if id in background], background=True)
        postponed += len(held)
        if ours:
            changed += _compute(session, kind, {id: goals[id] for id in ours}, days, now)
    return Computed(changed, postponed)


def _compute(
    session: Session,
    kind: str,
    goals: Mapping[int, dt.date | None],
    days: Mapping[str, dt.date],
    now: dt.datetime,
) -> list[queries.Changed]:
    changed = queries.compute(session, kind, goals, days, now)
    if changed:
        history.record(session, kind, [goal.id for goal in changed], days)
    if completed := [goal.id for goal in changed if goal.completed_now]:
        told = notices.record(session, kind, completed, days, now, rules.NOTICE_WITHIN_DAYS)
        for start in range(0, len(told), CHUNK):
            enqueue(session, contract.REMINDERS_NOTIFY, {"notice_ids": told[start : start + CHUNK]})
    return changed


def purge_history(session: Session, *, now: dt.datetime, limit: int) -> Purged:
    """Remove history that no chart of the last two years needs, and follow up while there is more."""
    first = now.date() - dt.timedelta(days=rules.HISTORY_DAYS)
    rows = [history.purge(session, kind, first, limit) for kind in ("merit", "target")]
    if limit in rows:
        enqueue(session, contract.PROGRESS_PURGE_HISTORY, {"limit": limit})
    return Purged(sum(rows))


def _batches(ids: Sequence[int]) -> Iterable[Sequence[int]]:
    return (ids[start : start + BATCH] for start in range(0, len(ids), BATCH))

"""What migrations have made: is it all there, and does it still protect?"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from kitaab_jobs.health.facts import Index, Kind, Partition
from kitaab_jobs.health.rules.finding import FAIL, WARN, Verdict, fail, listed, ok, warn
from kitaab_jobs.health.rules.limits import PARTITIONS_READY_DAYS, Limit

MIGRATE = "run 'kitaab-jobs migrate'"


class Right(NamedTuple):
    """Something that the worker must be allowed; without columns it is for the whole table."""

    object: str
    privilege: str
    columns: tuple[str, ...] = ()


def _on(privileges: str, tables: str) -> list[Right]:
    return [Right(table, privilege) for table in tables.split() for privilege in privileges.split()]


def _columns(privilege: str, table: str, columns: str) -> Right:
    return Right(table, privilege, tuple(columns.split()))


# What the migrations grant to kitaab_worker; a test compares it with a fresh database.
WORKER_TABLES: tuple[Right, ...] = (
    *_on("SELECT", "public.alembic_version jobs.partitioned_tables"),
    *_on("INSERT", "public.audit_log"),
    *_on("SELECT DELETE", "jobs.progress_marks"),
    *_on("SELECT INSERT UPDATE", "jobs.kinds jobs.queues jobs.deliveries jobs.notices jobs.zone_data"),
    *_on("SELECT INSERT UPDATE DELETE", "jobs.schedules jobs.processes jobs.jobs"),
    *_on("SELECT INSERT UPDATE DELETE", "jobs.merit_history jobs.target_history"),
    *_on("SELECT INSERT DELETE", "jobs.fires jobs.waiting_fires"),
    *_on("SELECT", "public.channel_opt_outs"),
    *_on("SELECT INSERT", "public.suppressed_addresses jobs.timetables"),
    *_on("SELECT DELETE", "public.push_subscriptions"),
    _columns("UPDATE", "public.push_subscriptions", "last_used_at"),
    _columns("SELECT", "public.users", "user_id timezone is_active deleted_at email email_verified language"),
    _columns("SELECT", "public.deed_items", "deed_item_id parent_deed_item_id"),
    _columns("SELECT", "public.entries", "entry_date user_id deed_item_id scale_value_id count_value"),
    _columns(
        "SELECT",
        "public.notifications",
        "notification_id user_id notification_time timezone is_active"
        " next_due_at next_due_date last_due_at last_due_date updated_at"
        " weekdays quiet_from quiet_until channels skip_if_recorded before_edit",
    ),
    _columns(
        "SELECT",
        "public.merits",
        "merit_id user_id name merit_type start_date duration_days is_active deleted_at"
        " percent is_satisfied completed_on completed_at as_of",
    ),
    _columns(
        "SELECT",
        "public.targets",
        "target_id user_id name target_type start_date end_date is_active deleted_at frozen_at"
        " percent is_satisfied completed_on completed_at as_of",
    ),
    _columns(
        "SELECT",
        "public.merit_items",
        "merit_item_id merit_id deed_item_id scale_value_id target_value direction",
    ),
    _columns(
        "SELECT",
        "public.target_items",
        "target_item_id target_id deed_item_id scale_value_id target_value direction",
    ),
    _columns("UPDATE", "public.merits", "percent is_satisfied completed_on completed_at as_of"),
    _columns("UPDATE", "public.targets", "percent is_satisfied completed_on completed_at as_of frozen_at"),
    _columns(
        "SELECT",
        "public.audit_log",
        "audit_log_id created_at action_type table_name record_id old_values new_values",
    ),
    _columns(
        "UPDATE",
        "public.notifications",
        "next_due_at next_due_date last_due_at last_due_date before_edit",
    ),
    _columns("UPDATE", "jobs.progress_marks", "marked_at"),
    _columns("INSERT", "jobs.progress_marks", "kind subject_id is_background"),
    _columns("UPDATE", "jobs.fires", "ended_as ended_at"),
)
WORKER_SCHEMAS = ("public", "jobs", "archive")
WORKER_FUNCTIONS = (
    "jobs.enqueue",
    "jobs.enqueue_many",
    "jobs.finish",
    "jobs.make_partition",
    "jobs.mark_items_of",
    "jobs.start",
)


def revision(found: str | None, known: Sequence[str]) -> Verdict:
    """Is the schema the one that this version of the package expects? `known` is in order, oldest first."""
    head = known[-1]
    if found is None:
        return fail("the database was never migrated", MIGRATE)
    if found == head:
        return ok(f"at revision {head}")
    if found in known:
        behind = len(known) - 1 - known.index(found)
        return fail(
            f"at revision {found}, {behind} behind {head}, which this version of kitaab-jobs needs", MIGRATE
        )
    return fail(
        f"at revision {found}, which this version of kitaab-jobs does not know (its newest is {head})",
        "deploy the version of kitaab-jobs that migrated the database",
    )


def grants(missing: Sequence[str]) -> Verdict:
    """Has the worker's role all the rights that jobs need? `missing` names those that it lacks."""
    if missing:
        return fail(
            f"the role of KITAAB_DATABASE_URL lacks {len(missing)} of its rights: {listed(missing)}",
            "connect as kitaab_worker or a member of it; if it was one, restore what the migrations grant",
        )
    return ok("the worker has the rights that jobs need")


def row_security(unprotected: Sequence[str], tables: int) -> Verdict:
    """Does row-level security stand on every table that holds a person's data?"""
    if unprotected:
        return fail(
            f"row-level security is off for {listed(unprotected)}: every person may read everyone's rows",
            f"as kitaab_admin: ALTER TABLE {unprotected[0]} ENABLE ROW LEVEL SECURITY",
        )
    return ok(f"row-level security stands on the {tables} tables and partitions that need it")


def partitions(tables: Iterable[str], found: Iterable[Partition], today: dt.date, ahead_days: int) -> Verdict:
    """Is there a partition for every day from yesterday on (it still is, in the west), and far enough ahead?

    `ahead_days` is what archive.make_partitions keeps ready: no more than that can be asked for.
    """
    limit = Limit(min(PARTITIONS_READY_DAYS.warn, ahead_days), PARTITIONS_READY_DAYS.fail)
    spans = {table: [p for p in found if p.table == table and not p.detach_pending] for table in tables}
    ready = {
        table: (_covered_until(parts, today - dt.timedelta(days=1)) - today).days
        for table, parts in spans.items()
    }
    if not ready:
        return fail("jobs.partitioned_tables is empty: nobody makes partitions", MIGRATE)
    levels = {table: limit.level(days) for table, days in ready.items()}
    for level in (FAIL, WARN):
        if bad := [table for table in ready if levels[table] == level]:
            missing = [f"{t} from {today + dt.timedelta(days=max(ready[t], 0))} on" for t in bad]
            return Verdict(
                level,
                f"there is no partition of {listed(missing)}: whoever writes there will be refused",
                "see that beat and a worker run, and enqueue the job archive.make_partitions",
            )
    return ok(f"the partitions of {', '.join(sorted(ready))} reach {min(ready.values())} days ahead or more")


def _covered_until(parts: Iterable[Partition], day: dt.date) -> dt.date:
    """Return the first day from `day` on that no partition holds."""
    for part in sorted((p for p in parts if p.low and p.high), key=lambda p: p.low or day):
        if part.low and part.high and part.low <= day < part.high:
            day = part.high
    return day


def detached(found: Iterable[Partition]) -> Verdict:
    """Was a DETACH CONCURRENTLY left half-done? It blocks the next one on the same table."""
    pending = [p for p in found if p.detach_pending]
    if pending:
        first = pending[0]
        return warn(
            f"being detached and not yet done: {listed(p.name for p in pending)}",
            f"if nobody is at it now: ALTER TABLE {first.table} DETACH PARTITION {first.name} FINALIZE",
        )
    return ok("no partition is half detached")


def default_partitions(found: Iterable[Partition]) -> Verdict:
    """Is there a DEFAULT partition? It takes rows in silence, and forbids DETACH CONCURRENTLY."""
    default = [p for p in found if p.low is None and not p.detach_pending]
    if default:
        return warn(
            f"{listed(p.name for p in default)} is a DEFAULT partition, which keeps others from being detached",
            "make partitions for its rows, move them, and detach it",
        )
    return ok("no table has a DEFAULT partition")


def indexes(invalid: Sequence[Index]) -> Verdict:
    """Did an index fail to build? It costs writes, serves no read, and a unique one guards nothing."""
    if not invalid:
        return ok("every index is valid")
    text = listed(f"{index.name} on {index.table}" for index in invalid)
    remedy = f"REINDEX INDEX CONCURRENTLY {invalid[0].name}, or drop it where it ends in _ccnew or _ccold"
    if any(index.unique for index in invalid):
        return fail(f"invalid, and a unique one lets duplicates in: {text}", remedy)
    return warn(f"invalid, so of no use: {text}", remedy)


def kinds(stored: Iterable[Kind], wanted: Iterable[Kind]) -> Verdict:
    """Does jobs.kinds know the jobs of contract.py? SQL callers can enqueue only those."""
    known = {kind.name: kind for kind in stored}
    asked = {kind.name: kind for kind in wanted}
    if missing := sorted(asked.keys() - known.keys()):
        return fail(f"jobs.kinds lacks {listed(missing)}, so they cannot be enqueued", MIGRATE)
    if changed := sorted(name for name, kind in asked.items() if known[name] != kind):
        return warn(f"jobs.kinds has other queues or limits than contract.py for {listed(changed)}", MIGRATE)
    return ok(f"jobs.kinds knows the {len(asked)} jobs")

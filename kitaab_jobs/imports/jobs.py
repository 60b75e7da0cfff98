"""What an import does. It knows nothing of the command line."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice

from sqlalchemy import Connection
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from kitaab_jobs.db.retries import is_contention
from kitaab_jobs.imports import queries
from kitaab_jobs.imports.catalogue import Row, resolve
from kitaab_jobs.imports.people import People
from kitaab_jobs.imports.reader import Record, Sheet
from kitaab_jobs.imports.report import Refusal, Refusals, Report
from kitaab_jobs.imports.rules import BadLine, Draft, Span, no_partition, read_line
from kitaab_jobs.imports.wording import Nearest, shown

READ_BATCH = 5_000
WRITE_BATCH = 20_000
ATTEMPTS = 8

# Called with what is being done ("reading" or "writing"), how far it is, and of how many, if known.
Progress = Callable[[str, int, int | None], None]


def run(
    connection: Connection,
    sheet: Sheet,
    *,
    now: dt.datetime,
    strict: bool = False,
    dry_run: bool = False,
    on_progress: Progress | None = None,
) -> Report:
    """Import the good lines of `sheet`: none of them if `strict` and one is bad, or if `dry_run`.

    The import is the caller's transaction, which must be READ COMMITTED: it is there when that commits,
    and where this raises that must be rolled back. Where others hold locks it waits and tries again;
    after several attempts the database's error is raised. Raises `UsageError` where the file turns out
    not to be text in its encoding.

    1. Lines are read in batches, what they name is looked up, and the good ones are staged.
    2. Lines that contradict an earlier one are refused.
    3. What is staged is written in a savepoint, in the order of its key.
    """
    tell = on_progress or _tell_nobody
    people = People(connection, now)
    queries.make_staging(connection)
    read, refused = _stage(connection, sheet, people, tell)
    queries.make_entries(connection)
    refused = Refusals.in_order(refused, _contradictions(connection))
    good = queries.count_lines(connection)
    if dry_run or (strict and refused):
        done = _not_written(connection, Refusals())
    else:
        done = _write(connection, tell, strict=strict)
        refused = Refusals.in_order(refused, done.gone)
    return Report(
        read=read,
        added=done.added,
        changed=done.changed,
        unchanged=good - len(done.gone) - done.added - done.changed,
        refused=len(refused),
        written=done.written,
        refusals=refused,
        notices=tuple(
            f"the stored time zone {shown(zone)} is no IANA zone and counts as UTC"
            for zone in sorted(people.unknown_zones)
        ),
    )


def _tell_nobody(_doing: str, _done: int, _total: int | None) -> None:
    pass


def _stage(connection: Connection, sheet: Sheet, people: People, tell: Progress) -> tuple[int, Refusals]:
    """Stage the good lines; return how many lines there are, and the bad ones."""
    partitions, nearest = queries.partitions(connection), Nearest()
    records, refused, read = sheet.records(), Refusals(), 0
    while batch := list(islice(records, READ_BATCH)):
        bad: list[Refusal] = []
        drafts = _drafts(sheet, batch, bad)
        people.learn(draft.email for draft in drafts)
        queries.stage(connection, _rows(drafts, people, partitions, nearest, bad))
        for line, reason in sorted(bad):
            refused.add(line, reason)
        read += len(batch)
        tell("reading", read, None)
    return read, refused


def _drafts(sheet: Sheet, batch: Sequence[Record], bad: list[Refusal]) -> list[Draft]:
    drafts = []
    for line, fields, problem in batch:
        if problem:
            bad.append(Refusal(line, problem))
            continue
        try:
            drafts.append(read_line(sheet.layout, line, fields))
        except BadLine as reason:
            bad.append(Refusal(line, str(reason)))
    return drafts


def _rows(
    drafts: Sequence[Draft], people: People, partitions: Sequence[Span], nearest: Nearest, bad: list[Refusal]
) -> list[Row]:
    rows = []
    for draft in drafts:
        try:
            rows.append(resolve(draft, people.find(draft.email), partitions, nearest))
        except BadLine as reason:
            bad.append(Refusal(draft.line, str(reason)))
    return rows


def _contradictions(connection: Connection) -> Refusals:
    """Take out the staged lines that say something else than an earlier one, and return them."""
    refused = Refusals()
    for row in queries.conflicts(connection):
        what = f"{shown(row.item)} of {shown(row.email)} on {row.entry_date}"
        other = (
            f"the value {shown(row.first_value)}, not {shown(row.value)}"
            if row.value != row.first_value
            else "another note"
        )
        refused.add(row.line, f"line {row.first_line} gives {what} {other}: keep one of them")
    if refused:
        queries.drop_conflicts(connection)
    return refused


@dataclass(frozen=True, slots=True)
class _Written:
    """What became of the staged entries, in lines. `gone` are those whose item vanished meanwhile."""

    written: bool
    added: int
    changed: int
    gone: Refusals


def _write(connection: Connection, tell: Progress, *, strict: bool) -> _Written:
    """Write the staged entries, again from the start of this step where somebody is in the way.

    A deadlock cannot be solved batch by batch: others wait for locks that earlier batches took, and
    only the rollback of the one savepoint around all of them gives those back.
    """
    for attempt in Retrying(
        retry=retry_if_exception(lambda e: is_contention(e) or queries.partition_was_lost(e)),
        stop=stop_after_attempt(ATTEMPTS),
        wait=wait_random_exponential(multiplier=0.2, max=10),
        reraise=True,
    ):
        with attempt, connection.begin_nested():
            queries.lock_named(connection)
            gone = _gone(connection)
            if strict and gone:
                return _not_written(connection, gone)
            return _write_batches(connection, gone, tell)
    raise AssertionError("unreachable")


def _write_batches(connection: Connection, gone: Refusals, tell: Progress) -> _Written:
    fates = queries.count_fates(connection)
    total = fates["added"][0] + fates["changed"][0]
    written = {"changed": 0, "added": 0}
    done = 0
    for fate in written:
        number, last = fates[fate]
        for after in range(0, last, WRITE_BATCH):
            written[fate] += queries.write(connection, fate, after, after + WRITE_BATCH)
            tell("writing", done + min(after + WRITE_BATCH, number), total)
        done += number
    return _Written(True, written["added"], written["changed"], gone)


def _not_written(connection: Connection, gone: Refusals) -> _Written:
    fates = queries.count_fates(connection)
    return _Written(False, fates["added"][0], fates["changed"][0], gone)


def _gone(connection: Connection) -> Refusals:
    refused = Refusals()
    rows = queries.drop_gone(connection)
    partitions = queries.partitions(connection) if rows else []
    for row in rows:
        refused.add(
            row.line,
            "its person, item or scale value was deleted while the file was read: import the file again"
            if row.has_partition
            else no_partition(row.entry_date, partitions),
        )
    return refused

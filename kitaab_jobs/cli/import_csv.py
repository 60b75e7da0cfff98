"""`kitaab-jobs import`: entries from a CSV file into the database."""

from __future__ import annotations

import inspect
import json
import os
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from kitaab_jobs.errors import UsageError

if TYPE_CHECKING:
    from kitaab_jobs.imports.jobs import Progress
    from kitaab_jobs.imports.reader import Sheet
    from kitaab_jobs.imports.report import Report

SUMMARY = "Import entries from a CSV of another tracker."
DELIMITERS = {"comma": ",", "semicolon": ";", "tab": "\t", "\\t": "\t"}
# Without a terminal: one line about the progress in so many seconds.
QUIET_SECONDS = 10.0


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("import", help=f"{SUMMARY}\n\n{inspect.getdoc(import_csv)}")(import_csv)


def import_csv(
    csv: Annotated[str, typer.Argument(metavar="CSV", help="The file; - is standard input.")],
    strict: Annotated[bool, typer.Option("--strict", help="Import nothing if any line is bad.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check and report; write nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Report as JSON.")] = False,
    encoding: Annotated[str, typer.Option(help="The file's encoding, such as cp1252 or utf-16.")] = "utf-8",
    delimiter: Annotated[
        str | None,
        typer.Option(help="comma, semicolon, tab, or another character [default: detected]"),
    ] = None,
) -> None:
    """Import the good lines in one transaction and report each bad one with its number and its reason.

    The columns are email, deed, item, date, value (or count and scale) and note, in any order. Lines
    that are stored already change nothing. Exit codes: 0 every line was fine, 1 lines were refused or
    the database failed, 2 the file or the command is wrong as a whole and nothing was written.
    """
    from kitaab_jobs.imports.reader import Sheet

    with _opened(csv) as stream, _named(csv):
        sheet = Sheet(stream, encoding=encoding, delimiter=_delimiter(delimiter))
        with _progress(stream) as on_progress:
            report = _run(sheet, strict=strict, dry_run=dry_run, on_progress=on_progress)
    _write_json(report, dry_run=dry_run) if as_json else _write_text(csv, report, dry_run=dry_run)
    if report.refused:
        raise typer.Exit(1)


def _run(sheet: Sheet, *, strict: bool, dry_run: bool, on_progress: Progress) -> Report:
    """Import over the owner's engine; a failure of the database is a `ServerError` of one line."""
    from kitaab_jobs.db.engines import owner
    from kitaab_jobs.db.refusals import explained
    from kitaab_jobs.imports.jobs import run
    from kitaab_jobs.settings import settings

    config = settings()
    engine = owner(config, "kitaab-jobs import").execution_options(isolation_level="READ COMMITTED")
    # It may have been lost during the commit, and then nobody knows; a second import always does.
    again = "import the file again, which changes nothing twice"
    with explained(config.admin, setting="KITAAB_ADMIN_URL", again=again), engine.begin() as connection:
        return run(
            connection,
            sheet,
            now=datetime.now(UTC),
            strict=strict,
            dry_run=dry_run,
            on_progress=on_progress,
        )


@contextmanager
def _opened(path: str) -> Iterator[BinaryIO]:
    """Open the file; raise `UsageError` where there is none that can be read."""
    if path == "-":
        yield sys.stdin.buffer
        return
    try:
        stream = open(path, "rb")  # noqa: SIM115 - closed below; only opening it may fail as it does here
    except FileNotFoundError:
        raise UsageError(
            f"there is no file {path}", remedy="give the path of a CSV file, or - for standard input"
        ) from None
    except IsADirectoryError:
        raise UsageError(f"{path} is a directory", remedy="give the path of a CSV file in it") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(
            f"{path} cannot be read: {reason}", remedy="give a CSV file that you may read"
        ) from None
    with stream:
        yield stream


@contextmanager
def _named(path: str) -> Iterator[None]:
    """Put the file's name before what is wrong with it as a whole."""
    from kitaab_jobs.errors import SettingsError

    try:
        yield
    except SettingsError:
        raise
    except UsageError as error:
        name = "standard input" if path == "-" else path
        raise UsageError(f"{name}: {error.message}", remedy=error.remedy) from None


def _delimiter(given: str | None) -> str | None:
    if given is None:
        return None
    found = DELIMITERS.get(given, given)
    if len(found) != 1 or found.isalnum() or found in '"\r\n\0 ':
        raise UsageError(
            f"--delimiter {given!r} is not one character that can stand between fields",
            remedy=f"give {', '.join(DELIMITERS)}, or a character such as |",
        )
    return found


# --- progress ------------------------------------------------------------------------------------


@contextmanager
def _progress(stream: BinaryIO) -> Iterator[Progress]:
    """Show how far the import is, on stderr: a bar on a terminal, a line now and then elsewhere."""
    if not sys.stderr.isatty():
        yield _plain_progress()
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[lines]:,} lines"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        size = _size(stream)
        tasks = {"reading": bar.add_task("reading", total=size, lines=0)}

        def show(doing: str, done: int, total: int | None) -> None:
            if doing not in tasks:
                tasks[doing] = bar.add_task(doing, total=total, lines=0)
            at = stream.tell() if doing == "reading" and size else done
            bar.update(tasks[doing], completed=at, lines=done)

        yield show


def _plain_progress() -> Progress:
    last = time.monotonic()

    def show(doing: str, done: int, total: int | None) -> None:
        nonlocal last
        if time.monotonic() - last >= QUIET_SECONDS:
            last = time.monotonic()
            typer.echo(f"{doing}: {done:,}{f' of {total:,}' if total else ''} lines", err=True)

    return show


def _size(stream: BinaryIO) -> int | None:
    """Return the size in bytes of a regular file; None of a pipe."""
    try:
        status = os.fstat(stream.fileno())
    except OSError:
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None


# --- the report ----------------------------------------------------------------------------------


def _write_text(path: str, report: Report, *, dry_run: bool) -> None:
    """Write the refused lines to stderr, and the counts to stdout."""
    for notice in report.notices:
        typer.echo(f"notice: {notice}", err=True)
    for line, reason in report.refusals:
        typer.echo(f"line {line}: {reason}", err=True)
    name = "standard input" if path == "-" else path
    counts = f"{report.unchanged:,} unchanged, {report.refused:,} refused"
    if report.written:
        counts = f"{report.added:,} added, {report.changed:,} changed, {counts}"
    else:
        why = "dry run" if dry_run else "--strict, and lines were refused"
        counts = (
            f"nothing was written ({why}): {report.added:,} to add, {report.changed:,} to change, {counts}"
        )
    typer.echo(f"{name}: {report.read:,} lines read: {counts}")


def _write_json(report: Report, *, dry_run: bool) -> None:
    """Write one JSON object, piece by piece: there may be a million refused lines."""
    head = {
        name: getattr(report, name)
        for name in ("read", "added", "changed", "unchanged", "refused", "written")
    }
    head |= {"dry_run": dry_run, "notices": list(report.notices)}
    typer.echo(json.dumps(head)[:-1] + ', "refused_lines": [', nl=False)
    for number, (line, reason) in enumerate(report.refusals):
        piece = json.dumps({"line": line, "reason": reason}, ensure_ascii=False)
        typer.echo(f"{',' if number else ''}\n  {piece}", nl=False)
    typer.echo("]}")

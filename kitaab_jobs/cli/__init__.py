"""The command line. One module per group of commands, imported only when it is asked for.

A module has `register(app)`, which adds its command, or its group of commands, under the name that
stands in `COMMANDS`. Whatever is refused ends as one line on stderr:

    error: <what was wrong, with which value>: <what to do>
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, NamedTuple

import typer

from kitaab_jobs.cli.interruption import is_interruption
from kitaab_jobs.errors import KitaabError

INTERRUPTED = 130


class Command(NamedTuple):
    """A command or a group: its name, the module that registers it, and its line in `--help`."""

    name: str
    module: str
    summary: str


COMMANDS = (
    Command("up", "kitaab_jobs.cli.up", "Run PostgreSQL, Redis, workers, beat and Flower in this terminal."),
    Command("demo", "kitaab_jobs.cli.demo", "Run the whole platform on sample data and show what it does."),
    Command("doctor", "kitaab_jobs.cli.doctor", "Check what is configured, reachable, too old or unsafe."),
    Command("migrate", "kitaab_jobs.cli.migrate", "Bring the database's schema up to date, as its owner."),
    Command("seed", "kitaab_jobs.cli.seed", "Write sample data that looks like life."),
    Command("import", "kitaab_jobs.cli.import_csv", "Import entries from a CSV of another tracker."),
    Command("enqueue", "kitaab_jobs.cli.enqueue", "Enqueue one job."),
    Command(
        "reminders", "kitaab_jobs.cli.reminders", "Say when reminders come, and why somebody got one or not."
    ),
    Command("jobs", "kitaab_jobs.cli.jobs", "Look at jobs, replay the dead, cancel, purge."),
    Command("schedules", "kitaab_jobs.cli.schedules", "Look at schedules, add, pause, run, backfill."),
    Command("progress", "kitaab_jobs.cli.progress", "See how far people are and why, and compute it again."),
)


def build(words: Sequence[str] | None = None) -> typer.Typer:
    """Return the application.

    Of the modules, only that of the first command in `words` is imported, so that `--help` is fast;
    all of them without `words`.
    """
    app = typer.Typer(
        name="kitaab-jobs",
        help="Durable jobs and schedules on Celery and PostgreSQL, for Kitaab.",
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,  # plain text: a message in a box is not one line
        pretty_exceptions_enable=False,  # it would print local variables, and passwords are among them
    )
    app.callback()(_root)
    asked = None if words is None else next((word for word in words if not word.startswith("-")), "")
    for command in COMMANDS:
        if asked in (None, command.name):
            import_module(command.module).register(app)
        else:
            app.command(command.name, help=command.summary)(_not_loaded)
    return app


def main() -> None:
    """Run the command line and exit: 0 done, 1 failed, 2 wrong usage, 130 interrupted."""
    words = sys.argv[1:]
    debug = "--debug" in words
    if debug:
        words.remove("--debug")  # wherever it stands, since one adds it to the end of a line that failed
    sys.exit(run(lambda: build(words)(words), debug=debug))


def run(door: Callable[[], object], *, debug: bool = False) -> int:
    """Call `door` and return the exit code; an error is told in one line, or raised with `debug`."""
    try:
        door()
        sys.stdout.flush()
    except SystemExit as done:
        return _exit_code(done)
    except BrokenPipeError:
        # Whoever read our output has left. Nothing more may be flushed to it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:
        if is_interruption(error):
            return INTERRUPTED
        if debug:
            raise
        known = error if isinstance(error, KitaabError) else _of_postgresql(error)
        said = (
            str(error)
            if isinstance(error, OSError)
            else f"{type(error).__name__}: {error}: run it with --debug for the traceback"
        )
        text = str(known or said)
        typer.echo(f"error: {' '.join(text.split())}", err=True)
        return known.exit_code if known else 1
    return 0


def _of_postgresql(error: Exception) -> KitaabError | None:
    """Return what an error of PostgreSQL means; None for any other."""
    if "psycopg" not in sys.modules:  # `--help` imports neither
        return None
    import psycopg
    from sqlalchemy.exc import DBAPIError

    from kitaab_jobs.db.refusals import explain
    from kitaab_jobs.settings import settings

    if not isinstance(error, DBAPIError | psycopg.Error):
        return None
    try:
        url = settings().database
    except KitaabError:  # an embedded stack that has stopped meanwhile
        url = "postgresql://..."
    return explain(error, url)


def _exit_code(done: SystemExit) -> int:
    if isinstance(done.code, int):
        return done.code
    return 0 if done.code is None else 1


def _root(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", is_eager=True, callback=lambda on: _version(on)),
    ] = False,
) -> None:
    _ = debug, version  # `main` has taken the first away, and the second has ended the program


def _version(asked: bool) -> None:
    if asked:
        try:
            typer.echo(f"kitaab-jobs {version('kitaab-jobs')}")
        except PackageNotFoundError:
            typer.echo("kitaab-jobs (not installed)")
        raise typer.Exit


def _not_loaded() -> None:
    """Stand in the list of commands for one that is not imported."""

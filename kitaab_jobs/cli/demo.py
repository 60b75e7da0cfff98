"""`kitaab-jobs demo`: a fresh machine to a running platform with data, live."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Annotated

import typer

from kitaab_jobs.cli.bars import progress
from kitaab_jobs.cli.interruption import until_interrupted
from kitaab_jobs.cli.times import span
from kitaab_jobs.cli.up import DataDir, migrate, refuse_without_shared_memory, stoppable
from kitaab_jobs.errors import UsageError

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from kitaab_jobs.cli.demo_view import View
    from kitaab_jobs.devstack.stack import Stack

ENTRY_EVERY_SECONDS = 4.0
LOOK_EVERY_SECONDS = 0.5
PEOPLE_REMINDED_SOON = 12


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("demo", help="Run the whole platform on sample data and show what it does.")(demo)


def demo(
    lasting: Annotated[
        str | None, typer.Option("--for", help="End by itself after this time: 60s, 5m, 1h.", metavar="TIME")
    ] = None,
    people: Annotated[int, typer.Option(min=1, help="People in the sample data.")] = 500,
    years: Annotated[int, typer.Option(min=1, max=4, help="Years of entries.")] = 3,
    seed: Annotated[int, typer.Option(help="The same number gives the same people.")] = 1,
    data_dir: DataDir = None,
) -> None:
    """Start everything, load sample data where there is none, and show live what runs.

    The data stays in the folder, so a second demo starts at once.
    """
    from kitaab_jobs.cli.demo_view import View
    from kitaab_jobs.devstack.processes import flower_address, platform_processes
    from kitaab_jobs.devstack.stack import Stack
    from kitaab_jobs.devstack.supervisor import Supervisor
    from kitaab_jobs.settings import Settings

    seconds = None if lasting is None else span(lasting, "--for").total_seconds()
    settings = Settings.load(data_dir=data_dir) if data_dir else Settings.load()
    refuse_without_shared_memory()
    refuse_real_servers()
    view = View()
    with stoppable() as on_second_signal, Stack(settings) as stack:
        os.environ["KITAAB_DATA_DIR"] = str(stack.data_dir)  # for what asks for settings() in here
        view.say("PostgreSQL and Redis run; the schema is brought up to date")
        migrate(stack)
        load_people(stack, view, people=people, years=years, seed=seed)
        supervisor = Supervisor(
            logs=stack.logs, env=stack.child_env(), servers=stack.servers, report=view.say
        )
        on_second_signal(supervisor.hurry)
        with supervisor:
            processes = platform_processes(stack.data_dir)
            supervisor.start([*([stack.mail.process] if stack.mail else []), *processes])
            with until_interrupted():
                view.places = {
                    "Flower": flower_address(processes) or "",
                    "Mail": stack.mail.address if stack.mail else "",
                    "psql": stack.psql,
                    "Logs": str(stack.logs),
                }
                act(stack, view, seconds)
        view.say("Stopping ...")
    view.summary()


def load_people(stack: Stack, view: View, *, people: int, years: int, seed: int) -> None:
    """Load the sample where the database has no people yet."""
    import datetime as dt

    from sqlalchemy import text

    from kitaab_jobs.db.engines import owner
    from kitaab_jobs.devstack.sample import load

    engine = owner(stack.settings, "kitaab-jobs demo")
    with engine.connect() as connection:
        there = connection.scalar(text("SELECT count(*) FROM users"))
    if there:
        view.say(f"{there} people are there from an earlier demo")
        return
    with progress(view.console, view.say) as on_progress:
        report = load(
            engine,
            people=people,
            years=years,
            seed=seed,
            today=dt.datetime.now(dt.UTC).date(),
            on_progress=on_progress,
        )
    view.say(
        f"{report.people} people in {report.zones} zones and {report.entries:,} entries in {report.seconds:.0f} s"
    )


def act(stack: Stack, view: View, seconds: float | None) -> None:
    """Let people write and the platform work, and show it, until the time is over.

    PostgreSQL may go away meanwhile: the supervisor starts it again.
    """
    from kitaab_jobs.cli.patience import Patience
    from kitaab_jobs.devstack.people_at_work import PeopleAtWork
    from kitaab_jobs.devstack.watch import Watch

    engine = _engine(stack)
    patience = Patience(view.say)
    started = time.monotonic()
    try:
        watch = patience.until_done(lambda: Watch(engine))
        people = patience.until_done(lambda: PeopleAtWork(engine, watch.since))
        patience.until_done(lambda: _enqueue_nightly(engine))
        moved = patience.until_done(lambda: people.move_reminders(watch.since, PEOPLE_REMINDED_SOON))
        view.say(f"{moved} people move their reminder to the coming minute of their zone")
        view.say("the nightly jobs (partitions, reconcile) are enqueued once, so that they can be seen")
        written = time.monotonic()
        with view.live(seconds):
            while seconds is None or time.monotonic() - started < seconds:
                with patience.outage():
                    if time.monotonic() - written >= ENTRY_EVERY_SECONDS:
                        view.waits_for(people.record_entry())
                        written = time.monotonic()
                    view.update(watch, people)
                time.sleep(LOOK_EVERY_SECONDS)
    finally:
        engine.dispose()


def _engine(stack: Stack) -> Engine:
    """Return a pooled engine as the owner: the demo looks twice a second, and reads names."""
    from sqlalchemy import create_engine

    from kitaab_jobs.db.engines import connect_args, sqlalchemy_url

    return create_engine(
        sqlalchemy_url(stack.settings.admin),
        pool_pre_ping=True,
        hide_parameters=True,
        connect_args=connect_args(stack.settings, name="kitaab-jobs demo"),
    )


def _enqueue_nightly(engine: Engine) -> None:
    from kitaab_jobs.client import enqueue
    from kitaab_jobs.contract import ARCHIVE_MAKE_PARTITIONS, PROGRESS_RECONCILE

    with engine.begin() as connection:
        for nightly in (ARCHIVE_MAKE_PARTITIONS, PROGRESS_RECONCILE):
            enqueue(connection, nightly, unique_key="demo")


def refuse_real_servers() -> None:
    """The demo writes made-up people, and to them, so it keeps away from servers that the environment names."""
    for name in ("KITAAB_DATABASE_URL", "KITAAB_ADMIN_URL", "KITAAB_SMTP_URL"):
        if os.environ.get(name):
            raise UsageError(
                f"{name} is set, and the demo writes made-up people",
                remedy=f"unset {name} for the demo, or use 'kitaab-jobs up' and 'kitaab-jobs seed'",
            )

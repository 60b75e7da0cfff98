"""docs/schedules.md says what is true: its commands print what it shows."""

from __future__ import annotations

import datetime as dt
import getpass
import re
import shlex
import socket

import pytest
from sqlalchemy import Engine

from tests.cli.conftest import ROOT, Command
from tests.cli.rows import add
from tests.cli.schedules import fire, put, utc
from tests.cli.test_docs import id, in_a_shell, normal, sessions

PAGE = (ROOT / "docs" / "schedules.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")

# Where the page looks into the past or the future, the dates are its own.
DATED = ("next ", "history ", "show ")


@pytest.fixture
def timetable_of_page(timetable: Engine) -> Engine:
    """The schedules that the page tells of."""
    now = dt.datetime.now(dt.UTC).replace(microsecond=0)
    put(timetable, "progress.refresh", "every 3s", source="file", next_fire_at=now + dt.timedelta(minutes=5),
        note="an entry shows in its merit within seconds")  # fmt: skip
    put(timetable, "reminders.dispatch", "* * * * *", job="reminders.dispatch", source="file",
        next_fire_at=now + dt.timedelta(minutes=6), note="reminders are due at full minutes",
        paused_at=now, paused_by="amal@host", paused_note="SMTP is moved")  # fmt: skip
    put(timetable, "report", "30 2 * * *", job="progress.reconcile", zone="America/New_York", failures=1,
        catch_up_window=dt.timedelta(hours=3), pause_after_failures=3, note="the night's figures",
        next_fire_at=utc("2099-11-26T07:30"))  # fmt: skip
    fire(timetable, "report", utc("2026-11-23T07:30"), "missed", recorded_at=utc("2026-11-24T08:10:02"),
         reason="later fires were due, up to 2026-11-24T07:30:00+00:00 at least")  # fmt: skip
    fire(timetable, "report", utc("2026-11-24T07:30"), "fired", recorded_at=utc("2026-11-24T08:10:02"), job_id=id(4),
         ended_as="succeeded", ended_at=utc("2026-11-24T08:10:09"))  # fmt: skip
    fire(
        timetable,
        "report",
        utc("2026-11-25T07:30"),
        "fired",
        recorded_at=utc("2026-11-25T07:30"),
        job_id=id(5),
    )
    add(timetable, "dead", id=id(5), name="progress.reconcile",
        error="OperationalError: canceling statement due to lock timeout")  # fmt: skip
    return timetable


def said(line: str, text: str) -> str:
    """Return what a command printed without what differs from one run to the next."""
    text = text.replace(f"{getpass.getuser()}@{socket.gethostname()}", "amal@host")
    if not any(f"schedules {word}" in line for word in DATED):
        text = re.sub(r"\b[A-Z][a-z]{2} \d{4}-\d\d-\d\d", "<day>", text)
    return normal(text)


def test_each_command_prints_what_the_page_shows(command: Command, timetable_of_page: Engine) -> None:
    assert timetable_of_page is not None
    told = sessions(PAGE)
    assert len(told) > 15
    for line, shown in told:
        if "|" in line:
            printed = in_a_shell(line)
        else:
            _, out, err = command(*shlex.split(line)[1:])
            printed = out + err
        assert said(line, printed) == said(line, shown), line


def test_each_command_and_option_is_on_the_page() -> None:
    from typer.main import get_command

    from kitaab_jobs import cli

    group = get_command(cli.build(["schedules"])).commands["schedules"]  # type: ignore[attr-defined]
    shown = {line.split()[2] for line, _ in sessions(PAGE)}
    assert set(group.commands) == shown
    options = {
        o
        for each in group.commands.values()
        for p in each.params
        for o in p.opts
        if p.param_type_name == "option"
    }
    assert {o for o in options if o not in PAGE} - {"--help"} == set()


def test_the_readme_leads_here() -> None:
    assert "(docs/schedules.md)" in README

"""docs/reminders.md says what is true."""

from __future__ import annotations

import re
import shlex

import pytest
from sqlalchemy import Connection, text

from kitaab_jobs import cli
from tests.cli.conftest import ROOT

PAGE = (ROOT / "docs" / "reminders.md").read_text(encoding="utf-8")
_CONSOLE = re.findall(r"^```console\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)
SESSIONS = [
    (part.partition("\n")[0], part.partition("\n")[2])
    for block in _CONSOLE
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]
]
PREVIEWS = [session for session in SESSIONS if " preview " in session[0]]


@pytest.mark.parametrize(("line", "shown"), PREVIEWS, ids=[line for line, _ in PREVIEWS])
def test_preview_prints_what_the_page_shows(
    line: str, shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = shlex.split(line)[1:]
    cli.run(lambda: cli.build(words)(words))
    printed = capsys.readouterr()
    assert printed.out + printed.err == shown


def test_every_command_is_shown() -> None:
    shown = {shlex.split(line)[2] for line, _ in SESSIONS}
    assert shown == {"preview", "due", "explain"}


def test_the_edit_runs_and_every_column_is_named(connection: Connection) -> None:
    (edit,) = re.findall(r"^```sql\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)
    connection.execute(text(edit), {"user": 1})
    named = set(re.findall(r"`(\w+)`", PAGE))
    columns = connection.scalars(
        text(
            "SELECT attname FROM pg_attribute WHERE attrelid = 'notifications'::regclass AND attnum > 0"
            " AND NOT attisdropped"
        )
    )
    assert set(columns) - named == {"notification_id", "user_id", "created_at", "updated_at"}
    states = connection.scalars(text("SELECT unnest(enum_range(NULL::jobs.delivery_state))::text"))
    assert set(states) <= named

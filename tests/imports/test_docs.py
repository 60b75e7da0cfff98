"""docs/import.md says what is true: its example runs, its tables are complete."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from sqlalchemy import Connection

from kitaab_jobs.cli import import_csv
from kitaab_jobs.imports.layout import COLUMNS
from kitaab_jobs.imports.rules import MAX_COUNT, MAX_NAME, MAX_NOTE
from tests.imports.world import imported, stored

HERE = Path(__file__).parent
PAGE = (HERE.parent.parent / "docs" / "import.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    found = re.search(rf"^```{language}\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)
    assert found is not None
    return found[1]


def test_the_example_is_the_example_file() -> None:
    assert block("csv") == (HERE / "example.csv").read_text(encoding="utf-8")


def test_the_example_prints_what_the_page_shows(
    world: Connection, capsys: pytest.CaptureFixture[str]
) -> None:
    report = imported(world, (HERE / "example.csv").read_bytes())
    import_csv._write_text("example.csv", report, dry_run=False)
    printed = capsys.readouterr()
    assert "$ kitaab-jobs import example.csv\n" + printed.err + printed.out == block("console")
    assert stored(world) == [
        ("amina@example.org", "Fajr", "2026-01-02", "2.00", None),
        ("amina@example.org", "Hifz/Review", "2026-01-02", "1.50", None),
        ("amina@example.org", "Sunnah", "2026-01-02", "good", "after the alarm;\nat last"),
        ("bilal@example.org", "Witr", "2026-01-03", "fair", None),
    ]


def test_every_column_and_its_other_names_are_listed() -> None:
    rows = {
        column: tuple(names.split(", "))
        for column, names in re.findall(r"^\| `(\w+)` \| ([^|]+) \| [^|]+ \|$", PAGE, flags=re.MULTILINE)
    }
    assert rows == {column: names[1:] for column, names in COLUMNS.items()}


def test_every_limit_is_given() -> None:
    for limit in (MAX_COUNT, f"{MAX_NOTE:,} characters", f"names {MAX_NAME}"):
        assert limit in PAGE

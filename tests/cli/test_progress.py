"""`kitaab-jobs progress show|explain|recompute`, and docs/progress.md, which shows them."""

from __future__ import annotations

import datetime as dt
import io
import json
import re
import shlex
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, text

from kitaab_jobs.cli import times
from tests.cli.conftest import ROOT, Command
from tests.conftest import engine_for
from tests.progress.diary import refresh_all

PAGE = (ROOT / "docs" / "progress.md").read_text(encoding="utf-8")
NOW = dt.datetime(2026, 11, 25, 12, tzinfo=dt.UTC)

PEOPLE = """
INSERT INTO users (user_id, email, password_hash, full_name, timezone)
VALUES (7, 'ada@example.org', '', 'Ada Lovelace', 'Europe/London'), (8, 'bob@example.org', '', E'Bob \x1b[31m', 'UTC');
INSERT INTO deeds (deed_id, user_id, category_type, name) VALUES (3, 7, 'hasanaat', 'Reading'), (4, 8, 'hasanaat', 'Walks');
INSERT INTO deed_items (deed_item_id, deed_id, parent_deed_item_id, name, value_type)
VALUES (31, 3, NULL, 'Pages', 'count'), (32, 3, 31, 'Aloud', 'count'), (33, 3, NULL, 'Attention', 'scale');
INSERT INTO scales (scale_id, deed_id, name) VALUES (2, 3, 'Attention');
INSERT INTO scale_values (scale_value_id, scale_id, value_name) VALUES (21, 2, 'full'), (22, 2, 'half');
INSERT INTO merits (merit_id, user_id, deed_id, name, start_date, duration_days)
VALUES (17, 7, 3, 'A hundred pages in a week', '2026-11-01', 7),
       (18, 7, 3, 'Three times with full attention', '2026-11-01', NULL);
INSERT INTO merit_items (merit_id, deed_id, deed_item_id, item_type, scale_value_id, target_value)
VALUES (17, 3, 31, 'count', NULL, 100), (18, 3, 33, 'scale', 21, 3);
INSERT INTO targets (target_id, user_id, name, start_date, end_date) VALUES (5, 7, 'November', '2026-11-01', '2026-11-30');
INSERT INTO target_items (target_id, deed_item_id, item_type, target_value) VALUES (5, 31, 'count', 200)
"""
# Day of November, item, count, scale value.
ENTRIES = [
    (18, 31, 40, None),
    (20, 33, None, 21),
    (21, 31, 10, None),
    (22, 33, None, 21),
    (23, 31, 15, None),
    (23, 33, None, 22),
    (24, 31, 20, None),
    (24, 32, 5, None),
    (24, 33, None, 21),
    (25, 31, 12, None),
    (26, 31, 30, None),
]


def settle(connection: Connection) -> None:
    """Make Ada and what she has done, each day computed on that day."""
    connection.execute(
        text(
            "SELECT jobs.make_partition('entries', make_date(2026, 1, 1), make_date(2027, 1, 1))"
            " WHERE to_regclass('entries_2026') IS NULL"
        )
    )
    connection.exec_driver_sql(PEOPLE)
    for day in range(18, 26):
        for entry in ENTRIES:
            if entry[0] == day or (day == 25 and entry[0] > day):
                write(connection, *entry)
        refresh_all(connection, NOW.replace(day=day))


def write(connection: Connection, day: int, item: int, count: int | None, value: int | None) -> None:
    connection.execute(
        text(
            "INSERT INTO entries (user_id, deed_item_id, entry_date, count_value, scale_value_id)"
            " VALUES (7, :item, :day, :count, :value)"
        ),
        {"item": item, "day": dt.date(2026, 11, day), "count": count, "value": value},
    )


@pytest.fixture(scope="module")
def _database(_cloned: Callable[[], str], url_for: Callable[[str, str], str]) -> Iterator[Engine]:
    engine = engine_for(url_for("kitaab_admin", _cloned()))
    with engine.begin() as connection:
        settle(connection)
    yield engine
    engine.dispose()


@pytest.fixture
def ada(
    _database: Engine,
    url_for: Callable[[str, str], str],
    named: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> Engine:
    """An engine on the database with Ada in it, which the settings name; it is noon on the 25th."""
    assert _database.url.database is not None
    monkeypatch.setenv("KITAAB_ADMIN_URL", url_for("kitaab_admin", _database.url.database))
    named(url_for("kitaab_worker", _database.url.database))
    # As after the night of the 25th, whichever tests have computed something since.
    set_to(
        _database,
        "DELETE FROM jobs.progress_marks; UPDATE merits SET as_of = '2026-11-25'; UPDATE targets SET as_of = '2026-11-25'",
    )
    for module in ("progress", "progress_change"):
        monkeypatch.setattr(f"kitaab_jobs.cli.{module}.now", lambda: NOW)
    return _database


@pytest.fixture
def wrong(ada: Engine) -> Iterator[Engine]:
    """Ada's database, in which what three goals show was changed behind the platform's back."""
    set_to(ada, SPOILT)
    yield ada
    set_to(ada, RIGHT)


SPOILT = """
UPDATE merits SET percent = 12 WHERE merit_id = 17;
UPDATE merits SET percent = 0, completed_on = NULL, completed_at = NULL, is_satisfied = false WHERE merit_id = 18;
UPDATE targets SET percent = 99 WHERE target_id = 5
"""
RIGHT = """
UPDATE merits SET percent = 62 WHERE merit_id = 17;
UPDATE merits SET percent = 100, completed_on = '2026-11-24', completed_at = '2026-11-24T12:00Z', is_satisfied = true
WHERE merit_id = 18;
UPDATE targets SET percent = 51 WHERE target_id = 5
"""


def set_to(engine: Engine, changes: str) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql(changes)


def percents(engine: Engine) -> list[int]:
    query = "SELECT percent FROM merits UNION ALL SELECT percent FROM targets"
    with engine.connect() as connection:
        return list(connection.scalars(text(query)))


# --- show


@pytest.mark.parametrize("who", ["7", "ada@example.org", "ADA@example.org", " 7 "])
def test_show_by_id_or_e_mail(command: Command, ada: Engine, who: str) -> None:
    code, out, err = command("progress", "show", who)
    assert (code, err) == (0, "")
    assert out.startswith("Ada Lovelace <ada@example.org>, person 7; in Europe/London it is 2026-11-25\n")
    assert re.search(r"^17 +62 % +\S{14} +not satisfied +A hundred pages", out, re.MULTILINE)
    assert re.search(r"^18 +100 % +\S{14} +satisfied +2026-11-24", out, re.MULTILINE)
    assert re.search(r"^5 +51 % ", out, re.MULTILINE)


def test_show_json(command: Command, ada: Engine) -> None:
    found = json.loads(command("progress", "show", 7, "--json")[1])
    assert set(found) == {"person", "today", "merits", "targets", "streaks", "more"}
    merits = {merit["id"]: merit for merit in found["merits"]}
    assert (merits[17]["percent"], merits[17]["completed_on"]) == (62, None)
    assert (merits[18]["percent"], merits[18]["completed_on"]) == (100, "2026-11-24")
    history = {day["day"]: day["percent"] for day in merits[17]["history"]}
    assert [history[f"2026-11-{day}"] for day in (12, 17, 18, 20, 21, 23, 24, 25)] == [
        0, 0, 40, 40, 50, 65, 90, 62,
    ]  # fmt: skip
    streaks = {streak["item"]: streak for streak in found["streaks"]}
    assert {item: streak["current_days"] for item, streak in streaks.items()} == {
        "Reading / Pages": 3,
        "Reading / Pages / Aloud": 1,
        "Reading / Attention": 3,
    }


def test_a_name_cannot_move_the_cursor(command: Command, ada: Engine) -> None:
    assert command("progress", "show", 8)[1].splitlines() == [
        "Bob �[31m <bob@example.org>, person 8; in UTC it is 2026-11-25",
        "",
        "no merits",
        "",
        "no targets",
    ]


def test_a_limit_says_that_there_is_more(command: Command, ada: Engine) -> None:
    assert "there are more: say --limit" in command("progress", "show", 7, "--limit", 1)[1]
    assert "there are more" not in command("progress", "show", 7, "--limit", 2)[1]


@pytest.mark.parametrize(
    ("who", "code", "said"),
    [
        ("9", 1, "nobody has the id 9"),
        ("no@example.org", 1, "nobody has the e-mail no@example.org"),
        ("Ada", 2, "'Ada' is neither an id nor an e-mail"),
        ("", 2, "'' is neither"),
        ("0", 2, "'0' is neither"),
        ("9" * 30, 2, "is neither"),
        ("٣", 2, "is neither"),
        ("a\x00@b", 1, "error: "),
    ],
)
def test_who_is_not_there(command: Command, ada: Engine, who: str, code: int, said: str) -> None:
    got, out, err = command("progress", "show", who)
    assert (got, out, err.count("\n")) == (code, "", 1)
    assert said in err


# --- explain


def test_explain_json_has_every_entry_and_reason(command: Command, ada: Engine) -> None:
    found: dict[str, Any] = json.loads(command("progress", "explain", 17, "--json", "--limit", 0)[1])
    [item] = found["items"]
    assert item["window"] == {"first": "2026-11-19", "last": "2026-11-25"}
    assert (item["done"], item["is_met"]) == (62, False)
    assert [(c["entry"]["day"][-2:], c["amount"]) for c in item["counted"]] == [
        ("25", 12), ("24", 20), ("24", 5), ("23", 15), ("21", 10),
    ]  # fmt: skip
    assert [(one["entry"]["day"][-2:], one["reason"]) for one in item["left_out"]] == [
        ("26", "its day has yet to come"),
        ("18", "before 2026-11-19"),
    ]
    assert len(found["others"]) == 4


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["99"], 1, "there is no merit 99"),
        (["17", "--target"], 1, "there is no target 17"),
        (["-5"], 2, ""),
        (["17", "--on", "2026-11-26"], 2, "--on 2026-11-26 has yet to come"),
        (["17", "--on", "soon"], 2, "--on 'soon' is not a date"),
        (["9" * 40], 1, "there is no merit"),
    ],
)
def test_what_cannot_be_explained(
    command: Command, ada: Engine, words: list[str], code: int, said: str
) -> None:
    got, out, err = command("progress", "explain", *words)
    assert (got, out) == (code, "")
    assert said in err
    assert "Traceback" not in err


# --- recompute


def test_dry_run_changes_nothing(command: Command, wrong: Engine) -> None:
    code, out, err = command("progress", "recompute", "--all", "--dry-run")
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "merit 17 of person 7: 12 % -> 62 %",
        "merit 18 of person 7: 0 % -> 100 %, satisfied now, completed on 2026-11-24",
        "target 5 of person 7: 99 % -> 51 %",
        "3 goals compared, 3 out of date",
    ]
    assert sorted(percents(wrong)) == [0, 12, 99]


@pytest.mark.parametrize(
    ("words", "left"),
    [
        (["--merit", "17"], [0, 62, 99]),
        (["--target", "5"], [0, 12, 51]),
        (["--user", "ada@example.org"], [51, 62, 100]),
        (["--user", "8"], [0, 12, 99]),
        (["--all"], [51, 62, 100]),
    ],
)
def test_what_was_asked_for_is_computed(
    command: Command, wrong: Engine, words: list[str], left: list[int]
) -> None:
    assert command("progress", "recompute", *words)[0] == 0
    assert sorted(percents(wrong)) == left
    assert "none out of date" in command("progress", "recompute", *words)[1]


@pytest.mark.parametrize(
    ("answer", "code", "said"), [("", 2, "nobody answered"), ("n\n", 1, "nothing was changed")]
)
def test_it_asks_where_much_would_change(
    command: Command, wrong: Engine, monkeypatch: pytest.MonkeyPatch, answer: str, code: int, said: str
) -> None:
    monkeypatch.setattr("kitaab_jobs.cli.progress_change.MUCH", 2)
    monkeypatch.setattr("sys.stdin", io.StringIO(answer))
    got, _, err = command("progress", "recompute", "--all")
    assert (got, said in err) == (code, True)
    assert sorted(percents(wrong)) == [0, 12, 99]
    assert command("progress", "recompute", "--all", "--yes")[0] == 0
    assert sorted(percents(wrong)) == [51, 62, 100]


def test_a_goal_that_somebody_holds_is_left_to_the_refresh(command: Command, wrong: Engine) -> None:
    with wrong.connect() as somebody:
        somebody.execute(text("UPDATE merits SET name = name WHERE merit_id = 17"))
        code, out, err = command("progress", "recompute", "--all")
        somebody.rollback()
    assert (code, err) == (0, "")
    assert out.splitlines()[-2:] == [
        "2 goals changed, 1 of them completed by it",
        "1 goal held by somebody else, and marked for progress.refresh",
    ]
    assert sorted(percents(wrong)) == [12, 51, 100]
    with wrong.begin() as connection:
        refresh_all(connection, NOW)
    assert sorted(percents(wrong)) == [51, 62, 100]


@pytest.mark.parametrize("words", [[], ["--all", "--merit", "17"], ["--user", "7", "--target", "5"]])
def test_it_must_be_said_what(command: Command, ada: Engine, words: list[str]) -> None:
    code, out, err = command("progress", "recompute", *words)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "give one of --user, --merit, --target and --all" in err


def test_what_is_not_computed_any_more(command: Command, ada: Engine) -> None:
    with ada.begin() as connection:
        connection.exec_driver_sql("UPDATE merits SET is_active = false WHERE merit_id = 17")
    try:
        code, _, err = command("progress", "recompute", "--merit", 17)
    finally:
        with ada.begin() as connection:
            connection.exec_driver_sql("UPDATE merits SET is_active = true WHERE merit_id = 17")
    assert (code, "merit 17 is switched off" in err) == (1, True)


# --- docs/progress.md


def sessions() -> list[tuple[str, str]]:
    """Return each command on the page with the output that it shows."""
    found = []
    for block in re.findall(r"^```console\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            line, _, output = part.partition("\n")
            found.append((line, output))
    return found


def test_each_command_prints_what_the_page_shows(command: Command, ada: Engine) -> None:
    """What is to be mended is broken before the first command that mends."""
    first = next(line for line, _ in sessions() if "recompute" in line)
    for line, shown in sessions():
        if line == first:
            set_to(ada, SPOILT)
        _, out, err = command(*shlex.split(line)[1:])
        assert re.sub(r" +$", "", out + err, flags=re.MULTILINE) == shown, line


def test_the_queries_on_the_page_run_as_an_app(ada: Engine, url_for: Callable[[str, str], str]) -> None:
    assert ada.url.database is not None
    queries = re.findall(r"^```sql\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)
    assert len(queries) == 3
    with engine_for(url_for("kitaab_app", ada.url.database)).begin() as connection:
        connection.exec_driver_sql("SELECT set_config('app.user_id', '7', true)")
        streaks, chart, told = [connection.exec_driver_sql(query).all() for query in queries]
    assert [row.current_days for row in streaks] == [3, 3]
    assert [row.percent for row in chart] == [40, 40, 50, 50, 65, 90, 62]
    assert [row.kind for row in told] == ["merit_completed"]


def test_each_option_of_the_commands_is_on_the_page() -> None:
    from typer.main import get_command

    from kitaab_jobs import cli

    group = get_command(cli.build(["progress"])).commands["progress"]  # type: ignore[attr-defined]
    options = {
        option
        for found in group.commands.values()
        for parameter in found.params
        for option in parameter.opts
        if option.startswith("--")
    }
    assert {option for option in options if option not in PAGE} - {"--help"} == set()
    assert "(docs/progress.md)" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_clock_is_the_doors() -> None:
    assert abs(times.now() - dt.datetime.now(dt.UTC)) < dt.timedelta(minutes=1)

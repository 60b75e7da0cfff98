"""What an import refuses, adds and changes, on a real database."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlalchemy import Connection, text

from kitaab_jobs.imports import jobs, people
from kitaab_jobs.imports.report import Refusals
from tests.imports.world import HEADER, NOW, counts, history, imported, reasons, stored

AMINA = "amina@example.org"
BILAL = "bilal@example.org"


def line(
    item: str = "Fajr",
    value: object = "3",
    *,
    email: str = AMINA,
    deed: str = "Salah",
    date: str = "2026-01-02",
    note: str = "",
) -> str:
    return f'{email},{deed},{item},{date},{value},"{note}"\n'


def add_item(connection: Connection, name: str) -> None:
    query = "SELECT deed_id, 1, :name, 'count' FROM deeds WHERE name = 'Salah'"
    connection.execute(
        text(f"INSERT INTO deed_items (deed_id, level, name, value_type) {query}"), {"name": name}
    )


def test_good_lines_are_stored(world: Connection) -> None:
    content = (
        HEADER
        + line("Fajr", "2.50", note="a, b\nc")
        + line("Fajr / Sunnah", "good")
        + line("Witr", "3")
        + line("Pages", "20", deed="Quran", email=BILAL)
    )
    report = imported(world, content)
    assert counts(report) == (4, 4, 0, 0, 0)
    assert report.written
    assert not report.notices
    assert stored(world) == [
        (AMINA, "Fajr", "2026-01-02", "2.50", "a, b\nc"),
        (AMINA, "Sunnah", "2026-01-02", "good", None),
        (AMINA, "Witr", "2026-01-02", "3", None),
        (BILAL, "Pages", "2026-01-02", "20.00", None),
    ]
    assert [row[0] for row in history(world)] == ["insert"] * 4
    assert world.scalar(text("SELECT count(*) FROM jobs.progress_marks WHERE kind = 'item'")) == 4
    assert (
        world.scalar(
            text("SELECT count(*) FROM entries WHERE scale_value_id IS NOT NULL AND scale_id IS NULL")
        )
        == 0
    )


def test_the_same_file_again_changes_nothing(world: Connection) -> None:
    content = HEADER + line("Fajr", note="n") + line("Witr", "good")
    imported(world, content)
    before = world.execute(text("SELECT * , xmin, ctid FROM entries ORDER BY entry_id")).all()
    assert counts(imported(world, content)) == (2, 0, 0, 2, 0)
    assert world.execute(text("SELECT *, xmin, ctid FROM entries ORDER BY entry_id")).all() == before
    assert len(history(world)) == 2


def test_a_changed_value_is_stored_and_leaves_history(world: Connection) -> None:
    imported(world, HEADER + line("Fajr", 3) + line("Pages", 5, deed="Quran"))
    report = imported(world, HEADER + line("Fajr", 4) + line("Pages", "5.0", deed="Quran"))
    assert counts(report) == (2, 0, 1, 1, 0)
    assert history(world)[2:] == [("update", "3.00", "4.00")]
    assert stored(world)[0][3] == "4.00"


def test_an_empty_note_keeps_the_stored_one(world: Connection) -> None:
    imported(world, HEADER + line("Fajr", 3, note="kept"))
    assert counts(imported(world, HEADER + line("Fajr", 3))) == (1, 0, 0, 1, 0)
    assert counts(imported(world, HEADER + line("Fajr", 4))) == (1, 0, 1, 0, 0)
    assert stored(world)[0][3:] == ("4.00", "kept")
    assert counts(imported(world, HEADER + line("Fajr", 4, note="new"))) == (1, 0, 1, 0, 0)
    assert stored(world)[0][3:] == ("4.00", "new")


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (line(email="amino@example.org"), "nobody has the e-mail 'amino@example.org': did you mean 'Amina@example.org'?"),
        (line(email="x@nowhere.org"), "nobody has the e-mail 'x@nowhere.org': add the person first"),
        (line(email="gone@example.org"), "the person 'gone@example.org' was deleted"),
        (line(deed="Salat"), "'Amina@example.org' has no deed 'Salat': did you mean 'Salah'?"),
        (line(deed="Zakat"), "has no deed 'Zakat': name one of 'Salah', 'Quran', or add it first"),
        (line(deed="Fasting", item="Monday"), "the deed 'Fasting' of 'Amina@example.org' was deleted: restore it"),
        (line("Fayr"), "has no item 'Fayr': did you mean 'Fajr'?"),
        (line("Sunnah"), "has no item 'Sunnah': did you mean 'Fajr / Sunnah'?"),
        (line("Isha"), "has no item 'Isha': name one of 'Fajr', 'Fajr / Sunnah', 'Witr', or add it first"),
        (line("Hifz/Review", deed="Quran"), r"did you mean 'Hifz\\/Review'?"),
        (line("Fajr // Sunnah", "good"), "has an empty name in its path"),
        (line("Duha"), "the item 'Duha' of the deed 'Salah' of 'Amina@example.org' was deleted"),
        (line("Duha / Sunnah", "good"), "the item 'Duha / Sunnah' of the deed 'Salah' of 'Amina@example.org' was deleted"),
        (line("Witr", "goood"), "'goood' is no value of the scale of 'Witr': did you mean 'good'?"),
        (line("Witr", "4"), "'4' is no value of the scale of 'Witr': name one of 'good', 'fair', '3', or add it first"),
        (line("Fajr", "good"), "the count 'good' is not a plain number"),
        (line("Fajr", "1e400"), "the count '1e400' has an exponent"),
        (line(date="2026-11-24"), "2026-11-24 is in the future: today is 2026-11-23 in Asia/Karachi"),
        (line(date="2026-11-23", email=BILAL), "is in the future: today is 2026-11-22 in America/New_York"),
        (line(date="2026-11-23", email="mars@example.org"), "is in the future: today is 2026-11-22 in UTC"),
        (line(date="1999-12-31"), "SELECT jobs.make_partition('entries', '1999-01-01', '2000-01-01')"),
        (line(date="2026-02-30"), "there is no date 2026-02-30"),
        (line(deed="x" * 300), "has 300 characters"),
        (line(note="n" * 10_001), "the note has 10,001 characters"),
        (line(note="a\0b"), "NUL character"),
        ("a,b\n", "it has 2 fields and the header 6"),
    ],
)  # fmt: skip
def test_a_bad_line_is_reported_and_the_good_ones_are_stored(world: Connection, bad: str, why: str) -> None:
    report = imported(world, HEADER + line("Witr", "good") + bad + line("Fajr", 3, date="2025-01-01"))
    assert counts(report) == (3, 2, 0, 0, 1)
    assert list(reasons(report)) == [3]
    assert why in reasons(report)[3]
    assert "\n" not in reasons(report)[3]
    assert len(stored(world)) == 2


def test_today_in_the_persons_zone_is_not_the_future(world: Connection) -> None:
    content = HEADER + line(date="2026-11-23") + line(date="2026-11-22", email="mars@example.org")
    report = imported(world, content)
    assert counts(report) == (2, 2, 0, 0, 0)
    assert report.notices == ("the stored time zone 'Mars/Base' is no IANA zone and counts as UTC",)


def test_names_match_in_any_case_spacing_and_composition(world: Connection) -> None:
    content = (
        HEADER
        + line("  FAJR/ sunnah ", "GOOD", email=" AMINA@Example.ORG ", deed="sALAH")
        + line("cafe\u0301", 3, deed="Quran")
        + line(r"hifz\/review", 3, deed="Quran")
    )
    assert counts(imported(world, content)) == (3, 3, 0, 0, 0)


def test_where_two_names_differ_in_case_the_exact_spelling_decides(world: Connection) -> None:
    add_item(world, "FAJR")
    report = imported(world, HEADER + line("Fajr", 1) + line("FAJR", 2) + line("fajr", 3))
    assert [row[1:4] for row in stored(world)] == [
        ("FAJR", "2026-01-02", "2.00"),
        ("Fajr", "2026-01-02", "1.00"),
    ]
    assert "may be any of 2, which differ in upper and lower case: spell it exactly" in reasons(report)[4]


def test_a_live_item_is_found_beside_a_deleted_one_of_the_same_name(world: Connection) -> None:
    add_item(world, "Duha")
    assert counts(imported(world, HEADER + line("Duha"))) == (1, 1, 0, 0, 0)


def test_what_is_not_active_any_more_is_accepted(world: Connection) -> None:
    for table in ("users", "deeds", "deed_items", "scales", "scale_values"):
        world.execute(text(f"UPDATE {table} SET is_active = false"))
    assert counts(imported(world, HEADER + line("Fajr") + line("Witr", "good"))) == (2, 2, 0, 0, 0)


def test_a_value_of_a_scale_with_versions_is_that_of_the_newest_in_use(world: Connection) -> None:
    content = HEADER + line("Witr", "good")
    imported(world, content)
    world.execute(
        text(
            """
            UPDATE scales SET is_active = false;
            INSERT INTO scales (deed_id, name, version) SELECT deed_id, name, 2 FROM scales;
            INSERT INTO scale_values (scale_id, value_name) SELECT scale_id, 'good' FROM scales WHERE version = 2
            """
        )
    )
    # What was recorded on the old version stays on it: it is the same value.
    assert counts(imported(world, content, dry_run=True)) == (1, 0, 0, 1, 0)
    assert counts(imported(world, content)) == (1, 0, 0, 1, 0)
    assert counts(imported(world, content + line("Witr", "good", date="2026-01-03"))) == (2, 1, 0, 1, 0)
    assert counts(imported(world, HEADER + line("Witr", "good", note="new"))) == (1, 0, 1, 0, 0)
    versions = text("SELECT s.version FROM entries JOIN scales AS s USING (scale_id) ORDER BY entry_date")
    assert world.scalars(versions).all() == [1, 2]


def test_a_value_of_two_scales_must_name_its_scale(world: Connection) -> None:
    world.execute(
        text(
            """
            INSERT INTO scales (deed_id, name) SELECT deed_id, 'Focus' FROM deeds;
            INSERT INTO scale_values (scale_id, value_name) SELECT scale_id, 'good' FROM scales WHERE name = 'Focus'
            """
        )
    )
    assert (
        "write one of 'Quality / good', 'Focus / good'"
        in reasons(imported(world, HEADER + line("Witr", "good")))[2]
    )
    assert counts(imported(world, HEADER + line("Witr", "focus/good"))) == (1, 1, 0, 0, 0)


def test_a_value_of_a_deleted_scale_is_refused(world: Connection) -> None:
    world.execute(text("UPDATE scales SET deleted_at = now()"))
    assert (
        "the scale with the value 'good' was deleted"
        in reasons(imported(world, HEADER + line("Witr", "good")))[2]
    )


def test_counts_and_scale_values_in_columns_of_their_own(world: Connection) -> None:
    content = (
        "date,email,deed,item,count,scale\n"
        f"2026-01-02,{AMINA},Salah,Fajr,3,\n"
        f"2026-01-02,{AMINA},Salah,Witr,,good\n"
        f"2026-01-03,{AMINA},Salah,Fajr,,good\n"
        f"2026-01-03,{AMINA},Salah,Witr,3,\n"
        f"2026-01-03,{AMINA},Salah,Witr,3,good\n"
        f"2026-01-03,{AMINA},Salah,Witr,,\n"
    )
    report = imported(world, content)
    assert counts(report) == (6, 2, 0, 0, 4)
    why = reasons(report)
    assert why[4] == "the item 'Fajr' is counted: give a count, not the scale value 'good'"
    assert (
        why[5] == "the item 'Witr' is measured on a scale: give one of 'good', 'fair', '3', not the count '3'"
    )
    assert "both the count '3' and the scale value 'good'" in why[6]
    assert "it has no value" in why[7]


def test_a_later_line_that_contradicts_an_earlier_one_is_refused(world: Connection) -> None:
    content = (
        HEADER
        + line("Fajr", 3, note="two\nlines")
        + line("fajr", "3.00", note="two\nlines")
        + line("Fajr", 4, note="two\nlines")
        + line("Fajr", 3, note="other")
        + line("Witr", "bad")
        + line("Witr", "good")
        + line("Witr", "fair")
    )
    report = imported(world, content)
    assert counts(report) == (7, 2, 0, 1, 4)
    why = reasons(report)
    assert list(why) == [6, 8, 9, 11]
    assert why[6] == (
        "line 2 gives 'Fajr' of 'Amina@example.org' on 2026-01-02 the value '3.00', not '4.00': keep one of them"
    )
    assert "another note: keep one of them" in why[8]
    assert "line 10 gives 'Witr'" in why[11]
    assert "the value 'good', not 'fair'" in why[11]
    assert stored(world)[0][3:] == ("3.00", "two\nlines")


@pytest.mark.parametrize("options", [{"dry_run": True}, {"strict": True}, {"strict": True, "dry_run": True}])
def test_a_dry_run_and_a_strict_one_with_a_bad_line_report_the_same_and_write_nothing(
    world: Connection, options: dict[str, Any]
) -> None:
    imported(world, HEADER + line("Fajr", 1) + line("Witr", "good"))
    before = (stored(world), history(world))
    content = HEADER + line("Fajr", 2) + line("Witr", "good") + line("Duha") + line(date="2026-01-03") + "x\n"
    report = imported(world, content, **options)
    assert not report.written
    assert (stored(world), history(world)) == before
    real = imported(world, content)
    assert counts(report) == counts(real) == (5, 1, 1, 1, 2)
    assert list(report.refusals) == list(real.refusals)


def test_bad_lines_are_reported_in_the_order_of_the_file(world: Connection) -> None:
    bad = [line("Fajr", 4), line("Nothing"), line(value="NaN"), line("Duha"), "x\n", line("Fajr", 5)]
    report = imported(world, HEADER + line("Fajr", 3) + "".join(bad))
    assert [refusal.line for refusal in report.refusals] == [3, 4, 5, 6, 7, 8]


def test_a_strict_import_of_good_lines_is_written(world: Connection) -> None:
    report = imported(world, HEADER + line(), strict=True)
    assert (report.written, len(stored(world))) == (True, 1)


def test_a_file_without_lines_is_fine(world: Connection) -> None:
    assert counts(imported(world, HEADER)) == (0, 0, 0, 0, 0)


def test_a_missing_partition_can_be_made_as_the_reason_says(world: Connection) -> None:
    content = HEADER + line(date="1999-12-31")
    statement = reasons(imported(world, content))[2].partition("make one with ")[2]
    world.execute(text(statement))
    assert counts(imported(world, content)) == (1, 1, 0, 0, 0)


def test_people_are_looked_up_a_batch_at_a_time(world: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "READ_BATCH", 2)  # so that each batch shares a person with the one before
    monkeypatch.setattr(jobs, "WRITE_BATCH", 4)
    monkeypatch.setattr(people, "REMEMBERED", 1)
    told: list[tuple[str, int, int | None]] = []
    days = [dt.date(2026, 1, 1) + dt.timedelta(days=n) for n in range(10)]
    content = HEADER + "".join(
        line(date=str(day), email=who) for day in days for who in (AMINA, BILAL, "x@y.z")
    )
    report = imported(world, content, on_progress=lambda *step: told.append(step))
    assert counts(report) == (30, 20, 0, 0, 10)
    assert told[:2] == [("reading", 2, None), ("reading", 4, None)]
    assert told[-1] == ("writing", 20, 20)
    assert list(reasons(report)) == list(range(4, 32, 3))


def test_refusals_are_kept_small_and_in_order() -> None:
    refusals = Refusals()
    for number in range(100_000):
        refusals.add(number, f"nobody has the e-mail 'person-{number}@example.org': add the person first")
    assert len(refusals) == 100_000
    assert [r.line for r in refusals] == list(range(100_000))
    assert sum(map(len, refusals._packed)) < 3_000_000
    odd, even = Refusals(), Refusals()
    for number in range(1000):
        (odd if number % 2 else even).add(number, str(number))
    assert [r.line for r in Refusals.in_order(odd, even, Refusals())] == list(range(1000))


GOOD = st.builds(
    line,
    st.sampled_from(["Fajr", " fajr"]),
    st.integers(0, 3),
    email=st.sampled_from([AMINA, BILAL]),
    date=st.sampled_from(["2026-01-02", "2026-01-03", "2026-03-01"]),
    note=st.sampled_from(["", "n", "two\nlines"]),
)
SCALED = st.builds(line, st.just("Witr"), st.sampled_from(["good", "fair", "3"]))
BAD = st.sampled_from(
    [
        line(email="x@y.z"),
        line("Nothing"),
        line(date="03/04/2026"),
        line(value="NaN"),
        line("Witr", "what"),
        line(note='open "quote'),
        "a,b\n",
        "\n",
        '"never closed,,,\n',
    ]
)


@hypothesis_settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(content=st.lists(GOOD | SCALED | BAD, max_size=12).map("".join), strict=st.booleans())
def test_any_mix_of_lines_adds_up_and_a_second_import_changes_nothing(
    world: Connection, content: str, strict: bool
) -> None:
    with world.begin_nested() as savepoint:
        forecast = imported(world, HEADER + content, dry_run=True)
        assert stored(world) == []
        first = imported(world, HEADER + content, strict=strict)
        assert counts(first) == counts(forecast)
        assert list(first.refusals) == list(forecast.refusals)
        assert first.read == first.added + first.changed + first.unchanged + first.refused
        assert first.refused == len(first.refusals) == len(set(first.refusals))
        assert first.written == (not strict or not first.refused)
        after = (stored(world), history(world))
        assert len(after[0]) == len(after[1]) == (first.added if first.written else 0)
        second = imported(world, HEADER + content, strict=strict)
        assert (stored(world), history(world)) == after
        assert list(second.refusals) == list(first.refusals)
        if first.written:
            assert counts(second) == (first.read, 0, 0, first.read - first.refused, first.refused)
        savepoint.rollback()


def test_now_decides_and_not_the_clock(world: Connection) -> None:
    early = NOW - dt.timedelta(days=400)
    assert "today is 2025-10-19" in reasons(imported(world, HEADER + line(), now=early))[2]

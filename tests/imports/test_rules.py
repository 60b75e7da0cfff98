"""What one line says, without a database."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kitaab_jobs.imports.layout import read_header
from kitaab_jobs.imports.rules import (
    BadLine,
    check_day,
    join_path,
    no_partition,
    read_count,
    read_date,
    read_line,
    split_path,
    tidy,
)

LAYOUT = read_header(["email", "deed", "item", "date", "value", "note"], 1)
SPLIT = read_header(["email", "deed", "item", "date", "count", "scale"], 1)
GOOD = ["amina@example.org", "Salah", "Fajr", "2026-01-02", "3", ""]


def reason(*fields: str) -> str:
    with pytest.raises(BadLine) as refused:
        read_line(LAYOUT, 7, fields)
    return str(refused.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [("3", "3"), ("0", "0"), ("2.5", "2.5"), ("+3", "3"), ("007.50", "7.50"), ("99999999.99", "99999999.99")],
)
def test_a_plain_number_is_a_count(text: str, value: str) -> None:
    assert read_count(text) == value


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("1e400", "'1e400' has an exponent: write the number out, 99999999.99 at most"),
        ("1E2", "has an exponent"),
        ("NaN", "'NaN' is not a plain number"),
        ("inf", "is not a plain number"),
        ("-Infinity", "is not a plain number"),
        ("-1", "'-1' is negative"),
        ("-0.5", "is negative"),
        ("1.234", "has 3 decimals: 2 at most"),
        ("1.000", "has 3 decimals"),
        ("100000000", "is too large: 99999999.99 at most"),
        ("9" * 400, "is too large"),
        ("2,5", "has a comma"),
        ("1,250.00", "has a comma"),
        ("three", "is not a plain number"),
        ("\u0663", "with the digits 0 to 9"),  # an Arabic 3, which Decimal would take
        ("1_000", "is not a plain number"),
        ("0x10", "is not a plain number"),
        (".", "is not a plain number"),
        ("3.", "is not a plain number"),
    ],
)
def test_anything_else_is_no_count(text: str, why: str) -> None:
    with pytest.raises(BadLine, match=r"^the count ") as refused:
        read_count(text)
    assert why in str(refused.value)
    assert len(str(refused.value)) < 200


@given(st.decimals(min_value=0, max_value=Decimal("99999999.99"), places=2))
def test_every_count_that_the_column_holds_is_read(count: Decimal) -> None:
    assert Decimal(read_count(f"{count:f}")) == count


@given(st.text(max_size=20))
def test_what_is_read_as_a_count_fits_the_column(text: str) -> None:
    try:
        count = Decimal(read_count(text))
    except BadLine:
        return
    assert 0 <= count <= Decimal("99999999.99")
    assert count == round(count, 2)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("2026-02-30", "there is no date 2026-02-30: 2026-02 has the days 01 to 28"),
        ("2026-13-01", "months are 01 to 12"),
        ("0000-01-01", "years start with 0001"),
        ("03/04/2026", "it may be either, so write 2026-04-03 or 2026-03-04"),
        ("13.04.2026", "write 2026-04-13"),
        ("04/13/2026", "write 2026-04-13"),
        ("04/04/2026", "write 2026-04-04"),
        ("2026/4/3", "write 2026-04-03"),
        ("2026-4-3", "write 2026-04-03"),
        ("2026-04-03T10:00", "write 2026-04-03"),
        ("99/99/2026", "write one such as 2026-04-03"),
        ("20260403", "write one such as"),
        ("\u0662\u0660\u0662\u0666-01-01", "is not written as year-month-day"),
        ("yesterday", "'yesterday' is not written as year-month-day"),
        ("", "it has no date"),
    ],
)
def test_only_iso_dates_are_read(text: str, why: str) -> None:
    with pytest.raises(BadLine) as refused:
        read_date(text)
    assert why in str(refused.value)


@given(st.dates())
def test_every_iso_date_is_read(day: dt.date) -> None:
    assert read_date(day.isoformat()) == day


@pytest.mark.parametrize(
    ("place", "text", "why"),
    [
        (0, "", "it has no e-mail"),
        (0, "amina", "'amina' is no e-mail address"),
        (0, "@example.org", "is no e-mail address"),
        (0, "a@" + "b" * 300, "has 302 characters: 255 at most"),
        (1, "", "it has no deed"),
        (1, "x" * 300, "has 300 characters: a name has 255 at most"),
        (2, "", "it has no item"),
        (2, "Fajr / " + "x" * 300, "a name has 255 at most"),
        (2, "x" * 20_000, "a name has 255 at most"),
        (4, "", "it has no value"),
        (5, "x" * 10_001, "the note has 10,001 characters: shorten it to 10,000"),
        (5, "a\0b", "'a\\x00b' holds a NUL character"),
        (1, "a\ud800b", "half a surrogate pair"),
    ],
)
def test_a_bad_field_is_named(place: int, text: str, why: str) -> None:
    fields = [*GOOD]
    fields[place] = text
    assert why in reason(*fields)
    assert len(reason(*fields)) < 250


def test_a_long_path_of_short_names_is_fine() -> None:
    fields = [*GOOD]
    fields[2] = " / ".join(["x" * 200] * 5)
    assert read_line(LAYOUT, 1, fields).item == fields[2]


def test_fields_are_trimmed_and_notes_are_not() -> None:
    draft = read_line(LAYOUT, 9, [f" {field} " for field in GOOD[:5]] + [" a note\n"])
    assert draft[:6] == (9, *GOOD[:3], dt.date(2026, 1, 2), "3")
    assert draft.note == " a note\n"
    assert read_line(LAYOUT, 9, [*GOOD[:5], " \n"]).note is None


def test_the_number_of_fields_must_fit() -> None:
    assert "it has 5 fields and the header 6" in reason(*GOOD[:5])
    assert "it has 7 fields and the header 6" in reason(*GOOD, "more")
    assert read_line(LAYOUT, 1, [*GOOD, " ", ""]).line == 1  # what spreadsheets leave


def test_a_line_has_a_count_or_a_scale_value() -> None:
    with pytest.raises(BadLine, match="both the count '3' and the scale value 'good'"):
        read_line(SPLIT, 1, [*GOOD[:4], "3", "good"])
    with pytest.raises(BadLine, match="it has no value"):
        read_line(SPLIT, 1, [*GOOD[:4], "", " "])
    assert read_line(SPLIT, 1, [*GOOD[:4], "", "good"]).as_scale == "good"


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("Fajr", ["Fajr"]),
        ("Fajr / Sunnah", ["Fajr", "Sunnah"]),
        ("Fajr/Sunnah", ["Fajr", "Sunnah"]),
        (r"Hifz\/Review / New", ["Hifz/Review", "New"]),
        (r"C:\dir\\x", [r"C:\dir\x"]),
        ("a // b", ["a", "", "b"]),
        ("a  b", ["a b"]),
    ],
)
def test_a_path_is_split_at_slashes(path: str, names: list[str]) -> None:
    assert split_path(path) == names


@given(st.lists(st.text(min_size=1).map(tidy), min_size=1))
def test_a_path_that_was_joined_is_split_into_the_same_names(names: list[str]) -> None:
    assert split_path(join_path(names)) == names


def test_a_date_must_have_been_and_must_have_a_partition() -> None:
    today, partitions = dt.date(2026, 11, 22), [(dt.date(2025, 1, 1), dt.date(2027, 1, 1))]
    check_day(today, today, "UTC", partitions)
    check_day(dt.date(2025, 1, 1), today, "UTC", partitions)
    with pytest.raises(BadLine, match="2026-11-23 is in the future: today is 2026-11-22 in UTC"):
        check_day(dt.date(2026, 11, 23), today, "UTC", partitions)
    with pytest.raises(
        BadLine, match="no partition of entries holds the date 2024-12-31: make one with SELECT"
    ):
        check_day(dt.date(2024, 12, 31), today, "UTC", partitions)
    with pytest.raises(BadLine, match="lies before 1900"):
        check_day(dt.date(206, 1, 1), today, "UTC", partitions)


def test_the_partition_to_make_is_a_month_where_the_year_is_there_in_months() -> None:
    months = [(dt.date(2025, 11, 1), dt.date(2025, 12, 1))]
    assert "'2025-12-01', '2026-01-01'" in no_partition(dt.date(2025, 12, 31), months)
    assert "'2024-01-01', '2025-01-01'" in no_partition(dt.date(2024, 12, 31), months)

"""From bytes to records: headers, delimiters, encodings, quotes, and line numbers."""

from __future__ import annotations

import csv
import io
import os
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kitaab_jobs.errors import UsageError
from kitaab_jobs.imports.layout import COLUMNS
from kitaab_jobs.imports.reader import MAX_RECORD, Sheet
from tests.imports.world import HEADER, sheet

ROW = "a@b.org,Salah,Fajr,2026-01-02,3,{}\n"


def read(content: str | bytes, **options: str) -> list[tuple[int, list[str] | str]]:
    """Return the start line of each record with its fields, or its problem."""
    return [(r.line, r.problem or r.fields) for r in sheet(content, **options).records()]


def notes(content: str | bytes, **options: str) -> list[tuple[int, str]]:
    """Return the start line of each record with its last field, or its problem."""
    return [(line, what if isinstance(what, str) else what[-1]) for line, what in read(content, **options)]


def refusal(content: bytes | str, **options: str) -> str:
    with pytest.raises(UsageError) as refused:
        read(content, **options)
    message = str(refused.value)
    assert refused.value.exit_code == 2
    assert "\n" not in message
    assert len(message) < 400
    return message


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_the_delimiter_is_detected(delimiter: str) -> None:
    header = delimiter.join(["date", "item", "deed", "note", "e-mail", "count"]) + "\n"
    found = sheet(header + delimiter.join(["2026-01-02", "Fajr", "Salah", "a,b;c\td", "x@y", "3"]))
    layout = found.layout
    assert (layout.date, layout.email, layout.count, layout.note, layout.value) == (0, 4, 5, 3, None)


def test_a_delimiter_can_be_given() -> None:
    assert read("email|deed|item|date|value\na|b|c|d|e\n", delimiter="|") == [(2, ["a", "b", "c", "d", "e"])]


@pytest.mark.parametrize(("column", "names"), COLUMNS.items())
def test_every_name_of_a_column_is_known(column: str, names: tuple[str, ...]) -> None:
    others = ["email", "deed", "item", "date"] + ([] if column in ("value", "count", "scale") else ["value"])
    for name in names:
        for spelled in (name, name.upper(), name.replace(" ", "_"), f" {name.title()} "):
            header = [spelled] + [other for other in others if other != column]
            assert getattr(sheet(",".join(header)).layout, column) == 0


@pytest.mark.parametrize(
    ("header", "why"),
    [
        (
            "email,deed,item,value",
            "the column 'date' is missing; the file has 'email', 'deed', 'item', 'value'",
        ),
        ("email,deed,item,date", "the column 'value' is missing"),
        ("email,deed,item,date,value,mood", "line 1: unknown column 'mood': take it out or rename it"),
        ("email,deed,item,date,value,noet", "unknown column 'noet': did you mean 'note'?"),
        ("email,deed,item,date,value,,note", "unknown column ''"),
        ("email,deed,item,date,value,e-mail", "the columns 'email' and 'e-mail' both hold the email"),
        ("email,deed,item,date,value,count", "the column 'value' stands beside 'count'"),
        ("a@b.org,Salah,Fajr,2026-01-02,3", "line 1 names no column that an import knows"),
        ('"email,deed', "a quote is opened and never closed"),
        ("", "the file is empty"),
        ("\ufeff\n \n", "the file is empty"),
    ],
)
def test_a_header_that_cannot_be_used_is_one_clear_line(header: str, why: str) -> None:
    assert why in refusal(header + "\n")


def test_empty_cells_at_the_end_of_the_header_do_not_matter() -> None:
    assert sheet("email,deed,item,date,value,,\n").layout.width == 5


def test_a_record_is_placed_where_it_starts() -> None:
    content = (
        "\n"
        + HEADER
        + ROW.format('"two\nlines"')
        + "\n , \n"
        + ROW.format('"three\r\n\nlines"')
        + ROW.format("last").rstrip()
    )
    assert notes(content) == [(3, "two\nlines"), (7, "three\r\n\nlines"), (10, "last")]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_any_line_end_will_do(end: str) -> None:
    content = (HEADER + ROW.format(1) + ROW.format(2)).replace("\n", end)
    assert notes(content) == [(2, "1"), (3, "2")]


def test_a_lost_quote_costs_one_line() -> None:
    content = HEADER + ROW.format('"never closed') + "".join(ROW.format(n) for n in range(3))
    assert notes(content) == [
        (2, "a quote is opened and never closed: close it, or leave it out"),
        (3, "0"),
        (4, "1"),
        (5, "2"),
    ]


def test_a_lost_quote_before_another_quote_costs_one_line() -> None:
    content = HEADER + ROW.format('"open') + ROW.format(1) + ROW.format('"fine"') + ROW.format(2)
    assert [line for line, _ in notes(content)] == [2, 3, 4, 5]
    assert [note for _, note in notes(content)][1:] == ["1", "fine", "2"]
    assert "write a quote inside a field twice" in notes(content)[0][1]


def test_a_lost_quote_in_a_long_file_is_not_followed_to_its_end() -> None:
    content = HEADER + ROW.format('"open') + ROW.format("x" * 100) * 2000
    found = notes(content)
    assert "runs on for more than 50,000 characters" in found[0][1]
    assert [line for line, _ in found] == list(range(2, 2003))
    assert all(note == "x" * 100 for _, note in found[1:])


def test_a_line_without_end_is_passed_over() -> None:
    content = HEADER + ROW.format("y" * 3 * MAX_RECORD) + ROW.format("next")
    assert [line for line, _ in notes(content)] == [2, 3]
    assert notes(content)[1] == (3, "next")


def test_a_huge_line_does_not_fill_the_memory() -> None:
    class Endless(io.RawIOBase):
        left = 500

        def readable(self) -> bool:
            return True

        def read(self, _size: int = -1, /) -> bytes:
            self.left -= 1
            return HEADER.encode() if self.left == 499 else b"z" * 65_536 if self.left > 0 else b""

    tracemalloc.start()
    found = [r.problem for r in Sheet(Endless()).records()]  # type: ignore[arg-type]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found
    assert found[0] is not None
    assert peak < 2_000_000


def test_utf_8_with_and_without_a_mark() -> None:
    content = HEADER + ROW.format("\u0635\u0644\u0627\u0629")
    assert notes(content) == notes("\ufeff" + content) == [(2, "\u0635\u0644\u0627\u0629")]


@pytest.mark.parametrize("encoding", ["cp1256", "utf-16", "utf-16-le", "utf-32"])
def test_another_encoding_can_be_given(encoding: str) -> None:
    content = (HEADER + ROW.format("\u0635\u0644\u0627\u0629")).encode(encoding)
    assert notes(content, encoding=encoding) == [(2, "\u0635\u0644\u0627\u0629")]


def test_bytes_that_are_no_utf_8_are_placed() -> None:
    content = (HEADER + ROW.format("fine")).encode() + ROW.format("caf\u00e9").encode("latin-1")
    message = refusal(content)
    assert f"byte 0xe9 at offset {content.index(0xE9)} (line 3) is not utf-8" in message
    assert "--encoding cp1252" in message


@given(st.integers(1, 60_000), st.booleans())
def test_a_bad_byte_is_placed_wherever_it_is(lines: int, mark: bool) -> None:
    head = (b"\xef\xbb\xbf" if mark else b"") + (HEADER + "\n" * lines + "a,b\u00e9").encode()
    message = refusal(head + b"\xff,\n" + b"more\n" * 50)
    assert f"byte 0xff at offset {len(head)} (line {lines + 2})" in message


def test_utf_16_is_recognized() -> None:
    assert "the file is UTF-16, not utf-8: add --encoding utf-16" in refusal(HEADER.encode("utf-16"))


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"PK\x03\x04\x14\x00", "an Excel workbook or a ZIP archive, not CSV"),
        (b"\x1f\x8b\x08\x00", "compressed with gzip"),
        (b"\x7fELF\x02\x01\x01\x00\x00", "has NUL bytes and is no text"),
        (b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00", "has NUL bytes and is no text"),
        (HEADER.encode("utf-16-le"), "for UTF-16 add --encoding utf-16"),
        (b"", "the file is empty"),
    ],
)
def test_a_file_that_is_no_text_is_one_clear_line(content: bytes, why: str) -> None:
    assert why in refusal(content)


def test_a_nul_in_one_line_is_left_to_that_line() -> None:
    assert notes(HEADER + ROW.format("a\0b") + ROW.format("c")) == [(2, "a\0b"), (3, "c")]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "punycode"])
def test_a_file_in_another_encoding_than_the_one_that_was_named(encoding: str) -> None:
    message = refusal((HEADER + ROW.format("\u0635")).encode(), encoding=encoding)
    assert encoding in message
    assert "encoding" in message.partition(":")[2]


@pytest.mark.parametrize("encoding", ["klingon", "base64", "rot13", "", "a\0b"])
def test_an_unknown_encoding_is_refused(encoding: str) -> None:
    assert "is not a text encoding" in refusal(HEADER, encoding=encoding)


FIELD = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)


@given(st.lists(st.lists(FIELD, min_size=6, max_size=6), max_size=8), st.sampled_from(",;\t"))
def test_what_a_csv_writer_writes_is_read(rows: list[list[str]], delimiter: str) -> None:
    file = io.StringIO(newline="")
    writer = csv.writer(file, delimiter=delimiter)
    writer.writerow(HEADER.strip().split(","))
    starts = []
    for row in rows:
        starts.append(1 + len(io.StringIO(file.getvalue(), newline="").readlines()))
        writer.writerow(row)
    expected = [
        (line, row) for line, row in zip(starts, rows, strict=True) if any(field.strip() for field in row)
    ]
    assert read(file.getvalue()) == expected


@given(st.binary(max_size=300))
def test_any_bytes_end_in_records_or_one_refusal(content: bytes) -> None:
    try:
        found = read(HEADER.encode() + content)
    except UsageError:
        return
    lines = [line for line, _ in found]
    assert lines == sorted(set(lines))


def test_a_pipe_is_read_as_it_comes() -> None:
    out, into = os.pipe()
    with os.fdopen(out, "rb") as stream, os.fdopen(into, "wb", buffering=0) as writer:
        writer.write((HEADER + ROW.format(1)).encode())
        writer.close()
        assert [r.line for r in Sheet(stream).records()] == [2]

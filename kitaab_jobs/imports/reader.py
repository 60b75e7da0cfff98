"""From bytes to records: encoding, physical lines, quoted fields, and where each record starts.

Nothing here knows what an entry is. A record that cannot be read is handed on with its reason, and
reading goes on with the line after the one on which it started: one lost quote costs one line.
"""

from __future__ import annotations

import codecs
import csv
import io
from collections import deque
from collections.abc import Callable, Iterator
from typing import BinaryIO, NamedTuple

from kitaab_jobs.errors import UsageError
from kitaab_jobs.imports.layout import EXAMPLE, Layout, detect_delimiter, read_header

MAX_RECORD = 50_000
_HEAD = 4096
_BLOCK = 64 * 1024

# What is sent by mistake, told by its first bytes.
_NOT_TEXT = {
    b"PK\x03\x04": "an Excel workbook or a ZIP archive",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook",
    b"\x1f\x8b": "compressed with gzip",
    b"%PDF": "a PDF",
}


class Record(NamedTuple):
    """One record: the physical line on which it starts (the first is 1), and its fields, or a problem."""

    line: int
    fields: list[str]
    problem: str | None = None


class Sheet:
    """A CSV file of entries, whose header has been read: its `layout`, and its `records()`, once.

    `stream` is read from where it stands; `encoding` is any text encoding of Python; `delimiter` is
    one character, detected from the header if None. Raises `UsageError` for what is wrong with the
    file as a whole: empty, binary, another encoding, a header that cannot be used.
    """

    def __init__(self, stream: BinaryIO, *, encoding: str = "utf-8", delimiter: str | None = None) -> None:
        self._source = _Lines(stream, _known_encoding(encoding))
        self._delimiter = delimiter
        self._records = self._read()
        header = next(self._records, None)
        if header is None:
            raise UsageError(
                "the file is empty", remedy=f"it must start with a header line such as {EXAMPLE}"
            )
        if header.problem:
            raise UsageError(f"line {header.line}: {header.problem}", remedy="mend the header line")
        self.layout: Layout = read_header(header.fields, header.line)

    def records(self) -> Iterator[Record]:
        """Yield the records after the header; blank ones are left out. Raises `UsageError` as above."""
        return self._records

    def _read(self) -> Iterator[Record]:
        source = self._source
        delimiter = self._delimiter or detect_delimiter(source.peek())
        reader = csv.reader(source, delimiter=delimiter, strict=True)
        while True:
            source.begin_record()
            start = source.number + 1
            try:
                fields = next(reader)
            except StopIteration:
                return
            except (csv.Error, _TooLong) as error:
                source.back_to_second_line()
                reader = csv.reader(source, delimiter=delimiter, strict=True)  # the old one is half-way in
                yield Record(start, [], _problem(error))
            else:
                if any(map(str.strip, fields)):
                    yield Record(start, fields)


class _TooLong(Exception):
    """A record, or a line, of more than MAX_RECORD characters."""


def _problem(error: Exception) -> str:
    text = str(error)
    if "unexpected end of data" in text:
        return "a quote is opened and never closed: close it, or leave it out"
    if "expected after" in text:
        return "a quoted field goes on after its closing quote: write a quote inside a field twice"
    if isinstance(error, _TooLong):
        return (
            f"it runs on for more than {MAX_RECORD:,} characters: shorten its note, or close its quote "
            "if one is open"
        )
    return f"it cannot be read as CSV ({text})"


def _known_encoding(name: str) -> str:
    try:
        found = codecs.lookup(name)
        "".encode(name)  # refuses codecs that are not text, such as base64
        codecs.getincrementaldecoder(name)
    except (LookupError, ValueError):
        raise UsageError(
            f"{name!r} is not a text encoding", remedy="use one such as utf-8, cp1252, iso-8859-6 or utf-16"
        ) from None
    return "utf-8-sig" if found.name == "utf-8" else found.name


class _Lines:
    """The physical lines of a stream, as csv.reader wants them, with a way back within a record."""

    def __init__(self, stream: BinaryIO, encoding: str) -> None:
        self._bytes = _CountedBytes(stream)
        _refuse_binary(self._bytes.peek(_HEAD), encoding)
        self._encoding = encoding
        self._text = io.TextIOWrapper(self._bytes, encoding=encoding, newline="")
        self._waiting: deque[str] = deque()
        self._taken: list[str] = []
        self._size = 0
        self.number = 0  # of the line that was handed out last

    def begin_record(self) -> None:
        """Forget the lines of the record before."""
        self._taken.clear()
        self._size = 0

    def back_to_second_line(self) -> None:
        """Give all lines of this record back but its first."""
        self._waiting.extendleft(reversed(self._taken[1:]))
        self.number -= len(self._taken[1:])

    def peek(self) -> str:
        """Pass blank lines over; return the next line, which stays the next, or nothing at the end."""
        while (line := self._next()) and not line.strip():
            self.number += 1
        if line:
            self._waiting.appendleft(line)
        return line

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self._next()
        if not line:
            raise StopIteration
        self.number += 1
        self._taken.append(line)
        self._size += len(line)
        if self._size > MAX_RECORD:
            raise _TooLong
        return line

    def _next(self) -> str:
        if self._waiting:
            return self._waiting.popleft()
        try:
            line = self._text.readline(MAX_RECORD + 1)
            if len(line) > MAX_RECORD and line[-1] not in "\r\n":
                self._skip_rest_of_line()
        except UnicodeDecodeError as error:
            raise self._wrong_encoding(error) from None
        except UnicodeError as error:  # such as UTF-16 without its mark
            raise UsageError(
                f"the file is not {self._encoding}: {error}",
                remedy="leave --encoding out for UTF-8, or name another",
            ) from None
        return line

    def _skip_rest_of_line(self) -> None:
        while (rest := self._text.readline(_BLOCK)) and rest[-1] not in "\r\n":
            pass

    def _wrong_encoding(self, error: UnicodeDecodeError) -> UsageError:
        offset = self._bytes.given - len(error.object) + error.start
        before = error.object[: error.start].decode(self._encoding, "replace")
        line = self.number + 1 + max(before.count("\n"), before.count("\r"))
        name = "utf-8" if self._encoding == "utf-8-sig" else self._encoding
        if offset == 0 and error.object[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            return UsageError(f"the file is UTF-16, not {name}", remedy="add --encoding utf-16")
        return UsageError(
            f"byte 0x{error.object[error.start]:02x} at offset {offset} (line {line}) is not {name}",
            remedy="save the file as UTF-8, or name its encoding, such as --encoding cp1252",
        )


class _CountedBytes(io.BufferedIOBase):
    """Hands a stream's bytes on and counts them, so that a bad one can be placed."""

    name = "CSV"

    def __init__(self, stream: BinaryIO) -> None:
        # read1 gives what a pipe holds already, where read waits for the whole block.
        self._read: Callable[[int], bytes] = getattr(stream, "read1", stream.read)
        self._head = b""
        self.given = 0

    def peek(self, size: int) -> bytes:
        """Return the first bytes, up to `size`, which stay to be read."""
        while len(self._head) < size and (block := self._read(size - len(self._head))):
            self._head += block
        return self._head

    def readable(self) -> bool:
        """Yes."""
        return True

    def read1(self, _size: int = -1, /) -> bytes:
        """Return the next block."""
        block, self._head = self._head or self._read(_BLOCK), b""
        self.given += len(block)
        return block

    def read(self, size: int | None = -1, /) -> bytes:
        """Return the next block; only TextIOWrapper reads from here, and any number of bytes will do."""
        return self.read1(-1 if size is None else size)


def _refuse_binary(head: bytes, encoding: str) -> None:
    """Raise `UsageError` where the first bytes are those of something else than text."""
    for magic, what in _NOT_TEXT.items():
        if head.startswith(magic):
            raise UsageError(f"the file is {what}, not CSV", remedy="save or unpack it as CSV")
    if b"\0" not in head or encoding.startswith(("utf-16", "utf-32")):
        return
    if head[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        return  # the decoder says which encoding it is
    # One NUL in a line of data is that line's problem; in the header, or among bytes that are no text
    # either, it is not a CSV file at all.
    if b"\0" in head.split(b"\n", 1)[0] or not _is_text(head, encoding):
        raise UsageError(
            "the file has NUL bytes and is no text",
            remedy="give a CSV file; for UTF-16 add --encoding utf-16",
        )


def _is_text(head: bytes, encoding: str) -> bool:
    try:
        codecs.getincrementaldecoder(encoding)().decode(head)
    except UnicodeDecodeError:
        return False
    return True

"""What an import did, and which lines it refused."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from heapq import merge
from typing import NamedTuple

_BLOCK = 512


class Refusal(NamedTuple):
    """A line that was not imported: the physical line on which its record starts, and why."""

    line: int
    reason: str


class Refusals:
    """Refused lines, to be read any number of times, in the order in which they were added.

    A file may have a million bad lines, and every one is reported; compressed, a million take some
    20 MB instead of 300.
    """

    def __init__(self) -> None:
        self._packed: list[bytes] = []
        self._open: list[Refusal] = []

    def __len__(self) -> int:
        return len(self._packed) * _BLOCK + len(self._open)

    def __iter__(self) -> Iterator[Refusal]:
        for block in self._packed:
            yield from (Refusal(line, reason) for line, reason in json.loads(zlib.decompress(block)))
        yield from self._open

    def add(self, line: int, reason: str) -> None:
        """Add a line."""
        self._open.append(Refusal(line, reason))
        if len(self._open) == _BLOCK:
            self._packed.append(zlib.compress(json.dumps(self._open).encode(), 1))
            self._open = []

    @classmethod
    def in_order(cls, *several: Refusals) -> Refusals:
        """Return all of `several`, each in the order of its lines, in the order of the lines."""
        merged = cls()
        for line, reason in merge(*several):
            merged.add(line, reason)
        return merged


@dataclass(frozen=True, slots=True)
class Report:
    """What an import did, in lines: `read` is the sum of the other four.

    `unchanged` are lines that say what is stored already, or what an earlier line of the file said.
    Where `written` is false (a dry run, or strict and a line was refused) nothing was written, and
    `added` and `changed` are what would have been. `refusals` are in the order of the file; `notices`
    are what the operator should know besides.
    """

    read: int
    added: int
    changed: int
    unchanged: int
    refused: int
    written: bool
    refusals: Refusals
    notices: tuple[str, ...] = ()

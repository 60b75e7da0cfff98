"""What every channel is, what it is given, and what it answers."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from sqlalchemy import Connection, TextClause

from kitaab_jobs.settings import Settings

# What goes into a row or a log of a provider's answer.
MAX_REASON = 300


class Fate(StrEnum):
    """What became of one letter.

    `later`: the provider surely did not take it. `unknown`: it may have, so it is not sent again.
    """

    SENT = "sent"
    LATER = "later"
    FAILED = "failed"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Result:
    """How it went with one letter; `reason` shows no address and no token.

    `after`: for `later`, not before so many seconds. `stops`: what is wrong concerns us and not this person, so
    nothing more goes over the channel for now. `alerts`: an operator is to look at it. `bounced`: the address does
    not exist. `gone` and `used`: where a person has several addresses, the ids of those that do not exist, and of
    those that were reached.
    """

    fate: Fate
    reason: str | None = None
    provider_id: str | None = None
    after: float | None = None
    stops: bool = False
    alerts: bool = False
    bounced: bool = False
    gone: tuple[int, ...] = ()
    used: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Letter:
    """What is to be told to one person over one channel. `to` is where, and is never shown.

    `kind` is "reminder", "merit_completed" or "target_completed"; `key` is the same in every attempt; `collapse` is
    the same for letters of which only the latest matters. `name` is the person's own word for what they completed.
    """

    delivery_id: int
    user_id: int
    channel: str
    kind: str
    key: str
    collapse: str
    language: str
    day: dt.date
    deadline: dt.datetime
    to: Mapping[str, Any] = field(repr=False)
    name: str | None = field(default=None, repr=False)


class Channel(Protocol):
    """A way to people, opened for one run of a job. `send` is called from `at_once` threads."""

    @property
    def at_once(self) -> int:
        """How many letters are on their way together: what a killed worker leaves unknown."""

    @property
    def per_second(self) -> float | None:
        """How many may go in a second, from all workers together; None is no limit."""

    def send(self, letter: Letter, now: dt.datetime) -> Result:
        """Send one letter and say what became of it. It raises nothing."""

    def close(self) -> None:
        """Let go of connections."""


def nothing_to_note(
    _connection: Connection, _results: Sequence[tuple[Letter, Result]], _now: dt.datetime
) -> None:
    """Do nothing: for a channel whose addresses do not change by being used."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One entry in the table of channels.

    `open` raises `SettingsError` where something is not configured. `addresses`: a statement that for `:users`
    returns (user_id, jsonb); whoever has no row cannot be reached. `note` writes, in the transaction that records
    the results, what they say about the addresses. A jsonb with a key `refused` says why it must not be used.
    """

    open: Callable[[Settings], Channel]
    addresses: TextClause
    note: Callable[[Connection, Sequence[tuple[Letter, Result]], dt.datetime], None] = nothing_to_note


_ADDRESS = re.compile(r"[^\s<>\"'(),:;]+@[^\s<>\"'(),:;]+")
_URL = re.compile(r"(https?://)[^\s<>\"']+", re.IGNORECASE)


def masked(said: object, *secrets: str) -> str:
    """Return what a provider said as one line without addresses, links, or any of `secrets`."""
    text = " ".join(str(said).split())
    for secret in secrets:
        if len(secret) > 2:
            text = re.sub(re.escape(secret), "***", text, flags=re.IGNORECASE)
    text = _URL.sub(r"\1***", _ADDRESS.sub("***", text))
    text = "".join(letter if letter.isprintable() else "?" for letter in text)
    return text if len(text) <= MAX_REASON else text[: MAX_REASON - 3] + "..."

"""What a line of beat_schedule.py is, and where the lines come from."""

from __future__ import annotations

import datetime as dt
import re
import traceback
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

from kitaab_jobs.contract import Job, encode
from kitaab_jobs.errors import BadPayload, KitaabError, NoSuchInstant, UsageError
from kitaab_jobs.runtime.policies import CatchUp, Overlap, Plan, Policy
from kitaab_jobs.timing import Cadence, Dst, parse, span, to_utc

Span = str | dt.timedelta
When = str | dt.datetime

FILE = "beat_schedule.py"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:/-]{0,127}")
LONGEST_LINE = 255
LONGEST_SPAN = dt.timedelta(days=3660)
LONGEST_JITTER = dt.timedelta(hours=24)
MOST_FAILURES = 1_000_000

_TEXT = ((str,), "it is a text, in quotes")
_SPAN = ((str, dt.timedelta, type(None)), "write it like '30s', '5m', '2h' or '7d'")
_WHEN = ((str, dt.datetime, type(None)), "write it like '2026-12-01 09:00'")
# What each field takes, and how that is written. `overlap` and the like are compared with the words that they take.
_TAKES: dict[str, tuple[tuple[type, ...], str]] = {
    "job": ((Job,), "it is one of kitaab_jobs.contract, such as contract.PROGRESS_REFRESH, without quotes"),
    "cron": _TEXT,
    "zone": _TEXT,
    "args": ((Mapping,), 'write it like {"limit": 5000}'),
    "catch_up_window": _SPAN,
    "jitter": _SPAN,
    "starts_at": _WHEN,
    "ends_at": _WHEN,
    "pause_after_failures": ((int, type(None)), "it is a number, without quotes"),
    "note": _TEXT,
}


@dataclass(frozen=True, slots=True)
class Schedule:
    """One schedule. A bad line, zone, payload or policy is refused where it is written.

    `cron` is a cron line of five fields, "@daily" and the like, or "every 30s"; `zone` is the IANA zone in which it
    is read, which may also be the last word of the line.

    - `catch_up`: of the fires that were due while no beat ran, none runs ("skip"), the latest ("latest") or each
      ("all"); with a `catch_up_window` ("3h"), none that is found later than that.
    - `overlap`: while the run before is not over, a fire is left out ("skip"), waits for it ("queue"), runs beside it
      ("allow"), or cancels it ("cancel_running"). Where nothing is said: "skip", and "queue" with catch_up="all".
    - `jitter`: each run starts up to so much later ("5m"); how much is always the same for one fire.
    - `starts_at`, `ends_at`: nothing fires before or after; "2026-12-01 09:00" is in the schedule's zone.
    - `dst`: the rule for times that a clock change skips or repeats, as `kitaab_jobs.timing` has it.
    - `pause_after_failures`: after so many runs in a row that ended dead, it is paused.
    """

    name: str
    job: Job
    cron: str
    zone: str = "UTC"
    args: Mapping[str, Any] = field(default_factory=dict)
    catch_up: CatchUp = "latest"
    catch_up_window: Span | None = None
    overlap: Overlap | None = None
    jitter: Span | None = None
    starts_at: When | None = None
    ends_at: When | None = None
    dst: Dst = "cron"
    pause_after_failures: int | None = None
    note: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            raise UsageError(
                f"{str(self.name)[:140]!r} is no name for a schedule",
                remedy="use letters, digits and _ . : / -, at most 128, the first of them a letter or digit",
            )
        try:
            self._check()
        except UsageError as error:
            if error.message.startswith(f"{self.name}: "):
                raise
            raise type(error)(f"{self.name}: {error.message}", remedy=error.remedy) from None

    def _check(self) -> None:
        for name, (kinds, remedy) in _TAKES.items():
            given = getattr(self, name)
            if isinstance(given, bool) or not isinstance(given, kinds):
                raise self._refused(f"{name} is {given!r}", remedy)
        if len(self.cadence.line) > LONGEST_LINE:
            raise self._refused(
                f"its line has {len(self.cadence.line)} characters",
                f"at most {LONGEST_LINE}: write ranges and steps, such as 0-29 and */2",
            )
        try:
            encode(self.args)
        except TypeError as error:
            raise BadPayload(f"the arguments are not JSON: {error}") from None
        self.job.parse(dict(self.args))
        self._one_of("catch_up", self.catch_up, get_args(CatchUp))
        self._one_of("overlap", self.policy.overlap, get_args(Overlap))
        if self.catch_up == "skip" and self.catch_up_window is not None:
            raise self._refused(
                "catch_up='skip' has no window", "leave it out, or catch up on 'latest' or 'all'"
            )
        self._check_jitter()
        self._check_failures()
        self._check_note()
        self._check_bounds()

    @property
    def cadence(self) -> Cadence:
        """When it fires, without its bounds."""
        return parse(self.cron, self.zone, dst=self.dst)

    @property
    def plan(self) -> Plan:
        """When it fires."""
        return Plan(self.cadence, self._instant("starts_at"), self._instant("ends_at"))

    @property
    def policy(self) -> Policy:
        """What becomes of fires that are late, or come while a run is not over."""
        overlap = self.overlap or ("queue" if self.catch_up == "all" else "skip")
        return Policy(self.catch_up, self._span("catch_up_window"), overlap)

    @property
    def longest_jitter(self) -> dt.timedelta:
        """How much later than planned a run starts at most."""
        return self._span("jitter") or dt.timedelta(0)

    def _check_jitter(self) -> None:
        jitter = self.longest_jitter
        if jitter > LONGEST_JITTER:
            raise self._refused(f"jitter is {self.jitter!r}", "it is at most 24h")
        if self.cadence.is_interval:
            first = self.cadence.next_fire(dt.datetime(2000, 1, 1, tzinfo=dt.UTC))
            if jitter >= self.cadence.next_fire(first) - first:
                raise self._refused(
                    f"jitter is {self.jitter!r}, and it fires {self.cron!r}",
                    "let it be shorter than the interval",
                )

    def _check_failures(self) -> None:
        most = self.pause_after_failures
        if most is not None and not 1 <= most <= MOST_FAILURES:
            raise self._refused(f"pause_after_failures is {most}", f"it is 1 or more, to {MOST_FAILURES:,}")

    def _check_note(self) -> None:
        # Half of a surrogate pair is what Python makes of bytes that are no UTF-8.
        if len(self.note) > 10_000 or any(c == "\0" or "\ud800" <= c <= "\udfff" for c in self.note):
            raise self._refused("the note cannot be stored", "at most 10,000 characters of UTF-8, and no NUL")

    def _check_bounds(self) -> None:
        plan = self.plan
        if plan.ends_at is None:
            return
        if plan.starts_at is not None and plan.ends_at < plan.starts_at:
            raise self._refused(
                f"ends_at {self.ends_at} is before starts_at {self.starts_at}", "turn them round"
            )
        first = plan.starts_at or dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
        if plan.next_fire(first - dt.timedelta(microseconds=1)) is None:
            raise self._refused(f"{self.cron!r} never fires until {self.ends_at}", "give it more time")

    def _instant(self, name: str) -> dt.datetime | None:
        given: When | None = getattr(self, name)
        remedy = "write '2026-12-01 09:00' (in its zone), '2026-12-01T09:00Z', or a time with a zone"
        if given is None:
            return None
        try:
            moment = dt.datetime.fromisoformat(given.strip()) if isinstance(given, str) else given
        except ValueError:
            raise self._refused(f"{name} {given!r} is not a time", remedy) from None
        try:
            if not 1970 <= moment.year < 9999:
                raise self._refused(f"{name} {given} is not between 1970 and 9998", remedy)
            if moment.tzinfo is not None:
                return moment.astimezone(dt.UTC)
            if isinstance(given, str):
                return to_utc(moment.date(), moment.time(), self.cadence.zone)
        except (OverflowError, NoSuchInstant):
            raise self._refused(f"{name} {given!r} does not exist in {self.cadence.zone}", remedy) from None
        raise self._refused(f"{name} {given} has no time zone", remedy)

    def _span(self, name: str) -> dt.timedelta | None:
        given: Span | None = getattr(self, name)
        if given is None:
            return None
        found = span(given) if isinstance(given, str) else given
        if found is None or not dt.timedelta(0) < found <= LONGEST_SPAN:
            raise self._refused(
                f"{name} {given!r} is not a length of time", "write it like 30s, 5m, 2h or 7d"
            )
        return found

    def _one_of(self, name: str, value: str, known: tuple[str, ...]) -> None:
        if value not in known:
            raise self._refused(f"{name} is {value!r}", f"it takes {', '.join(map(repr, known))}")

    def _refused(self, what: str, remedy: str) -> UsageError:
        return UsageError(f"{self.name}: {what}", remedy=remedy)


def timetable() -> list[Schedule]:
    """Return the lines of beat_schedule.py; raise `UsageError` for whatever is wrong with it, and where."""
    try:
        import beat_schedule

        return unique(beat_schedule.TIMETABLE)
    except KitaabError:
        raise
    except Exception as error:
        raise UsageError(
            f"{_where(error)}: {error}", remedy="mend it, or go back to the one before"
        ) from None


def _where(error: Exception) -> str:
    """Return which line of the file an error comes from, as far as it says."""
    number = error.lineno if isinstance(error, SyntaxError) else None
    for frame in traceback.extract_tb(error.__traceback__):
        if frame.filename.endswith(FILE):
            number = frame.lineno
    return f"{FILE} cannot be read" if number is None else f"{FILE}, line {number}, cannot be read"


def unique(lines: Iterable[Schedule]) -> list[Schedule]:
    """Return `lines`; raise `UsageError` where two have one name."""
    seen: dict[str, Schedule] = {}
    for line in lines:
        if not isinstance(line, Schedule):
            raise UsageError(f"{line!r} is no schedule", remedy=f"lines of {FILE} begin with Schedule(")
        if line.name in seen:
            raise UsageError(f"two schedules are called {line.name!r}", remedy=f"rename one in {FILE}")
        seen[line.name] = line
    return list(seen.values())

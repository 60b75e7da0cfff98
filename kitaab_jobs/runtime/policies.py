"""What becomes of the planned fires that a beat finds: the decisions, without any I/O.

The order in which they are made:

1. a paused schedule skips every fire;
2. catch-up: which of the fires that are due may still run;
3. overlap: what each of those does about a run that is not over yet.

docs/schedules.md has each of them as a table of cases.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from kitaab_jobs.errors import NoSuchInstant
from kitaab_jobs.timing import Cadence, fires_between

CatchUp = Literal["skip", "latest", "all"]
Overlap = Literal["skip", "queue", "allow", "cancel_running"]

# With catch_up="skip", what is later than this is missed. Beats look every second; this is for one that is restarted.
ON_TIME = dt.timedelta(minutes=1)
# So many planned fires of a schedule wait for the run before them, at most.
MOST_WAITING = 1000

_INSTANT = dt.timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Plan:
    """When a schedule fires: a cadence between its start and its end, both included."""

    cadence: Cadence
    starts_at: dt.datetime | None = None
    ends_at: dt.datetime | None = None

    def next_fire(self, after: dt.datetime) -> dt.datetime | None:
        """Return the first fire strictly after `after`; None where there is none any more."""
        if self.starts_at is not None:
            after = max(after, self.starts_at - _INSTANT)
        try:
            fire = self.cadence.next_fire(after)
        except NoSuchInstant:
            return None
        return None if self.ends_at is not None and fire > self.ends_at else fire

    def fires(self, after: dt.datetime, until: dt.datetime, limit: int) -> list[dt.datetime]:
        """Return the fires after `after` up to `until`, which is included: at most `limit`, in order."""
        if self.starts_at is not None:
            after = max(after, self.starts_at - _INSTANT)
        if self.ends_at is not None:
            until = min(until, self.ends_at)
        return fires_between(self.cadence, after, until, limit)


@dataclass(frozen=True, slots=True)
class Policy:
    """What a schedule says about fires that are late or come too soon. `window` None: however late."""

    catch_up: CatchUp = "latest"
    window: dt.timedelta | None = None
    overlap: Overlap = "skip"

    @property
    def longest(self) -> dt.timedelta | None:
        """How late a fire may be found and still run."""
        return ON_TIME if self.catch_up == "skip" else self.window


@dataclass(frozen=True, slots=True)
class Situation:
    """How a schedule stands at this moment.

    `running` is the state of a run that is not over, `waiting` how many fires wait for it, `paused` who paused it and
    why. `complete`: no planned fires up to now were left out.
    """

    now: dt.datetime
    running: str | None = None
    waiting: int = 0
    paused: str | None = None
    complete: bool = True

    @property
    def busy(self) -> bool:
        """Whether a run is not over, or waits already."""
        return self.running is not None or self.waiting > 0


# What is to be done with a planned fire. `replace`: cancel the run before it, and run as soon as that is over.
Action = Literal["fire", "wait", "replace", "skipped", "missed"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is to become of one planned fire, by which rule, and why in words; no rule where all went by the plan."""

    fire_at: dt.datetime
    action: Action
    rule: str | None = None
    reason: str | None = None


def decide(policy: Policy, planned: Sequence[dt.datetime], at: Situation) -> list[Verdict]:
    """Return a verdict for each planned fire, in order."""
    if at.paused is not None:
        return [Verdict(fire, "skipped", "paused", at.paused) for fire in planned]
    missed, runs = _catch_up(policy, planned, at)
    return missed + _overlap(policy.overlap, runs, at)


def _catch_up(
    policy: Policy, planned: Sequence[dt.datetime], at: Situation
) -> tuple[list[Verdict], list[dt.datetime]]:
    """Return the fires that are missed, and those that may run."""
    longest = policy.longest
    late = [fire for fire in planned if longest is not None and at.now - fire > longest]
    runs = list(planned[len(late) :])
    missed = [_too_late(policy, fire, at) for fire in late]
    if policy.catch_up == "all":
        return missed, runs
    kept = runs[-1:] if at.complete else []
    reason = f"later fires were due, up to {planned[-1].isoformat()} at least" if planned else ""
    return missed + [
        Verdict(fire, "missed", "catch_up", reason) for fire in runs[: len(runs) - len(kept)]
    ], kept


def _too_late(policy: Policy, fire: dt.datetime, at: Situation) -> Verdict:
    late = _words(at.now - fire)
    if policy.catch_up == "skip":
        return Verdict(fire, "missed", "catch_up", f"it was found {late} late, and nothing is caught up on")
    assert policy.window is not None
    reason = f"it was found {late} late, and the window is {_words(policy.window)}"
    return Verdict(fire, "missed", "window", reason)


def _overlap(overlap: Overlap, runs: Sequence[dt.datetime], at: Situation) -> list[Verdict]:
    if overlap == "allow" or not runs:
        return [Verdict(fire, "fire") for fire in runs]
    if overlap == "cancel_running":
        return _only_the_last(runs, at)
    first = [] if at.busy else [Verdict(runs[0], "fire")]
    rest = runs[len(first) :]
    if overlap == "skip":
        said = (
            f"the run before it is still {at.running or 'waiting'}"
            if at.busy
            else "the run before it begins just now"
        )
        return first + [Verdict(fire, "skipped", "overlap", said) for fire in rest]
    room = max(0, MOST_WAITING - at.waiting)
    full = f"{MOST_WAITING} fires wait already"
    return (
        first
        + [Verdict(fire, "wait", "overlap", "it waits for the run before it") for fire in rest[:room]]
        + [Verdict(fire, "skipped", "overlap", full) for fire in rest[room:]]
    )


def _only_the_last(runs: Sequence[dt.datetime], at: Situation) -> list[Verdict]:
    *others, last = runs
    said = f"the fire at {last.isoformat()} takes its place"
    verdict = (
        Verdict(last, "replace", "overlap", "the run before it is cancelled")
        if at.busy
        else Verdict(last, "fire")
    )
    return [Verdict(fire, "skipped", "overlap", said) for fire in others] + [verdict]


def run_at(name: str, fire: dt.datetime, jitter: dt.timedelta) -> dt.datetime:
    """Return when the run of a fire is due: up to `jitter` later, always the same for one schedule and fire."""
    if not jitter:
        return fire
    digest = hashlib.sha256(f"{name}/{fire.astimezone(dt.UTC).isoformat()}".encode()).digest()
    return fire + jitter * (int.from_bytes(digest[:8], "big") / 2**64)


def _words(time: dt.timedelta) -> str:
    return str(dt.timedelta(seconds=round(time.total_seconds())))

"""Run the checks of one server in a thread, so that one that hangs keeps nothing else waiting."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from kitaab_jobs.health.rules import Finding, Verdict, skip, warn

Source = TypeVar("Source")


class NotRun(Exception):
    """The check has nothing to look at, and says why."""


@dataclass(frozen=True, slots=True)
class Check(Generic[Source]):
    """A name, and the function that observes and decides. It may raise `NotRun`."""

    name: str
    run: Callable[[Source], Verdict]


@dataclass(slots=True)
class Probe(Generic[Source]):
    """One thing to ask: how to open it, and what to check there.

    `subject` is how messages call it. `lost` tells which errors mean that it is gone, so that the other
    checks need not be tried, and `reason` puts an error in words without a password. When it is over, `failure`
    says why it could not be opened, or was lost on the way, and `findings` has a verdict for each check that ran.
    """

    subject: str
    open: Callable[[], AbstractContextManager[Source]]
    checks: Sequence[Check[Source]]
    lost: Callable[[Exception], bool]
    reason: Callable[[Exception], str]
    opened: bool = False
    failure: str | None = None
    error: Exception | None = None
    findings: list[Finding] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)

    def start(self) -> None:
        """Begin, in a thread that does not keep the program from ending."""
        threading.Thread(target=self._run, name=f"doctor {self.subject}", daemon=True).start()

    def wait(self, until: float) -> None:
        """Wait for the end, at most until `time.monotonic()` is `until`."""
        if not self._over.wait(max(until - time.monotonic(), 0)):
            self.failure = "it does not answer"
            self.findings = list(self.findings)  # from here on the thread writes into the old list

    def complete(self) -> list[Finding]:
        """Return a finding for each check: those that did not run are skipped, with the reason."""
        done = {finding.check for finding in self.findings}
        why = f"{self.subject} {'was lost' if self.opened else 'cannot be reached'}"
        return self.findings + [
            Finding.of(check.name, skip(why)) for check in self.checks if check.name not in done
        ]

    def _run(self) -> None:
        findings = self.findings
        try:
            with self.open() as source:
                self.opened = True
                for check in self.checks:
                    findings.append(Finding.of(check.name, self._verdict(check, source)))
        except Exception as error:
            self.error = error
            self.failure = self.failure or self.reason(error)
        finally:
            self._over.set()

    def _verdict(self, check: Check[Source], source: Source) -> Verdict:
        try:
            return check.run(source)
        except NotRun as why:
            return skip(str(why))
        except Exception as error:
            if self.lost(error):
                raise
            return warn(f"could not be checked: {self.reason(error)}", "see whether the rights are missing")


def run(probes: Iterable[Probe[Source]], seconds: float) -> None:
    """Run all probes at once, and return when they are over or after `seconds`."""
    started = list(probes)
    until = time.monotonic() + seconds
    for probe in started:
        probe.start()
    for probe in started:
        probe.wait(until)

"""What the demo shows: a live screen on a terminal, plain lines in a log."""

from __future__ import annotations

import datetime as dt
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from kitaab_jobs.devstack.people_at_work import PeopleAtWork
from kitaab_jobs.devstack.sample import NearlyThere
from kitaab_jobs.devstack.watch import Totals, Watch
from kitaab_jobs.runtime.tail import Finished

ROWS = 14


class View:
    """Collects what happens and shows it."""

    def __init__(self) -> None:
        self.console = Console(highlight=False, soft_wrap=True)
        self.places: dict[str, str] = {}
        self._rows: deque[tuple[str, str, str, str]] = deque(maxlen=ROWS)
        self._running: list[tuple[str, dt.timedelta]] = []
        self._totals: Totals | None = None
        self._idle = 0
        self._waiting: dict[int, tuple[NearlyThere, float]] = {}
        self._waits: list[float] = []
        self._started = time.monotonic()
        self._seconds: float | None = None
        self._live: Live | None = None

    def say(self, line: str) -> None:
        """Show one line; may be called from another thread."""
        self._add("", line, "")

    def waits_for(self, recorded: NearlyThere | None) -> None:
        """Show that an entry was written, and wait for its merit."""
        if recorded is not None:
            self._waiting[recorded.merit_id] = (recorded, time.monotonic())
            amount = "a scale value" if recorded.scale_value_id else f"{recorded.missing.normalize():f}"
            self._add("person", f"{recorded.full_name} records {amount} for {recorded.item!r}", "")

    def update(self, watch: Watch, people: PeopleAtWork) -> None:
        """Look at the ledger, and show what is new."""
        for job in watch.finished():
            self._job(job)
        self._running = watch.running()
        self._totals = watch.totals()
        for merit_id, (recorded, since) in list(self._waiting.items()):
            if people.completed_at(merit_id):
                waited = time.monotonic() - since
                self._waits.append(waited)
                del self._waiting[merit_id]
                self._add(
                    "merit",
                    f"{recorded.merit!r} of {recorded.full_name} is complete",
                    f"{waited:.1f} s after the entry",
                )
        if self._live is not None:
            self._live.update(self._screen())

    @contextmanager
    def live(self, seconds: float | None) -> Iterator[None]:
        """Show a screen that is drawn anew, on a terminal; elsewhere lines go on as they come."""
        self._started, self._seconds = time.monotonic(), seconds
        for name, place in self.places.items():  # above what is drawn anew, where nothing is cut
            self.console.print(f"{name:<7}{place}", markup=False)
        if not self.console.is_terminal:
            yield
            return
        with Live(self._screen(), console=self.console, refresh_per_second=4, transient=True) as live:
            self._live = live
            try:
                yield
            finally:
                self._live = None

    def summary(self) -> None:
        """Say what the demo has shown."""
        if self._totals is None:
            return
        t = self._totals
        took = f"{sum(self._waits) / len(self._waits):.1f} s" if self._waits else "-"
        lines = {
            "Jobs": f"{t.succeeded} succeeded, {t.dead} dead",
            "Schedules": f"{t.fires} fires",
            "Merits": f"{t.merits_completed} completed",
            "Targets": f"{t.targets_completed} completed",
            "Reminders": f"{t.reminders_sent} sent, {t.reminders_soon} due within the hour",
            "Entry to merit": f"{len(self._waits)} seen, {took} on average",
        }
        self.console.print("Summary")
        for name, value in lines.items():
            self.console.print(f"  {name:<15} {value}", markup=False)

    def _job(self, job: Finished) -> None:
        # What it counted, without the zeros: empty where it found nothing to do.
        changed = {key: value for key, value in (job.result or {}).items() if value}
        if job.state == "succeeded" and not changed:
            self._idle += 1
            return
        what = ", ".join(f"{_words(k)} {_short(v)}" for k, v in changed.items()) if job.result else job.error
        self._add(
            "job" if job.state == "succeeded" else job.state, job.name, f"{job.seconds:.2f} s", what or ""
        )

    def _add(self, kind: str, what: str, took: str, changed: str = "") -> None:
        clock = time.strftime("%H:%M:%S")
        self._rows.append((clock, kind, what, f"{took}  {changed}".strip()))
        if self._live is None:
            self.console.print(f"{clock} {kind:<7}{what:<26} {took}  {changed}".rstrip(), markup=False)

    def _screen(self) -> Group:
        table = Table(box=None, padding=(0, 2, 0, 0), expand=True, header_style="bold")
        table.add_column("Time", no_wrap=True)
        table.add_column("", no_wrap=True)
        table.add_column("What ran", ratio=2, no_wrap=True, overflow="ellipsis")
        table.add_column("Took and changed", ratio=3, no_wrap=True, overflow="ellipsis")
        styles = {"merit": "bold green", "person": "cyan", "dead": "bold red", "": "dim"}
        for clock, kind, what, changed in self._rows:
            table.add_row(clock, kind, Text(what), Text(changed), style=styles.get(kind))
        return Group(self._head(), Text(""), table, Text(""), self._foot())

    def _head(self) -> Text:
        passed = int(time.monotonic() - self._started)
        left = f"ends in {max(0, int(self._seconds) - passed)} s" if self._seconds else "Ctrl-C ends it"
        return Text(f"Kitaab Jobs demo, {passed} s, {left}", no_wrap=True, overflow="ellipsis")

    def _foot(self) -> Text:
        if self._totals is None:
            return Text("waiting for the first jobs ...")
        t = self._totals
        running = ", ".join(f"{name} {age.total_seconds():.1f} s" for name, age in self._running) or "nothing"
        return Text(
            f"Running now: {running}\n"
            f"Merits completed {t.merits_completed}   targets {t.targets_completed}   "
            f"reminders sent {t.reminders_sent}, due within the hour {t.reminders_soon}\n"
            f"Jobs succeeded {t.succeeded} ({self._idle} found nothing to do)   dead {t.dead}   "
            f"fires {t.fires}   marks waiting {t.marks}"
        )


def _words(key: str) -> str:
    return key.replace("_", " ")


def _short(value: Any) -> str:
    return f"{len(value)}: {', '.join(map(str, value))}" if isinstance(value, list) else str(value)

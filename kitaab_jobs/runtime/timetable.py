"""What a line of beat_schedule.py is, and where the lines come from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from kitaab_jobs.contract import Job
from kitaab_jobs.errors import UsageError
from kitaab_jobs.timing import Cadence, parse


@dataclass(frozen=True, slots=True)
class Schedule:
    """One line of the timetable.

    `cron` is a cron line of five fields, "@daily" and the like, or "every 30s"; `zone` is the IANA
    zone in which it is read. A bad line, zone or payload is refused when the file is read.
    """

    name: str
    job: Job
    cron: str
    zone: str = "UTC"
    args: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""

    def __post_init__(self) -> None:
        _ = self.cadence
        self.job.parse(dict(self.args))

    @property
    def cadence(self) -> Cadence:
        """When it fires."""
        return parse(self.cron, self.zone)


def timetable() -> list[Schedule]:
    """Return the lines of beat_schedule.py; raise `UsageError` where two have one name."""
    import beat_schedule

    return unique(beat_schedule.TIMETABLE)


def unique(lines: Iterable[Schedule]) -> list[Schedule]:
    """Return `lines`; raise `UsageError` where two have one name."""
    seen: dict[str, Schedule] = {}
    for line in lines:
        if line.name in seen:
            raise UsageError(
                f"two schedules are called {line.name!r}", remedy="rename one in beat_schedule.py"
            )
        seen[line.name] = line
    return list(seen.values())

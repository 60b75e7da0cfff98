"""Who is at work?"""

from __future__ import annotations

from collections.abc import Iterable

from kitaab_jobs.health.facts import Process, Troubled
from kitaab_jobs.health.rules.finding import Verdict, listed, ok, warn
from kitaab_jobs.health.rules.limits import FIRE_OVERDUE_SECONDS, PROCESS_SILENT_SECONDS

# Each kind of process, what stands still without it, and what starts one.
KINDS = {
    "worker": ("no job runs", "celery -A kitaab_jobs worker"),
    "beat": ("no schedule fires", "celery -A kitaab_jobs beat"),
    "relay": ("no job leaves the ledger", "celery -A kitaab_jobs beat"),
}


def alive(processes: Iterable[Process]) -> list[Process]:
    """Return those that were seen a short while ago."""
    return [process for process in processes if process.seconds_ago <= PROCESS_SILENT_SECONDS]


def running(kind: str, processes: Iterable[Process]) -> Verdict:
    """Is at least one process of that kind alive?"""
    mine = [process for process in processes if process.kind == kind]
    living = alive(mine)
    if living:
        return ok(f"{kind}: {listed(process.name for process in living)}")
    idle, command = KINDS[kind]
    last = f"; the last was seen {min(p.seconds_ago for p in mine):.0f} s ago" if mine else ""
    return warn(f"no {kind} runs, so {idle}{last}", f"start one with '{command}', or 'kitaab-jobs up'")


def schedules(found: Troubled) -> Verdict:
    """Do schedules fire in time, and has beat paused any?"""
    if found.overdue:
        return warn(
            f"overdue for more than {FIRE_OVERDUE_SECONDS} s: {listed(found.overdue)}",
            "see that a beat runs, and what it logs",
        )
    if found.paused:
        said = listed(f"{name} ({reason})" for name, reason in found.paused.items())
        return warn(
            f"paused by beat: {said}",
            "see 'kitaab-jobs schedules history NAME', and let it go on with 'kitaab-jobs schedules resume NAME'",
        )
    return ok("no schedule is overdue, and beat has paused none")


def timetables(processes: Iterable[Process]) -> Verdict:
    """Do all beats bring the same timetable?"""
    brought: dict[str, list[str]] = {}
    for process in alive(processes):
        if process.timetable is not None:
            brought.setdefault(process.timetable, []).append(process.name)
    if len(brought) > 1:
        said = " and ".join(listed(names) for names in brought.values())
        return warn(
            f"beats run with {len(brought)} versions of beat_schedule.py: {said}; the one first read last counts",
            "restart them with the version that is deployed",
        )
    return ok("all beats have the same timetable" if brought else "no beat runs")


def versions(processes: Iterable[Process], own: str) -> Verdict:
    """Do all processes run the version that is installed here?"""
    living = alive(processes)
    others = [process for process in living if process.version != own]
    if others:
        return warn(
            f"this is version {own}, but {listed(f'{p.name} runs {p.version}' for p in others)}",
            "restart them with the version that is deployed",
        )
    return ok(f"{len(living)} processes run version {own}" if living else "no process runs")

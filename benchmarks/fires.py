"""What is measured of schedulers: how late fires are, what a tick costs, and what a kill -9 loses or doubles."""

from __future__ import annotations

import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGKILL
from statistics import median

from benchmarks.measures import Figures
from benchmarks.peers import timetable
from benchmarks.servers import Database, Servers
from benchmarks.systems import Installed, NotMeasured, end
from kitaab_jobs.devstack.spawn import ended, signal_group

MINUTE = 60.0
# From the start of a beat to the first full minute that counts; how long jobs may take to be started after the last.
START_WITHIN = 20.0
LISTEN_SECONDS = 15.0
DOWN_SECONDS = 20.0
# Half-way through what is sent in a burst, more or less.
IN_THE_BURST = 0.3
# From here on a fire counts as late.
LATE_SECONDS = 5.0

# When a fire was committed: the transaction that wrote it also moved its schedule on, and nobody touches that row again
# for ten minutes. The fire's own row is updated when its run has ended; its `recorded_at` is earlier, and would flatter us.
_ENQUEUED = """
SELECT (s.args ->> 'n')::int, extract(epoch FROM pg_xact_commit_timestamp(s.xmin))::double precision
FROM jobs.schedules AS s
WHERE EXISTS (SELECT FROM jobs.fires AS f WHERE f.schedule = s.name AND f.outcome = 'fired')
"""
_STARTED = "SELECT n, started FROM bench.fires WHERE n >= 0"


@dataclass
class Seen:
    """When fires of each schedule were enqueued and started, in seconds since the epoch."""

    enqueued: list[tuple[int, float]]
    started: list[tuple[int, float]]


@dataclass
class Run:
    """One scheduler on one timetable: its database, its worker, and its beats, which come and go."""

    servers: Servers
    installed: Installed
    logs: Path
    schedules: int
    beats: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.database = Database(self.servers, self.installed.system)
        self.log = self.logs / f"{self.installed.system.name}.log"
        self.sent = self.servers.folder / f"{self.installed.system.name}.sent"
        self.sent.write_bytes(b"")
        self.env = {**self.database.env, "BENCH_SCHEDULES": str(self.schedules), "BENCH_SENT": str(self.sent)}

    @contextmanager
    def worker(self) -> Iterator[None]:
        """Run its worker; what still runs of its beats ends too."""
        worker = self.installed.start(self.installed.system.processes[0], self.env, self.log)
        try:
            yield
            for process in (worker, *self.beats):
                if process.poll() is not None:
                    raise NotMeasured(f"a process {ended(process)}, see {self.log}")
        finally:
            end([worker, *self.beats])

    def start_beat(self, host: str = "a") -> None:
        """Start a beat. Those on one `host` have one file for their state, where they have one."""
        state = str(self.servers.folder / f"{self.installed.system.name}-{host}")
        env = {**self.env, "BENCH_STATE": state}
        self.beats.append(self.installed.start(self.installed.system.processes[1], env, self.log))

    def kill_beat(self) -> None:
        """Kill the beat that was started first, with -9."""
        beat = self.beats.pop(0)
        signal_group(beat, SIGKILL)
        beat.wait(timeout=10)

    def wait_until_warm(self, deadline: float) -> None:
        """Return when the beat has fired and the worker has started what it fired."""
        with self.database.connect() as connection:
            while connection.execute("SELECT n FROM bench.fires LIMIT 1").fetchone() is None:
                if time.time() > deadline:
                    raise NotMeasured(f"it had not started within {START_WITHIN:.0f} s, see {self.log}")
                time.sleep(0.1)

    def seen(self) -> Seen:
        """Return what has been enqueued and started up to now."""
        with self.database.connect() as connection:
            started = connection.execute(_STARTED).fetchall()
            if self.installed.system.is_ours:
                enqueued = [row for row in connection.execute(_ENQUEUED) if row[0] >= 0]
            else:
                lines = (line.split() for line in self.sent.read_text().splitlines())
                enqueued = [(int(n), float(at)) for n, at in lines if int(n) >= 0]
        return Seen(enqueued, started)

    def wait_until_started(self, minute: float) -> None:
        """Return when every fire of this full minute was started, or when no more are for a while."""
        expected, seen, moved = self.schedules // timetable.PERIOD_MINUTES, -1, time.monotonic()
        while seen < expected and time.monotonic() - moved < LISTEN_SECONDS:
            time.sleep(0.5)
            now = sum(_is_of(n, minute) for n, _ in self.seen().started)
            if now > seen:
                seen, moved = now, time.monotonic()


def lateness(run: Run) -> Figures:
    """One beat, one full minute with a tenth of the schedules due: milliseconds to enqueued, and to started."""
    minute = _next_minute()
    with run.worker():
        run.start_beat()
        run.wait_until_warm(minute - 2)
        run.database.settle()
        _sleep_until(minute)
        run.wait_until_started(minute)
        seen = run.seen()
    figures: Figures = {}
    for what, fires in (("enqueued", seen.enqueued), ("started", seen.started)):
        late = sorted((at - minute) * 1000 for n, at in fires if _is_of(n, minute))
        if not late:
            raise NotMeasured("nothing fired")
        figures |= {
            f"{what}_p50_ms": median(late),
            f"{what}_p99_ms": late[int(len(late) * 0.99)],
            f"{what}_max_ms": late[-1],
        }
    figures |= _judged(run, seen, [minute])
    return figures


def restart(run: Run) -> Figures:
    """A kill -9 and 20 s without a beat: once across a full minute, once in the midst of the fires of one."""
    first = _next_minute()
    minutes = [first + MINUTE * n for n in range(4)]
    with run.worker():
        run.start_beat()
        run.wait_until_warm(first - 2)
        _sleep_until(minutes[1] - DOWN_SECONDS / 2)
        run.kill_beat()
        _sleep_until(minutes[1] + DOWN_SECONDS / 2)
        run.start_beat()
        _sleep_until(minutes[2] + IN_THE_BURST)
        run.kill_beat()
        _sleep_until(minutes[2] + IN_THE_BURST + DOWN_SECONDS)
        run.start_beat()
        _sleep_until(minutes[3])
        run.wait_until_started(minutes[3])
        _sleep_until(minutes[3] + LISTEN_SECONDS)
        seen = run.seen()
    return _judged(run, seen, minutes)


def two(run: Run) -> Figures:
    """Two beats at once, as on two hosts; after a full minute the one that was first is killed with -9."""
    first = _next_minute()
    minutes = [first, first + MINUTE]
    with run.worker():
        run.start_beat("a")
        run.wait_until_warm(first - 2)
        run.start_beat("b")
        _sleep_until(minutes[1] - DOWN_SECONDS / 2)
        run.kill_beat()
        _sleep_until(minutes[1])
        run.wait_until_started(minutes[1])
        _sleep_until(minutes[1] + 2 * LISTEN_SECONDS)
        seen = run.seen()
    return _judged(run, seen, minutes)


def ticks(run: Run, due: int) -> Figures:
    """What a beat of ours does in one process: milliseconds to fire `due` of the schedules, and for a look in vain."""
    if not run.installed.system.is_ours:
        raise NotMeasured("it has no ticks that could be compared")
    run.installed.command(run.env, "setup")
    run.installed.command(run.env, "exist")
    run.database.settle("jobs.schedules")
    return {
        "fire_ms": 1000 * run.installed.command(run.env, "tick", str(due), "5"),
        "idle_ms": 1000 * run.installed.command(run.env, "tick", "0", "50"),
    }


def _judged(run: Run, seen: Seen, minutes: list[float]) -> Figures:
    """Count what became of each planned fire of these minutes. Within ten of them each schedule has at most one."""
    planned = {n: minute for minute in minutes for n in range(run.schedules) if _is_of(n, minute)}
    times = Counter(n for n, _ in seen.started)
    first: dict[int, float] = {}
    for n, at in seen.enqueued:
        first[n] = min(at, first.get(n, at))
    late = [first[n] - minute for n, minute in planned.items() if n in first]
    missed = Counter(minute for n, minute in planned.items() if times[n] == 0)
    doubled = Counter(minute for n, minute in planned.items() for _ in range(times[n] - 1))
    by_minute = {
        f"{what}_{number}": counts[minute]
        for what, counts in (("missed", missed), ("doubled", doubled))
        for number, minute in enumerate(minutes, 1)
    }
    return {
        "planned": len(planned),
        "missed": missed.total(),
        "doubled": doubled.total(),
        "late": sum(seconds > LATE_SECONDS for seconds in late),
        "latest_s": max(late, default=float("nan")),
        "unplanned": sum(many for n, many in times.items() if n not in planned),
        **by_minute,
    }


def _is_of(n: int, minute: float) -> bool:
    return n >= 0 and n % timetable.PERIOD_MINUTES == round(minute / MINUTE) % timetable.PERIOD_MINUTES


def _next_minute() -> float:
    """Return the first full minute before which a beat has time to start, when none comes before it any more."""
    minute = (time.time() + START_WITHIN) // MINUTE * MINUTE + MINUTE
    _sleep_until(minute - MINUTE + 2)
    return minute


def _sleep_until(at: float) -> None:
    time.sleep(max(0.0, at - time.time()))

"""Guarantee 4: three beats, killed with -9 at random instants over 200 days, and each planned fire fires once."""

from __future__ import annotations

import datetime as dt
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from tests.conftest import engine_for
from tests.faults.simulated import CLOCK, LINES, START
from tests.faults.timing import SEED, SOAK
from tests.timing import oracle

DAY = dt.timedelta(days=1)
END = START + 200 * DAY
STEPS = 4000 if SOAK else 120


@pytest.fixture
def owner(_cloned: Callable[[], str], url_for: Callable[[str, str], str]) -> Iterator[Engine]:
    """An engine on a database whose clock stands at START."""
    name = _cloned()
    superuser = engine_for(url_for("postgres", "postgres"))
    with superuser.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        # The blind beat and the others wait for each other's rows, and PostgreSQL ends it after this.
        connection.exec_driver_sql(f"ALTER DATABASE {name} SET deadlock_timeout = '20ms'")
    superuser.dispose()
    engine = engine_for(url_for("kitaab_admin", name))
    with engine.begin() as connection:
        connection.exec_driver_sql(CLOCK)
        connection.execute(text("INSERT INTO jobs.simulated_clock VALUES (:at)"), {"at": START})
    yield engine
    engine.dispose()


class Beats:
    """Three beats at a time; whichever is killed has a successor at once."""

    def __init__(self, program: subprocess.Popen[str]) -> None:
        self._program = program
        self._kinds: dict[int, str] = {}
        self.killed = 0

    def start(self, kind: str) -> None:
        """Start one."""
        assert self._program.stdin is not None
        assert self._program.stdout is not None
        self._program.stdin.write(f"{kind}\n")
        self._program.stdin.flush()
        self._kinds[int(self._program.stdout.readline())] = kind

    def kill(self, pick: random.Random) -> None:
        """Kill one with -9."""
        pid = pick.choice(sorted(self._kinds))
        os.kill(pid, signal.SIGKILL)
        self.killed += 1
        self.start(self._kinds.pop(pid))

    @property
    def alive(self) -> int:
        """How many have not ended by themselves."""
        return sum(Path(f"/proc/{pid}").exists() for pid in self._kinds)


@contextmanager
def beats(url: str, folder: Path) -> Iterator[Beats]:
    """Give two beats that lock and one that does not."""
    env = os.environ | {
        "KITAAB_DATABASE_URL": url,
        "KITAAB_DATA_DIR": str(folder),
        "KITAAB_LOG_LEVEL": "ERROR",
    }
    with (folder / "beats.log").open("w") as log:
        program = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.simulated"],
            env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True,
        )  # fmt: skip
    try:
        made = Beats(program)
        for kind in ("beat", "beat", "blind"):
            made.start(kind)
        yield made
    finally:
        assert program.stdin is not None
        assert program.stdout is not None
        with suppress(BrokenPipeError):
            program.stdin.close()
        program.wait(timeout=20)
        program.stdout.close()


def simulate(
    owner: Engine, url: str, folder: Path, steps: int, end: dt.datetime = END, kills: float = 0.5
) -> int:
    """Let the days until `end` pass in random steps, killing as they do, and return how many were killed."""
    pick = random.Random(SEED)
    moments = sorted(pick.uniform(0, 1) for _ in range(steps - 1))
    with beats(url, folder) as three, owner.connect() as connection:
        connection = connection.execution_options(isolation_level="AUTOCOMMIT")
        wait_until_idle(connection, at_least=len(LINES))
        for moment in [*moments, 1.0]:
            at = START + (end - START) * moment
            connection.execute(text("UPDATE jobs.simulated_clock SET at = :at"), {"at": at})
            if pick.random() < kills:
                time.sleep(pick.uniform(0, 0.02))
                three.kill(pick)
            wait_until_idle(connection, at_least=len(LINES))
        assert three.alive == 3
        return three.killed


def wait_until_idle(connection: object, at_least: int) -> None:
    """Wait until the lines are there and none of them is due."""
    idle = text(
        "SELECT count(*) FROM jobs.schedules WHERE next_fire_at > (SELECT at FROM jobs.simulated_clock)"
    )
    deadline = time.monotonic() + 60
    while connection.scalar(idle) < at_least:  # type: ignore[attr-defined]
        assert time.monotonic() < deadline, "nothing fires any more"
        time.sleep(0.002)


def problems(owner: Engine, end: dt.datetime = END) -> list[str]:
    """Return what is wrong, against a walk over every minute."""
    with owner.connect() as connection:
        fired = Counter(
            (row.schedule, row.fire_at, row.outcome)
            for row in connection.execute(text("SELECT schedule, fire_at, outcome::text FROM jobs.fires"))
        )
        jobs = Counter(
            (row.schedule, row.fire_at)
            for row in connection.execute(text("SELECT schedule, fire_at FROM jobs.jobs"))
        )
        linked = connection.scalar(
            text(
                "SELECT count(*) FROM jobs.fires AS f JOIN jobs.jobs AS j"
                " ON j.id = f.job_id AND j.schedule = f.schedule AND j.fire_at = f.fire_at"
            )
        )
    planned = {(line.name, at) for line in LINES for at in planned_of(line.name, end)}
    wanted = Counter((name, at, "fired") for name, at in planned)
    found = [f"rows: {each}" for each in ((wanted - fired) + (fired - wanted))]
    found += [f"jobs: {each}" for each in ((Counter(planned) - jobs) + (jobs - Counter(planned)))]
    return found + ([] if linked == len(planned) else [f"{linked} rows lead to their job"])


def planned_of(name: str, end: dt.datetime) -> list[dt.datetime]:
    """Return the fires of a line, from a source that the code does not have."""
    (line,) = (line for line in LINES if line.name == name)
    hours = {"interval": 7, "hourly": 1}.get(name)
    if hours is not None:
        epoch = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
        every = dt.timedelta(hours=hours)
        first = (START - epoch) // every + 1
        return [epoch + n * every for n in range(first, (end - epoch) // every + 1)]
    return list(oracle.walk(line.cadence.line, line.cadence.zone, START, end))


def test_three_beats_killed_over_200_days(
    owner: Engine, url_for: Callable[[str, str], str], tmp_path: Path
) -> None:
    assert owner.url.database is not None
    killed = simulate(owner, url_for("kitaab_worker", owner.url.database), tmp_path, STEPS)
    assert killed > STEPS / 3
    assert problems(owner) == []


def test_without_the_primary_key_a_fire_fires_twice(
    owner: Engine, url_for: Callable[[str, str], str], tmp_path: Path
) -> None:
    assert owner.url.database is not None
    with owner.begin() as connection:
        connection.execute(text("ALTER TABLE jobs.fires DROP CONSTRAINT fires_pkey"))
    end = START + 20 * DAY
    simulate(owner, url_for("kitaab_worker", owner.url.database), tmp_path, 60, end, kills=0)
    assert any(problem.startswith("rows") for problem in problems(owner, end))

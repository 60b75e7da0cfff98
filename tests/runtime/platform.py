"""A database, a Redis and the processes on them: what a test sees of the platform from outside."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Engine, text

from kitaab_jobs.client import enqueue
from kitaab_jobs.devstack.redis import EmbeddedRedis
from kitaab_jobs.runtime.job import job_id
from tests.devstack.observe import wait_for
from tests.runtime.conftest import celery_on, closing
from tests.runtime.processes import Celery, Process
from tests.runtime.sample_jobs import WRITE

A_WHILE = 30.0
LONG = 60.0  # seconds that a job would sleep if it were not killed: no test waits for it


class Platform:
    """A database, a Redis and the processes on them, from outside."""

    def __init__(self, commands: Celery, database: Engine, redis: EmbeddedRedis) -> None:
        self.commands = commands
        self.database = database
        self.redis = redis
        self._worker: Process | None = None
        self._beat: Process | None = None

    @property
    def worker(self) -> Process:
        """The worker that runs; one is started where none does."""
        if self._worker is None or self._worker.popen.poll() is not None:
            self._worker = self.commands.start("worker", "--without-mingle")  # which would take a second
        return self._worker

    @property
    def beat(self) -> Process:
        """The beat that runs; one is started where none does."""
        if self._beat is None or self._beat.popen.poll() is not None:
            self._beat = self.commands.start("beat")
        return self._beat

    def ready(self) -> None:
        """Return when both run and work."""
        _ = self.worker, self.beat
        self.wait_until(self.add(), "succeeded")

    def add(self, seconds: float = 0, job: Any = WRITE) -> str:
        """Enqueue a job and return its note."""
        note = uuid4().hex
        with self.database.begin() as connection:
            enqueue(connection, job, {"note": note, "seconds": seconds})
        return note

    def row(self, note: str) -> Any:
        with self.database.connect() as connection:
            return connection.execute(
                text("SELECT *, state::text FROM jobs.jobs WHERE args ->> 'note' = :note"), {"note": note}
            ).one_or_none()

    def wait_until(self, note: str, state: str) -> Any:
        """Return the job's row when it is in that state."""

        def there() -> Any:
            row = self.row(note)
            return row if row is not None and row.state == state else None

        try:
            return wait_for(there, seconds=A_WHILE)
        except AssertionError as error:
            raise AssertionError(f"not {state} after {A_WHILE} s: {self.row(note)}") from error

    def state(self, id: UUID) -> str | None:
        with self.database.connect() as connection:
            found = connection.scalar(text("SELECT state::text FROM jobs.jobs WHERE id = :id"), {"id": id})
        return None if found is None else str(found)

    def send(self, note: str | None = None, id: UUID | None = None) -> tuple[str, UUID]:
        """Send a job as any Celery client does, past the ledger, and return its note and its id."""
        note = note or uuid4().hex
        return note, self.send_raw(WRITE.name, None if id is None else str(id), kwargs={"note": note})

    def send_raw(self, name: str, id: str | None = None, **given: Any) -> UUID:
        """Send whatever message, and return the ledger's id for it."""
        id = id or str(uuid4())
        with closing(celery_on(self.redis.url(0))) as app:
            app.send_task(name, task_id=id, queue="default", **given)
        return job_id(id)

    def running(self, seconds: float = LONG) -> tuple[str, int]:
        """Enqueue a job, and return its note and its process when it has written and waits."""
        note = self.add(seconds)
        wait_for(lambda: (Path(self.commands.env["KITAAB_DATA_DIR"]) / note).exists(), seconds=A_WHILE)
        return note, int(self.wait_until(note, "running").worker.rpartition("/")[2])

    def effects(self, note: str) -> int:
        with self.database.connect() as connection:
            count = connection.scalar(
                text("SELECT count(*) FROM jobs.effects WHERE note = :note"), {"note": note}
            )
            return int(count or 0)

    def ticks(self) -> list[tuple[Any, str]]:
        with self.database.connect() as connection:
            rows = connection.execute(
                text(
                    "SELECT fire_at, outcome::text FROM jobs.fires WHERE schedule = 'sample.tick' ORDER BY fire_at"
                )
            )
            return [tuple(row) for row in rows]


def knows(database: Engine, job: str) -> bool:
    with database.connect() as connection:
        return bool(
            connection.scalar(text("SELECT count(*) FROM jobs.kinds WHERE name = :job"), {"job": job})
        )

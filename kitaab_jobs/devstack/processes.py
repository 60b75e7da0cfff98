"""What `kitaab-jobs up` runs beside the servers: the workers, the beat, Flower."""

from __future__ import annotations

import sys
from pathlib import Path

from kitaab_jobs.devstack.ports import HOST, free_port
from kitaab_jobs.devstack.supervisor import Process

FLOWER_PORT = 5555

_CELERY = (sys.executable, "-m", "celery", "-A", "kitaab_jobs")
# Seconds for the jobs that run when a worker is asked to stop; after them they are killed, and rescued
# at the next start. (A soft shutdown would sleep out its whole time, however early the jobs end.)
_WORKER_STOP_WITHIN = 10.0


def platform_processes(data_dir: Path, *, flower_port: int | None = None) -> list[Process]:
    """Return the platform's processes in the order of their start; they are stopped in reverse.

    Flower listens on `flower_port` (default: 5555, or a free port where that is taken).
    """
    port = free_port(flower_port or FLOWER_PORT)
    return [
        _worker("worker", "default,reminders", concurrency=2),
        _worker("sending", "sending", "--prefetch-multiplier", "1", concurrency=2),
        _worker("long", "long", "--prefetch-multiplier", "1", concurrency=1),
        Process("beat", (*_CELERY, "beat", "--loglevel", "INFO")),
        # It shows without a password and changes nothing; FLOWER_BASIC_AUTH=name:password lets who has it change
        # things. What would let everybody is switched off here.
        Process(
            "flower",
            (*_CELERY, "flower", *_flower_options(data_dir, port)),
            stop_within=5.0,
            env={"FLOWER_UNAUTHENTICATED_API": "false"},
        ),
    ]


def flower_address(processes: list[Process]) -> str | None:
    """Return where Flower listens, or None where it is not among `processes`."""
    for process in processes:
        for word in process.command:
            if process.name == "flower" and word.startswith("--port="):
                return f"http://{HOST}:{word.removeprefix('--port=')}"
    return None


def _worker(name: str, queues: str, *more: str, concurrency: int) -> Process:
    options = ("--queues", queues, "--concurrency", str(concurrency), "--hostname", f"{name}@%h", *more)
    return Process(
        name, (*_CELERY, "worker", *options, "--loglevel", "INFO"), stop_within=_WORKER_STOP_WITHIN
    )


def _flower_options(data_dir: Path, port: int) -> tuple[str, ...]:
    state = data_dir / "flower"
    state.mkdir(mode=0o700, parents=True, exist_ok=True)  # it shows what jobs were called with
    return (
        f"--address={HOST}",
        f"--port={port}",
        "--persistent=True",
        f"--db={state / 'state'}",
        "--state_save_interval=30000",  # milliseconds; without it a kill -9 loses what Flower knew
    )

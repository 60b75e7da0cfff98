"""Killed at each step of a job, it is as if it had not begun, or as if it had ended: its effect is once."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

from sqlalchemy import Engine, text

from kitaab_jobs.contract import PROGRESS_REFRESH
from kitaab_jobs.runtime import ledger
from kitaab_jobs.runtime.execute import execute
from tests.runtime import rows
from tests.runtime.forking import STEPS, Done

# What the row says after a death at each step.
LEFT = {
    "claiming": ("published", 0),
    "claimed": ("running", 1),
    "worked": ("running", 1),
    "finishing": ("running", 1),
    "committed": ("succeeded", 1),
}


def url(engine: Engine) -> str:
    return engine.url.render_as_string(hide_password=False)


def notes(engine: Engine) -> list[str]:
    with engine.connect() as connection:
        return sorted(connection.scalars(text("SELECT note FROM jobs.effects")))


def test_at_each_step(effects: Engine, worker_engine: Engine) -> None:
    with effects.begin() as connection:
        ids = {step: rows.add(connection, "published") for step in STEPS}
    words = [f"{step}={id}" for step, id in ids.items()]
    program = [sys.executable, "-m", "tests.runtime.forking", url(worker_engine), *words]
    done = subprocess.run(program, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr

    with effects.begin() as connection:
        found = {step: rows.get(connection, id) for step, id in ids.items()}
        assert {step: (row.state, row.attempt) for step, row in found.items()} == LEFT
        assert notes(effects) == ["committed"]
        rescued = ledger.rescue_running(connection, ledger.Patience(running=0))
        assert {id for id, *_ in rescued} == {ids["claimed"], ids["worked"], ids["finishing"]}

    def again(session: object, now: object, payload: object) -> Done:
        session.execute(text("INSERT INTO jobs.effects (note) VALUES ('again')"))  # type: ignore[attr-defined]
        return Done()

    for id in ids.values():
        execute(PROGRESS_REFRESH, again, id, {}, engine=worker_engine, worker="w@here/2")
    with effects.connect() as connection:
        assert {rows.state(connection, id) for id in ids.values()} == {"succeeded"}
    assert notes(effects) == [*["again"] * 4, "committed"]


FORK = """
    import os
    from celery import signals
    from sqlalchemy import text
    import kitaab_jobs.worker
    from kitaab_jobs.db.engines import primary

    def backend():
        with primary("kitaab-jobs worker").connect() as connection:
            return connection.scalar(text("SELECT pg_backend_pid()"))

    mine = backend()
    read, write = os.pipe()
    if not os.fork():
        signals.worker_process_init.send(None)
        os.write(write, str(backend()).encode())
        os._exit(0)
    os.wait()
    theirs = int(os.read(read, 100))
    print(mine, theirs, backend())
"""


def test_a_forked_child_has_connections_of_its_own(worker_engine: Engine, redis_url: str) -> None:
    """On a socket that two processes share, each would read the other's answers."""
    env = os.environ | {"KITAAB_DATABASE_URL": url(worker_engine), "KITAAB_REDIS_URL": redis_url}
    program = [sys.executable, "-c", textwrap.dedent(FORK)]
    done = subprocess.run(program, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    before, child, after = map(int, done.stdout.split())
    assert before == after
    assert child != before

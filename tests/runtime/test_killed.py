"""Killed at each step of a job, it is as if it had not begun, or as if it had ended: its effect is once."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from uuid import uuid4

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from kitaab_jobs.contract import PROGRESS_REFRESH, QUEUES
from kitaab_jobs.runtime import outbox
from kitaab_jobs.runtime.execute import execute
from kitaab_jobs.runtime.messages import MANY, fill
from tests.devstack.observe import wait_for
from tests.runtime import rows
from tests.runtime.doing import SMALL, Done, leave, notes, runner, succeed
from tests.runtime.forking import STEPS

# Nobody is waited for.
NOW = outbox.Patience(running=-1)
# What the row says after a death at each step.
LEFT = {
    "claiming": ("running", 1),  # a statement that commits by itself
    "claimed": ("running", 1),
    "worked": ("running", 1),
    "finishing": ("running", 1),
    "sent": ("succeeded", 1),  # the server commits, though nobody waits for its answer
    "committed": ("succeeded", 1),
}


def url(engine: Engine) -> str:
    return engine.url.render_as_string(hide_password=False)


def die(engine: Engine, *words: str) -> int:
    """Run these messages, and return how many processes have died of it."""
    program = [sys.executable, "-m", "tests.runtime.forking", url(engine), *words]
    done = subprocess.run(program, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return int(done.stdout.split()[-1])


def test_at_each_step(effects: Engine, worker_engine: Engine) -> None:
    with effects.begin() as connection:
        ids = {step: rows.add(connection, "published") for step in STEPS}
    assert die(worker_engine, *[f"{step}={id}" for step, id in ids.items()]) == len(STEPS)

    with effects.begin() as connection:
        wait_for(lambda: rows.state(connection, ids["sent"]) == "succeeded")
        found = {step: rows.get(connection, id) for step, id in ids.items()}
        assert {step: (row.state, row.attempt) for step, row in found.items()} == LEFT
        assert sorted(notes(effects)) == ["committed", "sent"]
        rescued = rows.rescue_running(connection, NOW)
        assert {job.id for job in rescued} == {id for step, id in ids.items() if LEFT[step][0] == "running"}

    def again(session: Session, now: object, payload: object) -> Done:
        leave(session, "again")
        return Done()

    for id in ids.values():
        execute(runner(worker_engine, PROGRESS_REFRESH, again), id, {})
    with effects.connect() as connection:
        assert {rows.state(connection, id) for id in ids.values()} == {"succeeded"}
    assert sorted(notes(effects)) == [*["again"] * 4, "committed", "sent"]


def test_while_the_row_of_a_message_is_written(effects: Engine, worker_engine: Engine) -> None:
    """It had no row yet, and has none then; its message, which nobody has acknowledged, comes again."""
    id = uuid4()
    assert die(worker_engine, f"recording={id}") == 1
    with effects.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM jobs.jobs")) == 0
    execute(runner(worker_engine, PROGRESS_REFRESH, succeed), id, {})
    with effects.connect() as connection:
        assert (rows.state(connection, id), rows.get(connection, id).attempt) == ("succeeded", 1)
    assert notes(effects) == ["done"]


@pytest.mark.parametrize("place", [0, 2])
def test_in_the_middle_of_a_batch(effects: Engine, worker_engine: Engine, place: int) -> None:
    """As the relay and the rescue go on from there: the poison ends dead, and who was with it knows nothing of it."""
    payloads = [{"note": f"n{n}"} for n in range(4)]
    payloads.insert(place, {"note": "poison", "do": "die"})
    with effects.begin() as connection:
        common = {"name": SMALL.name, "max_attempts": SMALL.max_attempts}
        ids = [
            rows.add(connection, "ready", args=payload, due=-n, **common)
            for n, payload in enumerate(payloads)
        ]
    innocent = [id for id in ids if id != ids[place]]

    [message] = messages(effects)
    assert die(worker_engine, message) == 1
    assert notes(effects) == []
    with effects.begin() as connection:
        assert {rows.get(connection, id).attempt for id in ids} == {1}
        assert len(rows.rescue_running(connection, NOW)) == 5
        for id in ids:
            row = rows.get(connection, id)
            assert (row.state, row.attempt, row.alone) == ("ready", 0, True)

    assert die(worker_engine, message) == 0, "the old message comes again: each is to be alone"
    deaths = []
    while sent := messages(effects):
        deaths.append(die(worker_engine, *sent))
        with effects.begin() as connection:
            rows.rescue_running(connection, NOW)
    assert deaths == [1, 1, 1]
    with effects.connect() as connection:
        for id in innocent:
            assert (rows.state(connection, id), rows.get(connection, id).attempt) == ("succeeded", 1)
        row = rows.get(connection, ids[place])
    assert (row.state, row.attempt) == ("dead", SMALL.max_attempts)
    assert row.error.endswith("stopped while it ran this job (attempt 3 of 3)")
    assert sorted(notes(effects)) == ["n0", "n1", "n2", "n3"]


def messages(engine: Engine) -> list[str]:
    """What the relay would publish now, as `forking` wants it."""
    with engine.begin() as connection:
        ready = outbox.take(connection, {"default": 100}, QUEUES.values(), limited_kinds=False)
    sent = fill(ready, {SMALL.name: SMALL}, {})
    return ["batch=" + ",".join(message.args.get(MANY, [str(message.id)])) for message in sent]


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


LAST_JOB = """
    import os, sys
    from uuid import UUID
    from celery import signals
    import kitaab_jobs.worker
    from kitaab_jobs.contract import PROGRESS_REFRESH
    from kitaab_jobs.db.engines import primary
    from kitaab_jobs.runtime.execute import execute
    from kitaab_jobs.runtime.job import LAST
    from tests.runtime.doing import runner, succeed

    engine = primary("kitaab-jobs job", ping=False)
    execute(runner(engine, PROGRESS_REFRESH, succeed), UUID(sys.argv[1]), {}, from_ledger=True, last=LAST)
    signals.worker_process_shutdown.send(None)
    os._exit(0)
"""
REFUSAL = """
    CREATE FUNCTION jobs.refuse_late() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM pg_sleep(0.5);
        RAISE EXCEPTION USING ERRCODE = '23505', MESSAGE = 'refused late';
    END $$;
    CREATE CONSTRAINT TRIGGER refuse_late AFTER INSERT ON jobs.effects DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION jobs.refuse_late()
"""


def test_a_process_that_ends_waits_for_its_last_commit(
    effects: Engine, worker_engine: Engine, redis_url: str
) -> None:
    """It is made anew after so many jobs, or its worker stops: a commit that is refused then is that job's failure,
    and not a worker's death, after which the job would run again."""
    with effects.begin() as connection:
        id = rows.add(connection, "published")
        connection.execute(text(REFUSAL))
    env = os.environ | {"KITAAB_DATABASE_URL": url(worker_engine), "KITAAB_REDIS_URL": redis_url}
    program = [sys.executable, "-c", textwrap.dedent(LAST_JOB), str(id)]
    done = subprocess.run(program, env=env, capture_output=True, text=True, timeout=60, check=False)
    with effects.begin() as connection:
        row = rows.get(connection, id)
        connection.execute(text("DROP FUNCTION jobs.refuse_late() CASCADE"))
    assert done.returncode == 0, done.stderr
    assert (row.state, row.attempt, row.error) == ("dead", 1, "UniqueViolation: refused late")

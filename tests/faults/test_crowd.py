"""Messages that come more than once, and many processes that want the same."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

from tests.devstack.observe import wait_for
from tests.faults import scenarios
from tests.faults.kinds import FLAKY, LIMITED, LONG, MANY, SINGLE
from tests.faults.load import Orders, load, place
from tests.faults.stack import STARTS_WITHIN, Stack, say
from tests.faults.timing import (
    CROWDED,
    ENDLESS,
    ENDS_WITHIN,
    LONG_SECONDS,
    RELAY_DEATHS,
    SEED,
    SHIPPED,
    VISIBILITY,
)
from tests.runtime.conftest import celery_on, closing


def test_sent_again_by_another_relay(plain: Stack) -> None:
    assert scenarios.sent_again(plain) == []


def test_relays_die_between_publishing_and_commit_under_load(plain: Stack) -> None:
    """Beside one that lives."""
    sent = plain.commands.folder / "sent"
    plain.beat(sent=str(sent))
    plain.ready(plain.worker())
    with load(plain.caller_url, seed=SEED) as callers:
        for _ in range(RELAY_DEATHS):
            dying = plain.beat(relay_dies="2", sent=str(sent))
            assert dying.popen.wait(timeout=STARTS_WITHIN) == 9
        accepted = callers.stop()
    found = plain.problems(accepted)
    twice = sum(count > 1 for count in times_sent(sent).values())
    say(
        f"{RELAY_DEATHS} relays died: {len(accepted)} accepted, {twice} sent more than once, {len(found)} wrong"
    )
    assert found == []
    assert len(publishers(sent)) == RELAY_DEATHS + 1


def test_a_message_overtakes_the_commit_of_its_relay(plain: Stack) -> None:
    """Whatever the job comes from: the message waits for the row, so that it need not be sent again."""
    sent = plain.commands.folder / "sent"
    plain.beat(sent=str(sent), relay_lingers="0.2", patience=ENDLESS)
    plain.ready(plain.worker())
    accepted: Orders = {}
    for number, kind in enumerate((SINGLE, MANY, FLAKY, LIMITED)):
        accepted |= place(plain.caller_url, kind, range(10 * number + 1, 10 * number + 4))
    found = plain.problems(accepted)
    assert found == []
    assert sent_as_often_as_started(plain, sent)
    attempts = dict(plain.query("SELECT name, max(attempt) FROM jobs.jobs GROUP BY name"))
    assert attempts == {SINGLE.name: 1, MANY.name: 1, FLAKY.name: 2, LIMITED.name: 1}


def test_a_job_longer_than_the_visibility_timeout(plain: Stack) -> None:
    """Its message, sent by a plain Celery client, is given to somebody else again and again while it runs.

    Those of the ledger are not: what runs them keeps its claim alive (in the long form, beyond the rescue's patience),
    whatever Redis thinks of the message.
    """
    plain.beat(patience=SHIPPED)
    workers = [plain.worker(name, visibility=str(VISIBILITY)) for name in ("w1", "w2")]
    for worker in workers:
        plain.ready(worker)
    with closing(celery_on(plain.redis.url(0))) as client:
        sent = client.send_task(LONG.name, kwargs={"key": 1, "wait": LONG_SECONDS}, queue=LONG.queue)
    wait_for(lambda: plain.scalar("SELECT count(*) FROM jobs.jobs") == 1)
    accepted = {1: LONG.name} | place(plain.caller_url, LONG, [2], LONG_SECONDS)
    accepted |= place(plain.caller_url, MANY, range(10, 15), 0.8)
    found = plain.problems(accepted, within=2 * LONG_SECONDS + ENDS_WITHIN)
    assert found == []
    wait_for(lambda: plain.unacknowledged_messages() == 0)
    dropped = sum(worker.output.count("action=message_dropped") for worker in workers)
    of_client = sum(worker.output.count(f"action=message_dropped id={sent.id}") for worker in workers)
    say(f"a job of {LONG_SECONDS:.0f} s, visible again after {VISIBILITY} s: came {of_client} times more")
    assert dropped == of_client > 0
    assert plain.query("SELECT DISTINCT attempt FROM jobs.jobs") == [(1,)]


def test_callers_with_the_same_keys_get_one_job(plain: Stack) -> None:
    assert scenarios.contested(plain) == []


def test_three_beats_fire_once(plain: Stack) -> None:
    assert scenarios.fired_by_three(plain) == []


def test_three_beats_with_their_relays_and_two_workers(plain: Stack) -> None:
    """Each job is published, started and ended once; what is limited runs one at a time; each fire fires once."""
    sent = plain.commands.folder / "sent"
    for _ in range(3):
        plain.beat(tick="1", sent=str(sent), patience=ENDLESS)
    for worker in [plain.worker(name) for name in ("w1", "w2")]:
        plain.ready(worker)
    limited = range(1_000_001, 1_000_011)
    with load(plain.caller_url, pause=0.1, seed=SEED) as callers:
        accepted = place(plain.caller_url, LIMITED, limited, 0.1)
        wait_for(lambda: len(publishers(sent)) >= 2, seconds=STARTS_WITHIN)
        time.sleep(CROWDED)
        accepted |= callers.stop()
    fires = scenarios.fires_until(plain, 1, ENDS_WITHIN)
    found = plain.problems(accepted)
    by_worker = "SELECT split_part(worker, '@', 1) AS name, count(*) AS jobs FROM jobs.jobs GROUP BY 1"
    who = {row.name: row.jobs for row in plain.query(by_worker)}
    say(
        f"three beats, two workers: {len(accepted)} accepted, {len(found)} wrong; by worker {who}, "
        f"by relay {publishers(sent)}"
    )
    assert (found, fires) == ([], [])
    assert who.keys() == {"w1", "w2"}
    assert sent_as_often_as_started(plain, sent)
    assert plain.scalar("SELECT max(attempt) FROM jobs.jobs") == 1
    together = """
        SELECT count(*) FROM jobs.jobs AS a JOIN jobs.jobs AS b ON a.name = b.name AND a.id < b.id
        WHERE a.name = :name AND a.started_at < b.finished_at AND b.started_at < a.finished_at
    """
    assert plain.scalar(together, name=LIMITED.name) == 0


def sent_as_often_as_started(stack: Stack, sent: Path) -> bool:
    """Whether each attempt took one message: none came twice, and none was dropped."""
    attempts = {str(row.id): row.attempt for row in stack.query("SELECT id, attempt FROM jobs.jobs")}
    return times_sent(sent) == attempts


def times_sent(path: Path) -> Counter[str]:
    """Return how often each job was published."""
    return Counter(line.split()[1] for line in path.read_text().splitlines())


def publishers(path: Path) -> Counter[int]:
    """Return how many jobs each relay has published."""
    if not path.exists():
        return Counter()
    return Counter(int(line.split()[0]) for line in path.read_text().splitlines() if " " in line)

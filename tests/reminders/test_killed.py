"""A worker that is killed with -9 while it sends: nobody is written to twice, and each delivery has its end."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO, Any
from uuid import UUID

import pytest

from tests.reminders.channels.letters import SECRET, VAPID
from tests.reminders.postoffice import PostOffice

ROOT = Path(__file__).parents[2]


def worker(
    office: PostOffice, job: UUID, log: IO[bytes] | None = None, **more: Any
) -> subprocess.Popen[bytes]:
    settings = {
        "smtp_url": office.mail.url,
        "redis_url": office.redis,
        "mail_from": "Kitaab <reminders@kitaab.example>",
        "public_url": "https://kitaab.example",
        "unsubscribe_secret": SECRET,
        "vapid_private_key": VAPID,
        "push_services": "127.0.0.1",
        "emails_per_second": 1000,
        "pushes_per_second": 1000,
    }
    given = {
        "database": office.worker.url.render_as_string(hide_password=False).replace("+psycopg", ""),
        "job": str(job),
        "settings": settings | more,
    }
    office.run("UPDATE jobs.jobs SET state = 'published' WHERE id = :id", id=job)
    command = [sys.executable, "-m", "tests.reminders.killed_worker", json.dumps(given)]
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stderr=log)


def kill_when(process: subprocess.Popen[bytes], ready: threading.Event) -> None:
    assert ready.wait(30)
    process.send_signal(signal.SIGKILL)
    process.wait(10)


@pytest.mark.parametrize("taken", [True, False], ids=["after it was taken", "before it was taken"])
def test_while_an_email_is_sent(office: PostOffice, taken: bool) -> None:
    """The fourth e-mail is on its way: whether the server took it, the worker never heard."""
    ids = [office.delivery() for _ in range(8)]
    job = office.enqueue(*ids)
    reached, count = threading.Event(), 0

    def on_data() -> None:
        nonlocal count
        count += 1
        if count == 4:
            office.mail.behaviour.data_seconds = 1.0 if taken else 0.0
            office.mail.behaviour.data = "250 OK" if taken else "drop"
            reached.set()

    # In the dialogue itself: what is set here holds for the answer to this very message.
    office.mail.handler.on_data = on_data
    if not taken:
        office.mail.behaviour.rcpt_default = "250 OK"
    process = worker(office, job)
    kill_when(process, reached)
    office.mail.behaviour.data, office.mail.behaviour.data_seconds = "250 OK", 0.0
    states = office.states()
    assert states == {"sent": 3, "sending": 1, "pending": 4}

    office.run("UPDATE jobs.jobs SET state = 'ready' WHERE id = :id", id=job)  # as the rescue does
    office.start(job)
    assert office.states() == {"sent": 7, "unknown": 1}
    [unknown] = [id for id in ids if office.state(id)[0] == "unknown"]
    assert office.state(unknown)[1] == "the worker ended while it was being sent"
    recipients = office.mail.handler.recipients
    assert len(recipients) == len(set(recipients))
    assert len(recipients) in (7, 8)


def test_while_many_are_pushed(office: PostOffice) -> None:
    people = [office.person() for _ in range(60)]
    for number, user in enumerate(people):
        office.browser(user, f"/{number}")
    ids = [office.delivery(user, "webpush") for user in people]
    job = office.enqueue(*ids)
    reached = threading.Event()

    def on_push() -> None:
        if len(office.push.pushed) >= 20:
            office.push.default = "hang"
            reached.set()

    office.push.on_push = on_push
    process = worker(office, job)
    kill_when(process, reached)
    office.push.default = (201, {})
    office.push.release.set()
    left = office.states()
    assert 1 <= left["sending"] <= 16
    office.push.on_push = lambda: None
    office.run("UPDATE jobs.jobs SET state = 'ready' WHERE id = :id", id=job)
    office.start(job)
    states = office.states()
    assert states["unknown"] == left["sending"]
    assert states["sent"] == 60 - left["sending"]
    paths = [pushed.path for pushed in office.push.pushed]
    assert len(paths) == len(set(paths))

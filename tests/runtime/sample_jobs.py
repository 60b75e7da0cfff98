"""The contract of the jobs that only the tests have; sample_app.py does them."""

from __future__ import annotations

from kitaab_jobs.contract import Backoff, Job, Payload


class Note(Payload):
    """What a sample job leaves behind, and how long it takes when it starts for the first time."""

    note: str
    seconds: float = 0


WRITE = Job("sample.write", "leaves a note, the first time after a while", Note)
ENDLESS = Job("sample.endless", "never ends by itself", Note, time_limit=1, max_attempts=1)
QUERY = Job("sample.query", "waits in the database", Note, time_limit=2, max_attempts=1)
CRASH = Job("sample.crash", "kills its process", Note, max_attempts=2)
FLAKY = Job("sample.flaky", "fails the first time", Note, backoff=Backoff(base=0.1))
FEW = Job("sample.few", "only one at once", Note, max_running=1)
TICK = Job("sample.tick", "is fired every second", queue="reminders")

SAMPLES = (WRITE, ENDLESS, QUERY, CRASH, FLAKY, FEW, TICK)

"""What a worker writes while all goes wrong, and all that is left in the database: no address, key or token."""

from __future__ import annotations

import re
from pathlib import Path

from sqlalchemy import text

from tests.reminders.channels.letters import SECRET, VAPID
from tests.reminders.postoffice import PostOffice
from tests.reminders.test_killed import worker

# Where addresses and subscriptions belong.
THEIR_PLACE = {"users", "push_subscriptions"}


def test_by_a_worker_that_logs_all_it_can(office: PostOffice, tmp_path: Path) -> None:
    people = [office.person(email=f"secret{number}@hidden.example") for number in range(4)]
    browsers = [office.browser(user, f"/secret-{number}") for number, user in enumerate(people)]
    mail, push = office.mail.behaviour, office.push
    mail.rcpt = {
        "secret0@hidden.example": "550 5.1.1 <secret0@hidden.example> unknown",
        "secret1@hidden.example": "450 4.2.0 secret1@hidden.example: later",
        "secret2@hidden.example": "drop",
    }
    # The last one says that the service wants no more for now.
    push.answers = {"/secret-0": (410, {}), "/secret-2": "drop", "/secret-3": (429, {"Retry-After": "60"})}
    ids = [office.delivery(user, channel) for user in people for channel in ("email", "webpush", "log")]
    said = tmp_path / "log"
    with said.open("wb") as log:
        process = worker(office, office.enqueue(*ids), log, log_level="DEBUG", log_format="json")
        assert process.wait(60) == 0
    assert {"sent", "failed", "pending", "unknown"} <= office.states().keys()

    secrets = ["secret", "hidden.example", SECRET, VAPID, "vapid", *(b.p256dh for b in browsers)]
    secrets += [browser.auth for browser in browsers]
    written = {"the log": said.read_text()} | everything_in(office)
    assert "letter_logged" in written["the log"]
    assert "gone" in written["jobs.deliveries"]
    assert "<***> unknown" in written["jobs.deliveries"]
    for where, what in written.items():
        found = [secret for secret in secrets if re.search(re.escape(secret), what, re.IGNORECASE)]
        assert not found, f"{found} in {where}"


def everything_in(office: PostOffice) -> dict[str, str]:
    """Return the rows of every table but those that have such things, as text."""
    tables = """
        SELECT c.oid::regclass::text FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
        WHERE n.nspname IN ('public', 'jobs') AND c.relkind IN ('r', 'p') AND NOT c.relispartition
    """
    with office.owner.connect() as connection:
        names = [name for name in connection.scalars(text(tables)) if name not in THEIR_PLACE]
        rows = {
            name: connection.scalar(text(f"SELECT string_agg(t::text, E'\\n') FROM {name} AS t"))
            for name in names
        }
    assert {"jobs.jobs", "jobs.deliveries", "audit_log", "suppressed_addresses"} <= rows.keys()
    return {name: row or "" for name, row in rows.items()}

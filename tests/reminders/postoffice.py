"""People with deliveries that wait, and workers that send them: a real ledger, a real database, real servers."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any
from uuid import UUID

from sqlalchemy import Engine, text

from kitaab_jobs import contract
from kitaab_jobs.client import enqueue
from kitaab_jobs.runtime.attempt import Ended, Runner
from kitaab_jobs.runtime.execute import execute
from kitaab_jobs.settings import Settings
from tests.reminders.channels.letters import configured
from tests.reminders.channels.mailserver import MailServer
from tests.reminders.channels.pushserver import Browser, PushServer
from tests.reminders.delivering import runner

_numbers = itertools.count()

# In seconds: where time is not the point, a slow machine has enough of it.
AMPLE = 600.0


class PostOffice:
    """A database as its owner, workers' connections to it, and the providers."""

    def __init__(self, owner: Engine, worker: Engine, redis: str, mail: MailServer, push: PushServer) -> None:
        self.owner = owner
        self.worker = worker
        self.mail = mail
        self.push = push
        self.redis = redis
        self.more: dict[str, Any] = {}

    @property
    def settings(self) -> Settings:
        return configured(smtp_url=self.mail.url, redis_url=self.redis, **self.more)

    def one(self, statement: str, **values: Any) -> Any:
        with self.owner.begin() as connection:
            return connection.scalar(text(statement), values)

    def run(self, statement: str, **values: Any) -> None:
        with self.owner.begin() as connection:
            connection.execute(text(statement), values)

    def person(self, **given: Any) -> int:
        values = {
            "email": f"person{next(_numbers)}@example.org",
            "email_verified": True,
            "language": "en",
        } | given
        return int(
            self.one(
                f"""
                INSERT INTO users ({", ".join(values)}, password_hash, full_name)
                VALUES ({", ".join(f":{name}" for name in values)}, 'x', 'A person') RETURNING user_id
                """,
                **values,
            )
        )

    def email_of(self, user: int) -> str:
        return str(self.one("SELECT email FROM users WHERE user_id = :u", u=user))

    def browser(self, user: int, path: str = "/push/abc") -> Browser:
        browser = self.push.browser(path)
        self.run(
            "INSERT INTO push_subscriptions (user_id, endpoint, p256dh, auth) VALUES (:u, :e, :p, :a)",
            u=user,
            e=browser.endpoint,
            p=browser.p256dh,
            a=browser.auth,
        )
        return browser

    def delivery(self, user: int | None = None, channel: str = "email", minutes: float = 120) -> int:
        """Add a delivery that waits, whose deadline is so many minutes ahead."""
        user = self.person() if user is None else user
        reminder = self.one(
            "SELECT notification_id FROM notifications WHERE user_id = :u AND is_active", u=user
        ) or self.one(
            """
            INSERT INTO notifications (user_id, notification_time, timezone, channels)
            VALUES (:u, '07:00', 'UTC', '{email,webpush,log,pigeon}') RETURNING notification_id
            """,
            u=user,
        )
        return int(
            self.one(
                """
                INSERT INTO jobs.deliveries (notification_id, user_id, channel, due_at, due_date, zone, deadline)
                VALUES (:n, :u, :c, now(), current_date, 'UTC', now() + :m * interval '1 minute') RETURNING delivery_id
                """,
                n=reminder,
                u=user,
                c=channel,
                m=minutes,
            )
        )

    def enqueue(self, *ids: int) -> UUID:
        with self.owner.begin() as connection:
            args = {"zone": "UTC", "delivery_ids": list(ids)}
            return enqueue(connection, contract.REMINDERS_DELIVER, args)

    def start(self, job: UUID, budget: float = AMPLE) -> Ended:
        """Run a job as a worker does, from its message on."""
        self.run("UPDATE jobs.jobs SET state = 'published', run_at = now() WHERE id = :id", id=job)
        return execute(self.runner(budget), job, {}, from_ledger=True)

    def runner(self, budget: float = AMPLE) -> Runner:
        return runner(self.worker, self.settings, "here/1", budget)

    def deliver(self, *ids: int, budget: float = AMPLE) -> dict[str, int]:
        """Enqueue and run one job, and return its report where it succeeded."""
        ended = self.start(self.enqueue(*ids), budget)
        if ended.error is not None:
            raise ended.error
        assert ended.result is not None
        return {name: count for name, count in ended.result.items() if count}

    def followers(self) -> list[tuple[UUID, float]]:
        """Return the jobs that wait to be run, and in how many seconds each is to be."""
        with self.owner.connect() as connection:
            rows = connection.execute(
                text(
                    """
                    SELECT id, extract(epoch FROM run_at - now()) FROM jobs.jobs
                    WHERE name = 'reminders.deliver' AND state IN ('ready', 'scheduled') ORDER BY run_at
                    """
                )
            )
            return [(row[0], float(row[1])) for row in rows]

    def state(self, id: int) -> tuple[str, str | None]:
        with self.owner.connect() as connection:
            statement = "SELECT state::text, reason FROM jobs.deliveries WHERE delivery_id = :id"
            row = connection.execute(text(statement), {"id": id}).one()
            return (row[0], row[1])

    def states(self) -> dict[str, int]:
        with self.owner.connect() as connection:
            rows = connection.execute(text("SELECT state::text, count(*) FROM jobs.deliveries GROUP BY 1"))
            return {row[0]: row[1] for row in rows}

    def column(self, id: int, name: str) -> Any:
        return self.one(f"SELECT {name} FROM jobs.deliveries WHERE delivery_id = :id", id=id)


Maker = Callable[[], PostOffice]

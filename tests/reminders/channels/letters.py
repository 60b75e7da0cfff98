"""Letters and settings for tests of channels."""

from __future__ import annotations

import datetime as dt
from typing import Any

from kitaab_jobs.reminders.channels.protocol import Letter
from kitaab_jobs.settings import Settings

NOW = dt.datetime(2026, 11, 25, 6, 0, tzinfo=dt.UTC)
SECRET = "0123456789abcdef0123456789abcdef"
# 32 bytes in base64: a key for tests only.
VAPID = "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE"


def letter(**given: Any) -> Letter:
    """A reminder, with what is given in place of its own."""
    values: dict[str, Any] = {
        "delivery_id": 7,
        "user_id": 42,
        "channel": "email",
        "kind": "reminder",
        "key": "0b0e7d1c-0000-5000-8000-000000000007",
        "collapse": "reminder/3",
        "language": "en",
        "day": dt.date(2026, 11, 25),
        "deadline": NOW + dt.timedelta(hours=2),
        "to": {"address": "amina@example.org"},
    }
    return Letter(**(values | given))


def configured(**given: Any) -> Settings:
    """Settings with which every channel can be opened."""
    values: dict[str, Any] = {
        "mail_from": "Kitaab <reminders@kitaab.example>",
        "public_url": "https://kitaab.example",
        "unsubscribe_secret": SECRET,
        "vapid_private_key": VAPID,
        "push_services": "127.0.0.1",
        "emails_per_second": 10_000,
        "pushes_per_second": 10_000,
    }
    return Settings.load({}, **(values | given))

"""The links that unsubscribe: nobody can make one, and whoever has one can use it once or often."""

from __future__ import annotations

import hmac
from base64 import urlsafe_b64encode
from collections.abc import Callable
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, text

from kitaab_jobs.errors import SettingsError
from kitaab_jobs.reminders.unsubscribe import BadToken, Unsubscribed, read, token, unsubscribe
from tests.reminders.channels.letters import SECRET, configured

OLD = "an older secret of more than thirty-two characters"


def test_as_documented() -> None:
    """Made by hand, as an app in another language would check it."""
    digest = hmac.new(SECRET.encode(), b"kitaab-unsubscribe:42.email.reminder", sha256).digest()
    signature = urlsafe_b64encode(digest).decode().rstrip("=")
    assert token(42, "email", "reminder", SECRET) == f"42.email.reminder.{signature}"


def test_read_back() -> None:
    assert read(token(42, "email", "completion", SECRET), [SECRET]) == Unsubscribed(42, "email", "completion")


def test_an_older_secret_still_counts() -> None:
    assert read(token(1, "email", "reminder", OLD), [SECRET, OLD]).user_id == 1
    with pytest.raises(BadToken):
        read(token(1, "email", "reminder", OLD), [SECRET])


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "42.email.reminder",
        "42.email.reminder.",
        token(42, "email", "reminder", SECRET).replace("42", "43", 1),
        token(42, "email", "reminder", SECRET).replace("reminder", "completion"),
        token(42, "email", "reminder", SECRET) + "\n",
        token(42, "email", "reminder", SECRET) + "=",
        " " + token(42, "email", "reminder", SECRET),
        token(42, "email", "everything", SECRET),
        "42.email.reminder." + "A" * 43,
        "٤٢.email.reminder." + "A" * 43,
        "99999999999999999999.email.reminder." + "A" * 43,
    ],
)
def test_what_is_not_ours(bad: str) -> None:
    with pytest.raises(BadToken):
        read(bad, [SECRET])


@given(st.text(max_size=80))
def test_nothing_else_is_read(anything: str) -> None:
    with pytest.raises(BadToken):
        read(anything, [SECRET])


def person(connection: Connection, email: str = "amina@example.org") -> int:
    statement = (
        "INSERT INTO users (email, password_hash, full_name) VALUES (:email, 'x', 'A') RETURNING user_id"
    )
    found = connection.scalar(text(statement), {"email": email})
    assert found is not None
    return int(found)


def test_applied_as_the_app(database: Engine, engine_as: Callable[[str], Engine]) -> None:
    with database.begin() as connection:
        user, other = person(connection), person(connection, "b@example.org")
    given = token(user, "email", "reminder", SECRET)
    for _ in range(2):
        with engine_as("kitaab_app").begin() as connection:
            assert unsubscribe(connection, given, configured()).user_id == user
    with database.connect() as connection:
        rows = connection.execute(text("SELECT user_id, channel, kind FROM channel_opt_outs")).all()
    assert [tuple(row) for row in rows] == [(user, "email", "reminder")]
    assert other != user


def test_of_somebody_who_is_gone(database: Engine, engine_as: Callable[[str], Engine]) -> None:
    with engine_as("kitaab_app").begin() as connection:
        unsubscribe(connection, token(999, "email", "reminder", SECRET), configured())
    with database.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM channel_opt_outs")) == 0


def test_without_a_secret() -> None:
    with pytest.raises(SettingsError, match="KITAAB_UNSUBSCRIBE_SECRET is not set"):
        unsubscribe(None, "x", configured(unsubscribe_secret=None))  # type: ignore[arg-type]  # is not reached

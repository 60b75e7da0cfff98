"""Flower beside the ledger: the same ids, names and arguments; kept over a restart; nothing changed without a password."""

from __future__ import annotations

import base64
import json
import re
import signal
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import psycopg
import pytest

from kitaab_jobs.settings import Settings
from tests.devstack.observe import wait_for
from tests.devstack.test_up import Up, until_ready, up

__all__ = ["up"]

pytestmark = pytest.mark.usefixtures("no_servers", "postgres_folder")

USER = "operator:not-a-secret"


def ask(url: str, user: str | None = None, body: dict[str, Any] | None = None) -> tuple[int, Any]:
    """Return the status and the JSON of an answer; (0, None) where nobody answers."""
    request = urllib.request.Request(url, data=None if body is None else json.dumps(body).encode())
    if user is not None:
        request.add_header("Authorization", "Basic " + base64.b64encode(user.encode()).decode())
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            text = answer.read().decode()
            return answer.status, json.loads(text) if text.startswith(("{", "[")) else text
    except urllib.error.HTTPError as error:
        return error.code, None
    except OSError:
        return 0, None


def address(said: str) -> str:
    found = re.search(r"http://127\.0\.0\.1:\d+", said)
    assert found, said
    return found[0]


def test_it_shows_the_ledgers_jobs_and_keeps_them(up: Up, folder: Path) -> None:
    first = up(FLOWER_BASIC_AUTH=USER)
    flower = address(until_ready(first))
    # That it answers does not say that it listens yet, nor that the worker knows of it (each finds out for itself), and
    # what it has not heard it never shows. The beat's own jobs of that kind tell.
    wait_for(lambda: ask(f"{flower}/api/tasks?state=SUCCESS&taskname=progress.refresh", USER)[1], seconds=120)
    with psycopg.connect(Settings.load(data_dir=folder).database, autocommit=True) as connection:
        row = connection.execute("SELECT jobs.enqueue('progress.refresh', '{\"limit\": 77}')").fetchone()
        assert row is not None

    def shown() -> Any:
        status, task = ask(f"{flower}/api/task/info/{row[0]}", USER)
        return task if status == 200 and task["state"] == "SUCCESS" else None

    task = wait_for(shown, seconds=60)
    assert (task["uuid"], task["name"], task["kwargs"]) == (str(row[0]), "progress.refresh", "{'limit': 77}")
    assert ask(f"{flower}/api/tasks")[0] == 401
    first.send_signal(signal.SIGTERM)
    assert first.wait(60) == 0

    second = up(FLOWER_BASIC_AUTH=USER)
    flower = address(until_ready(second))
    assert wait_for(shown, seconds=60)["uuid"] == str(row[0])


def test_without_a_password_it_changes_nothing(up: Up) -> None:
    flower = address(until_ready(up(FLOWER_UNAUTHENTICATED_API="true")))
    wait_for(lambda: ask(f"{flower}/healthcheck")[0] == 200, seconds=60)
    for path in ("task/async-apply/progress.refresh", "worker/shutdown/worker@x", "task/revoke/x"):
        assert ask(f"{flower}/api/{path}", body={})[0] == 401, path

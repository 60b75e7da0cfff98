"""What a line of the log says when Celery logs an exception."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Callable, Iterator

import pytest
from redis import Redis

from kitaab_jobs.runtime import logs
from kitaab_jobs.settings import Settings

Said = Callable[[], str]


@pytest.fixture(params=["console", "json"])
def said(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Said]:
    """Give what has been logged."""
    root = logging.getLogger()
    before = root.handlers, root.level
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    logs.configure(Settings.load({}, log_format=request.param))
    yield stream.getvalue
    root.handlers, root.level = before


def test_a_broker_that_is_lost_is_one_line_with_the_reason(said: Said) -> None:
    try:
        Redis.from_url("redis://:secret@127.0.0.1:1/0").ping()
    except Exception:
        logging.getLogger("celery.beat").exception("beat pidbox connection error")
    line = said()
    assert line.count("\n") == 1
    assert "Traceback" not in line
    assert "Error 111 connecting to 127.0.0.1:1" in line
    assert "secret" not in line


def test_any_other_error_keeps_its_traceback(said: Said) -> None:
    try:
        1 / 0  # noqa: B018
    except ZeroDivisionError:
        logging.getLogger("celery.worker").exception("it broke")
    assert "Traceback" in said()
    assert "ZeroDivisionError" in said()

"""Schedulers with lines of a test's own, as `celery beat` would make them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import pytest
from celery import Celery
from sqlalchemy import Engine

from kitaab_jobs.db import engines
from kitaab_jobs.runtime.scheduler import LedgerScheduler
from kitaab_jobs.runtime.timetable import Schedule
from kitaab_jobs.settings import settings

Kind = TypeVar("Kind", bound=LedgerScheduler)


@contextmanager
def beats(
    kind: type[Kind], app: Celery, worker_engine: Engine, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Kind]]:
    """Return a function that makes schedulers of that kind, without their relays; they are closed at the end."""
    monkeypatch.setenv("KITAAB_DATABASE_URL", worker_engine.url.render_as_string(hide_password=False))
    monkeypatch.setenv("KITAAB_REDIS_URL", redis_url)
    settings.cache_clear()
    engines.forget()
    made: list[Kind] = []

    def make(*lines: Schedule) -> Kind:
        scheduler = kind(app=app, lazy=True)
        scheduler.lines = list(lines)
        made.append(scheduler)
        return scheduler

    yield make
    for scheduler in made:
        scheduler.close()
        scheduler.engine.dispose()
    settings.cache_clear()
    engines.forget()

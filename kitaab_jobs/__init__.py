"""Kitaab Jobs: durable, transactional background jobs and schedules on Celery and PostgreSQL."""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    # `celery -A kitaab_jobs` looks for `app` here. Only then is Celery imported: an application that
    # imports kitaab_jobs.client needs none of it.
    if name == "app":
        from kitaab_jobs.worker import app

        return app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

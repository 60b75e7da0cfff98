"""Logging: a sentence for people, and a stable `action` key with fields for machines.

    log.info("job succeeded", action="job_succeeded", job="progress.refresh", seconds=0.2)

`KITAAB_LOG_FORMAT` chooses lines for a terminal or JSON. Celery's own log goes the same way.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

import redis.exceptions
import structlog
from kombu.exceptions import OperationalError
from structlog.typing import EventDict

from kitaab_jobs.settings import Settings

_CHAIN: list[Any] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]

# What is chatty below WARNING and says nothing that the ledger does not say better.
_QUIET = ("celery.worker.strategy", "celery.app.trace", "amqp", "kombu", "alembic.runtime.migration")
# Their lines hold whole addresses, and that of a browser's push service is a secret: only what they call an error.
_SILENT = ("urllib3",)


_CONNECTION_LOST = (
    ConnectionError,
    OperationalError,
    redis.exceptions.ConnectionError,
    redis.exceptions.TimeoutError,
)


def lost_connection(_logger: Any, _level: str, event: EventDict) -> EventDict:
    """Say in a field why Celery lost its broker: its traceback of 60 lines at each try tells no more."""
    error = exc_info[1] if isinstance(exc_info := event.get("exc_info"), tuple) else None
    if isinstance(error, _CONNECTION_LOST):
        del event["exc_info"]
        event["error"] = f"{type(error).__name__}: {error}"
    return event


def configure(settings: Settings) -> None:
    """Send structlog's and the standard library's lines to stderr in one format."""
    structlog.configure(
        # First, so that a line nobody wants to read costs nothing.
        processors=[
            structlog.stdlib.filter_by_level,
            *_CHAIN,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    last: list[Any] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
        if settings.log_format == "json"
        else [
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(),
                # Where rich is installed the default prints local variables, and passwords are among them.
                exception_formatter=structlog.dev.plain_traceback,
            )
        ]
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*_CHAIN, lost_connection],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(settings.log_level)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in _SILENT:
        logging.getLogger(name).setLevel(logging.ERROR)


def logger(name: str) -> structlog.stdlib.BoundLogger:
    """Return the logger of a module."""
    return structlog.stdlib.get_logger(name)

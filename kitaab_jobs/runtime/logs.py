"""Logging: a sentence for people, and a stable `action` key with fields for machines.

    log.info("job succeeded", action="job_succeeded", job="progress.refresh", seconds=0.2)

`KITAAB_LOG_FORMAT` chooses lines for a terminal or JSON. Celery's own log goes the same way.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

import structlog

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
            foreign_pre_chain=_CHAIN,
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

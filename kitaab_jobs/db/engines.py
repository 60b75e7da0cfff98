"""The engines: `primary` for jobs, `direct` for what keeps session state, `replica` for analytics.

Nothing on `primary` may depend on session state, since a pooler in transaction mode loses it: no
prepared statements (`prepare_threshold=None`), limits are set as start-up options, and what is set
inside a transaction is SET LOCAL.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from sqlalchemy import Engine, create_engine
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import NullPool

from kitaab_jobs.errors import SettingsError
from kitaab_jobs.settings import Settings, redacted_or_mask, settings

# As the seed gives them: a peer that vanished is noticed after about a minute.
KEEPALIVES = {"keepalives": 1, "keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 5}


def sqlalchemy_url(url: str) -> URL:
    """Return `url` for SQLAlchemy with psycopg 3; raise `SettingsError` when it cannot be read."""
    try:
        return make_url(url).set(drivername="postgresql+psycopg")
    except (ArgumentError, ValueError) as error:
        raise SettingsError(f"the database URL {redacted_or_mask(url)} cannot be read: {error}") from None


def libpq_url(url: str) -> str:
    """Return `url` for psycopg and the PostgreSQL tools."""
    return sqlalchemy_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


def connect_args(config: Settings, *, name: str) -> dict[str, Any]:
    """Return the parameters of each connection; `name` is what pg_stat_activity shows."""
    limits = {
        "timezone": "UTC",
        "statement_timeout": f"{config.statement_timeout}s",
        "lock_timeout": f"{config.lock_timeout}s",
        "idle_in_transaction_session_timeout": "10min",
    }
    return {
        "connect_timeout": config.connect_timeout,
        "application_name": name,
        "prepare_threshold": None,
        "options": " ".join(f"-c {key}={value}" for key, value in limits.items()),
        **KEEPALIVES,
    }


@lru_cache(maxsize=8)
def primary(name: str = "kitaab-jobs") -> Engine:
    """Return the pooled engine of this process. Forked children must call `forget` first."""
    config = settings()
    return create_engine(
        sqlalchemy_url(config.database),
        pool_size=min(config.pool_size, config.pool_max),
        max_overflow=max(0, config.pool_max - config.pool_size),
        pool_pre_ping=True,
        pool_timeout=config.connect_timeout,
        connect_args=connect_args(config, name=name),
    )


@lru_cache(maxsize=8)
def direct(name: str = "kitaab-jobs direct") -> Engine:
    """Return an engine past the pooler, one connection for each use."""
    config = settings()
    return create_engine(
        sqlalchemy_url(config.direct), poolclass=NullPool, connect_args=connect_args(config, name=name)
    )


def owner(config: Settings, name: str = "kitaab-jobs admin") -> Engine:
    """Return an engine as the owner of the tables, for operators' commands only."""
    return create_engine(
        sqlalchemy_url(config.admin), poolclass=NullPool, connect_args=connect_args(config, name=name)
    )


def forget() -> None:
    """Drop the pools without closing their sockets: they are the parent's, in a forked child."""
    primary().dispose(close=False)
    primary.cache_clear()
    direct.cache_clear()

"""The engines: `primary` for jobs, `owner` for operators. What keeps session state uses `settings.direct`.

Nothing on `primary` may depend on session state, since a pooler in transaction mode loses it: statements are
prepared only where there is none (`settings.prepares`), limits are set as start-up options, and what is set
inside a transaction is SET LOCAL.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Engine, create_engine
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import NullPool

from kitaab_jobs.errors import SettingsError
from kitaab_jobs.settings import Settings, redacted, settings

# As the seed gives them: a peer that vanished is noticed after about a minute.
KEEPALIVES = {"keepalives": 1, "keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 5}


def sqlalchemy_url(url: str) -> URL:
    """Return `url` for SQLAlchemy with psycopg 3; raise `SettingsError` when it cannot be read."""
    try:
        return make_url(url).set(drivername="postgresql+psycopg")
    except (ArgumentError, ValueError):
        raise SettingsError(f"the database URL {redacted(url)} cannot be read") from None


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
        "prepare_threshold": 5 if config.prepares else None,
        "options": " ".join(f"-c {key}={value}" for key, value in limits.items()),
        **KEEPALIVES,
    }


_POOLS: dict[str, Engine] = {}


def primary(name: str = "kitaab-jobs", *, ping: bool = True) -> Engine:
    """Return the pooled engine of this process. Forked children must call `forget` first.

    With `ping` a connection is asked whether it still lives before it is used; without, its user tries again.
    """
    if name not in _POOLS:
        _POOLS[name] = _pooled(name, ping)
    return _POOLS[name]


def _pooled(name: str, ping: bool) -> Engine:
    config = settings()
    return create_engine(
        sqlalchemy_url(config.database),
        pool_size=min(config.pool_size, config.pool_max),
        max_overflow=max(0, config.pool_max - config.pool_size),
        pool_pre_ping=ping,
        pool_timeout=config.connect_timeout,
        hide_parameters=True,  # an error's text goes to logs, and parameters are people's data
        connect_args=connect_args(config, name=name),
    )


def owner(config: Settings, name: str = "kitaab-jobs admin") -> Engine:
    """Return an engine as the owner of the tables, for operators' commands only."""
    return create_engine(
        sqlalchemy_url(config.admin),
        poolclass=NullPool,
        hide_parameters=True,
        connect_args=connect_args(config, name=name),
    )


def forget() -> None:
    """Drop the pools without closing their sockets: they are the parent's, in a forked child."""
    for engine in _POOLS.values():
        engine.dispose(close=False)
    _POOLS.clear()

"""What can be configured: `KITAAB_*` in the environment, frozen, read once by `settings()`.

Where the environment names no server, the addresses of the embedded stack are read from
`stack.env` in the data folder, which `kitaab-jobs up` writes while its servers run. So every
door (the CLI, `celery -A kitaab_jobs worker`, a script that uses the client) finds the same
servers, and the environment always wins.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from email.utils import parseaddr
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit, urlunsplit

from dotenv import dotenv_values
from platformdirs import user_data_path
from pydantic import AfterValidator, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from kitaab_jobs.errors import SettingsError

VERSION = version("kitaab-jobs")
STACK_FILE = "stack.env"

_QUERY_PASSWORD = re.compile(r"([?&](?:password|sslpassword|options)=)[^&#]*", re.IGNORECASE)

POSTGRES_SCHEMES = ("postgresql", "postgres", "postgresql+psycopg")
REDIS_SCHEMES = ("redis", "rediss", "unix", "redis+socket")
SMTP_SCHEMES = ("smtps", "smtp", "smtp+plain")

# The push services of the browsers; one that begins with a dot stands for all below it. People's devices name the
# address to which we send, so what is not listed here is not asked: it might be a server of our own network.
PUSH_SERVICES = "fcm.googleapis.com updates.push.services.mozilla.com .push.apple.com .notify.windows.com"
# Characters of a secret that signs: what is shorter can be guessed.
SHORTEST_SECRET = 32


def redacted(url: str) -> str:
    """Return `url` with its password replaced by `***`, for messages and logs.

    Of what cannot be taken apart for sure only the scheme is shown: a password with a character that should have
    been escaped ends up in the host, the path or the query.
    """
    url = _QUERY_PASSWORD.sub(r"\1***", url)
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        parts = urlsplit("")
    if "://" not in url or not parts.scheme or "@" in f"{parts.path}{parts.query}{parts.fragment}":
        scheme, found, _ = url.partition("://")
        return f"{scheme}://..." if found and scheme.isalnum() else "..."
    if not parts.password:
        return url
    head, _, host = parts.netloc.rpartition("@")
    user = head.partition(":")[0]
    return urlunsplit(parts._replace(netloc=f"{user}:***@{host}"))


def _address(schemes: tuple[str, ...], example: str) -> AfterValidator:
    def check(value: SecretStr) -> SecretStr:
        url = value.get_secret_value()
        shown = redacted(url)
        if shown.endswith("...") or any(letter.isspace() for letter in url) or url.count("@") > 1:
            raise ValueError(
                f"{shown} is not a URL (in a password, write /, ?, #, @ and a space as %2F, %3F, %23, %40, %20); "
                f"an example: {example}"
            )
        if urlsplit(url).scheme not in schemes:
            raise ValueError(
                f"{shown} does not start with {' or '.join(s + '://' for s in schemes)}; "
                f"an example: {example}"
            )
        return value

    return AfterValidator(check)


PostgresUrl = Annotated[SecretStr, _address(POSTGRES_SCHEMES, "postgresql://user:password@host:5432/kitaab")]
RedisUrl = Annotated[SecretStr, _address(REDIS_SCHEMES, "redis://:password@host:6379/0")]


SmtpUrl = Annotated[SecretStr, _address(SMTP_SCHEMES, "smtps://user:password@host:465")]


def _sender(value: str) -> str:
    address = parseaddr(value)[1]
    before, at, domain = address.rpartition("@")
    if not (before and at and "." in domain) or any(letter in value for letter in "\r\n"):
        raise ValueError(f"{value[:80]!r} is not a sender; an example: Kitaab <reminders@kitaab.example>")
    return value


def _public(value: str) -> str:
    try:
        parts = urlsplit(value)
        _ = parts.port
        known = parts.scheme in ("https", "http") and parts.hostname and not parts.query and "@" not in value
    except ValueError:
        known = False
    if not known or any(letter.isspace() for letter in value):
        raise ValueError(f"{redacted(value)[:80]!r} is not a web address; an example: https://kitaab.example")
    return value.rstrip("/")


def _signing(value: SecretStr) -> SecretStr:
    for one in value.get_secret_value().split(","):
        if len(one.strip()) < SHORTEST_SECRET:
            raise ValueError(
                f"it is shorter than {SHORTEST_SECRET} characters; one can be made with: openssl rand -hex 32"
            )
    return value


def default_folder() -> Path:
    """Return the folder of the embedded servers where none is named."""
    return user_data_path("kitaab-jobs", appauthor=False)


class Settings(BaseSettings):
    """The platform's settings. Times are in seconds unless the name says otherwise."""

    model_config = SettingsConfigDict(
        env_prefix="KITAAB_", frozen=True, extra="ignore", env_ignore_empty=True, hide_input_in_errors=True
    )

    data_dir: Path = Field(
        default_factory=default_folder,
        description="folder of the embedded servers",
    )

    @field_validator("data_dir")
    @classmethod
    def _expand_home(cls, value: Path) -> Path:
        return value.expanduser()  # no shell has seen what stands in a unit or compose file

    database_url: PostgresUrl | None = Field(None, description="PostgreSQL as kitaab_worker; may be a pooler")
    direct_url: PostgresUrl | None = Field(
        None, description="the same without a pooler, for LISTEN; database_url if not set"
    )
    admin_url: PostgresUrl | None = Field(
        None, description="PostgreSQL as kitaab_admin, for migrate and seed; direct_url if not set"
    )
    replica_url: PostgresUrl | None = Field(None, description="a read replica for analytics")
    redis_url: RedisUrl | None = Field(None, description="the Celery broker and the caches")

    pool_size: int = Field(5, ge=1, le=100, description="connections that a process keeps")
    pool_max: int = Field(20, ge=1, le=500, description="connections that a process may open")
    prepare_statements: bool | None = Field(
        None, description="plan a statement once for each connection; default: where no pooler is in between"
    )
    connect_timeout: int = Field(10, ge=1, description="to open a connection")
    statement_timeout: int = Field(60, ge=0, description="of one statement; 0 is none")
    lock_timeout: int = Field(5, ge=0, description="to wait for a lock; 0 is for ever")

    partition_by: Literal["year", "month"] = Field("year", description="span of one partition of entries")
    partitions_ahead_days: int = Field(
        400, ge=31, description="days ahead of today for which partitions are kept ready"
    )

    keep_jobs_days: int = Field(
        7, ge=1, description="after which the row of a job that ended well is removed"
    )
    keep_dead_jobs_days: int = Field(
        90, ge=1, description="the same for a dead one, which may be replayed until then"
    )
    keep_fires_days: int = Field(30, ge=1, description="the same for what became of a planned fire")

    smtp_url: SmtpUrl | None = Field(
        None,
        description="the mail server: smtps:// is TLS, smtp:// wants STARTTLS, smtp+plain:// has neither",
    )
    mail_from: Annotated[str, AfterValidator(_sender)] | None = Field(
        None, description="who e-mails come from, and whom push services write to"
    )
    public_url: Annotated[str, AfterValidator(_public)] | None = Field(
        None, description="where the app is: what messages link to"
    )
    unsubscribe_secret: Annotated[SecretStr, AfterValidator(_signing)] | None = Field(
        None, description="signs the links that unsubscribe; after a comma, older ones that still count"
    )
    vapid_private_key: SecretStr | None = Field(
        None, description="signs what is pushed: 32 bytes, or DER, in URL-safe base64"
    )
    push_services: str = Field(PUSH_SERVICES, description="hosts to which push messages may go")
    emails_per_second: float = Field(10, gt=0, le=10_000, description="from all workers together")
    pushes_per_second: float = Field(200, gt=0, le=100_000, description="from all workers together")

    log_format: Literal["console", "json"] = "console"
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    @property
    def database(self) -> str:
        """The URL that jobs use."""
        return self._need(self.database_url, "KITAAB_DATABASE_URL")

    @property
    def direct(self) -> str:
        """The URL that keeps session state: LISTEN, CONCURRENTLY."""
        return self._need(self.direct_url or self.database_url, "KITAAB_DATABASE_URL")

    @property
    def prepares(self) -> bool:
        """Whether statements may be prepared: a pooler in transaction mode loses them."""
        if self.prepare_statements is not None:
            return self.prepare_statements
        return self.direct_url is None or self.direct_url == self.database_url

    @property
    def admin(self) -> str:
        """The URL of the owner of the tables."""
        return self._need(self.admin_url or self.direct_url or self.database_url, "KITAAB_DATABASE_URL")

    @property
    def redis(self) -> str:
        """The URL of the broker."""
        return self._need(self.redis_url, "KITAAB_REDIS_URL")

    @property
    def stack_file(self) -> Path:
        """Where a running embedded stack leaves its addresses."""
        return self.data_dir / STACK_FILE

    def _need(self, value: SecretStr | None, name: str) -> str:
        if value is None:
            raise SettingsError(
                f"no server: {name} is not set and no embedded stack runs on {self.data_dir}",
                remedy=f"start one with 'kitaab-jobs up', or set {name}",
            )
        return value.get_secret_value()

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None, **overrides: Any) -> Self:
        """Read the environment, then the embedded stack's addresses for what it leaves open.

        Raises `SettingsError` with the name, the value and the reason of the first bad setting.
        """
        given = os.environ if environ is None else environ
        named = {k.upper() for k, v in given.items() if v}
        try:
            settings = cls(**overrides)
            addresses = _stack_addresses(settings.stack_file, named)
            return cls(**{**addresses, **overrides}) if addresses else settings
        except ValidationError as error:
            first = error.errors()[0]
            name = "KITAAB_" + "_".join(str(part) for part in first["loc"]).upper()
            said = first["msg"].removeprefix("Value error, ")
            if first["type"] != "value_error":  # pydantic's own, which never concerns a secret
                said = f"{str(first['input'])[:80]!r} cannot be: {said[0].lower()}{said[1:]}"
            raise SettingsError(f"{name}: {said}") from None


def _stack_addresses(path: Path, named: set[str]) -> dict[str, str]:
    """Return the addresses in stack.env for servers that the environment does not name."""
    try:
        found = {k: v for k, v in dotenv_values(path, interpolate=False).items() if v}
    except (OSError, UnicodeDecodeError):
        return {}
    groups = {
        "KITAAB_DATABASE_URL": ("KITAAB_DATABASE_URL", "KITAAB_DIRECT_URL", "KITAAB_ADMIN_URL"),
        "KITAAB_REDIS_URL": ("KITAAB_REDIS_URL",),
        "KITAAB_SMTP_URL": (
            "KITAAB_SMTP_URL",
            "KITAAB_MAIL_FROM",
            "KITAAB_PUBLIC_URL",
            "KITAAB_UNSUBSCRIBE_SECRET",
            "KITAAB_VAPID_PRIVATE_KEY",
        ),
    }
    return {
        name.removeprefix("KITAAB_").lower(): found[name]
        for leader, names in groups.items()
        if leader not in named
        for name in names
        if name in found and name not in named
    }


@lru_cache(maxsize=1)
def settings() -> Settings:
    """Return the settings of this process, read at the first call."""
    return Settings.load()

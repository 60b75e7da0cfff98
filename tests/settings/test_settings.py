"""Settings: what is refused says which value and how it should be, and no password is ever shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from kitaab_jobs.errors import SettingsError
from kitaab_jobs.settings import Settings, redacted

# Addresses with a secret in them, and what may be shown.
SHOWN = {
    "postgresql://u:SECRET@db:5432/kitaab": "postgresql://u:***@db:5432/kitaab",
    "postgresql://u@db/kitaab": "postgresql://u@db/kitaab",
    "postgresql://db/kitaab?user=u&password=SECRET": "postgresql://db/kitaab?user=u&password=***",
    "postgresql://db/kitaab?PASSWORD=SECRET": "postgresql://db/kitaab?PASSWORD=***",
    "postgresql://db/k?options=-c%20x=SECRET": "postgresql://db/k?options=***",
    "redis://:SECRET@redis:6379/0": "redis://:***@redis:6379/0",
    "postgresql://u:a@SECRET@db/k": "postgresql://u:***@db/k",
    # What should have been escaped, or is no address: nothing behind the scheme.
    "postgresql://u:SECRET/x@db/k": "postgresql://...",
    "postgresql://u:12/SECRET@db/k": "postgresql://...",
    "postgresql://u:SECRET#x@db/k": "postgresql://...",
    "postgresql://u:1?SECRET@db/k": "postgresql://...",
    "postgresql:/u:SECRET@db/k": "...",
    "u:SECRET@db/k": "...",
    "host=db password=SECRET": "...",
    "SECRET": "...",
}


@pytest.mark.parametrize(("url", "shown"), SHOWN.items())
def test_no_password_is_shown(url: str, shown: str) -> None:
    assert redacted(url) == shown


@pytest.mark.parametrize(
    "url",
    [url for url, shown in SHOWN.items() if "..." in shown]
    + ["postgresql://u:a@SECRET@db/k", "postgresql://u:SE CRET@db"],
)
def test_what_is_no_address_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(SettingsError, match=r"KITAAB_DATABASE_URL: .*an example: postgresql://") as refused:
        Settings.load({}, database_url=url)
    assert "SECRET" not in str(refused.value)
    assert "SE CRET" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("pool_size", "abc", "KITAAB_POOL_SIZE: 'abc' cannot be: input should be a valid integer"),
        ("pool_size", "0", "KITAAB_POOL_SIZE: '0' cannot be: input should be greater than or equal to 1"),
        ("partition_by", "week", "KITAAB_PARTITION_BY: 'week' cannot be: input should be 'year' or 'month'"),
        ("log_level", "loud", "KITAAB_LOG_LEVEL: 'loud' cannot be: input should be 'DEBUG', 'INFO'"),
    ],
)
def test_a_value_that_cannot_be_is_named(name: str, value: str, message: str) -> None:
    with pytest.raises(SettingsError) as refused:
        Settings.load({}, **{name: value})
    assert str(refused.value).startswith(message)


def test_a_home_that_no_shell_has_expanded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("KITAAB_DATA_DIR", "~/data")
    assert Settings.load().stack_file == tmp_path / "data" / "stack.env"

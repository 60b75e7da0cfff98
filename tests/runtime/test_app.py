"""The Celery app: its settings are Celery's own, and its broker is what the URL says."""

from __future__ import annotations

from typing import Any

import pytest
from celery.app.defaults import NAMESPACES, flatten
from kombu.transport import get_transport_cls
from redis.exceptions import ConnectionError

from kitaab_jobs.contract import QUEUES
from kitaab_jobs.runtime.app import configuration
from kitaab_jobs.runtime.broker import Transport, kombu_url
from kitaab_jobs.settings import Settings
from tests.runtime.conftest import celery_on, closing


def test_each_setting_is_one_that_celery_knows(redis_url: str) -> None:
    """Celery takes any name without a word, and a misspelt one has no effect."""
    options: Any = flatten(NAMESPACES)
    known = set(dict(options))
    assert set(configuration(Settings.load({}, redis_url=redis_url))) - known == set()


def test_each_queue_is_declared(redis_url: str) -> None:
    declared = configuration(Settings.load({}, redis_url=redis_url))["task_queues"]
    assert {queue.name for queue in declared} == set(QUEUES)


@pytest.mark.parametrize("scheme", ["redis", "rediss"])
def test_the_mended_transport_is_used(scheme: str) -> None:
    used: object = get_transport_cls(scheme)
    assert used is Transport


def test_a_channel_without_a_connection_raises_what_is_expected_there(redis_url: str) -> None:
    """Otherwise a worker that runs a job while Redis goes away ends with "Unrecoverable error"."""
    with closing(celery_on(redis_url)) as app, app.connection() as connection:
        channel: Any = connection.channel()
        connection.transport.client = None
        with pytest.raises(ConnectionError, match="was closed") as raised:
            channel._connparams()
        assert isinstance(raised.value, connection.connection_errors)


@pytest.mark.parametrize(
    ("url", "kombus"),
    [
        ("unix:///run/redis.sock", "redis+socket:///run/redis.sock"),
        ("unix://:pw@/run/redis.sock?db=2", "redis+socket://:pw@/run/redis.sock?virtual_host=2"),
        ("redis://:pw@host:6379/2", "redis://:pw@host:6379/2"),
    ],
)
def test_the_address_of_a_socket(url: str, kombus: str) -> None:
    assert kombu_url(url) == kombus

"""The Celery app. Each setting carries its reason; most are what years of bug reports ask for."""

from __future__ import annotations

from typing import Any

from celery import Celery
from kombu import Queue

from kitaab_jobs.contract import JOBS, QUEUES
from kitaab_jobs.runtime import broker
from kitaab_jobs.runtime.liveness import BEAT_SILENT_SECONDS
from kitaab_jobs.settings import Settings

broker.install()
app = Celery("kitaab_jobs", events="kitaab_jobs.runtime.events:Events")


def _route(name: str, *_: Any, **__: Any) -> dict[str, str] | None:
    """Tell a sender of plain Celery messages in which queue a job waits."""
    job = JOBS.get(name)
    return None if job is None else {"queue": job.queue}


def configuration(settings: Settings) -> dict[str, Any]:
    """Return Celery's settings for `settings`."""
    return {
        "broker_url": broker.kombu_url(settings.redis),
        # Results are in the ledger. Celery's own backend is there for what a canvas counts (chords), nothing else.
        "result_backend": broker.kombu_url(settings.redis),
        "result_expires": 86_400,
        "task_ignore_result": True,
        # JSON only: a pickle from the broker runs code.
        "task_serializer": "json",
        "accept_content": ["json"],
        "timezone": "UTC",
        "enable_utc": True,
        "task_default_queue": "default",
        "task_queues": [Queue(name) for name in QUEUES],
        "task_routes": (_route,),
        "task_create_missing_queues": False,  # a typing error in a queue's name is an error
        # A message is forgotten when its job has ended. Where its process was killed it comes back at once: a
        # job that had not been claimed starts, and the claim in the ledger makes any other delivery
        # harmless. Not task_retry_on_worker_lost: it sends a copy with an ETA of three minutes.
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        # With late acknowledgement what runs counts too: so one message ahead for each process, which bridges the
        # way from Redis (a third more jobs a second than none). More would wait behind a slow job while others are
        # idle. Workers for long jobs take none ahead: --prefetch-multiplier 1.
        "worker_prefetch_multiplier": 2,
        # Redis away is a pause, not an end.
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "redis_socket_timeout": 30,
        "redis_socket_connect_timeout": 5,
        "redis_socket_keepalive": True,
        "broker_transport_options": {
            "health_check_interval": 25,  # notices a connection that is dead but open
            "socket_timeout": 30,
            "socket_connect_timeout": 5,
            "socket_keepalive": True,
            "retry_on_timeout": True,
            # Jobs may run longer: a message that comes a second time finds nothing to claim.
            "visibility_timeout": 3600,
        },
        # The relay itself tries again, with the row still in the ledger.
        "task_publish_retry": True,
        "task_publish_retry_policy": {"max_retries": 2, "interval_start": 0.1, "interval_step": 0.2},
        # SIGTERM (which REMAP_SIGTERM=SIGQUIT makes a soft shutdown) lets what runs end within this.
        "worker_soft_shutdown_timeout": 30,
        # An idle worker holds nothing back: retries wait in PostgreSQL, so it may stop at once.
        "worker_enable_soft_shutdown_on_idle": False,
        # Where the broker is gone, what runs is left to end: it cannot acknowledge its message, but it can finish
        # its row, and when the message comes a second time there is nothing to claim.
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        # A worker process is made anew now and then, so that no leak grows for ever.
        "worker_max_tasks_per_child": 5000,
        "worker_max_memory_per_child": 500_000,  # KiB
        # For Flower.
        "worker_send_task_events": True,
        "task_send_sent_event": True,
        "worker_hijack_root_logger": False,
        "beat_scheduler": "kitaab_jobs.runtime.scheduler:LedgerScheduler",
        "beat_max_loop_interval": 1,
        # `celery -A kitaab_jobs inspect ping -d celerybeat@<host>` is answered while the scheduler ticks.
        "beat_enable_remote_control": True,
        "beat_remote_control_max_tick_age": BEAT_SILENT_SECONDS,
    }

"""A Celery task message on Redis, as every Celery client writes it. Pure.

Celery's own way to it routes, looks up, escapes and packs each message anew, at half a millisecond; the relay sends
thousands. The format is that of task messages of protocol 2 (docs.celeryq.dev, "Task Messages") in the envelope of
kombu's virtual transports, which clients in other languages write by hand too.
"""

from __future__ import annotations

import base64
import json
import os
import socket
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

from kitaab_jobs.runtime.messages import FROM_LEDGER, Message

_ORIGIN = f"relay{os.getpid()}@{socket.gethostname()}"
# What Flower shows of the arguments.
_SHOWN = 1024


def shown(args: Mapping[str, Any]) -> str:
    """Return arguments as Flower shows them, cut to a bearable length."""
    text = repr(dict(args))
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


def pack(message: Message) -> str:
    """Return the message as it lies in the queue's list."""
    id, canvas = str(message.id), message.canvas or {}
    embedded = {name: canvas.get(name) for name in ("callbacks", "errbacks", "chain", "chord")}
    body = json.dumps([[], message.args, embedded], separators=(",", ":"))
    return json.dumps(
        {
            "body": base64.b64encode(body.encode()).decode(),
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": {
                "lang": "py",
                "task": message.name,
                "id": id,
                "shadow": None,
                "eta": None,
                "expires": None,
                "group": canvas.get("group"),
                "group_index": canvas.get("group_index"),
                "retries": 0,
                "timelimit": [None, None],
                "root_id": canvas.get("root_id", id),
                "parent_id": canvas.get("parent_id"),
                "argsrepr": "()",
                "kwargsrepr": shown(message.args),
                "origin": _ORIGIN,
                # Results are in the ledger; only what a canvas counts needs Celery's.
                "ignore_result": message.canvas is None,
                "replaced_task_nesting": 0,
                "stamped_headers": None,
                "stamps": {},
                FROM_LEDGER: True,
            },
            "properties": {
                "correlation_id": id,
                "reply_to": "",
                "delivery_mode": 2,
                "delivery_info": {"exchange": "", "routing_key": message.queue},
                "priority": 0,
                "body_encoding": "base64",
                "delivery_tag": str(uuid4()),
            },
        }
    )


def sent_event(message: Message) -> dict[str, Any]:
    """Return the fields of the event that tells of it."""
    id, canvas = str(message.id), message.canvas or {}
    return {
        "uuid": id,
        "root_id": canvas.get("root_id", id),
        "parent_id": canvas.get("parent_id"),
        "name": message.name,
        "args": "()",
        "kwargs": shown(message.args),
        "retries": 0,
        "eta": None,
        "expires": None,
        "queue": message.queue,
        "exchange": "",
        "routing_key": message.queue,
    }

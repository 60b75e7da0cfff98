"""What Celery's canvas hangs on a message: the next of a chain, the body of a chord, callbacks.

It is kept with the job's row, so that every later message of that job carries it too, and what comes after a job
comes after the attempt that succeeded. (The count of a chord is in Redis, as Celery keeps it. What must survive
the loss of Redis uses the ledger's own groups: `group_name` and `after_group`.)
"""

from __future__ import annotations

from typing import Any
from uuid import NAMESPACE_OID, uuid5

# As they are called in a task's request, and in the message (envelope.py).
_NAMES = ("chain", "chord", "callbacks", "errbacks", "group", "group_index", "root_id", "parent_id")
# Without one of these there is nothing that comes after.
_ESSENTIAL = ("chain", "chord", "callbacks", "errbacks")


def of_request(request: Any) -> dict[str, Any] | None:
    """Return what is to be kept of a task's request; None where nothing comes after the task.

    A callback without an id is given one that follows from the task's, in the request too: when the task's message
    comes twice, so does the callback's, and the second one finds nothing to do.
    """
    for place, callback in enumerate(getattr(request, "callbacks", None) or ()):
        callback.setdefault("options", {}).setdefault(
            "task_id", str(uuid5(NAMESPACE_OID, f"{request.id}/{place}"))
        )
    found = {name: getattr(request, name, None) for name in _NAMES}
    if not any(found[name] for name in _ESSENTIAL):
        return None
    return {name: value for name, value in found.items() if value is not None}

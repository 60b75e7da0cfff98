"""One tree for everything that this platform refuses or fails at.

The docstring of a class is its default message. A message says what was wrong and with which
value; `remedy` says what to do about it. The command line prints both on one line and exits with
`exit_code` (1: it failed, 2: it was asked for in a wrong way); it shows a traceback only under
`--debug`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar


def causes(error: BaseException, *, suppressed: bool = False) -> Iterator[BaseException]:
    """Yield the error and what is behind it, each once; `suppressed`: also what was hidden by `raise ... from None`."""
    seen: set[int] = set()
    behind: BaseException | None = error
    while behind is not None and id(behind) not in seen:
        yield behind
        seen.add(id(behind))
        hidden = behind.__suppress_context__ and not suppressed
        behind = behind.__cause__ or (None if hidden else behind.__context__)


class KitaabError(Exception):
    """Something went wrong in Kitaab Jobs"""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str | None = None, *, remedy: str | None = None) -> None:
        self.message = message or (type(self).__doc__ or "").strip().splitlines()[0]
        self.remedy = remedy
        super().__init__(self.message)

    def __str__(self) -> str:
        return f"{self.message}: {self.remedy}" if self.remedy else self.message


class UsageError(KitaabError):
    """The request itself is wrong"""

    exit_code = 2


class SettingsError(UsageError):
    """A setting has a value that cannot be used"""


class UnknownZone(UsageError):
    """The time zone is not a name of the IANA database"""


class BadCron(UsageError):
    """The schedule line cannot be read"""


class NoSuchInstant(KitaabError):
    """That local date does not exist in the zone, so it has no instant"""


class UnknownJob(UsageError):
    """No job has that name"""


class BadPayload(UsageError):
    """The arguments do not fit the job"""


class ServerError(KitaabError):
    """A server that is needed cannot be used"""


class StackError(KitaabError):
    """The embedded PostgreSQL or Redis could not be run"""


class AlreadyRunning(StackError):
    """An embedded stack already runs on this data folder"""


class Cancelled(KitaabError):
    """The job was cancelled while it ran"""


class Permanent(KitaabError):
    """The job can never succeed, so it is dead at once"""


class Retryable(KitaabError):
    """The job may succeed later: it is tried again, `after` so many seconds where given"""

    def __init__(
        self, message: str | None = None, *, remedy: str | None = None, after: float | None = None
    ) -> None:
        super().__init__(message, remedy=remedy)
        self.after = after


class Snooze(KitaabError):
    """The job is not to be done yet: it is started again `after` so many seconds, and this start does not count"""

    def __init__(self, after: float, message: str | None = None, *, remedy: str | None = None) -> None:
        super().__init__(message, remedy=remedy)
        self.after = after

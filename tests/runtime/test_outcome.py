"""What follows from each kind of error."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest
from celery.exceptions import SoftTimeLimitExceeded
from psycopg.errors import lookup
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

from kitaab_jobs.contract import Backoff, Job
from kitaab_jobs.errors import (
    BadPayload,
    Cancelled,
    KitaabError,
    Permanent,
    Retryable,
    ServerError,
    Snooze,
    UnknownZone,
    UsageError,
)
from kitaab_jobs.runtime.outcome import RELEASED, SUCCEEDED, Outcome, backoff, describe, weigh

JOB = Job("sample.weighed", "fails", backoff=Backoff(base=10, cap=1000), max_attempts=3)


def refused(sqlstate: str) -> DBAPIError:
    """What SQLAlchemy raises when PostgreSQL answers with that code."""
    return DBAPIError("SELECT secret", {}, lookup(sqlstate)("it said no"))


def invalidated() -> DBAPIError:
    return DBAPIError("SELECT 1", {}, psycopg.Error("gone"), connection_invalidated=True)


def caused_by(error: Exception, cause: BaseException) -> Exception:
    error.__cause__ = cause
    return error


def while_handling(error: Exception, context: BaseException, *, suppress: bool = False) -> Exception:
    error.__context__ = context
    error.__suppress_context__ = suppress
    return error


AGAIN = Outcome("scheduled", wait=5)  # half of the base: no luck
OVER = Outcome("dead")
LATER = Outcome("scheduled", counts=False, wait=60)
STOPPED = Outcome("cancelled")

CASES: list[tuple[str, Callable[[], BaseException], Outcome, Outcome]] = [
    # name, error, what follows from it in the first attempt, and in the last
    ("any", lambda: RuntimeError("it broke"), AGAIN, OVER),
    ("our own", lambda: KitaabError("it broke"), AGAIN, OVER),
    ("a server", lambda: ServerError("it is away"), AGAIN, OVER),
    ("out of memory", MemoryError, AGAIN, OVER),
    ("sys.exit", lambda: SystemExit(3), AGAIN, OVER),
    ("retryable", Retryable, AGAIN, OVER),
    ("retryable after", lambda: Retryable(after=77), Outcome("scheduled", wait=77), OVER),
    ("retryable at once", lambda: Retryable(after=0), Outcome("scheduled", wait=0), OVER),
    ("snooze", lambda: Snooze(60), LATER, LATER),
    ("permanent", Permanent, OVER, OVER),
    ("usage", UsageError, OVER, OVER),
    ("payload", lambda: BadPayload("limit: too large"), OVER, OVER),
    ("zone", UnknownZone, OVER, OVER),
    ("cancelled", Cancelled, STOPPED, STOPPED),
    ("time limit", SoftTimeLimitExceeded, AGAIN, OVER),
    # PostgreSQL: somebody else was in the way
    ("serialization", lambda: refused("40001"), AGAIN, OVER),
    ("deadlock", lambda: refused("40P01"), AGAIN, OVER),
    ("lock timeout", lambda: refused("55P03"), AGAIN, OVER),
    # the connection, or the server as a whole
    ("connection failure", lambda: refused("08006"), AGAIN, OVER),
    ("admin shutdown", lambda: refused("57P01"), AGAIN, OVER),
    ("starting up", lambda: refused("57P03"), AGAIN, OVER),
    ("too many connections", lambda: refused("53300"), AGAIN, OVER),
    ("no answer", lambda: OperationalError("", {}, psycopg.OperationalError("refused")), AGAIN, OVER),
    ("no answer, bare", lambda: psycopg.OperationalError("refused"), AGAIN, OVER),
    ("invalidated", invalidated, AGAIN, OVER),
    # what it refuses, it refuses the next time too
    ("unique", lambda: refused("23505"), OVER, OVER),
    ("foreign key", lambda: refused("23503"), OVER, OVER),
    ("privilege", lambda: refused("42501"), OVER, OVER),
    ("no such table", lambda: refused("42P01"), OVER, OVER),
    ("division", lambda: refused("22012"), OVER, OVER),
    ("statement timeout", lambda: refused("57014"), OVER, OVER),
    ("bare", lambda: lookup("23505")("no"), OVER, OVER),
    ("misuse", lambda: InterfaceError("", {}, psycopg.InterfaceError("no")), OVER, OVER),
    # the driver stumbles over the time limit
    (
        "time limit in a statement",
        lambda: while_handling(psycopg.InterfaceError("another command"), SoftTimeLimitExceeded()),
        AGAIN,
        OVER,
    ),
]


@pytest.mark.parametrize(("error", "first", "last"), [case[1:] for case in CASES], ids=[c[0] for c in CASES])
def test_weigh(error: Callable[[], BaseException], first: Outcome, last: Outcome) -> None:
    for attempt, wanted in ((1, first), (3, last), (4, last)):
        raised = error()
        found = weigh(raised, JOB, attempt, 3, luck=0)
        assert (found.state, found.counts, found.wait) == (wanted.state, wanted.counts, wanted.wait)
        assert found.error == describe(raised)
        assert found.is_over == (found.state != "scheduled")


def test_the_rows_own_max_attempts_decide() -> None:
    assert weigh(RuntimeError(), JOB, 3, 4, 0).state == "scheduled"
    assert weigh(RuntimeError(), JOB, 1, 1, 0).state == "dead"


def test_what_is_no_error() -> None:
    assert SUCCEEDED.is_over
    assert not RELEASED.is_over
    assert not RELEASED.counts


@pytest.mark.parametrize(
    ("attempt", "least", "most"),
    [(1, 5, 10), (2, 10, 20), (3, 20, 40), (7, 320, 640), (8, 500, 1000), (9, 500, 1000), (5000, 500, 1000)],
)
def test_backoff_doubles_up_to_the_cap(attempt: int, least: float, most: float) -> None:
    assert backoff(JOB, attempt, 0) == least
    assert backoff(JOB, attempt, 1) == most
    assert least < backoff(JOB, attempt, 0.5) < most
    assert weigh(RuntimeError(), JOB, attempt, 9999, 1).wait == most


def test_a_cap_below_the_base() -> None:
    assert backoff(Job("sample.hasty", "", backoff=Backoff(base=10, cap=1)), 1, 1) == 1


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("two\nlines"), "ValueError: two"),
        (ValueError(), "ValueError"),
        (ValueError("\n"), "ValueError"),
        (KitaabError("it failed", remedy="try again"), "it failed: try again"),
        (refused("23505"), "UniqueViolation: it said no"),
        (SoftTimeLimitExceeded(), "the job ran longer than its time limit"),
        (
            while_handling(OSError("in the way"), SoftTimeLimitExceeded()),
            "the job ran longer than its time limit",
        ),
        (caused_by(OSError("in the way"), SoftTimeLimitExceeded()), "the job ran longer than its time limit"),
        (
            while_handling(OSError("a"), while_handling(OSError("b"), SoftTimeLimitExceeded())),
            "the job ran longer than its time limit",
        ),
        # The job caught it, and says something else on purpose.
        (while_handling(OSError("its own"), SoftTimeLimitExceeded(), suppress=True), "OSError: its own"),
        (caused_by(Permanent("too much of it"), SoftTimeLimitExceeded()), "too much of it"),
        (caused_by(OSError("its own"), ValueError("a cause")), "OSError: its own"),
    ],
)
def test_describe(error: BaseException, line: str) -> None:
    assert describe(error) == line


def test_describe_ends_where_errors_cause_each_other() -> None:
    one, other = OSError("one"), OSError("other")
    one.__context__, other.__context__ = other, one
    assert describe(one) == "OSError: one"

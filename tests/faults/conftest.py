"""A stack of its own for each test that injects a fault."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Protocol

import pytest

from tests.faults.stack import Stack, durable_postgres, stack


class MakeStack(Protocol):
    """Give a stack; `without` names what is taken away from the platform."""

    def __call__(self, *, without: str = "") -> Stack: ...


@pytest.fixture
def make_stack(_cloned: Callable[[], str], url_for: Callable[[str, str], str]) -> Iterator[MakeStack]:
    """Return a function that gives stacks on a database of their own."""
    with ExitStack() as stacks:

        def make(*, without: str = "") -> Stack:
            return stacks.enter_context(stack(cloned=_cloned, url_for=url_for, without=without))

        yield make


@pytest.fixture
def plain(make_stack: MakeStack) -> Stack:
    """A stack on a database of its own."""
    return make_stack()


@pytest.fixture
def own_postgres() -> Iterator[Stack]:
    """A stack whose PostgreSQL may be killed."""
    with durable_postgres() as server, stack(postgres=server) as made:
        yield made

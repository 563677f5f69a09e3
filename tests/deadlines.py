"""Deadlines for tests without an invocation, and for the tests themselves."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from function.domain.deadline import Deadline


def within(seconds: float) -> Deadline:
    """In so many seconds, with four more to report."""
    at = time.time() + seconds
    return Deadline(at, at + 4.0)


@contextmanager
def lasting_less_than(seconds: float) -> Iterator[None]:
    """Fail a test whose `with` block takes longer."""
    began = time.monotonic()
    yield
    assert time.monotonic() - began < seconds

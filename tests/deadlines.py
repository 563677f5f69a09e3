"""Deadlines for tests without an invocation."""

import time

from function.domain.deadline import Deadline


def within(seconds: float) -> Deadline:
    """In so many seconds, with four more to report."""
    at = time.time() + seconds
    return Deadline(at, at + 4.0)

"""Deadlines for tests that call a collaborator without an invocation."""

import time

from function.domain.deadline import Deadline


def within(seconds: float) -> Deadline:
    """So many seconds from now on, and a few more to report in."""
    at = time.time() + seconds
    return Deadline(at, at + 4.0)

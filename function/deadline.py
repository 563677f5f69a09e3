"""The end of an invocation, known to everything that waits on its behalf."""

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Deadline:
    """When work on behalf of an invocation must be over.

    By the wall clock, as Lambda's own: it goes on while an environment is frozen, so a thread that outlives its
    invocation finds its time over, however late it wakes up.

    Attributes:
        at: seconds since the epoch.
        invocation_ends_at: when Lambda ends the invocation, in seconds since the epoch; ``at`` leaves it some time to
            report.
        now: seconds since the epoch.
    """

    at: float
    invocation_ends_at: float
    now: Callable[[], float] = time.time

    def remaining(self) -> float:
        """Seconds; negative when it has passed."""
        return self.at - self.now()

    def within(self, seconds: float) -> "Deadline":
        """This deadline, or one in so many seconds, whichever is earlier."""
        return Deadline(min(self.at, self.now() + seconds), self.invocation_ends_at, self.now)

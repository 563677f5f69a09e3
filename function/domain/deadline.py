"""The end of an invocation, known to everything that waits on its behalf."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

REPORT_SECONDS: Final = 1.5
# With less left, no call to Huawei Cloud is begun.
MIN_CALL_SECONDS: Final = 0.5


@dataclass(frozen=True, slots=True)
class Deadline:
    """When work on behalf of an invocation must be over.

    By the wall clock, as Lambda's own: it goes on while an environment is frozen, so a thread that outlives its
    invocation finds its time over, however late it wakes up.

    Attributes:
        at: seconds since the epoch; from then on nothing is begun for which the invocation would have to wait.
        invocation_ends_at: when Lambda ends the invocation, in seconds since the epoch.
        now: seconds since the epoch.
        report_seconds: before the end of the invocation, what has been decided must be remembered and published.
    """

    at: float
    invocation_ends_at: float
    now: Callable[[], float] = time.time
    report_seconds: float = REPORT_SECONDS

    def remaining(self) -> float:
        """Seconds; negative when it has passed."""
        return self.at - self.now()

    def within(self, seconds: float) -> "Deadline":
        """This deadline, or one in so many seconds, whichever is earlier."""
        return replace(self, at=min(self.at, self.now() + seconds))

    def to_report(self) -> "Deadline":
        """The later deadline of what must not be cut short: to remember an outcome, and to publish it."""
        return replace(self, at=self.invocation_ends_at - self.report_seconds)

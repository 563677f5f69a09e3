"""The deadline of an invocation, which bounds every call and every wait."""

import time
from collections.abc import Callable
from typing import Final, NamedTuple

REPORT_SECONDS: Final = 1.5
# No call to Huawei Cloud is started with less time left.
MIN_CALL_SECONDS: Final = 0.5


class Deadline(NamedTuple):
    """The time by which the work of an invocation must end.

    By the wall clock, like Lambda's timeout. It continues while an environment is frozen, so a thread that outlives its
    invocation finds the deadline passed whenever it resumes.

    Attributes:
        at: seconds since the epoch; nothing that the invocation would have to wait for is started after it.
        invocation_ends_at: when Lambda ends the invocation, in seconds since the epoch.
        now: returns seconds since the epoch.
        report_seconds: an outcome must be recorded and published this long before the end of the invocation.
    """

    at: float
    invocation_ends_at: float
    now: Callable[[], float] = time.time
    report_seconds: float = REPORT_SECONDS

    def remaining(self) -> float:
        """Seconds left; negative after the deadline."""
        return self.at - self.now()

    def within(self, seconds: float) -> "Deadline":
        """This deadline, or one ``seconds`` from now, whichever is earlier."""
        return self._replace(at=min(self.at, self.now() + seconds))

    def to_report(self) -> "Deadline":
        """The later deadline for recording and publishing an outcome, which must not be cut short."""
        return self._replace(at=self.invocation_ends_at - self.report_seconds)

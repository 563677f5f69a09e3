"""The outcome bus in memory."""

from __future__ import annotations

import threading

from function.domain import failures
from function.domain.deadline import Deadline
from function.domain.failures import RenameFailedError
from function.domain.model import Outcome


class FakeBus:
    """Keeps the outcomes it takes, in order."""

    def __init__(self, journal: list[str] | None = None) -> None:
        self.outcomes: list[Outcome] = []
        self.crash: Exception | None = None
        self._refusals = 0
        self._journal = [] if journal is None else journal
        self._lock = threading.Lock()

    def refuse(self, times: int = 10_000) -> None:
        self._refusals = times

    def publish(self, outcome: Outcome, deadline: Deadline) -> None:
        with self._lock:
            if self.crash:
                raise self.crash
            if self._refusals:
                self._refusals -= 1
                raise RenameFailedError(failures.not_published("InternalFailure"))
            self.outcomes.append(outcome)
            self._journal.append(f"published {outcome.type}")

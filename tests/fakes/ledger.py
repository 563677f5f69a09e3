"""The ledger in memory."""

from __future__ import annotations

import threading
from collections import deque

from function.adapters.aws.dynamodb_ledger import CLAIM_SLACK_SECONDS
from function.domain import failures
from function.domain.deadline import Deadline
from function.domain.failures import Failure, RenameFailedError
from function.domain.model import FIRST_CYCLE, Outcome, RenameEvent, Target
from function.domain.ports import Claim, Conclusion, Known, Located, Reused, Superseded


class FakeLedger:
    """Remembers outcomes in memory; each step can be made to fail, and each answer to be another.

    Attributes:
        outcomes: remembered, in order; by a rename (`settle`) or without one (`conclude`).
        held: the services that are claimed now.
        at_claim: what the next claims are answered with.
        at_remember: what is known already when the next outcome is to be remembered.
    """

    def __init__(self, journal: list[str]) -> None:
        self.outcomes: list[Outcome] = []
        self.held: dict[Target, Claim] = {}
        self.at_claim: deque[Claim | Known | Reused | Superseded] = deque()
        self.at_remember: deque[Known | Located | Reused] = deque()
        self._failures: dict[str, Failure | Exception] = {}
        self._journal = journal
        self._lock = threading.Lock()

    def fail(self, step: str, failure: Failure | Exception) -> None:
        """From now on `claim`, `settle` or `conclude` fails."""
        self._failures[step] = failure

    def claim(self, event: RenameEvent, target: Target, deadline: Deadline) -> Claim | Known | Reused | Superseded:
        with self._lock:
            self._go("claim")
            if self.at_claim:
                return self.at_claim.popleft()
            if target in self.held:
                raise RenameFailedError(failures.in_progress())
            expires_at = deadline.invocation_ends_at + CLAIM_SLACK_SECONDS
            self.held[target] = Claim(f"of {event.id}", FIRST_CYCLE, event, target, expires_at)
            self._journal.append("claimed")
            return self.held[target]

    def preview(
        self, event: RenameEvent, target: Target, deadline: Deadline, *, if_claimed: bool = False
    ) -> Claim | Known | Reused | Superseded | None:
        with self._lock:
            self._go("preview")
            if self.at_claim:
                return self.at_claim.popleft()
            if target in self.held:
                raise RenameFailedError(failures.in_progress(61.0))
            return None if if_claimed else Claim("", FIRST_CYCLE, event, target)

    def settle(self, claim: Claim, outcome: Outcome, deadline: Deadline, *, release: bool) -> Known | Reused | None:
        with self._lock:
            self._go("settle")
            known = self._remember(outcome)
            assert not isinstance(known, Located)
            if known is None and release:
                del self.held[claim.target]
            return known

    def conclude(self, conclusion: Conclusion, deadline: Deadline) -> Known | Located | Reused | None:
        with self._lock:
            self._go("conclude")
            return self._remember(conclusion.outcome)

    def release(self, claim: Claim, deadline: Deadline) -> None:
        with self._lock:
            self._journal.append("released")
            del self.held[claim.target]

    def _go(self, step: str) -> None:
        failure = self._failures.get(step)
        if isinstance(failure, Failure):
            raise RenameFailedError(failure)
        if failure:
            raise failure

    def _remember(self, outcome: Outcome) -> Known | Located | Reused | None:
        if self.at_remember:
            return self.at_remember.popleft()
        self.outcomes.append(outcome)
        self._journal.append(f"remembered {outcome.type}")
        return None

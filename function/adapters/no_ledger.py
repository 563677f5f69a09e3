"""The ledger if there is no table."""

from function.domain.deadline import Deadline
from function.domain.model import FIRST_CYCLE, Outcome, RenameEvent, Target
from function.domain.ports import Claim, Conclusion


class NoLedger:
    """Records nothing: duplicates and stale events are not detected."""

    def claim(self, event: RenameEvent, target: Target, deadline: Deadline) -> Claim:  # noqa: ARG002 - the protocol's
        return Claim("", FIRST_CYCLE, event, target)

    def preview(
        self, event: RenameEvent, target: Target, deadline: Deadline, *, if_claimed: bool = False
    ) -> Claim | None:
        return None if if_claimed else self.claim(event, target, deadline)

    def settle(self, claim: Claim, outcome: Outcome, deadline: Deadline, *, release: bool) -> None:
        """Does nothing."""

    def conclude(self, conclusion: Conclusion, deadline: Deadline) -> None:
        """Does nothing."""

    def release(self, claim: Claim, deadline: Deadline) -> None:
        """Does nothing."""

"""The protocols that adapters implement, and the values that they exchange."""

from enum import Enum
from typing import NamedTuple, Protocol

from function.domain.deadline import Deadline
from function.domain.failures import EventName
from function.domain.model import Outcome, RedriveCycle, RenameEvent, Target


class Reply(NamedTuple):
    """What Huawei Cloud answered without an error.

    Attributes:
        name: the endpoint service's name or its full service name, None if the reply names none.
    """

    name: str | None
    status: int | None
    huawei_request_id: str | None


class ReadPurpose(Enum):
    """What a read is for, and so what its result counts for.

    Attributes:
        DECISION: the outcome depends on it. It counts as a rename does: towards an outage, and as a refusal of the key.
        OUTCOME: the previous name, which the outcome may lack. It counts for nothing but a 401, which is about the key.
        DRY_RUN: it counts in memory only, and writes nothing.
    """

    DECISION = "decision"
    OUTCOME = "outcome"
    DRY_RUN = "dry run"


class EndpointServices(Protocol):
    """Huawei Cloud. Each method makes one call at most, and raises RenameFailedError if it fails."""

    def rename(self, target: Target, name: str, deadline: Deadline) -> Reply: ...

    def read(self, target: Target, deadline: Deadline, purpose: ReadPurpose = ReadPurpose.DECISION) -> Reply: ...


class OutcomePublisher(Protocol):
    """Where outcomes go. Returns when the outcome is on the bus, else raises RenameFailedError."""

    def publish(self, outcome: Outcome, deadline: Deadline) -> None: ...


class Claim(NamedTuple):
    """The right to rename one endpoint service, for one event, until it is settled or expires.

    Attributes:
        event: of the time that is remembered for it.
        target: where the event's endpoint service was when it was first claimed for.
        expires_at: seconds since the epoch.
    """

    token: str
    cycle: RedriveCycle
    event: RenameEvent
    target: Target
    expires_at: float = 0.0


class Known(NamedTuple):
    """The event has an outcome.

    Attributes:
        next_cycle: of an event that was given up; None for a settled one.
    """

    outcome: Outcome
    next_cycle: RedriveCycle | None


class Reused(NamedTuple):
    """Another event has had this source and id."""


class Superseded(NamedTuple):
    """A newer rename of the endpoint service has been carried out than the event, of the time remembered for it."""

    by: EventName
    cycle: RedriveCycle
    event: RenameEvent


class Located(NamedTuple):
    """The event was claimed for when its project and region were these, and keeps them."""

    target: Target


class Conclusion(NamedTuple):
    """An outcome that no rename led to: refused, superseded, or given up.

    Attributes:
        require_same_time: it is right for an event of this time only.
        unclaimed: it is right only for an event that has never been claimed for.
        target: it is right for an event of this region and project only.
    """

    event: RenameEvent
    cycle: RedriveCycle
    outcome: Outcome
    require_same_time: bool = False
    unclaimed: bool = False
    target: Target | None = None


class Ledger(Protocol):
    """What is remembered of rename events. Raises RenameFailedError if it cannot be reached."""

    def claim(self, event: RenameEvent, target: Target, deadline: Deadline) -> Claim | Known | Reused | Superseded:
        """Claim the endpoint service, or return why the event must not be carried out."""

    def preview(
        self, event: RenameEvent, target: Target, deadline: Deadline, *, if_claimed: bool = False
    ) -> Claim | Known | Reused | Superseded | None:
        """What ``claim`` would answer now, by reading alone. A claim that it returns is not held.

        Args:
            if_claimed: None for an event that has neither been claimed for nor settled.
        """

    def settle(self, claim: Claim, outcome: Outcome, deadline: Deadline, *, release: bool) -> Known | Reused | None:
        """Remember the outcome and release the claim; or return what is known already, and change nothing."""

    def conclude(self, conclusion: Conclusion, deadline: Deadline) -> Known | Reused | Located | None:
        """Remember an outcome that no rename led to; or return what is known already, and change nothing."""

    def release(self, claim: Claim, deadline: Deadline) -> None:
        """Release the claim without an outcome."""

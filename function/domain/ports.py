"""The ports: protocols that adapters implement, and the values that they exchange."""

from enum import Enum
from typing import NamedTuple, Protocol

from function.domain.deadline import Deadline
from function.domain.failures import EventName
from function.domain.model import Outcome, RedriveCycle, RenameEvent, Target


class Reply(NamedTuple):
    """A reply of Huawei Cloud that is not an error.

    Attributes:
        name: the endpoint service's name or its full service name, None if the reply has none.
    """

    name: str | None
    status: int | None
    huawei_request_id: str | None


class ReadPurpose(Enum):
    """The purpose of a read, which decides what its result counts for.

    Attributes:
        DECISION: the outcome depends on it. It counts like a rename: for the circuit breaker and for the key guard.
        OUTCOME: the previous name, which the outcome may lack. Of its failures only a 401 counts: it is about the key.
        DRY_RUN: it counts in memory only, and writes nothing.
    """

    DECISION = "decision"
    OUTCOME = "outcome"
    DRY_RUN = "dry run"


class EndpointServices(Protocol):
    """Huawei Cloud. Each method makes at most one call, and raises RenameFailedError if it fails."""

    def rename(self, target: Target, name: str, deadline: Deadline) -> Reply: ...

    def read(self, target: Target, deadline: Deadline, purpose: ReadPurpose = ReadPurpose.DECISION) -> Reply: ...


class OutcomePublisher(Protocol):
    """Publishes outcomes. Returns when the outcome is on the bus, else raises RenameFailedError."""

    def publish(self, outcome: Outcome, deadline: Deadline) -> None: ...


class Claim(NamedTuple):
    """A lease on one endpoint service, held by one event until it is released or expires.

    Attributes:
        event: with the time that the ledger has for it.
        target: in the region and project of the event's first claim.
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
        next_cycle: for an event that was given up; None for a settled one.
    """

    outcome: Outcome
    next_cycle: RedriveCycle | None


class Reused(NamedTuple):
    """Another event has this source and id."""


class Superseded(NamedTuple):
    """A newer rename of the endpoint service has been carried out.

    Attributes:
        event: the stale event, with the time that the ledger has for it.
    """

    by: EventName
    cycle: RedriveCycle
    event: RenameEvent


class Located(NamedTuple):
    """The event had its first claim in this region and project, and keeps them."""

    target: Target


class Conclusion(NamedTuple):
    """An outcome without a rename: rejected, superseded, or given up.

    Attributes:
        require_same_time: valid only if the ledger has no other time for the event.
        unclaimed: valid only if the event has never had a claim.
        target: valid only if the ledger has no other region and project for the event.
    """

    event: RenameEvent
    cycle: RedriveCycle
    outcome: Outcome
    require_same_time: bool = False
    unclaimed: bool = False
    target: Target | None = None


class Ledger(Protocol):
    """Stores events, outcomes, claims and newest renames. Raises RenameFailedError if it cannot be reached."""

    def claim(self, event: RenameEvent, target: Target, deadline: Deadline) -> Claim | Known | Reused | Superseded:
        """Claim the endpoint service, or return why the event must not be carried out."""

    def preview(
        self, event: RenameEvent, target: Target, deadline: Deadline, *, if_claimed: bool = False
    ) -> Claim | Known | Reused | Superseded | None:
        """What ``claim`` would return now. Only reads: a returned claim is not held.

        Args:
            if_claimed: return None for an event that has neither had a claim nor been settled.
        """

    def settle(self, claim: Claim, outcome: Outcome, deadline: Deadline, *, release: bool) -> Known | Reused | None:
        """Record the outcome; with ``release``, release the claim. Or return what is recorded, and change nothing."""

    def conclude(self, conclusion: Conclusion, deadline: Deadline) -> Known | Reused | Located | None:
        """Record an outcome without a rename. Or return what is recorded, and change nothing."""

    def release(self, claim: Claim, deadline: Deadline) -> None:
        """Release the claim without an outcome."""

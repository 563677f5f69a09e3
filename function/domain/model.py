"""Rename events, invalid events and outcomes, as value objects."""

import hashlib
import re
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final, NamedTuple

from function.domain.failures import Failure, Violation
from function.domain.strict_json import to_ascii, to_json

MAX_VIOLATIONS: Final = 50

_EPOCH: Final = datetime.fromtimestamp(0, UTC)
# Without trailing zeros, so that equal times have equal forms.
_FINER_THAN_MICROSECONDS: Final = re.compile(r"\.[0-9]{6}([0-9]*[1-9])")


class Target(NamedTuple):
    """An endpoint service, with its region and project."""

    region: str
    project_id: str
    vpc_endpoint_service_id: str


class RedriveCycle(NamedTuple):
    """Which outcome of an event: the first, or one after the event was given up and redriven.

    Attributes:
        number: from 0.
        follows: the id of the previous outcome, None for the first.
    """

    number: int = 0
    follows: str | None = None


FIRST_CYCLE: Final = RedriveCycle()


@dataclass(frozen=True, slots=True)
class RenameEvent:
    """A valid rename event.

    Attributes:
        cloud_event: the whole event in structured mode.
        id, source: together identify the event.
        time: when the producer decided on the name, truncated to microseconds; ``time_microseconds`` is exact.
        project_id, region: as in the event, None for the function's own.
        expected_name: the current name that the event requires, None for any.
        received: when the transport received it (RFC 3339).
    """

    cloud_event: dict[str, Any]
    id: str
    source: str
    time: datetime
    vpc_endpoint_service_id: str
    endpoint_service_name: str
    project_id: str | None
    region: str | None
    expected_name: str | None
    received: str = field(compare=False)

    @property
    def time_microseconds(self) -> Decimal:
        """``time`` in microseconds since the epoch, exact: nanoseconds are up to three decimals."""
        whole = (self.time - _EPOCH) // timedelta(microseconds=1)
        finer = _FINER_THAN_MICROSECONDS.search(self.cloud_event["time"])
        return Decimal(whole) + (Decimal(f"0.{finer[1]}") if finer else 0)

    @property
    def digest(self) -> str:
        """SHA-256 of ``data``. Two events with the same identity must have the same digest."""
        return hashlib.sha256(to_ascii(self.cloud_event["data"]).encode()).hexdigest()

    def at(self, time: str) -> "RenameEvent":
        """The same event with another time."""
        return replace(self, cloud_event=self.cloud_event | {"time": time}, time=parse_time(time))

    def refused(self, *violations: Violation) -> "InvalidEvent":
        """The same event, rejected because of the settings or the clock."""
        invalid = InvalidEvent(
            self.cloud_event, self.id, self.source, rfc3339(self.time), self.received, violations=(), candidate=self
        )
        return invalid.refused(*violations)


@dataclass(frozen=True, slots=True)
class InvalidEvent:
    """What was delivered is not a valid rename event.

    Attributes:
        request: the event if it is a JSON object, else the raw text, truncated.
        time: the event's own if valid, else when the transport received it (RFC 3339).
        received: when the transport received it (RFC 3339).
        violations: at least one.
        too_large: it was too large to be parsed.
        candidate: the event, if only the settings or the clock reject it, which may accept it another time.
    """

    request: dict[str, Any] | str
    id: str
    source: str
    time: str
    received: str = field(compare=False)
    violations: tuple[Violation, ...]
    too_large: bool = False
    candidate: RenameEvent | None = field(default=None, compare=False, repr=False)

    def refused(self, *violations: Violation) -> "InvalidEvent":
        """The same event with more violations."""
        every = (*self.violations, *violations)
        if len(every) > MAX_VIOLATIONS:
            every = (*every[:MAX_VIOLATIONS], Violation("", "and more"))
        is_of_time = any(violation.path == "/time" for violation in every)
        return replace(self, violations=every, time=self.received if is_of_time else self.time)


# What the parser and the policy return.
ParsedEvent = RenameEvent | InvalidEvent


@dataclass(frozen=True, slots=True)
class Outcome:
    """The answer to a rename event.

    Attributes:
        cloud_event: in structured mode, the EventBridge entry's ``Detail``.
        failure: None for a success.
        remembered: it was decided before, and comes from the ledger.
    """

    cloud_event: dict[str, Any]
    failure: Failure | None
    remembered: bool = field(default=False, compare=False)

    @property
    def id(self) -> str:
        return str(self.cloud_event["id"])

    @property
    def type(self) -> str:
        return str(self.cloud_event["type"])

    @property
    def attempts(self) -> int:
        return int(self.cloud_event["data"]["attempts"])

    def to_json(self) -> str:
        return to_json(self.cloud_event)


def rfc3339(time: datetime) -> str:
    """In UTC, with milliseconds."""
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def parse_time(text: str) -> datetime:
    """Parse a time (RFC 3339) and convert it to UTC. Digits beyond microseconds are dropped.

    Raises:
        ValueError: there is no such time, for example a 30th of February, or it is a leap second.
    """
    try:
        return datetime.fromisoformat(text.upper()).astimezone(UTC)
    except OverflowError as error:
        raise ValueError from error

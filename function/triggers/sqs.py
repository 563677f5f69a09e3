"""From an SQS event to rename events, and from their results to a partial batch response.

Within a message group nothing overtakes: after an unsettled record the later ones of its group go back untouched.
Groups run side by side. What goes back is put off for longer each time it comes, so that an outage of an hour does not
use up its receives.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from random import SystemRandom
from typing import Any, Final, NamedTuple, Protocol

from function.deadline import Deadline
from function.events import Attributes, Outcome, Parser, RenameEvent, rfc3339
from function.failures import Failure, Kind
from function.rename import Renamer, Unsettled
from function.telemetry import Telemetry

TRIGGER: Final = "sqs"
ATTRIBUTE_PREFIX: Final = "ce_"
FIRST_DELAY_SECONDS: Final = 30
LONGEST_DELAY_SECONDS: Final = 900
# SQS keeps a message invisible for twelve hours from its receive at the most.
LONGEST_VISIBILITY_SECONDS: Final = 12 * 3_600 - 900
_UNIFORM: Final = SystemRandom().uniform


class RenameQueue(Protocol):
    """The queue that the records came from."""

    def put_off(self, receipt_handles: Sequence[str], seconds: int) -> None: ...


class Record:
    """A message of an SQS event. Read where it is needed: one that is not as SQS makes them spoils no other."""

    def __init__(self, message: Mapping[str, Any]) -> None:
        self._message = message
        self._system: Mapping[str, str] = message["attributes"]
        self.message_id: str = message["messageId"]
        self.group = self._system.get("MessageGroupId") or self.message_id  # in a standard queue each is by itself

    @property
    def body(self) -> str:
        return str(self._message["body"])

    @property
    def receipt_handle(self) -> str:
        return str(self._message["receiptHandle"])

    @property
    def receive_count(self) -> int:
        """From 1."""
        return int(self._system["ApproximateReceiveCount"])

    @property
    def message_attributes(self) -> Mapping[str, Mapping[str, Any]]:
        """As Lambda delivers them."""
        return self._message.get("messageAttributes") or {}

    @property
    def attributes(self) -> Attributes:
        """What it carries of an event's attributes, and what stands in for the rest."""
        given = {
            name.removeprefix(ATTRIBUTE_PREFIX).lower(): attribute.get("stringValue") or ""
            for name, attribute in self.message_attributes.items()
            if name.startswith(ATTRIBUTE_PREFIX)
        }
        return Attributes(
            id=self.message_id,
            # A dead letter's event came to the queue that it was moved from.
            source=self._system.get("DeadLetterQueueSourceArn") or self._message["eventSourceARN"],
            time=rfc3339(datetime.fromtimestamp(int(self._system["SentTimestamp"]) / 1000, UTC)),
            given=given,
        )


class SqsTrigger:
    """Handles batches of the rename queue."""

    def __init__(
        self,
        parser: Parser,
        renamer: Renamer,
        telemetry: Telemetry,
        queue: RenameQueue | None,
        *,
        max_receives: int | None,
        max_parallel_renames: int,
        uniform: Callable[[float, float], float] = _UNIFORM,
    ) -> None:
        """
        Args:
            queue: None leaves it to the queue's visibility time-out when a record comes again.
            max_receives: the queue's maxReceiveCount; None where nobody can tell which receive is the last.
            max_parallel_renames: message groups at work at once.
        """
        self._parser = parser
        self._renamer = renamer
        self._telemetry = telemetry
        self._queue = queue
        self._uniform = uniform
        self._max_receives = max_receives
        self._max_parallel_renames = max_parallel_renames
        self._threads = ThreadPoolExecutor(max_parallel_renames)  # which starts each when it is needed, and keeps it

    def handle(self, event: dict[str, Any], deadline: Deadline) -> dict[str, Any]:
        """Returns a partial batch response that names every record that is not settled."""
        batch = _Batch()
        groups: dict[str, list[Record]] = defaultdict(list)
        for record in map(Record, event["Records"]):
            groups[record.group].append(record)

        def settle_in_order(records: list[Record]) -> list[str]:
            return [record.message_id for record in records if not self._is_settled(record, batch, deadline)]

        side_by_side = self._threads.map if self._max_parallel_renames > 1 and len(groups) > 1 else map
        unsettled = list(side_by_side(settle_in_order, groups.values()))
        self._put_off(batch.returned)
        return {"batchItemFailures": [{"itemIdentifier": id_} for ids in unsettled for id_ in ids]}

    def _is_settled(self, record: Record, batch: "_Batch", deadline: Deadline) -> bool:
        """Whether the record is done with; else it must go back to the queue."""
        try:
            return self._settle(record, batch, deadline)
        except Exception as error:  # noqa: BLE001 - this record goes back, and the others go on
            self._telemetry.unexpected(error, message_id=record.message_id)
            return False

    def _settle(self, record: Record, batch: "_Batch", deadline: Deadline) -> bool:
        event = self._parser.parse(record.body, record.attributes, deadline)
        # An invalid event touches no endpoint service, so nothing can stand in its way.
        obstacle = batch.obstacle(record) if isinstance(event, RenameEvent) else None
        result = obstacle or self._renamer.settle(event, deadline, TRIGGER)
        if isinstance(result, Unsettled):
            unsettled = result
            last = self._max_receives is not None and record.receive_count >= self._max_receives
            if last:
                result = self._renamer.give_up(event, unsettled, deadline, TRIGGER)
            batch.refuse(unsettled.failure)
            if not _has_final_outcome(result):
                batch.stop(record, unsettled.failure, last=last)
        self._telemetry.handled(
            event, result, TRIGGER, message_id=record.message_id, receive_count=record.receive_count
        )
        return _has_final_outcome(result)

    def _put_off(self, returned: dict[str, list["_Returned"]]) -> None:
        if self._queue is None:
            return
        for records in returned.values():
            # A group moves again only when none of its messages is invisible: all of them wait for the first.
            self._queue.put_off([record.receipt_handle for record in records], self._delay(records[0]))

    def _delay(self, first: "_Returned") -> int:
        if first.last:
            return 0  # its next receive is the one that moves it to the dead-letter queue
        delay: float = FIRST_DELAY_SECONDS * 2 ** min(first.receive_count - 1, 10)
        delay = min(LONGEST_DELAY_SECONDS, delay) * self._uniform(0.8, 1.0)
        named = first.failure.retry_after
        if named is not None:
            # Who is throttled knows when it ends. Who is unavailable does not: a short answer, received a dozen times,
            # would use up the receives within an outage.
            least = delay if first.failure.kind is Kind.UNAVAILABLE else FIRST_DELAY_SECONDS
            delay = max(least, named * self._uniform(1.0, 1.1))
        return min(LONGEST_VISIBILITY_SECONDS, math.ceil(delay))


class _Returned(NamedTuple):
    """A record that goes back to the queue."""

    receipt_handle: str
    receive_count: int
    failure: Failure
    last: bool


class _Batch:
    """What one event's fate means for the others of its batch."""

    def __init__(self) -> None:
        self._stopped_groups: dict[str, Unsettled] = {}
        self._refused: Unsettled | None = None
        self.returned: dict[str, list[_Returned]] = defaultdict(list)

    def stop(self, record: Record, failure: Failure, *, last: bool) -> None:
        """The record goes back, and no later one of its group may overtake it."""
        self.returned[record.group].append(_Returned(record.receipt_handle, record.receive_count, failure, last))
        self._stopped_groups[record.group] = Unsettled(failure)

    def refuse(self, failure: Failure) -> None:
        """What refused one event its key would refuse every other."""
        if failure.kind is Kind.ACCESS:
            self._refused = Unsettled(failure)

    def obstacle(self, record: Record) -> Unsettled | None:
        """Why the record must go back untouched, None where it need not."""
        return self._refused or self._stopped_groups.get(record.group)


def _has_final_outcome(result: Outcome | Unsettled) -> bool:
    """On the bus; an event that was given up has an outcome there before its final one."""
    return isinstance(result, Outcome) and (result.failure is None or not result.failure.retryable)

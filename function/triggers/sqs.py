"""From an SQS event to rename events, and from their results to a partial batch response.

Within a message group nothing overtakes: after an unsettled record the later ones of its group go back untouched.
Groups run side by side. What goes back is put off for longer each time it comes, so that an outage of an hour does not
use up its receives.
"""

import math
import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple, Protocol

from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType
from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord

from function.events import Attributes, Outcome, Parser, RenameEvent, rfc3339
from function.failures import Failure, Kind
from function.rename import Renamer, SecondsLeft, Unsettled
from function.telemetry import Telemetry

TRIGGER: Final = "sqs"
ATTRIBUTE_PREFIX: Final = "ce_"
FIRST_DELAY_SECONDS: Final = 30
LONGEST_DELAY_SECONDS: Final = 900
# SQS keeps a message invisible for twelve hours from its receive at the most.
LONGEST_VISIBILITY_SECONDS: Final = 12 * 3_600 - 900


class RenameQueue(Protocol):
    """The queue that the records came from."""

    def put_off(self, receipt_handles: Sequence[str], seconds: int) -> None: ...


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
        uniform: Callable[[float, float], float] = random.uniform,
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

    def handle(self, event: dict[str, Any], left: SecondsLeft) -> dict[str, Any]:
        """Returns a partial batch response that names every record that is not settled."""
        batch = _Batch(self._max_parallel_renames)
        with batch(records=event["Records"], handler=lambda record: self._settle(record, batch, left)):
            batch.process()
        for _, error, _ in batch.exceptions:
            if not isinstance(error, _NotSettledError):
                self._telemetry.unexpected(error)
        self._put_off(batch.returned)
        return dict(batch.response())

    def _settle(self, record: SQSRecord, batch: "_Batch", left: SecondsLeft) -> None:
        """Raises _NotSettledError where the record must go back to the queue."""
        event = self._parser.parse(record.body, attributes_of(record))
        # An invalid event touches no endpoint service, so nothing can stand in its way.
        obstacle = batch.obstacle(record) if isinstance(event, RenameEvent) else None
        result = obstacle or self._renamer.settle(event, left, TRIGGER)
        receive_count = int(record.attributes.approximate_receive_count)
        if isinstance(result, Unsettled):
            unsettled = result
            last = self._max_receives is not None and receive_count >= self._max_receives
            if last:
                result = self._renamer.give_up(event, unsettled, left, TRIGGER)
            batch.refuse(unsettled.failure)
            if not _is_settled(result):
                batch.stop(record, unsettled.failure, last=last)
        self._telemetry.handled(event, result, TRIGGER, message_id=record.message_id, receive_count=receive_count)
        if not _is_settled(result):
            raise _NotSettledError

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


class _NotSettledError(Exception):
    """Tells the batch to report the record, so that it stays in the queue or moves to the dead-letter queue."""


class _Batch(BatchProcessor):
    """Powertools' batch, with message groups side by side and each group in order."""

    def __init__(self, max_parallel_groups: int) -> None:
        super().__init__(event_type=EventType.SQS, raise_on_entire_batch_failure=False)
        self._max_parallel_groups = max_parallel_groups
        self._stopped_groups: dict[str, Unsettled] = {}
        self._refused: Unsettled | None = None
        self.returned: dict[str, list[_Returned]] = defaultdict(list)

    def process(self) -> list[tuple[Any, ...]]:
        groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for record in self.records:
            groups[_group(SQSRecord(record))].append(record)
        workers = min(len(groups), self._max_parallel_groups)
        if workers <= 1:
            return [result for records in groups.values() for result in self._process_group(records)]
        with ThreadPoolExecutor(workers) as pool:
            return [result for results in pool.map(self._process_group, groups.values()) for result in results]

    def _process_group(self, records: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
        return [self._process_record(record) for record in records]

    def stop(self, record: SQSRecord, failure: Failure, *, last: bool) -> None:
        """The record goes back, and no later one of its group may overtake it."""
        receive_count = int(record.attributes.approximate_receive_count)
        self.returned[_group(record)].append(_Returned(record.receipt_handle, receive_count, failure, last))
        self._stopped_groups[_group(record)] = Unsettled(failure)

    def refuse(self, failure: Failure) -> None:
        """What refused one event its key would refuse every other."""
        if failure.kind is Kind.ACCESS:
            self._refused = Unsettled(failure)

    def obstacle(self, record: SQSRecord) -> Unsettled | None:
        """Why the record must go back untouched, None where it need not."""
        return self._refused or self._stopped_groups.get(_group(record))


def _is_settled(result: Outcome | Unsettled) -> bool:
    """Whether the event's final outcome is on the bus; one that was given up has another one before it."""
    return isinstance(result, Outcome) and (result.failure is None or not result.failure.retryable)


def _group(record: SQSRecord) -> str:
    """A standard queue has no groups: there each record is one by itself."""
    return record.attributes.message_group_id or record.message_id


def attributes_of(record: SQSRecord) -> Attributes:
    """What a message carries of an event's attributes, and what stands in for the rest."""
    given = {
        name.removeprefix(ATTRIBUTE_PREFIX).lower(): attribute.get("stringValue") or ""
        for name, attribute in (record.get("messageAttributes") or {}).items()
        if name.startswith(ATTRIBUTE_PREFIX)
    }
    sent = datetime.fromtimestamp(int(record.attributes.sent_timestamp) / 1000, UTC)
    return Attributes(
        id=record.message_id,
        # A dead letter's event came to the queue that it was moved from.
        source=record.attributes.dead_letter_queue_source_arn or record.event_source_arn,
        time=rfc3339(sent),
        given=given,
    )

"""Converts an SQS event to rename events, and their results to a partial batch response.

A message group stays in order: after an unsettled record, the later ones of its group are not carried out. Groups run
concurrently. The visibility timeout of unsettled records grows with each receive, so that an outage of an hour does not
use up the receives. Records that are not done in time are redelivered too, after the queue's own visibility timeout.
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final, Protocol

from function.domain import failures
from function.domain.backoff import UNIFORM
from function.domain.deadline import Deadline
from function.domain.envelopes import Attributes, carried_attributes
from function.domain.failures import Failure, Kind
from function.domain.model import Outcome, RenameEvent, rfc3339
from function.domain.rename_service import Result, Unsettled
from function.triggers.trigger import Trigger

TRIGGER: Final = "sqs"
ATTRIBUTE_PREFIX: Final = "ce_"
FIRST_DELAY_SECONDS: Final = 30
LONGEST_DELAY_SECONDS: Final = 900
# SQS limits the visibility timeout to twelve hours from the receive.
LONGEST_VISIBILITY_SECONDS: Final = 12 * 3_600 - 900
# The last request ends this long before the end of the invocation.
_LAST_REQUEST_SECONDS: Final = 0.5


class SourceQueue(Protocol):
    """The queue that the records came from."""

    def extend_visibility(self, delays: Mapping[str, int], deadline: Deadline) -> str | None: ...


class Record:
    """A message of an SQS event. Read lazily, so that a malformed message does not affect the others.

    Attributes:
        message_attributes: as Lambda delivers them.
    """

    def __init__(self, message: Mapping[str, Any]) -> None:
        self._message = message
        self._system: Mapping[str, str] = message["attributes"]
        self.message_id: str = message["messageId"]
        self.group = self._system.get("MessageGroupId") or self.message_id  # a standard queue has no groups
        self.message_attributes: Mapping[str, Mapping[str, Any]] = message.get("messageAttributes") or {}

    @property
    def log_fields(self) -> dict[str, Any]:
        """With IAM's unique id of the sender; None if SQS does not send it."""
        return {"message_id": self.message_id, "sender_id": self._system.get("SenderId")}

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
    def attributes(self) -> Attributes:
        """The event's attributes in the message, and defaults for the others."""
        return Attributes.carried(
            carried_attributes(self.message_attributes, "dataType", "stringValue"),
            event_id=self.message_id,
            # A dead letter was sent to the queue that it was moved from.
            source=self._system.get("DeadLetterQueueSourceArn") or self._message["eventSourceARN"],
            time=rfc3339(datetime.fromtimestamp(int(self._system["SentTimestamp"]) / 1000, UTC)),
        )


def batch_response(records: Sequence[Record], done: Collection[str]) -> dict[str, Any]:
    """A partial batch response: all records but those whose message ids are done are redelivered."""
    failed = [{"itemIdentifier": record.message_id} for record in records if record.message_id not in done]
    return {"batchItemFailures": failed}


@dataclass(eq=False, repr=False, kw_only=True)
class SqsTrigger(Trigger):
    """Handles batches of the rename queue. The number of workers limits the groups that run concurrently.

    Attributes:
        queue: None to leave the next delivery to the queue's visibility timeout.
        max_receives: the queue's maxReceiveCount; None if unknown.
    """

    queue: SourceQueue | None
    max_receives: int | None
    uniform: Callable[[float, float], float] = UNIFORM

    def handle(self, event: dict[str, Any], deadline: Deadline) -> dict[str, Any]:
        """Returns a partial batch response with the records that are not settled."""
        groups: dict[str, _Group] = {}
        records = [Record(message) for message in event["Records"]]
        for record in records:
            groups.setdefault(record.group, _Group()).records.append(record)
        tasks = [partial(self._settle_in_order, group, deadline) for group in groups.values()]
        self.workers.run(tasks, deadline.to_report())
        settled = [record.message_id for group in groups.values() for record in list(group.settled)]
        self._extend_visibility([group for group in groups.values() if group.is_done], deadline)
        return batch_response(records, settled)

    def _settle_in_order(self, group: "_Group", deadline: Deadline) -> None:
        for record in group.records:
            if deadline.to_report().remaining() <= 0:
                return  # the invocation has reported without this group
            try:
                unsettled = self._settle(record, group.blocking_failure, deadline)
            except Exception as error:  # noqa: BLE001 - this record is redelivered, and other groups go on
                self.telemetry.unexpected(error, message_id=record.message_id)
                unsettled = failures.internal_error()
            if unsettled is None:
                group.settled.append(record)
            elif group.blocking_failure is None:
                group.first_unsettled, group.blocking_failure = record, unsettled
        group.is_done = True

    def _settle(self, record: Record, blocking_failure: Failure | None, deadline: Deadline) -> Failure | None:
        """Why the record must be redelivered, None if it need not be."""
        event = self.policy.judge(self.parser.parse(record.body, record.attributes), deadline)
        # An invalid event changes no endpoint service, so it need not wait, unless it may have been valid before.
        blocked_by = blocking_failure if isinstance(event, RenameEvent) or event.candidate is not None else None
        result = Unsettled(blocked_by) if blocked_by else self.rename_service.settle(event, deadline, TRIGGER)
        failure = result.failure
        if isinstance(result, Unsettled) and self._is_last(record):
            # An event that was not tried must not be given up with the error code of the one before it.
            own = Unsettled(failures.in_progress()) if blocked_by else result
            result = self.rename_service.give_up(event, own, deadline, TRIGGER)
        self.telemetry.handled(event, result, TRIGGER, receive_count=record.receive_count, **record.log_fields)
        return None if _is_final(result) else failure

    def _is_last(self, record: Record) -> bool:
        return self.max_receives is not None and record.receive_count >= self.max_receives

    def _extend_visibility(self, groups: Sequence["_Group"], deadline: Deadline) -> None:
        """SQS delivers a group only if none of its messages is invisible, so all of them get the same delay."""
        delays: dict[str, int] = {}
        for group in groups:
            # A group with a malformed record keeps the queue's own visibility timeout.
            with suppress(KeyError, ValueError):
                delay = self._delay(group)
                if delay is not None:
                    unsettled = [record for record in group.records if record not in group.settled]
                    delays |= dict.fromkeys([record.receipt_handle for record in unsettled], delay)
        if self.queue is not None and delays:
            last = deadline._replace(report_seconds=_LAST_REQUEST_SECONDS).to_report()
            self.workers.run([partial(self._extend, self.queue, delays, last)], last)

    def _extend(self, queue: SourceQueue, delays: Mapping[str, int], deadline: Deadline) -> None:
        if error := queue.extend_visibility(delays, deadline):
            self.telemetry.visibility_not_extended(error)

    def _delay(self, group: "_Group") -> int | None:
        """Seconds until the group is redelivered; None for the queue's own visibility timeout."""
        record, failure = group.first_unsettled, group.blocking_failure
        if record is None or failure is None:
            return None
        if self._is_last(record):
            return 0  # its next receive moves it to the dead-letter queue
        delay: float = FIRST_DELAY_SECONDS * 2 ** min(record.receive_count - 1, 10)
        delay = min(LONGEST_DELAY_SECONDS, delay) * self.uniform(0.8, 1.0)
        named = failure.retry_after
        if named is not None:
            # The end of throttling is known. That of an outage is not: repeated short delays would use up the receives.
            least = delay if failure.kind is Kind.UNAVAILABLE else FIRST_DELAY_SECONDS
            delay = max(least, named * self.uniform(1.0, 1.1))
        return min(LONGEST_VISIBILITY_SECONDS, math.ceil(delay))


@dataclass(eq=False, repr=False)
class _Group:
    """The records of a message group in one batch, and its progress.

    Attributes:
        settled: records that need no redelivery.
        first_unsettled: the later records of the group wait for it.
        blocking_failure: why it is not settled.
        is_done: no record is being processed any more.
    """

    records: list[Record] = field(default_factory=list)
    settled: list[Record] = field(default_factory=list)
    first_unsettled: Record | None = None
    blocking_failure: Failure | None = None
    is_done: bool = False


def _is_final(result: Result) -> bool:
    """Whether the outcome on the bus is final: that of a given-up event is not."""
    return isinstance(result, Outcome) and (result.failure is None or not result.failure.retryable)

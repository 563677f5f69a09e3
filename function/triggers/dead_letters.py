"""From a dead letter to its outcome, and on to where dead letters rest.

A message whose function was killed each time has no outcome when its receives are used up. So dead letters pass here:
each gets its outcome, once more where it had one, and moves on unchanged to the dead-letter queue, from where it can be
brought again.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, Final, Protocol

from function.domain.deadline import Deadline
from function.domain.envelopes import attribute_name
from function.domain.event_parser import EventParser
from function.domain.model import Outcome
from function.domain.policy import Policy
from function.domain.rename_service import RenameService
from function.domain.strict_json import load
from function.telemetry import Telemetry
from function.triggers.sqs import ATTRIBUTE_PREFIX, TRIGGER, Record
from function.workers import Workers

MAX_ATTRIBUTES: Final = 10  # of a message, by SQS


class DeadLetterQueue(Protocol):
    """Where dead letters rest. False where it did not take the message."""

    def forward(
        self, body: str, group: str, attributes: Mapping[str, Any], message_id: str, deadline: Deadline
    ) -> bool: ...


class DeadLetterTrigger:
    """Sees dead letters off."""

    def __init__(
        self,
        parser: EventParser,
        policy: Policy,
        rename_service: RenameService,
        telemetry: Telemetry,
        *,
        queue: DeadLetterQueue,
        workers: Workers,
    ) -> None:
        self._workers = workers
        self._parser = parser
        self._policy = policy
        self._rename_service = rename_service
        self._telemetry = telemetry
        self._queue = queue

    def handle(self, event: dict[str, Any], deadline: Deadline) -> dict[str, Any]:
        """Returns a partial batch response that names every record without an outcome or a place to rest."""
        records = [Record(message) for message in event["Records"]]
        gone: list[str] = []
        self._workers.run([partial(self._conclude, records, gone, deadline)], deadline.to_report())
        return {
            "batchItemFailures": [
                {"itemIdentifier": record.message_id} for record in records if record.message_id not in gone
            ]
        }

    def _conclude(self, records: list[Record], gone: list[str], deadline: Deadline) -> None:
        for record in records:
            try:
                if deadline.remaining() > 0 and self._conclude_dead_letter(record, deadline):
                    gone.append(record.message_id)
            except Exception as error:  # noqa: BLE001 - the record stays, and the others go
                self._telemetry.unexpected(error, message_id=record.message_id)

    def _conclude_dead_letter(self, record: Record, deadline: Deadline) -> bool:
        event = self._policy.judge(self._parser.parse(record.body, record.attributes), deadline)
        result = self._rename_service.conclude_dead_letter(event, deadline, TRIGGER)
        self._telemetry.handled(
            event, result, TRIGGER, message_id=record.message_id, sender_id=record.sender_id, dead_letter=True
        )
        return isinstance(result, Outcome) and self._queue.forward(
            record.body,
            record.group,
            _attributes(record, result),
            record.message_id,
            deadline.to_report(),
        )


def _attributes(record: Record, outcome: Outcome) -> dict[str, Any]:
    """The message's attributes, and the event's identity where they lack it: what moves gets a new id and time."""
    own = {name: _as_sent(attribute) for name, attribute in record.message_attributes.items()}
    request = outcome.cloud_event["data"]["request"]
    # A whole event is the same wherever it lies, and so is one in an envelope.
    if not isinstance(request, dict) or load(record.body) != request.get("data"):
        return own
    carried = {name: attribute_name(name) for name in own}
    identity = {
        f"{ATTRIBUTE_PREFIX}{name}": {"StringValue": str(request[name]), "DataType": "String"}
        for name in ("id", "source", "time")
        if request.get(name) and name not in carried.values()
    }
    wanted = identity | {name: own[name] for name, attribute in carried.items() if attribute is not None}
    return dict(list((wanted | own).items())[:MAX_ATTRIBUTES])


def _as_sent(attribute: Mapping[str, Any]) -> dict[str, Any]:
    """As ``SendMessage`` takes it; bytes are in base64 here as there."""
    if attribute["dataType"].startswith("Binary"):
        return {"BinaryValue": attribute["binaryValue"], "DataType": attribute["dataType"]}
    return {"StringValue": attribute["stringValue"], "DataType": attribute["dataType"]}

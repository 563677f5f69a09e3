"""Publishes the final outcome of dead-lettered messages and forwards them to the dead-letter queue.

A message whose function was killed at each receive has no outcome when it reaches maxReceiveCount. So dead letters are
handled here first: the outcome of each is published, again if it had one, and the message is forwarded to the
dead-letter queue, from which it can be redriven.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Protocol

from function.domain.deadline import Deadline
from function.domain.envelopes import attribute_name
from function.domain.model import Outcome
from function.domain.strict_json import load
from function.triggers.sqs import ATTRIBUTE_PREFIX, TRIGGER, Record, batch_response
from function.triggers.trigger import Trigger

MAX_ATTRIBUTES: Final = 10  # of a message, SQS's limit


class DeadLetterQueue(Protocol):
    """The dead-letter queue. Returns AWS's error code, None if it confirmed the message."""

    def forward(
        self, body: str, group: str, attributes: Mapping[str, Any], message_id: str, deadline: Deadline
    ) -> str | None: ...


@dataclass(eq=False, repr=False, kw_only=True)
class DeadLetterTrigger(Trigger):
    """Handles batches of dead-lettered messages."""

    queue: DeadLetterQueue

    def handle(self, event: dict[str, Any], deadline: Deadline) -> dict[str, Any]:
        """Returns a partial batch response with the records that have no outcome yet, or were not forwarded."""
        records = [Record(message) for message in event["Records"]]
        forwarded: list[str] = []
        self.workers.run([partial(self._conclude, records, forwarded, deadline)], deadline.to_report())
        return batch_response(records, forwarded)

    def _conclude(self, records: list[Record], forwarded: list[str], deadline: Deadline) -> None:
        for record in records:
            try:
                if deadline.remaining() > 0 and self._conclude_dead_letter(record, deadline):
                    forwarded.append(record.message_id)
            except Exception as error:  # noqa: BLE001 - the record stays, the others are handled
                self.telemetry.unexpected(error, message_id=record.message_id)

    def _conclude_dead_letter(self, record: Record, deadline: Deadline) -> bool:
        event = self.policy.judge(self.parser.parse(record.body, record.attributes), deadline)
        result = self.rename_service.conclude_dead_letter(event, deadline, TRIGGER)
        error = None
        if isinstance(result, Outcome):
            attributes, last = _attributes(record, result), deadline.to_report()
            error = self.queue.forward(record.body, record.group, attributes, record.message_id, last)
        self.telemetry.handled(event, result, TRIGGER, dead_letter=True, queue_error_code=error, **record.log_fields)
        return isinstance(result, Outcome) and error is None


def _attributes(record: Record, outcome: Outcome) -> dict[str, Any]:
    """The message's attributes, and the event's identity if they lack it: the new message has another id and time."""
    own = {name: _as_sent(attribute) for name, attribute in record.message_attributes.items()}
    request = outcome.cloud_event["data"]["request"]
    # Only an event in binary mode takes its identity from the message.
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
    """In the form for ``SendMessage``; bytes are in base64 in both."""
    if attribute["dataType"].startswith("Binary"):
        return {"BinaryValue": attribute["binaryValue"], "DataType": attribute["dataType"]}
    return {"StringValue": attribute["stringValue"], "DataType": attribute["dataType"]}

"""What an event may come in: a notification of SNS, an event of EventBridge, message attributes of a queue or topic.

A module of its own because none of it is the rename event's: the formats are AWS's, and what they carry are defaults
for what the event lacks.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

# As producers' libraries spell it: by CloudEvents' bindings for HTTP, Kafka and AMQP.
_SPELLING: Final = re.compile(r"(?:ce[_-]|cloudevents[:_])(.*)", re.IGNORECASE | re.ASCII | re.DOTALL)


class Envelope(NamedTuple):
    """An envelope and what is in it. Nothing of it has been checked but the types of envelope and content.

    Attributes:
        content: a text, or a JSON value.
        id, source, time: of the envelope.
        attributes: CloudEvents attributes outside the content, by name; None is a value that is not text.
    """

    content: Any
    id: object
    source: object
    time: object
    attributes: list[tuple[str, str | None]]


def sns_notification(content: object) -> Envelope | None:
    """What an SNS topic sends to a queue without raw message delivery; None if the content is something else."""
    match content:
        case {"Type": "Notification", "Message": str(message), **rest}:
            attributes = rest.get("MessageAttributes")
            return Envelope(
                message,
                rest.get("MessageId"),
                rest.get("TopicArn"),
                rest.get("Timestamp"),
                list(carried_attributes(attributes, "Type", "Value")) if isinstance(attributes, dict) else [],
            )
    return None


def eventbridge_event(content: object) -> Envelope | None:
    """What an EventBridge rule sends to a queue; None if the content is something else."""
    match content:
        # No CloudEvent has an attribute of that name.
        case {"detail-type": _, "detail": detail, **rest}:
            return Envelope(detail, rest.get("id"), rest.get("source"), rest.get("time"), [])
    return None


def attribute_name(name: str) -> str | None:
    """The CloudEvents attribute that a message attribute of this name holds; None if it holds something else."""
    spelling = _SPELLING.fullmatch(name)
    return spelling[1].lower() if spelling else None


def carried_attributes(
    message_attributes: Mapping[str, Any], type_key: str, value_key: str
) -> Iterator[tuple[str, str | None]]:
    """CloudEvents attributes among message attributes, each as often as it is there.

    Args:
        type_key, value_key: what SQS and SNS name differently.
    """
    for name, attribute in message_attributes.items():
        attribute_ = attribute_name(name)
        if attribute_ is not None:
            held = attribute if isinstance(attribute, dict) else {}
            value = None if str(held.get(type_key)).startswith("Binary") else held.get(value_key)
            yield attribute_, value if isinstance(value, str) else None

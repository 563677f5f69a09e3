"""What surrounds an event: headers, message attributes of a queue or topic, SNS notifications, EventBridge events.

Separate from the parser because the formats are AWS's, and their values are only defaults for what the event lacks.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from function.domain.failures import Violation
from function.domain.violations import escape_pointer

# Prefixes of attributes in the CloudEvents bindings for HTTP, Kafka and AMQP, as producers' libraries write them.
_SPELLING: Final = re.compile(r"(?:ce[_-]|cloudevents[:_])(.*)", re.IGNORECASE | re.ASCII | re.DOTALL)


class Attributes(NamedTuple):
    """The CloudEvents attributes in a transport's headers or message attributes, and defaults for the others.

    Attributes:
        id, source: defaults in binary mode, if ``given`` lacks them.
        time: default in both modes.
        given: attributes for binary mode, without their prefix.
        violations: attributes that are not text, or have two values.
    """

    id: str
    source: str
    time: str
    given: Mapping[str, str]
    violations: tuple[Violation, ...] = ()

    @classmethod
    def carried(cls, pairs: Iterable[tuple[str, str | None]], *, event_id: str, source: str, time: str) -> "Attributes":
        """From names and values. A value that is not text (None) and two values of one name are violations."""
        given: dict[str, str] = {}
        broken: dict[str, Violation] = {}
        for name, value in pairs:
            if value is None and name == "traceparent":
                continue  # a malformed one is ignored
            if value is None:
                broken[name] = Violation(f"/{escape_pointer(name)}", "must be UTF-8 text, percent-encoded in a header")
            elif given.setdefault(name, value) != value:
                broken[name] = Violation(f"/{escape_pointer(name)}", "comes with two values")
        right = {name: value for name, value in given.items() if name not in broken}
        return cls(event_id, source, time, right, tuple(broken.values()))

    def enveloped(
        self, event_id: object, source: object, time: object, pairs: Iterable[tuple[str, str | None]] = ()
    ) -> "Attributes":
        """The attributes of an event in an envelope. Values of the envelope that are not text default to these."""

        def text(value: object, default: str) -> str:
            return value if isinstance(value, str) else default

        event_id, source, time = text(event_id, self.id), text(source, self.source), text(time, self.time)
        return Attributes.carried(pairs, event_id=event_id, source=source, time=time)


def sns_notification(content: object, outer: Attributes) -> tuple[str, Attributes] | None:
    """The message of a notification that an SNS topic sends without raw message delivery; None for other content."""
    match content:
        case {"Type": "Notification", "Message": str(message), **rest}:
            attributes = rest.get("MessageAttributes")
            pairs = carried_attributes(attributes, "Type", "Value") if isinstance(attributes, dict) else ()
            return message, outer.enveloped(rest.get("MessageId"), rest.get("TopicArn"), rest.get("Timestamp"), pairs)
    return None


def eventbridge_event(content: object, outer: Attributes) -> tuple[object, Attributes] | None:
    """The detail of an event that an EventBridge rule sends to a queue; None for other content."""
    match content:
        # Not a valid name of a CloudEvents attribute.
        case {"detail-type": _, "detail": detail, **rest}:
            return detail, outer.enveloped(rest.get("id"), rest.get("source"), rest.get("time"))
    return None


def attribute_name(name: str) -> str | None:
    """The name of the CloudEvents attribute in a message attribute; None if it contains something else."""
    spelling = _SPELLING.fullmatch(name)
    return spelling[1].lower() if spelling else None


def carried_attributes(
    message_attributes: Mapping[str, Any], type_key: str, value_key: str
) -> Iterator[tuple[str, str | None]]:
    """The CloudEvents attributes among message attributes, including duplicates.

    Args:
        type_key, value_key: keys of an attribute's type and value, which differ between SQS and SNS.
    """
    for name, attribute in message_attributes.items():
        attribute_ = attribute_name(name)
        if attribute_ is not None:
            held = attribute if isinstance(attribute, dict) else {}
            value = None if str(held.get(type_key)).startswith("Binary") else held.get(value_key)
            yield attribute_, value if isinstance(value, str) else None

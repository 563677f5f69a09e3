"""Parses what a transport delivers into a rename event, or its violations. Parsing does no I/O.

Events of every transport become structured CloudEvents, which are validated against
``contract/rename-event.schema.json``.
"""

import base64
import json
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

from jsonschema import Draft202012Validator

from function.domain.envelopes import Attributes, eventbridge_event, sns_notification
from function.domain.failures import Violation
from function.domain.model import MAX_VIOLATIONS, InvalidEvent, ParsedEvent, RenameEvent, parse_time, rfc3339
from function.domain.strict_json import NotJsonError, is_encodable, load, replace_lone_surrogates, to_json
from function.domain.violations import escape_pointer, explain

RENAME_REQUESTED: Final = "vpcep.endpoint_service.rename_requested.v1"
MAX_EVENT_BYTES: Final = 256 * 1024
# An EventBridge entry is limited to 256 KB, which must also hold JSON escapes and the rest of the outcome.
MAX_ECHOED_EVENT_BYTES: Final = 128 * 1024
MAX_ECHOED_TEXT: Final = 32 * 1024
# Upper limit of the setting NAME_MAX_LENGTH, which the policy checks.
MAX_NAME_LENGTH: Final = 255
_SCHEMA: Final = json.loads((Path(__file__).parents[1] / "contract/rename-event.schema.json").read_text("utf-8"))
_DATA: Final = _SCHEMA["$defs"]["data"]["properties"]
_DATA["endpoint_service_name"]["maxLength"] = MAX_NAME_LENGTH
# Members in the schema. Other names come from the producer, and are not logged.
KNOWN_PATHS: Final = frozenset({"", *(f"/{name}" for name in _SCHEMA["properties"]), *(f"/data/{n}" for n in _DATA)})
_ATTRIBUTE: Final = re.compile(r"(?!data$)[a-z0-9]+|data_base64")
_STRUCTURED_ONLY: Final = frozenset({"specversion", "id", "source", "type", "time", "data", "data_base64"})
# W3C Trace Context, version 00.
_TRACEPARENT: Final = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


class EventParser:
    """Parses events and validates them against the schema."""

    def __init__(self) -> None:
        self._validator = Draft202012Validator(_SCHEMA)

    def parse(
        self, text: str, attributes: Attributes, *, structured: bool | None = None, may_be_enveloped: bool = True
    ) -> ParsedEvent:
        """Parse one event. All violations are reported at once, up to ``MAX_VIOLATIONS``.

        Args:
            text: the event, or only its ``data``, or an envelope with either.
            attributes: of the transport.
            structured: whether the text is a whole CloudEvent; None to decide by its members.
            may_be_enveloped: whether SNS and EventBridge deliver to this transport.
        """
        received = attributes.time
        delivery = _Delivery(text, attributes, received)
        if len(text.encode("utf-8", "surrogatepass")) > MAX_EVENT_BYTES:
            return delivery.invalid([Violation("", f"must have at most {MAX_EVENT_BYTES} bytes")], too_large=True)
        try:
            content = load(text)
            if may_be_enveloped and (notification := sns_notification(content, attributes)):
                text, attributes = notification
                delivery = _Delivery(text, attributes, received)
                content = load(text)
        except NotJsonError as error:
            return delivery.invalid([Violation("", str(error))])
        if may_be_enveloped and (detail := eventbridge_event(content, attributes)):
            content, attributes = detail
            delivery = _Delivery(to_json(content), attributes, received)
        if not isinstance(content, dict):
            return delivery.invalid([Violation("", "must be an object")])
        if structured is None:
            structured = not _STRUCTURED_ONLY.isdisjoint(content)
        event = _in_structured_mode(content, attributes, structured=structured)
        found = self._violations(event, () if structured else attributes.violations)
        if violations := list(islice(found, MAX_VIOLATIONS + 1)):
            return delivery.invalid(violations, event)
        data = event["data"]
        return RenameEvent(
            cloud_event=event,
            id=event["id"],
            source=event["source"],
            time=parse_time(event["time"]),
            vpc_endpoint_service_id=data["vpc_endpoint_service_id"],
            endpoint_service_name=data["endpoint_service_name"],
            project_id=data.get("project_id"),
            region=data.get("region"),
            expected_name=data.get("expected_name"),
            received=received,
        )

    def unreadable(self, text: str, attributes: Attributes, message: str) -> InvalidEvent:
        """An invalid event, for a body that is not valid text."""
        return _Delivery(text, attributes, attributes.time).invalid([Violation("", message)])

    def _violations(self, event: dict[str, Any], of_transport: tuple[Violation, ...]) -> Iterator[Violation]:
        """Lazy, so that only those are computed that the caller takes."""
        yield from of_transport
        broken = {violation.path for violation in of_transport}
        most = _SCHEMA["maxProperties"]
        if len(event) > most:
            yield Violation("", f"must have at most {most} attributes")
            event = {name: value for name, value in event.items() if name in _SCHEMA["properties"]}
        yield from _lone_surrogates(event)
        if "data" not in event and isinstance(event.get("data_base64"), str):
            yield Violation("/data_base64", "must be JSON in UTF-8, in base64")
        for violation in (found for error in self._validator.iter_errors(event) for found in explain(error)):
            broken.add(violation.path)
            yield violation
        if "/time" not in broken:
            try:
                parse_time(event["time"])
            except ValueError:
                yield Violation("/time", "is not a time that exists")


def _lone_surrogates(event: dict[str, Any]) -> Iterator[Violation]:
    """Only in attributes of a transport: in JSON they have been rejected already."""
    for name, value in event.items():
        if not (is_encodable(name) and (not isinstance(value, str) or is_encodable(value))):
            yield Violation(f"/{escape_pointer(name)}", "holds a lone surrogate")


def _in_structured_mode(content: dict[str, Any], attributes: Attributes, *, structured: bool) -> dict[str, Any]:
    """The whole event, with ``data`` decoded and a time."""
    event = content
    if not structured:
        defaults = {"specversion": "1.0", "id": attributes.id, "source": attributes.source, "type": RENAME_REQUESTED}
        event = defaults | {"time": attributes.time} | {**attributes.given, "data": content}
    # In the CloudEvents JSON format, null means that the attribute is absent.
    event = {name: value for name, value in event.items() if value is not None or not _ATTRIBUTE.fullmatch(name)}
    if not _TRACEPARENT.fullmatch(str(event.get("traceparent"))):
        event.pop("traceparent", None)
    event.setdefault("time", attributes.time)
    if event.get("data") is None and isinstance(event.get("data_base64"), str):
        with suppress(ValueError):
            data = load(base64.b64decode(event["data_base64"], validate=True).decode("utf-8"))
            event = {name: value for name, value in event.items() if name != "data_base64"} | {"data": data}
    return event


@dataclass(eq=False, repr=False)
class _Delivery:
    """What a transport delivered, to create an invalid event from it."""

    text: str
    attributes: Attributes
    received: str

    def invalid(
        self, violations: list[Violation], event: dict[str, Any] | None = None, *, too_large: bool = False
    ) -> InvalidEvent:
        time = self.received
        if event is not None:
            with suppress(ValueError, AttributeError):
                time = rfc3339(parse_time(event["time"]))
        return InvalidEvent(
            request=self._echo(event),
            id=self._identity("id", event) or self.attributes.id,
            source=self._identity("source", event) or self.attributes.source,
            time=time,
            received=self.received,
            violations=(),
            too_large=too_large,
        ).refused(*violations)

    def _identity(self, attribute: str, event: dict[str, Any] | None) -> str | None:
        value = self.attributes.given.get(attribute) if event is None else event.get(attribute)
        return value if isinstance(value, str) else None

    def _echo(self, event: dict[str, Any] | None) -> dict[str, Any] | str:
        """The event, if its characters and its size fit into an outcome; else the text, truncated."""
        if event is not None:
            text = to_json(event)
            if is_encodable(text) and len(text.encode()) <= MAX_ECHOED_EVENT_BYTES:
                return event
        return replace_lone_surrogates(self.text[:MAX_ECHOED_TEXT])

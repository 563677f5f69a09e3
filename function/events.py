"""Rename events in, outcomes out: parsing, validation, and the CloudEvents form of both.

A module of its own because it is the contract's one implementation: whatever the transport, an event becomes the same
structured CloudEvent here and is held against ``contract/rename-event.schema.json``; whatever the result, it becomes an
outcome as in ``contract/outcome.schema.json`` here.
"""

import base64
import hashlib
import json
import re
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any, Final, NamedTuple

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from function import failures
from function.deadline import Deadline
from function.envelopes import Envelope, eventbridge_event, sns_notification
from function.failures import Failure, Kind, RenameFailedError, Violation
from function.strict_json import NotJsonError, load

RENAME_REQUESTED: Final = "vpcep.endpoint_service.rename_requested.v1"
RENAMED: Final = "vpcep.endpoint_service.renamed.v1"
RENAME_FAILED: Final = "vpcep.endpoint_service.rename_failed.v1"
OUTCOME_SOURCE: Final = "vpcep.rename"

MAX_EVENT_BYTES: Final = 256 * 1024
# An EventBridge entry holds 256 KB; an echoed request must leave room for JSON escapes and for the rest of the outcome.
MAX_ECHOED_EVENT_BYTES: Final = 128 * 1024
MAX_ECHOED_TEXT: Final = 32 * 1024
MAX_VIOLATIONS: Final = 50
MAX_PATH: Final = 200
# Clocks of producers differ; an event from further ahead would shut out every honest rename until its time comes.
MAX_CLOCK_SKEW: Final = timedelta(minutes=5)

AHEAD_OF_TIME: Final = Violation("/time", "lies more than five minutes in the future")
FORBIDDEN_PROJECT: Final = Violation("/data/project_id", "is not a project that events may name")

FORBIDDEN_REGION: Final = Violation("/data/region", "is not a region that events may name")
_MAY_BE_RIGHT_ANOTHER_TIME: Final = frozenset({AHEAD_OF_TIME, FORBIDDEN_PROJECT, FORBIDDEN_REGION})

_OUTCOME_IDS: Final = uuid.UUID("0f7c8a52-3f5e-5a39-9d0d-6e0f6f1a7c11")
_CONTRACT: Final = Path(__file__).parent / "contract"
_EPOCH: Final = datetime.fromtimestamp(0, UTC)
# Without zeros at the end: one instant has one form.
_FINER_THAN_MICROSECONDS: Final = re.compile(r"\.[0-9]{6}([0-9]*[1-9])")
_ATTRIBUTE: Final = re.compile(r"(?!data$)[a-z0-9]+|data_base64")
_SUBJECT: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_MESSAGES: Final = {
    "minLength": "must not be empty",
    "minimum": "must be an integer of 32 bits",
    "maximum": "must be an integer of 32 bits",
}
_WORD: Final = "must hold letters, digits, _ and - only"
# By the place that the pattern is for; extension attributes have no entry.
_PATTERN_MESSAGES: Final = {
    "/source": "must be a URI reference (RFC 3986)",
    "/time": "must be a time by RFC 3339, as in 2026-11-24T02:10:52Z",
    "/dataschema": "must be a URI (RFC 3986)",
    "/datacontenttype": "must be application/json",
    "/data/vpc_endpoint_service_id": _WORD,
    "/data/endpoint_service_name": _WORD,
    "/data/project_id": _WORD,
    "/data/region": "must hold lower-case letters, digits and - only",
    "/data/expected_name": _WORD,
}
_STRUCTURED_ONLY: Final = frozenset({"specversion", "id", "source", "type", "time", "data", "data_base64"})
# By W3C Trace Context, version 00.
_TRACEPARENT: Final = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


class Round(NamedTuple):
    """Which outcome of its event this is: the first, or one that follows a given-up one after a redrive.

    Attributes:
        number: from 0.
        follows: the id of the outcome before.
    """

    number: int = 0
    follows: str | None = None


FIRST_ROUND: Final = Round()


@dataclass(frozen=True, slots=True)
class Attributes:
    """The CloudEvents attributes that a transport carries or stands in for.

    Attributes:
        id, source: the defaults where a transport carries ``data`` alone and ``given`` lacks them.
        time: the default wherever there is none.
        given: as carried beside ``data`` alone, without their prefix.
        violations: what is wrong with those beyond their values.
    """

    id: str
    source: str
    time: str
    given: Mapping[str, str]
    violations: tuple[Violation, ...] = ()

    @classmethod
    def carried(cls, pairs: Iterable[tuple[str, str | None]], *, event_id: str, source: str, time: str) -> "Attributes":
        """With ``given`` from names and values; what is no text (None) and two values of one name are violations."""
        given: dict[str, str | None] = {}
        broken: dict[str, Violation] = {}
        for name, value in pairs:
            if value is None and name == "traceparent":
                continue  # it refuses nothing
            if value is None:
                broken[name] = Violation(f"/{_escaped(name)}", "must be UTF-8 text, percent-encoded in a header")
            elif given.setdefault(name, value) != value:
                broken[name] = Violation(f"/{_escaped(name)}", "comes with two values")
        right = {name: value for name, value in given.items() if name not in broken and value is not None}
        return cls(event_id, source, time, right, tuple(broken.values()))

    def within(self, envelope: Envelope) -> "Attributes":
        """Those of an event in an envelope that came with these."""

        def text(value: object, default: str) -> str:
            return value if isinstance(value, str) else default

        return Attributes.carried(
            envelope.attributes,
            event_id=text(envelope.id, self.id),
            source=text(envelope.source, self.source),
            time=text(envelope.time, self.time),
        )


@dataclass(frozen=True, slots=True)
class RenameEvent:
    """A valid rename event.

    Attributes:
        cloud_event: the whole event in structured mode.
        id, source: identify the event, together.
        time: when the producer decided on the name, down to the microsecond; what is newer is told by
            ``time_microseconds``.
        project_id, region: as the event names them, None for the function's own.
        expected_name: the name the service must bear now, None for any.
        refuse: makes an invalid event of it.
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
    refuse: "_Refusal" = field(compare=False, repr=False)

    @property
    def time_microseconds(self) -> Decimal:
        """``time`` in microseconds since the epoch, exact: a time of nine digits has up to three decimals."""
        whole = (self.time - _EPOCH) // timedelta(microseconds=1)
        finer = _FINER_THAN_MICROSECONDS.search(self.cloud_event["time"])
        return Decimal(whole) + (Decimal(f"0.{finer[1]}") if finer else 0)

    @property
    def digest(self) -> str:
        """Of what the event asks for. Two events of one identity must agree in it."""
        return _digest(to_ascii(self.cloud_event["data"]))

    def at(self, time: str) -> "RenameEvent":
        """The same event, of another time."""
        return replace(self, cloud_event=self.cloud_event | {"time": time}, time=_parse_time(time))

    def refused(self, violation: Violation) -> "InvalidEvent":
        """The same event, found invalid by what its schema does not know."""
        return replace(self.refuse([violation], self.cloud_event), otherwise=self)


@dataclass(frozen=True, slots=True)
class InvalidEvent:
    """What came in is no valid rename event.

    Attributes:
        request: the event where it is a JSON object, else the raw text, clipped.
        time: by RFC 3339; the event's own where it is right, else when the transport took it in.
        violations: at least one.
        too_large: it was not even parsed.
        otherwise: the event, where all that is wrong with it may be right another time: the clock, the settings.
    """

    request: dict[str, Any] | str
    id: str
    source: str
    time: str
    violations: tuple[Violation, ...]
    too_large: bool = False
    otherwise: RenameEvent | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a rename event is answered with.

    Attributes:
        cloud_event: in structured mode, the EventBridge entry's ``Detail``.
        failure: None for a success.
        remembered: it had been decided before, and comes from the ledger.
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


def outcome_from_json(text: str) -> Outcome:
    """An outcome as ``to_json`` made it, and the ledger remembered it."""
    cloud_event = json.loads(text)
    data = cloud_event["data"]
    error = data.get("error")
    if error is None:
        return Outcome(cloud_event, failure=None, remembered=True)
    violations = tuple(Violation(**violation) for violation in error["violations"])
    failure = Failure(
        code=error["code"],
        message=error["message"],
        kind=Kind(error["kind"]),
        retryable=error["retryable"],
        http_status=error["http_status"],
        huawei_request_id=data["huawei_request_id"],
        violations=violations,
    )
    return Outcome(cloud_event, failure, remembered=True)


def rfc3339(time: datetime) -> str:
    """In UTC and milliseconds."""
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def carriable(text: str) -> str:
    """The text in characters that UTF-8 can carry: lone surrogates have no UTF-8 form."""
    return text.encode("utf-8", "replace").decode("utf-8")


def to_ascii(value: object) -> str:
    """JSON for a digest: whatever the text holds, it has a form."""
    return json.dumps(value, sort_keys=True)


def to_json(value: object) -> str:
    """JSON as short as it gets, in characters that UTF-8 can carry."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


class Parser:
    """Turns what a transport delivers into a rename event, or says everything that is wrong with it."""

    def __init__(
        self,
        *,
        name_max_length: int,
        is_allowed_project: Callable[[str, Deadline], bool],
        is_allowed_region: Callable[[str], bool],
        now: Callable[[], datetime],
    ) -> None:
        """
        Args:
            name_max_length: characters; takes the place of the schema's own maximum.
            is_allowed_project, is_allowed_region: whether an event may name it. A RenameFailedError says that it
                cannot be told now; the event passes, and whoever carries it out must ask again.
            now: time zone aware.
        """
        schema = json.loads((_CONTRACT / "rename-event.schema.json").read_text(encoding="utf-8"))
        schema["$defs"]["data"]["properties"]["endpoint_service_name"]["maxLength"] = name_max_length
        self._schema = schema
        self._validator = Draft202012Validator(schema)
        too_long = Violation("/data/endpoint_service_name", f"must have at most {name_max_length} characters")
        self._may_be_right_another_time = _MAY_BE_RIGHT_ANOTHER_TIME | {too_long}
        self._is_allowed_project = is_allowed_project
        self._is_allowed_region = is_allowed_region
        self._now = now

    def parse(
        self,
        text: str,
        attributes: Attributes,
        deadline: Deadline,
        *,
        structured: bool | None = None,
        may_be_enveloped: bool = True,
    ) -> RenameEvent | InvalidEvent:
        """Parse and validate one event; all violations at once.

        Args:
            text: the event, or its ``data`` alone, or an envelope around either.
            attributes: what the transport carries.
            deadline: bounds the question for the key, whose project is allowed.
            structured: whether the text is a whole CloudEvent; None to tell by its shape.
            may_be_enveloped: whether the transport is one that SNS and EventBridge deliver to.
        """
        received = attributes.time
        refuse = _Refusal(text, attributes, received)
        if len(text.encode("utf-8", "surrogatepass")) > MAX_EVENT_BYTES:
            return refuse([Violation("", f"must have at most {MAX_EVENT_BYTES} bytes")], too_large=True)
        try:
            content = load(text)
            if may_be_enveloped and (envelope := sns_notification(content)):
                attributes = attributes.within(envelope)
                refuse = _Refusal(envelope.content, attributes, received)
                content = load(envelope.content)
        except NotJsonError as error:
            return refuse([Violation("", str(error))])
        if may_be_enveloped and (envelope := eventbridge_event(content)):
            content, attributes = envelope.content, attributes.within(envelope)
            refuse = _Refusal(to_json(content), attributes, received)
        if not isinstance(content, dict):
            return refuse([Violation("", "must be an object")])
        if structured is None:
            structured = not _STRUCTURED_ONLY.isdisjoint(content)
        event = _in_structured_mode(content, attributes, structured=structured)
        found = self._violations(event, () if structured else attributes.violations, deadline)
        violations = list(islice(found, MAX_VIOLATIONS + 1))
        if not self._may_be_right_another_time.issuperset(violations):
            return refuse(violations, event)
        data = event["data"]
        rename_event = RenameEvent(
            cloud_event=event,
            id=event["id"],
            source=event["source"],
            time=_parse_time(event["time"]),
            vpc_endpoint_service_id=data["vpc_endpoint_service_id"],
            endpoint_service_name=data["endpoint_service_name"],
            project_id=data.get("project_id"),
            region=data.get("region"),
            expected_name=data.get("expected_name"),
            refuse=refuse,
        )
        return replace(refuse(violations, event), otherwise=rename_event) if violations else rename_event

    def unreadable(self, text: str, attributes: Attributes, message: str) -> InvalidEvent:
        """What a transport could not even make text of."""
        return _Refusal(text, attributes, attributes.time)([Violation("", message)])

    def _violations(
        self, event: dict[str, Any], of_transport: tuple[Violation, ...], deadline: Deadline
    ) -> Iterator[Violation]:
        """One by one, as they are found: whoever takes only the first ones pays for no others."""
        yield from of_transport
        broken = {violation.path for violation in of_transport}
        most = self._schema["maxProperties"]
        if len(event) > most:
            yield Violation("", f"must have at most {most} attributes")
            event = {name: value for name, value in event.items() if name in self._schema["properties"]}
        for name, value in event.items():
            # JSON is checked already, a transport's attributes are not.
            if not (_is_carriable(name) and (not isinstance(value, str) or _is_carriable(value))):
                broken.add(f"/{_escaped(name)}")
                yield Violation(f"/{_escaped(name)}", "holds a lone surrogate")
        if "data" not in event and isinstance(event.get("data_base64"), str):
            yield Violation("/data_base64", "must be JSON in UTF-8, in base64")
        for error in self._validator.iter_errors(event):
            for violation in _explain(error):
                broken.add(violation.path)
                yield violation
        if "time" in event and "/time" not in broken:
            yield from self._time_violations(event["time"])
        data = event.get("data")
        if isinstance(data, dict):
            if "project_id" in data and "/data/project_id" not in broken:
                with suppress(RenameFailedError):
                    if not self._is_allowed_project(data["project_id"], deadline):
                        yield FORBIDDEN_PROJECT
            if "region" in data and "/data/region" not in broken and not self._is_allowed_region(data["region"]):
                yield FORBIDDEN_REGION

    def _time_violations(self, text: str) -> Iterator[Violation]:
        try:
            time = _parse_time(text)
        except ValueError:
            yield Violation("/time", "is not a time that exists")
            return
        if time > self._now() + MAX_CLOCK_SKEW:
            yield AHEAD_OF_TIME


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What an outcome tells beside the result.

    Attributes:
        trigger: ``sqs`` or ``http``.
        region: the function's own, where the event names none.
        project_id: the function's own, where the event names none; None where it is not known.
        attempts: calls of ``update_endpoint_service_name``.
        time: of the outcome, by RFC 3339.
        round: which outcome of its event this is.
    """

    trigger: str
    region: str
    project_id: str | None
    attempts: int
    time: str
    round: Round = FIRST_ROUND


def renamed(
    event: RenameEvent,
    circumstances: Circumstances,
    *,
    service_name: str,
    previous_service_name: str | None,
    huawei_request_id: str | None,
) -> Outcome:
    """The success: names as the API reported them."""
    data = _data(event, circumstances, huawei_request_id) | {"service_name": service_name}
    if previous_service_name is not None:
        data["previous_service_name"] = previous_service_name
    identity = outcome_id(event, circumstances.round)
    return Outcome(_cloud_event(RENAMED, event, circumstances, data, identity), failure=None)


def rename_failed(event: RenameEvent | InvalidEvent, circumstances: Circumstances, failure: Failure) -> Outcome:
    """The failure, with the error code."""
    data = _data(event, circumstances, failure.huawei_request_id) | {
        "error": {
            "code": failure.code,
            "message": failure.message,
            "kind": failure.kind.value,
            "http_status": failure.http_status,
            "retryable": failure.retryable,
            "violations": [violation._asdict() for violation in failure.violations],
        }
    }
    if failure.superseded_by is not None:
        data["superseded_by"] = failure.superseded_by._asdict()
    if isinstance(event, InvalidEvent) or failure.code == failures.IDENTIFIER_REUSED:
        # No ledger keeps it: its id is made of what it says, so that two outcomes of one id cannot differ, and a mended
        # event, sent again under its old id, gets another one.
        identity = _identity(event.source, event.id, circumstances.time, to_ascii(data))
    else:
        identity = outcome_id(event, circumstances.round)
    return Outcome(_cloud_event(RENAME_FAILED, event, circumstances, data, identity), failure)


def _data(
    event: RenameEvent | InvalidEvent, circumstances: Circumstances, huawei_request_id: str | None
) -> dict[str, Any]:
    if isinstance(event, RenameEvent):
        request: dict[str, Any] | str = event.cloud_event
        named: dict[str, Any] = event.cloud_event["data"]
    else:
        request = event.request
        named = _named(event)
    return {
        "request": request,
        "project_id": named.get("project_id") or circumstances.project_id,
        "region": named.get("region") or circumstances.region,
        "vpc_endpoint_service_id": named.get("vpc_endpoint_service_id"),
        "endpoint_service_name": named.get("endpoint_service_name"),
        "attempts": circumstances.attempts,
        "trigger": circumstances.trigger,
        "huawei_request_id": huawei_request_id,
    } | ({"follows": circumstances.round.follows} if circumstances.round.follows else {})


def _named(event: InvalidEvent) -> dict[str, str]:
    """What an invalid event names, as far as it is text of a bearable length."""
    data = event.request.get("data") if isinstance(event.request, dict) else None
    if not isinstance(data, dict):
        return {}
    return {field: value for field, value in data.items() if isinstance(value, str) and len(value) <= MAX_PATH}


def _cloud_event(
    outcome_type: str,
    event: RenameEvent | InvalidEvent,
    circumstances: Circumstances,
    data: dict[str, Any],
    identity: str,
) -> dict[str, Any]:
    cloud_event = {
        "specversion": "1.0",
        "id": identity,
        "source": OUTCOME_SOURCE,
        "type": outcome_type,
        "time": circumstances.time,
        "datacontenttype": "application/json",
    }
    if _SUBJECT.fullmatch(data["vpc_endpoint_service_id"] or ""):
        cloud_event["subject"] = data["vpc_endpoint_service_id"]
    if isinstance(event, RenameEvent) and "traceparent" in event.cloud_event:
        cloud_event["traceparent"] = event.cloud_event["traceparent"]
    return cloud_event | {"data": data}


def outcome_id(event: RenameEvent, round_: Round = FIRST_ROUND) -> str:
    """The same event gets the same id each time, and each round after a redrive one of its own."""
    return _identity(event.source, event.id, *([round_.number] if round_.number else []))


def _identity(*parts: str | int) -> str:
    return str(uuid.uuid5(_OUTCOME_IDS, json.dumps(parts)))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _in_structured_mode(content: dict[str, Any], attributes: Attributes, *, structured: bool) -> dict[str, Any]:
    """The whole event, with ``data`` decoded and its time."""
    event = content
    if not structured:
        defaults = {"specversion": "1.0", "id": attributes.id, "source": attributes.source, "type": RENAME_REQUESTED}
        event = defaults | {"time": attributes.time} | {**attributes.given, "data": content}
    # CloudEvents' JSON format takes an attribute that is null for one that is left out.
    event = {name: value for name, value in event.items() if value is not None or not _ATTRIBUTE.fullmatch(name)}
    if not _is_traceparent(event.get("traceparent")):
        event.pop("traceparent", None)
    event.setdefault("time", attributes.time)
    if event.get("data") is None and isinstance(event.get("data_base64"), str):
        with suppress(ValueError):
            data = load(base64.b64decode(event["data_base64"], validate=True).decode("utf-8"))
            event = {name: value for name, value in event.items() if name != "data_base64"} | {"data": data}
    return event


def _is_traceparent(value: object) -> bool:
    return isinstance(value, str) and _TRACEPARENT.fullmatch(value) is not None


class _Refusal:
    """Makes an invalid event of what a transport delivered."""

    def __init__(self, text: str, attributes: Attributes, received: str) -> None:
        self._text = text
        self._attributes = attributes
        self._received = received

    def __call__(
        self, violations: list[Violation], event: dict[str, Any] | None = None, *, too_large: bool = False
    ) -> InvalidEvent:
        attributes = self._attributes
        time = self._received
        if event is not None and not any(violation.path == "/time" for violation in violations):
            time = rfc3339(_parse_time(event["time"]))
        if len(violations) > MAX_VIOLATIONS:
            violations = [*violations[:MAX_VIOLATIONS], Violation("", "and more")]
        return InvalidEvent(
            request=self._echo(event),
            id=self._identity("id", event) or attributes.id,
            source=self._identity("source", event) or attributes.source,
            time=time,
            violations=tuple(violations),
            too_large=too_large,
        )

    def _identity(self, attribute: str, event: dict[str, Any] | None) -> str | None:
        value = self._attributes.given.get(attribute) if event is None else event.get(attribute)
        return value if isinstance(value, str) else None

    def _echo(self, event: dict[str, Any] | None) -> dict[str, Any] | str:
        """The event where it is one, in characters and of a size that an outcome can carry; else the text, clipped."""
        if event is not None:
            text = to_json(event)
            if _is_carriable(text) and len(text.encode()) <= MAX_ECHOED_EVENT_BYTES:
                return event
        return carriable(self._text[:MAX_ECHOED_TEXT])


def _is_carriable(text: str) -> bool:
    return carriable(text) == text


def _parse_time(text: str) -> datetime:
    """A time by RFC 3339, in UTC; digits beyond the microsecond are left out.

    Raises:
        ValueError: there is no such time, a 30th of February or a leap second.
    """
    try:
        return datetime.fromisoformat(text.upper()).astimezone(UTC)
    except OverflowError as error:
        raise ValueError from error


def _explain(error: ValidationError) -> Iterator[Violation]:
    """One violation or more, in words that repeat nothing of the event: jsonschema's own messages do."""
    path = "".join(f"/{_escaped(step)}" for step in error.absolute_path)
    limit: Any = error.validator_value
    instance: Any = error.instance
    schema: Any = error.schema
    match error.validator:
        case "required":
            # jsonschema reports each missing member by itself, and tells its name in the message alone.
            name = error.message.removesuffix(" is a required property").strip("'")
            yield Violation(f"{path}/{_escaped(name)}", "is missing")
        case "additionalProperties":
            known = schema["properties"]
            for name in instance:
                if name not in known:
                    yield Violation(f"{path}/{_escaped(name)}", "is not a known field")
        case _ if "propertyNames" in error.relative_schema_path:
            message = "must be a CloudEvents attribute name: up to 32 lower-case letters and digits"
            yield Violation(f"{path}/{_escaped(instance)}", message)
        case "anyOf":
            both = "data" in instance
            yield Violation("/data_base64", "must not come beside data") if both else Violation("/data", "is missing")
        case "type":
            kinds = [limit] if isinstance(limit, str) else limit
            yield Violation(path, f"must be of type {' or '.join(kinds)}")
        case "const":
            yield Violation(path, f"must be {json.dumps(limit)}")
        case "maxLength":
            yield Violation(path, f"must have at most {limit} characters")
        case "pattern":
            yield Violation(path, _PATTERN_MESSAGES.get(path, "must hold no control characters"))
        case _:
            rule = str(error.validator)
            yield Violation(path, _MESSAGES.get(rule, f"breaks the rule {rule}: {limit}"))


def _escaped(step: object) -> str:
    return carriable(str(step)[:MAX_PATH]).replace("~", "~0").replace("/", "~1")

"""Converts API Gateway proxy events to rename events, and results to HTTP responses.

An event that cannot be settled while the caller waits is sent to the queue, and answered with 202.
"""

import base64
import hashlib
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, Final, NamedTuple, Protocol
from urllib.parse import unquote

from function.domain import failures
from function.domain.deadline import Deadline
from function.domain.envelopes import Attributes
from function.domain.failures import Failure, Kind
from function.domain.model import InvalidEvent, ParsedEvent, RenameEvent, rfc3339
from function.domain.rename_service import Result, Unsettled
from function.domain.strict_json import to_json
from function.triggers.trigger import Trigger

TRIGGER: Final = "http"
METHOD: Final = "POST"
PATH: Final = "/rename-events"
ATTRIBUTE_PREFIX: Final = "ce-"
STRUCTURED: Final = "application/cloudevents+json"
BINARY: Final = "application/json"
RETRY_AFTER_SECONDS: Final = 30
NO_HEADERS: Final[Mapping[str, str]] = {}

# RFC 9110, 5.6.4.
_QUOTED: Final = re.compile(r'"((?:[^"\\]|\\.)*)"')
_STATUS_OF: Final = {
    Kind.INVALID: HTTPStatus.BAD_REQUEST,
    Kind.NOT_FOUND: HTTPStatus.NOT_FOUND,
    Kind.CONFLICT: HTTPStatus.CONFLICT,
    Kind.ACCESS: HTTPStatus.FORBIDDEN,
    Kind.THROTTLED: HTTPStatus.SERVICE_UNAVAILABLE,
    Kind.UNAVAILABLE: HTTPStatus.SERVICE_UNAVAILABLE,
    Kind.INTERNAL: HTTPStatus.INTERNAL_SERVER_ERROR,
}


class RenameQueue(Protocol):
    """The queue for events that cannot be settled now. Returns AWS's error code, None if it confirmed the event."""

    def send(self, event: RenameEvent, deduplication_id: str, deadline: Deadline) -> str | None: ...


class Response(NamedTuple):
    """An HTTP response."""

    status: int
    media_type: str
    body: str
    headers: Mapping[str, str] = NO_HEADERS

    def to_proxy(self) -> dict[str, Any]:
        headers = {"Content-Type": self.media_type, **self.headers}
        return {
            "statusCode": int(self.status),
            "multiValueHeaders": {name: [value] for name, value in headers.items()},
            "body": self.body,
            "isBase64Encoded": False,
        }


class Request:
    """A proxy event of a REST API.

    Attributes:
        route: method and resource. The path may begin with the base path of a custom domain.
        caller: the IAM ARN of whoever signed the request, None if unknown.
        raw_body: base64 if the proxy event says so.
    """

    def __init__(self, event: Mapping[str, Any]) -> None:
        self._event = event
        self._context: Mapping[str, Any] = event["requestContext"]
        self.route: tuple[str, str] = event["httpMethod"], event["resource"]
        self.id: str = self._context.get("requestId") or ""
        self.caller: str | None = (self._context.get("identity") or {}).get("userArn")
        self.raw_body: str = event.get("body") or ""
        values = event.get("multiValueHeaders") or {n: [value] for n, value in (event.get("headers") or {}).items()}
        self._headers: dict[str, list[str]] = {}
        for name, sent in values.items():
            self._headers.setdefault(name.lower(), []).extend(sent)
        self.media_type = (self._header("content-type") or BINARY).partition(";")[0].strip().lower()

    @property
    def is_dry_run(self) -> bool | None:
        """None if the query parameter has two values, or another one than ``true`` or ``false``."""
        query = self._event.get("queryStringParameters") or {}
        values = (self._event.get("multiValueQueryStringParameters") or {n: [query[n]] for n in query}).get("dry_run")
        return values == ["true"] if values in (None, ["true"], ["false"]) else None

    @property
    def body(self) -> str:
        """Raises ValueError if an encoded body is not base64 of UTF-8."""
        return base64.b64decode(self.raw_body).decode() if self._event.get("isBase64Encoded") else self.raw_body

    @property
    def prefers_async(self) -> bool:
        """As in RFC 7240: one header or several, each with preferences that may have parameters."""
        preferences = ",".join(self._headers.get("prefer", [])).split(",")
        return any(preference.partition(";")[0].strip().lower() == "respond-async" for preference in preferences)

    @property
    def attributes(self) -> Attributes:
        received = datetime.fromtimestamp(self._context["requestTimeEpoch"] / 1000, UTC)
        return Attributes.carried(
            self._carried(),
            event_id=self._header("idempotency-key") or self.id,
            source=self._source,
            time=rfc3339(received),
        )

    @property
    def _source(self) -> str:
        """The API's id and a hash of the caller, so that two callers with one Idempotency-Key send two events."""
        api: str = self._context.get("apiId") or ""
        caller = self.caller
        if not caller:
            return api
        if ":assumed-role/" in caller:  # its last part is the session, which differs in each run of a caller
            caller = caller.rpartition("/")[0]
        return f"{api}/{hashlib.sha256(caller.encode()).hexdigest()[:32]}"

    def _carried(self) -> Iterator[tuple[str, str | None]]:
        for name, values in self._headers.items():
            if name.startswith(ATTRIBUTE_PREFIX):
                yield from ((name.removeprefix(ATTRIBUTE_PREFIX), _decoded(value)) for value in values)

    def _header(self, name: str) -> str | None:
        return self._headers.get(name, [None])[-1]


class _Steps:
    """The deadline of each step of an invocation, so that later steps have time even if an earlier one hangs.

    Attributes:
        settle: carry out the event; its outcome may be recorded and published a little later.
        hand_over: send the event to the queue.
        give_up: give up an event that was not queued.
        answer: respond to the caller.
    """

    def __init__(self, deadline: Deadline) -> None:
        seconds = deadline.invocation_ends_at - deadline.now()

        def before_end(share: float, share_to_report: float) -> Deadline:
            at = deadline.invocation_ends_at - share * seconds
            return deadline._replace(at=at, report_seconds=share_to_report * seconds)

        self.settle = before_end(0.28, 0.18)
        self.hand_over = before_end(0.12, 0.12)
        self.give_up = before_end(0.04, 0.04)
        self.answer = before_end(0.03, 0.03)


@dataclass(eq=False, repr=False, kw_only=True)
class HttpTrigger(Trigger):
    """Handles ``POST /rename-events``."""

    queue: RenameQueue | None

    def handle(self, event: dict[str, Any], deadline: Deadline) -> dict[str, Any]:
        """Returns a proxy response."""
        steps = _Steps(deadline)
        responses = self.workers.run([lambda: self._respond(Request(event), steps)], steps.answer)
        return (responses[0] if responses else _unavailable(failures.no_time_left())).to_proxy()

    def _respond(self, request: Request, steps: _Steps) -> Response:
        if (problem := self._problem_of(request)) is not None:
            return problem
        event = self.policy.judge(self._parse(request), steps.settle)
        if request.is_dry_run:
            dry_run = self.rename_service.dry_run(event, steps.settle)
            self.telemetry.dry_run(dry_run, TRIGGER, caller=request.caller)
            status, headers = _status(event, dry_run.failure)
            return Response(status, BINARY, dry_run.to_json(), headers)
        queued, error = False, None
        result: Result = Unsettled(failures.respond_async_requested())
        if request.prefers_async:
            queued, error = self._hand_over(event, request, steps.hand_over)
        if not queued:
            result = self.rename_service.settle(event, steps.settle, TRIGGER)
            # The queue does not help if the key is rejected.
            if isinstance(result, Unsettled) and result.failure.kind is not Kind.ACCESS:
                queued, error = self._hand_over(event, request, steps.hand_over)
            if isinstance(result, Unsettled) and not queued:
                result = self.rename_service.give_up(event, result, steps.give_up, TRIGGER)
        self.telemetry.handled(event, result, TRIGGER, queued=queued, queue_error_code=error, caller=request.caller)
        return _queued(event, preferred=request.prefers_async) if queued else _response(event, result)

    def _problem_of(self, request: Request) -> Response | None:
        """Why the request is rejected before it is parsed."""
        if request.route != (METHOD, PATH):
            # A request with an unknown route is a defect of the API definition: an event is lost.
            self.telemetry.unexpected(None, http_route=" ".join(request.route))
            return _problem(HTTPStatus.NOT_FOUND, f"There is {METHOD} {PATH} and nothing else.")
        if request.media_type not in (STRUCTURED, BINARY):
            return _problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"Send {STRUCTURED} or {BINARY}.")
        if request.is_dry_run is None:
            return _problem(HTTPStatus.BAD_REQUEST, "dry_run is true or false, once. Nothing has been done.")
        return None

    def _parse(self, request: Request) -> ParsedEvent:
        try:
            text = request.body
        except ValueError:
            return self.parser.unreadable(request.raw_body, request.attributes, "is not base64 of UTF-8")
        structured = True if request.media_type == STRUCTURED else None
        return self.parser.parse(text, request.attributes, structured=structured, may_be_enveloped=False)

    def _hand_over(self, event: ParsedEvent, request: Request, deadline: Deadline) -> tuple[bool, str | None]:
        """Whether the queue took the event, and AWS's error code if it did not confirm it."""
        if self.queue is None or isinstance(event, InvalidEvent):
            return False, None
        error = self.queue.send(event, request.id or event.id, deadline)
        return error is None, error


def _response(event: ParsedEvent, result: Result) -> Response:
    if isinstance(result, Unsettled):
        return _unavailable(result.failure)
    status, headers = _status(event, result.failure)
    replayed = {"Idempotent-Replayed": "true"} if result.remembered else NO_HEADERS
    return Response(status, STRUCTURED, result.to_json(), {**headers, **replayed})


def _status(event: ParsedEvent, failure: Failure | None) -> tuple[int, Mapping[str, str]]:
    """The status and its headers."""
    if isinstance(event, InvalidEvent) and event.too_large:
        return HTTPStatus.REQUEST_ENTITY_TOO_LARGE, NO_HEADERS
    if failure is None:
        return HTTPStatus.OK, NO_HEADERS
    if failure.retryable and failure.kind is not Kind.ACCESS:
        seconds = math.ceil(failure.retry_after or RETRY_AFTER_SECONDS)
        return HTTPStatus.SERVICE_UNAVAILABLE, {"Retry-After": str(seconds)}
    return _STATUS_OF[failure.kind], NO_HEADERS


def _unavailable(failure: Failure) -> Response:
    detail = f"{failure.code}: the outcome could not be published. Send the event again."
    return _problem(HTTPStatus.SERVICE_UNAVAILABLE, detail, {"Retry-After": str(RETRY_AFTER_SECONDS)})


def _queued(event: ParsedEvent, *, preferred: bool) -> Response:
    body = to_json({"id": event.id, "source": event.source, "status": "queued"})
    return Response(202, BINARY, body, {"Preference-Applied": "respond-async"} if preferred else {})


def _problem(status: HTTPStatus, detail: str, headers: Mapping[str, str] = NO_HEADERS) -> Response:
    """Problem details (RFC 9457), for a request without a rename event that could be answered."""
    body = to_json({"type": "about:blank", "title": status.phrase, "status": status, "detail": detail})
    return Response(status, "application/problem+json", body, headers)


def _decoded(value: str) -> str | None:
    """As in the CloudEvents HTTP protocol binding, 3.1.3.2: unquoted, then percent-decoded. None if it is not text."""
    value = value.strip()
    if quoted := _QUOTED.fullmatch(value):
        value = re.sub(r"\\(.)", r"\1", quoted[1])
    try:
        return unquote(value, errors="strict") if value.isascii() else None
    except UnicodeDecodeError:
        return None

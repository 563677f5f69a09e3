"""From an API Gateway proxy event to a rename event, and from its result to an HTTP response.

What cannot be settled while the caller waits is handed to the queue, and answered with 202.
"""

import math
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, Final, Protocol
from urllib.parse import unquote

from aws_lambda_powertools.event_handler import APIGatewayRestResolver, Response
from aws_lambda_powertools.utilities.data_classes import APIGatewayProxyEvent

from function import failures
from function.deadline import Deadline
from function.events import Attributes, InvalidEvent, Outcome, Parser, RenameEvent, rfc3339, to_json
from function.failures import Kind
from function.rename import Renamer, Unsettled
from function.telemetry import Telemetry

TRIGGER: Final = "http"
PATH: Final = "/rename-events"
ATTRIBUTE_PREFIX: Final = "ce-"
STRUCTURED: Final = "application/cloudevents+json"
BINARY: Final = "application/json"
RETRY_AFTER_SECONDS: Final = 30

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
    """Where events go that cannot be settled now. False where it did not take the event."""

    def send(self, event: RenameEvent, deduplication_id: str, deadline: Deadline) -> bool: ...


class HttpTrigger:
    """Handles ``POST /rename-events``."""

    def __init__(self, parser: Parser, renamer: Renamer, telemetry: Telemetry, queue: RenameQueue | None) -> None:
        self._parser = parser
        self._renamer = renamer
        self._telemetry = telemetry
        self._queue = queue
        # Said outright: with POWERTOOLS_DEV in the environment the resolver would print every event.
        self._resolver = APIGatewayRestResolver(debug=False)
        self._resolver.post(PATH)(self._post)

    def handle(self, event: dict[str, Any], context: object, deadline: Deadline) -> dict[str, Any]:
        """Returns a proxy response."""
        self._resolver.context["deadline"] = deadline
        return dict(self._resolver.resolve(event, context))  # type: ignore[arg-type]

    def _post(self) -> Response[str]:
        request: APIGatewayProxyEvent = self._resolver.current_event
        deadline: Deadline = self._resolver.context["deadline"]
        media_type = (request.headers.get("content-type") or BINARY).partition(";")[0].strip().lower()
        if media_type not in (STRUCTURED, BINARY):
            return _problem(415, "Unsupported Media Type", f"Send {STRUCTURED} or {BINARY}.")
        attributes = _attributes(request)
        try:
            text = request.decoded_body or ""
        except ValueError:
            event: RenameEvent | InvalidEvent = self._parser.unreadable(
                request.body or "", attributes, "is not base64 of UTF-8"
            )
        else:
            event = self._parser.parse(
                text, attributes, deadline, structured=True if media_type == STRUCTURED else None
            )
        if isinstance(event, RenameEvent) and _prefers_async(request) and self._hand_over(event, request, deadline):
            self._telemetry.handled(event, Unsettled(failures.wanted_later()), TRIGGER, queued=True)
            return _queued(event, preferred=True)
        result = self._renamer.settle(event, deadline, TRIGGER)
        if isinstance(result, Unsettled):
            # A caller whose key is refused gets no better answer by waiting for the queue.
            if (
                isinstance(event, RenameEvent)
                and result.failure.kind is not Kind.ACCESS
                and self._hand_over(event, request, deadline)
            ):
                self._telemetry.handled(event, result, TRIGGER, queued=True)
                return _queued(event)
            result = self._renamer.give_up(event, result, deadline, TRIGGER)
        self._telemetry.handled(event, result, TRIGGER)
        return _response(event, result)

    def _hand_over(self, event: RenameEvent, request: APIGatewayProxyEvent, deadline: Deadline) -> bool:
        deduplication_id = request.request_context.request_id or event.id
        return self._queue is not None and self._queue.send(event, deduplication_id, deadline.to_report())


def _response(event: RenameEvent | InvalidEvent, result: Outcome | Unsettled) -> Response[str]:
    if isinstance(result, Unsettled):
        detail = f"{result.failure.code}: the outcome could not be published. Send the event again."
        return _problem(503, "Service Unavailable", detail, {"Retry-After": str(RETRY_AFTER_SECONDS)})
    status = HTTPStatus.OK
    headers = {}
    if result.failure is not None:
        status = _STATUS_OF[result.failure.kind]
        if result.failure.retryable and result.failure.kind is not Kind.ACCESS:
            status = HTTPStatus.SERVICE_UNAVAILABLE
            headers["Retry-After"] = str(math.ceil(result.failure.retry_after or RETRY_AFTER_SECONDS))
    if isinstance(event, InvalidEvent) and event.too_large:
        status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    return Response(status, STRUCTURED, result.to_json(), headers)


def _queued(event: RenameEvent, *, preferred: bool = False) -> Response[str]:
    body = to_json({"id": event.id, "source": event.source, "status": "queued"})
    return Response(202, BINARY, body, {"Preference-Applied": "respond-async"} if preferred else {})


def _problem(status: int, title: str, detail: str, headers: dict[str, str] | None = None) -> Response[str]:
    """Problem details by RFC 9457, for requests that hold no rename event to answer."""
    body = to_json({"type": "about:blank", "title": title, "status": status, "detail": detail})
    return Response(status, "application/problem+json", body, headers)


def _prefers_async(request: APIGatewayProxyEvent) -> bool:
    """By RFC 7240: in one header or several, each with preferences that may have parameters."""
    headers = request.multi_value_headers.get("prefer") or [request.headers.get("prefer") or ""]
    preferences = ",".join(headers).split(",")
    return any(preference.partition(";")[0].strip().lower() == "respond-async" for preference in preferences)


def _attributes(request: APIGatewayProxyEvent) -> Attributes:
    given = {
        name.lower().removeprefix(ATTRIBUTE_PREFIX): unquote(value)
        for name, value in request.headers.items()
        if name.lower().startswith(ATTRIBUTE_PREFIX)
    }
    context = request.request_context
    received = datetime.fromtimestamp(context.request_time_epoch / 1000, UTC)
    return Attributes(
        id=request.headers.get("idempotency-key") or context.request_id or "",
        source=context.api_id or "",
        time=rfc3339(received),
        given=given,
    )

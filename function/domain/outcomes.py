"""Outcome events and their ids, as in ``contract/outcome.schema.json``."""

import json
import re
import uuid
from typing import Any, Final, NamedTuple

from function.domain import failures
from function.domain.failures import Failure, Kind, Violation
from function.domain.model import FIRST_CYCLE, InvalidEvent, Outcome, ParsedEvent, RedriveCycle, RenameEvent
from function.domain.ports import Reply
from function.domain.service_calls import MAX_SERVICE_NAME, short_name
from function.domain.strict_json import to_ascii
from function.domain.violations import MAX_PATH

OUTCOME_SOURCE: Final = "vpcep.rename"
RENAMED: Final = "vpcep.endpoint_service.renamed.v1"
RENAME_FAILED: Final = "vpcep.endpoint_service.rename_failed.v1"
_OUTCOME_IDS: Final = uuid.UUID("0f7c8a52-3f5e-5a39-9d0d-6e0f6f1a7c11")
_SUBJECT: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")


def outcome_from_json(text: str) -> Outcome:
    """An outcome that the ledger stored with ``Outcome.to_json``."""
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


class OutcomeContext(NamedTuple):
    """What an outcome contains in addition to the result.

    Attributes:
        trigger: ``sqs`` or ``http``.
        region: the function's own, for an event that names none.
        project_id: the function's own, for an event that names none; None if unknown.
        attempts: calls of ``update_endpoint_service_name``.
        time: of the outcome (RFC 3339).
        cycle: which outcome of the event this is.
    """

    trigger: str
    region: str
    project_id: str | None
    attempts: int
    time: str
    cycle: RedriveCycle = FIRST_CYCLE


def renamed(event: RenameEvent, context: OutcomeContext, reply: Reply, previous_name: str | None = None) -> Outcome:
    """A success. Names are those that the API reported.

    Args:
        previous_name: left out if it is the new name, which an earlier invocation may have set for this event.
    """
    data = _data(event, context, reply.huawei_request_id) | {"service_name": (reply.name or "")[:MAX_SERVICE_NAME]}
    if previous_name is not None and short_name(previous_name) != event.endpoint_service_name:
        data["previous_service_name"] = previous_name[:MAX_SERVICE_NAME]
    identity = outcome_id(event, context.cycle)
    return Outcome(_cloud_event(RENAMED, event, context, data, identity), failure=None)


def rename_failed(event: ParsedEvent, context: OutcomeContext, failure: Failure) -> Outcome:
    """A failure, with the error code."""
    data = _data(event, context, failure.huawei_request_id) | {"error": describe_failure(failure)}
    if failure.superseded_by is not None:
        data["superseded_by"] = failure.superseded_by._asdict()
    if isinstance(event, InvalidEvent) or failure.code == failures.IDENTIFIER_REUSED:
        # Not recorded in the ledger. The id is derived from the content, so outcomes with the same id are equal, and a
        # corrected event, sent again with its old id, gets another outcome id.
        identity = _identity(event.source, event.id, context.time, to_ascii(data))
    else:
        identity = outcome_id(event, context.cycle)
    return Outcome(_cloud_event(RENAME_FAILED, event, context, data, identity), failure)


def describe_failure(failure: Failure) -> dict[str, Any]:
    """The ``error`` of an outcome."""
    return {
        "code": failure.code,
        "message": failure.message,
        "kind": failure.kind.value,
        "http_status": failure.http_status,
        "retryable": failure.retryable,
        "violations": [violation._asdict() for violation in failure.violations],
    }


def _data(event: ParsedEvent, context: OutcomeContext, huawei_request_id: str | None) -> dict[str, Any]:
    asked = requested_data(event)
    return {
        "request": event.cloud_event if isinstance(event, RenameEvent) else event.request,
        "project_id": asked.get("project_id") or context.project_id,
        "region": asked.get("region") or context.region,
        "vpc_endpoint_service_id": asked.get("vpc_endpoint_service_id"),
        "endpoint_service_name": asked.get("endpoint_service_name"),
        "attempts": context.attempts,
        "trigger": context.trigger,
        "huawei_request_id": huawei_request_id,
    } | ({"follows": context.cycle.follows} if context.cycle.follows else {})


def requested_data(event: ParsedEvent) -> dict[str, Any]:
    """The event's ``data``; of an invalid event only strings of up to ``MAX_PATH`` characters."""
    if isinstance(event, RenameEvent):
        asked: dict[str, Any] = event.cloud_event["data"]
        return asked
    data = event.request.get("data") if isinstance(event.request, dict) else None
    if not isinstance(data, dict):
        return {}
    return {field: value for field, value in data.items() if isinstance(value, str) and len(value) <= MAX_PATH}


def _cloud_event(
    outcome_type: str, event: ParsedEvent, context: OutcomeContext, data: dict[str, Any], identity: str
) -> dict[str, Any]:
    cloud_event = {
        "specversion": "1.0",
        "id": identity,
        "source": OUTCOME_SOURCE,
        "type": outcome_type,
        "time": context.time,
        "datacontenttype": "application/json",
    }
    if _SUBJECT.fullmatch(data["vpc_endpoint_service_id"] or ""):
        cloud_event["subject"] = data["vpc_endpoint_service_id"]
    if isinstance(event, RenameEvent) and "traceparent" in event.cloud_event:
        cloud_event["traceparent"] = event.cloud_event["traceparent"]
    return cloud_event | {"data": data}


def outcome_id(event: RenameEvent, cycle: RedriveCycle = FIRST_CYCLE) -> str:
    """The same for the same event, except that each redrive cycle has its own."""
    return _identity(event.source, event.id, *([cycle.number] if cycle.number else []))


def _identity(*parts: str | int) -> str:
    return str(uuid.uuid5(_OUTCOME_IDS, json.dumps(parts)))

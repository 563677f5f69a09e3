"""The peer: the same function as the documentation of its packages suggests it.

Renames endpoint services as rename events ask for, from SQS and from HTTP, and publishes an outcome for each.
"""

import json
import os
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import jsonschema
from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.event_handler import APIGatewayRestResolver, Response
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.batch import SqsFifoPartialProcessor, process_partial_response
from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord
from aws_lambda_powertools.utilities.idempotency import (
    DynamoDBPersistenceLayer,
    IdempotencyConfig,
    idempotent_function,
)
from aws_lambda_powertools.utilities.typing import LambdaContext
from huaweicloudsdkcore.auth.credentials import BasicCredentials
from huaweicloudsdkcore.exceptions.exceptions import SdkException, ServiceResponseException
from huaweicloudsdkvpcep.v1 import (
    ListServiceDetailsRequest,
    UpdateEndpointServiceNameRequest,
    UpdateEndpointServiceNameRequestBody,
    VpcepClient,
)
from huaweicloudsdkvpcep.v1.region.vpcep_region import VpcepRegion

RENAME_REQUESTED = "vpcep.endpoint_service.rename_requested.v1"
RENAMED = "vpcep.endpoint_service.renamed.v1"
RENAME_FAILED = "vpcep.endpoint_service.rename_failed.v1"
OUTCOME_SOURCE = "vpcep.rename"
OUTCOME_IDS = uuid.UUID("6f2b8f0e-4a63-5c4e-9d55-0a7a6c1f2b11")
KIND_OF_STATUS = {401: "access", 403: "access", 404: "not_found", 409: "conflict", 429: "throttled"}
TOO_MANY_REQUESTS, SERVER_ERROR = 429, 500
RETENTION_SECONDS = 35 * 24 * 3600
SCHEMA = json.loads((Path(__file__).parent / "rename-event.schema.json").read_text())

REGION = os.environ["HUAWEICLOUD_REGION"]
PROJECT_ID = os.environ["HUAWEICLOUD_SDK_PROJECT_ID"]
OUTCOME_BUS = os.environ["OUTCOME_BUS"]
MAX_RECEIVES = int(os.environ.get("MAX_RECEIVES", "12"))

logger = Logger()
metrics = Metrics()
app = APIGatewayRestResolver()
processor = SqsFifoPartialProcessor(skip_group_on_error=True)
persistence = DynamoDBPersistenceLayer(table_name=os.environ["LEDGER_TABLE"])
idempotency = IdempotencyConfig(
    event_key_jmespath="[source, id]",
    payload_validation_jmespath="data",
    raise_on_no_idempotency_key=True,
    expires_after_seconds=RETENTION_SECONDS,
)
events = boto3.client("events")
vpcep = (
    VpcepClient.new_builder()
    .with_credentials(BasicCredentials(os.environ["HUAWEICLOUD_SDK_AK"], os.environ["HUAWEICLOUD_SDK_SK"], PROJECT_ID))
    .with_region(VpcepRegion.value_of(REGION))
    .build()
)


class NotSettledError(Exception):
    """The rename may succeed later; carries the failure outcome to publish should nobody try again."""

    def __init__(self, outcome: dict[str, Any]) -> None:
        super().__init__(outcome["data"]["error"]["code"])
        self.outcome = outcome


class NotPublishedError(Exception):
    """EventBridge did not take the outcome."""


@idempotent_function(  # type: ignore[untyped-decorator]
    data_keyword_argument="event", persistence_store=persistence, config=idempotency
)
def settle(event: dict[str, Any], trigger: str) -> dict[str, Any]:
    """Rename, publish the outcome and return it. Raises NotSettledError where another try may help."""
    try:
        outcome = rename(event, trigger)
    except ServiceResponseException as error:
        status = error.status_code
        outcome = failed(
            event,
            trigger,
            error.error_code,
            error.error_msg,
            KIND_OF_STATUS.get(status, "unavailable" if status >= SERVER_ERROR else "invalid"),
            retryable=status >= SERVER_ERROR or status == TOO_MANY_REQUESTS,
            http_status=status,
            request_id=error.request_id,
        )
    except SdkException as error:
        outcome = failed(event, trigger, "Rename.ConnectionFailed", error.error_msg, "unavailable", retryable=True)
    if outcome["data"].get("error", {}).get("retryable"):
        raise NotSettledError(outcome)
    publish(outcome)
    return outcome


def rename(event: dict[str, Any], trigger: str) -> dict[str, Any]:
    data = event["data"]
    service_id, name = data["vpc_endpoint_service_id"], data["endpoint_service_name"]
    if "expected_name" in data:
        details = vpcep.list_service_details(ListServiceDetailsRequest(vpc_endpoint_service_id=service_id))
        if short_name(details.service_name) not in (data["expected_name"], name):
            return failed(event, trigger, "Rename.PreconditionFailed", "The service has another name.", "conflict")
    reply = vpcep.update_endpoint_service_name(
        UpdateEndpointServiceNameRequest(
            vpc_endpoint_service_id=service_id,
            body=UpdateEndpointServiceNameRequestBody(endpoint_service_name=name),
        )
    )
    if short_name(reply.endpoint_service_name) != name:
        message = "The reply does not name the new name."
        return failed(event, trigger, "Rename.UnconfirmedReply", message, "unavailable", retryable=True)
    return outcome_of(event, trigger, RENAMED, {"service_name": reply.endpoint_service_name})


def short_name(service_name: str | None) -> str | None:
    """The name within a full service name, `region.name.id`."""
    return service_name.split(".")[1] if service_name and "." in service_name else service_name


def failed(
    event: dict[str, Any],
    trigger: str,
    code: str,
    message: str,
    kind: str,
    *,
    retryable: bool = False,
    http_status: int | None = None,
    request_id: str | None = None,
    violations: Sequence[dict[str, str]] = (),
) -> dict[str, Any]:
    error = {
        "code": code,
        "message": message,
        "kind": kind,
        "http_status": http_status,
        "retryable": retryable,
        "violations": list(violations),
    }
    return outcome_of(event, trigger, RENAME_FAILED, {"huawei_request_id": request_id, "error": error})


def outcome_of(event: dict[str, Any], trigger: str, outcome_type: str, result: dict[str, Any]) -> dict[str, Any]:
    data = event.get("data") or {}
    service_id = data.get("vpc_endpoint_service_id")
    return {
        "specversion": "1.0",
        "id": str(uuid.uuid5(OUTCOME_IDS, json.dumps([event.get("source"), event.get("id")]))),
        "source": OUTCOME_SOURCE,
        "type": outcome_type,
        "time": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "datacontenttype": "application/json",
        **({"subject": service_id} if service_id else {}),
        "data": {
            "request": event,
            "project_id": PROJECT_ID,
            "region": REGION,
            "vpc_endpoint_service_id": service_id,
            "endpoint_service_name": data.get("endpoint_service_name"),
            "attempts": 1,
            "trigger": trigger,
            "huawei_request_id": None,
            **result,
        },
    }


def publish(outcome: dict[str, Any]) -> None:
    reply = events.put_events(
        Entries=[
            {
                "EventBusName": OUTCOME_BUS,
                "Source": OUTCOME_SOURCE,
                "DetailType": outcome["type"],
                "Detail": json.dumps(outcome),
            }
        ]
    )
    if reply["FailedEntryCount"]:
        raise NotPublishedError(reply["Entries"][0]["ErrorCode"])


def structured(text: str, attributes: Mapping[str, str]) -> dict[str, Any]:
    """The event in structured mode, whichever mode it came in. Raises ValidationError."""
    try:
        content = json.loads(text)
    except ValueError:
        raise jsonschema.ValidationError("must be JSON") from None
    if isinstance(content, dict) and "specversion" not in content:
        content = {"specversion": "1.0", "type": RENAME_REQUESTED, **attributes, "data": content}
    jsonschema.validate(content, SCHEMA)
    return dict(content)


def refuse(text: str, attributes: Mapping[str, str], trigger: str, error: jsonschema.ValidationError) -> dict[str, Any]:
    """Publish that the event is invalid."""
    path = "".join(f"/{part}" for part in error.absolute_path)
    violations = [{"path": path, "message": error.message}]
    outcome = failed({**attributes}, trigger, "Rename.InvalidEvent", error.message, "invalid", violations=violations)
    outcome["data"] |= {"request": text, "attempts": 0}
    publish(outcome)
    return outcome


def report(outcome: dict[str, Any]) -> None:
    error = outcome["data"].get("error", {})
    logger.info(
        "rename event handled",
        extra={
            "outcome_id": outcome["id"],
            "vpc_endpoint_service_id": outcome.get("subject"),
            "error_code": error.get("code"),
            "huawei_request_id": outcome["data"]["huawei_request_id"],
        },
    )
    metrics.add_metric("RenameFailed" if error else "Renamed", MetricUnit.Count, 1)


def handle_record(record: SQSRecord) -> None:
    sent = datetime.fromtimestamp(int(record.attributes.sent_timestamp) / 1000, UTC)
    given = record.message_attributes.items()
    attributes = {
        "id": record.message_id,
        "source": record.event_source_arn,
        "time": sent.isoformat(),
        **{name[3:]: value.get("stringValue") or "" for name, value in given if name.startswith("ce_")},
    }
    try:
        outcome = settle(event=structured(record.body, attributes), trigger="sqs")
    except jsonschema.ValidationError as error:
        outcome = refuse(record.body, attributes, "sqs", error)
    except NotSettledError as error:
        logger.warning("rename event not settled", extra={"error_code": str(error)})
        if int(record.attributes.approximate_receive_count) >= MAX_RECEIVES:
            publish(error.outcome)
        raise
    report(outcome)


@app.post("/rename-events")
def post_rename_event() -> Response[str]:
    request = app.current_event
    context = request.request_context
    received = datetime.fromtimestamp(context.request_time_epoch / 1000, UTC)
    attributes = {
        "id": request.headers.get("idempotency-key") or context.request_id,
        "source": context.api_id,
        "time": received.isoformat(),
        **{name.lower()[3:]: value for name, value in request.headers.items() if name.lower().startswith("ce-")},
    }
    text = request.decoded_body or ""
    status, headers = 200, {}
    try:
        outcome = settle(event=structured(text, attributes), trigger="http")
    except jsonschema.ValidationError as error:
        outcome = refuse(text, attributes, "http", error)
    except NotSettledError as error:
        outcome = error.outcome
        publish(outcome)
        status, headers = 503, {"Retry-After": "30"}
    report(outcome)
    if status == 200 and "error" in outcome["data"]:
        status = outcome["data"]["error"]["http_status"] or 400
    return Response(status, "application/cloudevents+json", json.dumps(outcome), headers)


@logger.inject_lambda_context
@metrics.log_metrics
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    idempotency.register_lambda_context(context)
    if "Records" in event:
        return dict(
            process_partial_response(event=event, record_handler=handle_record, processor=processor, context=context)
        )
    return app.resolve(event, context)

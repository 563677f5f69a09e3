"""openapi.yaml and asyncapi.yaml against the schemas, the code, the template and the samples."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

import pytest
from jsonschema import Draft202012Validator
from schemathesis.specs.openapi.definitions import OPENAPI_30_VALIDATOR, OPENAPI_31_VALIDATOR

from function.adapters.huawei.error_codes import from_reply
from function.domain.event_parser import MAX_EVENT_BYTES, RENAME_REQUESTED
from function.domain.failures import Kind
from function.domain.outcomes import OUTCOME_SOURCE, RENAME_FAILED, RENAMED
from function.domain.ports import Known
from function.triggers import http, sqs
from tests.contract.documents import (
    ASYNCAPI,
    BASE,
    CONTRACT,
    DOCUMENTS,
    OPENAPI,
    REGISTRY,
    load,
    members,
    references,
    validator,
)
from tests.contract.test_contract import ENVELOPES, INVALID, NO_JSON, OUTCOMES, SCHEMAS, VALID, VALID_DATA, sample
from tests.fakes.endpoint_services import CountingServices
from tests.fakes.events import HttpReply, http_request
from tests.fakes.failures import throttled
from tests.fakes.identifiers import HUAWEI_REQUEST_ID, SERVICE, START
from tests.fakes.world import World
from tests.template import RESOURCES, ROOT

# The shape of a reply alone: no event has it.
DRY_RUN: Final = "dry-run.schema.json"
Reply = tuple[int, str]


OPERATION: Final = OPENAPI["paths"][http.PATH]["post"]
RESPONSES: Final = {int(status): response for status, response in OPERATION["responses"].items()}
MESSAGES: Final = ASYNCAPI["components"]["messages"]


# ---- Both documents


def test_each_file_of_the_contract_is_known_to_these_tests() -> None:
    assert {path.name for path in CONTRACT.iterdir()} == {*DOCUMENTS, *SCHEMAS, DRY_RUN}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_each_reference_of_a_contract_document_resolves(name: str) -> None:
    resolver = REGISTRY.resolver(BASE + name)

    assert all(resolver.lookup(reference).contents for reference in references(DOCUMENTS[name]))


@pytest.mark.parametrize("name", DOCUMENTS)
def test_contract_document_refers_to_every_schema(name: str) -> None:
    assert {reference.partition("#")[0] for reference in references(DOCUMENTS[name])} - {"", DRY_RUN} == set(SCHEMAS)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_contract_document_repeats_no_field_of_an_event(name: str) -> None:
    """It holds no name of a field of `data`."""
    fields = {*load("rename-event.schema.json")["$defs"]["data"]["properties"], "attempts", "huawei_request_id"}

    assert not [field for field in fields if field in json.dumps(DOCUMENTS[name]["components"])]


# ---- OpenAPI: the document itself


def test_openapi_document_is_valid_openapi_3_0() -> None:
    assert OPENAPI["openapi"].startswith("3.0.")
    assert [error.message for error in OPENAPI_30_VALIDATOR.iter_errors(OPENAPI)] == []


def test_openapi_document_is_valid_openapi_3_1() -> None:
    assert [error.message for error in OPENAPI_31_VALIDATOR.iter_errors(OPENAPI | {"openapi": "3.1.0"})] == []
    for _, name, value in members(OPENAPI):
        for schema in [value] if name == "schema" else value.values() if name == "schemas" else []:
            Draft202012Validator.check_schema(schema)
    # Of 3.0 alone, and no error in 3.1.
    assert "nullable" not in json.dumps(OPENAPI)


def test_openapi_document_refers_to_files_only_in_schemas_that_the_template_replaces() -> None:
    replaced = OPENAPI["components"]["schemas"]
    elsewhere = OPENAPI | {"components": OPENAPI["components"] | {"schemas": {}}}

    assert {reference.partition("#")[0] for reference in references(replaced)} == {*SCHEMAS, DRY_RUN}
    assert set(references(elsewhere)) == {f"#/components/schemas/{name}" for name in replaced}


def test_template_includes_the_openapi_document_as_definition_of_the_api() -> None:
    body = RESOURCES["RenameApi"]["Properties"]["DefinitionBody"]

    assert body["Fn::Transform"]["Name"] == "AWS::Include"
    assert ROOT / body["Fn::Transform"]["Parameters"]["Location"] == CONTRACT / "openapi.yaml"
    assert body["definitions"] == {name: {"type": "object"} for name in OPENAPI["components"]["schemas"]}
    assert body.keys() == {"Fn::Transform", "definitions", "securityDefinitions"}


def test_api_passes_invalid_events_on_to_the_function() -> None:
    assert "request-validator" not in json.dumps(OPENAPI)
    assert OPERATION["x-amazon-apigateway-integration"]["type"] == "aws_proxy"


def test_api_requires_a_signature() -> None:
    assert OPENAPI["components"]["securitySchemes"]["sigv4"]["x-amazon-apigateway-authtype"] == "awsSigv4"
    assert OPERATION["security"] == [{"sigv4": []}, {"api_key": [], "sigv4": []}]


# ---- OpenAPI: requests


def request_validator(media_type: str) -> Draft202012Validator:
    return validator("openapi.yaml", OPERATION["requestBody"]["content"][media_type]["schema"])


def test_documented_media_types_of_requests_are_those_that_the_function_takes() -> None:
    assert OPERATION["requestBody"]["content"].keys() == {http.STRUCTURED, http.BINARY}


def test_documented_headers_are_those_that_the_function_reads() -> None:
    names = {parameter["name"] for parameter in OPERATION["parameters"] if parameter["in"] == "header"}

    assert {name for name in names if not name.startswith(http.ATTRIBUTE_PREFIX)} == {"Prefer", "Idempotency-Key"}
    assert {name.removeprefix(http.ATTRIBUTE_PREFIX) for name in names} >= {"id", "source", "time"}


@pytest.mark.parametrize("name", [*VALID, *sorted(INVALID.keys() - {"invalid-duplicate-key.json"})])
@pytest.mark.parametrize("media_type", [http.STRUCTURED, http.BINARY])
def test_sample_of_an_event_is_a_documented_request_exactly_if_it_is_valid(name: str, media_type: str) -> None:
    assert request_validator(media_type).is_valid(json.loads(sample(name))) == (name in VALID)


@pytest.mark.parametrize("name", VALID_DATA)
def test_sample_of_data_alone_is_a_documented_request_in_binary_mode_only(name: str) -> None:
    assert request_validator(http.BINARY).is_valid(json.loads(sample(name)))
    assert not request_validator(http.STRUCTURED).is_valid(json.loads(sample(name)))


# ---- OpenAPI: replies


# A moment after the times of the samples.
RECEIVED: Final = datetime(2026, 11, 2, 8, 20, 1, 250_000, UTC)
UNAVAILABLE: Final = ("EndPoint.0001", "System error.", 500)


def request(text: str, media_type: str = http.STRUCTURED, **headers: str) -> dict[str, Any]:
    request = http_request(text, headers={"Content-Type": media_type} | headers)
    request["requestContext"]["requestTimeEpoch"] = int(RECEIVED.timestamp() * 1000)
    return request


def sent(world: World, name: str = "rename-structured.json", **headers: str) -> HttpReply:
    return world.http(request(sample(name), **headers))


def refused(world: World, code: str, message: str, status: int, name: str = "rename-structured.json") -> HttpReply:
    refuse(world, code, message, status)
    return sent(world, name)


def refuse(world: World, code: str, message: str, status: int) -> None:
    failure = from_reply(code, message, status=status, huawei_request_id=HUAWEI_REQUEST_ID)
    world.services.refuse(failure, times=None)


def renamed(world: World) -> HttpReply:
    world.services = CountingServices(name="billing")  # type: ignore[assignment]
    return sent(world)


def precondition_failed(world: World) -> HttpReply:
    world.services.names[SERVICE] = "shop"
    return sent(world, "rename-with-precondition.json")


def too_large(world: World) -> HttpReply:
    reply = world.http(request(sample("rename-structured.json") + " " * MAX_EVENT_BYTES))
    reply.body["data"]["request"] = reply.body["data"]["request"].rstrip()  # what is left of it is no example
    return reply


def given_up(world: World) -> HttpReply:
    refuse(world, *UNAVAILABLE)
    return world.http(request(sample("rename-structured.json")), with_queue=False)


def unpublished(world: World) -> HttpReply:
    world.bus.refuse()
    return sent(world, "invalid-name.json")


def dry_run(
    world: World, event: str = "rename-structured.json", *, named: str = "billing", value: str = "true"
) -> HttpReply:
    world.services.names[SERVICE] = named
    return world.http(request(sample(event)) | {"queryStringParameters": {"dry_run": value}})


def dry_run_of_a_settled_event(world: World) -> HttpReply:
    sent(world)
    world.ledger.at_claim.append(Known(world.bus.outcomes[0], None))
    return dry_run(world, named="orders")


def dry_run_of_a_throttled_service(world: World) -> HttpReply:
    world.services.refuse(throttled(20.0), on="read", times=None)
    return dry_run(world)


# By their names in http-replies.json.
REPLIES: Final[dict[str, Callable[[World], HttpReply]]] = {
    "renamed": renamed,
    "queued": lambda world: refused(world, *UNAVAILABLE),
    "queued-as-asked": lambda world: sent(world, Prefer="respond-async"),
    "invalid": lambda world: sent(world, "invalid-name.json"),
    "several-violations": lambda world: sent(world, "invalid-several-violations.json"),
    "key-refused": lambda world: refused(world, "APIGW.0301", "Incorrect IAM authentication information.", 401),
    "no-such-service": lambda world: refused(
        world, "EndPoint.2003", "The VPC endpoint service does not exist.", 400, "unknown-service.json"
    ),
    "state-conflict": lambda world: refused(world, "EndPoint.3045", "The service cannot be modified now.", 400),
    "precondition-failed": precondition_failed,
    "too-large": too_large,
    "another-type": lambda world: world.http(request("orders", "text/plain")),
    "defect": lambda world: refused(world, "EndPoint.0011", "The request has no body.", 504),
    "given-up": given_up,
    "not-published": unpublished,
    "dry-run": dry_run,
    "dry-run-unchanged": lambda world: dry_run(world, named="orders"),
    "dry-run-settled": dry_run_of_a_settled_event,
    "dry-run-invalid": lambda world: dry_run(world, "invalid-name.json"),
    "dry-run-no-such-service": lambda world: dry_run(world, "unknown-service.json"),
    "dry-run-precondition-failed": lambda world: dry_run(world, "rename-with-precondition.json", named="shop"),
    "dry-run-would-be-queued": dry_run_of_a_throttled_service,
    "dry-run-or-not": lambda world: dry_run(world, value="yes"),
}


def reply(name: str) -> HttpReply:
    world = World()
    world.clock.seconds = (RECEIVED - START).total_seconds()
    return REPLIES[name](world)


# What API Gateway answers by itself: https://docs.aws.amazon.com/apigateway/latest/developerguide/supported-gateway-response-types.html
OF_API_GATEWAY: Final[set[Reply]] = {(status, http.BINARY) for status in (403, 413, 429, 500, 502, 504)}


def undocumented(reply: HttpReply) -> list[str]:
    """How the reply breaks the document."""
    response = RESPONSES.get(reply.status)
    if response is None:
        return [f"status {reply.status}"]
    content_type = reply.headers["content-type"]
    if content_type not in response["content"]:
        return [f"content type {content_type}"]
    content = validator("openapi.yaml", response["content"][content_type]["schema"])
    found = [error.message for error in content.iter_errors(reply.body)]
    documented = {name.lower(): header for name, header in response.get("headers", {}).items()}
    found += [f"header {name}" for name in reply.headers.keys() - documented.keys() - {"content-type"}]
    for name, header in documented.items():
        if header.get("required") and name not in reply.headers:
            found.append(f"no header {name}")
        elif name in reply.headers and header["schema"]["type"] == "integer":
            found += [e.message for e in validator("", header["schema"]).iter_errors(int(reply.headers[name]))]
    return found


@pytest.mark.parametrize("name", REPLIES)
def test_sample_of_a_reply_is_the_reply_of_the_function(name: str) -> None:
    assert json.loads(sample("http-replies.json"))[name] == reply(name)._asdict()


@pytest.mark.parametrize("name", sorted(json.loads(sample("http-replies.json")).keys() - REPLIES.keys()))
def test_any_other_sample_of_a_reply_is_a_documented_one_of_api_gateway(name: str) -> None:
    of_api_gateway = HttpReply(**json.loads(sample("http-replies.json"))[name])

    assert (of_api_gateway.status, of_api_gateway.headers["content-type"]) in OF_API_GATEWAY
    assert undocumented(of_api_gateway) == []


@pytest.mark.parametrize("name", REPLIES)
def test_reply_of_the_function_is_documented(name: str) -> None:
    assert undocumented(reply(name)) == []


def test_each_documented_reply_is_given_by_the_function_or_by_api_gateway() -> None:
    documented = {(status, content_type) for status, reply in RESPONSES.items() for content_type in reply["content"]}
    replies = [reply(name) for name in REPLIES]

    assert documented == {(given.status, given.headers["content-type"]) for given in replies} | OF_API_GATEWAY


def test_every_kind_of_failure_has_a_documented_status() -> None:
    assert http._STATUS_OF.keys() == set(Kind)
    assert set(http._STATUS_OF.values()) <= RESPONSES.keys()


def test_events_document_has_the_statuses_of_the_openapi_document() -> None:
    page = (ROOT / "docs/events.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ((?:[2-5][0-9]{2}(?:, )?)+) \|", page, re.MULTILINE)

    assert sorted(int(status) for row in rows for status in row.split(", ")) == sorted(RESPONSES)


@pytest.mark.parametrize(
    ("reply", "found"),
    [
        (HttpReply(418, {"content-type": http.STRUCTURED}, {}), "status 418"),
        (HttpReply(200, {"content-type": "text/plain"}, {}), "content type text/plain"),
        (HttpReply(200, {"content-type": http.STRUCTURED}, {}), "'id' is a required property"),
        (HttpReply(200, {"content-type": http.STRUCTURED}, json.loads(sample(OUTCOMES[1]))), "is not one of"),
        (HttpReply(404, {"content-type": http.STRUCTURED}, json.loads(sample(OUTCOMES[0]))), "is not one of"),
        (HttpReply(202, {"content-type": http.BINARY}, {"id": "1", "source": "/", "status": "done"}), "'done'"),
        (HttpReply(503, {"content-type": http.STRUCTURED}, {}), "no header retry-after"),
        (HttpReply(503, {"content-type": http.STRUCTURED, "retry-after": "0"}, {}), "0 is less than"),
        (HttpReply(202, {"content-type": http.BINARY, "location": "/"}, {}), "header location"),
    ],
)
def test_reply_that_is_not_documented_is_found(reply: HttpReply, found: str) -> None:
    assert any(found in message for message in undocumented(reply))


# ---- AsyncAPI


def payload_validator(message: str) -> Draft202012Validator:
    payload = MESSAGES[message]["payload"]
    assert payload["schemaFormat"] == "application/schema+json;version=draft-2020-12"
    return validator("asyncapi.yaml", payload["schema"])


def test_asyncapi_document_receives_from_the_queue_and_sends_to_the_bus() -> None:
    assert ASYNCAPI["asyncapi"] == "3.0.0"
    directions = {o["channel"]["$ref"]: o["action"] for o in ASYNCAPI["operations"].values()}

    assert directions == {"#/channels/renameQueue": "receive", "#/channels/outcomeBus": "send"}


def test_asyncapi_operation_has_every_message_of_its_channel() -> None:
    for operation in ASYNCAPI["operations"].values():
        channel = operation["channel"]["$ref"]
        messages = ASYNCAPI["channels"][channel.rpartition("/")[2]]["messages"]

        assert [message["$ref"] for message in operation["messages"]] == [f"{channel}/messages/{m}" for m in messages]


def test_asyncapi_channel_has_the_settings_of_the_queue_in_the_template() -> None:
    channels, queue = ASYNCAPI["channels"], RESOURCES["RenameQueue"]["Properties"]
    documented = channels["renameQueue"]["bindings"]["sqs"]["queue"]

    assert [channel["address"] for channel in channels.values()] == [None, None]
    assert documented == {
        "name": "RenameQueue",
        "fifoQueue": queue["FifoQueue"],
        "deduplicationScope": queue["DeduplicationScope"],
        "fifoThroughputLimit": queue["FifoThroughputLimit"],
    }


def test_asyncapi_messages_have_the_types_of_their_events_as_names() -> None:
    assert {key: message["name"] for key, message in MESSAGES.items()} == {
        "renameEvent": RENAME_REQUESTED,
        "renameEventData": RENAME_REQUESTED,
        "snsNotification": "Notification",
        "eventBridgeEvent": "EventBridge event",
        "renamed": RENAMED,
        "renameFailed": RENAME_FAILED,
    }


def test_asyncapi_message_attributes_are_those_that_the_function_reads() -> None:
    names = MESSAGES["renameEventData"]["headers"]["properties"]

    assert set(names) == {f"{sqs.ATTRIBUTE_PREFIX}{attribute}" for attribute in ("id", "source", "time")}


@pytest.mark.parametrize("message", ["renamed", "renameFailed"])
def test_asyncapi_outcome_has_source_and_type_of_its_entry_on_the_bus(message: str) -> None:
    entry = MESSAGES[message]["x-eventbridge"]

    assert entry == {"source": OUTCOME_SOURCE, "detail-type": MESSAGES[message]["name"]}


@pytest.mark.parametrize(
    ("message", "samples"),
    [
        ("renameEvent", VALID),
        ("renameEventData", VALID_DATA),
        ("snsNotification", ("rename-in-sns.json",)),
        ("eventBridgeEvent", ("rename-in-eventbridge.json",)),
        ("renamed", ("outcome-renamed.json",)),
        ("renameFailed", ("outcome-failed.json",)),
    ],
)
def test_asyncapi_message_takes_its_samples_and_no_other(message: str, samples: tuple[str, ...]) -> None:
    all_of_json = {*VALID, *VALID_DATA, *ENVELOPES, *OUTCOMES, *INVALID} - {*NO_JSON, "invalid-duplicate-key.json"}
    payload = payload_validator(message)

    assert {name for name in all_of_json if payload.is_valid(json.loads(sample(name)))} == set(samples)

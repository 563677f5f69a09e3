"""The deployed HTTP API against openapi.yaml: defined by it, and tested against it by schemathesis."""

import json
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
import requests
import schemathesis
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from requests.auth import AuthBase
from schemathesis import Case, GenerationMode, Response
from schemathesis.checks import (
    content_type_conformance,
    not_a_server_error,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.contract.documents import CONTRACT, OPENAPI, references
from tests.integration.observer import RENAMED, a_rename, a_service, outcome_of
from tests.localcloud.stack import Clouds, rename_event

STRUCTURED = "application/cloudevents+json"
BINARY = "application/json"
DOCUMENTED = [
    *(status_code_conformance, content_type_conformance),
    *(response_headers_conformance, response_schema_conformance),
]
# The API takes twenty requests a second.
SECONDS_A_REQUEST = 0.055

# By 3.1 the schemas are JSON Schema 2020-12, which they are; API Gateway does not take that version.
SCHEMA = schemathesis.openapi.from_dict(OPENAPI | {"openapi": "3.1.0"})
SCHEMA.location = (CONTRACT / "openapi.yaml").as_uri()
OPERATION = SCHEMA["/rename-events"]["POST"]


class Signed(AuthBase):
    """As the producer."""

    def __init__(self, clouds: Clouds) -> None:
        self._clouds = clouds

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        signed = AWSRequest(request.method, request.url, headers={}, data=request.body)
        SigV4Auth(self._clouds.producer, "execute-api", self._clouds.aws.region).add_auth(signed)
        request.headers.update(signed.headers.items())
        return request


def call(clouds: Clouds, case: Case[Any], *, headers: dict[str, str] | None = None, signed: bool = True) -> Response:
    base_url = clouds.rename_api_url.removesuffix("/rename-events")
    auth = Signed(clouds) if signed else None
    return case.call(base_url=base_url, headers=headers, auth=auth, verify=str(clouds.aws.ca))


@pytest.mark.parametrize(
    ("mode", "answers"), [(GenerationMode.POSITIVE, {200, 400, 404}), (GenerationMode.NEGATIVE, {400})]
)
def test_generated_requests_have_documented_replies(clouds: Clouds, mode: GenerationMode, answers: set[int]) -> None:
    services = [a_service(clouds), str(uuid.UUID(int=0))]
    seen = set()

    @settings(
        max_examples=60,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=OPERATION.as_strategy(generation_mode=mode), number=st.sampled_from([0, 1, None]))
    def run(case: Case[Any], number: int | None) -> None:
        if mode is GenerationMode.POSITIVE and number is not None:
            make_valid(case.body, services[number])
        started = time.monotonic()
        response = call(clouds, case)
        seen.add(response.status_code)
        case.validate_response(response, checks=[not_a_server_error, *DOCUMENTED])
        time.sleep(max(0, started + SECONDS_A_REQUEST - time.monotonic()))

    run()

    assert seen >= answers


def make_valid(body: Any, service_id: str) -> None:
    """Make right what no schema says: the time, what settings allow, and the service."""
    if "data_base64" in body:
        body["data"] = {"endpoint_service_name": "orders"}
        del body["data_base64"]
    data = body.get("data", body)
    data["vpc_endpoint_service_id"] = service_id
    for setting in ("project_id", "region", "expected_name"):
        data.pop(setting, None)
    if data is not body:
        body["time"] = rename_event(service_id, "")["time"]


# ---- Replies that no generated request gets


@pytest.mark.parametrize("media_type", [STRUCTURED, BINARY])
def test_valid_request_has_a_documented_200(clouds: Clouds, media_type: str) -> None:
    event = a_rename(clouds)
    case = a_case(event if media_type == STRUCTURED else event["data"], media_type)

    assert documented(case, call(clouds, case)) == (200, STRUCTURED)


def test_request_that_prefers_respond_async_has_a_documented_202_and_is_queued(clouds: Clouds) -> None:
    event = a_rename(clouds)
    case = a_case(event, headers={"Prefer": "respond-async"})

    response = call(clouds, case)

    assert documented(case, response) == (202, BINARY)
    assert response.headers["preference-applied"] == ["respond-async"]
    assert response.json() == {"id": event["id"], "source": event["source"], "status": "queued"}
    outcome = outcome_of(clouds, event)
    assert (outcome["type"], outcome["data"]["trigger"]) == (RENAMED, "sqs")


@pytest.mark.parametrize(
    ("attributes", "options", "reply"),
    [
        ({}, {"signed": False}, (403, BINARY)),
        ({"text": "x" * 300_000}, {}, (413, STRUCTURED)),
        ({}, {"headers": {"content-type": "text/plain"}}, (415, "application/problem+json")),
    ],
    ids=["no signature", "too large", "another media type"],
)
def test_refused_request_has_a_documented_reply(
    clouds: Clouds, attributes: dict[str, Any], options: dict[str, Any], reply: tuple[int, str]
) -> None:
    case = a_case(a_rename(clouds) | attributes)

    assert documented(case, call(clouds, case, **options)) == reply
    assert clouds.huawei.calls == []


def test_throttled_request_has_a_documented_429(clouds: Clouds) -> None:
    case = a_case(a_rename(clouds))

    with throttled(clouds):
        assert documented(case, call(clouds, case)) == (429, BINARY)
    assert clouds.huawei.calls == []


def test_request_whose_outcome_cannot_be_published_has_a_documented_503(clouds: Clouds) -> None:
    # An invalid event is not handed over.
    case = a_case(rename_event("..", "orders"))

    with clouds.without("RenameFromHttp", "events:PutEvents"):
        assert documented(case, call(clouds, case)) == (503, "application/problem+json")


def a_case(event: dict[str, Any], media_type: str = STRUCTURED, headers: Mapping[str, str] | None = None) -> Case[Any]:
    return OPERATION.Case(body=event, media_type=media_type, headers=dict(headers or {}))


def documented(case: Case[Any], response: Response) -> tuple[int, str]:
    """Status and content type of the reply, which must be a documented one."""
    case.validate_response(response, checks=DOCUMENTED)
    return response.status_code, response.headers["content-type"][0]


@contextmanager
def throttled(clouds: Clouds) -> Iterator[None]:
    """For a while the API takes nothing."""
    apis, api_id = clouds.aws.client("apigateway"), clouds.stack.resources["RenameApi"]
    [settings] = apis.get_stage(restApiId=api_id, stageName="v1")["methodSettings"].values()

    def limit(rate: float, burst: int) -> None:
        patch = {"rateLimit": rate, "burstLimit": burst}
        operations = [
            {"op": "replace", "path": f"/*/*/throttling/{name}", "value": str(value)} for name, value in patch.items()
        ]
        apis.update_stage(restApiId=api_id, stageName="v1", patchOperations=operations)

    limit(0, 0)
    try:
        yield
    finally:
        limit(settings["throttlingRateLimit"], settings["throttlingBurstLimit"])


def the_method(clouds: Clouds) -> tuple[str, dict[str, Any]]:
    """The only one that API Gateway has made of the document, and its path."""
    apis, api_id = clouds.aws.client("apigateway"), clouds.stack.resources["RenameApi"]
    resources = apis.get_resources(restApiId=api_id, embed=["methods"])["items"]
    [found] = [(r["path"], m) for r in resources for m in r.get("resourceMethods", {}).values()]
    return found


@pytest.fixture
def imported(clouds: Clouds) -> dict[str, Any]:
    client = clouds.aws.client("cloudformation")
    template = client.get_template(StackName=clouds.stack.name, TemplateStage="Processed")["TemplateBody"]
    content = json.loads(template) if isinstance(template, str) else template
    return dict(content["Resources"]["RenameApi"]["Properties"]["Body"])


def test_imported_definition_is_the_openapi_document_but_for_components(imported: dict[str, Any]) -> None:
    for body in (imported, document := json.loads(json.dumps(OPENAPI))):
        del body["components"]
    assert imported == document


def test_imported_definition_has_the_documented_security_schemes(imported: dict[str, Any]) -> None:
    schemes = json.loads(json.dumps(OPENAPI["components"]["securitySchemes"]))
    for scheme in schemes.values():
        del scheme["description"]

    # Without API keys the API finds nothing but the signature, whichever scheme it looks at.
    schemes["api_key"] = {"Fn::If": ["WithApiKeys", schemes["api_key"], schemes["sigv4"]]}
    assert imported["components"]["securitySchemes"] == schemes


def test_imported_definition_has_only_schemas_that_api_gateway_takes(imported: dict[str, Any]) -> None:
    schemas = imported["components"]["schemas"]

    assert set(schemas) == set(OPENAPI["components"]["schemas"])
    assert all(schema == {"type": "object"} for schema in schemas.values())
    assert all(name.isalnum() for name in schemas)
    assert imported["openapi"].startswith("3.0.")


def test_imported_definition_has_no_reference_to_another_file(imported: dict[str, Any]) -> None:
    assert {ref for ref in references(imported) if not ref.startswith("#/components/schemas/")} == set()


def test_deployed_method_requires_a_signature_and_invokes_the_alias_of_the_function(clouds: Clouds) -> None:
    path, method = the_method(clouds)

    assert (path, method["httpMethod"], method["authorizationType"]) == ("/rename-events", "POST", "AWS_IAM")
    assert not method["apiKeyRequired"]
    integration = method["methodIntegration"]
    assert (integration["type"], "credentials" in integration) == ("AWS_PROXY", False)
    assert integration["uri"].endswith(f"{clouds.stack.resources['RenameFromHttp']}:live/invocations")


def test_deployed_stage_has_tracing_and_throttling(clouds: Clouds) -> None:
    apis, api_id = clouds.aws.client("apigateway"), clouds.stack.resources["RenameApi"]
    [stage] = apis.get_stages(restApiId=api_id)["item"]

    assert (stage["stageName"], stage["tracingEnabled"]) == ("v1", True)
    settings = stage["methodSettings"]["*/*"]
    assert (settings["throttlingRateLimit"], settings["throttlingBurstLimit"]) == (20, 40)

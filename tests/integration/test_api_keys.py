"""Deployed with ApiKeys=true: the HTTP API requires a key and a signature, and throttles each key by itself."""

import time
import uuid
from collections.abc import Callable, Iterator

import pytest
from schemathesis import Response

from tests.integration.observer import HTTP, a_rename, until
from tests.integration.test_gradual_deployment import of_type, resources
from tests.integration.test_http_contract import BINARY, STRUCTURED, a_case, call, documented
from tests.localcloud.stack import Clouds, local_clouds

# A key refills too slowly for a test to see.
BURST = 3
PARAMETERS = {"ApiKeys": "true", "ApiKeyRateLimit": "0.001", "ApiKeyBurstLimit": str(BURST)}


@pytest.fixture(scope="module")
def running_clouds_with_keys() -> Iterator[Clouds]:
    with local_clouds(parameters=PARAMETERS) as clouds:
        yield clouds


@pytest.fixture
def clouds(running_clouds_with_keys: Clouds) -> Clouds:
    running_clouds_with_keys.huawei.reset()
    return running_clouds_with_keys


def a_key(clouds: Clouds, *, enabled: bool = True, in_plan: bool = True) -> str:
    """A new API key's value, made as docs/deployment.md says."""
    apis = clouds.aws.client("apigateway")
    key = apis.create_api_key(name=f"cmdb-{uuid.uuid4()}", enabled=enabled)
    if in_plan:
        apis.create_usage_plan_key(usagePlanId=clouds.stack.outputs["UsagePlanId"], keyId=key["id"], keyType="API_KEY")
    return str(apis.get_api_key(apiKey=key["id"], includeValue=True)["value"])


def post(clouds: Clouds, key: str | None, *, signed: bool = True) -> tuple[int, str]:
    """Status and content type of the reply to a rename event, which must be a documented one."""
    case = a_case(a_rename(clouds))
    response: Response = call(clouds, case, headers={"x-api-key": key} if key else {}, signed=signed)
    return documented(case, response)


def test_api_renames_for_a_signature_with_a_key(clouds: Clouds) -> None:
    assert post(clouds, a_key(clouds)) == (200, STRUCTURED)


@pytest.mark.parametrize(
    ("key", "signed"),
    [
        (lambda clouds: None, True),
        (lambda clouds: "0123456789abcdefghijklmnopqrstuvwxyzABCD", True),
        (lambda clouds: a_key(clouds, enabled=False), True),
        (lambda clouds: a_key(clouds, in_plan=False), True),
        (a_key, False),
    ],
    ids=["no key", "unknown key", "disabled key", "key of no plan", "no signature"],
)
def test_api_refuses_a_request_without_a_valid_key_or_a_signature(
    clouds: Clouds, key: Callable[[Clouds], str | None], signed: bool
) -> None:
    assert post(clouds, key(clouds), signed=signed) == (403, BINARY)
    assert clouds.huawei.calls == []


def test_api_throttles_each_key_by_itself(clouds: Clouds) -> None:
    greedy, modest = a_key(clouds), a_key(clouds)

    replies = [post(clouds, greedy) for _ in range(BURST + 1)]

    assert replies == [*[(200, STRUCTURED)] * BURST, (429, BINARY)]
    assert post(clouds, modest) == (200, STRUCTURED)


def test_api_key_is_in_no_log(clouds: Clouds) -> None:
    key, event = a_key(clouds), a_rename(clouds)

    assert clouds.post_rename_event(event, {"x-api-key": key}).status == 200

    until(lambda: event["id"] in "\n".join(clouds.function_logs(HTTP)), "the log of the event")
    assert key not in "\n".join(clouds.function_logs(HTTP))


def test_other_parameters_make_a_new_deployment_of_the_api() -> None:
    before = resources(ApiKeys="false")
    time.sleep(1)  # SAM names deployments by the second

    after = resources(ApiKeys="true")

    [old], [new] = (of_type(found, "AWS::ApiGateway::Deployment") for found in (before, after))
    assert old != new
    assert after["RenameApiv1Stage"]["Properties"]["DeploymentId"] == {"Ref": new}

"""The recipes of docs/integrations.md, on the deployed stack."""

import base64
import hashlib
import hmac
import json
import re
import sys
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import urllib3
import yaml
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from tests.commands import run
from tests.documents import block
from tests.integration.observer import RENAMED, a_rename, a_service, key_of_producer, outcome_of, received, until
from tests.integration.test_cli import Operator, key_of_huawei_cloud, local_huawei_cloud
from tests.localcloud.aws import ENVIRONMENTS
from tests.localcloud.stack import Clouds, Event, rename_event

DOCUMENT = "docs/integrations.md"
# Jinja2, which NetBox renders body templates with, is in the SAM CLI's environment.
RENDER = "import sys, json, jinja2; print(jinja2.Template(sys.argv[1]).render(json.loads(sys.argv[2])), end='')"


@contextmanager
def documented_stack(clouds: Clouds, start: str, **parameters: str) -> Iterator[Mapping[str, str]]:
    """The stack of a documented template, by how that begins; physical ids by logical ids."""
    cloudformation, name = clouds.aws.client("cloudformation"), f"documented-{uuid.uuid4()}"
    cloudformation.create_stack(
        StackName=name,
        TemplateBody=block(DOCUMENT, start),
        Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()],
        Capabilities=["CAPABILITY_IAM"],
    )
    try:
        resources = cloudformation.describe_stack_resources(StackName=name)["StackResources"]
        yield {resource["LogicalResourceId"]: resource["PhysicalResourceId"] for resource in resources}
    finally:
        cloudformation.delete_stack(StackName=name)


def test_documented_queue_gets_failed_renames_without_their_envelope(clouds: Clouds) -> None:
    bus = clouds.stack.outputs["OutcomeBusName"]
    with documented_stack(clouds, "Parameters:\n", OutcomeBusName=bus) as resources:
        renamed, failed = a_rename(clouds), rename_event("unknown-service", "orders")

        clouds.post_rename_event(renamed)
        clouds.post_rename_event(failed)

        assert outcome_of(clouds, renamed)["type"] == RENAMED
        assert received(clouds, resources["FailedRenames"]) == [outcome_of(clouds, failed)]


def test_documented_rule_may_call_the_api_and_nothing_else(clouds: Clouds) -> None:
    """MiniStack keeps such a target and does not call it: this does, with the target's role, path and headers."""
    api, event = clouds.stack.resources["RenameApi"], a_rename(clouds)
    with documented_stack(clouds, "Description: Rename events of the default bus", RenameApiId=api) as resources:
        rule = resources["RenameEvents"].rpartition("/")[2]
        [target] = clouds.aws.client("events").list_targets_by_rule(Rule=rule)["Targets"]
        session = clouds.aws.client("sts").assume_role(RoleArn=target["RoleArn"], RoleSessionName="rule")["Credentials"]
        key = session["AccessKeyId"], session["SecretAccessKey"], session["SessionToken"]
        headers = target["HttpParameters"]["HeaderParameters"] | {"content-type": "application/json"}

        reply = replace(clouds, producer=Credentials(*key)).post_rename_event(event, headers)

        names = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")
        sqs = clouds.aws.client("sqs", **dict(zip(names, key, strict=True)))
        with pytest.raises(ClientError, match="AccessDenied"):
            sqs.send_message(QueueUrl=clouds.stack.outputs["RenameQueueUrl"], MessageBody="{}", MessageGroupId="1")
    assert target["Arn"].endswith(f":{api}/v1/POST/rename-events")
    assert target["InputPath"] == "$.detail"
    assert reply.status == 202
    assert outcome_of(clouds, event)["type"] == RENAMED


def test_documented_pipe_names_group_and_deduplication_id(clouds: Clouds) -> None:
    """MiniStack has no pipes from queues: this sends what the pipe's target parameters make of a message."""
    template = yaml.load(block(DOCUMENT, "Description: Rename events of a standard queue"), yaml.BaseLoader)  # noqa: S506 - builds no objects; SafeLoader refuses CloudFormation's tags
    parameters = template["Resources"]["Renames"]["Properties"]["TargetParameters"]
    event = a_rename(clouds)
    message = {"messageId": str(uuid.uuid4()), "body": event}  # a pipe parses a body of JSON
    queue = parameters["SqsQueueParameters"]
    group, dedup = (at(message, queue[name]) for name in ("MessageGroupId", "MessageDeduplicationId"))

    clouds.send_rename_event(at(message, parameters["InputTemplate"].strip("<>")), group=group, dedup=dedup)

    assert (group, dedup) == (event["data"]["vpc_endpoint_service_id"], event["id"])
    assert outcome_of(clouds, event)["type"] == RENAMED


def at(document: Event, path: str) -> Any:
    """What a JSON path of names, $.a.b, leads to."""
    found: Any = document
    for name in path.removeprefix("$.").split("."):
        found = found[name]
    return found


@pytest.mark.parametrize("way", ["http", "sqs"])
def test_documented_use_of_the_cloudevents_sdk_renames(clouds: Clouds, way: str) -> None:
    recipe = block(DOCUMENT, "import os\n\nimport boto3\nimport urllib3\n")
    if way == "sqs":
        recipe = "\n".join([*recipe.splitlines()[:-4], block(DOCUMENT, 'session.client("sqs")')])
    [service_id] = re.findall(r'"vpc_endpoint_service_id": "([^"]+)"', recipe)
    clouds.huawei.add_service(service_id, "billing")
    environment = clouds.aws.sam_environment() | {
        **key_of_producer(clouds),
        "RENAME_API_URL": clouds.rename_api_url,
        "RENAME_QUEUE_URL": clouds.stack.outputs["RenameQueueUrl"],
        "SSL_CERT_FILE": str(clouds.aws.ca),
    }

    run(sys.executable, "-c", recipe, env=environment)

    [outcome] = clouds.outcomes()
    assert (outcome["type"], outcome["data"]["trigger"]) == (RENAMED, way)
    assert clouds.huawei.name_of(service_id) == "orders"


@pytest.mark.parametrize("exists", [True, False])
def test_documented_state_machine_polls_for_the_outcome(clouds: Clouds, exists: bool) -> None:
    """MiniStack's Step Functions call no API: they are given what the local API answers to the documented requests."""
    definition = json.loads(block(DOCUMENT, '{\n  "StartAt"'))
    states, execution_name = definition["States"], f"documented-{uuid.uuid4()}"
    context = {
        "$$.Execution.Id": f"arn:aws:states:eu-central-1:123456789012:execution:{execution_name}:{uuid.uuid4()}",
        "$$.Execution.StartTime": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "$.vpc_endpoint_service_id": a_service(clouds) if exists else str(uuid.uuid4()),
        "$.endpoint_service_name": "orders",
    }
    event = resolved(states["Event"]["Parameters"], context)
    headers = {key: value for key, [value] in states["Rename"]["Parameters"]["Headers"].items()}
    [dry_run] = states["Poll"]["Parameters"]["QueryParameters"]["dry_run"]
    queued = clouds.post_rename_event(event, headers | {"prefer": "respond-async"})
    outcome = outcome_of(clouds, event)
    polled = clouds.post_rename_event(event, headers, query=f"dry_run={dry_run}")
    assert (queued.status, polled.status) == (202, 200)
    assert polled.json()["outcome"] == outcome

    unsettled = {"StatusCode": 200, "ResponseBody": {"dry_run": True, "result": "would_rename"}}
    replies = {
        "rename": {"0": {"Return": {"StatusCode": queued.status, "ResponseBody": queued.json()}}},
        "poll": {
            "0": {"Return": unsettled},
            "1": {"Throw": {"Error": "ApiGateway.503", "Cause": "{}"}},
            "2": {"Return": {"StatusCode": polled.status, "ResponseBody": polled.json()}},
        },
    }
    cases = {"polls": {"Rename": "rename", "Poll": "poll"}}
    configure(
        clouds,
        {"StateMachines": {execution_name: {"TestCases": cases}}, "MockedResponses": replies},
        wait_scale=0,
    )
    stepfunctions, iam = clouds.aws.client("stepfunctions"), clouds.aws.client("iam")
    trust = {"Effect": "Allow", "Principal": {"Service": "states.amazonaws.com"}, "Action": "sts:AssumeRole"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [trust]})
    role = iam.create_role(RoleName=execution_name, AssumeRolePolicyDocument=policy)["Role"]["Arn"]
    arn = stepfunctions.create_state_machine(name=execution_name, definition=json.dumps(definition), roleArn=role)[
        "stateMachineArn"
    ]
    try:
        given = json.dumps({key.removeprefix("$."): context[key] for key in context if not key.startswith("$$")})
        execution = stepfunctions.start_execution(stateMachineArn=f"{arn}#polls", input=given)["executionArn"]
        done = ended(stepfunctions, execution)
    finally:
        stepfunctions.delete_state_machine(stateMachineArn=arn)
        iam.delete_role(RoleName=execution_name)
        configure(clouds, {}, wait_scale=1)
    if exists:
        assert (done["status"], json.loads(done["output"])) == ("SUCCEEDED", outcome)
    else:
        assert (done["status"], done["error"], done["cause"]) == ("FAILED", "RenameFailed", "EndPoint.2003")


def configure(clouds: Clouds, mocks: Event, wait_scale: float) -> None:
    """Replies of services to MiniStack's state machines, in the format of AWS's Step Functions Local."""
    values = {"stepfunctions._sfn_mock_config": mocks, "stepfunctions._SFN_WAIT_SCALE": wait_scale}
    with urllib3.PoolManager(ca_certs=str(clouds.aws.ca)) as pool:
        reply = pool.request("POST", f"{clouds.aws.endpoint}/_ministack/config", json=values)
    assert reply.json()["applied"] == values


def resolved(template: Event, context: Mapping[str, str]) -> Event:
    """A payload template with what the keys that end in .$ lead to."""
    return {
        key.removesuffix(".$"): resolved(value, context)
        if isinstance(value, dict)
        else context[value]
        if key.endswith(".$")
        else value
        for key, value in template.items()
    }


def ended(states: Any, execution: str) -> Any:
    def done() -> Any:
        described = states.describe_execution(executionArn=execution)
        return None if described["status"] == "RUNNING" else described

    return until(done, "the end of the execution", seconds=20)


def test_documented_workflow_shows_what_it_would_rename_and_renames(tmp_path: Path) -> None:
    job = yaml.safe_load(block(DOCUMENT, "name: Endpoint service names"))["jobs"]["rename"]
    commands = [step["run"].split() for step in job["steps"] if step.get("run", "").startswith("vpcep-rename ")]
    service_id = str(uuid.uuid4())
    with local_huawei_cloud() as huawei:
        huawei.add_service(service_id, "billing")
        environment = key_of_huawei_cloud(huawei)
        assert environment.keys() - job["env"].keys() == {"HUAWEICLOUD_SDK_REGION_VPCEP_CN_NORTH_4"}
        operator = Operator(tmp_path, environment | {"HUAWEICLOUD_REGION": job["env"]["HUAWEICLOUD_REGION"]})
        operator.file({service_id: "orders"})
        [dry_run, rename] = [arguments[1:] for arguments in commands]

        assert "1 would be renamed" in operator.run(*dry_run).out
        assert huawei.name_of(service_id) == "billing"
        operator.run(*rename)
        assert huawei.name_of(service_id) == "orders"
    results = job["steps"][-1]["with"]["path"]
    assert (tmp_path / results).exists()


WEBHOOK_SECRET = "a secret of the webhook"


@pytest.fixture
def webhook(clouds: Clouds, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The documented function."""
    monkeypatch.setenv("WEBHOOK_SECRET", WEBHOOK_SECRET)
    monkeypatch.setenv("RENAME_QUEUE_URL", clouds.stack.outputs["RenameQueueUrl"])
    key = {name.lower(): value for name, value in key_of_producer(clouds).items()}
    monkeypatch.setattr("boto3.client", lambda service: clouds.aws.client(service, **key))
    namespace: dict[str, Any] = {}
    exec(block(DOCUMENT, "import base64\n"), namespace)  # noqa: S102 - the document's own code
    return SimpleNamespace(**namespace).handler


@pytest.mark.parametrize("encoded", [False, True])
def test_documented_webhook_of_netbox_is_forwarded(clouds: Clouds, webhook: Any, encoded: bool) -> None:
    service_id = a_service(clouds)
    body = netbox_body(service_id, "orders")
    text = base64.b64encode(body).decode() if encoded else body.decode()

    reply = webhook(request(text, signature(body), encoded=encoded), None)

    event = json.loads(body)
    assert reply == {"statusCode": 202}
    assert outcome_of(clouds, event)["data"]["request"] == event


@pytest.mark.parametrize("signed", [None, "", "0" * 128, "\u00e9"])
def test_documented_webhook_refuses_what_is_not_signed(clouds: Clouds, webhook: Any, signed: str | None) -> None:
    body = netbox_body(a_service(clouds), "orders")

    assert webhook(request(body.decode(), signed), None) == {"statusCode": 401}
    assert clouds.messages(clouds.stack.outputs["RenameQueueUrl"]) == 0


def test_documented_body_template_escapes_quotes(clouds: Clouds) -> None:
    body = json.loads(netbox_body("service", 'a "quoted" name'))

    assert body["data"]["endpoint_service_name"] == 'a "quoted" name'


def netbox_body(service_id: str, name: str) -> bytes:
    """What NetBox makes of the documented body template."""
    changed = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    data = {"id": 19, "name": name, "last_updated": changed, "custom_fields": {"vpcep_id": service_id}}
    template = block(DOCUMENT, '{\n  "specversion": "1.0",\n  "id": {{')
    return run(ENVIRONMENTS / "sam/bin/python", "-c", RENDER, template, json.dumps({"data": data})).stdout.encode()


def signature(body: bytes) -> str:
    return hmac.new(WEBHOOK_SECRET.encode(), body, hashlib.sha512).hexdigest()


def request(body: str, signed: str | None, *, encoded: bool = False) -> Event:
    """As a Lambda function URL hands it to the function."""
    headers = {} if signed is None else {"x-hook-signature": signed}
    return {"version": "2.0", "headers": headers, "body": body, "isBase64Encoded": encoded}

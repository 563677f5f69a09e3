"""The recipes of docs/integrations.md, on the deployed stack."""

import json
import time
from typing import Any

from tests.documents import block
from tests.integration.test_deployed_stack import a_service, outcome_of
from tests.localcloud.stack import Clouds, rename_event

STACK = "documented-consumer"
WAIT_SECONDS = 20.0


def test_documented_queue_gets_failed_renames_without_their_envelope(clouds: Clouds) -> None:
    cloudformation = clouds.aws.client("cloudformation")
    bus = clouds.stack.outputs["OutcomeBusName"]
    cloudformation.create_stack(
        StackName=STACK,
        TemplateBody=block("docs/integrations.md", "Parameters:\n"),
        Parameters=[{"ParameterKey": "OutcomeBusName", "ParameterValue": bus}],
    )
    try:
        [stack] = cloudformation.describe_stacks(StackName=STACK)["Stacks"]
        [url] = [output["OutputValue"] for output in stack["Outputs"] if output["OutputKey"] == "FailedRenamesUrl"]
        renamed, failed = rename_event(a_service(clouds), "orders"), rename_event("unknown-service", "orders")

        clouds.post_rename_event(renamed)
        clouds.post_rename_event(failed)

        assert outcome_of(clouds, renamed)["type"] == "vpcep.endpoint_service.renamed.v1"
        assert received(clouds, url) == [outcome_of(clouds, failed)]
    finally:
        cloudformation.delete_stack(StackName=STACK)


def received(clouds: Clouds, url: str) -> list[Any]:
    """What the queue gets first, and what follows at once."""
    sqs, bodies = clouds.aws.client("sqs"), list[Any]()
    until = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < until:
        wait = 0 if bodies else 2
        messages = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=wait).get("Messages", [])
        if bodies and not messages:
            break
        bodies += [json.loads(message["Body"]) for message in messages]
        for message in messages:
            sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    return bodies

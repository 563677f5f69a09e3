"""Sets the redrive allow policies of the dead-letter queues.

In the template, each of two queues would refer to the other's ARN, which CloudFormation rejects as a circular
dependency. Idempotent. Run by the SAM CLI's interpreter after `sam deploy`.
"""

from __future__ import annotations

import json
import os
import sys

import boto3
from botocore.exceptions import BotoCoreError, ClientError

SOURCES = {"UnsettledQueue": "RenameQueue", "RenameDeadLetterQueue": "UnsettledQueue"}


def main(stack: str) -> str | None:
    """An error message, or None."""
    try:
        resources = boto3.client("cloudformation").describe_stack_resources(StackName=stack)["StackResources"]
        urls = {each["LogicalResourceId"]: each["PhysicalResourceId"] for each in resources}
        sqs = boto3.client("sqs")
        for queue, source in SOURCES.items():
            found = sqs.get_queue_attributes(QueueUrl=urls[source], AttributeNames=["QueueArn"])["Attributes"]
            policy = {"redrivePermission": "byQueue", "sourceQueueArns": [found["QueueArn"]]}
            sqs.set_queue_attributes(QueueUrl=urls[queue], Attributes={"RedriveAllowPolicy": json.dumps(policy)})
    except (BotoCoreError, ClientError) as error:
        return f"The stack is deployed, but its dead-letter queues still accept messages of any queue: {error}"
    return None


if __name__ == "__main__":
    sys.exit(main(os.environ["STACK"]))

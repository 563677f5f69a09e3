"""What a template cannot say: which queue may have which as its dead-letter queue.

Each of two queues would have to name the other's ARN, and CloudFormation takes that for a circular dependency. Run by
the SAM CLI's interpreter after `sam deploy`; a second time changes nothing.
"""

from __future__ import annotations

import json
import os
import sys

import boto3
from botocore.exceptions import BotoCoreError, ClientError

SOURCES = {"UnsettledQueue": "RenameQueue", "RenameDeadLetterQueue": "UnsettledQueue"}


def main(stack: str) -> str | None:
    """What is wrong; None for nothing."""
    try:
        resources = boto3.client("cloudformation").describe_stack_resources(StackName=stack)["StackResources"]
        urls = {each["LogicalResourceId"]: each["PhysicalResourceId"] for each in resources}
        sqs = boto3.client("sqs")
        for queue, source in SOURCES.items():
            found = sqs.get_queue_attributes(QueueUrl=urls[source], AttributeNames=["QueueArn"])["Attributes"]
            policy = {"redrivePermission": "byQueue", "sourceQueueArns": [found["QueueArn"]]}
            sqs.set_queue_attributes(QueueUrl=urls[queue], Attributes={"RedriveAllowPolicy": json.dumps(policy)})
    except (BotoCoreError, ClientError) as error:
        return f"The stack is deployed, but its dead-letter queues still take messages of any queue: {error}"
    return None


if __name__ == "__main__":
    sys.exit(main(os.environ["STACK"]))

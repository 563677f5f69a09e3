"""Deployed with access for others: producers of other accounts, an SNS FIFO topic, keys of the adopter's own, and with
an outcome log.
"""

import json
import re
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime

import pytest
from botocore.exceptions import ClientError

from tests.commands import run
from tests.documents import block
from tests.integration.observer import (
    RENAME_FAILED,
    RENAMED,
    a_rename,
    a_service,
    outcome_of,
    outcomes_by_event,
    rename_queue,
    tapped,
)
from tests.localcloud.aws import LocalAws
from tests.localcloud.stack import Clouds, Event, local_clouds, rename_event

TOPIC = "renames.fifo"
PRODUCER_ACCOUNT, STRANGER_ACCOUNT = "210987654321", "333333333333"

Lines = Callable[[], list[dict[str, str]]]


def parameters(aws: LocalAws) -> Mapping[str, str]:
    """What the template is deployed with; what they name is there."""
    sns, kms = aws.client("sns"), aws.client("kms")
    policy = block("docs/security.md", '{\n  "Version"')
    return {
        "ProducerAccounts": f"999999999999,{PRODUCER_ACCOUNT}",
        "ProducerTopicArn": sns.create_topic(Name=TOPIC, Attributes={"FifoTopic": "true"})["TopicArn"],
        "KmsKeyArn": kms.create_key(Policy=policy)["KeyMetadata"]["Arn"],
        "CredentialsKeyArn": kms.create_key()["KeyMetadata"]["Arn"],
        "OutcomeLogDays": "30",
    }


@pytest.fixture(scope="module")
def running_open_clouds() -> Iterator[Clouds]:
    with local_clouds(parameters=parameters) as clouds:
        yield clouds


@pytest.fixture
def clouds(running_open_clouds: Clouds) -> Clouds:
    running_open_clouds.huawei.reset()
    running_open_clouds.forget_outcomes()
    return running_open_clouds


def publish(clouds: Clouds, topic: str, message: Event, **attributes: str) -> None:
    clouds.aws.client("sns").publish(
        TopicArn=topic,
        Message=json.dumps(message),
        MessageGroupId=message.get("data", message)["vpc_endpoint_service_id"],
        MessageDeduplicationId=str(uuid.uuid4()),
        MessageAttributes={name: {"DataType": "String", "StringValue": value} for name, value in attributes.items()},
    )


@pytest.fixture
def topic(clouds: Clouds) -> str:
    topics = [topic["TopicArn"] for topic in clouds.aws.client("sns").list_topics()["Topics"]]
    [arn] = [topic for topic in topics if topic.endswith(f":{TOPIC}")]
    return str(arn)


@contextmanager
def wrapped(clouds: Clouds, topic: str) -> Iterator[None]:
    """For a while the subscription is without raw delivery."""
    sns = clouds.aws.client("sns")
    [subscription] = sns.list_subscriptions_by_topic(TopicArn=topic)["Subscriptions"]
    arn = subscription["SubscriptionArn"]
    assert sns.get_subscription_attributes(SubscriptionArn=arn)["Attributes"]["RawMessageDelivery"] == "true"
    sns.set_subscription_attributes(SubscriptionArn=arn, AttributeName="RawMessageDelivery", AttributeValue="false")
    try:
        yield
    finally:
        sns.set_subscription_attributes(SubscriptionArn=arn, AttributeName="RawMessageDelivery", AttributeValue="true")


def test_documented_producer_renames_through_the_topic(clouds: Clouds, topic: str) -> None:
    """The recipe of docs/integrations.md."""
    recipe = block("docs/integrations.md", "import json\nimport os\nimport uuid\n")
    [service_id] = re.findall(r'"vpc_endpoint_service_id": "([^"]+)"', recipe)
    clouds.huawei.add_service(service_id, "billing")

    environment = clouds.aws.sam_environment() | {"TOPIC_ARN": topic}
    run(sys.executable, "-c", recipe, env=environment)

    [outcome] = clouds.outcomes()
    assert (outcome["type"], clouds.huawei.name_of(service_id)) == (RENAMED, "orders")


def test_structured_event_on_the_topic_is_renamed(clouds: Clouds, topic: str) -> None:
    event = a_rename(clouds)

    publish(clouds, topic, event)

    outcome = outcome_of(clouds, event)
    assert (outcome["type"], outcome["data"]["request"]) == (RENAMED, event)


def test_binary_event_on_the_topic_keeps_its_attributes(clouds: Clouds, topic: str) -> None:
    data = {"vpc_endpoint_service_id": a_service(clouds), "endpoint_service_name": "orders"}

    publish(clouds, topic, data, ce_id="binary-by-topic", ce_source="/cmdb")

    request = outcomes_by_event(clouds, "binary-by-topic")["binary-by-topic"]["data"]["request"]
    assert (request["source"], request["data"]) == ("/cmdb", data)


def test_events_on_the_topic_for_one_service_are_renamed_in_order(clouds: Clouds, topic: str) -> None:
    service_id, names = a_service(clouds), [f"name-{number}" for number in range(5)]

    for name in names:
        publish(clouds, topic, rename_event(service_id, name))

    assert [outcome["type"] for outcome in clouds.outcomes(len(names))] == [RENAMED] * len(names)
    assert [call.name for call in clouds.huawei.calls if call.operation == "rename"] == names


def test_event_in_an_sns_notification_is_renamed(clouds: Clouds, topic: str) -> None:
    """Without raw delivery, as where the subscription is the adopter's own."""
    event = a_rename(clouds)

    with wrapped(clouds, topic):
        publish(clouds, topic, event)
        outcome = outcome_of(clouds, event)

    assert outcome["type"] == RENAMED
    assert outcome["data"]["request"] == event


def test_event_on_another_topic_is_refused(clouds: Clouds, topic: str) -> None:
    sns, sqs = clouds.aws.client("sns"), clouds.aws.client("sqs")
    other = sns.create_topic(Name="others.fifo", Attributes={"FifoTopic": "true"})["TopicArn"]
    queue = sqs.get_queue_attributes(QueueUrl=rename_queue(clouds), AttributeNames=["QueueArn"])["Attributes"]
    sns.subscribe(TopicArn=other, Protocol="sqs", Endpoint=queue["QueueArn"])
    refused, taken = (a_rename(clouds) for _ in range(2))

    publish(clouds, other, refused)
    publish(clouds, topic, taken)

    assert outcome_of(clouds, taken)["type"] == RENAMED
    assert {call.service_id for call in clouds.huawei.calls} == {taken["data"]["vpc_endpoint_service_id"]}
    sns.delete_topic(TopicArn=other)


def send_by(clouds: Clouds, account: str) -> Event:
    """MiniStack takes an access key that is an account's number for that account's root."""
    event = a_rename(clouds)
    clouds.aws.client("sqs", aws_access_key_id=account, aws_secret_access_key="test").send_message(
        QueueUrl=rename_queue(clouds),
        MessageBody=json.dumps(event),
        MessageGroupId=event["data"]["vpc_endpoint_service_id"],
        MessageDeduplicationId=event["id"],
    )
    return event


def test_producer_account_may_send_to_the_queue(clouds: Clouds) -> None:
    assert outcome_of(clouds, send_by(clouds, PRODUCER_ACCOUNT))["type"] == RENAMED


def test_account_that_is_no_producer_may_not_send_to_the_queue(clouds: Clouds) -> None:
    with pytest.raises(ClientError, match="AccessDenied"):
        send_by(clouds, STRANGER_ACCOUNT)


@pytest.fixture
def logged(clouds: Clouds) -> Iterator[Lines]:
    """What the rule would write into the log group, from a queue: MiniStack takes no log group for a target."""
    events, sqs = clouds.aws.client("events"), clouds.aws.client("sqs")
    bus, rule = clouds.stack.outputs["OutcomeBusName"], clouds.stack.resources["OutcomeLogRule"]
    [target] = events.list_targets_by_rule(Rule=rule, EventBusName=bus)["Targets"]
    assert target["Arn"].endswith(f":log-group:{clouds.stack.resources['OutcomeLog']}")
    pattern = json.loads(events.describe_rule(Name=rule, EventBusName=bus)["EventPattern"])

    def lines() -> list[dict[str, str]]:
        received = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=2).get("Messages", [])
        entries = [json.loads(message["Body"]) for message in received]
        assert all(entry.keys() == {"timestamp", "message"} for entry in entries)
        assert all(datetime.fromisoformat(entry["timestamp"]) for entry in entries)
        return [json.loads(entry["message"]) for entry in entries]

    with tapped(clouds, "as-logged", pattern) as url:
        [queue] = events.list_targets_by_rule(Rule="as-logged", EventBusName=bus)["Targets"]
        transformed = queue | {"InputTransformer": target["InputTransformer"]}
        events.put_targets(Rule="as-logged", EventBusName=bus, Targets=[transformed])
        yield lines


def test_outcome_log_has_its_documented_fields_and_nothing_else_of_the_event(clouds: Clouds, logged: Lines) -> None:
    event = a_rename(clouds) | {"subject": "seen-nowhere"}
    clouds.send_rename_event(event)
    outcome = outcome_of(clouds, event)

    [line] = logged()

    assert line == {
        "outcome_id": outcome["id"],
        "outcome_type": RENAMED,
        "time": outcome["time"],
        "vpc_endpoint_service_id": event["data"]["vpc_endpoint_service_id"],
        "region": clouds.account.region,
        "project_id": clouds.account.project_id,
        "endpoint_service_name": "orders",
        "service_name": outcome["data"]["service_name"],
        "previous_service_name": outcome["data"].get("previous_service_name", ""),
        "error_code": "",
        "correlation_id": event["id"],
        "event_source": "/cmdb",
    }


def test_outcome_log_has_the_code_of_a_failure(clouds: Clouds, logged: Lines) -> None:
    event = rename_event(str(uuid.uuid4()), "orders")
    clouds.send_rename_event(event)
    outcome_of(clouds, event)

    [line] = logged()

    assert (line["outcome_type"], line["error_code"]) == (RENAME_FAILED, "EndPoint.2003")
    assert (line["endpoint_service_name"], line["service_name"]) == ("orders", "")


@pytest.mark.parametrize("event_id", ['a "quoted" id', 'x", "error_code": "forged', "back\\slash"])
def test_outcome_log_cannot_be_forged_by_an_id(clouds: Clouds, logged: Lines, event_id: str) -> None:
    odd = a_rename(clouds) | {"id": event_id}
    other = a_rename(clouds) | {"id": f"it's <plain> & {{fine}} {uuid.uuid4()}"}
    for event in (odd, other):
        clouds.send_rename_event(event)
        assert outcome_of(clouds, event)["type"] == RENAMED

    assert [line["correlation_id"] for line in logged()] == [other["id"]]


def test_outcome_log_has_no_invalid_event(clouds: Clouds, logged: Lines) -> None:
    clouds.send_rename_event(rename_event('", "error_code": "', "a name with blanks"))
    clouds.send_rename_event("no JSON")
    assert len(clouds.outcomes(2)) == 2

    assert logged() == []

"""What an observer outside the deployed stack does and sees: what was sent, what Huawei Cloud was asked, and which
outcomes there are, on the bus and in HTTP answers; nothing of the ledger.
"""

import json
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import pytest

from function.adapters.aws.ledger_items import breaker_item
from function.domain.failures import IDENTIFIER_REUSED
from tests.contract.documents import OUTCOME
from tests.integration.lambda_events import sqs_event
from tests.localcloud.aws import ROOT_USER, LocalAws, build
from tests.localcloud.huawei import Call
from tests.localcloud.lambda_runtime import LambdaRuntime
from tests.localcloud.stack import FUNCTIONS, Clouds, Event, Reply, rename_event, tap

RENAMED = "vpcep.endpoint_service.renamed.v1"
RENAME_FAILED = "vpcep.endpoint_service.rename_failed.v1"
QUEUE, HTTP, DEAD_LETTERS = FUNCTIONS
TRIGGERS = ("sqs", "http")

# The functions keep four seconds of it to report, and a claim outlives it by a minute.
TIMEOUT = 7
VISIBILITY = 1
MANY_RECEIVES = 1_000

THROTTLED: dict[str, Any] = {
    "status": 429,
    "code": "APIGW.0308",
    "message": "policy user over ratelimit,limit:200,time:5 minute",
}

T = TypeVar("T")


def a_service(clouds: Clouds, name: str = "billing") -> str:
    """The id of a new endpoint service."""
    service_id = str(uuid.uuid4())
    clouds.huawei.add_service(service_id, name)
    return service_id


def a_rename(clouds: Clouds, name: str = "orders") -> Event:
    """An event that renames a new endpoint service."""
    return rename_event(a_service(clouds), name)


@contextmanager
def short_timeouts(clouds: Clouds) -> Iterator[None]:
    """For a while invocations are short, and an event that is not settled is delivered again after a second.

    For that SQS refuses to extend its visibility, so that the queue's own timeout applies.
    """
    sqs = clouds.aws.client("sqs")
    sqs.purge_queue(QueueUrl=rename_queue(clouds))
    with (
        clouds.without(QUEUE, "sqs:ChangeMessageVisibility"),
        clouds.queue_with(rename_queue(clouds), VisibilityTimeout=str(VISIBILITY)),
        clouds.queue_with(unsettled_queue(clouds), VisibilityTimeout=str(VISIBILITY)),
        clouds.configured(HTTP, timeout=TIMEOUT),
        clouds.configured(QUEUE, timeout=TIMEOUT),
        receives(clouds, MANY_RECEIVES),
    ):
        yield
        for queue in (rename_queue, unsettled_queue, dead_letter_queue):
            sqs.purge_queue(QueueUrl=queue(clouds))


@contextmanager
def receives(clouds: Clouds, most: int) -> Iterator[None]:
    """For a while a message is received so often at the most, and the function knows."""
    attributes = clouds.aws.client("sqs").get_queue_attributes(
        QueueUrl=rename_queue(clouds), AttributeNames=["RedrivePolicy"]
    )["Attributes"]
    policy = json.loads(attributes["RedrivePolicy"]) | {"maxReceiveCount": most}
    with (
        clouds.queue_with(rename_queue(clouds), RedrivePolicy=json.dumps(policy)),
        clouds.configured(QUEUE, MAX_RECEIVES=str(most)),
    ):
        yield


def rename_queue(clouds: Clouds) -> str:
    return clouds.stack.outputs["RenameQueueUrl"]


def unsettled_queue(clouds: Clouds) -> str:
    return clouds.stack.resources["UnsettledQueue"]


def ledger_table(clouds: Clouds) -> str:
    return clouds.stack.outputs["LedgerTableName"]


def new_user(aws: LocalAws, name: str, policy: str) -> dict[str, str]:
    """The key of a new user of the account with a policy, by boto3's names."""
    iam = aws.client("iam")
    iam.create_user(UserName=name)
    iam.put_user_policy(UserName=name, PolicyName="policy", PolicyDocument=policy)
    key = iam.create_access_key(UserName=name)["AccessKey"]
    return {"aws_access_key_id": key["AccessKeyId"], "aws_secret_access_key": key["SecretAccessKey"]}


def breaker_key(clouds: Clouds) -> dict[str, Any]:
    """The key of the outage breaker's item in the ledger's table."""
    return {"id": {"S": breaker_item(clouds.account.region)}}


def key_of_producer(clouds: Clouds) -> dict[str, str]:
    """The environment of one who may send rename events."""
    return {"AWS_ACCESS_KEY_ID": clouds.producer.access_key, "AWS_SECRET_ACCESS_KEY": clouds.producer.secret_key}


def dead_letter_queue(clouds: Clouds) -> str:
    return clouds.stack.outputs["RenameDeadLetterQueueUrl"]


def until(condition: Callable[[], T], what: str, seconds: float = 60) -> T:
    """What the condition found, when it finds something."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"waited in vain for {what}")
        time.sleep(0.1)
    return found


def send(clouds: Clouds, trigger: str, event: Event) -> Reply | None:
    """Send an event through either trigger; the reply of the HTTP API."""
    if trigger == "http":
        return clouds.post_rename_event(event)
    clouds.send_rename_event(event)
    return None


def abandon(clouds: Clouds, event: Event) -> Event:
    """Have an event given up, as one whose function was killed each time; its outcome. It is a dead letter now."""
    assert clouds.invoke(DEAD_LETTERS, sqs_event(json.dumps(event))) == {"batchItemFailures": []}
    [outcome] = outcomes_of(clouds, event)
    return outcome


def let_claims_expire(clouds: Clouds) -> None:
    """As if a few minutes had passed. Nothing may be in flight: a claim protects a rename that may still happen."""
    dynamodb, table = clouds.aws.client("dynamodb"), ledger_table(clouds)
    pages = dynamodb.get_paginator("scan").paginate(TableName=table, FilterExpression="attribute_exists(lapses)")
    for item in (item for page in pages for item in page["Items"]):
        dynamodb.update_item(
            TableName=table,
            Key={"id": item["id"]},
            UpdateExpression="SET lapses = :now",
            ExpressionAttributeValues={":now": {"N": str(time.time())}},
        )


def quiescent(clouds: Clouds) -> bool:
    """No event is on its way: each is settled, or a dead letter."""
    return not clouds.messages(rename_queue(clouds)) and not clouds.messages(unsettled_queue(clouds))


def calls_for(clouds: Clouds, service_id: str) -> list[Call]:
    return [call for call in clouds.huawei.calls if call.service_id == service_id]


def until_quiescent(clouds: Clouds) -> None:
    until(lambda: quiescent(clouds), "empty queues")


def service_of(event: Event) -> str:
    return str(event["data"]["vpc_endpoint_service_id"])


def name_in(event: Event) -> str:
    return str(event["data"]["endpoint_service_name"])


def code_of(outcome: Event) -> str:
    """The error code of a failure, or the type of a success."""
    error = outcome["data"].get("error")
    return str(error["code"]) if error else RENAMED


def outcomes_by_event(clouds: Clouds, *event_ids: str) -> dict[str, Event]:
    """The one outcome of each event, from the bus; of a text that is no JSON by the text."""

    def event_id(outcome: Event) -> str:
        request = outcome["data"]["request"]
        return str(request.get("id")) if isinstance(request, dict) else str(request)

    found = clouds.outcomes(len(event_ids), where=lambda outcome: event_id(outcome) in event_ids)
    assert sorted(map(event_id, found)) == sorted(event_ids)
    for outcome in found:
        OUTCOME.validate(outcome)
    return {event_id(outcome): outcome for outcome in found}


def outcome_of(clouds: Clouds, event: Event) -> Event:
    return outcomes_by_event(clouds, event["id"])[event["id"]]


def received(clouds: Clouds, url: str, seconds: float = 20) -> list[Any]:
    """The bodies of the messages that a queue gets first, and of those that follow at once."""
    sqs, bodies = clouds.aws.client("sqs"), list[Any]()
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        wait = 0 if bodies else 2
        messages = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=wait).get("Messages", [])
        if bodies and not messages:
            break
        bodies += [json.loads(message["Body"]) for message in messages]
        for message in messages:
            sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    return bodies


@contextmanager
def tapped(clouds: Clouds, name: str, pattern: Mapping[str, Any]) -> Iterator[str]:
    """For a while a queue gets what matches the pattern, from the outcome bus by a rule of this name; its URL."""
    events, bus = clouds.aws.client("events"), clouds.stack.outputs["OutcomeBusName"]
    url = tap(clouds.aws, bus, name, pattern)
    yield url
    events.remove_targets(Rule=name, EventBusName=bus, Ids=[name])
    events.delete_rule(Name=name, EventBusName=bus)
    clouds.aws.client("sqs").delete_queue(QueueUrl=url)


@contextmanager
def in_lambda_runtime(clouds: Clouds, function: str, **variables: str) -> Iterator[LambdaRuntime]:
    """A function as deployed, by its logical id, with other variables, moved from MiniStack to the Lambda runtime."""
    client = clouds.aws.client("lambda")
    deployed = client.get_function_configuration(FunctionName=clouds.stack.resources[function])
    environment = deployed["Environment"]["Variables"] | ROOT_USER | variables
    environment |= {"AWS_ENDPOINT_URL": clouds.aws.endpoint, "AWS_CA_BUNDLE": str(clouds.aws.ca)}
    environment |= {"AWS_REGION": clouds.aws.region, "AWS_DEFAULT_REGION": clouds.aws.region}
    package, timeout = build().parent / function, deployed["Timeout"]
    with LambdaRuntime(package, environment, timeout=timeout, handler=deployed["Handler"]) as runtime:
        yield runtime


def is_final(outcome: Event) -> bool:
    return outcome["type"] == RENAMED or not outcome["data"]["error"]["retryable"]


def chain(copies: Sequence[Event]) -> list[Event]:
    """The outcomes of one event in their order, of all copies there are. Fails where they contradict each other."""
    outcomes: dict[str, Event] = {}
    for copy in copies:
        OUTCOME.validate(copy)
        assert outcomes.setdefault(copy["id"], copy) == copy, "two outcomes of one id differ"
    if {code_of(outcome) for outcome in outcomes.values()} == {IDENTIFIER_REUSED}:
        # No ledger keeps it, and it names the trigger: there is one by each.
        assert len({outcome["data"]["trigger"] for outcome in outcomes.values()}) == len(outcomes)
        return list(outcomes.values())[:1]
    by_predecessor = {outcome["data"].get("follows"): outcome for outcome in outcomes.values()}
    ordered: list[Event] = []
    while len(ordered) < len(outcomes):
        predecessor = ordered[-1]["id"] if ordered else None
        assert predecessor in by_predecessor, f"two outcomes that do not follow each other: {list(outcomes.values())}"
        ordered.append(by_predecessor[predecessor])
    assert not any(map(is_final, ordered[:-1])), "an outcome follows a final one"
    return ordered


def of(event: Event, outcomes: Sequence[Event]) -> list[Event]:
    return [outcome for outcome in outcomes if outcome["data"]["request"] == event]


def chains_of(clouds: Clouds, *events: Event, length: int = 1) -> list[list[Event]]:
    """The chain of each event, once all are final and nothing is on its way."""
    seen: list[Event] = []

    def settled() -> list[list[Event]] | None:
        seen.extend(clouds.outcomes_so_far())
        chains = [chain(of(event, seen)) for event in events]
        return chains if all(found and is_final(found[-1]) for found in chains) and quiescent(clouds) else None

    until(settled, "a final outcome of each event")
    seen.extend(clouds.outcomes_so_far())
    chains = [chain(of(event, seen)) for event in events]
    assert [len(found) for found in chains] == [length] * len(events)
    return chains


def outcomes_of(clouds: Clouds, event: Event, copies: int = 1) -> list[Event]:
    """So many copies of an event's outcomes, as they come."""
    found = clouds.outcomes(copies, where=lambda outcome: bool(outcome["data"]["request"] == event))
    assert len(found) == copies
    return found


def ids_of(outcomes: Sequence[Event]) -> set[str]:
    """Of the events that have an outcome."""
    return {outcome["data"]["request"]["id"] for outcome in outcomes}


def lines(clouds: Clouds, function: str) -> list[dict[str, Any]]:
    """What a function logged of the events that it handled."""
    logged = [json.loads(line) for line in clouds.function_logs(function) if line.startswith('{"level"')]
    return [line for line in logged if "correlation_id" in line]


def times_unsettled(clouds: Clouds, function: str, event: Event, code: str) -> int:
    """How often a function returned an event to the queue with this code."""
    left = (line for line in lines(clouds, function) if line["status"] in ("unsettled", "queued"))
    return sum((line["correlation_id"], line["error_code"]) == (event["id"], code) for line in left)


def until_returned(clouds: Clouds, *events: Event, code: str, times: int = 1) -> None:
    """Wait until the function has returned each event to the queue so often with this code."""
    until(
        lambda: all(times_unsettled(clouds, QUEUE, event, code) >= times for event in events), f"{code} of each event"
    )


def warm_up(clouds: Clouds) -> None:
    """Have both functions running, and the key accepted: until then their calls go one by one."""
    for trigger in TRIGGERS:
        event = a_rename(clouds)
        send(clouds, trigger, event)
        outcome_of(clouds, event)
    clouds.huawei.reset()


def ago(*, before: Event | None = None, **span: int) -> str:
    """So long before now, or before an event's time."""
    time_ = datetime.fromisoformat(before["time"]) if before else datetime.now(UTC)
    return (time_ - timedelta(**span)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def time_of(event: Event) -> float:
    return datetime.fromisoformat(event["time"]).timestamp()

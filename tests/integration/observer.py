"""What an observer outside the deployed stack does and sees: what was sent, what Huawei Cloud was asked, and which
outcomes there are, on the bus and in HTTP answers; nothing of the ledger.
"""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import pytest

from function.domain.failures import IDENTIFIER_REUSED
from tests.integration.lambda_events import sqs_event
from tests.integration.test_deployed_stack import OUTCOME, RENAMED, a_service, outcome_of
from tests.localcloud.stack import FUNCTIONS, Clouds, Event, Reply, rename_event

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


@contextmanager
def in_a_hurry(clouds: Clouds) -> Iterator[None]:
    """For a while invocations are short, and an event that is not settled comes again after a second.

    For that SQS refuses to put it off, so that the queue's own time-out holds.
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
    """Have an event given up, as one whose function was ended each time; its outcome. It is a dead letter now."""
    assert clouds.invoke(DEAD_LETTERS, sqs_event(json.dumps(event))) == {"batchItemFailures": []}
    [outcome] = outcomes_of(clouds, event)
    return outcome


def let_claims_expire(clouds: Clouds) -> None:
    """As if a few minutes had passed. Nothing may be in flight: a claim is there for a rename that may yet come."""
    dynamodb, table = clouds.aws.client("dynamodb"), clouds.stack.outputs["LedgerTableName"]
    pages = dynamodb.get_paginator("scan").paginate(TableName=table, FilterExpression="attribute_exists(lapses)")
    for item in (item for page in pages for item in page["Items"]):
        dynamodb.update_item(
            TableName=table,
            Key={"id": item["id"]},
            UpdateExpression="SET lapses = :now",
            ExpressionAttributeValues={":now": {"N": str(time.time())}},
        )


def quiescent(clouds: Clouds) -> bool:
    """No event is on its way: each is settled, or rests among the dead letters."""
    return not clouds.messages(rename_queue(clouds)) and not clouds.messages(unsettled_queue(clouds))


def service_of(event: Event) -> str:
    return str(event["data"]["vpc_endpoint_service_id"])


def name_in(event: Event) -> str:
    return str(event["data"]["endpoint_service_name"])


def code_of(outcome: Event) -> str:
    """Of the failure that an outcome tells, or of the success."""
    error = outcome["data"].get("error")
    return str(error["code"]) if error else RENAMED


def is_final(outcome: Event) -> bool:
    return outcome["type"] == RENAMED or not outcome["data"]["error"]["retryable"]


def chain(copies: Sequence[Event]) -> list[Event]:
    """The outcomes of one event in their order, of all copies there are. Fails where they contradict each other."""
    outcomes: dict[str, Event] = {}
    for copy in copies:
        OUTCOME.validate(copy)
        assert outcomes.setdefault(copy["id"], copy) == copy, "two outcomes of one id differ"
    if {code_of(outcome) for outcome in outcomes.values()} == {IDENTIFIER_REUSED}:
        # No ledger keeps it, and it says which trigger tells it: by each there is one.
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
    """How often a function gave an event back, with this code."""
    left = (line for line in lines(clouds, function) if line["status"] in ("unsettled", "queued"))
    return sum((line["correlation_id"], line["error_code"]) == (event["id"], code) for line in left)


def warm_up(clouds: Clouds) -> None:
    """Have both functions running, and the key accepted: until then their calls go one by one."""
    for trigger in TRIGGERS:
        event = rename_event(a_service(clouds), "orders")
        send(clouds, trigger, event)
        outcome_of(clouds, event)
    clouds.huawei.reset()


def ago(*, before: Event | None = None, **span: int) -> str:
    """So long before now, or before an event's time."""
    time_ = datetime.fromisoformat(before["time"]) if before else datetime.now(UTC)
    return (time_ - timedelta(**span)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def time_of(event: Event) -> float:
    return datetime.fromisoformat(event["time"]).timestamp()

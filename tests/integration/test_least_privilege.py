"""Each permission of each role is needed: without it, something named fails. One that nothing needs is not granted.

A function is invoked directly here, as its trigger would: so it answers at once, by the credentials of its own role.
"""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Literal

import pytest

from function.adapters.circuit_breaker import RECOVERY_SECONDS
from tests.integration.lambda_events import sqs_event
from tests.integration.observer import (
    DEAD_LETTERS,
    HTTP,
    QUEUE,
    THROTTLED,
    a_rename,
    abandon,
    breaker_key,
    dead_letter_queue,
    ledger_table,
    rename_queue,
    until,
)
from tests.localcloud.stack import FUNCTIONS, Clouds, Event


@dataclass(frozen=True)
class Need:
    """What a permission is needed for.

    Attributes:
        ask: has the function do what needs it, and returns what came of it.
        without, with_it: what it returns.
        outage: so many seconds ago another environment found Huawei Cloud unavailable.
        anew: running environments remember what they have read by the permission, or, each time, that there was nothing
            to read. Those that were in an outage remember it too, so a need of new ones comes next.
    """

    ask: Callable[[Clouds], str]
    without: str
    with_it: str
    outage: int | None = None
    anew: Literal["never", "once", "each time"] = "never"


# ---- What each function is asked to do, and what comes of it


def rename_from_queue(clouds: Clouds) -> str:
    event = a_rename(clouds)
    if not clouds.invoke(QUEUE, sqs_event(json.dumps(event)))["batchItemFailures"]:
        return "settled"
    called = "called" if clouds.huawei.calls else "not called"
    return f"stays in the queue, {called}: {logged(clouds, QUEUE, event)}"


def rename_by_http(clouds: Clouds) -> str:
    reply = clouds.post_rename_event(a_rename(clouds))
    return f"{reply.status}, {'called' if clouds.huawei.calls else 'not called'}"


def rename_by_http_what_cannot_be_settled_now(clouds: Clouds) -> str:
    clouds.huawei.fail(**THROTTLED)
    return rename_by_http(clouds)


def return_with_a_delay(clouds: Clouds) -> str:
    """A message that was received for one second, and another one that the function never gets."""
    sqs, url = clouds.aws.client("sqs"), rename_queue(clouds)
    event, other = (a_rename(clouds) for _ in range(2))
    clouds.huawei.fail(**THROTTLED)
    clouds.send_rename_events([event, other])

    def received() -> dict[str, str]:
        messages = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, VisibilityTimeout=1).get("Messages", [])
        return {message["Body"]: message["ReceiptHandle"] for message in messages}

    batch = sqs_event(json.dumps(event))
    batch["Records"][0]["receiptHandle"] = received()[json.dumps(event)]
    assert clouds.invoke(QUEUE, batch)["batchItemFailures"]
    again = until(received, "the other one to come again")
    sqs.purge_queue(QueueUrl=url)
    assert json.dumps(other) in again
    return "comes again at once" if json.dumps(event) in again else "comes with a delay"


def conclude_dead_letter(clouds: Clouds) -> str:
    event = a_rename(clouds)
    stays = clouds.invoke(DEAD_LETTERS, sqs_event(json.dumps(event)))["batchItemFailures"]
    outcomes = [outcome["data"]["error"]["code"] for outcome in clouds.outcomes_so_far()]
    return f"{'stays' if stays else 'forwarded'}, with {outcomes}, {dead_letters(clouds)}"


def conclude_with_the_project(clouds: Clouds) -> str:
    event = a_rename(clouds)
    clouds.invoke(DEAD_LETTERS, sqs_event(json.dumps(event)))
    [outcome] = clouds.outcomes_so_far()
    return str(outcome["data"]["project_id"] == clouds.account.project_id)


def redrive(clouds: Clouds) -> str:
    abandon(clouds, a_rename(clouds))
    answer = clouds.invoke(DEAD_LETTERS, {"redrive": True})
    result = str(answer.get("moved", "refused" if "AccessDenied" in answer.get("errorMessage", "") else answer))
    return f"{result}, {dead_letters(clouds)}"


def dead_letters(clouds: Clouds) -> str:
    return f"{clouds.messages(dead_letter_queue(clouds))} dead letters"


def logged(clouds: Clouds, function: str, event: Event) -> str:
    """The code of the failure that a function logged of an event."""
    [line] = [json.loads(line) for line in clouds.function_logs(function) if event["id"] in line]
    return str(line["error_code"])


@contextmanager
def outage(clouds: Clouds, since: int) -> Iterator[None]:
    """Another environment found Huawei Cloud unavailable, so many seconds ago."""
    dynamodb, table = clouds.aws.client("dynamodb"), ledger_table(clouds)
    opened_at = {"N": str(int(time.time()) - since)}
    key = breaker_key(clouds)
    item = key | {"state": {"S": "OPEN"}, "failure_count": {"N": "10"}, "opened_at": opened_at}
    dynamodb.put_item(TableName=table, Item=item)
    try:
        yield
    finally:
        dynamodb.delete_item(TableName=table, Key=key)


def then_breaker(ask: Callable[[Clouds], str]) -> Callable[[Clouds], str]:
    """What came of it, and the state of the outage breaker after it."""

    def asked(clouds: Clouds) -> str:
        result, table = ask(clouds), ledger_table(clouds)
        item = clouds.aws.client("dynamodb").get_item(TableName=table, Key=breaker_key(clouds))["Item"]
        return f"{result}, breaker {item['state']['S']}"

    return asked


# ---- What each permission is needed for

CONCLUDED = "forwarded, with ['Rename.Abandoned'], 1 dead letters"
NOT_CONCLUDED = "stays, with [], 0 dead letters"
REDRIVEN, NOT_REDRIVEN = "1, 0 dead letters", "refused, 1 dead letters"
NEEDS = {
    (QUEUE, "TakeRenameEvents", "sqs:ChangeMessageVisibility"): Need(
        return_with_a_delay, "comes again at once", "comes with a delay"
    ),
    (QUEUE, "PublishOutcomes", "events:PutEvents"): Need(
        rename_from_queue, "stays in the queue, called: Rename.OutcomeNotPublished", "settled"
    ),
    (QUEUE, "KeepLedger", "dynamodb:UpdateItem"): Need(
        rename_from_queue, "stays in the queue, not called: Rename.LedgerUnavailable", "settled"
    ),
    # The outage breaker cannot choose who tries whether the outage is over: all do, and it never closes.
    (QUEUE, "KeepLedger", "dynamodb:PutItem"): Need(
        then_breaker(rename_from_queue),
        "settled, breaker OPEN",
        "settled, breaker CLOSED",
        outage=RECOVERY_SECONDS,
        anew="once",
    ),
    # It does not know of the outage.
    (QUEUE, "KeepLedger", "dynamodb:GetItem"): Need(
        rename_from_queue, "settled", "stays in the queue, not called: Rename.Outage", outage=0, anew="each time"
    ),
    (QUEUE, "ReadCredentials", "secretsmanager:GetSecretValue"): Need(
        rename_from_queue, "stays in the queue, not called: Rename.CredentialsUnavailable", "settled", anew="each time"
    ),
    # Where the queue takes an event over the answer is 202.
    (HTTP, "HandOverToQueue", "sqs:SendMessage"): Need(
        rename_by_http_what_cannot_be_settled_now, "503, called", "202, called"
    ),
    (HTTP, "PublishOutcomes", "events:PutEvents"): Need(rename_by_http, "202, called", "200, called"),
    (HTTP, "KeepLedger", "dynamodb:UpdateItem"): Need(rename_by_http, "202, not called", "200, called"),
    (HTTP, "KeepLedger", "dynamodb:PutItem"): Need(
        then_breaker(rename_by_http),
        "200, called, breaker OPEN",
        "200, called, breaker CLOSED",
        outage=RECOVERY_SECONDS,
        anew="once",
    ),
    (HTTP, "KeepLedger", "dynamodb:GetItem"): Need(
        rename_by_http, "200, called", "202, not called", outage=0, anew="each time"
    ),
    (HTTP, "ReadCredentials", "secretsmanager:GetSecretValue"): Need(
        rename_by_http, "403, not called", "200, called", anew="each time"
    ),
    (DEAD_LETTERS, "ForwardToDeadLetterQueue", "sqs:SendMessage"): Need(
        conclude_dead_letter, "stays, with ['Rename.Abandoned'], 0 dead letters", CONCLUDED
    ),
    (DEAD_LETTERS, "ForwardToDeadLetterQueue", "sqs:ReceiveMessage"): Need(redrive, NOT_REDRIVEN, REDRIVEN),
    (DEAD_LETTERS, "ForwardToDeadLetterQueue", "sqs:DeleteMessage"): Need(redrive, NOT_REDRIVEN, REDRIVEN),
    (DEAD_LETTERS, "RedriveDeadLetters", "sqs:SendMessage"): Need(redrive, "refused, 1 dead letters", REDRIVEN),
    (DEAD_LETTERS, "PublishOutcomes", "events:PutEvents"): Need(conclude_dead_letter, NOT_CONCLUDED, CONCLUDED),
    (DEAD_LETTERS, "KeepLedger", "dynamodb:UpdateItem"): Need(conclude_dead_letter, NOT_CONCLUDED, CONCLUDED),
    # The outcome would not name the project.
    (DEAD_LETTERS, "ReadCredentials", "secretsmanager:GetSecretValue"): Need(
        conclude_with_the_project, "False", "True", anew="each time"
    ),
}

POLLING = "Lambda polls the queue by the function's role; MiniStack polls it without asking anybody"
TRACING = "Lambda sends the traces by the function's role; MiniStack sends none"
LOGGING = "Lambda writes the logs by the function's role; MiniStack writes them without asking anybody"
FOR_THE_PLATFORM = {
    **{
        (sid, f"sqs:{action}"): POLLING
        for sid in ("TakeRenameEvents", "TakeDeadLetters")
        for action in ("ReceiveMessage", "DeleteMessage", "GetQueueAttributes")
    },
    ("Trace", "xray:PutTraceSegments"): TRACING,
    ("Trace", "xray:PutTelemetryRecords"): TRACING,
    ("WriteLogs", "logs:CreateLogStream"): LOGGING,
    ("WriteLogs", "logs:PutLogEvents"): LOGGING,
}


@pytest.fixture(scope="module", autouse=True)
def no_polling(running_clouds: Clouds) -> Iterator[None]:
    """Messages stay in the rename queue, so that functions do only what a test asks them to."""
    client, name = running_clouds.aws.client("lambda"), running_clouds.stack.resources[QUEUE]
    [mapping] = client.list_event_source_mappings(FunctionName=name)["EventSourceMappings"]
    client.update_event_source_mapping(UUID=mapping["UUID"], Enabled=False)
    yield
    client.update_event_source_mapping(UUID=mapping["UUID"], Enabled=True)


@pytest.fixture
def purged(clouds: Clouds) -> Iterator[Clouds]:
    """Both clouds; afterwards their queues are empty."""
    yield clouds
    for queue in (rename_queue, dead_letter_queue):
        clouds.aws.client("sqs").purge_queue(QueueUrl=queue(clouds))


@pytest.mark.parametrize(("function", "sid", "action"), NEEDS)
def test_function_without_a_permission_does_less_as_stated(
    function: str, sid: str, action: str, purged: Clouds
) -> None:
    need = NEEDS[function, sid, action]
    if need.anew != "never":
        purged.start_anew(function)

    with nullcontext() if need.outage is None else outage(purged, need.outage):
        with purged.without(function, action, sid=sid):
            assert need.ask(purged) == need.without

        purged.huawei.reset()
        purged.forget_outcomes()
        purged.aws.client("sqs").purge_queue(QueueUrl=dead_letter_queue(purged))
        if need.anew == "each time":
            purged.start_anew(function)
        assert need.ask(purged) == need.with_it


@pytest.mark.parametrize("function", FUNCTIONS)
def test_each_permission_of_a_function_is_needed_by_it_or_by_the_platform(
    function: str, running_clouds: Clouds
) -> None:
    needed = {(sid, action) for of, sid, action in NEEDS if of == function}
    assert running_clouds.permissions(function) - FOR_THE_PLATFORM.keys() == needed


def test_each_permission_for_the_platform_is_granted(running_clouds: Clouds) -> None:
    granted = {permission for function in FUNCTIONS for permission in running_clouds.permissions(function)}
    assert FOR_THE_PLATFORM.keys() <= granted

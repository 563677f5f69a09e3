"""Who may do what, with IAM evaluated: each function its own work, and nobody else the work of a function."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.integration.lambda_events import sqs_event
from tests.integration.observer import (
    DEAD_LETTERS,
    HTTP,
    QUEUE,
    RENAMED,
    THROTTLED,
    a_rename,
    abandon,
    dead_letter_queue,
    new_user,
    outcome_of,
    outcomes_of,
    receives,
    rename_queue,
    unsettled_queue,
    until,
    until_quiescent,
)
from tests.localcloud.aws import ACCOUNT
from tests.localcloud.stack import FUNCTIONS, OUTCOME_SOURCE, Clouds

UNAVAILABLE: dict[str, Any] = {"status": 503, "code": "EndPoint.0000", "message": "unavailable"}


def denied(clouds: Clouds, work: Callable[[], object]) -> set[tuple[str, str]]:
    """Which function was denied which action while work was done."""
    before = len(clouds.aws.log.read_text())
    work()
    roles = {clouds.stack.resources[f"{function}Role"]: function for function in FUNCTIONS}
    lines = [line.split() for line in clouds.aws.log.read_text()[before:].splitlines() if line.startswith("DENIED ")]
    return {(roles[arn.split("/")[1]], action) for _, arn, action in lines if ":assumed-role/" in arn}


def test_functions_are_denied_nothing_in_their_ordinary_work(clouds: Clouds) -> None:
    clouds.start_anew()

    def work() -> None:
        renamed = a_rename(clouds)
        for _ in range(2):
            clouds.send_rename_event(renamed)
            outcome_of(clouds, renamed)
        posted = a_rename(clouds)
        assert clouds.post_rename_event(posted).status == 200
        clouds.send_rename_event("no JSON")
        handed_over, unavailable = (a_rename(clouds) for _ in range(2))
        clouds.huawei.fail(**THROTTLED)
        assert clouds.post_rename_event(handed_over).status == 202
        clouds.huawei.fail(**UNAVAILABLE)
        clouds.send_rename_event(unavailable)
        assert outcome_of(clouds, handed_over)["type"] == outcome_of(clouds, unavailable)["type"] == RENAMED
        dead = a_rename(clouds)
        abandon(clouds, dead)
        assert clouds.invoke(DEAD_LETTERS, {"redrive": True}) == {"moved": 1}
        assert outcomes_of(clouds, dead)[0]["type"] == RENAMED
        until_quiescent(clouds)

    assert denied(clouds, work) == set()


@pytest.mark.parametrize("function", [QUEUE, HTTP])
def test_denied_action_of_a_function_is_found(clouds: Clouds, function: str) -> None:
    def work() -> None:
        clouds.start_anew(function)
        event = a_rename(clouds)
        if function == HTTP:
            clouds.post_rename_event(event)
        else:
            clouds.invoke(QUEUE, sqs_event(json.dumps(event)))

    with clouds.without(function, "dynamodb:GetItem"):
        assert denied(clouds, work) == {(function, "dynamodb:GetItem")}


@pytest.fixture(scope="module")
def insider(running_clouds: Clouds) -> Iterator[dict[str, str]]:
    """The key of a user of the account who may put events on every bus, and do everything with every queue."""
    statement = {"Effect": "Allow", "Action": ["events:PutEvents", "sqs:*"], "Resource": "*"}
    policy = {"Version": "2012-10-17", "Statement": [statement]}
    yield (key := new_user(running_clouds.aws, "insider", json.dumps(policy)))
    iam = running_clouds.aws.client("iam")
    iam.delete_access_key(UserName="insider", AccessKeyId=key["aws_access_key_id"])
    iam.delete_user_policy(UserName="insider", PolicyName="policy")
    iam.delete_user(UserName="insider")


def put_events(clouds: Clouds, key: dict[str, str], *sources: str) -> None:
    bus = clouds.stack.outputs["OutcomeBusName"]
    entries = [
        {"EventBusName": bus, "Source": source, "DetailType": RENAMED, "Detail": json.dumps({"type": RENAMED})}
        for source in sources
    ]
    assert clouds.aws.client("events", **key).put_events(Entries=entries)["FailedEntryCount"] == 0


@pytest.mark.parametrize("sources", [[OUTCOME_SOURCE], ["cmdb", OUTCOME_SOURCE], [OUTCOME_SOURCE, "cmdb"]])
def test_forged_outcome_of_a_user_who_may_put_events_is_refused(
    clouds: Clouds, insider: dict[str, str], sources: list[str]
) -> None:
    with pytest.raises(ClientError, match="AccessDenied"):
        put_events(clouds, insider, *sources)
    assert clouds.outcomes_so_far() == []


def test_event_of_another_source_is_accepted_by_the_outcome_bus(clouds: Clouds, insider: dict[str, str]) -> None:
    put_events(clouds, insider, "cmdb")


def send_as(clouds: Clouds, key: dict[str, str], url: str) -> None:
    event = a_rename(clouds)
    clouds.aws.client("sqs", **key).send_message(
        QueueUrl=url, MessageBody=json.dumps(event), MessageGroupId="group", MessageDeduplicationId=event["id"]
    )


@pytest.mark.parametrize("queue", [unsettled_queue, dead_letter_queue])
def test_dead_letter_queue_refuses_a_user_who_may_send_to_every_queue(
    clouds: Clouds, insider: dict[str, str], queue: Callable[[Clouds], str]
) -> None:
    with pytest.raises(ClientError, match="AccessDenied"):
        send_as(clouds, insider, queue(clouds))
    assert clouds.messages(queue(clouds)) == 0


def test_rename_queue_accepts_a_user_who_may_send_to_every_queue(clouds: Clouds, insider: dict[str, str]) -> None:
    send_as(clouds, insider, rename_queue(clouds))
    assert len(clouds.outcomes()) == 1


def test_dead_letter_queue_refuses_another_function_that_has_the_permission(clouds: Clouds) -> None:
    """Whose roles lack the permission anyway: given it, they are refused all the same."""
    iam, role = clouds.aws.client("iam"), clouds.stack.resources[f"{HTTP}Role"]
    queue = f"arn:aws:sqs:{clouds.aws.region}:{ACCOUNT}:{dead_letter_queue(clouds).rsplit('/', 1)[-1]}"
    statement = {"Effect": "Allow", "Action": "sqs:SendMessage", "Resource": queue}
    policy = {"Version": "2012-10-17", "Statement": [statement]}
    iam.put_role_policy(RoleName=role, PolicyName="more", PolicyDocument=json.dumps(policy))
    clouds.huawei.fail(**THROTTLED)
    try:
        with clouds.configured(HTTP, RENAME_QUEUE_URL=dead_letter_queue(clouds)):
            assert clouds.post_rename_event(a_rename(clouds)).status == 503
    finally:
        iam.delete_role_policy(RoleName=role, PolicyName="more")
    assert clouds.messages(dead_letter_queue(clouds)) == 0


def test_dead_letter_queue_accepts_what_sqs_moves(clouds: Clouds) -> None:
    """A redrive policy of SQS sends in no principal's name; then `SettleDeadLetters` forwards the message."""
    clouds.huawei.fail(**THROTTLED, times=None)
    with (
        receives(clouds, 1),
        clouds.queue_with(rename_queue(clouds), VisibilityTimeout="1"),
        clouds.without(QUEUE, "sqs:ChangeMessageVisibility"),
    ):
        clouds.send_rename_event(a_rename(clouds))
        until(lambda: clouds.messages(dead_letter_queue(clouds)) == 1, "the dead letter")
    clouds.huawei.reset()
    assert clouds.invoke(DEAD_LETTERS, {"redrive": True}) == {"moved": 1}
    assert clouds.outcomes(where=lambda outcome: bool(outcome["type"] == RENAMED))

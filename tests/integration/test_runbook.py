"""The runbook's commands, typed as they stand into bash with the AWS CLI, on the local clouds.

Of a query of CloudWatch Logs Insights, MiniStack computes what asks for fields that begin with an @, and takes the rest
as it comes: `tests/unit/template/test_operations.py` holds the fields of each query against what is logged.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from tests.commands import run
from tests.documents import blocks
from tests.localcloud.aws import ENVIRONMENTS
from tests.localcloud.stack import FUNCTIONS, SECRET, Clouds, Event, local_clouds, rename_event

SECONDS: Final = 240.0
# What the local clouds cannot run, by how it begins, and why.
NOT_HERE: Final = {
    "aws cloudformation cancel-update-stack ": "needs an update under way, and MiniStack's end at once",
    "KEY=$(parameter KmsKeyArn)": "for a stack with a key of its own, which has the queue that this is about",
    "MESSAGE=$(aws sqs receive-message ": "for a stack with a key of its own, which has the queue that this is about",
    "aws service-quotas request-service-quota-increase ": "MiniStack has no Service Quotas",
}
# As Lambda's runtime writes it where the function cannot start; MiniStack has a runtime of its own.
CRASH: Final = "[ERROR] SettingsError: HUAWEICLOUD_REGION is missing"
# Version 1 of the AWS CLI, which is the one that PyPI has, sends SQS's calls to AWS whatever AWS_ENDPOINT_URL says.
AWS_CLI: Final = """#!/bin/sh
[ "$1" != sqs ] || set -- "$@" --endpoint-url "$AWS_ENDPOINT_URL"
exec "{}" "$@"
"""


class Ran(NamedTuple):
    """What a block of commands did."""

    status: int
    stdout: str
    stderr: str


BLOCKS: Final = tuple(each.text for each in blocks("docs/runbook.md") if each.language == "bash")
# Those that the reader pastes first; all others need these and no other.
SET_UP: Final = BLOCKS[:2]
COMMANDS: Final = tuple(block for block in BLOCKS[2:] if not block.startswith(tuple(NOT_HERE)))


@pytest.fixture(scope="module")
def clouds() -> Iterator[Clouds]:
    """Clouds of their own, for commands change the stack. One function has crashed, each has two versions."""
    with local_clouds(parameters={"SetUpApiGatewayLogging": "true"}) as clouds:
        _log(clouds, "RenameFromHttpLogs", CRASH)
        client = clouds.aws.client("lambda")
        # The aliases serve a version: what is not published could not go back.
        for function in FUNCTIONS:
            name = clouds.stack.resources[function]
            client.update_function_configuration(FunctionName=name, Description="second")
            second = client.publish_version(FunctionName=name)["Version"]
            client.update_alias(FunctionName=name, Name="live", FunctionVersion=second)
        yield clouds


def _log(clouds: Clouds, group: str, line: str) -> None:
    client, name = clouds.aws.client("logs"), clouds.stack.resources[group]
    client.create_log_stream(logGroupName=name, logStreamName="crash")
    entry = {"timestamp": int(time.time() * 1000), "message": line}
    client.put_log_events(logGroupName=name, logStreamName="crash", logEvents=[entry])


@pytest.fixture(scope="module")
def dead_letter(clouds: Clouds) -> Event:
    clouds.huawei.add_service("070c4a63-8a62-448e-89ed-f2cbde8e6a3b", name="orders")
    event = rename_event("070c4a63-8a62-448e-89ed-f2cbde8e6a3b", "billing")
    url = clouds.stack.outputs["RenameDeadLetterQueueUrl"]
    # Its policy lets nobody but SettleDeadLetters send.
    with clouds.queue_with(url, Policy=""):
        clouds.aws.client("sqs").send_message(
            QueueUrl=url, MessageBody=json.dumps(event), MessageGroupId="group", MessageDeduplicationId=event["id"]
        )
    return event


@pytest.fixture(scope="module")
def ran(clouds: Clouds, dead_letter: Event, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ran]:
    """What each block did, in the order of the page, in one shell; nothing that a block sets reaches another one."""
    directory = tmp_path_factory.mktemp("runbook")
    (directory / "aws").write_text(AWS_CLI.format(ENVIRONMENTS / "awscli/bin/aws"))
    (directory / "aws").chmod(0o755)
    (directory / "key.json").write_text(json.dumps({"ak": "NEW", "sk": "new", "project_id": "project"}))
    script = ["set -euo pipefail", *SET_UP, "set +e"]
    for number, block in enumerate(COMMANDS):
        (directory / f"{number}.sh").write_text(block)
        script.append(f"(set -e; . ./{number}.sh) > {number}.out 2> {number}.err; echo $? > {number}.status")
    clouds.aws.client("cloudwatch").set_alarm_state(
        AlarmName=clouds.stack.resources["DeadLettersAlarm"], StateValue="ALARM", StateReason="1 >= 1"
    )

    environment = clouds.aws.sam_environment() | {"PATH": f"{directory}:/usr/bin:/bin"}
    done = run("/bin/bash", "-c", "\n".join(script), cwd=directory, env=environment, seconds=SECONDS)

    assert done.stderr == ""
    return {block: _ran(directory, number) for number, block in enumerate(COMMANDS)}


def _ran(directory: Path, number: int) -> Ran:
    status, stdout, stderr = ((directory / f"{number}.{end}").read_text() for end in ("status", "out", "err"))
    return Ran(int(status), stdout, stderr)


def of(ran: dict[str, Ran], *words: str) -> str:
    """What the one block with the words printed."""
    [printed] = [done.stdout for block, done in ran.items() if all(word in block for word in words)]
    return printed


def test_commands_that_are_not_run_here_are_in_the_runbook() -> None:
    assert len(COMMANDS) + len(NOT_HERE) == len(BLOCKS) - len(SET_UP)
    assert len(COMMANDS) > 25


@pytest.mark.parametrize("block", COMMANDS, ids=range(len(COMMANDS)))
def test_command_of_the_runbook_succeeds(block: str, ran: dict[str, Ran]) -> None:
    done = ran[block]

    assert (done.status, done.stderr) == (0, ""), f"{block}\n{done.stdout}"


def test_runbook_lists_the_alarms_that_are_on(ran: dict[str, Ran]) -> None:
    [line] = of(ran, "describe-alarms").splitlines()

    assert "DeadLettersAlarm" in line
    assert line.endswith("1 >= 1")


def test_runbook_counts_the_messages_of_a_queue(ran: dict[str, Ran]) -> None:
    assert of(ran, 'count "$DEAD_LETTER_QUEUE"', "receive-message").splitlines()[0] == "1\t0"


def test_runbook_shows_dead_letters_and_leaves_them(ran: dict[str, Ran], dead_letter: Event) -> None:
    assert dead_letter["id"] in of(ran, 'count "$DEAD_LETTER_QUEUE"', "receive-message")
    assert dead_letter["id"] in of(ran, "SentTimestamp")


def test_runbook_finds_why_a_function_does_not_start(ran: dict[str, Ran]) -> None:
    lines = of(ran, "fields @timestamp, @log, @message").splitlines()

    assert len(lines) == 1
    assert lines[0].endswith(f"@log=/aws/lambda/vpcep-rename-RenameFromHttp, @message={CRASH}")


def test_runbook_redrives_dead_letters(ran: dict[str, Ran], clouds: Clouds, dead_letter: Event) -> None:
    assert of(ran, "fileb://redrive.json") == 'None\n{"moved": 1}'
    [outcome] = clouds.outcomes()
    assert outcome["data"]["request"] == dead_letter


def test_runbook_moves_each_alias_back_a_version(ran: dict[str, Ran], clouds: Clouds) -> None:
    names = [clouds.stack.resources[function] for function in FUNCTIONS]

    assert of(ran, "update-alias").splitlines() == [line for name in names for line in (f"{name}: 2 -> 1", "1")]


def test_runbook_changes_single_parameters_and_leaves_the_others(ran: dict[str, Ran], clouds: Clouds) -> None:
    [stack] = clouds.aws.client("cloudformation").describe_stacks(StackName=clouds.stack.name)["Stacks"]
    parameters = {parameter["ParameterKey"]: parameter["ParameterValue"] for parameter in stack["Parameters"]}
    mapping = clouds.aws.client("lambda").get_event_source_mapping(
        UUID=clouds.stack.resources["RenameFromQueueRenameEvents"]
    )

    assert of(ran, "parameter GradualDeployment") == "false\n"
    assert (parameters["GradualDeployment"], parameters["MaxConcurrency"]) == ("true", "10")
    assert parameters["HuaweiCloudProjectId"] == clouds.account.project_id
    assert mapping["ScalingConfig"]["MaximumConcurrency"] == 10


def test_runbook_replaces_the_secret_and_restores_the_former(ran: dict[str, Ran], clouds: Clouds) -> None:
    client = clouds.aws.client("secretsmanager")

    assert of(ran, "put-secret-value") == "AWSCURRENT\n"
    assert json.loads(client.get_secret_value(SecretId=SECRET)["SecretString"])["ak"] == clouds.account.ak
    replaced = client.get_secret_value(SecretId=SECRET, VersionStage="AWSPREVIOUS")["SecretString"]
    assert json.loads(replaced)["ak"] == "NEW"


def test_runbook_stops_and_starts_the_queue(ran: dict[str, Ran]) -> None:
    asked = [done.stdout.splitlines()[-1] for block, done in ran.items() if "get-event-source-mapping" in block]

    assert set(asked) == {"Enabled"}
    assert of(ran, "--no-enabled") in {"Disabling\n", "Disabled\n"}
    assert of(ran, " --enabled") in {"Enabling\n", "Enabled\n"}

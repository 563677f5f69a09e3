"""The commands of README.md, docs/events.md, docs/deployment.md and docs/operations.md, typed as they stand into bash.

On local clouds, with version 1 of the AWS CLI. `tests/unit/documents/test_documents.py` says which command which test
runs, and which none does; the runbook's commands are in `test_runbook.py`.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Final

import pytest

from tests.commands import run
from tests.documents import block
from tests.integration.observer import key_of_producer, outcomes_by_event
from tests.integration.test_runbook import AWS_CLI
from tests.localcloud import __main__ as make_run
from tests.localcloud.aws import ENVIRONMENTS
from tests.localcloud.stack import FUNCTIONS, Clouds, local_clouds

SERVICE_ID: Final = "070c4a63-8a62-448e-89ed-f2cbde8e6a3b"
DEPLOYMENT: Final = "docs/deployment.md"

Shell = Callable[..., str]


@pytest.fixture(scope="module")
def clouds() -> Iterator[Clouds]:
    """Clouds of their own, for commands change the stack."""
    with local_clouds() as clouds:
        clouds.huawei.add_service(SERVICE_ID, name="billing")
        yield clouds


@pytest.fixture
def shell(clouds: Clouds, tmp_path: Path) -> Shell:
    """Runs a script in the checkout, with variables as given; what it printed."""
    (tmp_path / "aws").write_text(AWS_CLI.format(ENVIRONMENTS / "awscli/bin/aws"))
    (tmp_path / "aws").chmod(0o755)
    environment = clouds.aws.sam_environment() | {
        "PATH": f"{tmp_path}:/usr/bin:/bin",
        "CURL_CA_BUNDLE": str(clouds.aws.ca),
        "AWS_PAGER": "",
    }

    def typed(script: str, **variables: str) -> str:
        done = run("/bin/bash", "-euo", "pipefail", "-c", script, env=environment | variables, seconds=120)
        assert done.stderr == "", script
        return done.stdout

    return typed


# ---- README.md and docs/events.md


def test_documented_command_renames_through_the_queue(clouds: Clouds, shell: Shell) -> None:
    command = block("README.md", "aws sqs send-message ")
    assert command == block("docs/events.md", "aws sqs send-message ")

    shell(command, RENAME_QUEUE_URL=clouds.stack.outputs["RenameQueueUrl"], **key_of_producer(clouds))

    [outcome] = outcomes_by_event(clouds, "5a4d6f3e-2b7c-4d0e-9a51-3c1f8e7b6d20").values()
    assert outcome["data"]["service_name"] == "orders"


def test_documented_command_renames_through_http(clouds: Clouds, shell: Shell) -> None:
    command = block("docs/events.md", 'curl "$RENAME_API_URL" ')
    without_session = re.sub(r'-H "x-amz-security-token: [^"]*" ', "", command)  # as the document says for such a key
    assert without_session != command

    reply = shell(
        f"{without_session.rstrip()} --silent --show-error",
        RENAME_API_URL=clouds.rename_api_url,
        AWS_REGION=clouds.aws.region,
        **key_of_producer(clouds),
    )

    assert json.loads(reply)["type"] == "vpcep.endpoint_service.renamed.v1"


def _without_figures(lines: str) -> list[str]:
    return [re.sub(r"after [0-9.]+ s", "after … s", line) for line in lines.splitlines()]


def test_make_run_prints_the_documented_lines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HUAWEICLOUD_SDK_AK", raising=False)  # with a key it would rename for real
    documented = _without_figures(block("README.md", "1. A rename through the queue"))

    assert make_run.main() == 0

    printed = _without_figures(capsys.readouterr().out)
    assert [line for line in documented if line not in printed] == []


# ---- docs/deployment.md


def test_documented_command_creates_the_secret(clouds: Clouds, shell: Shell) -> None:
    name = f"documented-{uuid.uuid4()}"
    command = block(DEPLOYMENT, "aws secretsmanager create-secret ")

    created = json.loads(shell(command.replace("huaweicloud", name)))

    secret = clouds.aws.client("secretsmanager").get_secret_value(SecretId=created["ARN"])["SecretString"]
    assert json.loads(secret).keys() == {"ak", "sk", "project_id"}


def test_documented_command_lists_the_roles_of_the_functions(shell: Shell) -> None:
    command = block(DEPLOYMENT, "aws cloudformation describe-stack-resources --stack-name vpcep-rename \\\n")

    roles = json.loads(shell(command))

    assert {role for function in FUNCTIONS for role in roles if f"-{function}Role" in role} == set(roles)
    assert len(roles) == len(FUNCTIONS)


@pytest.fixture
def issuer(tmp_path: Path) -> Iterator[str]:
    """The URL of an issuer with keys of two types."""
    (tmp_path / ".well-known").mkdir()
    keys = [{"kty": "RSA", "kid": "1"}, {"kty": "EC", "kid": "2"}]
    (tmp_path / ".well-known/jwks.json").write_text(json.dumps({"keys": keys}))

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(tmp_path))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_documented_command_selects_the_rsa_keys_of_the_issuer(issuer: str, shell: Shell) -> None:
    printed = shell(block(DEPLOYMENT, "curl -s "), ISSUER_IDENTIFIER=issuer)

    assert json.loads(printed) == {"keys": [{"kty": "RSA", "kid": "1"}]}


def test_documented_commands_make_and_show_an_api_key(clouds: Clouds, shell: Shell) -> None:
    apis = clouds.aws.client("apigateway")
    plan = apis.create_usage_plan(name="documented")["id"]

    value = shell(block(DEPLOYMENT, "key=$(aws apigateway create-api-key "), USAGE_PLAN_ID=plan).split()[-1]

    [key] = apis.get_usage_plan_keys(usagePlanId=plan)["items"]
    assert apis.get_api_key(apiKey=key["id"], includeValue=True)["value"] == value


def test_documented_command_shows_the_role_for_access_logs(shell: Shell) -> None:
    assert shell(block(DEPLOYMENT, "aws apigateway get-account ")).strip()


def test_documented_command_shows_the_concurrency_limits(shell: Shell) -> None:
    limits = json.loads(shell(block(DEPLOYMENT, "aws lambda get-account-settings ")))

    assert [type(limit) for limit in limits] == [int, int]


def test_documented_command_lists_what_a_deleted_stack_leaves(clouds: Clouds, shell: Shell) -> None:
    command = block(DEPLOYMENT, "aws cloudformation describe-stack-resources --stack-name vpcep-rename --output")

    kept = shell(command).split()

    names = ("RenameQueue", "UnsettledQueue", "RenameDeadLetterQueue", "LedgerTable")
    assert sorted(kept) == sorted(clouds.stack.resources[name] for name in names)


def test_documented_shell_function_prints_the_physical_name_of_a_resource(clouds: Clouds, shell: Shell) -> None:
    script = block(DEPLOYMENT, "STACK=vpcep-rename")

    assert shell(f"{script}\nresource LedgerTable").strip() == clouds.stack.resources["LedgerTable"]


def test_documented_commands_delete_the_rules_of_the_bus(clouds: Clouds, shell: Shell) -> None:
    """The last of these tests: it deletes the rule that the outcomes of the others are read by."""
    events, bus = clouds.aws.client("events"), clouds.stack.outputs["OutcomeBusName"]
    assert events.list_rules(EventBusName=bus)["Rules"] != []

    shell(block(DEPLOYMENT, "bus=vpcep-rename-outcomes"))

    assert [rule["Name"] for rule in events.list_rules(EventBusName=bus)["Rules"] if not rule.get("ManagedBy")] == []


# ---- docs/operations.md


def test_documented_command_subscribes_an_endpoint_to_the_alarms(clouds: Clouds, shell: Shell) -> None:
    topic = clouds.stack.outputs["AlarmTopicArn"]
    command = block("docs/operations.md", "aws sns subscribe ").replace("https://…", "https://127.0.0.1:9/")

    shell(command, ALARM_TOPIC_ARN=topic)

    [subscription] = clouds.aws.client("sns").list_subscriptions_by_topic(TopicArn=topic)["Subscriptions"]
    assert subscription["Protocol"] == "https"

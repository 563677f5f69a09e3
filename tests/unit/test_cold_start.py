"""What a cold start does without: imports that only some events need, and requests that none does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import function
from function import settings
from tests.fakes.aws import FakeAws
from tests.fakes.environment import ENVIRONMENT
from tests.fakes.events import cloud_event, http_request, sqs_record
from tests.fakes.identifiers import PROJECT, SERVICE
from tests.fakes.lambda_context import FakeContext
from tests.localcloud.huawei import HuaweiCloud

LATER = {
    # What talks to AWS by its models, which take a hundred milliseconds to read.
    *("boto3", "botocore.client", "botocore.credentials", "botocore.loaders", "botocore.session", "s3transfer"),
    # What an outage calls for.
    "aws_lambda_powertools.utilities.circuit_breaker",
    # What only one trigger needs.
    *("function.triggers.dead_letters", "function.triggers.http", "function.triggers.sqs"),
    # What nobody needs.
    *("asyncio", "aws_lambda_powertools.event_handler", "aws_lambda_powertools.utilities.batch", "aws_xray_sdk"),
    *("aws_lambda_powertools.utilities.data_classes", "aws_lambda_powertools.utilities.idempotency"),
    *("aws_lambda_powertools.utilities.parameters", "multiprocessing"),
}
KEY = {
    "ak": ENVIRONMENT["HUAWEICLOUD_SDK_AK"],
    "sk": ENVIRONMENT["HUAWEICLOUD_SDK_SK"],
    "project_id": PROJECT,
}
SECRET = {"HUAWEICLOUD_CREDENTIALS_SECRET": "huawei"}
KEYLESS = {"HUAWEICLOUD_SDK_AK": "", "HUAWEICLOUD_SDK_SK": "", "HUAWEICLOUD_SDK_IDP_ID": "aws"}


def run(script: str, **environment: str) -> str:
    """What a process prints."""
    lambda_sets = {"AWS_REGION": "eu-west-1", "AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local"}
    root = str(Path(function.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": root}
        | ENVIRONMENT
        | lambda_sets
        | {"LEDGER_TABLE": "ledger"}
        | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout


def imported(*modules: str, **environment: str) -> set[str]:
    """All that a process has imported that imports these."""
    return set(run(f"import sys, {', '.join(modules)}; print(*sys.modules)", **environment).split())


class TestImports:
    @pytest.mark.parametrize("environment", [{}, SECRET, KEYLESS], ids=["key", "secret", "keyless"])
    def test_of_the_handler_leave_for_later_what_not_all_need(self, environment: dict[str, str]) -> None:
        assert imported("function.app", **environment) & LATER == set()

    def test_of_the_queues_triggers_leave_out_those_of_http(self) -> None:
        found = imported("function.app", "function.triggers.sqs", "function.triggers.dead_letters")

        assert found & LATER == {"function.triggers.dead_letters", "function.triggers.sqs"}

    def test_of_the_http_trigger_leave_out_those_of_the_queue(self) -> None:
        found = imported("function.app", "function.triggers.http")

        assert found & LATER == {"function.triggers.http"}

    def test_for_a_temporary_key_cost_those_with_a_key_none(self) -> None:
        """What it takes is what the SDK brings anyway, and a few lines."""
        assert imported("function.app", **KEYLESS) == imported("function.app")

    def test_that_are_left_for_later_exist(self) -> None:
        """Else a name that changes would be left out for ever."""
        absent = {"aws_xray_sdk"}

        assert imported(*LATER - absent) >= LATER - absent


class TestGarbageCollection:
    SCRIPT = """
import gc
runs = []
gc.callbacks.append(lambda phase, info: runs.append(info["generation"]))
import function.app
print(len(runs), gc.isenabled(), gc.get_freeze_count())
"""

    def test_waits_for_the_imports_and_leaves_out_what_they_made(self) -> None:
        runs, is_enabled, frozen = run(self.SCRIPT).split()

        assert int(runs) < 10
        assert is_enabled == "True"
        assert int(frozen) > 10_000


@pytest.fixture
def handler(app: ModuleType, aws: FakeAws, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Of a function with a ledger, in a new environment."""
    with_ledger = {"LEDGER_TABLE": "ledger", "AWS_ENDPOINT_URL": aws.url}
    for operation in ("GetItem", "TransactWriteItems"):
        aws.answer(operation, {}, times=None)

    def start(cloud: HuaweiCloud, **environment: str) -> Callable[..., Any]:
        local = with_ledger | {"VPCEP_ENDPOINT": cloud.url}
        function = app.Function(settings.load(ENVIRONMENT | local | environment))
        monkeypatch.setattr(app, "_function", function)
        return app.handler  # type: ignore[no-any-return]

    return start


class TestRequests:
    SETTLING = ("TransactWriteItems", "TransactWriteItems", "PutEvents")

    @pytest.mark.parametrize("trigger", ["sqs", "http"])
    def test_are_those_that_the_event_needs_and_one_look_at_the_ledger(
        self, handler: Callable[..., Any], aws: FakeAws, trigger: str
    ) -> None:
        with local_huawei() as cloud:
            handle = handler(cloud)
            for _ in range(2):
                handle(event_of(trigger), FakeContext())

        assert [call.operation for call in aws.calls] == ["GetItem", *self.SETTLING, *self.SETTLING]
        assert [call.operation for call in cloud.calls] == ["rename", "rename"]

    def test_begin_with_the_secret_where_there_is_one(self, handler: Callable[..., Any], aws: FakeAws) -> None:
        with local_huawei() as cloud:
            aws.secret = json.dumps(KEY)
            handle = handler(cloud, **SECRET)
            for _ in range(2):
                handle(event_of("sqs"), FakeContext())

        settling = list(self.SETTLING)
        assert [call.operation for call in aws.calls] == ["GetItem", "GetSecretValue", *settling, *settling]


def local_huawei() -> HuaweiCloud:
    region = ENVIRONMENT["HUAWEICLOUD_REGION"]
    cloud = HuaweiCloud(ak=KEY["ak"], sk=KEY["sk"], project_id=KEY["project_id"], region=region)
    cloud.add_service(SERVICE, "billing")
    return cloud


def event_of(trigger: str) -> dict[str, Any]:
    event = cloud_event(time="2020-01-01T00:00:00Z")
    return {"Records": [sqs_record(event)]} if trigger == "sqs" else http_request(event)

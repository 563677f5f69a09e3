"""What a cold start does without: imports that only some events need, and requests that none does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.fakes.aws import FakeAws
from tests.fakes.environment import ENVIRONMENT, KEYLESS, SECRET, SECRET_VALUE
from tests.fakes.events import cloud_event, http_request, sqs_record
from tests.fakes.lambda_context import FakeContext
from tests.fakes.process import run_python
from tests.localcloud.huawei import HuaweiCloud

LATER = {
    # What talks to AWS by its models, which take a hundred milliseconds to read.
    *("boto3", "botocore.client", "botocore.credentials", "botocore.loaders", "botocore.session", "s3transfer"),
    # What an outage calls for.
    "aws_lambda_powertools.utilities.circuit_breaker",
    # What only one trigger needs.
    *("function.triggers.dead_letters", "function.triggers.http", "function.triggers.sqs"),
    # What no event needs.
    *("asyncio", "aws_lambda_powertools.event_handler", "aws_lambda_powertools.utilities.batch", "aws_xray_sdk"),
    *("aws_lambda_powertools.utilities.data_classes", "aws_lambda_powertools.utilities.idempotency"),
    *("aws_lambda_powertools.utilities.parameters", "multiprocessing"),
}


def run(script: str, **environment: str) -> str:
    """What a process prints."""
    process = run_python(script, ENVIRONMENT | {"LEDGER_TABLE": "ledger"} | environment)
    assert process.returncode == 0, process.stderr
    return process.stdout


def imported(*modules: str, **environment: str) -> set[str]:
    """All that a process has imported that imports these."""
    return set(run(f"import sys, {', '.join(modules)}; print(*sys.modules)", **environment).split())


@pytest.mark.parametrize("environment", [{}, SECRET, KEYLESS], ids=["key", "secret", "keyless"])
def test_handler_does_not_import_what_not_all_events_need(environment: dict[str, str]) -> None:
    assert imported("function.app", **environment) & LATER == set()


@pytest.mark.parametrize("triggers", [{"sqs", "dead_letters"}, {"http"}], ids=["queues", "HTTP"])
def test_trigger_does_not_import_what_only_other_triggers_need(triggers: set[str]) -> None:
    modules = {f"function.triggers.{trigger}" for trigger in triggers}

    assert imported("function.app", *modules) & LATER == modules


def test_temporary_key_needs_no_further_import() -> None:
    """What it takes is what the SDK brings anyway, and a few lines."""
    assert imported("function.app", **KEYLESS) == imported("function.app")


def test_modules_that_are_imported_later_exist() -> None:
    """Else a name that changes would be left out for ever."""
    absent = {"aws_xray_sdk"}

    assert imported(*LATER - absent) >= LATER - absent


GARBAGE_COLLECTION = """
import gc
runs = []
gc.callbacks.append(lambda phase, info: runs.append(info["generation"]))
import function.app
print(len(runs), gc.isenabled(), gc.get_freeze_count())
"""


def test_garbage_collection_is_off_during_imports_and_skips_their_objects() -> None:
    runs, is_enabled, frozen = run(GARBAGE_COLLECTION).split()

    assert int(runs) < 30  # else 80 on Python 3.13 and 240 on 3.11
    assert is_enabled == "True"
    assert int(frozen) > 10_000


@pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning")
@pytest.mark.parametrize(
    ("trigger", "secret"), [("sqs", {}), ("http", {}), ("sqs", SECRET)], ids=["sqs", "http", "sqs with a secret"]
)
def test_cold_start_adds_one_read_of_the_ledger_and_of_the_secret(
    handler_with: Callable[..., Any], aws: FakeAws, cloud: HuaweiCloud, trigger: str, secret: dict[str, str]
) -> None:
    aws.secret = SECRET_VALUE
    for operation in ("GetItem", "TransactWriteItems"):
        aws.answer(operation, {}, times=None)
    event = cloud_event(time="2020-01-01T00:00:00Z")
    request = {"Records": [sqs_record(event)]} if trigger == "sqs" else http_request(event)

    handler = handler_with(VPCEP_ENDPOINT=cloud.url, LEDGER_TABLE="ledger", **secret)
    for _ in range(2):
        handler(request, FakeContext())

    settling = ["TransactWriteItems", "TransactWriteItems", "PutEvents"]
    first = ["GetItem", "GetSecretValue"] if secret else ["GetItem"]
    assert [call.operation for call in aws.calls] == [*first, *settling, *settling]
    assert [call.operation for call in cloud.calls] == ["rename", "rename"]

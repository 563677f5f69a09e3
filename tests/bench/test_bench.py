"""The deterministic parts of the benchmark: the handlers that it compares with, the model, and the stored results.

No test depends on how long anything takes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from tests.bench import __main__ as bench
from tests.bench import scale
from tests.bench.report import table, to_json
from tests.fakes.aws import FakeAws
from tests.fakes.environment import ENVIRONMENT, local_huawei_cloud
from tests.fakes.process import run_python
from tests.integration.lambda_events import proxy_event, sqs_event
from tests.localcloud.aws import ROOT
from tests.localcloud.huawei import HuaweiCloud
from tests.localcloud.stack import rename_event
from tests.template import RESOURCES, TEMPLATE, of_type

BENCH = Path(__file__).parent
SERVICE = "070c4a63-8a62-448e-89ed-f2cbde8e6a3b"
OTHER_SERVICE = "5b1c4a63-8a62-448e-89ed-f2cbde8e6a3b"
RENAMED = "vpcep.endpoint_service.renamed.v1"
RENAME_FAILED = "vpcep.endpoint_service.rename_failed.v1"
CALL = """
import json, sys
from types import SimpleNamespace
import app
context = SimpleNamespace(
    function_name="function", memory_limit_in_mb=512, invoked_function_arn="arn", aws_request_id="request",
    get_remaining_time_in_millis=lambda: 60_000,
)
print(json.dumps([app.handler(event, context) for event in json.load(sys.stdin)]))
"""


@pytest.fixture
def aws() -> Iterator[FakeAws]:
    with FakeAws() as aws:
        for operation in ("PutItem", "UpdateItem", "DeleteItem"):
            aws.answer(operation, {}, times=None)
        yield aws


@pytest.fixture
def huawei() -> Iterator[HuaweiCloud]:
    with local_huawei_cloud() as cloud:
        cloud.add_service(SERVICE, "accounts")
        cloud.add_service(OTHER_SERVICE, "accounts")
        yield cloud


def invoke(handler: str, aws: FakeAws, huawei: HuaweiCloud, *events: dict[str, Any]) -> list[Any]:
    """The responses of a handler in a process of its own."""
    environment = ENVIRONMENT | {
        "AWS_ENDPOINT_URL": aws.url,
        "HUAWEICLOUD_SDK_REGION_VPCEP_CN_NORTH_4": huawei.url,
        "LEDGER_TABLE": "ledger",
        "PYTHONPATH": str(BENCH / handler),
    }
    done = run_python(CALL, environment, json.dumps(events))
    assert done.returncode == 0, done.stderr
    return list(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("handler", ["peer", "floor"])
def test_handler_renames_from_both_triggers(handler: str, aws: FakeAws, huawei: HuaweiCloud) -> None:
    from_queue, from_http = rename_event(SERVICE, "orders"), rename_event(OTHER_SERVICE, "billing")

    queue_answer, http_answer = invoke(
        handler, aws, huawei, sqs_event(json.dumps(from_queue)), proxy_event(json.dumps(from_http))
    )

    assert (queue_answer, http_answer["statusCode"]) == ({"batchItemFailures": []}, 200)
    assert (huawei.name_of(SERVICE), huawei.name_of(OTHER_SERVICE)) == ("orders", "billing")
    puts = aws.calls_of("PutEvents")
    assert [put["Entries"][0]["DetailType"] for put in puts] == [RENAMED, RENAMED]


# ---- The peer, which does what the function does, as far as its packages support that


def invoke_peer(aws: FakeAws, huawei: HuaweiCloud, *events: dict[str, Any]) -> list[Any]:
    """The responses; all outcomes conform to the contract."""
    responses = invoke("peer", aws, huawei, *events)
    validator = Draft202012Validator(json.loads((ROOT / "function/contract/outcome.schema.json").read_text()))
    for outcome in aws.outcomes:
        validator.validate(outcome)
    return responses


def test_peer_renames_in_both_modes_and_reads_for_a_precondition(aws: FakeAws, huawei: HuaweiCloud) -> None:
    event = rename_event(SERVICE, "orders", expected_name="accounts")
    binary = rename_event(SERVICE, "billing")["data"]

    invoke_peer(aws, huawei, *(sqs_event(json.dumps(content)) for content in (event, binary)))

    assert [outcome["type"] for outcome in aws.outcomes] == [RENAMED, RENAMED]
    assert [outcome["data"]["request"]["data"] for outcome in aws.outcomes] == [event["data"], binary]
    assert [call.operation for call in huawei.calls] == ["read", "rename", "rename"]


def test_peer_publishes_a_failure_with_its_code(aws: FakeAws, huawei: HuaweiCloud) -> None:
    events = {
        "EndPoint.2003": rename_event("no-such-service", "orders"),
        "Rename.PreconditionFailed": rename_event(SERVICE, "orders", expected_name="other"),
        "Rename.InvalidEvent": rename_event(SERVICE, "not a name"),
    }

    responses = invoke_peer(aws, huawei, *(sqs_event(json.dumps(event)) for event in events.values()))

    assert responses == [{"batchItemFailures": []}] * len(events)
    assert {outcome["type"] for outcome in aws.outcomes} == {RENAME_FAILED}
    assert [outcome["data"]["error"]["code"] for outcome in aws.outcomes] == list(events)


def test_peer_returns_the_rest_of_a_group_after_an_unsettled_message(aws: FakeAws, huawei: HuaweiCloud) -> None:
    huawei.fail(503, "APIGW.0613", times=1)
    event = sqs_event(*(json.dumps(rename_event(SERVICE, name)) for name in ("first", "second", "third")))
    event["Records"].insert(0, sqs_event(json.dumps("no event"), group="another")["Records"][0])

    [response] = invoke_peer(aws, huawei, event)

    unsettled = [record["messageId"] for record in event["Records"][1:]]
    assert [failure["itemIdentifier"] for failure in response["batchItemFailures"]] == unsettled
    assert huawei.name_of(SERVICE) == "accounts"
    assert len(aws.calls_of("DeleteItem")) == 1  # so that the message can be received again


def test_peer_has_the_packages_and_the_schema_of_the_function() -> None:
    assert (BENCH / "peer/requirements.txt").read_text().splitlines()[-1] == "-r ../../../requirements.txt"
    schema = ROOT / "function/contract/rename-event.schema.json"
    assert (BENCH / "peer/rename-event.schema.json").resolve() == schema


# ---- The model of scale

DEPLOYMENT = scale.Deployment(
    max_concurrency=20,
    memory_mib=scale.MIB_OF_A_CORE,
    huawei_calls_a_second=10_000.0,
    write_units_a_second=1_000_000.0,
    huawei_seconds=0.17,
    aws_seconds=0.01,
    cpu_seconds=0.03,
    cold_start_seconds=0.0,
)


@pytest.mark.parametrize(("groups", "seconds"), [(None, 0.2), (5, 2 * 0.2), (3, 4 * 0.2)])
def test_batch_takes_the_latency_of_its_longest_group_and_all_cpu_time(groups: int | None, seconds: float) -> None:
    assert math.isclose(DEPLOYMENT.batch_seconds(10, groups), seconds + 10 * 0.03)


def test_half_the_memory_doubles_the_cpu_time() -> None:
    half = replace(DEPLOYMENT, memory_mib=scale.MIB_OF_A_CORE // 2)

    assert math.isclose(half.batch_seconds(10), 0.2 + 2 * 10 * 0.03, rel_tol=1e-3)


@pytest.mark.parametrize(
    ("events", "changes", "limit", "rate", "seconds"),
    [
        # 20 renames a second and environment: 5 environments at once, 20 after three seconds with 750 renames done.
        pytest.param(10_750, {}, "MaximumConcurrency", 400, 3 + 10_000 / 400, id="concurrency"),
        # After one second there are ten environments, and 20 * (5 + 2.5) renames are done.
        pytest.param(150, {}, "Lambda's growth", 200, 1, id="growth of the concurrency"),
        pytest.param(1_000, {"huawei_calls_a_second": 50.0}, "Huawei Cloud's quota", 50, 20, id="quota"),
        pytest.param(
            1_000,
            {"write_units_a_second": 50.0 * scale.write_units()},
            "DynamoDB's write units",
            50,
            20,
            id="write units",
        ),
        pytest.param(
            1_000, {"services": 1}, "order within a service", 1 / 0.23, 1_000 * (0.2 + 0.03), id="one service"
        ),
        pytest.param(1, {}, "order within a service", 1 / 0.23, 0.2 + 0.03, id="one event"),
    ],
)
def test_backlog_drains_at_the_rate_of_its_lowest_limit(
    events: int, changes: dict[str, Any], limit: str, rate: float, seconds: float
) -> None:
    drained = scale.drain(events, replace(DEPLOYMENT, **changes))

    assert drained.limit == limit
    assert math.isclose(drained.rate, rate)
    assert math.isclose(drained.seconds, seconds)


@pytest.mark.parametrize("scenario", scale.SCENARIOS)
def test_larger_backlog_never_drains_faster(scenario: str) -> None:
    seconds = [scale.drain(2**power, scale.SCENARIOS[scenario]).seconds for power in range(24)]

    assert seconds == sorted(seconds)


def test_prices_of_a_million_renames_through_the_queue() -> None:
    prices = scale.prices(DEPLOYMENT, batch_size=10, renames=1_000_000)

    assert scale.write_units() == 2 + 2 + 4 + 2
    assert math.isclose(prices["DynamoDB, transactional writes"], 10 * 0.625)
    assert math.isclose(prices["SQS, send one by one, receive and delete in batches"], 1.2 * 0.5)
    assert math.isclose(prices["Lambda, requests"], 0.1 * 0.2)
    gb_seconds = 100_000 * 0.5 * scale.MIB_OF_A_CORE / 1024
    assert math.isclose(prices["Lambda, GB-seconds"], gb_seconds * scale.LAMBDA_GB_SECOND)
    archived_gb = 1.4e9 / 2**30
    assert math.isclose(prices["EventBridge, archive for 35 days"], archived_gb * (0.1 + 35 / 30 * 0.023))
    assert prices["API Gateway, requests"] == 0


def test_prices_by_http_differ_in_the_api_the_queue_and_the_logs() -> None:
    by_queue = scale.prices(DEPLOYMENT, batch_size=1)
    by_http = scale.prices(DEPLOYMENT, batch_size=1, by_http=True)

    others = {"API Gateway, requests", "SQS, send one by one, receive and delete in batches", "CloudWatch, logs"}
    assert {part for part in by_http if by_http[part] != by_queue[part]} == others
    assert math.isclose(by_http["API Gateway, requests"], 3.5)
    assert by_http["SQS, send one by one, receive and delete in batches"] == 0


def test_price_of_a_month_includes_polling_of_empty_queues() -> None:
    [polling] = [price for part, price in scale.monthly().items() if part.startswith("SQS")]

    assert math.isclose(polling, 2 * 5 * 3 * 60 * 24 * 30 * 0.5e-6)


def test_model_counts_the_alarms_of_the_template() -> None:
    alarms = [alarm for name, alarm in of_type("AWS::CloudWatch::Alarm").items() if "Condition" not in RESOURCES[name]]
    metrics = [
        len([query for query in alarm.get("Metrics", [{"MetricStat": {}}]) if "MetricStat" in query])
        for alarm in alarms
    ]

    assert (len(alarms), sum(metrics)) == (scale.ALARMS, scale.ALARM_METRICS)


def test_model_has_the_defaults_of_the_template() -> None:
    concurrency = TEMPLATE["Parameters"]["MaxConcurrency"]["Default"]
    memory = [RESOURCES[name]["Properties"]["MemorySize"] for name in ("RenameFromQueue", "RenameFromHttp")]

    assert concurrency == scale.AS_DEPLOYED.max_concurrency
    assert memory == [scale.AS_DEPLOYED.memory_mib, scale.HTTP_AS_DEPLOYED.memory_mib]


# ---- The stored results, and docs/performance.md

RESULTS = json.loads(bench.RESULTS.read_text())
DOCUMENT = (ROOT / "docs/performance.md").read_text()


def test_stored_results_are_complete() -> None:
    schema = json.loads((BENCH / "results.schema.json").read_text())
    Draft202012Validator.check_schema(schema)
    Draft202012Validator(schema).validate(RESULTS)
    cold_starts = [samples for by_name in RESULTS["cold_start_ms"].values() for samples in by_name.values()]
    assert all(len(samples) == RESULTS["runs"] for samples in cold_starts)


def test_only_the_package_of_the_peer_lacks_bytecode() -> None:
    has_bytecode = {name: package["bytecode"] for name, package in RESULTS["packages"].items()}

    assert has_bytecode == {"ours": True, "peer": False, "floor": True}


def test_results_are_stored_in_the_format_of_make_bench() -> None:
    assert to_json(RESULTS) == bench.RESULTS.read_text()


def test_document_shows_the_stored_results() -> None:
    header, _, rows_ = table(RESULTS).partition("\n\n")

    assert header in " ".join(DOCUMENT.split())
    assert rows_ in DOCUMENT


def test_document_shows_the_tables_of_the_model() -> None:
    assert scale.drain_table() in DOCUMENT
    assert scale.price_table() in DOCUMENT


@pytest.mark.parametrize("name", ["cold-start", "batch", "backlog", "memory", "drain"])
def test_document_shows_a_small_svg_of_each_plot(name: str) -> None:
    path = BENCH / "plots" / f"{name}.svg"

    assert f"(../tests/bench/plots/{name}.svg)" in DOCUMENT
    assert "<svg " in path.read_text()
    assert path.stat().st_size < 100_000

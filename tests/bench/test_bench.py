"""What of the benchmark is deterministic: the handlers it measures against, the model, and that the results are kept.

How long anything takes is no test.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from tests.bench import __main__ as bench
from tests.bench import scale
from tests.bench.report import rows, table
from tests.fakes.aws import FakeAws
from tests.integration.lambda_events import proxy_event, sqs_event
from tests.localcloud.aws import ROOT
from tests.localcloud.huawei import HuaweiCloud
from tests.localcloud.stack import LOCAL_ACCOUNT, rename_event
from tests.template import RESOURCES, of_type

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
    account = LOCAL_ACCOUNT
    with HuaweiCloud(ak=account.ak, sk=account.sk, project_id=account.project_id, region=account.region) as cloud:
        cloud.add_service(SERVICE, "accounts")
        cloud.add_service(OTHER_SERVICE, "accounts")
        yield cloud


def invoke(handler: str, aws: FakeAws, huawei: HuaweiCloud, *events: dict[str, Any]) -> list[Any]:
    """The answers of a handler in a process of its own."""
    account = LOCAL_ACCOUNT
    done = subprocess.run(
        [sys.executable, "-c", CALL],
        cwd=BENCH / handler,
        env={
            "AWS_ENDPOINT_URL": aws.url,
            "AWS_DEFAULT_REGION": "eu-west-1",
            "AWS_ACCESS_KEY_ID": "local",
            "AWS_SECRET_ACCESS_KEY": "local",
            "HUAWEICLOUD_REGION": account.region,
            "HUAWEICLOUD_SDK_AK": account.ak,
            "HUAWEICLOUD_SDK_SK": account.sk,
            "HUAWEICLOUD_SDK_PROJECT_ID": account.project_id,
            "HUAWEICLOUD_SDK_REGION_VPCEP_CN_NORTH_4": huawei.url,
            "OUTCOME_BUS": "outcomes",
            "LEDGER_TABLE": "ledger",
            "POWERTOOLS_SERVICE_NAME": "vpcep-rename",
            "POWERTOOLS_METRICS_NAMESPACE": "VpcepRename",
        },
        input=json.dumps(events),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
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


class TestPeer:
    """It does what the function does, as far as its packages do it for it."""

    @pytest.fixture(autouse=True)
    def _outcomes_keep_the_contract(self, aws: FakeAws) -> Iterator[None]:
        yield
        schema = json.loads((ROOT / "function/contract/outcome.schema.json").read_text())
        for outcome in aws.outcomes:
            Draft202012Validator(schema).validate(outcome)

    def test_success(self, aws: FakeAws, huawei: HuaweiCloud) -> None:
        event = rename_event(SERVICE, "orders", expected_name="accounts")
        binary = rename_event(SERVICE, "billing")["data"]

        invoke("peer", aws, huawei, *(sqs_event(json.dumps(content)) for content in (event, binary)))

        assert [outcome["type"] for outcome in aws.outcomes] == [RENAMED, RENAMED]
        assert [outcome["data"]["request"]["data"] for outcome in aws.outcomes] == [event["data"], binary]
        assert [call.operation for call in huawei.calls] == ["read", "rename", "rename"]

    def test_failure(self, aws: FakeAws, huawei: HuaweiCloud) -> None:
        events = {
            "EndPoint.2003": rename_event("no-such-service", "orders"),
            "Rename.PreconditionFailed": rename_event(SERVICE, "orders", expected_name="other"),
            "Rename.InvalidEvent": rename_event(SERVICE, "not a name"),
        }

        answers = invoke("peer", aws, huawei, *(sqs_event(json.dumps(event)) for event in events.values()))

        assert answers == [{"batchItemFailures": []}] * len(events)
        assert {outcome["type"] for outcome in aws.outcomes} == {RENAME_FAILED}
        assert [outcome["data"]["error"]["code"] for outcome in aws.outcomes] == list(events)

    def test_a_later_message_of_a_group_does_not_overtake(self, aws: FakeAws, huawei: HuaweiCloud) -> None:
        huawei.fail(503, "APIGW.0613", times=1)
        event = sqs_event(*(json.dumps(rename_event(SERVICE, name)) for name in ("first", "second", "third")))
        event["Records"].insert(0, sqs_event(json.dumps("no event"), group="another")["Records"][0])

        [answer] = invoke("peer", aws, huawei, event)

        unsettled = [record["messageId"] for record in event["Records"][1:]]
        assert [failure["itemIdentifier"] for failure in answer["batchItemFailures"]] == unsettled
        assert huawei.name_of(SERVICE) == "accounts"
        assert len(aws.calls_of("DeleteItem")) == 1  # so that the message can come again

    def test_has_the_packages_and_the_schema_of_the_function(self) -> None:
        assert (BENCH / "peer/requirements.txt").read_text().splitlines()[-1] == "-r ../../../requirements.txt"
        schema = ROOT / "function/contract/rename-event.schema.json"
        assert (BENCH / "peer/rename-event.schema.json").resolve() == schema


class TestScale:
    deployment = scale.Deployment(
        max_concurrency=20,
        memory_mib=scale.MIB_OF_A_CORE,
        huawei_calls_a_second=10_000.0,
        write_units_a_second=1_000_000.0,
        huawei_seconds=0.17,
        aws_seconds=0.01,
        cpu_seconds=0.03,
        cold_start_seconds=0.0,
    )

    def test_a_batch_takes_the_longest_group_and_the_cpu_time_of_all(self) -> None:
        assert math.isclose(self.deployment.batch_seconds(10), 0.2 + 10 * 0.03)
        assert math.isclose(self.deployment.batch_seconds(10, groups=5), 2 * 0.2 + 10 * 0.03)
        assert math.isclose(self.deployment.batch_seconds(10, groups=3), 4 * 0.2 + 10 * 0.03)

    def test_less_memory_is_less_of_a_core(self) -> None:
        half = replace(self.deployment, memory_mib=scale.MIB_OF_A_CORE // 2)
        assert math.isclose(half.batch_seconds(10), 0.2 + 2 * 10 * 0.03, rel_tol=1e-3)

    def test_growth_then_concurrency(self) -> None:
        # 20 renames a second and environment: 5 environments at once, 20 after three seconds with 750 renames done.
        drained = scale.drain(10_750, self.deployment)
        assert (drained.limit, drained.rate) == ("MaximumConcurrency", 400)
        assert math.isclose(drained.seconds, 3 + 10_000 / 400)

    def test_drained_before_it_has_grown(self) -> None:
        # After one second there are ten environments, and 20 * (5 + 2.5) renames are done.
        drained = scale.drain(150, self.deployment)
        assert (drained.limit, drained.rate) == ("Lambda's growth", 200)
        assert math.isclose(drained.seconds, 1)

    def test_quota(self) -> None:
        drained = scale.drain(1_000, replace(self.deployment, huawei_calls_a_second=50.0))
        assert (drained.limit, drained.seconds) == ("Huawei Cloud's quota", 20)

    def test_write_units(self) -> None:
        drained = scale.drain(1_000, replace(self.deployment, write_units_a_second=50.0 * scale.write_units()))
        assert (drained.limit, drained.seconds) == ("DynamoDB's write units", 20)

    def test_one_service_is_one_after_another(self) -> None:
        drained = scale.drain(1_000, replace(self.deployment, services=1))
        assert drained.limit == "order within a service"
        assert math.isclose(drained.seconds, 1_000 * (0.2 + 0.03))

    def test_few_events_take_a_batch(self) -> None:
        assert math.isclose(scale.drain(1, self.deployment).seconds, 0.2 + 0.03)

    def test_more_events_never_take_less(self) -> None:
        for deployment in scale.SCENARIOS.values():
            seconds = [scale.drain(2**power, deployment).seconds for power in range(24)]
            assert seconds == sorted(seconds)

    def test_prices(self) -> None:
        prices = scale.prices(self.deployment, batch_size=10, renames=1_000_000)
        assert scale.write_units() == 2 + 2 + 4 + 2
        assert math.isclose(prices["DynamoDB, transactional writes"], 10 * 0.625)
        assert math.isclose(prices["SQS, send one by one, receive and delete in batches"], 1.2 * 0.5)
        assert math.isclose(prices["Lambda, requests"], 0.1 * 0.2)
        gb_seconds = 100_000 * 0.5 * scale.MIB_OF_A_CORE / 1024
        assert math.isclose(prices["Lambda, GB-seconds"], gb_seconds * scale.LAMBDA_GB_SECOND)
        archived_gb = 1.4e9 / 2**30
        assert math.isclose(prices["EventBridge, archive for 35 days"], archived_gb * (0.1 + 35 / 30 * 0.023))
        assert prices["API Gateway, requests"] == 0

    def test_prices_by_http(self) -> None:
        by_queue = scale.prices(self.deployment, batch_size=1)
        by_http = scale.prices(self.deployment, batch_size=1, by_http=True)

        others = {"API Gateway, requests", "SQS, send one by one, receive and delete in batches", "CloudWatch, logs"}
        assert {part for part in by_http if by_http[part] != by_queue[part]} == others
        assert math.isclose(by_http["API Gateway, requests"], 3.5)
        assert by_http["SQS, send one by one, receive and delete in batches"] == 0

    def test_prices_of_a_month(self) -> None:
        [polling] = [price for part, price in scale.monthly().items() if part.startswith("SQS")]
        assert math.isclose(polling, 2 * 5 * 3 * 60 * 24 * 30 * 0.5e-6)

    def test_alarms_are_those_of_the_template(self) -> None:
        alarms = [
            alarm for name, alarm in of_type("AWS::CloudWatch::Alarm").items() if "Condition" not in RESOURCES[name]
        ]
        metrics = [
            len([query for query in alarm.get("Metrics", [{"MetricStat": {}}]) if "MetricStat" in query])
            for alarm in alarms
        ]
        assert (len(alarms), sum(metrics)) == (scale.ALARMS, scale.ALARM_METRICS)

    def test_defaults_are_those_of_the_template(self) -> None:
        template = (ROOT / "template.yml").read_text()
        concurrency = template.partition("MaxConcurrency:\n")[2].partition("Default: ")[2].split()[0]
        memory = template.partition("  RenameFromQueue:\n")[2].partition("MemorySize: ")[2].split()[0]
        http_memory = template.partition("  RenameFromHttp:\n")[2].partition("MemorySize: ")[2].split()[0]
        deployed = scale.AS_DEPLOYED
        assert (int(concurrency), int(memory)) == (deployed.max_concurrency, deployed.memory_mib)
        assert int(http_memory) == scale.HTTP_AS_DEPLOYED.memory_mib

    def test_tables_have_a_row_for_each_backlog_and_part(self) -> None:
        assert len(scale.drain_table().splitlines()) == 2 + len(scale.BACKLOGS)
        assert "**together**" in scale.price_table()


class TestResults:
    @pytest.fixture
    def results(self) -> Any:
        return json.loads(bench.RESULTS.read_text())

    def test_are_complete(self, results: Any) -> None:
        schema = json.loads((BENCH / "results.schema.json").read_text())
        Draft202012Validator.check_schema(schema)
        Draft202012Validator(schema).validate(results)
        cold_starts = [samples for by_name in results["cold_start_ms"].values() for samples in by_name.values()]
        assert all(len(samples) == results["runs"] for samples in cold_starts)

    def test_only_the_peer_lacks_bytecode(self, results: Any) -> None:
        has_bytecode = {name: package["bytecode"] for name, package in results["packages"].items()}
        assert has_bytecode == {"ours": True, "peer": False, "floor": True}

    def test_are_written_as_they_are_kept(self, results: Any) -> None:
        assert bench.to_json(results) == bench.RESULTS.read_text()

    def test_make_a_table(self, results: Any) -> None:
        lines = table(results).splitlines()
        assert results["machine"]["processor"] in lines[0]
        assert len(lines) == 4 + sum(len(row.goals) for row in rows(results))


class TestDocument:
    text = (ROOT / "docs/performance.md").read_text()

    def test_shows_the_results_that_are_kept(self) -> None:
        header, _, rows_ = table(json.loads(bench.RESULTS.read_text())).partition("\n\n")
        assert header in self.text
        assert rows_ in self.text

    def test_shows_what_the_model_says(self) -> None:
        assert scale.drain_table() in self.text
        assert scale.price_table() in self.text


@pytest.mark.parametrize("name", ["cold-start", "batch", "backlog", "memory", "drain"])
def test_plot(name: str) -> None:
    path = BENCH / "plots" / f"{name}.svg"
    assert f"(../tests/bench/plots/{name}.svg)" in TestDocument.text
    assert "<svg " in path.read_text()
    assert path.stat().st_size < 100_000

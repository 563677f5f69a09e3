"""The clouds of the measured packages: a local AWS and two local Huawei Clouds, each in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import certifi

from tests.bench.huawei_process import service_id
from tests.bench.packages import Package
from tests.integration.lambda_events import proxy_event, sqs_event
from tests.localcloud.aws import ROOT, ROOT_USER, LocalAws
from tests.localcloud.lambda_runtime import LambdaRuntime
from tests.localcloud.stack import LOCAL_ACCOUNT, rename_event

BUS = "outcomes"
# As floor and peer, which read nothing before a rename. The template's default is true, which costs a call.
READ_PREVIOUS_NAME = "false"
SERVICES = 1_000
SLOW_SECONDS = 0.05
TIMEOUT_SECONDS = 60


@dataclass(frozen=True)
class BenchClouds:
    """The clouds.

    Attributes:
        huawei: the URL of a Huawei Cloud that responds at once.
        slow_huawei: of one that responds after 50 ms.
        ca: certifi's certificates and the local AWS's: on Lambda botocore reads as many for each new connection.
    """

    aws: LocalAws
    huawei: str
    slow_huawei: str
    ca: Path

    def runtime(self, package: Package, *, slow: bool = False) -> LambdaRuntime:
        """The package in the Lambda runtime, with a new ledger."""
        table = f"ledger-{uuid.uuid4().hex}"
        self.aws.client("dynamodb").create_table(
            TableName=table,
            BillingMode="PAY_PER_REQUEST",
            AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
            KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        )
        environment = ROOT_USER | {
            "AWS_ENDPOINT_URL": self.aws.endpoint,
            "AWS_CA_BUNDLE": str(self.ca),
            "AWS_REGION": self.aws.region,
            "AWS_DEFAULT_REGION": self.aws.region,
            **LOCAL_ACCOUNT.environment(),
            "HUAWEICLOUD_SDK_REGION_VPCEP_CN_NORTH_4": self.slow_huawei if slow else self.huawei,
            "OUTCOME_BUS": BUS,
            "LEDGER_TABLE": table,
            "MAX_RECEIVES": "12",
            "READ_PREVIOUS_NAME": READ_PREVIOUS_NAME,
            "POWERTOOLS_SERVICE_NAME": "vpcep-rename",
            "POWERTOOLS_METRICS_NAMESPACE": "VpcepRename",
        }
        return LambdaRuntime(package.directory, environment, timeout=TIMEOUT_SECONDS, handler=package.handler)


@contextmanager
def bench_clouds() -> Iterator[BenchClouds]:
    with ExitStack() as cleanup:
        aws = cleanup.enter_context(LocalAws())
        aws.client("events").create_event_bus(Name=BUS)
        ca = Path(cleanup.enter_context(TemporaryDirectory())) / "ca.pem"
        ca.write_text(Path(certifi.where()).read_text() + aws.ca.read_text())
        huawei, slow_huawei = (cleanup.enter_context(_huawei(delay)) for delay in (0.0, SLOW_SECONDS))
        yield BenchClouds(aws, huawei, slow_huawei, ca)


@contextmanager
def _huawei(delay: float) -> Iterator[str]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.bench.huawei_process", str(SERVICES), str(delay)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:  # which closes its standard input, and waits
        assert process.stdout
        yield process.stdout.readline().strip()


def batch(services: Sequence[int]) -> dict[str, Any]:
    """An SQS event with a rename event for each of the services, each in a message group of its own."""
    records = [sqs_event(json.dumps(_event(number)), group=service_id(number))["Records"][0] for number in services]
    return {"Records": records}


def request(service: int) -> dict[str, Any]:
    """A proxy event with a rename event."""
    return proxy_event(json.dumps(_event(service)))


def _event(number: int) -> dict[str, Any]:
    return rename_event(service_id(number), f"name-{uuid.uuid4().hex[:8]}")

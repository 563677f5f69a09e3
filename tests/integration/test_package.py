"""The package as `sam build` makes it: what is in it, and that it works in the Lambda runtime as it is."""

import json
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.lambda_events import proxy_event, sqs_event
from tests.localcloud.aws import ROOT, ROOT_USER, build
from tests.localcloud.lambda_runtime import BASE_PYTHON, LambdaRuntime, runtime_packages
from tests.localcloud.stack import Clouds, rename_event

FUNCTIONS = ("RenameFromQueue", "RenameFromHttp", "SettleDeadLetters")

# What the handler does not come up without.
ENVIRONMENT = {
    "AWS_REGION": "eu-central-1",
    "HUAWEICLOUD_CREDENTIALS_SECRET": "huaweicloud",
    "HUAWEICLOUD_REGION": "cn-north-4",
    "OUTCOME_BUS": "outcomes",
}

# What the four packages of pyproject.toml bring: a new name here is a new dependency, to be looked at.
DEPENDENCIES = {
    *("aws_lambda_powertools", "jmespath", "typing_extensions.py"),
    *("huaweicloudsdkcore", "huaweicloudsdkvpcep", "simplejson", "six.py", "yaml", "pyasn1", "defusedxml", "bson"),
    *("requests", "requests_toolbelt", "urllib3", "idna", "certifi", "charset_normalizer"),
    *("jsonschema", "attr", "attrs", "jsonschema_specifications", "referencing", "rpds"),
}


@pytest.fixture(scope="module")
def packages() -> Path:
    return build().parent


def files(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}


@pytest.mark.parametrize("function", FUNCTIONS)
class TestContents:
    def test_is_the_function_and_its_dependencies(self, packages: Path, function: str) -> None:
        top_level = {path.name for path in (packages / function).iterdir()}
        assert top_level - {"__pycache__"} == DEPENDENCIES | {"function"}

    def test_has_the_whole_function(self, packages: Path, function: str) -> None:
        source, built = files(ROOT / "function"), files(packages / function / "function")
        wanted = {file for file in source if file.endswith((".py", ".json", ".yaml"))}
        assert {file for file in built if "__pycache__" not in file} == wanted

    def test_has_nothing_that_is_not_used(self, packages: Path, function: str) -> None:
        for path in (packages / function).rglob("*"):
            assert path.name not in ("tests", "bin", "boto3", "botocore", "README.md"), path
            assert not path.name.endswith((".dist-info", ".c", ".h")), path

    def test_has_bytecode_that_lambda_takes(self, packages: Path, function: str) -> None:
        modules = list((packages / function).rglob("*.py"))
        for module in modules:
            cached = module.parent / "__pycache__" / f"{module.stem}.{sys.implementation.cache_tag}.pyc"
            # Flags 0b01: checked against its source by nothing, neither by time (0b00) nor by hash (0b11).
            assert cached.read_bytes()[4:8] == b"\x01\0\0\0", module
        assert len(list((packages / function).rglob("*.pyc"))) == len(modules)

    def test_names_no_path_of_the_machine(self, packages: Path, function: str) -> None:
        for path in (packages / function / "function").rglob("*"):
            assert path.is_dir() or str(ROOT).encode() not in path.read_bytes(), path


def test_nothing_in_it_is_there_for_nothing(packages: Path) -> None:
    """Each package in it is imported, by the handler or by what it leaves for later; of the VPCEP SDK each module."""
    package = packages / "RenameFromQueue"
    later = ("triggers.sqs", "triggers.http", "triggers.dead_letters")
    modules = ["aws_lambda_powertools.utilities.circuit_breaker", *(f"function.{name}" for name in ("app", *later))]
    script = f"import sys, {', '.join(modules)}; print(*(getattr(m, '__file__', '') for m in sys.modules.values()))"
    with tempfile.TemporaryDirectory() as directory:
        runtime = runtime_packages(Path(directory))
        done = subprocess.run(
            [BASE_PYTHON, "-S", "-B", "-c", script],
            cwd=directory,
            env={"PYTHONPATH": f"{package}:{runtime}", **ENVIRONMENT},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
    imported = {Path(file).relative_to(package) for file in done.stdout.split() if file.startswith(str(package))}
    sdk = {path.relative_to(package) for path in (package / "huaweicloudsdkvpcep").rglob("*.py")}
    assert {path.parts[0] for path in imported} == DEPENDENCIES | {"function"}
    assert sdk <= imported


def test_all_functions_get_the_same(packages: Path) -> None:
    first, *others = (files(packages / function) for function in FUNCTIONS)
    assert all(other == first for other in others)


class TestLambdaRuntime:
    @pytest.fixture
    def runtime(self, packages: Path, clouds: Clouds, request: pytest.FixtureRequest) -> Iterator[LambdaRuntime]:
        """A function as deployed, moved from MiniStack into the Lambda runtime."""
        client = clouds.aws.client("lambda")
        deployed = client.get_function_configuration(FunctionName=clouds.stack.resources[request.param])
        environment = deployed["Environment"]["Variables"] | ROOT_USER
        environment |= {"AWS_ENDPOINT_URL": clouds.aws.endpoint, "AWS_CA_BUNDLE": str(clouds.aws.ca)}
        environment |= {"AWS_REGION": clouds.aws.region, "AWS_DEFAULT_REGION": clouds.aws.region}
        with LambdaRuntime(
            packages / request.param, environment, timeout=deployed["Timeout"], handler=deployed["Handler"]
        ) as runtime:
            yield runtime

    @pytest.mark.parametrize("runtime", ["RenameFromQueue"], indirect=True)
    def test_sqs_event(self, runtime: LambdaRuntime, clouds: Clouds) -> None:
        service_id = str(uuid.uuid4())
        clouds.huawei.add_service(service_id)
        event = rename_event(service_id, "orders")

        assert runtime.invoke(sqs_event(json.dumps(event))) == {"batchItemFailures": []}

        self.assert_renamed(event, clouds)

    @pytest.mark.parametrize("runtime", ["RenameFromHttp"], indirect=True)
    def test_http_event(self, runtime: LambdaRuntime, clouds: Clouds) -> None:
        service_id = str(uuid.uuid4())
        clouds.huawei.add_service(service_id)
        event = rename_event(service_id, "orders")

        assert runtime.invoke(proxy_event(json.dumps(event)))["statusCode"] == 200

        self.assert_renamed(event, clouds)

    @staticmethod
    def assert_renamed(event: dict[str, Any], clouds: Clouds) -> None:
        [outcome] = clouds.outcomes(where=lambda outcome: outcome["data"]["request"] == event)
        assert outcome["type"] == "vpcep.endpoint_service.renamed.v1"
        assert clouds.huawei.name_of(event["data"]["vpc_endpoint_service_id"]) == "orders"

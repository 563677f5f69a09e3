"""The package as `sam build` makes it: what is in it, and that it works in the Lambda runtime as it is."""

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.commands import run
from tests.integration.lambda_events import proxy_event, sqs_event
from tests.integration.observer import HTTP, QUEUE, RENAMED, a_rename, in_lambda_runtime, outcome_of, service_of
from tests.localcloud.aws import ROOT, build
from tests.localcloud.lambda_runtime import BASE_PYTHON, runtime_packages
from tests.localcloud.stack import FUNCTIONS, Clouds, Event

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
def package() -> Path:
    return build().parent / QUEUE


def files(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}


def test_packages_of_all_functions_are_the_same(package: Path) -> None:
    for other in map(package.with_name, FUNCTIONS):
        assert files(other) == files(package)
        assert [file for file in files(package) if (other / file).read_bytes() != (package / file).read_bytes()] == []


def test_package_is_the_function_and_its_dependencies(package: Path) -> None:
    top_level = {path.name for path in package.iterdir()}
    assert top_level - {"__pycache__"} == DEPENDENCIES | {"function"}


def test_package_has_all_files_of_the_function(package: Path) -> None:
    source, built = files(ROOT / "function"), files(package / "function")
    wanted = {file for file in source if file.endswith((".py", ".json", ".yaml"))}
    assert {file for file in built if "__pycache__" not in file} == wanted


def test_package_has_no_tests_no_metadata_and_no_c_sources(package: Path) -> None:
    for path in package.rglob("*"):
        assert path.name not in ("tests", "bin", "boto3", "botocore", "README.md"), path
        assert not path.name.endswith((".dist-info", ".c", ".h")), path


def test_package_has_unchecked_bytecode_of_each_module(package: Path) -> None:
    modules = list(package.rglob("*.py"))
    for module in modules:
        cached = module.parent / "__pycache__" / f"{module.stem}.{sys.implementation.cache_tag}.pyc"
        # Flags 0b01: checked against its source by nothing, neither by time (0b00) nor by hash (0b11).
        assert cached.read_bytes()[4:8] == b"\x01\0\0\0", module
    assert len(list(package.rglob("*.pyc"))) == len(modules)


def test_package_has_no_path_of_the_machine(package: Path) -> None:
    for path in (package / "function").rglob("*"):
        assert path.is_dir() or str(ROOT).encode() not in path.read_bytes(), path


def test_each_package_that_is_deployed_is_imported(package: Path) -> None:
    """Each package in it is imported, by the handler or by what it leaves for later; of the VPCEP SDK each module."""
    later = ("triggers.sqs", "triggers.http", "triggers.dead_letters")
    modules = ["aws_lambda_powertools.utilities.circuit_breaker", *(f"function.{name}" for name in ("app", *later))]
    script = f"import sys, {', '.join(modules)}; print(*(getattr(m, '__file__', '') for m in sys.modules.values()))"
    with tempfile.TemporaryDirectory() as directory:
        runtime = runtime_packages(Path(directory))
        environment = {"PYTHONPATH": f"{package}:{runtime}", **ENVIRONMENT}
        done = run(BASE_PYTHON, "-S", "-B", "-c", script, cwd=Path(directory), env=environment)
    imported = {Path(file).relative_to(package) for file in done.stdout.split() if file.startswith(str(package))}
    sdk = {path.relative_to(package) for path in (package / "huaweicloudsdkvpcep").rglob("*.py")}
    assert {path.parts[0] for path in imported} == DEPENDENCIES | {"function"}
    assert sdk <= imported


@pytest.mark.parametrize(
    ("function", "event_of", "answer"),
    [(QUEUE, sqs_event, '{"batchItemFailures": []}'), (HTTP, proxy_event, '{"statusCode": 200, ')],
    ids=[QUEUE, HTTP],
)
def test_package_renames_in_the_lambda_runtime(
    function: str, event_of: Callable[[str], Event], answer: str, clouds: Clouds
) -> None:
    event = a_rename(clouds)

    with in_lambda_runtime(clouds, function) as runtime:
        assert json.dumps(runtime.invoke(event_of(json.dumps(event)))).startswith(answer)

    assert outcome_of(clouds, event)["type"] == RENAMED
    assert clouds.huawei.name_of(service_of(event)) == "orders"

"""`make deploy`, `make prune` and `sam delete` as an operator runs them, on the local AWS."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.commands import run
from tests.documents import block
from tests.integration.observer import HTTP, a_rename, new_user
from tests.localcloud.aws import ACCOUNT, ENVIRONMENTS, ROOT, LocalAws, package_environment
from tests.localcloud.iam import IdentityProvider
from tests.localcloud.stack import AUDIENCE, FUNCTIONS, IDP_ID, SECRET, Clouds, local_clouds

# What the make that runs these tests hands down to them, and would decide for the make that they run.
FROM_MAKE = ("PACKAGE_", "ARCHITECTURE", "MAKE")
FILES = ("Makefile", "template.yml", "samconfig.toml", "requirements.txt", "tests/localcloud/requirements-sam.txt")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout with a build of its own; what it installs is shared."""
    checkout = tmp_path_factory.mktemp("checkout")
    for file in FILES:
        (checkout / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / file, checkout / file)
    for directory in ("function", "scripts"):
        shutil.copytree(ROOT / directory, checkout / directory, ignore=shutil.ignore_patterns("__pycache__"))
    (checkout / ".venv").symlink_to(ENVIRONMENTS)
    return checkout


def make(*arguments: str, directory: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = ("make", "-s", "-o", ".venv/sam/.installed", *arguments)
    return run(*command, cwd=directory, env=environment, seconds=240, check=False)


class Operator:
    """An operator with a checkout and keys, by default those of the account's root."""

    def __init__(self, clouds: Clouds, checkout: Path, keys: Mapping[str, str] = {}) -> None:
        self.clouds = clouds
        self.checkout = checkout
        self._environment = clouds.aws.sam_environment() | package_environment() | dict(keys)

    def make(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return make(*arguments, directory=self.checkout, environment=self._environment)

    def deploy(self, parameters: str = "", target: str = "deploy-built") -> None:
        done = self.make(target, f"PARAMETERS={parameters}")
        assert done.returncode == 0, done.stdout + done.stderr + self.clouds.aws.tail()

    def versions(self, function: str) -> list[str]:
        """The numbers of a function's versions, oldest first."""
        client, name = self.clouds.aws.client("lambda"), self.clouds.stack.resources[function]
        found = client.list_versions_by_function(FunctionName=name)["Versions"]
        return [version["Version"] for version in found if version["Version"] != "$LATEST"]

    def alias(self, function: str) -> Any:
        """A function's alias."""
        client = self.clouds.aws.client("lambda")
        return client.get_alias(FunctionName=self.clouds.stack.resources[function], Name="live")

    def served(self, function: str) -> Any:
        """The variables of the version that a function's alias serves."""
        client, name = self.clouds.aws.client("lambda"), self.clouds.stack.resources[function]
        return client.get_function_configuration(FunctionName=name, Qualifier="live")["Environment"]["Variables"]


@pytest.fixture(scope="module")
def operator(checkout: Path) -> Iterator[Operator]:
    """With a stack that has a secret, and an identity provider on Huawei Cloud that it could have instead."""
    with local_clouds() as clouds:
        issuer = clouds.aws.issuer
        clouds.iam.identity_providers[IDP_ID] = IdentityProvider(issuer.url, AUDIENCE, issuer.jwks())
        operator = Operator(clouds, checkout)
        operator.deploy(target="deploy")
        yield operator


def secret_arn(aws: LocalAws) -> str:
    return str(aws.client("secretsmanager").describe_secret(SecretId=SECRET)["ARN"])


def test_deployment_of_other_parameters_makes_a_new_version_and_keeps_the_former(operator: Operator) -> None:
    before = {function: operator.versions(function) for function in FUNCTIONS}

    operator.deploy("LogLevel=DEBUG")

    for function in FUNCTIONS:
        *others, newest = operator.versions(function)
        assert others == before[function]
        assert operator.alias(function)["FunctionVersion"] == newest
        assert operator.served(function)["POWERTOOLS_LOG_LEVEL"] == "DEBUG"
    client, name = operator.clouds.aws.client("lambda"), operator.clouds.stack.resources[HTTP]
    former = client.get_function_configuration(FunctionName=name, Qualifier=before[HTTP][-1])
    assert former["Environment"]["Variables"]["POWERTOOLS_LOG_LEVEL"] == "INFO"


def test_deployment_changes_from_a_secret_to_an_identity_provider_and_back(operator: Operator) -> None:
    clouds = operator.clouds
    provider = f"HuaweiCloudIdpId={IDP_ID} HuaweiCloudIdpAudience={AUDIENCE} HuaweiCloudIamEndpoint={clouds.iam.url}"

    operator.deploy(f"{provider} HuaweiCloudCredentialsSecretArn=")

    assert operator.served(HTTP)["HUAWEICLOUD_CREDENTIALS_SECRET"] == ""
    assert clouds.post_rename_event(a_rename(clouds, "keyless")).status == 200
    assert clouds.iam.calls != []
    clouds.iam.calls.clear()

    operator.deploy(
        f"HuaweiCloudIdpId= HuaweiCloudIamEndpoint= HuaweiCloudCredentialsSecretArn={secret_arn(clouds.aws)}"
    )

    assert operator.served(HTTP)["HUAWEICLOUD_SDK_IDP_ID"] == ""
    assert clouds.post_rename_event(a_rename(clouds, "secret")).status == 200
    assert clouds.iam.calls == []


def test_dead_letter_queue_is_allowed_for_its_source_queue_only(operator: Operator) -> None:
    sqs, resources = operator.clouds.aws.client("sqs"), operator.clouds.stack.resources

    def attribute(queue: str, name: str) -> str:
        return str(sqs.get_queue_attributes(QueueUrl=resources[queue], AttributeNames=[name])["Attributes"][name])

    for queue, source in [("UnsettledQueue", "RenameQueue"), ("RenameDeadLetterQueue", "UnsettledQueue")]:
        assert json.loads(attribute(source, "RedrivePolicy"))["deadLetterTargetArn"] == attribute(queue, "QueueArn")
        assert json.loads(attribute(queue, "RedriveAllowPolicy")) == {
            "redrivePermission": "byQueue",
            "sourceQueueArns": [attribute(source, "QueueArn")],
        }


@pytest.fixture
def five_versions(operator: Operator) -> Iterator[Operator]:
    """Five versions of each function at least, the alias at the newest."""
    while len(operator.versions(HTTP)) < 5:
        operator.deploy()
    yield operator
    client = operator.clouds.aws.client("lambda")
    client.update_alias(
        FunctionName=operator.clouds.stack.resources[HTTP],
        Name="live",
        FunctionVersion=operator.versions(HTTP)[-1],
        RoutingConfig={"AdditionalVersionWeights": {}},
    )


def test_prune_without_a_yes_lists_versions_and_deletes_none(five_versions: Operator) -> None:
    before = five_versions.versions(HTTP)

    done = five_versions.make("prune")

    assert done.returncode == 2
    assert "Nothing was deleted" in done.stderr
    name = five_versions.clouds.stack.resources[HTTP]
    listed = [line.split() for line in done.stdout.splitlines() if line.startswith(f"{name}:")]
    assert [line[0] for line in listed] == [f"{name}:{number}" for number in before]
    assert ["deleted" in line for line in listed] == [True] * (len(before) - 2) + [False] * 2
    assert five_versions.versions(HTTP) == before


def test_prune_keeps_two_newest_versions_and_those_of_alias_and_stack(five_versions: Operator) -> None:
    client, name = five_versions.clouds.aws.client("lambda"), five_versions.clouds.stack.resources[HTTP]
    first, second, *_, before_last, stacks = five_versions.versions(HTTP)
    # given: a version newer than the stack's two, and an alias between two old ones
    for number in range(2):
        client.update_function_configuration(FunctionName=name, Description=f"by hand {number}")
        client.publish_version(FunctionName=name)
    newest = five_versions.versions(HTTP)[-2:]
    weights = {"AdditionalVersionWeights": {second: 0.1}}
    client.update_alias(FunctionName=name, Name="live", FunctionVersion=first, RoutingConfig=weights)

    done = five_versions.make("prune", "YES=1")

    assert done.returncode == 0, done.stderr
    assert five_versions.versions(HTTP) == [first, second, stacks, *newest]
    assert before_last not in newest
    others = [function for function in FUNCTIONS if function != HTTP]
    assert {len(five_versions.versions(function)) for function in others} == {2}
    assert five_versions.make("prune").stdout.splitlines()[-1] == "No version to delete."


def test_prune_of_a_missing_stack_fails(operator: Operator) -> None:
    done = operator.make("prune", "STACK=another")

    assert done.returncode == 2
    assert "another" in done.stderr


def deploying_role(aws: LocalAws) -> dict[str, str]:
    """The keys of a user with the permissions that the documents give to a deploying role."""
    policy = block("docs/deployment.md", '{\n  "Version"').replace("REGION", aws.region).replace("ACCOUNT", ACCOUNT)
    return {name.upper(): value for name, value in new_user(aws, "deployer", policy).items()}


def test_documented_permissions_allow_deploy_and_prune_of_this_stack_only(operator: Operator) -> None:
    """As far as the local AWS asks for them: it makes a stack's resources without a permission."""
    deployer = Operator(operator.clouds, operator.checkout, deploying_role(operator.clouds.aws))

    deployer.deploy("LogLevel=WARNING")
    assert deployer.make("prune", "YES=1").returncode == 0

    assert operator.served(HTTP)["POWERTOOLS_LOG_LEVEL"] == "WARNING"
    done = deployer.make("deploy-built", "STACK=another")
    assert done.returncode == 2
    assert "AccessDenied" in done.stderr


def test_deleted_second_stack_leaves_its_queues_and_ledger_and_the_first_stack(operator: Operator) -> None:
    aws, first = operator.clouds.aws, operator.clouds.stack
    secret = f"HuaweiCloudCredentialsSecretArn={secret_arn(aws)}"
    parameters = f"HuaweiCloudRegion=cn-north-4 HuaweiCloudProjectId=p GradualDeployment=false {secret}"
    done = operator.make("deploy-built", "STACK=second", f"PARAMETERS={parameters}")
    assert done.returncode == 0, done.stdout + done.stderr
    resources = aws.client("cloudformation").describe_stack_resources(StackName="second")["StackResources"]
    second = {resource["LogicalResourceId"]: resource["PhysicalResourceId"] for resource in resources}
    assert second.keys() >= {"RenameQueue", "LedgerTable", "OutcomeBus", "Dashboard"}
    shared = {name for name in second if second[name] == first.resources.get(name)}

    run(
        *(ENVIRONMENTS / "sam/bin/sam", "delete", "--stack-name", "second", "--no-prompts", "--region", aws.region),
        env=aws.sam_environment(),
        seconds=120,
    )

    # The names of a stage, v1, within its API, and of a statement within the policy of its bus.
    assert shared - {name for name in shared if name.endswith("Stage")} - {"OutcomeBusPolicy"} == set()
    queues = {url.rpartition("/")[2] for url in aws.client("sqs").list_queues()["QueueUrls"]}
    kept = ("RenameQueue", "UnsettledQueue", "RenameDeadLetterQueue")
    assert {second[name].rpartition("/")[2] for name in kept} <= queues
    assert second["LedgerTable"] in aws.client("dynamodb").list_tables()["TableNames"]
    buses = {bus["Name"] for bus in aws.client("events").list_event_buses()["EventBuses"]}
    assert second["OutcomeBus"] not in buses
    assert first.outputs["OutcomeBusName"] in buses
    functions = {each["FunctionName"] for each in aws.client("lambda").list_functions()["Functions"]}
    assert functions == {first.resources[function] for function in FUNCTIONS}


def test_packages_for_both_architectures_have_the_same_wheels_for_their_machines(
    checkout: Path, tmp_path: Path
) -> None:
    tags = {}
    for architecture, machine in (("x86_64", "x86_64"), ("arm64", "aarch64")):
        package = tmp_path / architecture
        package.mkdir()
        done = make(
            "build-RenameFromQueue",
            f"ARTIFACTS_DIR={package}",
            f"PARAMETERS=Architecture={architecture}",
            directory=checkout,
            environment={name: os.environ[name] for name in os.environ if not name.startswith(FROM_MAKE)},
        )
        assert done.returncode == 0, done.stderr
        modules = [path.name for path in package.rglob("*.so")]
        assert modules
        assert all(name.endswith(f"-{machine}-linux-gnu.so") for name in modules)
        tags[architecture] = wheel_tags(checkout / f".build/manylinux_2_28_{machine}-3.13-metadata", machine)

    assert tags["arm64"] == tags["x86_64"]
    assert {"cp313-cp313-MACHINE"} in tags["arm64"].values()


def wheel_tags(metadata: Path, machine: str) -> dict[str, set[str]]:
    """What each wheel is for, with MACHINE for the machine and whatever version of glibc."""
    found = {}
    for path in metadata.glob("*.dist-info/WHEEL"):
        tags = re.findall(r"^Tag: (.*)$", path.read_text(), re.MULTILINE)
        found[path.parent.name] = {re.sub(rf"manylinux\w+_{machine}$", "MACHINE", tag) for tag in tags}
    return found

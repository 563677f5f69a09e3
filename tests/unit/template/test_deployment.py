"""What a deployment needs: rules of the template, parameters as the SAM CLI gets them, workflow and documents."""

from __future__ import annotations

import json
import os
import re
import shutil
import tomllib
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.commands import run
from tests.dashboard.widgets import widgets
from tests.documents import block, read
from tests.localcloud.server import LoopbackServer
from tests.template import RESOURCES, ROOT, TEMPLATE
from tests.unit.template.test_operations import ALARMS, FUNCTIONS, QUEUES, metrics_of_alarm, metrics_of_widget

PARAMETERS: Final[dict[str, Any]] = TEMPLATE["Parameters"]
SAM: Final = ROOT / ".venv/sam/bin/python"


# ---- Names, so that two stacks do not collide


def names() -> Iterator[tuple[str, str, str]]:
    """Each name that the template gives: of which resource, the type, the name."""
    for logical_id, resource in RESOURCES.items():
        for key, value in resource["Properties"].items():
            if key in {"Name", "FunctionName", "LogGroupName", "PolicyName", f"{resource['Type'].split('::')[2]}Name"}:
                yield logical_id, resource["Type"], json.dumps(value)


def test_each_name_in_the_template_has_the_name_of_the_stack() -> None:
    assert len(list(names())) > 5
    assert [logical_id for logical_id, _, name in names() if "AWS::StackName" not in name] == []


def test_name_of_the_dashboard_has_the_region() -> None:
    """Dashboards are an account's, across its regions."""
    [name] = [name for _, kind, name in names() if kind == "AWS::CloudWatch::Dashboard"]

    assert "${AWS::Region}" in name


# ---- What is kept


@pytest.mark.parametrize("name", [*QUEUES, "LedgerTable"])
def test_queues_and_ledger_are_kept_when_the_stack_is_deleted(name: str) -> None:
    assert RESOURCES[name]["DeletionPolicy"] == RESOURCES[name]["UpdateReplacePolicy"] == "Retain"


def test_ledger_table_is_protected_from_deletion() -> None:
    assert RESOURCES["LedgerTable"]["Properties"]["DeletionProtectionEnabled"] is True


@pytest.mark.parametrize("policy", ["DeletionPolicy", "UpdateReplacePolicy"])
def test_bus_and_archive_have_the_same_deletion_policies(policy: str) -> None:
    assert RESOURCES["OutcomeBus"][policy] == RESOURCES["OutcomeArchive"][policy]


def test_no_queue_may_have_the_rename_queue_as_its_dead_letter_queue() -> None:
    """What the two others allow is `scripts/after_deploy.py`'s."""
    assert QUEUES["RenameQueue"]["RedriveAllowPolicy"] == {"redrivePermission": "denyAll"}


# ---- Parameters


SECRET: Final = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:huaweicloud"
SECRET_IN_CHINA: Final = "arn:aws-cn:secretsmanager:cn-north-1:123456789012:secret:team/huaweicloud-key-AbC123"
TOPIC: Final = "arn:aws:sns:eu-central-1:123456789012:renames"
TOPIC_IN_CHINA: Final = "arn:aws-cn:sns:cn-north-1:123456789012:renames.fifo"
KEY: Final = "arn:aws:kms:eu-central-1:123456789012"
RUNBOOK: Final = "https://github.com/owner/vpcep-rename/blob/main/docs/runbook.md"


@pytest.mark.parametrize(
    ("parameter", "valid", "invalid"),
    [
        ("CredentialsKeyArn", {f"{KEY}:key/0e9f1b7a"}, {f"{KEY}:alias/mine"}),
        ("HuaweiCloudCredentialsSecretArn", {f"{SECRET}-AbC123", SECRET_IN_CHINA}, {SECRET, f"{SECRET}-AbC12", "name"}),
        ("ProducerAccounts", {"1" * 12, f"{'1' * 12},{'2' * 12}"}, {f"{'1' * 12}, {'2' * 12}", f"{'1' * 12},", "*"}),
        ("ProducerTopicArn", {f"{TOPIC}.fifo", TOPIC_IN_CHINA}, {TOPIC}),
        # Of a longer one SAM takes ten characters, and none but letters and digits fit into a logical id.
        ("Revision", {"1764092362"}, {"17640923621", "20261125-1"}),
        ("RunbookUrl", {RUNBOOK}, {f"{RUNBOOK}#top", "https://" + "x" * 400}),
    ],
)
def test_pattern_of_a_parameter_matches_valid_values_only(parameter: str, valid: set[str], invalid: set[str]) -> None:
    rule = PARAMETERS[parameter]

    assert {value for value in valid | invalid | {""} if re.fullmatch(rule["AllowedPattern"], value)} == valid | {""}
    assert rule["Default"] == ""


def test_logging_role_of_api_gateway_is_left_unchanged_by_default() -> None:
    assert PARAMETERS["SetUpApiGatewayLogging"]["Default"] == "false"
    assert TEMPLATE["Conditions"]["ApiGatewayLogging"] == {"Fn::Equals": [{"Ref": "SetUpApiGatewayLogging"}, "true"]}
    for resource in RESOURCES.values():
        if resource["Type"] == "AWS::ApiGateway::Account":
            assert resource["Condition"] == "ApiGatewayLogging"


def test_api_has_no_access_log_without_a_logging_role() -> None:
    """A stage with one cannot be made then."""
    condition, _, otherwise = RESOURCES["RenameApi"]["Properties"]["AccessLogSetting"]["Fn::If"]

    assert otherwise == {"Ref": "AWS::NoValue"}
    assert TEMPLATE["Conditions"][condition] == {
        "Fn::Not": [{"Fn::Equals": [{"Ref": "SetUpApiGatewayLogging"}, "false"]}]
    }


def test_architecture_of_the_functions_is_a_parameter() -> None:
    assert TEMPLATE["Globals"]["Function"]["Architectures"] == [{"Ref": "Architecture"}]
    assert PARAMETERS["Architecture"]["Default"] == "x86_64"
    assert PARAMETERS["Architecture"]["AllowedValues"] == ["x86_64", "arm64"]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_sam_makes_a_version_of_each_function_for_each_revision(name: str) -> None:
    assert FUNCTIONS[name]["AutoPublishCodeSha256"] == {"Ref": "Revision"}
    assert FUNCTIONS[name]["AutoPublishAliasAllProperties"] is True  # where the revision is empty
    # The version's own would be replaced in place, and be gone.
    assert "VersionDescription" not in FUNCTIONS[name]


# ---- The API


def test_metrics_by_method_are_on_only_if_alarms_or_dashboard_read_them() -> None:
    read = {
        dimension
        for metric, _ in [
            *(found for properties in ALARMS.values() for found in metrics_of_alarm(properties)),
            *(found for widget in widgets() for found in metrics_of_widget(widget)),
        ]
        if metric.namespace == "AWS/ApiGateway"
        for dimension in metric.dimensions
    }

    [settings] = RESOURCES["RenameApi"]["Properties"]["MethodSettings"]
    assert "ApiName" in read
    assert settings["MetricsEnabled"] is bool(read & {"Method", "Resource"})


def test_warnings_of_api_gateway_about_the_definition_fail_the_deployment() -> None:
    assert RESOURCES["RenameApi"]["Properties"]["FailOnWarnings"] is True


# ---- PARAMETERS, on its way to the SAM CLI

WRITE_ARGUMENTS: Final = """#!/bin/sh
for argument; do printf '%s\\n' "$argument" >> arguments; done
"""

HOSTILE: Final = [
    "A=1; touch x",
    "A=1 && touch x | touch x > x",
    "$(shell touch x)",
    "A=$(touch x)",
    "A=$$(touch x)",
    "A=${shell touch x}",
    "A=`touch x`",
    "A='; touch x; '",
    'A="; touch x; "',
    "A=1\ntouch x",
    "A=\\",
    "A=$(info x)$(error x)",
    "A=$STACK ~ *",
]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A directory whose SAM CLI, and its interpreter, write down what they are called with."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "tests/localcloud").mkdir(parents=True)
    (tmp_path / "tests/localcloud/requirements-sam.txt").touch()
    programs = tmp_path / ".venv/sam/bin"
    programs.mkdir(parents=True)
    (tmp_path / ".venv/sam/.installed").touch()
    for name in ("sam", "python"):
        (programs / name).write_text(WRITE_ARGUMENTS)
        (programs / name).chmod(0o755)
    return tmp_path


ENVIRONMENT: Final = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}


def make(*arguments: str, directory: Path, environment: Mapping[str, str] = {}) -> str:
    return run("make", "-s", *arguments, cwd=directory, env={**ENVIRONMENT, **environment}).stdout


@pytest.mark.parametrize("target", ["deploy", "deploy-built"])
@pytest.mark.parametrize("parameters", HOSTILE)
@pytest.mark.parametrize("is_in_environment", [True, False])
def test_parameters_of_make_deploy_are_not_run_as_code(
    target: str, parameters: str, is_in_environment: bool, checkout: Path
) -> None:
    if is_in_environment:
        make(target, directory=checkout, environment={"PARAMETERS": parameters})
    else:
        make(target, f"PARAMETERS={parameters}", directory=checkout)

    assert not (checkout / "x").exists()
    words = (checkout / "arguments").read_text().splitlines()
    assert words[-1 - len(parameters.split()) : -1] == parameters.split()
    assert sum(word.startswith("Revision=") for word in words) == 1


@pytest.mark.parametrize(
    ("parameters", "shown"), [("X= Y=1", r"""'X=""' 'Y=1'$"""), ("A=b=", "'A=b='")], ids=["empty", "equals sign"]
)
def test_parameter_of_make_deploy_may_be_empty_or_end_with_an_equals_sign(
    parameters: str, shown: str, checkout: Path
) -> None:
    printed = make("-n", "deploy", f"PARAMETERS={parameters}", directory=checkout)

    assert re.search(rf"sam deploy .*{shown}", printed, re.MULTILINE)


def test_make_deploy_without_parameters_passes_on_a_revision(checkout: Path) -> None:
    make("deploy", directory=checkout)

    assert (checkout / "arguments").read_text().splitlines()[-2].startswith("Revision=")


@pytest.mark.parametrize("target", ["deploy", "deploy-built", "redrive"])
def test_stack_of_make_is_not_run_as_code(target: str, checkout: Path) -> None:
    make(target, "STACK='$(shell touch x)`touch x`;", directory=checkout)

    assert not (checkout / "x").exists()
    assert "'$(shell touch x)`touch x`;" in (checkout / "arguments").read_text().splitlines()


def test_parameters_of_make_deploy_reach_the_sam_cli_unchanged(checkout: Path) -> None:
    parameters = {
        "AllowedProjects": "a,b-c",
        "HuaweiCloudIdpId": "",
        "VpcepEndpoint": "https://vpcep.example:8443/x?y=z&a",
        "Pattern": r"^[a-z]+-\d{1,3}$",
    }
    words = " ".join(f"{name}={value}" for name, value in parameters.items())
    make("deploy-built", directory=checkout, environment={"PARAMETERS": words})
    arguments = (checkout / "arguments").read_text().splitlines()
    overrides = arguments[arguments.index("--parameter-overrides") + 1 : -1]

    understood = json.loads(run(SAM, "-c", PARSE_AS_SAM, *overrides).stdout)

    assert understood.pop("Revision").isdigit()
    assert understood == parameters


PARSE_AS_SAM: Final = """
import json, sys
from samcli.cli.types import CfnParameterOverridesType
print(json.dumps(CfnParameterOverridesType().convert(sys.argv[1:], None, None)))
"""


def test_deployment_by_the_sam_cli_alone_has_an_empty_revision() -> None:
    settings = tomllib.loads((ROOT / "samconfig.toml").read_text())["default"]["deploy"]["parameters"]
    program = f"{PARSE_AS_SAM.rpartition('sys.argv')[0]}json.loads(sys.argv[1]), None, None)))"

    assert json.loads(run(SAM, "-c", program, json.dumps(settings["parameter_overrides"])).stdout) == {"Revision": ""}


KEYS: Final = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "eu-central-1"}
MACHINES: Final = {"x86_64": "x86_64", "arm64": "aarch64"}


class CloudFormation(LoopbackServer):
    """Gives one answer to everything."""

    def __init__(self, status: int, body: str) -> None:
        super().__init__()
        self.answer = status, body.encode()

    def _listen(self) -> ThreadingHTTPServer:
        status, body = self.answer

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(status)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: object) -> None:
                pass

        return ThreadingHTTPServer(("127.0.0.1", 0), Handler)


def stack_reply(architecture: str | None) -> tuple[int, str]:
    """DescribeStacks' answer for a stack that has the parameter, or is older than it."""
    name = "Architecture" if architecture else "LogLevel"
    parameter = f"<ParameterKey>{name}</ParameterKey><ParameterValue>{architecture}</ParameterValue>"
    stack = f"<member><StackName>vpcep-rename</StackName><Parameters><member>{parameter}</member></Parameters></member>"
    result = f"<DescribeStacksResult><Stacks>{stack}</Stacks></DescribeStacksResult>"
    return 200, f"<DescribeStacksResponse>{result}</DescribeStacksResponse>"


def error_reply(code: str, message: str) -> str:
    return f"<ErrorResponse><Error><Code>{code}</Code><Message>{message}</Message></Error></ErrorResponse>"


def before_deploy(
    *words: str, directory: Path, machine: str = "x86_64", environment: Mapping[str, str] = {}
) -> tuple[int, str]:
    """Exit status and error of `scripts/before_deploy.py` for packages whose extension modules are for a machine."""
    shutil.copy(ROOT / "template.yml", directory)
    module = directory / f".aws-sam/build/RenameFromQueue/rpds/rpds.cpython-313-{machine}-linux-gnu.so"
    module.parent.mkdir(parents=True)
    module.touch()
    variables = {"PATH": os.environ["PATH"], "STACK": "vpcep-rename", **environment}
    done = run(SAM, ROOT / "scripts/before_deploy.py", *words, cwd=directory, env=variables, check=False)
    return done.returncode, done.stderr.strip()


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["touch"], "touch: PARAMETERS is NAME=VALUE, separated by spaces"),
        (["ReadPreviousNames=true"], "ReadPreviousNames: the template has no such parameter; ReadPreviousName?"),
        (["LogLevel=INFO", 'LogLevel=""'], "LogLevel: given 2 times"),
        (["Architecture=riscv"], "Architecture=riscv: it is one of x86_64, arm64"),
    ],
)
def test_deployment_with_a_wrong_parameter_is_refused(words: list[str], error: str, tmp_path: Path) -> None:
    assert before_deploy(*words, directory=tmp_path) == (1, error)


@pytest.mark.parametrize(("architecture", "machine"), MACHINES.items())
def test_package_for_the_architecture_of_the_stack_is_deployed(architecture: str, machine: str, tmp_path: Path) -> None:
    assert before_deploy(f"Architecture={architecture}", directory=tmp_path, machine=machine) == (0, "")


@pytest.mark.parametrize(("architecture", "machine"), [("x86_64", "aarch64"), ("arm64", "x86_64")])
def test_package_for_another_architecture_is_not_deployed(architecture: str, machine: str, tmp_path: Path) -> None:
    status, error = before_deploy(f"Architecture={architecture}", directory=tmp_path, machine=machine)

    assert status == 1
    assert error.startswith(f".aws-sam/build is built for {machine}-linux-gnu, and the stack is for {architecture}")


@pytest.mark.parametrize(
    ("words", "answer", "architecture"),
    [
        ([], stack_reply("arm64"), "arm64"),
        ([], stack_reply(None), "x86_64"),
        ([], (400, error_reply("ValidationError", "Stack with id vpcep-rename does not exist")), "x86_64"),
        (["Architecture=x86_64"], stack_reply("arm64"), "x86_64"),
    ],
)
def test_build_is_for_the_given_architecture_else_for_that_of_the_stack(
    words: list[str], answer: tuple[int, str], architecture: str, tmp_path: Path
) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "make").write_text(WRITE_ARGUMENTS)
    (programs / "make").chmod(0o755)
    with CloudFormation(*answer) as aws:
        environment = {**KEYS, "AWS_ENDPOINT_URL": aws.url, "PATH": f"{programs}:{os.environ['PATH']}"}
        status, _ = before_deploy(
            "--build", *words, directory=tmp_path, machine=MACHINES[architecture], environment=environment
        )

    assert status == 0
    assert (tmp_path / "arguments").read_text().split() == ["build", f"ARCHITECTURE={architecture}"]


@pytest.mark.parametrize(
    "answer",
    [
        (403, error_reply("AccessDenied", "User is not authorized")),
        (400, error_reply("ValidationError", "1 validation error detected")),
    ],
)
def test_deployment_to_a_stack_of_unknown_architecture_is_refused(answer: tuple[int, str], tmp_path: Path) -> None:
    with CloudFormation(*answer) as aws:
        status, error = before_deploy(directory=tmp_path, environment={**KEYS, "AWS_ENDPOINT_URL": aws.url})

    assert status == 1
    assert error.startswith("The stack's architecture is unknown: ")


def test_deployment_where_aws_cannot_be_reached_is_refused(tmp_path: Path) -> None:
    unreachable = {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_MAX_ATTEMPTS": "1"}

    status, error = before_deploy(directory=tmp_path, environment=KEYS | unreachable)

    assert status == 1
    assert error.startswith("The stack's architecture is unknown: ")


# ---- The workflow

WORKFLOW: Final = yaml.safe_load(read(".github/workflows/ci.yml"))


STEPS_OF_DEPLOYMENT: Final[list[dict[str, Any]]] = WORKFLOW["jobs"]["deploy"]["steps"]


def test_workflow_puts_no_variable_into_a_command() -> None:
    steps = [step for job in WORKFLOW["jobs"].values() for step in job["steps"]]

    assert [step["run"] for step in steps if "${{" in step.get("run", "")] == []


def test_workflow_builds_before_it_has_credentials_and_not_after() -> None:
    [role] = [number for number, step in enumerate(STEPS_OF_DEPLOYMENT) if "role-to-assume" in step.get("with", {})]

    assert [step["run"] for step in STEPS_OF_DEPLOYMENT[:role] if "run" in step] == ["make build"]
    assert [step["run"] for step in STEPS_OF_DEPLOYMENT[role:] if "run" in step] == ["make deploy-built"]


def test_workflow_builds_and_deploys_with_the_same_parameters() -> None:
    [build, deploy] = [step for step in STEPS_OF_DEPLOYMENT if "run" in step]

    assert build["env"] == deploy["env"] == {"PARAMETERS": "${{ vars.PARAMETERS }}"}


def test_workflow_waits_for_gradual_deployments_of_all_functions_one_after_the_other() -> None:
    preference = TEMPLATE["Globals"]["Function"]["DeploymentPreference"]["Type"]
    minutes = int(preference.partition("Percent")[2].removesuffix("Minutes"))

    assert WORKFLOW["jobs"]["deploy"]["timeout-minutes"] > len(FUNCTIONS) * minutes + 15


def test_each_pip_install_of_the_makefile_requires_hashes() -> None:
    installs = re.findall(r"-m pip install.*", read("Makefile"))

    assert installs
    # But the checkout itself, without its dependencies.
    assert [install for install in installs if "--require-hashes" not in install] == [
        "-m pip install -qq --no-input --no-deps --no-build-isolation --editable ."
    ]


# ---- Documents

DOCUMENT: Final = read("docs/deployment.md")


def test_documented_deploying_role_may_make_each_type_of_resource() -> None:
    policy = json.loads(block("docs/deployment.md", '{\n  "Version"'))
    actions = [each["Action"] for each in policy["Statement"]]
    allowed = {action.partition(":")[0] for each in actions for action in ([each] if isinstance(each, str) else each)}
    prefixes = {"ApiGateway": "apigateway", "CloudWatch": "cloudwatch", "Serverless": "lambda", "WAFv2": "wafv2"}

    services = {resource["Type"].split("::")[1] for resource in RESOURCES.values()}

    assert {prefixes.get(service, service.lower()) for service in services} - allowed == set()
    assert {"codedeploy", "cloudformation"} <= allowed  # what SAM makes, and what makes it


def test_parameters_named_in_the_deployment_document_exist() -> None:
    named = set(re.findall(r"`([A-Z]\w+)=[^`]*`", DOCUMENT))
    of_make = {"PARAMETERS", "STACK", "YES", "NAME", "ARCHITECTURE", "FunctionVersion"}

    assert len(named) > 5
    assert named - set(PARAMETERS) - of_make == set()


def test_deployment_document_names_the_rollback_alarms() -> None:
    section = DOCUMENT.partition("\n## Gradual deployment\n")[2].partition("\n## ")[0]

    assert set(re.findall(r"`(\w+Alarm)`", section)) == {
        alarm["Ref"] for alarm in TEMPLATE["Globals"]["Function"]["DeploymentPreference"]["Alarms"]
    }


def test_resources_named_in_the_deployment_document_exist() -> None:
    named = set(re.findall(r"\$\(resource (\w+)\)", DOCUMENT))

    assert len(named) > 3
    assert named - set(RESOURCES) == set()

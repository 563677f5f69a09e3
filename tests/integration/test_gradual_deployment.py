"""What SAM makes of the template's gradual deployment. The local AWS has no CodeDeploy to carry one out."""

import json
import subprocess
from functools import cache
from typing import Any

import pytest

from tests.localcloud.aws import ENVIRONMENTS, ROOT
from tests.localcloud.stack import FUNCTIONS

# Each can be set off by a new version within minutes, and by no producer: tests/unit/template/test_alarms.py.
ROLLBACK_ALARMS = ["FunctionErrorsAlarm", "DefectsAlarm", "AccessFailuresAlarm", "HttpErrorsAlarm"]

_PROGRAM = """
import json, sys
from types import SimpleNamespace
from samtranslator.translator.transform import transform
from samtranslator.yaml_helper import yaml_parse

template, (parameters, code) = yaml_parse(open(sys.argv[1], encoding="utf-8").read()), json.load(sys.stdin)
defaults = {name: rule.get("Default", "x") for name, rule in template["Parameters"].items()}
template["Globals"]["Function"]["CodeUri"] = {"Bucket": "packages", "Key": code}
print(json.dumps(transform(template, defaults | parameters, SimpleNamespace(load=dict))["Resources"]))
"""


def resources(code: str = "first", **parameters: str) -> dict[str, Any]:
    """The template's resources as SAM makes them, for a package's name and parameters."""
    return json.loads(_transformed(code, json.dumps(parameters)))  # type: ignore[no-any-return]


@cache
def _transformed(code: str, parameters: str) -> str:
    return subprocess.run(
        [ENVIRONMENTS / "ministack/bin/python", "-c", _PROGRAM, ROOT / "template.yml"],
        input=json.dumps([json.loads(parameters), code]),
        env={"AWS_DEFAULT_REGION": "eu-central-1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout.splitlines()[-1]


def of_type(found: dict[str, Any], kind: str) -> dict[str, Any]:
    return {name: resource for name, resource in found.items() if resource["Type"] == kind}


@pytest.mark.parametrize("function", FUNCTIONS)
def test_gradual_deployment_moves_an_alias_by_codedeploy(function: str) -> None:
    found = resources()
    [version] = [name for name in of_type(found, "AWS::Lambda::Version") if name.startswith(function)]

    alias = found[f"{function}Aliaslive"]

    assert alias["Properties"]["FunctionVersion"] == {"Fn::GetAtt": [version, "Version"]}
    group = alias["UpdatePolicy"]["CodeDeployLambdaAliasUpdate"]["DeploymentGroupName"]["Ref"]
    assert found[group]["Type"] == "AWS::CodeDeploy::DeploymentGroup"


def test_gradual_deployment_is_rolled_back_by_its_alarms() -> None:
    found = resources()
    groups = of_type(found, "AWS::CodeDeploy::DeploymentGroup")

    assert len(groups) == len(FUNCTIONS)
    for group in groups.values():
        assert "DEPLOYMENT_STOP_ON_ALARM" in group["Properties"]["AutoRollbackConfiguration"]["Events"]
        alarms = group["Properties"]["AlarmConfiguration"]["Alarms"]
        assert [alarm["Name"]["Ref"] for alarm in alarms] == ROLLBACK_ALARMS
        assert {found[alarm["Name"]["Ref"]]["Type"] for alarm in alarms} == {"AWS::CloudWatch::Alarm"}


def test_queues_and_api_invoke_the_alias() -> None:
    found = resources()
    called = {
        name: resource["Properties"]["FunctionName"]["Ref"]
        for kind in ("AWS::Lambda::EventSourceMapping", "AWS::Lambda::Permission")
        for name, resource in of_type(found, kind).items()
    }

    assert set(called.values()) == {f"{function}Aliaslive" for function in FUNCTIONS}


def test_alias_moves_at_once_without_gradual_deployment() -> None:
    found = resources(GradualDeployment="false")

    assert {resource["Type"] for resource in found.values() if "CodeDeploy" in resource["Type"]} == set()
    for function in FUNCTIONS:
        assert "UpdatePolicy" not in found[f"{function}Aliaslive"]


def test_sam_makes_a_new_version_for_other_code() -> None:
    first, second = (set(of_type(resources(code), "AWS::Lambda::Version")) for code in ("first", "second"))

    assert len(first) == len(second) == len(FUNCTIONS)
    assert first.isdisjoint(second)


def test_sam_makes_no_version_for_another_parameter_alone() -> None:
    """Hence the revision. When this fails, SAM has learnt it, and the revision can go."""
    first, second = (set(of_type(resources(LogLevel=level), "AWS::Lambda::Version")) for level in ("INFO", "DEBUG"))

    assert first == second


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("revision", ["1764092362", "1764092363"])
def test_revision_changes_the_function_and_makes_a_version_of_its_own_that_is_retained(
    function: str, revision: str
) -> None:
    found = resources(Revision=revision)
    version = found[f"{function}Version{revision}"]

    # Lambda makes no version of what has not changed since the last one.
    assert found[function]["Properties"]["Description"].endswith(f" Revision {revision}")
    assert version["DeletionPolicy"] == "Retain"
    # A property that differs would have CloudFormation replace the version before.
    assert version["Properties"] == {"FunctionName": {"Ref": function}}


def test_empty_revision_leaves_versions_to_sam() -> None:
    first, again, second = (
        set(of_type(resources(code, Revision=""), "AWS::Lambda::Version")) for code in ("first", "first", "second")
    )

    assert first == again
    assert first.isdisjoint(second)

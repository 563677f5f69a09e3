"""What SAM makes of the template's gradual deployment. The local AWS has no CodeDeploy to carry one out."""

import json
import subprocess
from functools import cache
from typing import Any

import pytest

from tests.localcloud.aws import ENVIRONMENTS, ROOT

FUNCTIONS = ("RenameFromQueue", "RenameFromHttp", "SettleDeadLetters")
# Each can be set off by a new version within minutes, and by no producer: tests/unit/template/test_alarms.py.
GUARDS = ["FunctionErrorsAlarm", "DefectsAlarm", "AccessFailuresAlarm", "HttpErrorsAlarm"]

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


class TestSwitchedOn:
    """As it is by default."""

    @pytest.mark.parametrize("function", FUNCTIONS)
    def test_an_alias_moves_to_a_new_version_by_codedeploy(self, function: str) -> None:
        found = resources()
        [version] = [name for name in of_type(found, "AWS::Lambda::Version") if name.startswith(function)]

        alias = found[f"{function}Aliaslive"]

        assert alias["Properties"]["FunctionVersion"] == {"Fn::GetAtt": [version, "Version"]}
        group = alias["UpdatePolicy"]["CodeDeployLambdaAliasUpdate"]["DeploymentGroupName"]["Ref"]
        assert found[group]["Type"] == "AWS::CodeDeploy::DeploymentGroup"

    def test_and_back_when_an_alarm_goes_off(self) -> None:
        found = resources()
        groups = of_type(found, "AWS::CodeDeploy::DeploymentGroup")

        assert len(groups) == len(FUNCTIONS)
        for group in groups.values():
            assert "DEPLOYMENT_STOP_ON_ALARM" in group["Properties"]["AutoRollbackConfiguration"]["Events"]
            alarms = group["Properties"]["AlarmConfiguration"]["Alarms"]
            assert [alarm["Name"]["Ref"] for alarm in alarms] == GUARDS
            assert {found[alarm["Name"]["Ref"]]["Type"] for alarm in alarms} == {"AWS::CloudWatch::Alarm"}

    def test_the_queues_and_the_api_call_the_alias(self) -> None:
        found = resources()
        called = {
            name: resource["Properties"]["FunctionName"]["Ref"]
            for kind in ("AWS::Lambda::EventSourceMapping", "AWS::Lambda::Permission")
            for name, resource in of_type(found, kind).items()
        }

        assert set(called.values()) == {f"{function}Aliaslive" for function in FUNCTIONS}


def test_switched_off_the_alias_moves_at_once() -> None:
    found = resources(GradualDeployment="false")

    assert {resource["Type"] for resource in found.values() if "CodeDeploy" in resource["Type"]} == set()
    for function in FUNCTIONS:
        assert "UpdatePolicy" not in found[f"{function}Aliaslive"]


def test_other_code_makes_other_versions() -> None:
    first, second = (set(of_type(resources(code), "AWS::Lambda::Version")) for code in ("first", "second"))

    assert len(first) == len(second) == len(FUNCTIONS)
    assert first.isdisjoint(second)


def test_sam_makes_no_version_for_another_parameter_alone() -> None:
    """Hence the revision. When this fails, SAM has learnt it, and the revision can go."""
    first, second = (set(of_type(resources(LogLevel=level), "AWS::Lambda::Version")) for level in ("INFO", "DEBUG"))

    assert first == second


class TestRevision:
    @pytest.mark.parametrize("function", FUNCTIONS)
    @pytest.mark.parametrize("revision", ["1764092362", "1764092363"])
    def test_makes_a_version_of_its_own_which_stays(self, function: str, revision: str) -> None:
        version = resources(Revision=revision)[f"{function}Version{revision}"]

        assert version["DeletionPolicy"] == "Retain"
        # A property that differs would have CloudFormation replace the version before.
        assert version["Properties"] == {"FunctionName": {"Ref": function}}

    @pytest.mark.parametrize("function", FUNCTIONS)
    def test_changes_the_function_too(self, function: str) -> None:
        """Lambda makes no version of what has not changed since the last one."""
        description = resources(Revision="1764092362")[function]["Properties"]["Description"]

        assert description.endswith(" Revision 1764092362")

    def test_empty_leaves_it_to_sam(self) -> None:
        first, again, second = (
            set(of_type(resources(code, Revision=""), "AWS::Lambda::Version")) for code in ("first", "first", "second")
        )

        assert first == again
        assert first.isdisjoint(second)

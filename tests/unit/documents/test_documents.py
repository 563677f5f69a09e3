"""The documents: links have targets, a test holds commands and samples, tables agree with code and template."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Iterator
from typing import Any, Final

import pytest

from function import settings
from function.domain.failures import OWN_CODES, Kind
from tests.commands import run
from tests.documents import DOCUMENTS, ROOT, Block, block, blocks, read
from tests.localcloud.monitor import FAULTS, NO_FAULT
from tests.template import TEMPLATE, of_type

PARAMETERS: Final[dict[str, dict[str, Any]]] = TEMPLATE["Parameters"]

# ---- Commands and samples

_CLI: Final = "tests/integration/test_cli.py"
_COMMANDS: Final = "tests/integration/test_documented_commands.py"
_HERE: Final = "tests/unit/documents/test_documents.py"
_INTEGRATIONS: Final = "tests/integration/test_integrations.py"
_CLOUDEVENTS_SDK: Final = f"{_INTEGRATIONS}::test_documented_use_of_the_cloudevents_sdk_renames"
_KEY_POLICY: Final = "tests/unit/template/test_access.py"
_PATTERNS: Final = (
    "tests/integration/test_event_patterns.py::test_documented_event_patterns_match_their_kinds_of_outcomes"
)
_EVENT_OF_THE_COMMAND: Final = f"{_HERE}::test_documented_rename_event_is_the_one_that_the_documented_command_sends"
_PRODUCERS: Final = "tests/integration/test_producers.py"
_LISTED_AND_APPLIED: Final = f"{_CLI}::test_documented_session_edits_applies_and_undoes_a_file"
_DESCRIBE_RESOURCES: Final = "aws cloudformation describe-stack-resources --stack-name vpcep-rename"
# Which test runs a block, or holds its text: by the block's document and how it begins.
HELD_BY: Final = {
    "README.md": {
        "1. A rename through the queue": f"{_COMMANDS}::test_make_run_prints_the_documented_lines",
        "22:06:31  fault ": "tests/integration/test_up.py::test_make_up_shows_an_outage_and_its_end",
        '{\n  "specversion"': _EVENT_OF_THE_COMMAND,
        "aws sqs send-message ": f"{_COMMANDS}::test_documented_command_renames_through_the_queue",
        '{"source": ["vpcep.rename"]}': _PATTERNS,
        "$ vpcep-rename list ": f"{_CLI}::test_session_in_the_readme_prints_what_is_documented",
    },
    "docs/command.md": {
        "$ vpcep-rename list\n": _LISTED_AND_APPLIED,
        "vpc_endpoint_service_id,": _LISTED_AND_APPLIED,
        "$ vpcep-rename apply ": _LISTED_AND_APPLIED,
        "vpcep-rename rename ": f"{_CLI}::test_documented_rename_command_renames_the_service",
    },
    "docs/deployment.md": {
        "aws secretsmanager create-secret ": f"{_COMMANDS}::test_documented_command_creates_the_secret",
        f"{_DESCRIBE_RESOURCES} \\\n": f"{_COMMANDS}::test_documented_command_lists_the_roles_of_the_functions",
        "curl -s ": f"{_COMMANDS}::test_documented_command_selects_the_rsa_keys_of_the_issuer",
        "key=$(aws apigateway create-api-key ": f"{_COMMANDS}::test_documented_commands_make_and_show_an_api_key",
        "aws apigateway get-account ": f"{_COMMANDS}::test_documented_command_shows_the_role_for_access_logs",
        '{\n  "Version"': (
            "tests/integration/test_deployment.py"
            "::test_documented_permissions_allow_deploy_and_prune_of_this_stack_only"
        ),
        "aws lambda get-account-settings ": f"{_COMMANDS}::test_documented_command_shows_the_concurrency_limits",
        f"{_DESCRIBE_RESOURCES} --output": f"{_COMMANDS}::test_documented_command_lists_what_a_deleted_stack_leaves",
        "bus=vpcep-rename-outcomes": f"{_COMMANDS}::test_documented_commands_delete_the_rules_of_the_bus",
        "STACK=vpcep-rename": f"{_COMMANDS}::test_documented_shell_function_prints_the_physical_name_of_a_resource",
    },
    "docs/events.md": {
        '{\n  "specversion": "1.0",\n  "id": "5a4d6f3e': _EVENT_OF_THE_COMMAND,
        "aws sqs send-message ": f"{_COMMANDS}::test_documented_command_renames_through_the_queue",
        'curl "$RENAME_API_URL" ': f"{_COMMANDS}::test_documented_command_renames_through_http",
        '{\n  "specversion": "1.0",\n  "id": "1fd3f9f4': f"{_HERE}::test_documented_outcome_is_the_sample_of_a_failure",
        '{"source": ["vpcep.rename"], "detail-type"': _PATTERNS,
        '{\n  "source": ["vpcep.rename"]': _PATTERNS,
        '{"source": ["vpcep.rename"], "detail":': _PATTERNS,
        '{\n  "dry_run"': f"{_HERE}::test_documented_dry_run_is_the_sample_of_a_dry_run",
    },
    "docs/integrations.md": {
        "Parameters:\n": f"{_INTEGRATIONS}::test_documented_queue_gets_failed_renames_without_their_envelope",
        "import json\nimport os\nimport uuid\n": f"{_PRODUCERS}::test_documented_producer_renames_through_the_topic",
        "Description: Rename events of the default bus": (
            f"{_INTEGRATIONS}::test_documented_rule_may_call_the_api_and_nothing_else"
        ),
        "Description: Rename events of a standard queue": (
            f"{_INTEGRATIONS}::test_documented_pipe_names_group_and_deduplication_id"
        ),
        "import os\n\nimport boto3\nimport urllib3\n": _CLOUDEVENTS_SDK,
        'session.client("sqs")': _CLOUDEVENTS_SDK,
        '{\n  "StartAt"': f"{_INTEGRATIONS}::test_documented_state_machine_polls_for_the_outcome",
        "name: Endpoint service names": (
            f"{_INTEGRATIONS}::test_documented_workflow_shows_what_it_would_rename_and_renames"
        ),
        '{\n  "specversion": "1.0",\n  "id": {{': f"{_INTEGRATIONS}::test_documented_webhook_of_netbox_is_forwarded",
        "import base64\n": f"{_INTEGRATIONS}::test_documented_webhook_of_netbox_is_forwarded",
        ". .build/local.env": "tests/integration/test_up.py::test_make_up_prints_the_documented_commands",
    },
    "docs/operations.md": {
        "aws sns subscribe ": f"{_COMMANDS}::test_documented_command_subscribes_an_endpoint_to_the_alarms"
    },
    "docs/security.md": {
        '{\n  "Version"': f"{_KEY_POLICY}::documented_key_policy",
        '{\n  "Effect"': f"{_KEY_POLICY}::test_documented_statement_for_a_producer_lets_it_encrypt",
        '{"outcome_id"': f"{_KEY_POLICY}::test_outcome_log_line_has_the_documented_fields",
    },
    "docs/testing.md": {
        ".venv/dev/bin/python -m tests.faults --replay": f"{_HERE}::test_documented_replay_of_a_seed_runs"
    },
}
# What no test runs, and why.
NOT_RUN: Final = {
    "CONTRIBUTING.md": {
        "pre-commit install ": "sets hooks up in the checkout that runs it, and pre-commit is the reader's own"
    },
    "docs/deployment.md": {
        "aws iam enable-outbound-web-identity-federation": "MiniStack's issuer is always on",
        '[\n  {\n    "local"': "an identity conversion rule is for Huawei Cloud's IAM alone",
        "aws service-quotas request-service-quota-increase ": "MiniStack has no Service Quotas",
        ".venv/sam/bin/sam delete ": "asks for a yes; test_deployment.py takes a stack down with --no-prompts",
    },
    "docs/integrations.md": {
        'resource "huaweicloud_vpcep_service"': "needs Terraform and Huawei Cloud's provider",
    },
    "docs/testing.md": {
        ".venv/dev/bin/python -m pytest ": "runs tests",
        ".venv/dev/bin/python -m tests.faults --from": "minutes; tests/faults makes thousands of such runs",
        ".venv/dev/bin/python -m tests.threads ": "minutes; tests/threads/test_threads.py makes a run",
        ".venv/dev/bin/python -m tests.fuzz ": "half a minute; tests/fuzz/test_fuzz.py makes such runs",
    },
}


def entries_for(each: Block) -> list[str]:
    """The tests that hold a block, or the reason why none does."""
    if each.language == "mermaid":
        return ["drawn by GitHub; what parses it, mermaid, needs Node"]
    if each.document == "docs/runbook.md" and each.language == "bash":
        return ["tests/integration/test_runbook.py::test_command_of_the_runbook_succeeds"]
    if all(line.startswith("make ") for line in each.text.splitlines()):
        return [f"{_HERE}::test_documented_make_command_has_a_target_and_known_parameters"]
    of_document = [table.get(each.document, {}) for table in (HELD_BY, NOT_RUN)]
    return [held for starts in of_document for start, held in starts.items() if each.text.startswith(start)]


@pytest.mark.parametrize("each", blocks(), ids=lambda each: f"{each.document}: {each.text.splitlines()[0][:60]}")
def test_documented_block_is_held_by_a_test_or_listed_with_a_reason(each: Block) -> None:
    assert len(entries_for(each)) == 1


def test_held_or_excused_block_is_in_its_document() -> None:
    unused = [
        (document, start)
        for table in (HELD_BY, NOT_RUN)
        for document, starts in table.items()
        for start in starts
        if not any(each.text.startswith(start) for each in blocks(document))
    ]

    assert unused == []


@pytest.mark.parametrize(
    ("document", "test"), sorted({(document, test) for document, held in HELD_BY.items() for test in held.values()})
)
def test_test_that_holds_a_documented_block_exists_and_reads_the_document(document: str, test: str) -> None:
    path, _, name = test.partition("::")
    text = read(path)

    assert re.search(rf"^ *def {name}\(", text, re.MULTILINE)
    assert document in text


def make_commands() -> list[str]:
    found = [line for each in blocks() for line in each.text.splitlines() if line.startswith("make ")]
    inline = [command for document in DOCUMENTS for command in re.findall(r"`(make [a-z][^`]*)`", read(document))]
    return sorted({*found, *inline})


@pytest.mark.parametrize("command", make_commands())
def test_documented_make_command_has_a_target_and_known_parameters(command: str) -> None:
    words = shlex.split(command)

    run(
        "make", "--dry-run", *words[1:], env={name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    )

    parameters = [word.removeprefix("PARAMETERS=") for word in words if word.startswith("PARAMETERS=")]
    names = {pair.partition("=")[0] for each in parameters for pair in each.split() if "=" in pair}
    assert names <= PARAMETERS.keys()


@pytest.mark.parametrize("each", [each for each in blocks() if each.language == "json"])
def test_documented_json_is_valid(each: Block) -> None:
    json.loads(each.text)


@pytest.mark.parametrize("document", ["README.md", "docs/events.md"])
def test_documented_rename_event_is_the_one_that_the_documented_command_sends(document: str) -> None:
    event = json.loads(block(document, '{\n  "specversion": "1.0",\n  "id": "5a4d6f3e'))
    [sent] = re.findall(r"--message-body file://(\S+)", block(document, "aws sqs send-message"))

    assert json.loads(read(sent)) | event == json.loads(read(sent))


def test_documented_outcome_is_the_sample_of_a_failure() -> None:
    outcome = json.loads(block("docs/events.md", '{\n  "specversion": "1.0",\n  "id": "1fd3f9f4'))

    assert outcome == json.loads(read("tests/events/outcome-failed.json"))


def test_documented_dry_run_is_the_sample_of_a_dry_run() -> None:
    reply = json.loads(block("docs/events.md", '{\n  "dry_run"'))

    assert reply == json.loads(read("tests/events/http-replies.json"))["dry-run"]["body"]


def test_documented_replay_of_a_seed_runs() -> None:
    command = block("docs/testing.md", ".venv/dev/bin/python -m tests.faults --replay")

    done = run(*shlex.split(command), seconds=120)

    assert "all invariants hold" in done.stdout.splitlines()[-1]


# ---- Links


def anchors(text: str) -> set[str]:
    """What GitHub makes of the headings."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_each_link_of_a_document_within_the_project_has_a_target(name: str) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", read(name)):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        linked = ((ROOT / name).parent / path).resolve() if path else ROOT / name
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked.read_text(encoding="utf-8")), target


@pytest.mark.parametrize("name", [name for name in DOCUMENTS if name != "CHANGELOG.md"])
def test_each_file_that_a_document_names_exists(name: str) -> None:
    paths = re.findall(r"(?<![\w./-])((?:tests|function|scripts|docs)/[\w/.-]*\w)", read(name))

    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_readme_is_short_and_links_every_document() -> None:
    readme = read("README.md")

    assert len(readme.splitlines()) <= 150
    assert [name for name in DOCUMENTS if name.startswith("docs/") and f"({name}" not in readme] == []


# ---- Tables


def rows(document: str) -> Iterator[list[str]]:
    """The cells of each table row of a document."""
    for line in read(document).splitlines():
        if line.startswith("| ") and line.endswith(" |"):
            yield [cell.strip() for cell in line.removeprefix("|").removesuffix("|").split(" |")]


def names_in(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def documented_parameters() -> dict[str, list[str]]:
    """Default, meaning and setting by name."""
    return {
        names_in(first)[0]: rest for first, *rest in rows("docs/configuration.md") if len(rest) == 3 and names_in(first)
    }


def test_each_template_parameter_is_documented_once() -> None:
    names = [names_in(first) for first, *rest in rows("docs/configuration.md") if len(rest) == 3]

    assert sorted(name for found in names for name in found) == sorted(PARAMETERS)


def expected_default(rule: dict[str, Any]) -> str:
    """As the documents write it: the default, then what else is allowed."""
    if "Default" not in rule:
        return "required"
    default = str(rule["Default"])
    if rule["Type"] == "Number":
        limits = [str(rule[limit]) for limit in ("MinValue", "MaxValue") if limit in rule]
        return f"{default}, from {' to '.join(limits)}" if limits else default
    if others := [value for value in rule.get("AllowedValues", []) if value != default]:
        return f"`{default}`; or {', '.join(f'`{value}`' for value in others)}"
    return default and f"`{default}`"


@pytest.mark.parametrize("name", PARAMETERS)
def test_documented_default_and_range_of_a_parameter_are_those_of_the_template(name: str) -> None:
    default, _, _ = documented_parameters()[name]

    assert default == expected_default(PARAMETERS[name])


def test_documented_setting_of_a_parameter_is_the_one_that_the_template_passes_on() -> None:
    variables = TEMPLATE["Globals"]["Function"]["Environment"]["Variables"]
    passed_on = {value["Ref"]: name for name, value in variables.items() if isinstance(value, dict)}
    documented = {name: names_in(setting) for name, (_, _, setting) in documented_parameters().items()}

    assert documented == {name: [passed_on[name]] if name in passed_on else [] for name in PARAMETERS}


class Recorder(dict[str, str]):
    """An environment that notes what is asked for."""

    def __init__(self, values: dict[str, str]) -> None:
        super().__init__(values)
        self.asked: set[str] = set()

    def get(self, name: str, default: Any = None) -> Any:
        self.asked.add(name)
        return super().get(name, default)


def test_each_setting_that_the_function_reads_or_the_template_sets_is_documented() -> None:
    environment = Recorder({"HUAWEICLOUD_REGION": "cn-north-4"})
    with pytest.raises(settings.SettingsError):
        settings.load(environment)
    # The function's own AWS account, as Lambda's runtime sets it.
    by_lambda = {"AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"}
    by_lambda.add("AWS_CA_BUNDLE")
    of_template = {*TEMPLATE["Globals"]["Function"]["Environment"]["Variables"]} | {
        name
        for function in of_type("AWS::Serverless::Function").values()
        for name in function.get("Environment", {}).get("Variables", {})
    }
    documented = {name for cells in rows("docs/configuration.md") for name in names_in(" ".join(cells))}

    asked = {name.replace("CN_NORTH_4", "<REGION>") for name in environment.asked}
    assert (asked | of_template) - by_lambda - documented == set()


def test_each_error_code_of_the_function_is_documented() -> None:
    documented = [
        name for first, *_ in rows("docs/events.md") for name in names_in(first) if name.startswith("Rename.")
    ]

    assert sorted(documented) == sorted(OWN_CODES)


def test_each_fault_of_the_local_clouds_is_documented() -> None:
    documented = [name for first, *_ in rows("docs/integrations.md") for name in names_in(first) if name in FAULTS]

    assert [*documented, NO_FAULT] == [*FAULTS]


def test_each_kind_of_failure_is_documented() -> None:
    documented = [names_in(first)[0] for first, *rest in rows("docs/events.md") if len(rest) == 3 and names_in(first)]

    assert set(Kind) <= set(documented)


def test_architecture_document_names_each_module() -> None:
    named = {name for first, *_ in rows("docs/architecture.md") for name in names_in(first) if name.endswith(".py")}
    modules = {path.relative_to(ROOT / "function").as_posix() for path in (ROOT / "function").rglob("*.py")}

    assert named == {name for name in modules if not name.endswith("__init__.py")}

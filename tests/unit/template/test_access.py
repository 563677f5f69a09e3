"""Who has access, what denies it to others, what the log of outcomes has: template and documents."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from functools import cache
from typing import Any, Final, NamedTuple

import pytest

from tests.documents import block, read
from tests.fakes.world import World
from tests.template import RESOURCES, TEMPLATE, of_type
from tests.unit.template.test_operations import report_every_result

SECURITY: Final = read("docs/security.md")

# As in the documented key policy.
NAME, REGION, ACCOUNT = "vpcep-rename", "eu-central-1", "123456789012"
PRODUCER_ACCOUNT = "210987654321"
TOPIC = f"arn:aws:sns:{REGION}:{ACCOUNT}:renames.fifo"
LOG_GROUP = f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:"
BUS = f"arn:aws:events:{REGION}:{ACCOUNT}:event-bus/{NAME}-outcomes"

SERVICE_CALLS = {"Bool": {"aws:PrincipalIsAWSService": "false"}}


def role_of(function: str) -> dict[str, Any]:
    return {"Fn::GetAtt": f"{function}Role.Arn"}


def permissions() -> Iterator[tuple[str, dict[str, Any]]]:
    """Each statement of each function's role, whatever the parameters."""
    for name, role in of_type("AWS::IAM::Role").items():
        for policy in role.get("Policies", []):
            for statement in policy["PolicyDocument"]["Statement"]:
                for each in statement.get("Fn::If", [statement]):
                    if isinstance(each, dict) and "Action" in each:
                        yield name.removesuffix("Role"), each


def actions(statement: Mapping[str, Any]) -> list[str]:
    found = statement["Action"]
    return [found] if isinstance(found, str) else list(found)


def queue_policy(queue: str) -> dict[str, Any]:
    """The statements of a queue's one policy by Sid, whatever the parameters."""
    [policy] = [each for each in of_type("AWS::SQS::QueuePolicy").values() if each["Queues"] == [{"Ref": queue}]]
    statements = [each.get("Fn::If", [None, each])[1] for each in policy["PolicyDocument"]["Statement"]]
    return {statement["Sid"]: statement for statement in statements}


# ---- Denied to others


def test_only_roles_that_publish_outcomes_may_use_their_source() -> None:
    [policy] = of_type("AWS::Events::EventBusPolicy").values()
    publishers = [function for function, statement in permissions() if "events:PutEvents" in actions(statement)]

    assert policy["EventBusName"] == {"Ref": "OutcomeBus"}
    assert policy["Statement"] == {
        "Effect": "Deny",
        "Principal": "*",
        "Action": "events:PutEvents",
        "Resource": {"Fn::GetAtt": "OutcomeBus.Arn"},
        "Condition": {
            # One entry of a request is enough.
            "ForAnyValue:StringEquals": {"events:source": "vpcep.rename"},
            "ArnNotEquals": {"aws:PrincipalArn": [role_of(function) for function in publishers]},
            **SERVICE_CALLS,
        },
    }


@pytest.mark.parametrize("queue", ["UnsettledQueue", "RenameDeadLetterQueue", "OutcomeBusDeadLetterQueue"])
def test_only_roles_that_forward_dead_letters_may_send_to_their_queues(queue: str) -> None:
    arn = {"Fn::GetAtt": f"{queue}.Arn"}
    senders = [
        role_of(function)
        for function, statement in permissions()
        if "sqs:SendMessage" in actions(statement) and statement["Resource"] == arn
    ]

    [statement] = [each for sid, each in queue_policy(queue).items() if sid.startswith("Refuse") and "Senders" in sid]

    assert statement | {"Sid": None} == {
        "Sid": None,
        "Effect": "Deny",
        "Principal": "*",
        "Action": "sqs:SendMessage",
        "Resource": arn,
        "Condition": SERVICE_CALLS | ({"ArnNotEquals": {"aws:PrincipalArn": senders[0]}} if senders else {}),
    }
    assert len(senders) <= 1


@pytest.mark.parametrize("queue", of_type("AWS::SQS::Queue"))
def test_every_queue_refuses_plain_http(queue: str) -> None:
    statement = queue_policy(queue)["RefusePlainHttp"]

    assert (statement["Effect"], statement["Principal"], statement["Action"]) == ("Deny", "*", "sqs:*")
    assert statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}


# ---- Producers


def test_rename_queue_allows_only_the_producers_of_the_parameters_to_send() -> None:
    policy = queue_policy("RenameQueue")

    allowed = {sid: statement for sid, statement in policy.items() if statement["Effect"] == "Allow"}

    common = {"Effect": "Allow", "Action": "sqs:SendMessage", "Resource": {"Fn::GetAtt": "RenameQueue.Arn"}}
    assert allowed == {
        "ProducerAccountsSend": {
            "Sid": "ProducerAccountsSend",
            "Principal": {"AWS": {"Fn::Split": [",", {"Ref": "ProducerAccounts"}]}},
            **common,
        },
        "ProducerTopicSends": {
            "Sid": "ProducerTopicSends",
            "Principal": {"Service": "sns.amazonaws.com"},
            "Condition": {"ArnEquals": {"aws:SourceArn": {"Ref": "ProducerTopicArn"}}},
            **common,
        },
    }


def test_key_of_the_secret_is_used_through_secrets_manager_only() -> None:
    statements = {
        function: statement for function, statement in permissions() if statement["Sid"] == "DecryptCredentials"
    }

    assert set(statements) == {name for name, statement in permissions() if statement["Sid"] == "ReadCredentials"}
    for statement in statements.values():
        assert (statement["Action"], statement["Resource"]) == ("kms:Decrypt", {"Ref": "CredentialsKeyArn"})
        via = statement["Condition"]["StringEquals"]["kms:ViaService"]
        assert via == {"Fn::Sub": "secretsmanager.${AWS::Region}.${AWS::URLSuffix}"}


@pytest.mark.parametrize("function", of_type("AWS::Serverless::Function"))
def test_function_uses_keys_through_services_only(function: str) -> None:
    through: dict[str, set[str]] = {}
    for name, statement in permissions():
        if name == function and "kms:" in json.dumps(actions(statement)):
            via = statement["Condition"]["StringEquals"]["kms:ViaService"]
            services = [each["Fn::Sub"] for each in (via if isinstance(via, list) else [via])]
            assert all(service.endswith(".${AWS::Region}.${AWS::URLSuffix}") for service in services)
            through[statement["Sid"]] = {service.partition(".")[0] for service in services}

    assert {"sqs", "dynamodb"} <= through["UseKey"]


# ---- The documented key policy


@cache
def documented_key_policy() -> dict[str, Any]:
    return dict(json.loads(block("docs/security.md", '{\n  "Version"')))


class Use(NamedTuple):
    """Who does what with the key, and what KMS then knows."""

    principal: tuple[str, str]
    actions: tuple[str, ...]
    context: Mapping[str, str] = {}


OF_THE_ACCOUNT = ("AWS", f"arn:aws:iam::{ACCOUNT}:root")
LOGS, EVENTS = ("Service", f"logs.{REGION}.amazonaws.com"), ("Service", "events.amazonaws.com")
ON_THE_BUS = {"kms:EncryptionContext:aws:events:event-bus:arn": BUS}
ENCRYPT = ("kms:GenerateDataKey", "kms:Decrypt")
RE_ENCRYPT = ("kms:ReEncryptFrom", "kms:ReEncryptTo")
# By a role of the account: its IAM policies have the last word.
BY_THE_CALLER = [Use(OF_THE_ACCOUNT, (*ENCRYPT, "kms:CreateGrant", "kms:DescribeKey"))]


def uses_of(name: str) -> list[Use]:
    """What a resource of the template needs of the key that it is encrypted with."""
    match RESOURCES[name]["Type"]:
        case "AWS::Logs::LogGroup":
            group = RESOURCES[name]["Properties"]["LogGroupName"]["Fn::Sub"].replace("${AWS::StackName}", NAME)
            context = {"kms:EncryptionContext:aws:logs:arn": f"{LOG_GROUP}{group}"}
            return [Use(LOGS, (*ENCRYPT, *RE_ENCRYPT, "kms:Encrypt", "kms:DescribeKey"), context)]
        case "AWS::Events::EventBus":
            return [Use(EVENTS, ("kms:DescribeKey",)), Use(EVENTS, ENCRYPT, ON_THE_BUS)]
        case "AWS::Events::Archive":
            return [Use(EVENTS, ("kms:DescribeKey",)), Use(EVENTS, (*ENCRYPT, *RE_ENCRYPT), ON_THE_BUS)]
        case "AWS::SQS::Queue" if name == "RenameQueue":
            via_sqs = {"kms:ViaService": f"sqs.{REGION}.amazonaws.com"}
            producers = Use(("AWS", f"arn:aws:iam::{PRODUCER_ACCOUNT}:root"), ENCRYPT, via_sqs)
            return [*BY_THE_CALLER, producers, Use(("Service", "sns.amazonaws.com"), ENCRYPT, {"aws:SourceArn": TOPIC})]
        case "AWS::SQS::Queue" | "AWS::DynamoDB::Table":
            return BY_THE_CALLER
    pytest.fail(f"{name} uses the key: say for what, here and in the documents")


def allows(policy: Mapping[str, Any], principal: tuple[str, str], action: str, context: Mapping[str, str]) -> bool:
    kind, who = principal

    def holds(condition: Mapping[str, Mapping[str, Any]]) -> bool:
        assert condition.keys() <= {"StringEquals", "ArnEquals", "ArnLike"}
        return all(
            any(fnmatchcase(context.get(key, ""), each) for each in ([values] if isinstance(values, str) else values))
            for keys in condition.values()
            for key, values in keys.items()
        )

    return any(
        who in (named if isinstance(named := statement["Principal"].get(kind, []), list) else [named])
        and any(fnmatchcase(action, each) for each in actions(statement))
        and holds(statement.get("Condition", {}))
        for statement in policy["Statement"]
    )


def lacking(policy: Mapping[str, Any], uses: list[Use]) -> list[tuple[Use, str]]:
    return [
        (use, action)
        for use in uses
        for action in use.actions
        if not allows(policy, use.principal, action, use.context)
    ]


def mentions(value: object, reference: object) -> bool:
    if value == reference:
        return True
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return any(mentions(part, reference) for part in parts)


ENCRYPTED: Final = [
    name
    for name, resource in RESOURCES.items()
    if mentions(resource["Properties"], {"Ref": "KmsKeyArn"}) and resource["Type"] != "AWS::IAM::Role"
]


def test_key_of_the_adopter_encrypts_resources_of_four_services() -> None:
    assert {RESOURCES[name]["Type"].split("::")[1] for name in ENCRYPTED} == {"SQS", "Events", "DynamoDB", "Logs"}
    assert len(ENCRYPTED) > 8


@pytest.mark.parametrize("name", ENCRYPTED)
def test_documented_key_policy_allows_what_each_resource_needs(name: str) -> None:
    assert lacking(documented_key_policy(), uses_of(name)) == []


@pytest.mark.parametrize("number", range(len(documented_key_policy()["Statement"])))
def test_documented_key_policy_has_no_statement_that_no_resource_needs(number: int) -> None:
    statements = list(documented_key_policy()["Statement"])
    del statements[number]

    assert any(lacking({"Statement": statements}, uses_of(name)) for name in ENCRYPTED)


@pytest.mark.parametrize(
    ("principal", "context"),
    [
        (LOGS, {"kms:EncryptionContext:aws:logs:arn": f"{LOG_GROUP}/aws/lambda/other"}),
        (EVENTS, {"kms:EncryptionContext:aws:events:event-bus:arn": f"{BUS}-2"}),
        (EVENTS, {}),
        (("Service", "sns.amazonaws.com"), {"aws:SourceArn": f"{TOPIC}.fifo"}),
        (("AWS", f"arn:aws:iam::{PRODUCER_ACCOUNT}:root"), {"kms:ViaService": f"s3.{REGION}.amazonaws.com"}),
        (("AWS", "arn:aws:iam::333333333333:root"), {"kms:ViaService": f"sqs.{REGION}.amazonaws.com"}),
    ],
)
def test_documented_key_policy_lets_nobody_else_decrypt(principal: tuple[str, str], context: dict[str, str]) -> None:
    assert not allows(documented_key_policy(), principal, "kms:Decrypt", context)


def test_documented_statement_for_a_producer_lets_it_encrypt() -> None:
    statement = json.loads(block("docs/security.md", '{\n  "Effect"'))

    assert statement.keys() == {"Effect", "Action", "Resource", "Condition"}
    policy = {"Statement": [statement | {"Principal": {"AWS": "producer"}}]}
    via = {"kms:ViaService": f"sqs.{REGION}.amazonaws.com"}
    assert lacking(policy, [Use(("AWS", "producer"), ENCRYPT, via)]) == []
    assert not allows(policy, ("AWS", "producer"), "kms:Decrypt", {})


def test_each_statement_of_the_key_policy_is_explained() -> None:
    explained = re.findall(r"^\| `(\w+)` \|", SECURITY, re.MULTILINE)

    assert explained == [statement["Sid"] for statement in documented_key_policy()["Statement"]]


def test_role_of_each_function_may_use_the_key_as_a_caller_of_sqs_does() -> None:
    using = {function: set(actions(each)) for function, each in permissions() if each["Sid"] == "UseKey"}

    assert using == {function: set(ENCRYPT) for function in of_type("AWS::Serverless::Function")}


def test_bus_with_a_key_has_a_dead_letter_queue_without_that_key() -> None:
    bus, queue = RESOURCES["OutcomeBus"]["Properties"], RESOURCES["OutcomeBusDeadLetterQueue"]

    own_key, with_it, without = bus["DeadLetterConfig"]["Fn::If"]
    assert (own_key, without) == ("OwnKey", {"Ref": "AWS::NoValue"})
    assert with_it == {"Arn": {"Fn::GetAtt": "OutcomeBusDeadLetterQueue.Arn"}}
    assert queue["Condition"] == "OwnKey"
    assert queue["DeletionPolicy"] == queue["UpdateReplacePolicy"] == "Retain"
    assert queue["Properties"]["SqsManagedSseEnabled"] is True
    assert not mentions(queue, {"Ref": "KmsKeyArn"})
    # EventBridge takes standard queues only.
    assert "FifoQueue" not in queue["Properties"]
    sends = queue_policy("OutcomeBusDeadLetterQueue")["OutcomeBusSends"]
    assert (sends["Effect"], sends["Principal"]) == ("Allow", {"Service": "events.amazonaws.com"})
    assert sends["Condition"] == {"ArnEquals": {"aws:SourceArn": {"Fn::GetAtt": "OutcomeBus.Arn"}}}


def test_resources_of_an_option_are_made_and_referred_to_only_with_it() -> None:
    conditions = {name: resource["Condition"] for name, resource in RESOURCES.items() if "Condition" in resource}
    wanted = {
        "WithProducerTopic": {"ProducerSubscription"},
        "OwnKey": {"OutcomeBusDeadLetterQueue", "OutcomeBusDeadLetterQueuePolicy", "OutcomeBusDeadLettersAlarm"},
        "WithOutcomeLog": {
            *("OutcomeLog", "OutcomeLogRule", "OutcomeLogPolicy"),
            *("RenamesOfServiceQuery", "WhoRenamedQuery"),
        },
    }

    for condition, names in wanted.items():
        assert {name for name, its in conditions.items() if its == condition} == names
        for name, resource in RESOURCES.items():
            for made in names - {name}:
                needs = mentions(resource["Properties"], {"Ref": made})
                assert not needs or resource.get("Condition") == condition, (name, made)


# ---- The log of outcomes

RULE: Final = RESOURCES["OutcomeLogRule"]["Properties"]
TRANSFORMER: Final = RULE["Targets"][0]["InputTransformer"]


def test_outcome_log_is_off_by_default() -> None:
    assert TEMPLATE["Parameters"]["OutcomeLogDays"]["Default"] == 0
    assert TEMPLATE["Conditions"]["WithOutcomeLog"] == {"Fn::Not": [{"Fn::Equals": [{"Ref": "OutcomeLogDays"}, "0"]}]}


def test_outcome_log_is_kept_for_the_days_of_its_parameter() -> None:
    assert RESOURCES["OutcomeLog"]["Properties"]["RetentionInDays"] == {"Ref": "OutcomeLogDays"}


def test_outcome_log_has_only_id_and_source_of_the_rename_event() -> None:
    paths = set(TRANSFORMER["InputPathsMap"].values())

    of_the_request = {path for path in paths if path.startswith("$.detail.data.request")}
    assert of_the_request == {"$.detail.data.request.id", "$.detail.data.request.source"}
    assert paths & {"$", "$.detail", "$.detail.data"} == set()
    assert "aws.events.event" not in TRANSFORMER["InputTemplate"]


def test_outcome_log_entry_is_a_time_and_a_text_as_eventbridge_requires() -> None:
    """Every placeholder within the text, in quotes of its own; a number instead of the time, to be JSON."""
    template = TRANSFORMER["InputTemplate"]
    assert set(re.findall(r"<(\w+)>", template)) == set(TRANSFORMER["InputPathsMap"])

    entry = json.loads(template.replace("<logged_at>", "0"))

    assert set(entry) == {"timestamp", "message"}
    message = json.loads(entry["message"])
    assert message == {name: f"<{name}>" for name in TRANSFORMER["InputPathsMap"] if name != "logged_at"}


def test_outcome_log_line_has_the_documented_fields() -> None:
    line = json.loads(block("docs/security.md", '{"outcome_id"'))

    assert list(line) == [name for name in TRANSFORMER["InputPathsMap"] if name != "logged_at"]


def test_outcome_log_names_fields_as_the_log_of_the_functions(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    report_every_result(world)

    logged = {field for record in caplog.records for field in vars(record)}
    identity = {"outcome_id", "outcome_type", "vpc_endpoint_service_id", "correlation_id", "event_source"}
    assert identity | {"error_code"} <= logged & TRANSFORMER["InputPathsMap"].keys()


def test_outcome_log_is_written_by_its_rule_only() -> None:
    [policy] = of_type("AWS::Logs::ResourcePolicy").values()

    document = json.loads(policy["PolicyDocument"]["Fn::Sub"])

    by_action = {statement["Action"]: statement for statement in document["Statement"]}
    assert set(by_action) == {"logs:CreateLogStream", "logs:PutLogEvents"}
    assert {statement["Resource"] for statement in by_action.values()} == {"${OutcomeLog.Arn}"}
    assert by_action["logs:PutLogEvents"]["Condition"] == {"ArnEquals": {"aws:SourceArn": "${OutcomeLogRule.Arn}"}}


def test_name_of_the_outcome_log_is_one_that_eventbridge_may_write_to() -> None:
    name = RESOURCES["OutcomeLog"]["Properties"]["LogGroupName"]["Fn::Sub"]

    assert name.startswith("/aws/events/${AWS::StackName}")


# ---- Saved queries

QUERIES: Final = of_type("AWS::Logs::QueryDefinition")
FUNCTION_LOGS: Final = [{"Ref": "RenameFromQueueLogs"}, {"Ref": "RenameFromHttpLogs"}]


def asked(query: str) -> set[str]:
    """The fields that a query asks for, without those that it makes."""
    text = re.sub(r'"[^"]*"', "", QUERIES[query]["QueryString"])
    words = set(re.findall(r"@?[A-Za-z_]+", re.sub(r"\bas \w+", "", text)))
    return (
        words
        - set(re.findall(r"\bas (\w+)", text))
        - {
            *("fields", "filter", "stats", "sort", "and", "by", "asc", "desc", "ispresent", "count"),
            *("latest", "earliest", "sortsLast", "@timestamp"),
        }
    )


def test_query_for_renames_of_a_service_asks_for_fields_of_the_outcome_log() -> None:
    assert QUERIES["RenamesOfServiceQuery"]["LogGroupNames"] == [{"Ref": "OutcomeLog"}]
    assert len(asked("RenamesOfServiceQuery")) > 8
    assert asked("RenamesOfServiceQuery") <= set(TRANSFORMER["InputPathsMap"])


def test_query_for_who_renamed_asks_outcome_log_and_logs_of_the_functions() -> None:
    fields = asked("WhoRenamedQuery")

    assert QUERIES["WhoRenamedQuery"]["LogGroupNames"] == [{"Ref": "OutcomeLog"}, *FUNCTION_LOGS]
    assert fields - set(TRANSFORMER["InputPathsMap"]) == {"caller", "sender_id"}


def test_query_for_http_errors_asks_for_fields_of_the_access_log() -> None:
    _, setting, _ = RESOURCES["RenameApi"]["Properties"]["AccessLogSetting"]["Fn::If"]
    logged = json.loads(setting["Format"])

    assert QUERIES["HttpErrorsQuery"]["LogGroupNames"] == [{"Ref": "RenameApiLogs"}]
    assert {"status", "caller"} < asked("HttpErrorsQuery") <= set(logged)


@pytest.mark.parametrize("query", ["RenamesOfServiceQuery", "WhoRenamedQuery"])
def test_query_for_a_service_is_documented(query: str) -> None:
    name = QUERIES[query]["Name"]["Fn::Sub"].partition("/")[2]

    assert f"“{name}”" in SECURITY
    assert 'vpc_endpoint_service_id = "ID OF THE ENDPOINT SERVICE"' in QUERIES[query]["QueryString"]

"""The environment: what is asked for, what is found wrong, and that one error says it all and gives nothing away."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

import function
from function.settings import IdentityProvider, KeySecret, Settings, SettingsError, StaticKey, load

ROOT: Final = Path(function.__file__).parents[1]
PROJECT: Final = "0123456789abcdef0123456789abcdef"
COMPLETE: Final = {
    "HUAWEICLOUD_REGION": "cn-north-4",
    "HUAWEICLOUD_SDK_AK": "LOCALACCESSKEY",
    "HUAWEICLOUD_SDK_SK": "local-secret-key",
    "HUAWEICLOUD_SDK_PROJECT_ID": PROJECT,
    "OUTCOME_BUS": "rename-outcomes",
    "AWS_REGION": "eu-west-1",
}
WITH_SECRET: Final = {
    "HUAWEICLOUD_REGION": "cn-north-4",
    "HUAWEICLOUD_CREDENTIALS_SECRET": "arn:aws:secretsmanager:eu-west-1:123456789012:secret:huawei-AbCdEf",
    "OUTCOME_BUS": "rename-outcomes",
    "AWS_REGION": "eu-west-1",
}
KEYLESS: Final = {
    "HUAWEICLOUD_REGION": "cn-north-4",
    "HUAWEICLOUD_SDK_IDP_ID": "aws-123456789012",
    "HUAWEICLOUD_SDK_PROJECT_ID": PROJECT,
    "OUTCOME_BUS": "rename-outcomes",
    "AWS_REGION": "eu-west-1",
}
WAYS_ROUND_A_KEY: Final = ["HUAWEICLOUD_CREDENTIALS_SECRET", "HUAWEICLOUD_SDK_IDP_ID"]
SDK_OVERRIDE: Final = "HUAWEICLOUD_SDK_REGION_VPCEP_CN_NORTH_4"


def error_of(environment: dict[str, str]) -> str:
    with pytest.raises(SettingsError) as raised:
        load(environment)
    return str(raised.value)


def variables_in(text: str) -> list[str]:
    """Every variable that a text names, each as often as it does."""
    return re.findall(r"\b[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+\b", text)


# ---- Defaults


def test_what_is_not_set_has_its_default() -> None:
    assert load(COMPLETE) == Settings(
        huaweicloud_region="cn-north-4",
        vpcep_endpoint=None,
        key=StaticKey("LOCALACCESSKEY", "local-secret-key", None, PROJECT),
        outcome_bus="rename-outcomes",
        ledger_table=None,
        rename_queue_url=None,
        dead_letter_queue_url=None,
        max_receives=None,
        name_max_length=16,
        name_pattern=None,
        allowed_projects=frozenset(),
        allowed_regions=frozenset(),
        max_parallel_renames=10,
        read_previous_name=False,
        metrics_namespace="VpcepRename",
        aws_region="eu-west-1",
        aws_endpoints={},
        aws_access_key_id=None,
        aws_secret_access_key=None,
        aws_session_token=None,
        aws_ca_bundle=None,
    )


def test_what_is_set_is_taken() -> None:
    settings = load(
        {
            "HUAWEICLOUD_REGION": "eu-west-101",
            "VPCEP_ENDPOINT": "http://127.0.0.1:4567",
            "HUAWEICLOUD_SDK_AK": "AK",
            "HUAWEICLOUD_SDK_SK": "SK",
            "HUAWEICLOUD_SDK_SECURITY_TOKEN": "TOKEN",
            "HUAWEICLOUD_SDK_PROJECT_ID": "project-1",
            "OUTCOME_BUS": "arn:aws:events:eu-west-1:123456789012:event-bus/rename-outcomes",
            "LEDGER_TABLE": "ledger",
            "RENAME_QUEUE_URL": "https://sqs.eu-west-1.amazonaws.com/123456789012/rename.fifo",
            "DEAD_LETTER_QUEUE_URL": "https://sqs.eu-west-1.amazonaws.com/123456789012/dead.fifo",
            "MAX_RECEIVES": "8",
            "NAME_MAX_LENGTH": "64",
            "NAME_PATTERN": "[a-z]*",
            "ALLOWED_PROJECTS": "project-2,project-3",
            "ALLOWED_REGIONS": "cn-north-4,la-north-2",
            "MAX_PARALLEL_RENAMES": "1",
            "READ_PREVIOUS_NAME": "true",
            "POWERTOOLS_METRICS_NAMESPACE": "Shop/Renames",
            "AWS_REGION": "eu-west-1",
            "AWS_ENDPOINT_URL": "https://127.0.0.1:4566",
            "AWS_ENDPOINT_URL_DYNAMODB": "http://127.0.0.1:8000",
            "AWS_ENDPOINT_URL_EVENTBRIDGE": "http://127.0.0.1:8001",
            "AWS_ENDPOINT_URL_SECRETS_MANAGER": "http://127.0.0.1:8002",
            "AWS_ENDPOINT_URL_SQS": "http://127.0.0.1:8004",
            "AWS_ENDPOINT_URL_STS": "http://127.0.0.1:8003",
            "AWS_ACCESS_KEY_ID": "ASIA1",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_SESSION_TOKEN": "session",
            "AWS_CA_BUNDLE": "/opt/ca.pem",
        }
    )

    assert settings == Settings(
        huaweicloud_region="eu-west-101",
        vpcep_endpoint="http://127.0.0.1:4567",
        key=StaticKey("AK", "SK", "TOKEN", "project-1"),
        outcome_bus="arn:aws:events:eu-west-1:123456789012:event-bus/rename-outcomes",
        ledger_table="ledger",
        rename_queue_url="https://sqs.eu-west-1.amazonaws.com/123456789012/rename.fifo",
        dead_letter_queue_url="https://sqs.eu-west-1.amazonaws.com/123456789012/dead.fifo",
        max_receives=8,
        name_max_length=64,
        name_pattern="[a-z]*",
        allowed_projects=frozenset({"project-2", "project-3"}),
        allowed_regions=frozenset({"cn-north-4", "la-north-2"}),
        max_parallel_renames=1,
        read_previous_name=True,
        metrics_namespace="Shop/Renames",
        aws_region="eu-west-1",
        aws_endpoints={
            "": "https://127.0.0.1:4566",
            "dynamodb": "http://127.0.0.1:8000",
            "events": "http://127.0.0.1:8001",
            "secretsmanager": "http://127.0.0.1:8002",
            "sqs": "http://127.0.0.1:8004",
            "sts": "http://127.0.0.1:8003",
        },
        aws_access_key_id="ASIA1",
        aws_secret_access_key="secret",
        aws_session_token="session",
        aws_ca_bundle="/opt/ca.pem",
    )


def test_the_region_of_the_function_may_be_the_default_one() -> None:
    assert load(COMPLETE | {"AWS_REGION": "", "AWS_DEFAULT_REGION": "eu-west-2"}).aws_region == "eu-west-2"


OPTIONAL: Final = (
    "VPCEP_ENDPOINT",
    "HUAWEICLOUD_SDK_SECURITY_TOKEN",
    "HUAWEICLOUD_CREDENTIALS_SECRET",
    "HUAWEICLOUD_SDK_IDP_ID",
    "HUAWEICLOUD_IDP_AUDIENCE",
    "HUAWEICLOUD_SDK_IAM_ENDPOINT",
    "LEDGER_TABLE",
    "RENAME_QUEUE_URL",
    "DEAD_LETTER_QUEUE_URL",
    "MAX_RECEIVES",
    "NAME_MAX_LENGTH",
    "NAME_PATTERN",
    "ALLOWED_PROJECTS",
    "ALLOWED_REGIONS",
    "MAX_PARALLEL_RENAMES",
    "READ_PREVIOUS_NAME",
    "POWERTOOLS_METRICS_NAMESPACE",
)
# Which others read, blanks included.
READ_BY_OTHERS: Final = ("POWERTOOLS_LOG_LEVEL", SDK_OVERRIDE)


@pytest.mark.parametrize("value", ["", "  ", "\n", "\ufeff"])
@pytest.mark.parametrize("variable", OPTIONAL)
def test_an_empty_variable_counts_as_not_set(variable: str, value: str) -> None:
    assert load(COMPLETE | {variable: value}) == load(COMPLETE)


@pytest.mark.parametrize("variable", READ_BY_OTHERS)
def test_an_empty_variable_of_others_counts_as_not_set_and_a_blank_one_is_malformed(variable: str) -> None:
    assert load(COMPLETE | {variable: ""}) == load(COMPLETE)
    assert error_of(COMPLETE | {variable: "  "}) == f"{variable} is malformed"


@pytest.mark.parametrize("blank", ["\n", "\r\n", " ", "\t", "\ufeff", "\u200b", "\0"], ids=ascii)
@pytest.mark.parametrize("variable", ["HUAWEICLOUD_SDK_AK", "HUAWEICLOUD_SDK_SK", "HUAWEICLOUD_SDK_PROJECT_ID"])
def test_blanks_around_a_part_of_the_key_are_dropped_and_within_it_are_malformed(variable: str, blank: str) -> None:
    value = COMPLETE[variable]

    assert load(COMPLETE | {variable: f"{blank}{value}{blank}"}) == load(COMPLETE)
    assert error_of(COMPLETE | {variable: f"{value}{blank}{value}"}) == f"{variable} is malformed"


def test_space_around_a_value_is_dropped() -> None:
    settings = load(
        COMPLETE | {"HUAWEICLOUD_REGION": " cn-north-4\n", "ALLOWED_PROJECTS": " a , b,,", "MAX_RECEIVES": " 5 "}
    )

    assert settings.huaweicloud_region == "cn-north-4"
    assert settings.allowed_projects == {"a", "b"}
    assert settings.max_receives == 5


@pytest.mark.parametrize(
    ("value", "flag"), [("true", True), ("True", True), ("TRUE", True), ("false", False), ("False", False)]
)
def test_a_flag_is_read_in_either_case(value: str, flag: bool) -> None:
    assert load(COMPLETE | {"READ_PREVIOUS_NAME": value}).read_previous_name is flag


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("MAX_RECEIVES", "1"),
        ("MAX_RECEIVES", "1000"),
        ("NAME_MAX_LENGTH", "1"),
        ("NAME_MAX_LENGTH", "255"),
        ("MAX_PARALLEL_RENAMES", "1"),
        ("MAX_PARALLEL_RENAMES", "100"),
    ],
)
def test_a_number_at_the_edge_is_taken(variable: str, value: str) -> None:
    assert getattr(load(COMPLETE | {variable: value}), variable.lower()) == int(value)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("OUTCOME_BUS", "default"),
        ("OUTCOME_BUS", "aws.partner/example.com/orders_1"),
        ("OUTCOME_BUS", "arn:aws-cn:events:cn-north-1:123456789012:event-bus/rename-outcomes"),
        ("LEDGER_TABLE", "stack-LedgerTable-1A2B3C"),
        ("LEDGER_TABLE", "arn:aws-us-gov:dynamodb:us-gov-west-1:123456789012:table/ledger"),
        ("HUAWEICLOUD_CREDENTIALS_SECRET", "prod/huawei+key=1.@a_b-c"),
        ("HUAWEICLOUD_CREDENTIALS_SECRET", "arn:aws:secretsmanager:eu-west-1:123456789012:secret:prod/huawei-AbCdEf"),
    ],
)
def test_a_name_and_an_arn_are_taken_alike(variable: str, value: str) -> None:
    settings = load(COMPLETE | {variable: value})

    assert value in (settings.outcome_bus, settings.ledger_table, settings.key[0])


# ---- The key


def test_a_secret_takes_the_place_of_the_key() -> None:
    settings = load(WITH_SECRET)

    assert settings.key == KeySecret(WITH_SECRET["HUAWEICLOUD_CREDENTIALS_SECRET"], None)


def test_a_secret_leaves_the_default_project_to_the_environment() -> None:
    key = load(WITH_SECRET | {"HUAWEICLOUD_SDK_PROJECT_ID": PROJECT}).key

    assert key == KeySecret(WITH_SECRET["HUAWEICLOUD_CREDENTIALS_SECRET"], PROJECT)


@pytest.mark.parametrize("variable", ["HUAWEICLOUD_SDK_AK", "HUAWEICLOUD_SDK_SK", "HUAWEICLOUD_SDK_PROJECT_ID"])
def test_a_part_of_the_key_that_is_missing_is_named_with_the_way_round_it(variable: str) -> None:
    message = error_of({name: value for name, value in COMPLETE.items() if name != variable})

    assert variables_in(message) == [variable, *WAYS_ROUND_A_KEY]


def test_an_identity_provider_takes_the_place_of_the_key() -> None:
    settings = load(KEYLESS)

    assert settings.key == IdentityProvider("aws-123456789012", "huaweicloud", None, PROJECT)


def test_an_identity_provider_may_have_another_audience_and_endpoint() -> None:
    settings = load(
        KEYLESS | {"HUAWEICLOUD_IDP_AUDIENCE": "vpcep", "HUAWEICLOUD_SDK_IAM_ENDPOINT": "https://iam.example.com"}
    )

    assert settings.key == IdentityProvider("aws-123456789012", "vpcep", "https://iam.example.com", PROJECT)


def test_an_identity_provider_needs_a_project() -> None:
    assert error_of(KEYLESS | {"HUAWEICLOUD_SDK_PROJECT_ID": ""}) == "HUAWEICLOUD_SDK_PROJECT_ID is missing"


@pytest.mark.parametrize("variable", ["HUAWEICLOUD_CREDENTIALS_SECRET", "HUAWEICLOUD_SDK_AK", "HUAWEICLOUD_SDK_SK"])
def test_an_identity_provider_beside_a_key_or_a_secret_is_refused_for_one_would_go_unused(variable: str) -> None:
    message = error_of(KEYLESS | {variable: "some-secret"})

    assert message == f"{variable} and HUAWEICLOUD_SDK_IDP_ID exclude each other"


# ---- The endpoint


def test_the_sdks_own_override_wins_over_the_endpoint() -> None:
    """The SDK reads it itself, and may find several endpoints in it."""
    settings = load(COMPLETE | {"VPCEP_ENDPOINT": "https://a.example.com", SDK_OVERRIDE: "https://b.example.com"})

    assert settings.vpcep_endpoint is None


def test_an_override_for_another_region_leaves_the_endpoint_alone() -> None:
    other = "HUAWEICLOUD_SDK_REGION_VPCEP_EU_WEST_101"

    settings = load(COMPLETE | {"VPCEP_ENDPOINT": "https://a.example.com", other: "https://b.example.com"})

    assert settings.vpcep_endpoint == "https://a.example.com"


def test_an_override_may_name_several_endpoints() -> None:
    assert load(COMPLETE | {SDK_OVERRIDE: "https://a.example.com,https://b.example.com"})


# ---- What is wrong


@pytest.mark.parametrize("value", [None, "", " "])
@pytest.mark.parametrize("variable", ["HUAWEICLOUD_REGION", "OUTCOME_BUS"])
def test_a_required_variable_that_is_missing_is_named(variable: str, value: str | None) -> None:
    environment = {name: text for name, text in COMPLETE.items() if name != variable}

    message = error_of(environment if value is None else environment | {variable: value})

    assert message == f"{variable} is missing"


ENDPOINTS: Final = (
    "VPCEP_ENDPOINT",
    SDK_OVERRIDE,
    "HUAWEICLOUD_SDK_REGION_VPCEP_EU_WEST_101",
    "HUAWEICLOUD_SDK_IAM_ENDPOINT",
    "RENAME_QUEUE_URL",
    "DEAD_LETTER_QUEUE_URL",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_DYNAMODB",
    "AWS_ENDPOINT_URL_EVENTBRIDGE",
    "AWS_ENDPOINT_URL_SECRETS_MANAGER",
    "AWS_ENDPOINT_URL_STS",
    "AWS_ENDPOINT_URL_SQS",
)


@pytest.mark.parametrize(
    "url",
    [
        "http://vpcep.example.com",
        "http://10.0.0.1:8080",
        "http://128.0.0.1",
        "http://127.0.0.1.example.com",
        "http://localhost.example.com",
        "http://127.0.0.1@example.com/",
        "http://127.0.0.1:80@example.com",
        "http://example.com#@127.0.0.1",
        "http://example.com\\@127.0.0.1",
        "HTTP://example.com",
        "http://[::2]",
        "http://[::1",
        "http://127.0.0.1:port",
        "https://:443",
        "https://a.example.com b",
    ],
)
@pytest.mark.parametrize("variable", ENDPOINTS)
def test_an_endpoint_without_encryption_is_malformed(variable: str, url: str) -> None:
    assert error_of(COMPLETE | {variable: url}) == f"{variable} is malformed"


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:8000",
        "http://127.1.2.3/path",
        "http://localhost:4566",
        "http://[::1]:80",
        "https://example.com",
    ],
)
@pytest.mark.parametrize("variable", ENDPOINTS)
def test_an_endpoint_on_this_machine_needs_none(variable: str, url: str) -> None:
    assert load(COMPLETE | {variable: url})


def test_each_of_several_endpoints_is_looked_at() -> None:
    several = "https://a.example.com,http://b.example.com"

    assert error_of(COMPLETE | {SDK_OVERRIDE: several}) == f"{SDK_OVERRIDE} is malformed"


# ---- What Powertools reads


@pytest.mark.parametrize("value", ["TRACE", "verbose", " INFO", "INFO\n", "10"])
@pytest.mark.parametrize("variable", ["POWERTOOLS_LOG_LEVEL", "LOG_LEVEL"])
def test_a_log_level_that_there_is_not_is_malformed(variable: str, value: str) -> None:
    assert error_of(COMPLETE | {variable: value}) == f"{variable} is malformed"


@pytest.mark.parametrize("value", ["DEBUG", "debug", "INFO", "Warning", "WARN", "ERROR", "CRITICAL"])
def test_a_log_level_is_taken_in_either_case(value: str) -> None:
    assert load(COMPLETE | {"POWERTOOLS_LOG_LEVEL": value})


def test_the_log_level_of_others_does_not_matter_where_powertools_has_its_own() -> None:
    assert load(COMPLETE | {"POWERTOOLS_LOG_LEVEL": "INFO", "LOG_LEVEL": "trace"})


@pytest.mark.parametrize("value", ["", " ", "\n", " name", "n\u00e4me", "a" * 251])
def test_a_service_name_that_cannot_be_a_dimension_is_malformed(value: str) -> None:
    assert error_of(COMPLETE | {"POWERTOOLS_SERVICE_NAME": value}) == "POWERTOOLS_SERVICE_NAME is malformed"


@pytest.mark.parametrize("value", ["n\u00e4me", "a" * 256, "a\nb"])
def test_a_namespace_that_cloudwatch_would_not_take_is_malformed(value: str) -> None:
    assert error_of(COMPLETE | {"POWERTOOLS_METRICS_NAMESPACE": value}) == "POWERTOOLS_METRICS_NAMESPACE is malformed"


MALFORMED: Final = [
    ("HUAWEICLOUD_REGION", "Beijing"),
    ("HUAWEICLOUD_REGION", "CN-NORTH-4"),
    ("HUAWEICLOUD_REGION", "cn_north_4"),
    ("HUAWEICLOUD_REGION", "cn-north-4/evil"),
    ("HUAWEICLOUD_REGION", "cn-north-4\ncn-north-1"),
    ("VPCEP_ENDPOINT", "vpcep.example.com"),
    ("VPCEP_ENDPOINT", "ftp://vpcep.example.com"),
    ("VPCEP_ENDPOINT", "https://"),
    ("VPCEP_ENDPOINT", "https://a.example.com b"),
    (SDK_OVERRIDE, "vpcep dot example"),
    ("HUAWEICLOUD_SDK_PROJECT_ID", "../projects"),
    ("HUAWEICLOUD_SDK_PROJECT_ID", "a" * 65),
    ("HUAWEICLOUD_CREDENTIALS_SECRET", "the secret!"),
    ("HUAWEICLOUD_IDP_AUDIENCE", "aws!"),
    ("HUAWEICLOUD_IDP_AUDIENCE", "two words"),
    ("HUAWEICLOUD_SDK_IAM_ENDPOINT", "iam.example.com"),
    ("OUTCOME_BUS", "the bus"),
    ("OUTCOME_BUS", "arn:aws:sns:eu-west-1:123456789012:topic"),
    ("LEDGER_TABLE", "the table"),
    ("RENAME_QUEUE_URL", "rename.fifo"),
    ("RENAME_QUEUE_URL", "arn:aws:sqs:eu-west-1:123456789012:rename.fifo"),
    ("DEAD_LETTER_QUEUE_URL", "dead.fifo"),
    ("MAX_RECEIVES", "0"),
    ("MAX_RECEIVES", "-1"),
    ("MAX_RECEIVES", "1001"),
    ("MAX_RECEIVES", "five"),
    ("MAX_RECEIVES", "5.0"),
    ("MAX_RECEIVES", "٥"),
    ("MAX_RECEIVES", "9" * 5000),
    ("NAME_MAX_LENGTH", "0"),
    ("NAME_MAX_LENGTH", "256"),
    ("NAME_MAX_LENGTH", "sixteen"),
    ("MAX_PARALLEL_RENAMES", "0"),
    ("MAX_PARALLEL_RENAMES", "101"),
    ("MAX_PARALLEL_RENAMES", "1e1"),
    ("ALLOWED_PROJECTS", "project-2;project-3"),
    ("ALLOWED_PROJECTS", "project-2,../projects"),
    ("ALLOWED_PROJECTS", "bad one,bad two"),
    ("ALLOWED_REGIONS", "cn-north-1,Beijing"),
    ("ALLOWED_REGIONS", "*"),
    ("READ_PREVIOUS_NAME", "yes"),
    ("READ_PREVIOUS_NAME", "1"),
]


@pytest.mark.parametrize(("variable", "value"), MALFORMED, ids=[f"{name}={value[:30]!a}" for name, value in MALFORMED])
def test_a_malformed_variable_is_named_once_and_its_value_is_not(variable: str, value: str) -> None:
    message = error_of(COMPLETE | {variable: value})

    assert message == f"{variable} is malformed"


@pytest.mark.parametrize("idp_id", ["my provider", "aws\nX-Auth-Token: 1", "a" * 65])
def test_a_malformed_identity_provider_is_named_and_its_value_is_not(idp_id: str) -> None:
    assert error_of(KEYLESS | {"HUAWEICLOUD_SDK_IDP_ID": idp_id}) == "HUAWEICLOUD_SDK_IDP_ID is malformed"


def test_everything_that_is_missing_is_named_in_one_error() -> None:
    message = error_of({})

    assert set(variables_in(message)) == {*COMPLETE, *WAYS_ROUND_A_KEY}
    assert message.count("is missing") == len(COMPLETE)


def test_everything_that_is_wrong_is_named_in_one_error_that_gives_no_value_away() -> None:
    wrong = {
        "HUAWEICLOUD_REGION": "Beijing",
        "VPCEP_ENDPOINT": "vpcep.example.com",
        "HUAWEICLOUD_SDK_PROJECT_ID": "../projects",
        "RENAME_QUEUE_URL": "rename.fifo",
        "DEAD_LETTER_QUEUE_URL": "dead.fifo",
        "MAX_RECEIVES": "five",
        "NAME_MAX_LENGTH": "sixteen",
        "MAX_PARALLEL_RENAMES": "ten",
        "ALLOWED_PROJECTS": "project two",
        "ALLOWED_REGIONS": "Beijing",
        "READ_PREVIOUS_NAME": "yes",
    }

    message = error_of(wrong | {"HUAWEICLOUD_SDK_SK": "local-secret-key"})

    missing = {"HUAWEICLOUD_SDK_AK", "OUTCOME_BUS", "AWS_REGION"}
    assert set(variables_in(message)) == {*wrong, *missing, *WAYS_ROUND_A_KEY}
    assert not [value for value in (*wrong.values(), "local-secret-key") if value in message]


def test_a_key_never_shows_in_an_error() -> None:
    message = error_of(COMPLETE | {"OUTCOME_BUS": "", "MAX_RECEIVES": "local-secret-key"})

    assert not [value for value in COMPLETE.values() if value in message]


# ---- At cold start


def run(script: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """A Python process of its own, with this environment and what Lambda tells AWS's SDK."""
    lambda_sets = {"AWS_DEFAULT_REGION": "eu-west-1", "AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local"}
    return subprocess.run(
        [sys.executable, "-c", script],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **lambda_sets, **environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_function_does_not_start_without_a_setting_and_names_it() -> None:
    without_bus = {name: value for name, value in COMPLETE.items() if name != "OUTCOME_BUS"}

    process = run("import function.app", without_bus)

    assert process.returncode != 0
    assert process.stderr.splitlines()[-1] == "function.settings.SettingsError: OUTCOME_BUS is missing"
    assert "local-secret-key" not in process.stderr


def test_a_region_that_huawei_cloud_does_not_have_is_the_fault_of_the_variable_that_names_it() -> None:
    script = """
import os

from function import app, settings

complete = dict(os.environ)
for variable, value in (("HUAWEICLOUD_REGION", "xx-nowhere-1"), ("ALLOWED_REGIONS", "cn-north-1,xx-nowhere-1")):
    try:
        app.Function(settings.load(complete | {variable: value}))
    except settings.SettingsError as error:
        print(error)
app.Function(settings.load(complete | {"HUAWEICLOUD_REGION": "xx-nowhere-1", "VPCEP_ENDPOINT": "http://127.0.0.1:9"}))
print("an endpoint makes up for an unknown region")
"""

    process = run(script, COMPLETE | {"POWERTOOLS_LOG_LEVEL": "CRITICAL"})

    assert process.stdout.splitlines() == [
        "HUAWEICLOUD_REGION names a region that VPCEP is not known in",
        "ALLOWED_REGIONS names a region that VPCEP is not known in",
        "an endpoint makes up for an unknown region",
    ], process.stderr

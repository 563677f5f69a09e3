"""The environment: what is required, what is malformed, and that one error names all of it and no value."""

from __future__ import annotations

import re
from typing import Any, Final

import pytest

from function.settings import IdentityProvider, KeySecret, Settings, SettingsError, StaticKey, load
from tests.fakes.process import run_python

PROJECT: Final = "0123456789abcdef0123456789abcdef"
KEY: Final = {"HUAWEICLOUD_SDK_AK": "LOCALACCESSKEY", "HUAWEICLOUD_SDK_SK": "local-secret-key"}
WITHOUT_A_KEY: Final = {
    "HUAWEICLOUD_REGION": "cn-north-4",
    "OUTCOME_BUS": "rename-outcomes",
    "AWS_REGION": "eu-west-1",
}
COMPLETE: Final = WITHOUT_A_KEY | KEY | {"HUAWEICLOUD_SDK_PROJECT_ID": PROJECT}
SECRET: Final = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:huawei-AbCdEf"
WITH_SECRET: Final = WITHOUT_A_KEY | {"HUAWEICLOUD_CREDENTIALS_SECRET": SECRET}
KEYLESS: Final = WITHOUT_A_KEY | {
    "HUAWEICLOUD_SDK_IDP_ID": "aws-123456789012",
    "HUAWEICLOUD_SDK_PROJECT_ID": PROJECT,
}
ALTERNATIVES_TO_A_KEY: Final = ["HUAWEICLOUD_CREDENTIALS_SECRET", "HUAWEICLOUD_SDK_IDP_ID"]
SDK_OVERRIDE: Final = "HUAWEICLOUD_SDK_REGION_VPCEP_CN_NORTH_4"


def error_of(environment: dict[str, str]) -> str:
    with pytest.raises(SettingsError) as raised:
        load(environment)
    return str(raised.value)


def variables_in(text: str) -> list[str]:
    """Every variable that a text names, each as often as it does."""
    return re.findall(r"\b[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+\b", text)


def test_setting_that_is_not_set_has_its_default() -> None:
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


def test_setting_that_is_set_has_its_value() -> None:
    texts = {
        "HUAWEICLOUD_REGION": "eu-west-101",
        "VPCEP_ENDPOINT": "http://127.0.0.1:4567",
        "OUTCOME_BUS": "arn:aws:events:eu-west-1:123456789012:event-bus/rename-outcomes",
        "LEDGER_TABLE": "ledger",
        "RENAME_QUEUE_URL": "https://sqs.eu-west-1.amazonaws.com/123456789012/rename.fifo",
        "DEAD_LETTER_QUEUE_URL": "https://sqs.eu-west-1.amazonaws.com/123456789012/dead.fifo",
        "NAME_PATTERN": "[a-z]*",
        "AWS_REGION": "eu-west-1",
        "AWS_ACCESS_KEY_ID": "ASIA1",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_SESSION_TOKEN": "session",
        "AWS_CA_BUNDLE": "/opt/ca.pem",
    }
    others = {
        "HUAWEICLOUD_SDK_AK": "AK",
        "HUAWEICLOUD_SDK_SK": "SK",
        "HUAWEICLOUD_SDK_SECURITY_TOKEN": "TOKEN",
        "HUAWEICLOUD_SDK_PROJECT_ID": "project-1",
        "MAX_RECEIVES": "8",
        "NAME_MAX_LENGTH": "64",
        "ALLOWED_PROJECTS": "project-2,project-3",
        "ALLOWED_REGIONS": "cn-north-4,la-north-2",
        "MAX_PARALLEL_RENAMES": "1",
        "READ_PREVIOUS_NAME": "true",
        "POWERTOOLS_METRICS_NAMESPACE": "Shop/Renames",
        "AWS_ENDPOINT_URL": "https://127.0.0.1:4566",
        "AWS_ENDPOINT_URL_DYNAMODB": "http://127.0.0.1:8000",
        "AWS_ENDPOINT_URL_EVENTBRIDGE": "http://127.0.0.1:8001",
        "AWS_ENDPOINT_URL_SECRETS_MANAGER": "http://127.0.0.1:8002",
        "AWS_ENDPOINT_URL_SQS": "http://127.0.0.1:8004",
        "AWS_ENDPOINT_URL_STS": "http://127.0.0.1:8003",
    }
    typed: dict[str, Any] = {name.lower(): text for name, text in texts.items()} | {
        "key": StaticKey("AK", "SK", "TOKEN", "project-1"),
        "max_receives": 8,
        "name_max_length": 64,
        "allowed_projects": frozenset({"project-2", "project-3"}),
        "allowed_regions": frozenset({"cn-north-4", "la-north-2"}),
        "max_parallel_renames": 1,
        "read_previous_name": True,
        "metrics_namespace": "Shop/Renames",
        "aws_endpoints": {
            "": "https://127.0.0.1:4566",
            "dynamodb": "http://127.0.0.1:8000",
            "events": "http://127.0.0.1:8001",
            "secretsmanager": "http://127.0.0.1:8002",
            "sqs": "http://127.0.0.1:8004",
            "sts": "http://127.0.0.1:8003",
        },
    }

    assert load(texts | others) == Settings(**typed)


def test_aws_default_region_is_the_default_for_aws_region() -> None:
    assert load(COMPLETE | {"AWS_REGION": "", "AWS_DEFAULT_REGION": "eu-west-2"}).aws_region == "eu-west-2"


OPTIONAL: Final = (
    *("HUAWEICLOUD_SDK_SECURITY_TOKEN", "HUAWEICLOUD_CREDENTIALS_SECRET", "VPCEP_ENDPOINT"),
    *("HUAWEICLOUD_SDK_IDP_ID", "HUAWEICLOUD_IDP_AUDIENCE", "HUAWEICLOUD_SDK_IAM_ENDPOINT"),
    *("LEDGER_TABLE", "RENAME_QUEUE_URL", "DEAD_LETTER_QUEUE_URL", "MAX_RECEIVES", "MAX_PARALLEL_RENAMES"),
    *("NAME_MAX_LENGTH", "NAME_PATTERN", "ALLOWED_PROJECTS", "ALLOWED_REGIONS", "READ_PREVIOUS_NAME"),
    "POWERTOOLS_METRICS_NAMESPACE",
)
# Read by the SDK and Powertools, blanks included.
READ_BY_LIBRARIES: Final = ("POWERTOOLS_LOG_LEVEL", SDK_OVERRIDE)


@pytest.mark.parametrize("value", ["", "  ", "\n", "\ufeff"])
@pytest.mark.parametrize("variable", OPTIONAL)
def test_empty_or_blank_variable_counts_as_not_set(variable: str, value: str) -> None:
    assert load(COMPLETE | {variable: value}) == load(COMPLETE)


@pytest.mark.parametrize("variable", READ_BY_LIBRARIES)
def test_empty_variable_of_sdk_or_powertools_counts_as_not_set_and_a_blank_one_is_malformed(variable: str) -> None:
    assert load(COMPLETE | {variable: ""}) == load(COMPLETE)
    assert error_of(COMPLETE | {variable: "  "}) == f"{variable} is malformed"


@pytest.mark.parametrize("blank", ["\n", "\r\n", " ", "\t", "\ufeff", "\u200b", "\0"], ids=ascii)
@pytest.mark.parametrize("variable", ["HUAWEICLOUD_SDK_AK", "HUAWEICLOUD_SDK_SK", "HUAWEICLOUD_SDK_PROJECT_ID"])
def test_blanks_around_a_part_of_the_key_are_removed_and_within_it_are_malformed(variable: str, blank: str) -> None:
    value = COMPLETE[variable]

    assert load(COMPLETE | {variable: f"{blank}{value}{blank}"}) == load(COMPLETE)
    assert error_of(COMPLETE | {variable: f"{value}{blank}{value}"}) == f"{variable} is malformed"


def test_space_around_a_value_is_removed() -> None:
    settings = load(
        COMPLETE | {"HUAWEICLOUD_REGION": " cn-north-4\n", "ALLOWED_PROJECTS": " a , b,,", "MAX_RECEIVES": " 5 "}
    )

    assert settings.huaweicloud_region == "cn-north-4"
    assert settings.allowed_projects == {"a", "b"}
    assert settings.max_receives == 5


@pytest.mark.parametrize(
    ("value", "flag"), [("true", True), ("True", True), ("TRUE", True), ("false", False), ("False", False)]
)
def test_flag_is_read_in_either_case(value: str, flag: bool) -> None:
    assert load(COMPLETE | {"READ_PREVIOUS_NAME": value}).read_previous_name is flag


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        *[(variable, "1") for variable in ("MAX_RECEIVES", "NAME_MAX_LENGTH", "MAX_PARALLEL_RENAMES")],
        *[("MAX_RECEIVES", "1000"), ("NAME_MAX_LENGTH", "255"), ("MAX_PARALLEL_RENAMES", "100")],
    ],
)
def test_number_at_its_limits_is_accepted(variable: str, value: str) -> None:
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
def test_name_or_arn_is_accepted(variable: str, value: str) -> None:
    settings = load(COMPLETE | {variable: value})

    assert value in (settings.outcome_bus, settings.ledger_table, settings.key[0])


@pytest.mark.parametrize(
    ("environment", "key"),
    [
        (WITH_SECRET, KeySecret(SECRET, None)),
        (WITH_SECRET | {"HUAWEICLOUD_SDK_PROJECT_ID": PROJECT}, KeySecret(SECRET, PROJECT)),
        (KEYLESS, IdentityProvider("aws-123456789012", "huaweicloud", None, PROJECT)),
        (
            KEYLESS | {"HUAWEICLOUD_IDP_AUDIENCE": "vpcep", "HUAWEICLOUD_SDK_IAM_ENDPOINT": "https://iam.example.com"},
            IdentityProvider("aws-123456789012", "vpcep", "https://iam.example.com", PROJECT),
        ),
    ],
    ids=["secret", "secret with a default project", "identity provider", "identity provider with an endpoint"],
)
def test_secret_or_identity_provider_is_read_instead_of_a_key(environment: dict[str, str], key: object) -> None:
    assert load(environment).key == key


@pytest.mark.parametrize("variable", ["HUAWEICLOUD_SDK_AK", "HUAWEICLOUD_SDK_SK", "HUAWEICLOUD_SDK_PROJECT_ID"])
def test_missing_part_of_the_key_is_named_with_the_alternatives_to_a_key(variable: str) -> None:
    message = error_of({name: value for name, value in COMPLETE.items() if name != variable})

    assert variables_in(message) == [variable, *ALTERNATIVES_TO_A_KEY]


def test_identity_provider_without_a_project_is_an_error() -> None:
    assert error_of(KEYLESS | {"HUAWEICLOUD_SDK_PROJECT_ID": ""}) == "HUAWEICLOUD_SDK_PROJECT_ID is missing"


@pytest.mark.parametrize("variable", ["HUAWEICLOUD_CREDENTIALS_SECRET", "HUAWEICLOUD_SDK_AK", "HUAWEICLOUD_SDK_SK"])
def test_identity_provider_in_addition_to_a_key_or_a_secret_is_an_error(variable: str) -> None:
    message = error_of(KEYLESS | {variable: "some-secret"})

    assert message == f"{variable} and HUAWEICLOUD_SDK_IDP_ID exclude each other"


@pytest.mark.parametrize(
    ("override", "endpoint"),
    [(SDK_OVERRIDE, None), ("HUAWEICLOUD_SDK_REGION_VPCEP_EU_WEST_101", "https://a.example.com")],
    ids=["this region", "another region"],
)
def test_override_of_the_sdk_takes_precedence_over_the_endpoint(override: str, endpoint: str | None) -> None:
    """The SDK reads it itself, and may find several endpoints in it."""
    settings = load(COMPLETE | {"VPCEP_ENDPOINT": "https://a.example.com", override: "https://b.example.com"})

    assert settings.vpcep_endpoint == endpoint


@pytest.mark.parametrize("value", [None, "", " "])
@pytest.mark.parametrize("variable", ["HUAWEICLOUD_REGION", "OUTCOME_BUS"])
def test_missing_required_variable_is_named(variable: str, value: str | None) -> None:
    environment = {name: text for name, text in COMPLETE.items() if name != variable}

    message = error_of(environment if value is None else environment | {variable: value})

    assert message == f"{variable} is missing"


ENDPOINTS: Final = (
    *("VPCEP_ENDPOINT", SDK_OVERRIDE, "HUAWEICLOUD_SDK_REGION_VPCEP_EU_WEST_101", "HUAWEICLOUD_SDK_IAM_ENDPOINT"),
    *("RENAME_QUEUE_URL", "DEAD_LETTER_QUEUE_URL", "AWS_ENDPOINT_URL"),
    *[f"AWS_ENDPOINT_URL_{service}" for service in ("DYNAMODB", "EVENTBRIDGE", "SECRETS_MANAGER", "SQS", "STS")],
)


@pytest.mark.parametrize(
    "url",
    [
        *("http://vpcep.example.com", "HTTP://example.com", "http://10.0.0.1:8080", "http://128.0.0.1"),
        *("http://127.0.0.1.example.com", "http://localhost.example.com", "http://127.0.0.1@example.com/"),
        *("http://127.0.0.1:80@example.com", "http://example.com#@127.0.0.1", "http://example.com\\@127.0.0.1"),
        *("http://[::2]", "http://[::1", "http://127.0.0.1:port", "https://:443", "https://a.example.com b"),
    ],
)
@pytest.mark.parametrize("variable", ENDPOINTS)
def test_endpoint_without_tls_is_malformed(variable: str, url: str) -> None:
    assert error_of(COMPLETE | {variable: url}) == f"{variable} is malformed"


@pytest.mark.parametrize(
    "url",
    [
        *("http://127.0.0.1:8000", "http://127.1.2.3/path", "http://localhost:4566", "http://[::1]:80"),
        "https://example.com",
    ],
)
@pytest.mark.parametrize("variable", ENDPOINTS)
def test_endpoint_on_this_machine_needs_no_tls(variable: str, url: str) -> None:
    assert load(COMPLETE | {variable: url})


def test_override_of_the_sdk_may_name_several_endpoints_that_must_all_be_valid() -> None:
    assert load(COMPLETE | {SDK_OVERRIDE: "https://a.example.com,https://b.example.com"})

    several = "https://a.example.com,http://b.example.com"
    assert error_of(COMPLETE | {SDK_OVERRIDE: several}) == f"{SDK_OVERRIDE} is malformed"


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        *[
            (name, value)
            for name in ("POWERTOOLS_LOG_LEVEL", "LOG_LEVEL")
            for value in ("verbose", "TRACE", " INFO", "INFO\n", "10")
        ],
        *[("POWERTOOLS_SERVICE_NAME", value) for value in ("", " ", "\n", " name", "n\u00e4me", "a" * 251)],
        *[("POWERTOOLS_METRICS_NAMESPACE", value) for value in ("n\u00e4me", "a" * 256, "a\nb")],
    ],
)
def test_setting_that_powertools_or_cloudwatch_would_refuse_is_malformed(variable: str, value: str) -> None:
    assert error_of(COMPLETE | {variable: value}) == f"{variable} is malformed"


@pytest.mark.parametrize(
    "levels",
    [
        *[
            {"POWERTOOLS_LOG_LEVEL": level}
            for level in ("DEBUG", "debug", "INFO", "Warning", "WARN", "ERROR", "CRITICAL")
        ],
        {"POWERTOOLS_LOG_LEVEL": "INFO", "LOG_LEVEL": "trace"},
    ],
    ids=str,
)
def test_log_level_of_powertools_is_accepted_in_either_case_whatever_log_level_is(levels: dict[str, str]) -> None:
    assert load(COMPLETE | levels)


MALFORMED: Final = [
    (variable, value)
    for variable, values in {
        "HUAWEICLOUD_REGION": ("Beijing", "CN-NORTH-4", "cn_north_4", "cn-north-4/evil", "cn-north-4\ncn-north-1"),
        "VPCEP_ENDPOINT": ("vpcep.example.com", "ftp://vpcep.example.com", "https://", "https://a.example.com b"),
        SDK_OVERRIDE: ("vpcep dot example",),
        "HUAWEICLOUD_SDK_PROJECT_ID": ("../projects", "a" * 65),
        "HUAWEICLOUD_CREDENTIALS_SECRET": ("the secret!",),
        "HUAWEICLOUD_IDP_AUDIENCE": ("aws!", "two words"),
        "HUAWEICLOUD_SDK_IAM_ENDPOINT": ("iam.example.com",),
        "OUTCOME_BUS": ("the bus", "arn:aws:sns:eu-west-1:123456789012:topic"),
        "LEDGER_TABLE": ("the table",),
        "RENAME_QUEUE_URL": ("rename.fifo", "arn:aws:sqs:eu-west-1:123456789012:rename.fifo"),
        "DEAD_LETTER_QUEUE_URL": ("dead.fifo",),
        "MAX_RECEIVES": ("0", "-1", "1001", "five", "5.0", "٥", "9" * 5000),
        "NAME_MAX_LENGTH": ("0", "256", "sixteen"),
        "MAX_PARALLEL_RENAMES": ("0", "101", "1e1"),
        "ALLOWED_PROJECTS": ("project-2;project-3", "project-2,../projects", "bad one,bad two"),
        "ALLOWED_REGIONS": ("cn-north-1,Beijing", "*"),
        "READ_PREVIOUS_NAME": ("yes", "1"),
    }.items()
    for value in values
]


@pytest.mark.parametrize(("variable", "value"), MALFORMED, ids=[f"{name}={value[:30]!a}" for name, value in MALFORMED])
def test_malformed_variable_is_named_without_its_value(variable: str, value: str) -> None:
    assert error_of(COMPLETE | {variable: value}) == f"{variable} is malformed"


@pytest.mark.parametrize("idp_id", ["my provider", "aws\nX-Auth-Token: 1", "a" * 65])
def test_malformed_identity_provider_is_named_without_its_value(idp_id: str) -> None:
    assert error_of(KEYLESS | {"HUAWEICLOUD_SDK_IDP_ID": idp_id}) == "HUAWEICLOUD_SDK_IDP_ID is malformed"


def test_all_missing_variables_are_named_in_one_error() -> None:
    message = error_of({})

    assert set(variables_in(message)) == {*COMPLETE, *ALTERNATIVES_TO_A_KEY}
    assert message.count("is missing") == len(COMPLETE)


def test_all_malformed_variables_are_named_in_one_error_without_their_values() -> None:
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
    assert set(variables_in(message)) == {*wrong, *missing, *ALTERNATIVES_TO_A_KEY}
    assert not [value for value in (*wrong.values(), "local-secret-key") if value in message]


def test_function_does_not_start_without_a_setting_and_names_it() -> None:
    process = run_python("import function.app", {name: COMPLETE[name] for name in COMPLETE if name != "OUTCOME_BUS"})

    assert process.returncode != 0
    assert process.stderr.splitlines()[-1] == "function.settings.SettingsError: OUTCOME_BUS is missing"
    assert "local-secret-key" not in process.stderr

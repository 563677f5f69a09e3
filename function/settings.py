"""Reads the environment once into a typed object. No other module reads the environment."""

import os
import re
from collections.abc import Callable, Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

_REGION = re.compile(r"[a-z]{2,}(-[a-z0-9]+)+")
_PROJECT_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_IDP_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
# The length that Huawei Cloud allows for a client id.
_AUDIENCE = re.compile(r"[!-~]{5,255}")
_SECRET = re.compile(r"[A-Za-z0-9/_+=.@:-]{1,2048}")
_BUS = re.compile(r"[A-Za-z0-9/._-]{1,256}|arn:[a-z-]+:events:[a-z0-9-]+:[0-9]{12}:event-bus/[A-Za-z0-9/._-]+")
_TABLE = re.compile(r"[A-Za-z0-9._-]{3,255}|arn:[a-z-]+:dynamodb:[a-z0-9-]+:[0-9]{12}:table/[A-Za-z0-9._-]+")
# For an access key, a secret key or a token.
_KEY_TEXT = re.compile(r"[!-~]+")
# Without user and query: URL parsers disagree on the host of such URLs.
_URL = re.compile(r"https?://[A-Za-z0-9.:\[\]_-]+(/[A-Za-z0-9._~/%-]*)?")
_LOOPBACK = re.compile(r"localhost|127(\.[0-9]{1,3}){3}|::1")
_SDK_ENDPOINTS = "HUAWEICLOUD_SDK_REGION_VPCEP_"
_LOG_LEVEL = re.compile(r"NOTSET|DEBUG|INFO|WARN|WARNING|ERROR|CRITICAL|FATAL", re.IGNORECASE)
# As CloudWatch accepts the value of a dimension, and the name of a namespace.
_SERVICE_NAME = re.compile(r"[!-~][ -~]{0,249}")
_NAMESPACE = re.compile(r"[A-Za-z0-9 ._/#:-]{1,255}")
# Characters that editors and consoles may leave around a value.
_BLANKS = " \t\r\n\v\f\0\N{NO-BREAK SPACE}\N{ZERO WIDTH SPACE}\N{BYTE ORDER MARK}"
_NUMBER = re.compile(r"[0-9]{1,9}")
_AWS_ENDPOINTS = {
    "": "AWS_ENDPOINT_URL",
    "dynamodb": "AWS_ENDPOINT_URL_DYNAMODB",
    "events": "AWS_ENDPOINT_URL_EVENTBRIDGE",
    "secretsmanager": "AWS_ENDPOINT_URL_SECRETS_MANAGER",
    "sqs": "AWS_ENDPOINT_URL_SQS",
    "sts": "AWS_ENDPOINT_URL_STS",
}


class SettingsError(ValueError):
    """Settings are missing or malformed. The message names each variable, but not its value."""


class StaticKey(NamedTuple):
    """A key in the environment."""

    access_key: str
    secret_key: str
    security_token: str | None
    project_id: str


class KeySecret(NamedTuple):
    """A key in a Secrets Manager secret.

    Attributes:
        secret: name or ARN.
        default_project: used if the secret names none.
    """

    secret: str
    default_project: str | None


class IdentityProvider(NamedTuple):
    """Federation with an identity provider, without a stored key.

    Attributes:
        id: of the provider, on Huawei Cloud.
        audience: the client id that the provider is registered with.
        iam_endpoint: a custom endpoint, None for the region's own.
    """

    id: str
    audience: str
    iam_endpoint: str | None
    project_id: str


class Settings(NamedTuple):
    """The function's settings. Names and meanings as in docs/configuration.md.

    Attributes:
        huaweicloud_region: region of the endpoint services.
        vpcep_endpoint: a custom VPCEP endpoint for that region, None for the SDK's.
        key: the source of the key for Huawei Cloud.
        outcome_bus: name or ARN of the EventBridge bus.
        ledger_table: name or ARN of the DynamoDB table, None for no ledger.
        rename_queue_url: of the queue for events that cannot be settled now, None if there is none.
        dead_letter_queue_url: of the dead-letter queue; set only for the function that handles dead letters.
        max_receives: the queue's maxReceiveCount, None if unknown.
        name_max_length: characters.
        name_pattern: a regular expression that a new name must match as a whole, None for any name.
        allowed_projects, allowed_regions: allowed in events, in addition to the defaults.
        max_parallel_renames: renames in flight at once in one invocation.
        read_previous_name: read the service before each rename.
        metrics_namespace: of CloudWatch.
        aws_region: where the function runs.
        aws_endpoints: custom endpoints, by the first part of a service's host name; ``""`` for all other services.
        aws_access_key_id, aws_secret_access_key, aws_session_token: the function's own; None to let botocore find them.
        aws_ca_bundle: path, None for certifi's certificates.
    """

    huaweicloud_region: str
    vpcep_endpoint: str | None
    key: "StaticKey | KeySecret | IdentityProvider"
    outcome_bus: str
    ledger_table: str | None
    rename_queue_url: str | None
    dead_letter_queue_url: str | None
    max_receives: int | None
    name_max_length: int
    name_pattern: str | None
    allowed_projects: frozenset[str]
    allowed_regions: frozenset[str]
    max_parallel_renames: int
    read_previous_name: bool
    metrics_namespace: str
    aws_region: str
    aws_endpoints: Mapping[str, str]
    aws_access_key_id: str | None
    aws_secret_access_key: str | None
    aws_session_token: str | None
    aws_ca_bundle: str | None

    @property
    def vpcep_endpoints(self) -> dict[str, str]:
        """Custom VPCEP endpoints, by region."""
        return {self.huaweicloud_region: self.vpcep_endpoint} if self.vpcep_endpoint else {}


def load(environment: Mapping[str, str] = os.environ) -> Settings:  # noqa: TID251
    """Read the settings.

    Raises:
        SettingsError: names every variable that is missing or malformed.
    """
    read = _Reader(environment)
    region = read.text("HUAWEICLOUD_REGION", _REGION.fullmatch) or read.missing("HUAWEICLOUD_REGION")
    for variable in environment:
        if variable.startswith(_SDK_ENDPOINTS):  # the SDK reads them itself; each may contain several endpoints
            read.verbatim(variable, _are_endpoints)
        elif variable.startswith("AWS_ENDPOINT_URL"):  # boto3 reads some of them itself
            read.text(variable, _is_endpoint)
    sdk_override = environment.get(f"{_SDK_ENDPOINTS}{region.replace('-', '_').upper()}")
    settings = Settings(
        huaweicloud_region=region,
        vpcep_endpoint=None if sdk_override else read.text("VPCEP_ENDPOINT", _is_endpoint),
        key=_key(read),
        outcome_bus=read.text("OUTCOME_BUS", _BUS.fullmatch) or read.missing("OUTCOME_BUS"),
        ledger_table=read.text("LEDGER_TABLE", _TABLE.fullmatch),
        rename_queue_url=read.text("RENAME_QUEUE_URL", _is_endpoint),
        dead_letter_queue_url=read.text("DEAD_LETTER_QUEUE_URL", _is_endpoint),
        max_receives=read.number("MAX_RECEIVES", at_most=1_000),
        name_max_length=read.number("NAME_MAX_LENGTH", at_most=255) or 16,
        name_pattern=read.text("NAME_PATTERN"),
        allowed_projects=read.items("ALLOWED_PROJECTS", _PROJECT_ID),
        allowed_regions=read.items("ALLOWED_REGIONS", _REGION),
        max_parallel_renames=read.number("MAX_PARALLEL_RENAMES", at_most=100) or 10,
        read_previous_name=read.flag("READ_PREVIOUS_NAME"),
        metrics_namespace=read.text("POWERTOOLS_METRICS_NAMESPACE", _NAMESPACE.fullmatch) or "VpcepRename",
        aws_region=read.text("AWS_REGION") or read.text("AWS_DEFAULT_REGION") or read.missing("AWS_REGION"),
        aws_endpoints={
            host: url for host, variable in _AWS_ENDPOINTS.items() if (url := read.text(variable, _is_endpoint))
        },
        aws_access_key_id=read.text("AWS_ACCESS_KEY_ID"),
        aws_secret_access_key=read.text("AWS_SECRET_ACCESS_KEY"),
        aws_session_token=read.text("AWS_SESSION_TOKEN"),
        aws_ca_bundle=read.text("AWS_CA_BUNDLE"),
    )
    # Powertools reads these itself. It fails on a wrong level; with an empty name, metrics lack the alarms' dimension.
    if read.verbatim("POWERTOOLS_LOG_LEVEL", _LOG_LEVEL.fullmatch) is None:
        read.verbatim("LOG_LEVEL", _LOG_LEVEL.fullmatch)
    read.verbatim("POWERTOOLS_SERVICE_NAME", _SERVICE_NAME.fullmatch, may_be_empty=False)
    if read.problems:
        raise SettingsError("; ".join(read.problems))
    return settings


def _key(read: "_Reader") -> StaticKey | KeySecret | IdentityProvider:
    access_key = read.text("HUAWEICLOUD_SDK_AK", _KEY_TEXT.fullmatch)
    secret_key = read.text("HUAWEICLOUD_SDK_SK", _KEY_TEXT.fullmatch)
    security_token = read.text("HUAWEICLOUD_SDK_SECURITY_TOKEN", _KEY_TEXT.fullmatch)
    project_id = read.text("HUAWEICLOUD_SDK_PROJECT_ID", _PROJECT_ID.fullmatch)
    secret = read.text("HUAWEICLOUD_CREDENTIALS_SECRET", _SECRET.fullmatch)
    audience = read.text("HUAWEICLOUD_IDP_AUDIENCE", _AUDIENCE.fullmatch) or "huaweicloud"
    iam_endpoint = read.text("HUAWEICLOUD_SDK_IAM_ENDPOINT", _is_endpoint)
    if idp_id := read.text("HUAWEICLOUD_SDK_IDP_ID", _IDP_ID.fullmatch):
        for variable in ("HUAWEICLOUD_CREDENTIALS_SECRET", "HUAWEICLOUD_SDK_AK", "HUAWEICLOUD_SDK_SK"):
            if read.text(variable):
                read.problems.append(f"{variable} and HUAWEICLOUD_SDK_IDP_ID exclude each other")
        project_id = project_id or read.missing("HUAWEICLOUD_SDK_PROJECT_ID")
        return IdentityProvider(idp_id, audience, iam_endpoint, project_id)
    if secret:
        return KeySecret(secret, project_id)
    hint = " (or HUAWEICLOUD_CREDENTIALS_SECRET, or HUAWEICLOUD_SDK_IDP_ID)"
    return StaticKey(
        access_key or read.missing("HUAWEICLOUD_SDK_AK", hint),
        secret_key or read.missing("HUAWEICLOUD_SDK_SK", hint),
        security_token,
        project_id or read.missing("HUAWEICLOUD_SDK_PROJECT_ID", hint),
    )


class _Reader:
    """Collects all problems, to report them in one error."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self.problems: list[str] = []

    def text(self, variable: str, is_right: Callable[[str], object] = bool) -> str | None:
        value = self._environment.get(variable, "").strip(_BLANKS)
        return self._checked(variable, value, is_right) if value else None

    def missing(self, variable: str, hint: str = "") -> str:
        if not any(problem.startswith(f"{variable} ") for problem in self.problems):
            self.problems.append(f"{variable} is missing{hint}")
        return ""

    def verbatim(self, variable: str, is_right: Callable[[str], object], *, may_be_empty: bool = True) -> str | None:
        """For variables that libraries read themselves, including blanks."""
        value = self._environment.get(variable)
        if value is None or (may_be_empty and not value):
            return None
        return self._checked(variable, value, is_right)

    def items(self, variable: str, pattern: re.Pattern[str]) -> frozenset[str]:
        entries = [entry.strip() for entry in (self.text(variable) or "").split(",")]
        return frozenset(self._checked(variable, entry, pattern.fullmatch) for entry in entries if entry)

    def number(self, variable: str, *, at_most: int) -> int | None:
        value = self.text(variable, lambda text: _NUMBER.fullmatch(text) and 1 <= int(text) <= at_most)
        return int(value) if value and _NUMBER.fullmatch(value) else None

    def flag(self, variable: str) -> bool:
        value = self.text(variable) or "false"
        return self._checked(variable, value.lower(), lambda text: text in ("true", "false")) == "true"

    def _checked(self, variable: str, value: str, is_right: Callable[[str], object]) -> str:
        problem = f"{variable} is malformed"
        if not is_right(value) and problem not in self.problems:
            self.problems.append(problem)
        return value


def _is_endpoint(text: str) -> bool:
    """HTTPS, except for a loopback address."""
    try:
        url = urlsplit(text)
        host, _ = url.hostname, url.port
    except ValueError:
        return False
    if not _URL.fullmatch(text) or not host:
        return False
    return url.scheme == "https" or _LOOPBACK.fullmatch(host) is not None


def _are_endpoints(text: str) -> bool:
    return all(map(_is_endpoint, text.split(",")))

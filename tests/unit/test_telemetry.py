"""What the function logs and counts: one line and one count for each event, and never a secret or a payload.

The function runs in a process of its own, for what counts is what really comes out of it.
"""

from __future__ import annotations

import json
import logging
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import pytest
from aws_lambda_powertools.metrics import EphemeralMetrics
from aws_lambda_powertools.utilities.circuit_breaker import CircuitState, CircuitTransition

from function.adapters.huawei.error_codes import from_reply
from function.domain import failures
from function.domain.event_parser import KNOWN_PATHS
from function.domain.model import Outcome, ParsedEvent
from function.domain.rename_service import Result, Unsettled
from function.telemetry import Telemetry
from tests.fakes.aws import FakeAws
from tests.fakes.environment import ENVIRONMENT, SECRET
from tests.fakes.events import cloud_event, http_request, sqs_record
from tests.fakes.failures import not_found
from tests.fakes.identifiers import PROJECT, REGION
from tests.fakes.process import ROOT, run_python
from tests.fakes.world import World
from tests.localcloud.huawei import HuaweiCloud

AK, SK, TOKEN = "MARKERACCESSKEY", "marker-secret-key", "marker-security-token"
NAME, PREVIOUS = "marker-new-name", "marker-old-name"
PAYLOAD, MESSAGE = "marker-payload", "marker-message"
VERBOSE: dict[str, Any] = {
    "root_at_debug": True,
    "POWERTOOLS_LOG_LEVEL": "DEBUG",
    "POWERTOOLS_LOGGER_LOG_EVENT": "true",
}
CALLER = "arn:aws:iam::123456789012:user/producer"
SECRETS = (AK, SK, TOKEN, NAME, PREVIOUS, PAYLOAD, MESSAGE, "Signature=", ENVIRONMENT["AWS_SECRET_ACCESS_KEY"])

_PROGRAM = """
import json, logging, sys
events, seconds, root_at_debug = json.load(sys.stdin)
if root_at_debug:
    logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)
from function.app import handler
from tests.fakes.lambda_context import FakeContext
for event in events:
    json.dumps(handler(event, FakeContext(seconds)))
"""


class Run(NamedTuple):
    events: int
    stdout: str
    stderr: str

    @property
    def documents(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.stdout.splitlines()]

    @property
    def handled(self) -> list[dict[str, Any]]:
        return [document for document in self.documents if document.get("message") == "rename event handled"]

    @property
    def metrics(self) -> list[dict[str, Any]]:
        return [document for document in self.documents if "_aws" in document]

    def values(self, metric: str) -> list[float]:
        return [value for (name,), values in metrics_of(self.metrics) if name == metric for value in values]

    def counts(self, *dimensions: str) -> Counter[Any]:
        """The sum of each count, by its name and the values of the dimensions, as CloudWatch would have it."""
        total: Counter[Any] = Counter()
        for name, values in metrics_of(self.metrics, *dimensions):
            if name[0].startswith("Rename"):
                total[name if dimensions else name[0]] += int(sum(values))
        return total


def metrics_of(documents: list[dict[str, Any]], *dimensions: str) -> Iterator[tuple[tuple[str, ...], list[float]]]:
    """The values that a document adds to each metric which has these dimensions in addition to the service."""
    for document in documents:
        [directive] = document["_aws"]["CloudWatchMetrics"]
        if ["service", *dimensions] in directive["Dimensions"]:
            for metric in directive["Metrics"]:
                name = metric["Name"]
                yield (name, *(document[dimension] for dimension in dimensions)), document[name]


def huawei_cloud() -> HuaweiCloud:
    cloud = HuaweiCloud(ak=AK, sk=SK, project_id=PROJECT, region=REGION, security_token=TOKEN)
    for number in range(20):
        cloud.add_service(f"batch-{number}", name=PREVIOUS)
    return cloud


@pytest.fixture
def cloud() -> Iterator[HuaweiCloud]:
    with huawei_cloud() as cloud:
        yield cloud


def run(
    cloud: HuaweiCloud,
    aws: FakeAws,
    events: list[dict[str, Any]],
    *,
    seconds: float = 30.0,
    root_at_debug: bool = False,
    **environment: str | None,
) -> Run:
    """Have the handler handle the events, one invocation each."""
    settings: dict[str, str | None] = {
        **ENVIRONMENT,
        "HUAWEICLOUD_SDK_AK": AK,
        "HUAWEICLOUD_SDK_SK": SK,
        "HUAWEICLOUD_SDK_SECURITY_TOKEN": TOKEN,
        "VPCEP_ENDPOINT": cloud.url,
        "AWS_ENDPOINT_URL": aws.url,
        "RENAME_QUEUE_URL": f"{aws.url}/123456789012/renames.fifo",
        "MAX_RECEIVES": "5",
        **environment,
    }
    set_ones = {name: value for name, value in settings.items() if value is not None}
    process = run_python(_PROGRAM, set_ones, json.dumps([events, seconds, root_at_debug]))
    assert process.returncode == 0, process.stderr
    count = sum(len(event.get("Records", [event])) for event in events)
    return Run(count, process.stdout, process.stderr)


def request_for(service: str, **data: Any) -> dict[str, Any]:
    renamed = {"vpc_endpoint_service_id": service, "endpoint_service_name": NAME}
    return cloud_event(id=f"of-{service}", time="2020-01-01T00:00:00Z", **renamed | data) | {"note": PAYLOAD}


def message_for(service: str, receive_count: int = 1, **data: Any) -> dict[str, Any]:
    event = request_for(service, **data)
    return {"Records": [sqs_record(event, message_id=service, group=service, receive_count=receive_count)]}


def post(body: Any, **headers: str) -> dict[str, Any]:
    request = http_request(body, headers={"Content-Type": "application/cloudevents+json"} | headers)
    request["requestContext"]["identity"]["userArn"] = CALLER
    return request


def every_kind_of_result(cloud: HuaweiCloud, aws: FakeAws) -> list[dict[str, Any]]:
    """Events that end in every way an event can end in, each failure for a service of its own."""
    for service in ("fine", "crash", "expected", "http-fine"):
        cloud.add_service(service, name=PREVIOUS)
    faults: dict[str, dict[str, Any]] = {
        "final": {"status": 400, "code": "EndPoint.1003"},
        "throttled": {"status": 429, "code": "APIGW.0308"},
        "given-up": {"status": 429, "code": "APIGW.0308"},
        "http-throttled": {"status": 429, "code": "APIGW.0308"},
        "html": {"status": 503, "body": f"<html>{MESSAGE}</html>"},
        "garbage": {"kind": "garbage", "body": f"<html>{MESSAGE}</html>"},
        "reset": {"kind": "reset"},
        "truncated": {"kind": "truncate", "body": json.dumps({"endpoint_service_name": MESSAGE})},
        "redirect": {"status": 302, "headers": {"Location": f"http://127.0.0.1:9/{MESSAGE}"}},
        "refused": {"status": 401, "code": "APIGW.0301"},
    }
    wait = {"headers": {"Retry-After": "900"}}
    for service, fault in faults.items():
        cloud.add_service(service, name=PREVIOUS)
        once = fault.get("kind") or fault["status"] == 302
        cloud.fail(service_id=service, times=1 if once else None, message=MESSAGE, **(wait | fault))
    aws.answer("PutEvents", {"Entries": [MESSAGE]})  # a malformed reply
    return [
        *[message_for(service) for service in ("crash", "fine", "missing", "final", "throttled")],
        message_for("expected", expected_name="another"),
        message_for("given-up", receive_count=5),
        *[message_for(service) for service in ("html", "garbage", "reset", "truncated", "redirect")],
        {"Records": [sqs_record(f"not JSON but {PAYLOAD}", message_id="broken", group="broken")]},
        post(request_for("http-fine")),
        post(request_for("http-throttled")),
        post(request_for("fine"), Prefer="respond-async"),
        post(
            {"data": {"vpc_endpoint_service_id": PAYLOAD, "endpoint_service_name": f"{NAME}/{PAYLOAD}", PAYLOAD: NAME}}
            | {f"{PAYLOAD}-{number}": NAME for number in range(9)}
        ),
        {"Records": [message_for(f"batch-{number}")["Records"][0] for number in range(10)]},
        message_for("refused"),  # from here on nothing is called any more
        post(request_for("fine")),
    ]


@pytest.fixture(scope="module")
def plain() -> Iterator[Run]:
    """Every kind of result, with the settings of a deployed function."""
    with huawei_cloud() as cloud, FakeAws() as aws:
        yield run(cloud, aws, every_kind_of_result(cloud, aws))


def test_log_is_one_json_object_a_line_and_nothing_else(plain: Run) -> None:
    assert plain.stderr == ""
    assert all(isinstance(document, dict) for document in plain.documents)


def test_each_event_is_logged_once(plain: Run) -> None:
    assert len(plain.handled) == plain.events
    logged = Counter(line["message_id"] for line in plain.handled if line["trigger"] == "sqs")
    assert set(logged.values()) == {1}


def test_log_line_of_an_event_has_a_constant_message(plain: Run) -> None:
    others = {line["message"] for line in plain.documents if "message" in line} - {"rename event handled"}

    not_recognised = "LEDGER_TABLE is not set: duplicates and stale events are not recognised"
    assert others == {not_recognised, "visibility not extended"}


@pytest.mark.parametrize("secret", SECRETS)
def test_log_has_no_secret_and_no_payload(plain: Run, secret: str) -> None:
    assert secret not in plain.stdout


@pytest.mark.parametrize(
    ("service", "status", "code", "kind", "http_status"),
    [
        *[(fine, "settled", None, None, None) for fine in ("fine", "garbage", "reset", "truncated", "redirect")],
        ("missing", "settled", "EndPoint.2003", "not_found", 400),
        ("expected", "settled", "Rename.PreconditionFailed", "conflict", None),
        ("final", "settled", "EndPoint.1003", "invalid", 400),
        ("throttled", "unsettled", "APIGW.0308", "throttled", 429),
        ("given-up", "given_up", "APIGW.0308", "throttled", 429),
        ("html", "unsettled", "Rename.ServiceUnavailable", "unavailable", 503),
        ("broken", "settled", "Rename.InvalidEvent", "invalid", None),
        ("crash", "unsettled", "Rename.InternalError", "internal", None),
        ("refused", "unsettled", "APIGW.0301", "access", 401),
    ],
)
def test_log_line_says_how_the_event_ended(
    plain: Run, service: str, status: str, code: str | None, kind: str | None, http_status: int | None
) -> None:
    [line] = [line for line in plain.handled if line.get("message_id") == service]

    assert (line["status"], line["trigger"]) == (status, "sqs")
    assert (line.get("error_code"), line.get("error_kind"), line.get("http_status")) == (code, kind, http_status)
    assert line["receive_count"] == (5 if service == "given-up" else 1)
    assert line["level"] == ("WARNING" if code else "INFO")
    if service != "broken":
        assert (line["correlation_id"], line["event_source"]) == (f"of-{service}", "/cmdb")
        assert line["vpc_endpoint_service_id"] == service
    if status != "unsettled":
        assert line["outcome_id"]
    if code is not None and not code.startswith("Rename."):
        assert line["huawei_request_id"]


def test_log_line_has_violation_paths_without_names_of_the_producer(plain: Run) -> None:
    paths = [line["violation_paths"] for line in plain.handled if "violation_paths" in line]

    assert paths == ["(whole event)", "/specversion, /id, /source, /type, /*, /data/*, /data/endpoint_service_name"]


def test_log_line_names_the_sender(plain: Run) -> None:
    assert {line["sender_id"] for line in plain.handled if line["trigger"] == "sqs"} == {"AROAEXAMPLE:producer"}
    assert {line["caller"] for line in plain.handled if line["trigger"] == "http"} == {CALLER}


def test_log_line_names_type_and_place_of_an_unexpected_exception(plain: Run) -> None:
    [line] = [line for line in plain.handled if line.get("message_id") == "crash"]

    assert line["exception_name"] == "AttributeError"
    assert re.fullmatch(r"(_send|<listcomp>):[0-9]+", line["exception_place"])  # a comprehension is one before 3.12


def test_each_event_is_counted_once(plain: Run) -> None:
    status = Counter(line["status"] for line in plain.handled)
    failed = len([line for line in plain.handled if line["status"] == "settled" and "error_code" in line])

    assert plain.counts() == {
        "Renamed": status["settled"] - failed,
        "RenameFailed": failed,
        "RenameGivenUp": status["given_up"],
        "RenameDeferred": status["unsettled"] + status["queued"],
    }
    assert status["settled"] - failed == 16


@pytest.mark.parametrize("dimension", ["kind", "code"])
def test_each_failure_is_counted_by_kind_and_by_code(plain: Run, dimension: str) -> None:
    names = {"settled": "RenameFailed", "given_up": "RenameGivenUp"}
    logged = Counter(
        (names.get(line["status"], "RenameDeferred"), line[f"error_{dimension}"])
        for line in plain.handled
        if "error_code" in line
    )

    assert plain.counts(dimension) == logged


def test_latency_of_each_call_is_measured(plain: Run) -> None:
    latencies = plain.values("VpcepLatency")

    # one call at least for each that went through, several where it was tried again
    assert len(latencies) > plain.counts()["Renamed"]
    assert all(0 < value < 30_000 for value in latencies)


def test_age_of_a_valid_event_is_measured_when_it_is_settled_or_deferred(plain: Run) -> None:
    settled, deferred = plain.values("EventAge"), plain.values("WaitingAge")
    since_2020 = (datetime.now(UTC) - datetime(2020, 1, 1, tzinfo=UTC)).total_seconds()

    valid = [line for line in plain.handled if line["status"] == "settled" and line.get("error_kind") != "invalid"]
    refused = [line for line in plain.handled if line.get("error_code") == "EndPoint.1003"]
    assert len(settled) == len(valid) + len(refused)
    assert len(deferred) == plain.counts()["RenameDeferred"]
    assert all(age == pytest.approx(since_2020, abs=600) for age in settled + deferred)


def test_metrics_are_in_cloudwatchs_embedded_format(plain: Run) -> None:
    assert plain.metrics
    for document in plain.metrics:
        assert isinstance(document["_aws"]["Timestamp"], int)
        [directive] = document["_aws"]["CloudWatchMetrics"]
        assert directive["Namespace"] == "VpcepRename"
        by = [["service", "kind"], ["service", "code"]] if "kind" in document else []
        assert sorted(directive["Dimensions"]) == sorted([["service"], *by])
        assert document["service"] == "vpcep-rename"
        for metric in directive["Metrics"]:
            units = {"VpcepLatency": "Milliseconds", "EventAge": "Seconds", "WaitingAge": "Seconds"}
            assert metric["Unit"] == units.get(metric["Name"], "Count")
            assert 0 < len(document[metric["Name"]]) <= 100


def test_log_has_no_secret_and_no_payload_at_the_most_verbose_settings(cloud: HuaweiCloud, aws: FakeAws) -> None:
    more = {"POWERTOOLS_DEV": "true", "POWERTOOLS_DEBUG": "true"}

    verbose = run(cloud, aws, every_kind_of_result(cloud, aws), **VERBOSE | more)

    assert [secret for secret in SECRETS if secret in verbose.stdout + verbose.stderr] == []
    assert verbose.stdout.count('"rename event handled"') == verbose.events


def test_log_has_no_secret_from_secrets_manager(cloud: HuaweiCloud, aws: FakeAws) -> None:
    # given: the key comes from a secret, and the bus refuses everything
    aws.secret = json.dumps({"ak": AK, "sk": SK, "project_id": PROJECT, "security_token": TOKEN})
    aws.fail("PutEvents", "AccessDeniedException", times=None)

    key = dict.fromkeys(("HUAWEICLOUD_SDK_AK", "HUAWEICLOUD_SDK_SK", "HUAWEICLOUD_SDK_SECURITY_TOKEN"))

    result = run(cloud, aws, [message_for("batch-0"), post(request_for("batch-1"))], **VERBOSE | SECRET | key)

    assert [line["error_code"] for line in result.handled] == ["Rename.OutcomeNotPublished"] * 2
    assert [secret for secret in SECRETS if secret in result.stdout + result.stderr] == []


def test_log_has_no_credentials_that_a_reply_repeats(cloud: HuaweiCloud, aws: FakeAws) -> None:
    encoded = ["".join(f"%{ord(character):02x}" for character in secret) for secret in (AK, SK, TOKEN)]
    for said in (f"{AK} {SK} {TOKEN}", " ".join(encoded)):
        cloud.fail(403, f"AK.{said}", message=said, headers={"X-Request-Id": f"id {said}"})

    result = run(cloud, aws, [message_for("batch-0"), message_for("batch-1")], root_at_debug=True)

    assert [line["error_code"] for line in result.handled] == ["AK.*** *** ***"] * 2
    assert [line["huawei_request_id"] for line in result.handled] == ["id *** *** ***"] * 2
    assert [said for said in (AK, SK, TOKEN, *encoded) if said in result.stdout + result.stderr] == []


@pytest.mark.parametrize(
    ("fails", "settings", "code", "aws_error_code"),
    [
        (
            lambda aws: aws.fail("GetSecretValue", "AccessDeniedException", times=None),
            SECRET,
            *("Rename.CredentialsUnavailable", "AccessDeniedException"),
        ),
        (
            lambda aws: aws.fail("TransactWriteItems", "ProvisionedThroughputExceededException", times=None),
            {"LEDGER_TABLE": "ledger"},
            *("Rename.LedgerUnavailable", "ProvisionedThroughputExceededException"),
        ),
        (
            lambda aws: aws.refuse_entry("ThrottlingException", times=None),
            *({}, "Rename.OutcomeNotPublished", "ThrottlingException"),
        ),
        (
            lambda aws: aws.hang_up("PutEvents", times=None),
            *({}, "Rename.OutcomeNotPublished", "ConnectionClosedError"),
        ),
        (
            lambda aws: aws.refuse_entry([MESSAGE], times=None),
            *({}, "Rename.OutcomeNotPublished", "Other"),
        ),
    ],
)
def test_log_line_has_the_error_code_of_aws_and_not_its_message(
    cloud: HuaweiCloud,
    aws: FakeAws,
    fails: Callable[[FakeAws], None],
    settings: dict[str, Any],
    code: str,
    aws_error_code: str,
) -> None:
    aws.answer("GetItem", {})
    fails(aws)

    result = run(cloud, aws, [message_for("batch-0")], **settings)

    [line] = result.handled
    assert (line["error_code"], line["aws_error_code"]) == (code, aws_error_code)
    assert "No." not in result.stdout  # what FakeAws says with each code
    assert MESSAGE not in result.stdout


@pytest.fixture
def line_of(world: World, caplog: pytest.LogCaptureFixture) -> Any:
    def line_of(failure: failures.Failure) -> dict[str, Any]:
        world.real_telemetry().handled(world.event(), Unsettled(failure), "sqs")
        return vars(caplog.records[-1])

    return line_of


@pytest.mark.parametrize("code", sorted(failures.OWN_CODES))
def test_log_line_of_an_own_code_has_a_constant_text(line_of: Any, code: str) -> None:
    line = line_of(failures.Failure(code, MESSAGE, failures.Kind.UNAVAILABLE, retryable=True))

    assert line["error_message"] == failures.OWN_CODES[code].message
    assert MESSAGE not in str(line)


def test_log_line_has_the_error_code_of_huawei_cloud_and_not_its_message(line_of: Any) -> None:
    line = line_of(from_reply("EndPoint.1003", MESSAGE, status=400))

    assert line["error_message"] == "Huawei Cloud: EndPoint.1003"
    assert MESSAGE not in str(line)


def test_log_line_does_not_name_the_superseding_event(line_of: Any) -> None:
    assert PAYLOAD not in str(line_of(failures.superseded(failures.EventName(PAYLOAD, PAYLOAD))))


def test_log_line_has_ten_violation_paths_at_most(line_of: Any) -> None:
    known = sorted(KNOWN_PATHS - {""})
    violations = tuple(failures.Violation(path, MESSAGE) for path in known * 2)

    line = line_of(failures.invalid_event(violations))

    assert line["violation_paths"].split(", ") == known[:10]
    assert MESSAGE not in str(line)


def test_known_violation_paths_are_the_members_of_the_schema() -> None:
    schema = json.loads((ROOT / "function/contract/rename-event.schema.json").read_text(encoding="utf-8"))
    data = schema["$defs"]["data"]["properties"]

    named = {f"/{name}" for name in schema["properties"]} | {f"/data/{name}" for name in data}

    assert named | {""} == KNOWN_PATHS


@pytest.mark.parametrize(
    ("path", "logged"),
    [(f"/data/{PAYLOAD}", "/data/*"), ("/data/", "/data/*"), (f"/{PAYLOAD}", "/*"), (f"/data~1region/{PAYLOAD}", "/*")],
)
def test_log_line_has_a_star_for_an_unknown_member(line_of: Any, path: str, logged: str) -> None:
    assert line_of(failures.invalid_event((failures.Violation(path, MESSAGE),)))["violation_paths"] == logged


def test_log_line_has_no_caller_if_it_is_unknown(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    telemetry = world.real_telemetry()

    telemetry.handled(world.event(), world.settle(), "http", caller=None)

    assert "caller" not in vars(caplog.records[-1])


def test_messages_of_the_sdk_are_not_written_to_stderr(cloud: HuaweiCloud, aws: FakeAws) -> None:
    """Of its own the SDK logs what it cannot connect to, through a logger without a handler."""
    result = run(cloud, aws, [message_for("batch-0")], seconds=4.6, VPCEP_ENDPOINT="http://127.0.0.1:9")

    assert result.stderr == ""
    assert result.handled[0]["error_code"] == "Rename.ConnectionFailed"


def test_more_events_than_one_metric_holds_are_all_counted(cloud: HuaweiCloud, aws: FakeAws) -> None:
    broken = [sqs_record("not JSON", message_id=f"message-{number}", group=None) for number in range(230)]

    result = run(cloud, aws, [{"Records": broken}], MAX_PARALLEL_RENAMES="20")

    assert len(result.handled) == 230
    assert result.counts() == {"RenameFailed": 230}


def test_event_is_settled_without_a_metrics_namespace(cloud: HuaweiCloud, aws: FakeAws) -> None:
    result = run(cloud, aws, [message_for("batch-0")], POWERTOOLS_METRICS_NAMESPACE=None)

    assert [line["status"] for line in result.handled] == ["settled"]


@pytest.fixture
def written(
    world: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., dict[str, Any]]:
    """The metrics that are written of what is done to the telemetry."""
    monkeypatch.setenv("POWERTOOLS_SERVICE_NAME", "vpcep-rename")

    def written(act: Callable[[Telemetry], None]) -> dict[str, Any]:
        telemetry = world.real_telemetry()
        act(telemetry)
        telemetry.flush()
        documents = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        return {name: values for (name,), values in metrics_of([line for line in documents if "_aws" in line])}

    return written


@pytest.mark.parametrize(("state", "is_open"), [("OPEN", 1), ("HALF_OPEN", 0), ("CLOSED", 0)])
def test_transition_of_the_outage_breaker_is_logged_and_counted(
    state: str, is_open: int, caplog: pytest.LogCaptureFixture, written: Callable[..., dict[str, Any]]
) -> None:
    transition = CircuitTransition("breaker", CircuitState.CLOSED, CircuitState(state), 0)

    metric = written(lambda telemetry: telemetry.circuit_transitioned(transition))

    [record] = caplog.records
    assert (record.getMessage(), vars(record)["state"], record.levelname) == ("outage breaker turned", state, "WARNING")
    assert vars(record)["circuit"] == "breaker"
    assert metric["OutageBreakerOpen"] == [is_open]


def test_failure_of_the_outage_breaker_is_logged_by_its_name_alone(
    caplog: pytest.LogCaptureFixture, world: World
) -> None:
    world.real_telemetry().breaker_failed(KeyError("marker"))

    [record] = caplog.records
    assert (record.getMessage(), vars(record)["exception_name"]) == ("outage breaker failed", "KeyError")
    assert "marker" not in str(vars(record))


def test_events_are_never_counted_concurrently(monkeypatch: pytest.MonkeyPatch, world: World) -> None:
    """Powertools' metrics are not made for several threads."""
    # given
    counting, at_once = threading.Lock(), []

    def add_metric(*_: object, **__: object) -> None:
        at_once.append(not counting.acquire(blocking=False))
        time.sleep(0.005)
        if not at_once[-1]:
            counting.release()

    monkeypatch.setattr(EphemeralMetrics, "add_metric", add_metric)
    telemetry = world.real_telemetry()
    event, outcome = world.event(), world.settle()

    # when
    with ThreadPoolExecutor(max_workers=8) as pool:
        for _ in range(16):
            pool.submit(telemetry.handled, event, outcome, "sqs")

    # then: two of each, the count and the age
    assert at_once == [False] * 32


@pytest.fixture
def counted(world: World, written: Callable[..., dict[str, Any]]) -> Any:
    """The metrics that are written of an event and its result."""

    def counted(result: Result, event: ParsedEvent | None = None, **keys: Any) -> Any:
        return written(lambda telemetry: telemetry.handled(event or world.event(), result, "sqs", **keys))

    return counted


SUPERSEDED = failures.superseded(failures.EventName("/cmdb", "newer"))


@pytest.mark.parametrize(
    ("failure", "is_remembered", "keys", "metrics"),
    [
        *[(None, False, keys, ["Renamed", "EventAge"]) for keys in ({}, {"receive_count": 1}, {"receive_count": 3})],
        (not_found(), False, {}, ["RenameFailed", "EventAge"]),
        (SUPERSEDED, False, {}, ["RenameSuperseded", "EventAge"]),
        (failures.timeout(), False, {"receive_count": 12}, ["RenameGivenUp"]),
        *[(None, True, keys, ["RenameDuplicate"]) for keys in ({}, {"receive_count": 1})],
        # The outcome was decided in an earlier delivery of the same message.
        (None, True, {"receive_count": 2}, ["RenamePublishedLate", "Renamed", "EventAge"]),
        (failures.timeout(), False, {"dead_letter": True}, ["RenameGivenUp"]),
        (failures.timeout(), True, {"dead_letter": True}, []),
    ],
)
def test_outcome_is_counted_by_how_its_message_came_and_what_the_ledger_knew(
    counted: Any,
    world: World,
    failure: failures.Failure | None,
    is_remembered: bool,
    keys: dict[str, Any],
    metrics: list[str],
) -> None:
    if failure:
        world.services.refuse(failure, times=None)
    result = world.settle()
    outcome = world.give_up(result) if isinstance(result, Unsettled) else result
    assert isinstance(outcome, Outcome)

    assert list(counted(replace(outcome, remembered=is_remembered), **keys)) == metrics


@pytest.mark.parametrize(
    ("failure", "keys"), [(failures.timeout(), {}), (failures.respond_async_requested(), {"queued": True})]
)
def test_unsettled_event_is_counted_as_deferred(counted: Any, failure: failures.Failure, keys: dict[str, Any]) -> None:
    assert list(counted(Unsettled(failure), **keys)) == ["RenameDeferred", "WaitingAge"]


def test_invalid_event_is_counted_without_an_age(counted: Any, world: World) -> None:
    event = world.invalid_event()
    outcome = world.settle(event)

    assert list(counted(outcome, event)) == ["RenameFailed"]
    assert list(counted(Unsettled(failures.not_published("Throttling")), event)) == ["RenameDeferred"]


@pytest.mark.parametrize(("minutes", "seconds"), [(2, 120), (0, 0), (-4, 0)])
def test_age_is_since_the_time_of_the_event_and_never_negative(
    counted: Any, world: World, minutes: int, seconds: int
) -> None:
    """A sender's clock may be some minutes ahead."""
    event = replace(world.event(), time=datetime.now(UTC) - timedelta(minutes=minutes))

    [settled] = counted(world.settle(), event)["EventAge"]
    [waiting] = counted(Unsettled(failures.timeout()), event)["WaitingAge"]

    assert settled == pytest.approx(seconds, abs=5)
    assert waiting == pytest.approx(seconds, abs=5)
    assert min(settled, waiting) >= 0


def test_latency_of_a_call_is_in_milliseconds(written: Callable[..., dict[str, Any]]) -> None:
    assert written(lambda telemetry: telemetry.record_call(0.25)) == {"VpcepLatency": [250.0]}


def test_exception_outside_of_an_event_is_logged_and_counted(
    written: Callable[..., dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    metrics = written(lambda telemetry: telemetry.unexpected(ValueError("marker-message"), message_id="message-1"))

    assert metrics == {"RenameNotHandled": [1]}
    [record] = caplog.records
    assert (record.getMessage(), vars(record)["message_id"]) == ("rename event not handled", "message-1")
    assert vars(record)["exception_name"] == "ValueError"


@pytest.mark.parametrize(
    ("code", "logged"),
    [
        *[(code, code) for code in ("AccessDenied", "AWS.SimpleQueueService.NonExistentQueue", "x" * 64)],
        *[(text, "Other") for text in ("no code", "<html>", "x" * 65, "")],
    ],
)
def test_error_code_of_aws_is_logged_if_it_has_the_form_of_one(
    world: World, caplog: pytest.LogCaptureFixture, code: str, logged: str
) -> None:
    telemetry = world.real_telemetry()
    telemetry.handled(world.event(), Unsettled(failures.not_published(code)), "sqs", queue_error_code=code)
    telemetry.visibility_not_extended(code)

    handled, not_extended = map(vars, caplog.records)
    assert handled["aws_error_code"] == handled["queue_error_code"] == not_extended["queue_error_code"] == logged

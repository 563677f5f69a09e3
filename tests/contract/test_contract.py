"""The schemas under function/contract/ describe what the function takes and emits, in any language that reads them."""

from __future__ import annotations

import copy
import inspect
import json
import re
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final

import pytest
from jsonschema import Draft202012Validator

from function.adapters.huawei import error_codes
from function.adapters.huawei.error_codes import from_reply
from function.domain import failures
from function.domain.deadline import Deadline
from function.domain.event_parser import RENAME_REQUESTED
from function.domain.failures import EventName, Failure, Kind, Violation
from function.domain.model import InvalidEvent, Outcome, ParsedEvent, RedriveCycle, RenameEvent, Target
from function.domain.outcomes import OUTCOME_SOURCE, RENAME_FAILED, RENAMED, outcome_id, rename_failed, renamed
from function.domain.ports import Reply
from function.domain.rename_service import Unsettled
from tests.contract.documents import OUTCOME, RENAME_EVENT, load, members
from tests.deadlines import within
from tests.fakes.domain import context, parser, rename_service, valid
from tests.fakes.endpoint_services import CountingServices
from tests.fakes.events import SAMPLES, rename_data, rename_event, transport
from tests.fakes.identifiers import HUAWEI_REQUEST_ID, NOW, OTHER_PROJECT, OTHER_REGION, PROJECT, SERVICE
from tests.fakes.publisher import FakeBus

SCHEMAS: Final = ("rename-event.schema.json", "outcome.schema.json")
TRACEPARENT: Final = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
MAX_ENTRY_BYTES: Final = 256 * 1024
MAX_REPLY_BYTES: Final = 1024 * 1024


def broken(validator: Draft202012Validator, content: object) -> list[str]:
    """Where ``content`` breaks the schema, and how."""
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(content)]


# ---- The schemas themselves


@pytest.mark.parametrize("name", SCHEMAS)
def test_schema_is_valid_json_schema_2020_12(name: str) -> None:
    content = load(name)

    assert content["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    Draft202012Validator.check_schema(content)


PATTERNS: Final = [
    pytest.param(pattern, id=f"{name.partition('.')[0]}{place}")
    for name in SCHEMAS
    for place, keyword, pattern in members(load(name))
    if keyword == "pattern" and isinstance(pattern, str)
]

# What Python's re and ECMA-262 (with its u flag, as JSON Schema asks for) read alike. Left out on purpose: `.` and the
# classes \d \w \s \b, whose reach differs; \A \Z (?P (?i) (?#, which only Python knows; (?< and \p, which differ; `$`
# alone, for Python's also matches before a final line feed.
_ESCAPE = r"\\(?:u[0-9a-fA-F]{4}|[\^$\\.*+?()\[\]{}|/])"
_COMMON: Final = re.compile(
    rf"""\^(?:
        \[\^?(?:{_ESCAPE}|\\-|[^\\\[\]])+\]   # a class
      | \(\?[:!=] | \((?!\?) | \) | \|        # groups
      | (?:[*+?]|\{{[0-9]+(?:,[0-9]*)?\}})(?![*+?{{])
      | {_ESCAPE}
      | [A-Za-z0-9_:;,/@=<>!"'#%&~\x20-]      # literals
    )*\$\(\?!\\n\)""",
    re.VERBOSE,
)


def _is_common(pattern: str) -> bool:
    if _COMMON.fullmatch(pattern) is None:
        return False
    try:
        re.compile(pattern)
    except re.error:
        return False
    return True


@pytest.mark.parametrize("pattern", PATTERNS)
def test_pattern_has_only_syntax_that_python_and_ecma_262_read_alike(pattern: str) -> None:
    assert _is_common(pattern)


@pytest.mark.parametrize(
    "pattern",
    [
        r"\A[a-z]*\Z",
        r"^[a-z]*\Z",
        r"^[a-z]*$",
        r"[a-z]*$(?!\n)",
        r"^(?P<name>[a-z]*)$(?!\n)",
        r"^(?i)[a-z]*$(?!\n)",
        r"^(?i:[a-z]*)$(?!\n)",
        r"^(?#comment)[a-z]*$(?!\n)",
        r"^.*$(?!\n)",
        r"^\d+$(?!\n)",
        r"^\w+$(?!\n)",
        r"^[\d]+$(?!\n)",
        r"^[\x00]+$(?!\n)",
        r"^\a$(?!\n)",
        r"^[a-z]{,3}$(?!\n)",
        r"^[a-z]++$(?!\n)",
        r"^(?>[a-z]+)$(?!\n)",
        r"^(?<=a)[a-z]*$(?!\n)",
        r"^[[:alpha:]]*$(?!\n)",
        r"^([a-z]$(?!\n)",
    ],
)
def test_pattern_with_syntax_that_python_and_ecma_262_read_differently_is_found(pattern: str) -> None:
    assert not _is_common(pattern)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_pattern_matches_no_text_with_a_final_line_feed(pattern: str) -> None:
    """Given what the pattern matches, as far as a few tries find it."""
    tries = ["", "a", "1", TRACEPARENT, "2026-11-02T08:15:00.000Z", "application/json", valid_outcome_id()]
    matched = [text for text in tries if re.search(pattern, text)]

    assert matched
    assert not [text for text in matched if re.search(pattern, f"{text}\n")]


def valid_outcome_id() -> str:
    return outcome_id(valid())


def test_kinds_of_failure_in_the_schema_are_those_of_the_code() -> None:
    error = load("outcome.schema.json")["$defs"]["rename_failed"]["properties"]["error"]

    assert set(error["properties"]["kind"]["enum"]) == {kind.value for kind in Kind}


def test_types_and_source_in_the_schemas_are_those_of_the_code() -> None:
    rename_event_schema, outcome_schema = (load(name)["properties"] for name in SCHEMAS)

    assert rename_event_schema["type"]["const"] == RENAME_REQUESTED
    assert set(outcome_schema["type"]["enum"]) == {RENAMED, RENAME_FAILED}
    assert outcome_schema["source"]["const"] == OUTCOME_SOURCE


# ---- Samples

VALID: Final = ("rename-structured.json", "rename-with-precondition.json", "unknown-service.json")
VALID_DATA: Final = ("rename-binary.json",)
ENVELOPES: Final = ("rename-in-sns.json", "rename-in-eventbridge.json")
INVALID: Final = {
    "invalid-name.json": [
        ("/data/endpoint_service_name", "must have at most 16 characters"),
        ("/data/endpoint_service_name", "must hold letters, digits, _ and - only"),
    ],
    "invalid-service-id.json": [("/data/vpc_endpoint_service_id", "must hold letters, digits, _ and - only")],
    "invalid-several-violations.json": [
        ("/specversion", 'must be "1.0"'),
        ("/id", "must not be empty"),
        ("/data/vpc_endpoint_service_id", "must be of type string"),
        ("/data/endpoint_service_name", "is missing"),
        ("/data/endpoint_service", "is not a known field"),
        ("/time", "is not a time that exists"),
    ],
    "invalid-duplicate-key.json": [("", "is not JSON: an object has two members of one name")],
}
NO_JSON: Final = ("invalid-not-json.txt",)
OUTCOMES: Final = ("outcome-renamed.json", "outcome-failed.json")


def sample(name: str) -> str:
    return (SAMPLES / name).read_text(encoding="utf-8")


def parsed(text: str) -> ParsedEvent:
    return parser().parse(text, transport(), within(60.0))


def invalid(text: str) -> InvalidEvent:
    event = parsed(text)
    assert isinstance(event, InvalidEvent)
    return event


def test_each_sample_is_known_to_these_tests() -> None:
    assert {path.name for path in SAMPLES.iterdir()} == {
        *(*VALID, *VALID_DATA, *ENVELOPES),
        *(*INVALID, *NO_JSON, *OUTCOMES),
        "http-replies.json",
    }


@pytest.mark.parametrize("name", [*VALID, *VALID_DATA])
def test_sample_of_an_event_or_of_data_alone_is_valid(name: str) -> None:
    content = json.loads(sample(name))

    assert broken(RENAME_EVENT, content if name in VALID else rename_event(data=content)) == []
    assert isinstance(parsed(sample(name)), RenameEvent)


@pytest.mark.parametrize("name", ENVELOPES)
def test_sample_of_an_envelope_has_a_valid_event(name: str) -> None:
    event = parsed(sample(name))

    assert isinstance(event, RenameEvent)
    assert broken(RENAME_EVENT, event.cloud_event) == []


@pytest.mark.parametrize("name", INVALID)
def test_invalid_sample_has_the_violations_that_it_is_named_for(name: str) -> None:
    assert sorted(invalid(sample(name)).violations) == sorted(INVALID[name])


@pytest.mark.parametrize("name", NO_JSON)
def test_sample_that_is_no_json_has_one_violation_that_says_so(name: str) -> None:
    (violation,) = invalid(sample(name)).violations

    assert violation.path == ""
    assert violation.message.startswith("is not JSON: ")


LETTERS: Final = "must hold letters, digits, _ and - only"
NO_CONTROLS: Final = "must hold no control characters"


@pytest.mark.parametrize(
    ("event", "violation"),
    [
        (rename_event(id="1\n"), ("/id", NO_CONTROLS)),
        (rename_event(source="a b"), ("/source", "must be a URI reference (RFC 3986)")),
        (rename_event(time="soon"), ("/time", "must be a time by RFC 3339, as in 2026-11-24T02:10:52Z")),
        (rename_event(subject="1\n"), ("/subject", NO_CONTROLS)),
        (rename_event(dataschema="a b"), ("/dataschema", "must be a URI (RFC 3986)")),
        (rename_event(datacontenttype="text/plain"), ("/datacontenttype", "must be application/json")),
        (rename_event(region="1\n"), ("/region", NO_CONTROLS)),
        (rename_event(priority=2**31), ("/priority", "must be an integer of 32 bits")),
        (
            rename_event(Region="x"),
            ("/Region", "must be a CloudEvents attribute name: up to 32 lower-case letters and digits"),
        ),
        (rename_event(data=rename_data(vpc_endpoint_service_id="a b")), ("/data/vpc_endpoint_service_id", LETTERS)),
        (rename_event(data=rename_data(endpoint_service_name="a b")), ("/data/endpoint_service_name", LETTERS)),
        (rename_event(data=rename_data(project_id="a b")), ("/data/project_id", LETTERS)),
        (
            rename_event(data=rename_data(region="CN-NORTH-4")),
            ("/data/region", "must hold lower-case letters, digits and - only"),
        ),
        (rename_event(data=rename_data(expected_name="a b")), ("/data/expected_name", LETTERS)),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_message_of_a_violation_is_unchanged(event: dict[str, Any], violation: tuple[str, str]) -> None:
    """Producers read it in their outcomes; the schema's descriptions are for those who write events."""
    assert invalid(json.dumps(event)).violations == (violation,)


@pytest.mark.parametrize("name", ["invalid-name.json", "invalid-service-id.json", "invalid-several-violations.json"])
def test_invalid_sample_is_invalid_by_the_schema(name: str) -> None:
    assert broken(RENAME_EVENT, json.loads(sample(name)))


def test_samples_have_different_ids() -> None:
    ids = [json.loads(sample(name))["id"] for name in (*VALID, "invalid-name.json", "invalid-service-id.json")]

    assert len(set(ids)) == len(ids)


def test_sample_of_a_success_is_the_outcome_of_the_sample_event() -> None:
    services = CountingServices(name="billing")

    outcome = settled_soon(sample("rename-structured.json"), services, read_previous_name=True)

    assert json.loads(sample("outcome-renamed.json")) == outcome.cloud_event


def test_sample_of_a_failure_is_the_outcome_for_an_unknown_service() -> None:
    message = "The VPC endpoint service does not exist."
    unknown = from_reply("EndPoint.2003", message, status=400, huawei_request_id=HUAWEI_REQUEST_ID)

    outcome = settled_soon(sample("unknown-service.json"), CountingServices(failure=unknown))

    assert json.loads(sample("outcome-failed.json")) == outcome.cloud_event


# ---- Outcomes


def settled(
    sent: str | dict[str, Any], services: CountingServices | None = None, trigger: str = "sqs", **arguments: Any
) -> Outcome:
    """The outcome that the function publishes for an event."""
    bus, event = FakeBus(), parsed(sent if isinstance(sent, str) else json.dumps(sent))
    rename_service(services or CountingServices(), bus, **arguments).settle(event, within(60.0), trigger)
    (outcome,) = bus.outcomes
    return outcome


def settled_soon(text: str, services: CountingServices, **arguments: Any) -> Outcome:
    """The same, a moment after the event's time."""
    time = datetime.fromisoformat(json.loads(text)["time"]) + timedelta(milliseconds=1_250)
    return settled(text, services, now=lambda: time, **arguments)


def given_up(event: ParsedEvent, failure: Failure) -> Outcome:
    bus = FakeBus()
    rename_service(CountingServices(), bus).give_up(event, Unsettled(failure, attempts=5), within(60.0), "sqs")
    (outcome,) = bus.outcomes
    return outcome


FAILURES: Final[dict[str, Failure]] = {
    "from_reply": from_reply("EndPoint.2003", "gone", status=400, huawei_request_id=HUAWEI_REQUEST_ID),
    "from_reply, throttled": from_reply("APIGW.0308", "limit:200,time:5 minute", status=429, retry_after=2.5),
    "from_reply, without a body": from_reply(None, "", status=503),
    "from_reply, with status 600": from_reply(None, "", status=600),
    "from_reply, with status 999": from_reply(None, "", status=999),
    "timeout": failures.timeout(in_doubt=True),
    "connection_failed": failures.connection_failed(in_doubt=False),
    "unconfirmed_reply": failures.unconfirmed_reply(302, None),
    "invalid_event": failures.invalid_event((Violation("/data/x", "is not a known field"), Violation("", "and more"))),
    "precondition_failed": failures.precondition_failed("billing"),
    "superseded": failures.superseded(EventName("/cmdb", "event-2")),
    "identifier_reused": failures.identifier_reused(),
    "in_progress": failures.in_progress(),
    "claim_lost": failures.claim_lost(),
    "ledger_unavailable": failures.ledger_unavailable("ThrottlingException"),
    "outage": failures.outage(),
    "abandoned": failures.abandoned(),
    "credentials": failures.credentials("The secret cannot be read.", kind=Kind.ACCESS),
    "not_published": failures.not_published("InternalFailure"),
    "no_time_left": failures.no_time_left(),
    "respond_async_requested": failures.respond_async_requested(),
    "internal_error": failures.internal_error(),
    "as_conflict": failures.as_conflict(from_reply("EndPoint.3045", "busy", status=400)),
    "state_conflict_unverified": failures.state_conflict_unverified(
        from_reply("EndPoint.3045", "busy", status=400), failures.timeout()
    ),
}


def test_each_failure_is_known_to_these_tests() -> None:
    makers = {
        name
        for module in (failures, error_codes)
        for name, maker in inspect.getmembers(module, inspect.isfunction)
        if not name.startswith("_") and inspect.signature(maker).return_annotation is Failure
    }

    assert makers == {name.partition(",")[0] for name in FAILURES}


EMITTED: Final[dict[str, Callable[[], Outcome]]] = {
    "success": lambda: settled(rename_event()),
    "success through HTTP": lambda: settled(rename_event(), trigger="http"),
    "success of data alone": lambda: settled(rename_data()),
    "success with the previous name": lambda: settled(rename_event(), read_previous_name=True),
    "success elsewhere": lambda: settled(rename_event(data=rename_data(project_id=OTHER_PROJECT, region=OTHER_REGION))),
    "success of the empty name": lambda: settled(rename_data(endpoint_service_name="")),
    "success with a trace": lambda: settled(rename_event(traceparent=TRACEPARENT)),
    "success after a redrive": lambda: renamed(
        valid(),
        context(cycle=RedriveCycle(1, valid_outcome_id())),
        Reply("cn-north-4.orders.070c", 200, None),
    ),
    "unknown service": lambda: settled(
        rename_event(), CountingServices(failure=FAILURES["from_reply"]), trigger="http"
    ),
    "broken precondition": lambda: settled(rename_event(data=rename_data(expected_name="shop"))),
    "forbidden project": lambda: settled(rename_data(project_id="another")),
    "invalid event": lambda: settled(rename_event(id="", data={"x": 1})),
    "invalid event with a trace": lambda: settled(rename_event(id="", traceparent=TRACEPARENT)),
    "no JSON": lambda: settled("orders"),
    "no object": lambda: settled("[1]"),
    "too large": lambda: settled(" " * (256 * 1024 + 1)),
    **{f"failure {name}": partial(rename_failed, valid(), context(), failure) for name, failure in FAILURES.items()},
    **{
        f"given up for {name}": partial(given_up, valid(), failure)
        for name, failure in FAILURES.items()
        if failure.retryable
    },
    "given up without a project": lambda: rename_failed(
        valid(), context(project_id=None), failures.credentials("down", kind=Kind.UNAVAILABLE)
    ),
    "given up though invalid": lambda: given_up(invalid("orders"), failures.internal_error()),
}


@pytest.fixture(params=EMITTED)
def outcome(request: pytest.FixtureRequest) -> Outcome:
    return EMITTED[request.param]()


def test_outcome_is_valid_by_its_schema(outcome: Outcome) -> None:
    assert broken(OUTCOME, json.loads(outcome.to_json())) == []


def test_outcome_is_a_cloud_event(outcome: Outcome) -> None:
    """By CloudEvents 1.0.2, sections 3 and 4 of the JSON format."""
    cloud_event = json.loads(outcome.to_json())

    attributes = {name: value for name, value in cloud_event.items() if name != "data"}
    assert all(re.fullmatch(r"[a-z0-9]{1,20}", name) for name in attributes)
    assert all(isinstance(value, str) and value for value in attributes.values())
    assert not [name for name, value in attributes.items() if re.search(r"[\x00-\x1f\x7f-\x9f]", value)]
    assert attributes["specversion"] == "1.0"
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", attributes["id"])
    assert attributes["source"] == "vpcep.rename"
    assert attributes["type"] in ("vpcep.endpoint_service.renamed.v1", "vpcep.endpoint_service.rename_failed.v1")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", attributes["time"])
    assert datetime.fromisoformat(attributes["time"]) <= NOW
    assert attributes["datacontenttype"] == "application/json"
    assert isinstance(cloud_event["data"], dict)


def test_outcome_says_what_was_requested(outcome: Outcome) -> None:
    data = outcome.cloud_event["data"]

    always = {"request", "project_id", "region", "vpc_endpoint_service_id", "endpoint_service_name"}
    assert always | {"attempts", "trigger", "huawei_request_id"} <= set(data)
    assert outcome.cloud_event.get("subject") == data["vpc_endpoint_service_id"]
    assert data["trigger"] in ("sqs", "http")


def test_outcome_has_either_the_name_or_the_error(outcome: Outcome) -> None:
    data = outcome.cloud_event["data"]

    if outcome.type.endswith(".renamed.v1"):
        assert isinstance(data["service_name"], str)
        assert "error" not in data
        assert outcome.failure is None
    else:
        assert set(data["error"]) == {"code", "message", "kind", "http_status", "retryable", "violations"}
        assert "service_name" not in data
        assert outcome.failure is not None


@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES)
def test_error_in_an_outcome_has_all_fields_of_the_failure(failure: Failure) -> None:
    data = rename_failed(valid(), context(), failure).cloud_event["data"]

    assert data["error"] == {
        "code": failure.code,
        "message": failure.message,
        "kind": failure.kind.value,
        "http_status": failure.http_status,
        "retryable": failure.retryable,
        "violations": [{"path": path, "message": message} for path, message in failure.violations],
    }
    assert data["huawei_request_id"] == failure.huawei_request_id
    assert failure.code.startswith(("Rename.", "EndPoint.", "APIGW."))
    assert bool(data["error"]["violations"]) == (failure.kind is Kind.INVALID)


def test_success_has_the_name_that_the_api_reported() -> None:
    outcome = settled(rename_event(id="8f0c"), CountingServices(name="billing"), read_previous_name=True)

    assert outcome.cloud_event["subject"] == SERVICE
    assert outcome.cloud_event["data"] == {
        "request": rename_event(id="8f0c"),
        "project_id": PROJECT,
        "region": "cn-north-4",
        "vpc_endpoint_service_id": SERVICE,
        "endpoint_service_name": "orders",
        "attempts": 1,
        "trigger": "sqs",
        "huawei_request_id": HUAWEI_REQUEST_ID,
        "service_name": "orders",
        "previous_service_name": "billing",
    }


def test_outcome_has_the_traceparent_of_its_event() -> None:
    traced = settled(rename_event(traceparent=TRACEPARENT))

    assert traced.cloud_event["traceparent"] == TRACEPARENT
    assert "traceparent" not in EMITTED["success"]().cloud_event


@pytest.mark.parametrize("service_id", ["a\u0000b", "a\nb", "\u007f", "\u0085", "orders\u2028\u0001"])
def test_subject_of_an_outcome_has_no_control_characters(service_id: str) -> None:
    """CloudEvents 1.0.2, 3.1: no String has any; the service's id of an invalid event may."""
    outcome = settled(rename_data(vpc_endpoint_service_id=service_id))

    assert not re.search(r"[\x00-\x1f\x7f-\x9f]", outcome.cloud_event.get("subject", ""))
    assert outcome.cloud_event["data"]["request"]["data"]["vpc_endpoint_service_id"] == service_id


class _HugeNameServices(CountingServices):
    """Report the right name within a full service name of the size of the largest reply."""

    def rename(self, target: Target, name: str, deadline: Deadline) -> Reply:
        reply = super().rename(target, name, deadline)
        return reply._replace(name=f"cn-north-4.{name}.{'a' * MAX_REPLY_BYTES}")


@pytest.mark.parametrize(
    "services", [_HugeNameServices(), CountingServices(name="a" * MAX_REPLY_BYTES)], ids=["new", "old"]
)
def test_outcome_with_a_huge_reported_name_fits_into_an_entry_of_the_bus(services: CountingServices) -> None:
    outcome = settled(rename_event(), services, read_previous_name=True)

    assert len(outcome.to_json().encode()) < MAX_ENTRY_BYTES


# ---- The schema of outcomes refuses what is no outcome

SUCCESS: Final = "success with the previous name"
FAILURE: Final = "unknown service"


def _fields(content: dict[str, Any], place: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, value in content.items():
        yield (*place, name)
        if isinstance(value, dict) and name != "request":
            yield from _fields(value, (*place, name))


def _changed(outcome: Outcome, place: tuple[str, ...], *value: object) -> dict[str, Any]:
    """The outcome with another value in one place, or with none."""
    content = copy.deepcopy(outcome.cloud_event)
    holder: Any = content
    for name in place[:-1]:
        holder = holder[name]
    if value:
        holder[place[-1]] = value[0]
    else:
        del holder[place[-1]]
    return content


OPTIONAL: Final = {(SUCCESS, "data.previous_service_name"), (FAILURE, "subject")}
EACH_FIELD: Final = pytest.mark.parametrize(
    ("emitted", "place"),
    [
        pytest.param(emitted, place, id=f"{emitted}: {'.'.join(place)}")
        for emitted in (SUCCESS, FAILURE)
        for place in _fields(EMITTED[emitted]().cloud_event)
    ],
)


@EACH_FIELD
def test_schema_of_outcomes_refuses_a_missing_field(emitted: str, place: tuple[str, ...]) -> None:
    is_optional = (emitted, ".".join(place)) in OPTIONAL
    assert (broken(OUTCOME, _changed(EMITTED[emitted](), place)) == []) == is_optional


@EACH_FIELD
def test_schema_of_outcomes_refuses_a_field_of_another_type(emitted: str, place: tuple[str, ...]) -> None:
    assert broken(OUTCOME, _changed(EMITTED[emitted](), place, [1.5]))


@pytest.mark.parametrize(
    ("emitted", "place", "value"),
    [
        (SUCCESS, ("specversion",), "0.3"),
        (SUCCESS, ("id",), "1"),
        (SUCCESS, ("source",), "/cmdb"),
        (SUCCESS, ("type",), "vpcep.endpoint_service.rename_failed.v1"),
        (FAILURE, ("type",), "vpcep.endpoint_service.renamed.v1"),
        (FAILURE, ("type",), "vpcep.endpoint_service.renamed.v2"),
        (SUCCESS, ("time",), "2026-11-02"),
        (SUCCESS, ("time",), "2026-11-02T08:15:00+01:00"),
        (SUCCESS, ("subject",), ""),
        (SUCCESS, ("extra",), "x"),
        (SUCCESS, ("data", "extra"), "x"),
        (FAILURE, ("data", "extra"), "x"),
        (FAILURE, ("data", "service_name"), "orders"),
        (SUCCESS, ("data", "error"), FAILURES["timeout"].code),
        (SUCCESS, ("data", "request"), "orders"),
        (SUCCESS, ("data", "project_id"), None),
        (SUCCESS, ("data", "attempts"), -1),
        (SUCCESS, ("data", "trigger"), "cron"),
        (FAILURE, ("data", "superseded_by"), {"source": "/cmdb"}),
        (FAILURE, ("data", "error", "extra"), "x"),
        (FAILURE, ("data", "error", "code"), ""),
        (FAILURE, ("data", "error", "kind"), "unknown"),
        (FAILURE, ("data", "error", "http_status"), 42),
        (FAILURE, ("data", "error", "violations"), [{"path": "/id"}]),
        (FAILURE, ("data", "error", "violations"), ["/id"]),
    ],
)
def test_schema_of_outcomes_refuses_a_wrong_value(emitted: str, place: tuple[str, ...], value: object) -> None:
    assert broken(OUTCOME, _changed(EMITTED[emitted](), place, value))

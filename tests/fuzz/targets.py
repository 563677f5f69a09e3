"""The inputs of the fuzzer, and the checks of the handler's responses.

An input is a raw Lambda event of either trigger, whose body is anything from a valid rename event to noise, with faults
of Huawei Cloud and the bus. A response is right when the contract's documents describe it.
"""

from __future__ import annotations

import base64
import json
import os
import string
from collections.abc import Callable
from functools import cache, partial
from importlib import import_module
from types import ModuleType, SimpleNamespace
from typing import Any, Final, cast
from unittest.mock import patch

import pytest
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from function.adapters.aws.dynamodb_ledger import DynamoDbLedger
from function.domain.failures import Failure, Kind
from function.triggers.dead_letters import DeadLetterTrigger
from function.triggers.http import HttpTrigger
from function.triggers.sqs import SqsTrigger
from function.workers import Workers
from tests.contract.documents import OPENAPI, validator
from tests.fakes.dynamodb import FakeDynamoDb
from tests.fakes.environment import ENVIRONMENT
from tests.fakes.events import cloud_event, http_request, sqs_record
from tests.fakes.failures import not_found, refusal, throttled, unavailable, wrong_key
from tests.fakes.identifiers import SERVICE
from tests.fakes.lambda_context import FakeContext
from tests.fakes.world import World

MAX_RECEIVES: Final = 3

# ---- Bodies

noise = st.text(st.characters(exclude_categories=()), max_size=60)
scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), noise)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(noise, inner, max_size=4))
names = st.text(string.ascii_letters + string.digits + "_-.", max_size=20)
data = st.fixed_dictionaries(
    {
        "vpc_endpoint_service_id": st.one_of(st.just(SERVICE), names, values),
        "endpoint_service_name": st.one_of(st.just("orders"), names, values),
    },
    optional={"expected_name": names | values, "project_id": names | values, "region": names | values, "x": values},
)
times = st.one_of(st.just("2026-11-24T02:59:00Z"), st.datetimes().map(lambda time: f"{time.isoformat()}Z"), noise)
events = st.builds(
    lambda event, changes: {name: value for name, value in (event | changes).items() if value is not ...},
    st.builds(lambda id_, content: cloud_event(id=id_) | {"data": content}, names, data | values),
    st.dictionaries(
        st.sampled_from(
            [
                *("specversion", "id", "source", "type", "time", "data", "data_base64", "datacontenttype"),
                *("traceparent", "x"),
            ]
        ),
        st.one_of(values, times, st.just(...)),
        max_size=3,
    ),
)


def _text(content: object) -> str:
    return json.dumps(content, ensure_ascii=False)


@st.composite
def _mangled(draw: st.DrawFn) -> str:
    """A text of which a part is lost, doubled or replaced."""
    text = draw(events.map(_text))
    begin = draw(st.integers(0, len(text)))
    end = draw(st.integers(begin, len(text)))
    return text[:begin] + draw(noise | st.just(text[begin:end] * 2) | st.just("")) + text[end:]


valid = st.builds(
    lambda id_, service, name: cloud_event(id=id_, vpc_endpoint_service_id=service, endpoint_service_name=name),
    st.sampled_from(["1", "2", "名"]),
    st.sampled_from([SERVICE, "another"]),
    st.sampled_from(["orders", "billing", ""]),
)
timeless = valid.map(lambda event: {name: value for name, value in event.items() if name != "time"})


def _in_base64(event: dict[str, Any]) -> dict[str, Any]:
    data_base64 = base64.b64encode(_text(event["data"]).encode()).decode()
    return {name: value for name, value in event.items() if name != "data"} | {"data_base64": data_base64}


spellings = st.sampled_from(["ce_id", "ce-id", "CE_ID", "cloudEvents:id", "cloudEvents_source", "ce_time", "ce_", "x"])
notifications = st.fixed_dictionaries(
    {"Type": st.just("Notification"), "Message": st.one_of(st.builds(_text, valid), st.builds(_text, data), noise)},
    optional={
        "MessageId": names | values,
        "TopicArn": names | values,
        "Timestamp": times | values,
        "MessageAttributes": st.dictionaries(
            spellings,
            st.fixed_dictionaries({}, optional={"Type": st.sampled_from(["String", "Binary"]), "Value": values})
            | values,
            max_size=4,
        )
        | values,
    },
)
bus_events = st.fixed_dictionaries(
    {"detail-type": noise, "detail": valid | timeless | data | values},
    optional={"id": names | values, "source": names | values, "time": times | values},
)
bodies = st.one_of(
    st.builds(_text, valid),
    st.builds(_text, timeless),
    st.builds(_text, valid.map(_in_base64)),
    st.builds(_text, valid).map("\ufeff".__add__),
    st.builds(_text, notifications),
    st.builds(_text, bus_events),
    st.builds(lambda outer, inner: _text(outer | {"Message": _text(inner)}), notifications, bus_events),
    st.builds(_text, valid),
    st.builds(_text, events),
    st.builds(_text, data),
    st.builds(_text, values),
    _mangled(),
    noise,
    st.integers(1, 40_000).map(lambda depth: "[" * depth),
    st.integers(250_000, 270_000).map(lambda size: _text(cloud_event() | {"x": "x" * size})),
)

# ---- Raw Lambda events

attributes = st.dictionaries(
    spellings | st.sampled_from(["ce_source", "ce_type", "ce_traceparent", "other"]) | noise,
    st.one_of(
        st.tuples(st.sampled_from(["String", "Number", "String.x"]), noise),
        st.tuples(
            st.sampled_from(["Binary", "Binary.png"]), st.binary().map(lambda raw: base64.b64encode(raw).decode())
        ),
    ),
    max_size=4,
)
DRY_RUN: Final = {"dry_run": ["true"]}
queries = st.sampled_from(
    [None, None, DRY_RUN, {"dry_run": ["false"]}, {"dry_run": ["1"]}, {"dry_run": ["true", "true"]}, {"x": ["true"]}]
)
headers = st.dictionaries(
    st.sampled_from(["Content-Type", "content-type", "ce-id", "CE-Time", "ce-source", "Prefer", "Idempotency-Key"])
    | names,
    st.one_of(
        st.sampled_from(["application/json", "application/cloudevents+json; charset=utf-8", "text/plain"]),
        st.sampled_from(["respond-async", "wait=5, respond-async;x"]),
        st.sampled_from(['"/cmdb"', '"a\\"b', '"', "%C0", "%E5%90%8D", "%", "%zz", '"%FF"', "é"]),
        noise,
        st.lists(noise, min_size=1, max_size=3),
    ),
    max_size=5,
)


callers = st.sampled_from(["arn:aws:iam::1:user/a", "arn:aws:sts::1:assumed-role/a/b", "arn:aws:iam::1:root"]) | noise


@st.composite
def sqs_events(draw: st.DrawFn) -> dict[str, Any]:
    records = [
        sqs_record(
            draw(bodies),
            message_id=f"message-{number}",
            group=draw(st.sampled_from([None, "a", "b"])),
            receive_count=draw(st.integers(1, MAX_RECEIVES + 1)),
            attributes=draw(attributes),
        )
        for number in range(draw(st.integers(0, 4)))
    ]
    for record in records:
        if draw(st.integers(0, 19)) == 0:  # unlike those of SQS
            part = draw(st.sampled_from([record, record["attributes"]]))
            part[draw(st.sampled_from(sorted(set(part) - {"messageId", "attributes", "eventSource"})))] = draw(noise)
    return {"Records": records}


@st.composite
def http_events(draw: st.DrawFn) -> dict[str, Any]:
    body = draw(bodies | st.none())
    in_base64 = draw(st.booleans())
    if in_base64 and body is not None and draw(st.booleans()):
        body = base64.b64encode(body.encode("utf-8", "surrogatepass")).decode()
    request = http_request(
        body,
        headers=draw(headers | st.none()),
        method=draw(st.sampled_from(["POST", "POST", "POST", "GET"])),
        path=draw(st.sampled_from(["/rename-events", "/rename-events", "/other"])),
        base64=in_base64,
    )
    request["requestContext"]["identity"] = draw(st.none() | st.fixed_dictionaries({"userArn": st.none() | callers}))
    request["requestContext"]["requestTimeEpoch"] = draw(st.integers(0, 4_000_000_000_000))
    request["multiValueQueryStringParameters"] = draw(queries)
    return request


unknown_events = st.one_of(
    values, st.dictionaries(st.sampled_from(["Records", "httpMethod", "requestContext", "redrive"]), values)
)

# ---- Faults

FAILURES: Final[tuple[Failure | None, ...]] = (None, None, unavailable(), throttled(60.0), wrong_key(), not_found())
faults = st.fixed_dictionaries(
    {
        "rename": st.sampled_from([*FAILURES, refusal("EndPoint.3045", 400), refusal("EndPoint.0011", 500)]),
        "read": st.sampled_from(FAILURES),
        "bus": st.sampled_from([False, False, False, True]),
        "queue": st.booleans(),
    }
)


@cache
def app() -> ModuleType:
    """The module of the handler, which reads the environment when it is imported."""
    with patch.dict(os.environ, ENVIRONMENT):
        return import_module("function.app")


class FaultyWorld(World):
    """The function with its ledger on a table in memory, and faults."""

    def __init__(self, faults: dict[str, Any]) -> None:
        super().__init__()
        self.dynamodb = FakeDynamoDb(self._timestamp)
        client, sleep = self.dynamodb.client(), self.clock.sleep
        self.ledger = cast("Any", DynamoDbLedger(client, "ledger", now=self._timestamp, sleep=sleep))
        self._queue = self.queue if faults["queue"] else None
        for operation in ("rename", "read"):
            if faults[operation]:
                self.services.refuse(faults[operation], on=operation, times=None)
        if faults["bus"]:
            self.bus.refuse()

    def handle(self, event: Any, *, dead_letters: bool = False) -> Any:
        """The handler's response; it may raise nothing but UnknownTriggerError."""
        common, queue = self.of_every_trigger(), self._queue
        function = app().Function.__new__(app().Function)
        trigger = SqsTrigger(*common, queue=queue, workers=Workers(4), max_receives=MAX_RECEIVES, uniform=self.jitter)
        components = SimpleNamespace(
            telemetry=self.telemetry,
            rename_queue=None,
            dead_letter_queue=None,
            sqs=DeadLetterTrigger(*common, queue=self.queue, workers=Workers(1)) if dead_letters else trigger,
            http=HttpTrigger(*common, queue=queue, workers=Workers(1)),
        )
        vars(function).update(_components=components, _find_recorded_outage=None)
        return function.handle(event, cast("Any", FakeContext(60.0)))

    def written(self) -> list[list[Any]]:
        """All renames, writes to the ledger's table, outcomes on the bus and messages sent to the queue."""
        writes = [call for call in self.dynamodb.calls if call.operation != "GetItem"]
        return [self.services.calls_of("rename"), writes, list(self.bus.outcomes), list(self.queue.sent)]

    def _timestamp(self) -> float:
        return self.clock.now().timestamp()


# ---- Checks


@cache
def schema(name: str) -> Draft202012Validator:
    """Of the OpenAPI document."""
    return validator("openapi.yaml", {"$ref": f"#/components/schemas/{name}"})


def check_http(answer: Any, event: Any, world: World) -> None:
    """A proxy response whose status, content type and body are described together."""
    status = str(int(answer["statusCode"]))
    media_type = answer["multiValueHeaders"]["Content-Type"][0]
    if (event["httpMethod"], event["resource"]) != ("POST", "/rename-events"):
        assert (status, media_type) == ("404", "application/problem+json")
        return  # the API itself never sends such a request
    assert world.telemetry.defects == []
    assert [dry_run.cause for dry_run in world.telemetry.dry_runs if dry_run.cause] == []
    replies = OPENAPI["paths"]["/rename-events"]["post"]["responses"]
    name = replies[status]["content"][media_type]["schema"]["$ref"].rpartition("/")[2]
    schema(name).validate(json.loads(answer["body"]))


def check_batch(answer: Any, event: Any, world: World) -> None:
    """A partial batch response that names messages of the batch, each once; no defect of the function."""
    named = [failure["itemIdentifier"] for failure in answer.pop("batchItemFailures")]
    came = [record["messageId"] for record in event["Records"]]
    assert answer == {}
    assert len(set(named)) == len(named)
    assert set(named) <= set(came)
    if not any(map(_is_malformed, event["Records"])):
        assert world.telemetry.defects == []


def _is_malformed(record: dict[str, Any]) -> bool:
    whole = sqs_record(message_id=record["messageId"])
    system = record["attributes"]
    return not (
        system["SentTimestamp"].isdigit()
        and system["ApproximateReceiveCount"].isdigit()
        and isinstance(record["messageAttributes"], dict)
        and whole.keys() == record.keys()
    )


def check_outcomes(world: World) -> None:
    """Each outcome on the bus conforms to the contract, and one id has one content."""
    by_id: dict[str, Any] = {}
    for outcome in world.bus.outcomes:
        assert outcome.failure is None or outcome.failure.kind in Kind
        schema("Renamed" if outcome.failure is None else "RenameFailed").validate(outcome.cloud_event)
        assert by_id.setdefault(outcome.id, outcome.cloud_event) == outcome.cloud_event


def fuzz_sqs(event: Any, world: FaultyWorld, *, dead_letters: bool = False) -> None:
    check_batch(world.handle(event, dead_letters=dead_letters), event, world)
    check_outcomes(world)


def fuzz_http(event: Any, world: FaultyWorld) -> None:
    """The request, before it and after it as a dry run; a dry run, or a query that is refused, writes nothing."""
    for query in (DRY_RUN, event["multiValueQueryStringParameters"], DRY_RUN):
        written = world.written()
        check_http(world.handle(event | {"multiValueQueryStringParameters": query}), event, world)
        assert world.written() == written or (query or {}).get("dry_run") in (None, ["false"])
    check_outcomes(world)


def fuzz_unknown(event: Any, world: FaultyWorld) -> None:
    if isinstance(event, dict) and (event.get("redrive") is True or event.get("Records") == []):
        return
    with pytest.raises(app().UnknownTriggerError):
        world.handle(event)


TARGETS: Final[dict[str, tuple[st.SearchStrategy[Any], Callable[[Any, FaultyWorld], None]]]] = {
    "sqs": (sqs_events(), fuzz_sqs),
    "http": (http_events(), fuzz_http),
    "dead letters": (sqs_events(), partial(fuzz_sqs, dead_letters=True)),
    "unknown": (unknown_events, fuzz_unknown),
}

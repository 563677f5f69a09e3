"""What the unit tests put around the function: collaborators in memory, each failing in one named way, and two servers.

Everything that knows how the rooms of `function/` are wired together is `World` here, so that a changed constructor is
changed in one place.
"""

from __future__ import annotations

import json
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from email.message import Message
from functools import cache
from types import SimpleNamespace, TracebackType
from typing import Any, NamedTuple, Self, cast

import botocore.session
import pytest
from botocore.exceptions import ClientError, HTTPClientError
from botocore.model import ServiceModel, Shape
from botocore.validate import ParamValidator

from function.adapters.aws.client import Aws, DynamoDbClient, Key, SqsClient
from function.adapters.aws.dynamodb_ledger import CLAIM_SLACK_SECONDS
from function.adapters.huawei.error_codes import from_reply, metric_code
from function.domain import failures
from function.domain.deadline import REPORT_SECONDS, Deadline
from function.domain.dry_run import DryRun
from function.domain.event_parser import Attributes, EventParser
from function.domain.failures import Failure, RenameFailedError
from function.domain.model import FIRST_CYCLE, InvalidEvent, Outcome, RenameEvent, Target
from function.domain.policy import Policy
from function.domain.ports import Claim, Conclusion, Known, Located, ReadPurpose, Reply, Reused, Superseded
from function.domain.rename_service import RenameService, Unsettled
from function.telemetry import Telemetry
from function.triggers.dead_letters import DeadLetterQueue, DeadLetterTrigger
from function.triggers.http import HttpTrigger
from function.triggers.sqs import SqsTrigger
from function.workers import Workers
from tests.faults.dynamodb import Table
from tests.localcloud.server import JsonServer
from tests.localcloud.server import Reply as JsonReply
from tests.unit.builders import Intake

REGION = "cn-north-4"
PROJECT = "0123456789abcdef0123456789abcdef"
OTHER_PROJECT = "fedcba9876543210fedcba9876543210"
SERVICE = "070c4a63-8a62-448e-89ed-f2cbde8e6a3b"
OTHER_SERVICE = "5b1c4a63-8a62-448e-89ed-f2cbde8e6a3b"
QUEUE_ARN = "arn:aws:sqs:eu-west-1:123456789012:renames.fifo"
BUS = "rename-outcomes"
API_ID = "70ixmpl4fl"
START = datetime(2026, 11, 24, 3, 0, tzinfo=UTC)

ENVIRONMENT = {
    "HUAWEICLOUD_REGION": REGION,
    "HUAWEICLOUD_SDK_AK": "UNITACCESSKEY",
    "HUAWEICLOUD_SDK_SK": "unit-secret-key",
    "HUAWEICLOUD_SDK_PROJECT_ID": PROJECT,
    "OUTCOME_BUS": BUS,
    "POWERTOOLS_SERVICE_NAME": "vpcep-rename",
    "POWERTOOLS_METRICS_NAMESPACE": "VpcepRename",
    "AWS_ACCESS_KEY_ID": "UNITAWSACCESSKEY",
    "AWS_SECRET_ACCESS_KEY": "unit-aws-secret-key",
    "AWS_DEFAULT_REGION": "eu-west-1",
    "AWS_REGION": "eu-west-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    # A test that forgets to say where AWS is must reach nobody.
    "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
    "AWS_CONFIG_FILE": "/nonexistent",
    "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
}


# ---- Time


class MovedClock:
    """The present time, moved by a test."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


class FakeClock:
    """Goes on only when somebody sleeps or a call takes its time."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.sleeps: list[float] = []

    def now(self) -> datetime:
        return START + timedelta(seconds=self.seconds)

    def monotonic(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.seconds += seconds

    def epoch(self) -> float:
        return START.timestamp() + self.seconds

    def until(self, seconds: float) -> Deadline:
        """So many seconds from now on, and a few more to report in."""
        at = self.epoch() + seconds
        return Deadline(at, at + 4.0, self.epoch)


@dataclass
class Jitter:
    """Stands in for `random.uniform`: picks the same share of each range, and remembers the ranges."""

    share: float = 1.0
    ranges: list[tuple[float, float]] = field(default_factory=list)

    def __call__(self, low: float, high: float) -> float:
        self.ranges.append((low, high))
        return low + (high - low) * self.share


# ---- Huawei Cloud


class ServiceCall(NamedTuple):
    operation: str
    target: Target
    name: str | None
    seconds: float


class _Answer(NamedTuple):
    failure: Failure | None = None
    reply: Reply | None = None
    crash: Exception | None = None
    applied: bool = False
    takes: float = 0.0


class FakeEndpointServices:
    """Endpoint services that do as they are asked, unless the next answers have been commanded to be others."""

    def __init__(self, clock: FakeClock, project_id: str = PROJECT) -> None:
        self.names = {SERVICE: "billing", OTHER_SERVICE: "reports"}
        self.calls: list[ServiceCall] = []
        self.answers: list[Failure | None] = []
        self.purposes: list[ReadPurpose] = []
        self.during: Callable[[Target], None] = lambda _: None
        self._clock = clock
        self._project_id = project_id
        self._no_project: Failure | None = None
        self._next: dict[str, deque[_Answer]] = {"rename": deque(), "read": deque()}
        self._always: dict[str, _Answer] = {}
        self._lock = threading.Lock()

    # -- what the decision calls

    def default_project(self, deadline: Deadline) -> str:
        if self._no_project:
            raise RenameFailedError(self._no_project)
        return self._project_id

    def rename(self, target: Target, name: str, deadline: Deadline) -> Reply:
        return self._call("rename", target, name, deadline.remaining())

    def read(self, target: Target, deadline: Deadline, purpose: ReadPurpose = ReadPurpose.DECISION) -> Reply:
        self.purposes.append(purpose)
        return self._call("read", target, None, deadline.remaining())

    # -- what a test commands

    def refuse(self, failure: Failure, *, on: str = "rename", times: int | None = 1, takes: float = 0.0) -> None:
        """Answer with this failure and do nothing; `times=None` for ever."""
        self._command(on, times, _Answer(failure=failure, takes=takes))

    def lose_reply(
        self, *, applied: bool, failure: Failure | None = None, times: int | None = 1, takes: float = 0.0
    ) -> None:
        """The rename happens, or does not, and no reply tells."""
        doubt = failure or failures.timeout(in_doubt=True)
        self._command("rename", times, _Answer(failure=doubt, applied=applied, takes=takes))

    def report(self, name: str | None, *, on: str = "rename", applied: bool = True, times: int | None = 1) -> None:
        """A reply without an error that names the service so, whatever it is called."""
        self._command(on, times, _Answer(reply=Reply(name, 200, "reported"), applied=applied))

    def crash(self, error: Exception, *, on: str = "rename", times: int | None = 1) -> None:
        """Something nobody expected."""
        self._command(on, times, _Answer(crash=error))

    def recover(self) -> None:
        """From now on do again as asked."""
        self._next = {"rename": deque(), "read": deque()}
        self._always.clear()

    def lose_credentials(self, failure: Failure | None) -> None:
        self._no_project = failure

    # -- what a test looks at

    def calls_of(self, operation: str) -> list[ServiceCall]:
        return [call for call in self.calls if call.operation == operation]

    def _command(self, operation: str, times: int | None, answer: _Answer) -> None:
        if times is None:
            self._always[operation] = answer
        else:
            self._next[operation].extend([answer] * times)

    def _call(self, operation: str, target: Target, name: str | None, seconds: float) -> Reply:
        with self._lock:
            self.calls.append(ServiceCall(operation, target, name, seconds))
            number = len(self.calls)
            commanded = self._next[operation]
            answer = commanded.popleft() if commanded else self._always.get(operation)
            self.answers.append(answer.failure if answer else None)
        self.during(target)
        if answer:
            self._clock.seconds += min(answer.takes, seconds)
            if answer.applied and name is not None:
                self.names[target.vpc_endpoint_service_id] = name
            if answer.crash:
                raise answer.crash
            if answer.failure:
                raise RenameFailedError(answer.failure)
            if answer.reply:
                return answer.reply
        if target.vpc_endpoint_service_id not in self.names:
            raise RenameFailedError(not_found())
        if name is not None:
            self.names[target.vpc_endpoint_service_id] = name
            return Reply(name, 200, f"request-{number}")
        return Reply(full_name(target.vpc_endpoint_service_id, self.names), 200, f"request-{number}")


def full_name(service_id: str, names: Mapping[str, str]) -> str:
    """`region.name.id`, the id not being that of the path; `region.id` where the name is empty."""
    return ".".join(filter(None, [REGION, names[service_id], f"other-{service_id}"]))


def refusal(code: str, status: int, *, retry_after: float | None = None, message: str = "") -> Failure:
    """An error reply of Huawei Cloud."""
    return from_reply(code, message, status=status, huawei_request_id="refused", retry_after=retry_after)


def not_found() -> Failure:
    return refusal("EndPoint.2003", 400)


def unavailable() -> Failure:
    return refusal("EndPoint.0001", 500)


def wrong_key() -> Failure:
    return refusal("APIGW.0301", 401)


def throttled(retry_after: float | None = None) -> Failure:
    return refusal("APIGW.0308", 429, retry_after=retry_after)


# ---- Bus, ledger, queue, telemetry


def failed(call: Callable[..., object], *arguments: Any) -> Failure:
    """The failure that a call ends in. Any other exception is what the function must never let through."""
    with pytest.raises(RenameFailedError) as caught:
        call(*arguments)
    return caught.value.failure


class FakeBus:
    """Keeps the outcomes it takes, in order."""

    def __init__(self, journal: list[str]) -> None:
        self.outcomes: list[Outcome] = []
        self.crash: Exception | None = None
        self._refusals = 0
        self._journal = journal
        self._lock = threading.Lock()

    def refuse(self, times: int = 10_000) -> None:
        self._refusals = times

    def publish(self, outcome: Outcome, deadline: Deadline) -> None:
        with self._lock:
            if self.crash:
                raise self.crash
            if self._refusals:
                self._refusals -= 1
                raise RenameFailedError(failures.not_published("InternalFailure"))
            self.outcomes.append(outcome)
            self._journal.append(f"published {outcome.type}")


class FakeLedger:
    """Remembers outcomes in memory; each step can be made to fail, and each answer to be another.

    Attributes:
        outcomes: remembered, in order; by a rename (`settle`) or without one (`conclude`).
        held: the services that are claimed now.
        at_claim: what the next claims are answered with.
        at_remember: what is known already when the next outcome is to be remembered.
    """

    def __init__(self, journal: list[str]) -> None:
        self.outcomes: list[Outcome] = []
        self.held: dict[Target, Claim] = {}
        self.at_claim: deque[Claim | Known | Reused | Superseded] = deque()
        self.at_remember: deque[Known | Located] = deque()
        self._failures: dict[str, Failure | Exception] = {}
        self._journal = journal
        self._lock = threading.Lock()

    def fail(self, step: str, failure: Failure | Exception) -> None:
        """From now on `claim`, `settle` or `conclude` fails."""
        self._failures[step] = failure

    def claim(self, event: RenameEvent, target: Target, deadline: Deadline) -> Claim | Known | Reused | Superseded:
        with self._lock:
            self._go("claim")
            if self.at_claim:
                return self.at_claim.popleft()
            if target in self.held:
                raise RenameFailedError(failures.in_progress())
            expires_at = deadline.invocation_ends_at + CLAIM_SLACK_SECONDS
            self.held[target] = Claim(f"of {event.id}", FIRST_CYCLE, event, target, expires_at)
            self._journal.append("claimed")
            return self.held[target]

    def preview(
        self, event: RenameEvent, target: Target, deadline: Deadline, *, if_claimed: bool = False
    ) -> Claim | Known | Reused | Superseded | None:
        with self._lock:
            self._go("preview")
            if self.at_claim:
                return self.at_claim.popleft()
            if target in self.held:
                raise RenameFailedError(failures.in_progress(61.0))
            return None if if_claimed else Claim("", FIRST_CYCLE, event, target)

    def settle(self, claim: Claim, outcome: Outcome, deadline: Deadline, *, release: bool) -> Known | None:
        with self._lock:
            self._go("settle")
            known = self._remember(outcome)
            assert not isinstance(known, Located)
            if known is None and release:
                del self.held[claim.target]
            return known

    def conclude(self, conclusion: Conclusion, deadline: Deadline) -> Known | Located | None:
        with self._lock:
            self._go("conclude")
            return self._remember(conclusion.outcome)

    def release(self, claim: Claim, deadline: Deadline) -> None:
        with self._lock:
            self._journal.append("released")
            del self.held[claim.target]

    def _go(self, step: str) -> None:
        failure = self._failures.get(step)
        if isinstance(failure, Failure):
            raise RenameFailedError(failure)
        if failure:
            raise failure

    def _remember(self, outcome: Outcome) -> Known | Located | None:
        if self.at_remember:
            return self.at_remember.popleft()
        self.outcomes.append(outcome)
        self._journal.append(f"remembered {outcome.type}")
        return None


class Forwarded(NamedTuple):
    body: str
    group: str
    attributes: dict[str, Any]
    message_id: str


class FakeQueue:
    """The rename queue or the dead-letter queue, as the triggers see it."""

    def __init__(self) -> None:
        self.sent: list[tuple[RenameEvent, str]] = []
        self.forwarded: list[Forwarded] = []
        self.put_offs: list[tuple[list[str], int]] = []
        self.refuses = False

    def send(self, event: RenameEvent, deduplication_id: str, deadline: Deadline) -> bool:
        if self.refuses:
            return False
        self.sent.append((event, deduplication_id))
        return True

    def forward(
        self, body: str, group: str, attributes: Mapping[str, Any], message_id: str, deadline: Deadline
    ) -> bool:
        if self.refuses:
            return False
        self.forwarded.append(Forwarded(body, group, dict(attributes), message_id))
        return True

    def extend_visibility(self, delays: Mapping[str, int], deadline: Deadline) -> None:
        for seconds in dict.fromkeys(delays.values()):
            self.put_offs.append(([handle for handle, delay in delays.items() if delay == seconds], seconds))


class Handled(NamedTuple):
    event: RenameEvent | InvalidEvent
    result: Outcome | Unsettled
    trigger: str
    keys: dict[str, Any]


class FakeTelemetry:
    """What would be logged and counted."""

    def __init__(self) -> None:
        self.lines: list[Handled] = []
        self.defects: list[BaseException | None] = []
        self.dry_runs: list[DryRun] = []

    def handled(
        self, event: RenameEvent | InvalidEvent, result: Outcome | Unsettled, trigger: str, **keys: Any
    ) -> None:
        self.lines.append(Handled(event, result, trigger, keys))

    def dry_run(self, dry_run: DryRun, trigger: str, **keys: Any) -> None:
        self.dry_runs.append(dry_run)

    def unexpected(self, error: BaseException | None, **keys: Any) -> None:
        self.defects.append(error)

    def flush(self) -> None:
        """There is nothing to write."""


# ---- Everything together


class World:
    """The decision and the triggers, with everything around them in memory."""

    def __init__(self) -> None:
        self.journal: list[str] = []
        self.clock = FakeClock()
        self.jitter = Jitter()
        self.services = FakeEndpointServices(self.clock)
        self.allowed_projects: set[str] = set()
        self.on_unreadable: Callable[[Failure], None] = lambda _: None
        self.default_project: Callable[[Deadline], str] = self.services.default_project
        self.bus = FakeBus(self.journal)
        self.ledger = FakeLedger(self.journal)
        self.queue = FakeQueue()
        self.telemetry = FakeTelemetry()

    def policy(self) -> Policy:
        return Policy(
            region=REGION,
            name_max_length=16,
            projects=self.allowed_projects,
            regions=(),
            default_project=self.default_project,
            now=self.clock.now,
        )

    def parser(self) -> Intake:
        return Intake(self.policy())

    def rename_service(self, *, read_previous_name: bool = False) -> RenameService:
        return RenameService(
            self.services,
            self.ledger,
            self.bus,
            self.policy(),
            read_previous_name=read_previous_name,
            on_unreadable=self.on_unreadable,
            now=self.clock.now,
            sleep=self.clock.sleep,
            uniform=self.jitter,
        )

    def settle(
        self,
        event: RenameEvent | InvalidEvent | None = None,
        *,
        seconds: float = 60.0,
        trigger: str = "sqs",
        read_previous_name: bool = False,
    ) -> Outcome | Unsettled:
        rename_service = self.rename_service(read_previous_name=read_previous_name)
        return rename_service.settle(event or self.event(), self.clock.until(seconds), trigger)

    def give_up(
        self, unsettled: Unsettled, event: RenameEvent | InvalidEvent | None = None, *, seconds: float = 60.0
    ) -> Outcome | Unsettled:
        return self.rename_service().give_up(event or self.event(), unsettled, self.clock.until(seconds), "sqs")

    @staticmethod
    def real_telemetry() -> Telemetry:
        return Telemetry("VpcepRename", metric_code)

    def event(self, **data: Any) -> RenameEvent:
        """A rename event to call the one service `orders`, unless the data say otherwise."""
        event = self.parser().parse(json.dumps(cloud_event(**data)), _NO_ATTRIBUTES, self.clock.until(60.0))
        assert isinstance(event, RenameEvent), event
        return event

    def invalid_event(self, text: str = "{}") -> InvalidEvent:
        event = self.parser().parse(text, _NO_ATTRIBUTES, self.clock.until(60.0))
        assert isinstance(event, InvalidEvent), event
        return event

    def of_every_trigger(self) -> tuple[EventParser, Policy, RenameService, Telemetry]:
        return EventParser(), self.policy(), self.rename_service(), cast("Telemetry", self.telemetry)

    def sqs(
        self,
        *records: dict[str, Any],
        max_receives: int | None = None,
        parallel: int = 10,
        seconds: float = 60.0,
        report_seconds: float = REPORT_SECONDS,
        with_queue: bool = True,
    ) -> list[str]:
        """Handle a batch; the message ids that go back to the queue."""
        trigger = SqsTrigger(
            *self.of_every_trigger(),
            queue=self.queue if with_queue else None,
            workers=Workers(parallel),
            max_receives=max_receives,
            uniform=self.jitter,
        )
        return self._returned(trigger, records, seconds, report_seconds)

    def dead_letters(
        self, *records: dict[str, Any], queue: DeadLetterQueue | None = None, seconds: float = 60.0
    ) -> list[str]:
        """See off dead letters, to the queue of this world by default; the message ids that stay."""
        trigger = DeadLetterTrigger(*self.of_every_trigger(), queue=queue or self.queue, workers=Workers(1))
        return self._returned(trigger, records, seconds)

    def _returned(
        self,
        trigger: SqsTrigger | DeadLetterTrigger,
        records: Sequence[dict[str, Any]],
        seconds: float,
        report_seconds: float = REPORT_SECONDS,
    ) -> list[str]:
        deadline = replace(self.clock.until(seconds), report_seconds=report_seconds)
        response = trigger.handle({"Records": list(records)}, deadline)
        assert list(response) == ["batchItemFailures"]
        returned = [failure["itemIdentifier"] for failure in response["batchItemFailures"]]
        # Groups run side by side, and the order of the failures means nothing.
        in_order = [record["messageId"] for record in records if record["messageId"] in returned]
        assert sorted(returned) == sorted(in_order), "a record is named twice, or one that did not come"
        return in_order

    def http(self, request: dict[str, Any], *, with_queue: bool = True, seconds: float = 25.0) -> HttpReply:
        queue = self.queue if with_queue else None
        trigger = HttpTrigger(*self.of_every_trigger(), queue=queue, workers=Workers(1))
        return HttpReply.of(trigger.handle(request, self.clock.until(seconds)))


_NO_ATTRIBUTES = Attributes(id="transport-id", source="/transport", time=START.isoformat(), given={})


class FakeContext:
    """Lambda's context, as far as the function and Powertools look at it."""

    function_name = "RenameFromTest"
    function_version = "1"
    memory_limit_in_mb = 512
    invoked_function_arn = "arn:aws:lambda:eu-west-1:123456789012:function:RenameFromTest"
    aws_request_id = "4ee6b1d0-8a55-4a3c-9a0f-5f3f0c0a7d11"

    def __init__(self, seconds: float = 30.0) -> None:
        self._end = time.monotonic() + seconds

    def get_remaining_time_in_millis(self) -> int:
        return int((self._end - time.monotonic()) * 1000)


# ---- Events as the transports deliver them


def cloud_event(*, id: str = "event-1", source: str = "/cmdb", time: str | None = None, **data: Any) -> dict[str, Any]:
    return {
        "specversion": "1.0",
        "id": id,
        "source": source,
        "type": "vpcep.endpoint_service.rename_requested.v1",
        "time": time or START.isoformat().replace("+00:00", "Z"),
        "data": {"vpc_endpoint_service_id": SERVICE, "endpoint_service_name": "orders"} | data,
    }


def rename_data(**data: Any) -> dict[str, Any]:
    return {"vpc_endpoint_service_id": SERVICE, "endpoint_service_name": "orders"} | data


def sqs_record(
    body: str | dict[str, Any] | None = None,
    *,
    message_id: str = "message-1",
    group: str | None = SERVICE,
    receive_count: int = 1,
    attributes: Mapping[str, tuple[str, str]] | None = None,
) -> dict[str, Any]:
    """A record as Lambda hands it over; attributes by name as (data type, value)."""
    text = body if isinstance(body, str) else json.dumps(cloud_event() if body is None else body)
    system = {
        "ApproximateReceiveCount": str(receive_count),
        "AWSTraceHeader": "Root=1-5759e988-bd862e3fe1be46a994272793",
        "SentTimestamp": str(int(START.timestamp() * 1000)),
        "SenderId": "AROAEXAMPLE:producer",
        "ApproximateFirstReceiveTimestamp": str(int(START.timestamp() * 1000) + 5),
    }
    if group is not None:
        system |= {
            "MessageGroupId": group,
            "SequenceNumber": "18849496460467696128",
            "MessageDeduplicationId": f"of-{message_id}",
        }
    return {
        "messageId": message_id,
        "receiptHandle": f"handle-of-{message_id}",
        "body": text,
        "attributes": system,
        "messageAttributes": {
            name: {
                ("binaryValue" if data_type.startswith("Binary") else "stringValue"): value,
                "stringListValues": [],
                "binaryListValues": [],
                "dataType": data_type,
            }
            for name, (data_type, value) in (attributes or {}).items()
        },
        "md5OfBody": "7b270e59b47ff90a553787216d55d91d",
        "eventSource": "aws:sqs",
        "eventSourceARN": QUEUE_ARN,
        "awsRegion": "eu-west-1",
    }


def service_id(number: int) -> str:
    return f"service-{number}"


def http_request(
    body: str | dict[str, Any] | None = None,
    *,
    headers: Mapping[str, str | list[str]] | None = None,
    method: str = "POST",
    path: str = "/rename-events",
    base64: bool = False,
) -> dict[str, Any]:
    """A proxy event as a REST API of API Gateway sends it; of a header sent twice `headers` has the last."""
    sent = {"Content-Type": "application/json"} if headers is None else dict(headers)
    lists = {name: [value] if isinstance(value, str) else value for name, value in sent.items()}
    return {
        "resource": path,
        "path": path,
        "httpMethod": method,
        "headers": {name: values[-1] for name, values in lists.items()} or None,
        "multiValueHeaders": lists or None,
        "queryStringParameters": None,
        "multiValueQueryStringParameters": None,
        "pathParameters": None,
        "stageVariables": None,
        "requestContext": {
            "resourceId": "b2d6f1",
            "resourcePath": path,
            "httpMethod": method,
            "extendedRequestId": "JKJaXmPLvHcESHA=",
            "requestTime": "24/Nov/2026:03:00:00 +0000",
            "path": f"/v1{path}",
            "accountId": "123456789012",
            "protocol": "HTTP/1.1",
            "stage": "v1",
            "domainPrefix": API_ID,
            "requestTimeEpoch": int(START.timestamp() * 1000),
            "requestId": "c6af9ac6-7b61-11e6-9a41-93e8deadbeef",
            "identity": {"sourceIp": "127.0.0.1", "userAgent": "curl/8.5", "userArn": None, "caller": None},
            "domainName": f"{API_ID}.execute-api.eu-west-1.amazonaws.com",
            "deploymentId": "d1",
            "apiId": API_ID,
        },
        "body": json.dumps(body) if isinstance(body, dict) else body,
        "isBase64Encoded": base64,
    }


class HttpReply(NamedTuple):
    status: int
    headers: dict[str, str]
    body: Any

    @classmethod
    def of(cls, response: dict[str, Any]) -> HttpReply:
        """Read a proxy response as API Gateway would."""
        headers = {name.lower(): values[-1] for name, values in response.get("multiValueHeaders", {}).items()}
        headers |= {name.lower(): value for name, value in response.get("headers", {}).items()}
        assert not response["isBase64Encoded"]
        text = response["body"]
        return cls(response["statusCode"], headers, json.loads(text) if text else None)


# ---- AWS on the loopback interface


class AwsCall(NamedTuple):
    operation: str
    parameters: dict[str, Any]


class WithoutDeadline:
    """A client of boto3's where the function has one of its own, whose requests have deadlines."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def __getattr__(self, operation: str) -> Callable[..., Any]:
        return lambda _, **request: getattr(self._client, operation)(**request)


class _AwsAnswer(NamedTuple):
    body: dict[str, Any]
    status: int = 200
    hang_up: bool = False


class FakeAws(JsonServer):
    """As much of EventBridge, SQS and Secrets Manager as their clients need; up while the `with` block lasts."""

    content_type = "application/x-amz-json-1.1"

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[AwsCall] = []
        self.secret = ""
        self._answers: dict[str, deque[_AwsAnswer]] = {}
        self._always: dict[str, _AwsAnswer] = {}
        self._lock = threading.Lock()

    def _receive(self, path: str, headers: Message, body: bytes) -> JsonReply | None:
        answer = self._answer(headers["X-Amz-Target"].partition(".")[2], json.loads(body))
        self._stopping.wait(self.delay)
        return None if answer.hang_up else JsonReply(answer.status, answer.body)

    def sqs(self) -> SqsClient:
        """The function's own client."""
        key = Key("local", "local", None)
        return SqsClient(Aws(region="eu-west-1", endpoints={"": self.url}, key=key, sleep=lambda seconds: None))

    @property
    def outcomes(self) -> list[dict[str, Any]]:
        """The details of all entries that came, refused ones too."""
        entries = [entry for call in self.calls_of("PutEvents") for entry in call["Entries"]]
        return [json.loads(entry["Detail"]) for entry in entries]

    def calls_of(self, operation: str) -> list[dict[str, Any]]:
        with self._lock:
            return [call.parameters for call in self.calls if call.operation == operation]

    def fail(self, operation: str, code: str, *, status: int = 400, times: int | None = 1) -> None:
        """The whole call is refused."""
        self._command(operation, times, _AwsAnswer({"__type": code, "message": "No."}, status))

    def refuse_entry(self, code: str, *, times: int | None = 1) -> None:
        """PutEvents answers 200, and did not take the entry."""
        body = {"FailedEntryCount": 1, "Entries": [{"ErrorCode": code, "ErrorMessage": "No."}]}
        self._command("PutEvents", times, _AwsAnswer(body))

    def hang_up(self, operation: str, *, times: int | None = 1) -> None:
        """The connection ends without an answer."""
        self._command(operation, times, _AwsAnswer({}, hang_up=True))

    def answer(self, operation: str, body: dict[str, Any], *, times: int | None = 1) -> None:
        """Any answer at all, as if all were well."""
        self._command(operation, times, _AwsAnswer(body))

    def recover(self) -> None:
        with self._lock:
            self._answers.clear()
            self._always.clear()

    def _command(self, operation: str, times: int | None, answer: _AwsAnswer) -> None:
        with self._lock:
            if times is None:
                self._always[operation] = answer
            else:
                self._answers.setdefault(operation, deque()).extend([answer] * times)

    def _answer(self, operation: str, parameters: dict[str, Any]) -> _AwsAnswer:
        with self._lock:
            self.calls.append(AwsCall(operation, parameters))
            commanded = self._answers.get(operation)
            if commanded:
                return commanded.popleft()
            if operation in self._always:
                return self._always[operation]
        match operation:
            case "PutEvents":
                entries = [{"EventId": f"event-{number}"} for number, _ in enumerate(parameters["Entries"])]
                return _AwsAnswer({"FailedEntryCount": 0, "Entries": entries})
            case "SendMessage":
                return _AwsAnswer({"MessageId": "1", "MD5OfMessageBody": "0", "SequenceNumber": "1"})
            case "GetSecretValue":
                return _AwsAnswer({"Name": parameters["SecretId"], "SecretString": self.secret})
            case _:
                return _AwsAnswer({"__type": "UnknownOperationException"}, 400)


class _DynamoDbFault(NamedTuple):
    body: dict[str, Any]
    status: int = 400
    break_off: HTTPClientError | None = None
    applied: bool = False


class FakeDynamoDb:
    """A table behind the function's own client; no byte leaves the process.

    It takes no request that boto3 would not send, and knows a transaction by its request token, as DynamoDB does: once
    done, the same request again changes nothing.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        """
        Args:
            now: seconds since the epoch, for the time to live.
        """
        self.calls: list[AwsCall] = []
        self.table = Table(lambda expiration: expiration < now())
        self._faults: deque[_DynamoDbFault] = deque()
        self._done: set[str] = set()
        self._lock = threading.Lock()

    def client(self, sleep: Callable[[float], None] = lambda seconds: None) -> DynamoDbClient:
        """The function's own."""
        aws = Aws(region="eu-west-1", endpoints={}, key=Key("local", "local", None), sleep=sleep)
        aws._http = cast("Any", SimpleNamespace(request=self._request))
        return DynamoDbClient(aws)

    def item(self, key: str) -> dict[str, Any] | None:
        return self.table.get({"id": {"S": key}})

    # -- what a test commands, each for the next calls

    def refuse(self, code: str, *, status: int = 400, times: int = 1) -> None:
        self._faults.extend([_DynamoDbFault({"__type": f"com.amazonaws#{code}", "message": "No."}, status)] * times)

    def cancel(self, *codes: str, applied: bool = False) -> None:
        """A transaction is said to be not done for these reasons, one for each of its items."""
        reasons = [{"Code": code} for code in codes]
        self._faults.append(_DynamoDbFault(_canceled(reasons), applied=applied))

    def break_off(self, error: HTTPClientError, *, applied: bool = False, times: int = 1) -> None:
        """No answer comes; the call has been done, or has not."""
        self._faults.extend([_DynamoDbFault({}, break_off=error, applied=applied)] * times)

    def recover(self) -> None:
        self._faults.clear()

    # -- what the client calls

    def _request(self, _: str, __: str, *, body: bytes, headers: Mapping[str, str], **___: Any) -> Any:
        """urllib3's."""
        status, answer = self._carry_out(headers["X-Amz-Target"], body)
        return SimpleNamespace(status=status, data=json.dumps(answer).encode(), headers={})

    def _carry_out(self, target: str, body: bytes) -> tuple[int, dict[str, Any]]:
        operation = target.partition(".")[2]
        parameters = json.loads(body)
        model = _dynamodb_model().operation_model(operation)
        report = ParamValidator().validate(parameters, cast("Shape", model.input_shape))
        assert not report.has_errors(), report.generate_report()
        with self._lock:
            self.calls.append(AwsCall(operation, parameters))
            fault = self._faults.popleft() if self._faults else None
            answer = self._answer(operation, parameters) if fault is None or fault.applied else (0, {})
            if fault:
                answer = fault.status, fault.body
        if fault and fault.break_off:
            raise fault.break_off
        return answer

    def _answer(self, operation: str, parameters: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        try:
            match operation:
                case "GetItem":
                    item = self.table.get(parameters["Key"])
                    return 200, {"Item": item} if item else {}
                case "PutItem" | "UpdateItem":
                    self.table.transact([{operation.removesuffix("Item"): parameters}])
                case "TransactWriteItems":
                    token = parameters["ClientRequestToken"]
                    if token not in self._done:
                        self.table.transact(parameters["TransactItems"])
                        self._done.add(token)
                case _:
                    return 400, {"__type": "UnknownOperationException"}
        except ClientError as error:
            if operation == "TransactWriteItems":
                return 400, _canceled(cast("dict[str, Any]", error.response)["CancellationReasons"])
            return 400, {"__type": "ConditionalCheckFailedException", "message": "The conditional request failed"}
        return 200, {}


@cache
def _dynamodb_model() -> ServiceModel:
    return botocore.session.get_session().get_service_model("dynamodb")


def _canceled(reasons: list[dict[str, Any]]) -> dict[str, Any]:
    return {"__type": "TransactionCanceledException", "Message": "No.", "CancellationReasons": reasons}


# ---- A server that speaks whatever a test makes it speak


class RawServer:
    """Hands each connection to `serve`, which writes bytes as it likes; up while the `with` block lasts."""

    def __init__(self, serve: Callable[[socket.socket], object], tls: ssl.SSLContext | None = None) -> None:
        self.connections = 0
        self._serve = serve
        self._tls = tls
        self._open: list[socket.socket] = []

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._open:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._thread.join()

    @property
    def url(self) -> str:
        scheme = "https" if self._tls else "http"
        return f"{scheme}://127.0.0.1:{self._listener.getsockname()[1]}"

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.append(connection)
            threading.Thread(target=self._run, args=(connection,), daemon=True).start()

    def _run(self, connection: socket.socket) -> None:
        # An OSError is a client that went away, which is what many tests are about.
        with suppress(OSError), connection:
            self._serve(self._tls.wrap_socket(connection, server_side=True) if self._tls else connection)


def receive_request(connection: socket.socket) -> bytes:
    """Read one whole request."""

    def more() -> bytes:
        data = connection.recv(65_536)
        if not data:
            raise ConnectionAbortedError
        return data

    received = b""
    while b"\r\n\r\n" not in received:
        received += more()
    head, _, body = received.partition(b"\r\n\r\n")
    length = next(
        (int(line.partition(b":")[2]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0
    )
    while len(body) < length:
        body += more()
    return head + b"\r\n\r\n" + body

"""An invocation ends before its timeout, whatever hangs: over real sockets, each dependency alone and all together.

What hangs takes connections and requests, and never answers; a lookup of a name that hangs never returns.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from email.message import Message
from functools import partial
from importlib import import_module
from types import ModuleType
from typing import Any, Final, NamedTuple
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from function import settings
from function.domain import failures
from function.domain.deadline import Deadline
from function.domain.failures import Kind, RenameFailedError
from function.triggers.dead_letters import DeadLetterTrigger
from function.triggers.http import HttpTrigger
from function.triggers.sqs import SqsTrigger
from tests.fakes.aws import FakeAws
from tests.fakes.clock import FakeClock
from tests.fakes.environment import ENVIRONMENT, SECRET, SECRET_VALUE, local_huawei_cloud
from tests.fakes.events import cloud_event, http_request, service_id, sqs_record
from tests.fakes.lambda_context import FakeContext
from tests.fakes.world import World
from tests.faults.dynamodb import Table, TransactionCanceledError
from tests.localcloud.huawei import HuaweiCloud
from tests.localcloud.server import Reply

pytestmark = pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning")

# As short as the function's margins allow, so that it is the deadline that ends each wait.
SECONDS: Final = 9.0
REPORT_MARGIN_SECONDS: Final = 4.0  # as app.py has it
MAX_RECEIVES: Final = 5
SERVICES: Final = 10
DEPENDENCIES: Final = ("secretsmanager", "dynamodb", "events", "sqs", "vpcep")
FUNCTIONS: Final = ("sqs", "http", "dead letters")


class Aws(FakeAws):
    """All of AWS that the function talks to; what ``hanging`` names does not answer."""

    def __init__(self) -> None:
        super().__init__()
        self.hanging: set[str] = set()
        self.table = Table(lambda _: False)

    def _receive(self, path: str, headers: Message, body: bytes) -> Reply | None:
        service = str(headers["Authorization"]).split("/")[3]
        if service in self.hanging:
            self._stopping.wait()
            return None
        if service == "dynamodb":
            with self._lock:
                return self._dynamodb(headers["X-Amz-Target"].partition(".")[2], json.loads(body))
        return super()._receive(path, headers, body)

    def _dynamodb(self, operation: str, request: dict[str, Any]) -> Reply:
        if operation == "GetItem":
            item = self.table.get(request["Key"])
            return Reply(200, {"Item": item} if item else {})
        actions = request["TransactItems"] if operation == "TransactWriteItems" else [{"Update": request}]
        try:
            self.table.transact(actions)
        except TransactionCanceledError as error:
            reasons = error.response["CancellationReasons"]
            return Reply(400, {"__type": "TransactionCanceledException", "CancellationReasons": reasons})
        return Reply(200, {})


class Case(NamedTuple):
    """What hangs, for which function, and whether the environment has handled an event before."""

    function: str
    hanging: tuple[str, ...]
    is_warm: bool

    def __str__(self) -> str:
        what = " and ".join(self.hanging) if len(self.hanging) < len(DEPENDENCIES) else "everything"
        return f"{self.function}, {'warm' if self.is_warm else 'cold'}: {what}"


CASES: Final = [
    Case(function, hanging, is_warm)
    for function in FUNCTIONS
    for hanging in (*((name,) for name in DEPENDENCIES), ("events", "sqs"), ("dynamodb", "sqs"), DEPENDENCIES)
    for is_warm in (False, True)
]


def function_of(app: ModuleType, aws: Aws, cloud: HuaweiCloud, case: Case) -> Callable[..., Any]:
    """One of the three functions, on AWS and Huawei Cloud of its own."""
    environment = {
        "VPCEP_ENDPOINT": cloud.url,
        "AWS_ENDPOINT_URL": aws.url,
        "LEDGER_TABLE": "ledger",
        "RENAME_QUEUE_URL": f"{aws.url}/123456789012/renames.fifo",
        "MAX_RECEIVES": str(MAX_RECEIVES),
        "ALLOWED_PROJECTS": "another-project",
    }
    if case.function == "dead letters":
        environment["DEAD_LETTER_QUEUE_URL"] = f"{aws.url}/123456789012/dead.fifo"
    aws.secret = SECRET_VALUE
    for number in range(SERVICES + 1):
        cloud.add_service(service_id(number), name="billing")
    function = app.Function(settings.load(ENVIRONMENT | SECRET | environment))
    return lambda *numbers, seconds=SECONDS: function.handle(event_of(case.function, numbers), FakeContext(seconds))


def event_of(function: str, numbers: Sequence[int]) -> dict[str, Any]:
    """Renames of so many services: some at their last receive, some that name their project."""
    records = []
    for number in numbers:
        service = service_id(number)
        event = cloud_event(id=f"event-{number}", time="2020-01-01T00:00:00Z", vpc_endpoint_service_id=service)
        if number % 4 == 3:
            event["data"]["project_id"] = "another-project"
        if function == "http":
            return http_request(event)
        receive_count = MAX_RECEIVES if number % 2 else 1
        records.append(sqs_record(event, message_id=f"message-{number}", group=service, receive_count=receive_count))
    return {"Records": records}


def assert_unsettled(function: str, report: dict[str, Any]) -> None:
    """What an invocation reports that could settle none of its events."""
    if function == "http":
        assert report["statusCode"] == 503
        assert int(report["multiValueHeaders"]["Retry-After"][0]) > 0
    else:
        assert len(report["batchItemFailures"]) == SERVICES


def measure(app: ModuleType, case: Case) -> tuple[float, Any]:
    """How long the invocation took, and what it reported."""
    with Aws() as aws, local_huawei_cloud() as cloud:
        handle = function_of(app, aws, cloud, case)
        if case.is_warm:
            handle(SERVICES, seconds=60.0)
        aws.hanging = set(case.hanging)
        if "vpcep" in case.hanging:
            cloud.fail(kind="hang", times=None, on="any")
        began = time.monotonic()
        report = handle(*range(SERVICES))
        return time.monotonic() - began, report


@pytest.fixture(scope="module")
def reports() -> dict[Case, tuple[float, Any]]:
    """All cases at once: they do nothing but wait."""
    with patch.dict(os.environ, ENVIRONMENT):
        app = import_module("function.app")
    with ThreadPoolExecutor(len(CASES)) as pool:
        return dict(zip(CASES, pool.map(partial(measure, app), CASES), strict=True))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_invocation_ends_before_its_timeout(
    case: Case, reports: dict[Case, tuple[float, Any]], record_property: Callable[[str, object], None]
) -> None:
    seconds, report = reports[case]

    record_property("seconds", seconds)
    assert seconds < SECONDS
    if case.function == "http":
        assert report["statusCode"] in (200, 202, 403, 503)
    else:
        assert len(report["batchItemFailures"]) <= SERVICES


@pytest.mark.parametrize("function", FUNCTIONS)
def test_invocation_whose_dependencies_all_hang_settles_no_event(
    function: str, reports: dict[Case, tuple[float, Any]]
) -> None:
    _, report = reports[Case(function, DEPENDENCIES, is_warm=False)]

    assert_unsettled(function, report)


@pytest.mark.parametrize("function", ["sqs", "http"])
def test_invocation_ends_before_its_timeout_if_names_are_not_resolved(
    app: ModuleType, function: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_go_on = threading.Event()
    looked_up: list[str] = []

    def hang(host: str, *_: object, **__: object) -> Any:
        looked_up.append(host)
        may_go_on.wait(60.0)
        raise OSError

    monkeypatch.setattr("socket.getaddrinfo", hang)
    local = {"VPCEP_ENDPOINT": "https://vpcep.example", "AWS_ENDPOINT_URL": "https://aws.example"}
    tables = {"LEDGER_TABLE": "ledger", "RENAME_QUEUE_URL": "https://aws.example/123456789012/renames.fifo"}
    wired = app.Function(settings.load(ENVIRONMENT | local | tables))

    began = time.monotonic()
    report = wired.handle(event_of(function, range(SERVICES)), FakeContext(SECONDS))
    seconds = time.monotonic() - began
    may_go_on.set()

    assert looked_up
    assert seconds < SECONDS
    assert_unsettled(function, report)


# ---- By a fake clock


class Slow:
    """A collaborator that takes its time: as much as its deadline leaves it, and then it has failed."""

    def __init__(self, collaborator: Any, clock: FakeClock, seconds: Callable[[], float]) -> None:
        self._collaborator = collaborator
        self._clock = clock
        self._seconds = seconds

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._collaborator, name)

        def slow(*arguments: Any, **named: Any) -> Any:
            [deadline] = [argument for argument in arguments if isinstance(argument, Deadline)]
            seconds, left = self._seconds(), max(0.0, deadline.remaining())
            self._clock.seconds += min(seconds, left)
            if seconds >= left:
                return self._too_late(name)
            return method(*arguments, **named)

        return slow

    def _too_late(self, name: str) -> Any:
        match name:
            case "release" | "extend_visibility":
                return None
            case "send" | "forward":
                return False
            case "publish":
                raise RenameFailedError(failures.not_published("ReadTimeoutError"))
            case "claim" | "settle" | "conclude":
                raise RenameFailedError(failures.ledger_unavailable("ReadTimeoutError"))
            case "default_project" | "allows_project":
                raise RenameFailedError(failures.credentials("ReadTimeoutError", kind=Kind.UNAVAILABLE))
            case _:
                raise RenameFailedError(failures.timeout(in_doubt=True))


class SequentialWorkers:
    """Workers that are one thread: it does all tasks itself, one after the other."""

    def run(self, tasks: Sequence[Callable[[], object]], deadline: Deadline) -> list[object]:
        return [task() for task in tasks]


DELAYS: Final = st.sampled_from([0.0, 0.0, 0.01, 0.4, 2.0, 7.0, 30.0, 1_000.0])


@hypothesis_settings(max_examples=300, deadline=None)
@given(data=st.data(), function=st.sampled_from(FUNCTIONS), seconds=st.sampled_from([1.0, 6.0, 25.0, 60.0]))
def test_invocation_ends_before_its_timeout_whatever_delays_its_dependencies_have(
    data: st.DataObject, function: str, seconds: float
) -> None:
    world = World()
    world.services.names |= {service_id(number): "billing" for number in range(SERVICES)}

    def slow(collaborator: object) -> Any:
        return Slow(collaborator, world.clock, lambda: data.draw(DELAYS))

    services, queue = slow(world.services), slow(world.queue)
    world.default_project = services.default_project
    world.services, world.ledger, world.bus = services, slow(world.ledger), slow(world.bus)
    common: Any = world.of_every_trigger()
    outer: Any = {"queue": queue, "workers": SequentialWorkers()}
    ends_at = world.clock.epoch() + seconds
    deadline = Deadline(ends_at - REPORT_MARGIN_SECONDS, ends_at, world.clock.epoch)

    if function == "http":
        HttpTrigger(*common, **outer).handle(event_of(function, [3]), deadline)
    elif function == "sqs":
        trigger = SqsTrigger(*common, **outer, max_receives=MAX_RECEIVES, uniform=world.jitter)
        trigger.handle(event_of(function, range(4)), deadline)
    else:
        DeadLetterTrigger(*common, **outer).handle(event_of(function, range(4)), deadline)

    assert world.clock.epoch() <= ends_at

"""Through a stack's HTTP API: what is sent, and what each of its replies means."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from email.message import Message
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest

from cli import stack
from cli.bulk import Bulk
from cli.display import Display
from cli.input_file import Input
from cli.model import Event, Line, Renamer, StoppedError, UsageError, rename_event
from cli.results_file import ResultsFile
from cli.runner import Pace
from cli.stack import Api
from tests.localcloud.server import JsonServer, Reply

EVENT = rename_event(Line(1, "one", "orders"), "id-1", "2026-11-25T00:00:00Z")
OUTCOME = {"Content-Type": "application/cloudevents+json"}
PROBLEM = {"Content-Type": "application/problem+json"}


class LocalApi(JsonServer):
    """The HTTP API as README and docs/events.md describe it, over endpoint services in memory.

    Attributes:
        knows_dry_run: False for a stack of before there was one.
        canned: replies to be given first.
        queued: how many dry runs an event that was handed to the queue takes to be settled; None where none is queued.
    """

    def __init__(self) -> None:
        super().__init__()
        self.names = {"one": "billing"}
        self.knows_dry_run = True
        self.canned: list[Reply] = []
        self.queued: int | None = None
        self.requests: list[tuple[str, dict[str, str], Event]] = []
        self.outcomes: dict[str, Any] = {}

    @property
    def api_url(self) -> str:
        return f"{self.url}/v1/rename-events"

    def _receive(self, path: str, headers: Message, body: bytes) -> Reply:
        event = json.loads(body)
        self.requests.append((path, dict(headers.items()), event))
        return self.canned.pop(0) if self.canned else self.reply(path, event)

    def reply(self, path: str, event: Event) -> Reply:
        dry_run = path.endswith("?dry_run=true") and self.knows_dry_run
        data = event["data"]
        service_id, name = data["vpc_endpoint_service_id"], data["endpoint_service_name"]
        error = None
        if " " in name:
            error = failure("Rename.InvalidEvent", "invalid", violations=[{"path": "/data/x", "message": "is wrong"}])
        elif service_id not in self.names:
            error = failure("EndPoint.2003", "not_found")
        status = {"Rename.InvalidEvent": 400, "EndPoint.2003": 404}.get(error["code"], 503) if error else 200
        if not dry_run:
            if self.queued is not None and error is None:
                return Reply(202, {"id": event["id"], "source": event["source"], "status": "queued"})
            return Reply(status, self.settle(event, error), OUTCOME)
        body = {"dry_run": True, "id": event["id"], "region": "cn-north-4", "project_id": "p", **data}
        if self.queued is not None:
            self.queued -= 1
            if self.queued == 0:
                self.settle(event, None)
        if event["id"] in self.outcomes:
            return Reply(200, body | {"result": "settled", "outcome": self.outcomes[event["id"]]})
        full = f"cn-north-4.{self.names[service_id]}.abc" if service_id in self.names else None
        result = "would_fail" if error else "would_rename"
        return Reply(status, body | {"service_name": full, "result": result} | ({"error": error} if error else {}))

    def settle(self, event: Event, error: dict[str, Any] | None) -> dict[str, Any]:
        data = event["data"]
        if error is None:
            self.names[data["vpc_endpoint_service_id"]] = data["endpoint_service_name"]
        outcome = {"id": "outcome", "data": {**data, "request": event, **({"error": error} if error else {})}}
        self.outcomes[event["id"]] = outcome
        return outcome


def failure(code: str, kind: str, **more: Any) -> dict[str, Any]:
    own = {"code": code, "kind": kind, "message": "No.", "http_status": None, "retryable": False}
    return {**own, "violations": [], **more}


def failed(status: int, code: str, kind: str, **more: Any) -> Reply:
    return Reply(status, {"id": "outcome", "data": {"error": failure(code, kind, **more)}}, OUTCOME)


@pytest.fixture
def local() -> Iterator[LocalApi]:
    with LocalApi() as api:
        yield api


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> boto3.Session:
    monkeypatch.setattr(stack, "FIRST_LOOK_SECONDS", 0.01)
    return boto3.Session("AKID", "secret", "token", region_name="eu-central-1")


@pytest.fixture
def api(local: LocalApi, session: boto3.Session) -> Api:
    return Api(local.api_url, parallel=4, stopping=threading.Event(), session=session)


def test_requests_have_a_valid_signature_of_the_caller(local: LocalApi, api: Api, session: boto3.Session) -> None:
    api.preview(EVENT)

    for path, headers, event in local.requests:
        signed = {name: headers[name] for name in ("Content-Type", "X-Amz-Date")}
        request = AWSRequest("POST", local.url + path, headers=signed, data=json.dumps(event).encode())
        request.context["timestamp"] = headers["X-Amz-Date"]
        credentials = session.get_credentials()
        assert credentials
        signer = SigV4Auth(credentials, "execute-api", "eu-central-1")
        request.headers["X-Amz-Security-Token"] = headers["X-Amz-Security-Token"]
        assert headers["X-Amz-Security-Token"] == "token"
        canonical = signer.string_to_sign(request, signer.canonical_request(request))
        assert headers["Authorization"].endswith(f"Signature={signer.signature(canonical, request)}")


def test_first_dry_run_is_preceded_by_a_probe_with_an_invalid_name(local: LocalApi, api: Api) -> None:
    for _ in range(2):
        assert api.preview(EVENT).service_name == "billing"

    paths, _, events = zip(*local.requests, strict=True)
    assert set(paths) == {"/v1/rename-events?dry_run=true"}
    assert [event["data"]["endpoint_service_name"] for event in events] == [stack.REFUSED_NAME, "orders", "orders"]
    assert len({event["id"] for event in events}) == 2


def test_stack_without_dry_runs_gets_no_rename(local: LocalApi, api: Api) -> None:
    local.knows_dry_run = False

    with pytest.raises(StoppedError, match="would rename instead"):
        api.preview(EVENT)

    assert local.names == {"one": "billing"}
    assert len(local.requests) == 1


def test_throttled_probe_for_dry_runs_is_repeated(local: LocalApi, api: Api) -> None:
    local.canned = [Reply(429, {"message": "Too Many Requests"})]

    throttled, preview = api.preview(EVENT), api.preview(EVENT)

    assert throttled.problem
    assert throttled.problem.throttled
    assert preview.service_name == "billing"
    assert local.requests[1][2]["data"]["endpoint_service_name"] == stack.REFUSED_NAME


def test_rename_is_sent_once_without_a_probe(local: LocalApi, api: Api) -> None:
    answer = api.rename(EVENT)

    assert (answer.problem, local.names["one"]) == (None, "orders")
    assert [event for _, _, event in local.requests] == [EVENT]


def test_queued_rename_is_followed_by_dry_runs_and_not_sent_again(local: LocalApi, api: Api) -> None:
    local.queued = 4

    answer = api.rename(EVENT)

    assert answer.outcome
    assert answer.outcome["data"]["request"]["id"] == EVENT["id"]
    assert [path for path, _, _ in local.requests].count("/v1/rename-events") == 1


def test_rename_that_stays_in_the_queue_has_no_outcome(
    local: LocalApi, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stack, "FOLLOW_SECONDS", 0.1)
    local.queued = 1_000

    assert api.rename(EVENT) == (None, None)


@pytest.mark.parametrize(
    ("reply", "code", "retryable", "throttled", "fatal"),
    [
        (failed(404, "EndPoint.2003", "not_found"), "EndPoint.2003", False, False, False),
        (failed(503, "X.1", "unavailable", retryable=True), "X.1", True, False, False),
        (failed(503, "X.2", "throttled", retryable=True), "X.2", True, True, False),
        (failed(403, "X.3", "access", retryable=True), "X.3", False, False, False),
        (failed(403, "X.4", "access", http_status=401), "X.4", False, False, True),
        (Reply(403, {"Message": "not authorized"}), "Rename.AccessDenied", False, False, True),
        (Reply(404, {"message": "Not Found"}), "Rename.Refused", False, False, True),
        (Reply(429, {"message": "Limit Exceeded"}), "Rename.Throttled", True, True, False),
        (Reply(503, {"detail": "later"}, PROBLEM), "Rename.ServiceUnavailable", True, False, False),
        (Reply(504, []), "Rename.ServiceUnavailable", True, False, False),
        (Reply(200, {"id": "no outcome"}, OUTCOME), "Rename.Refused", False, False, True),
    ],
    ids=lambda value: str(value.status) if isinstance(value, Reply) else None,
)
def test_reply_is_read_as_a_problem_to_retry_to_wait_for_or_to_stop_at(
    local: LocalApi, api: Api, reply: Reply, code: str, retryable: bool, throttled: bool, fatal: bool
) -> None:
    local.canned = [reply]

    problem = api.rename(EVENT).problem

    assert problem
    assert (problem.code, problem.retryable, problem.throttled, problem.fatal) == (code, retryable, throttled, fatal)


def test_unreachable_api_is_a_retryable_problem(local: LocalApi, session: boto3.Session) -> None:
    api = Api("http://127.0.0.1:9/v1", parallel=1, stopping=threading.Event(), session=session)

    problem = api.rename(EVENT).problem

    assert problem
    assert (problem.code, problem.retryable) == ("Rename.ConnectionFailed", True)


def test_file_is_applied_and_undone_through_the_api(local: LocalApi, api: Renamer, tmp_path: Path) -> None:
    local.names = {f"service-{n}": f"old-{n}" for n in range(50)}
    old = dict(local.names)
    lines = [Line(n, f"service-{n}", f"new-{n}") for n in range(50)]

    def bulk() -> Bulk:
        return Bulk(api, Display(), Pace(), parallel=4)

    assert bulk().apply(Input("abc", lines), None, yes=True) == 0
    assert local.names == old
    with ResultsFile(tmp_path / "results.csv") as results:
        assert bulk().apply(Input("abc", lines), results, yes=True) == 0
        assert local.names == {f"service-{n}": f"new-{n}" for n in range(50)}
        assert bulk().undo(results, yes=True, dry_run=False) == 0
    assert local.names == old


def test_signature_is_for_the_region_in_the_address_of_the_api(session: boto3.Session) -> None:
    url = "https://abc.execute-api.ap-southeast-1.amazonaws.com/v1/rename-events"

    assert Api(url, parallel=1, stopping=threading.Event(), session=session)._region == "ap-southeast-1"


def test_missing_aws_credentials_are_a_usage_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))

    with pytest.raises(UsageError, match="AWS_PROFILE"):
        Api("https://a.execute-api.eu-central-1.amazonaws.com/v1", parallel=1, stopping=threading.Event())

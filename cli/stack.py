"""Uses a deployed stack: its HTTP API, with the caller's AWS credentials, its outcome log and its dead letters.

Only this module imports boto3, and it is imported only if a stack is used.
"""

import json
import threading
import time
from collections.abc import Iterator, Sequence
from http import HTTPStatus
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import boto3
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.httpsession import URLLib3Session

from cli.model import SOURCE, Answer, Event, Line, Outcome, Preview, Problem, StoppedError, UsageError, problem_of_error
from function.domain.service_calls import short_name

OUTCOME: Final = "application/cloudevents+json"
# API Gateway's own timeout is 29 seconds.
TIMEOUT_SECONDS: Final = (5.0, 32.0)
# How long to wait for the outcome of an event that the function has queued.
FOLLOW_SECONDS: Final = 300.0
FIRST_LOOK_SECONDS: Final = 1.0
MAX_LOOK_SECONDS: Final = 15.0
POLL_SECONDS: Final = 2.0
OUTCOME_LOG: Final = "OutcomeLog"
REDRIVE_FUNCTION: Final = "SettleDeadLetters"
ALIAS: Final = "live"
# The new name in a probe. The schema rejects it, so a probe renames nothing even if a stack does not support dry runs.
REFUSED_NAME: Final = "no name: a probe"
_THROTTLED: Final = 429
_SERVER_ERRORS: Final = range(500, 600)


class Stack:
    """A deployed stack."""

    def __init__(self, name: str, session: "boto3.Session | None" = None) -> None:
        self.name = name
        self._session = session or aws_session()

    def api_url(self) -> str:
        return self._output("RenameApiUrl")

    def watch(self, *, since: float, stopping: threading.Event, follow: bool = True) -> Iterator[str]:
        """The lines of the outcome log as they arrive, each once. Creates nothing.

        Args:
            since: seconds since the epoch.

        Raises:
            StoppedError: the stack has no such log, or AWS returns an error.
        """
        group = self._resource(OUTCOME_LOG)
        if group is None:
            raise StoppedError(
                f"The stack {self.name} has no log of outcomes. Set its parameter OutcomeLogDays, "
                'as in: make deploy PARAMETERS="OutcomeLogDays=30"'
            )
        logs = self._client("logs")
        start, seen = int(since * 1000), dict[str, int]()
        while not stopping.is_set():
            pages = logs.get_paginator("filter_log_events").paginate(logGroupName=group, startTime=start)
            try:
                for page in pages:
                    for event in page["events"]:
                        if event["eventId"] not in seen:
                            seen[event["eventId"]] = event["timestamp"]
                            yield event["message"].rstrip("\n")
            except (ClientError, BotoCoreError) as error:
                raise StoppedError(_aws_says(error)) from None
            if not follow:
                return
            # Some lines arrive late: each request starts a minute before the latest line.
            start = max([start, *(stamp - 60_000 for stamp in seen.values())])
            seen = {event_id: stamp for event_id, stamp in seen.items() if stamp >= start}
            stopping.wait(POLL_SECONDS)

    def redrive(self) -> Iterator[int]:
        """Redrive dead letters until there are none left. Yields how many each call has moved.

        Raises:
            StoppedError: the function fails, or AWS returns an error.
        """
        function = self._resource(REDRIVE_FUNCTION)
        if function is None:
            raise StoppedError(f"The stack {self.name} has no function {REDRIVE_FUNCTION}: is it one of vpcep-rename?")
        client = self._client("lambda", read_timeout=70)
        while True:
            try:
                event = json.dumps({"redrive": True})
                reply = client.invoke(FunctionName=function, Qualifier=ALIAS, Payload=event)
                result = json.loads(reply["Payload"].read())
            except (ClientError, BotoCoreError) as error:
                raise StoppedError(_aws_says(error)) from None
            if "FunctionError" in reply or not isinstance(result, dict) or "moved" not in result:
                detail = result.get("errorMessage", "") if isinstance(result, dict) else ""
                raise StoppedError(f"The function {function} failed: {detail or 'its log says why'}.")
            if not result["moved"]:
                return
            yield int(result["moved"])

    def _output(self, name: str) -> str:
        try:
            [stack] = self._client("cloudformation").describe_stacks(StackName=self.name)["Stacks"]
        except (ClientError, BotoCoreError) as error:
            raise StoppedError(_aws_says(error)) from None
        outputs = {output["OutputKey"]: output["OutputValue"] for output in stack.get("Outputs", [])}
        if name not in outputs:
            raise StoppedError(f"The stack {self.name} has no output {name}: is it one of vpcep-rename?")
        return str(outputs[name])

    def _resource(self, logical_id: str) -> str | None:
        """The physical id; None if the stack has no such resource."""
        client = self._client("cloudformation")
        try:
            found = client.describe_stack_resources(StackName=self.name)["StackResources"]
        except (ClientError, BotoCoreError) as error:
            raise StoppedError(_aws_says(error)) from None
        ids = (each["PhysicalResourceId"] for each in found if each["LogicalResourceId"] == logical_id)
        return next(ids, None)

    def _client(self, service: str, **config: Any) -> Any:
        try:
            return self._session.client(service, config=Config(retries={"mode": "standard"}, **config))  # type: ignore[call-overload]
        except (BotoCoreError, ValueError) as error:
            raise StoppedError(_aws_says(error)) from None


class Api:
    """Renames through the HTTP API of a stack, with its ledger and its outcomes."""

    notes: Sequence[str] = ()
    default = "", ""

    def __init__(self, url: str, *, parallel: int, stopping: threading.Event, session: Any = None) -> None:
        """
        Args:
            url: the stack's output ``RenameApiUrl``.
            parallel: requests at once.
            stopping: once set, no outcome is waited for.

        Raises:
            UsageError: there is no region to sign for, or there are no credentials.
        """
        session = session or aws_session()
        self._url = url
        self.where = url
        self._region = _region_of(url) or session.region_name
        self._credentials = session.get_credentials()
        if self._region is None:
            raise UsageError("There is no region to sign requests for: set AWS_REGION to that of the stack.")
        if self._credentials is None:
            raise UsageError(
                "There are no AWS credentials: set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
            )
        ca_bundle = session._session.get_config_variable("ca_bundle")  # noqa: SLF001 - botocore's, which has no other way
        self._http = URLLib3Session(verify=ca_bundle or True, timeout=TIMEOUT_SECONDS, max_pool_connections=parallel)  # type: ignore[arg-type]
        self._stopping = stopping
        self._probing = threading.Lock()
        self._knows_dry_run = False

    def violations(self, line: Line) -> list[str]:  # noqa: ARG002 - the protocol's; the stack's settings are its own
        return []

    def preview(self, event: Event) -> Preview:
        with self._probing:
            if not self._knows_dry_run and (problem := self._probe(event)):
                return Preview("", "", None, problem)
        return self._dry_run(event)

    def rename(self, event: Event) -> Answer:
        reply = self._post(event)
        if isinstance(reply, Problem):
            return Answer(None, reply)
        if reply.is_outcome:
            return Answer(reply.body, problem_of(reply.body, reply.retry_after))
        if reply.status == HTTPStatus.ACCEPTED:
            return self._follow(event)
        return Answer(None, _problem_of_reply(reply))

    def _follow(self, event: Event) -> Answer:
        """Wait for the outcome of a queued event. Only by dry runs: sending it again would queue it again."""
        until, seconds = time.monotonic() + FOLLOW_SECONDS, FIRST_LOOK_SECONDS
        while time.monotonic() < until and not self._stopping.wait(seconds):
            seconds = min(MAX_LOOK_SECONDS, 1.5 * seconds)
            try:
                preview = self.preview(event)
            except StoppedError:
                break
            if preview.outcome is not None:
                return Answer(preview.outcome, problem_of(preview.outcome))
        return Answer(None, None)

    def _probe(self, event: Event) -> Problem | None:
        """
        Raises:
            StoppedError: the stack does not support dry runs, and would rename.
        """
        data = {"vpc_endpoint_service_id": "probe", "endpoint_service_name": REFUSED_NAME}
        reply = self._post(event | {"id": f"probe-{event['id']}", "source": SOURCE, "data": data}, dry_run=True)
        if isinstance(reply, Problem):
            return reply
        if reply.body.get("dry_run") is True:
            self._knows_dry_run = True
            return None
        status = reply.status
        if not reply.is_outcome and (status == _THROTTLED or status in _SERVER_ERRORS or status in (401, 403)):
            return _problem_of_reply(reply)
        raise StoppedError(
            "This stack does not support dry runs: it would rename instead. Nothing has been renamed. "
            "Deploy a newer version of it; `rename`, without --dry-run, works with any."
        )

    def _dry_run(self, event: Event) -> Preview:
        reply = self._post(event, dry_run=True)
        if isinstance(reply, Problem):
            return Preview("", "", None, reply)
        body = reply.body
        if body.get("dry_run") is not True:
            return Preview("", "", None, _problem_of_reply(reply))
        error = body.get("error")
        return Preview(
            body.get("region") or "",
            body.get("project_id") or "",
            short_name(body.get("service_name")),
            _problem_of_error(error, reply.retry_after) if error else None,
            body.get("outcome"),
        )

    def _post(self, event: Event, *, dry_run: bool = False) -> "Problem | _Reply":
        url = f"{self._url}?dry_run=true" if dry_run else self._url
        request = AWSRequest("POST", url, headers={"Content-Type": OUTCOME}, data=json.dumps(event).encode())
        try:
            SigV4Auth(self._credentials.get_frozen_credentials(), "execute-api", self._region).add_auth(request)
        except BotoCoreError as error:
            return Problem("Rename.AccessDenied", f"The AWS credentials cannot be obtained: {error}", fatal=True)
        try:
            reply = self._http.send(request.prepare())
            content = reply.content
        except BotoCoreError as error:
            return Problem("Rename.ConnectionFailed", f"The API does not answer: {error}", retryable=True)
        try:
            body = json.loads(content)
        except ValueError:
            body = None
        if not isinstance(body, dict):
            body = {}
        retry_after = reply.headers.get("Retry-After", "")
        is_outcome = reply.headers.get("Content-Type", "").startswith(OUTCOME) and isinstance(body.get("data"), dict)
        return _Reply(reply.status_code, body, is_outcome, float(retry_after) if retry_after.isdecimal() else None)


class _Reply(NamedTuple):
    """A reply of the API.

    Attributes:
        is_outcome: whether the body is one.
        retry_after: seconds.
    """

    status: int
    body: dict[str, Any]
    is_outcome: bool
    retry_after: float | None


def problem_of(outcome: Outcome, retry_after: float | None = None) -> Problem | None:
    """The problem of an outcome; None for a success."""
    error = outcome["data"].get("error")
    return _problem_of_error(error, retry_after) if error else None


def _problem_of_error(error: dict[str, Any], retry_after: float | None) -> Problem:
    advice = "Huawei Cloud refuses the key of the stack: the runbook's AccessFailuresAlarm says what to do."
    return problem_of_error(error, retry_after, key_advice=advice)


def _problem_of_reply(reply: _Reply) -> Problem:
    """For a reply without an outcome: from API Gateway, or because no outcome could be published."""
    status, body, _, retry_after = reply
    text = str(body.get("detail") or body.get("message") or body.get("Message") or "no reason was given")
    message = f"The API answers {status}: {text}"
    if status in (401, 403):
        message += " Do your AWS credentials allow execute-api:Invoke on this API, and is its region right?"
        return Problem("Rename.AccessDenied", message, fatal=True)
    if status == _THROTTLED:
        return Problem("Rename.Throttled", message, True, throttled=True, retry_after=retry_after)  # noqa: FBT003
    if status in _SERVER_ERRORS:
        return Problem("Rename.ServiceUnavailable", message, retryable=True, retry_after=retry_after)
    return Problem("Rename.Refused", f"{message} Is this the stack's RenameApiUrl?", fatal=True)


def aws_session() -> "boto3.Session":
    try:
        return boto3.Session()
    except BotoCoreError as error:
        raise UsageError(_aws_says(error)) from None


def _aws_says(error: Exception) -> str:
    return f"AWS: {error}"


def _region_of(url: str) -> str | None:
    """From API Gateway's own host names; None for a custom domain."""
    match (urlsplit(url).hostname or "").split("."):
        case [_, "execute-api", region, *_]:
            return region
        case _:
            return None

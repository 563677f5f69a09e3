"""EventBridge, SQS and Secrets Manager on the loopback interface."""

from __future__ import annotations

import json
import threading
from collections import deque
from email.message import Message
from typing import Any, NamedTuple

from function.adapters.aws.client import Aws, EventBridgeClient, Key, SqsClient
from tests.localcloud.server import JsonServer, Reply


class AwsCall(NamedTuple):
    operation: str
    parameters: dict[str, Any]


class FakeAws(JsonServer):
    """As much of EventBridge, SQS and Secrets Manager as their clients need, while the `with` block lasts."""

    content_type = "application/x-amz-json-1.1"

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[AwsCall] = []
        self.secret = ""
        self._answers: dict[str, deque[Reply | None]] = {}
        self._always: dict[str, Reply | None] = {}
        self._lock = threading.Lock()

    def _receive(self, path: str, headers: Message, body: bytes) -> Reply | None:
        answer = self._answer(headers["X-Amz-Target"].partition(".")[2], json.loads(body))
        self._stopping.wait(self.delay)
        return answer

    def sqs(self) -> SqsClient:
        """The function's own client."""
        return SqsClient(self._aws())

    def events(self) -> EventBridgeClient:
        """The function's own client."""
        return EventBridgeClient(self._aws())

    def _aws(self) -> Aws:
        key = Key("local", "local", None)
        return Aws(region="eu-west-1", endpoints={"": self.url}, key=key, sleep=lambda seconds: None)

    @property
    def outcomes(self) -> list[dict[str, Any]]:
        """The details of all entries that were sent, refused ones too."""
        entries = [entry for call in self.calls_of("PutEvents") for entry in call["Entries"]]
        return [json.loads(entry["Detail"]) for entry in entries]

    def calls_of(self, operation: str) -> list[dict[str, Any]]:
        with self._lock:
            return [call.parameters for call in self.calls if call.operation == operation]

    def fail(self, operation: str, code: str, *, status: int = 400, times: int | None = 1) -> None:
        """The whole call is refused."""
        self._command(operation, times, Reply(status, {"__type": code, "message": "No."}))

    def refuse_entry(self, code: str, *, times: int | None = 1) -> None:
        """PutEvents answers 200, and refuses the entry."""
        body = {"FailedEntryCount": 1, "Entries": [{"ErrorCode": code, "ErrorMessage": "No."}]}
        self._command("PutEvents", times, Reply(200, body))

    def hang_up(self, operation: str, *, times: int | None = 1) -> None:
        """The connection ends without an answer."""
        self._command(operation, times, None)

    def answer(self, operation: str, body: dict[str, Any], *, times: int | None = 1) -> None:
        """Any body at all, with status 200."""
        self._command(operation, times, Reply(200, body))

    def recover(self) -> None:
        with self._lock:
            self._answers.clear()
            self._always.clear()

    def _command(self, operation: str, times: int | None, answer: Reply | None) -> None:
        with self._lock:
            if times is None:
                self._always[operation] = answer
            else:
                self._answers.setdefault(operation, deque()).extend([answer] * times)

    def _answer(self, operation: str, parameters: dict[str, Any]) -> Reply | None:
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
                return Reply(200, {"FailedEntryCount": 0, "Entries": entries})
            case "SendMessage":
                return Reply(200, {"MessageId": "1", "MD5OfMessageBody": "0", "SequenceNumber": "1"})
            case "GetSecretValue":
                return Reply(200, {"Name": parameters["SecretId"], "SecretString": self.secret})
            case _:
                return Reply(400, {"__type": "UnknownOperationException"})

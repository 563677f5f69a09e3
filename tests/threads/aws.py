"""DynamoDB, EventBridge and SQS on the loopback interface, with AWS's HTTP protocol and the faults of a network."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable
from decimal import Decimal
from http.server import BaseHTTPRequestHandler
from random import Random
from typing import Any, Final, NamedTuple, cast

from botocore.exceptions import ClientError

from tests.faults.dynamodb import Table, conflict
from tests.localcloud.server import ConnectionTrackingServer, LoopbackServer, reset

# The connection is reset before or after the request is carried out; the response is slow, later than the function
# waits for it, or an error.
FAULTS: Final = ("reset", "reset after", "slow", "hang", "error", "conflict")
SLOW_SECONDS: Final = 0.3
HANG_SECONDS: Final = 2.5


class Answer(NamedTuple):
    """The response to one request."""

    status: int
    body: dict[str, Any]


class Aws(LoopbackServer):
    """Runs until the end of the `with` block.

    Attributes:
        table: the ledger's.
        fault_rate: of all requests, as a probability.
        faults: how many have been injected.
    """

    def __init__(
        self,
        seed: int,
        put_event: Callable[[dict[str, Any]], object],
        send_message: Callable[[dict[str, Any]], object],
        extend_visibility: Callable[[str, int], object],
    ) -> None:
        """
        Args:
            put_event: called with the detail of each entry.
            send_message: called with the request.
            extend_visibility: called with a receipt handle, and seconds.
        """
        super().__init__()
        self.table = Table(lambda expired: False)
        self.fault_rate = 0.0
        self.faults = 0
        self._random = Random(seed)
        self._put_event = put_event
        self._send_message = send_message
        self._extend_visibility = extend_visibility
        self._lock = threading.Lock()
        self._frozen_at = 0.0

    def freeze(self) -> None:
        """Reset every connection that is idle now at its next use, as after a freeze of its environment."""
        self._frozen_at = time.monotonic()

    def age(self, seconds: float) -> None:
        """Make all stored times earlier."""
        with self._lock:
            for item in self.table.items():
                for name in ("lapses", "opened_at", "probe_lease_expiry"):
                    if name in item:
                        item[name] = {"N": str(Decimal(item[name]["N"]) - Decimal(int(seconds)))}

    def _listen(self) -> ConnectionTrackingServer:
        return _Server(self)

    def _draw(self) -> str | None:
        with self._lock:
            if self._random.random() >= self.fault_rate:
                return None
            self.faults += 1
            return self._random.choices(FAULTS, (4, 4, 4, 0.3, 2, 2))[0]

    def _carry_out(self, operation: str, request: dict[str, Any], fault: str | None) -> Answer:
        try:
            return Answer(200, self._answer(operation, request, fault))
        except ClientError as error:
            response = cast("dict[str, Any]", error.response)
            body = {"__type": f"com.amazonaws#{response['Error']['Code']}", "message": "No."}
            return Answer(400, body | {key: response[key] for key in ("CancellationReasons",) if key in response})

    def _answer(self, operation: str, request: dict[str, Any], fault: str | None) -> dict[str, Any]:
        match operation:
            case "GetItem" | "PutItem" | "UpdateItem" | "TransactWriteItems":
                with self._lock:
                    if fault == "conflict" and operation == "TransactWriteItems":
                        raise conflict(len(request["TransactItems"]), 0)
                    return self.table.carry_out(operation, request)
            case "PutEvents":
                for entry in request["Entries"]:
                    self._put_event(json.loads(entry["Detail"]))
                return {"FailedEntryCount": 0, "Entries": [{"EventId": "1"} for _ in request["Entries"]]}
            case "SendMessage":
                self._send_message(request)
                return {"MessageId": "1", "MD5OfMessageBody": "0", "SequenceNumber": "1"}
            case "ChangeMessageVisibilityBatch":
                for entry in request["Entries"]:
                    self._extend_visibility(entry["ReceiptHandle"], entry["VisibilityTimeout"])
                return {"Successful": [{"Id": entry["Id"]} for entry in request["Entries"]], "Failed": []}
            case _:
                raise AssertionError(operation)


class _Server(ConnectionTrackingServer):
    def __init__(self, aws: Aws) -> None:
        self.aws = aws
        super().__init__(_Handler)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True
    server: _Server

    def setup(self) -> None:
        super().setup()
        self._idle_since = math.inf

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_POST(self) -> None:
        aws = self.server.aws
        if self._idle_since < aws._frozen_at:
            reset(self)
            return
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        fault = aws._draw()
        if fault == "reset":
            reset(self)
            return
        answer = aws._carry_out(self.headers["X-Amz-Target"].partition(".")[2], request, fault)
        if fault == "reset after":
            reset(self)
            return
        if fault in ("slow", "hang") and aws._stopping.wait(SLOW_SECONDS if fault == "slow" else HANG_SECONDS):
            self.close_connection = True
            return
        if fault == "error":
            answer = Answer(500, {"__type": "InternalServerError", "message": "No."})
        body = json.dumps(answer.body).encode()
        self.send_response(answer.status)
        self.send_header("Content-Type", "application/x-amz-json-1.0")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self._idle_since = time.monotonic()
        self.wfile.write(body)

"""DynamoDB, EventBridge and SQS on the loopback interface, over HTTP as AWS speaks it, with the faults of a network."""

from __future__ import annotations

import json
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from random import Random
from typing import Any, Final, NamedTuple, cast

from botocore.exceptions import ClientError

from tests.faults.dynamodb import Table, conflict
from tests.localcloud.server import LoopbackServer

# What a fault does: the connection is reset before the request is carried out, or after it; the answer comes late, or
# is that of a server which failed.
FAULTS: Final = ("reset", "reset after", "slow", "hang", "error", "conflict")
SLOW_SECONDS: Final = 0.3
# Longer than the function waits for an answer.
HANG_SECONDS: Final = 2.5


class Answer(NamedTuple):
    """Of one request."""

    status: int
    body: dict[str, Any]


class Aws(LoopbackServer):
    """Up for as long as the `with` block lasts.

    Attributes:
        table: the ledger's.
        fault_rate: of all requests, as a probability.
        faults: so many have been injected.
    """

    def __init__(
        self,
        seed: int,
        *,
        put_event: Callable[[dict[str, Any]], object],
        send_message: Callable[[dict[str, Any]], object],
        put_off: Callable[[str, int], object],
    ) -> None:
        """
        Args:
            put_event: takes the detail of an entry that the bus took.
            send_message: takes the request.
            put_off: takes a receipt handle, and seconds.
        """
        super().__init__()
        self.table = Table(lambda expired: False)
        self.fault_rate = 0.0
        self.faults = 0
        self._random = Random(seed)
        self._put_event = put_event
        self._send_message = send_message
        self._extend_visibility = put_off
        self._lock = threading.Lock()
        self._done: set[str] = set()
        self._thawed_at = 0.0

    def thaw(self) -> None:
        """Every connection that is open now is reset when it is used next, as after a freeze."""
        self._thawed_at = time.monotonic()

    def age(self, seconds: float) -> None:
        """Time passes for whatever is stored."""
        with self._lock:
            for item in self.table.items():
                for name in ("lapses", "opened_at", "probe_lease_expiry"):
                    if name in item:
                        item[name] = {"N": str(Decimal(item[name]["N"]) - Decimal(int(seconds)))}

    def _listen(self) -> ThreadingHTTPServer:
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
                    return self._of_the_table(operation, request, fault)
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

    def _of_the_table(self, operation: str, request: dict[str, Any], fault: str | None) -> dict[str, Any]:
        match operation:
            case "GetItem":
                item = self.table.get(request["Key"])
                return {"Item": item} if item else {}
            case "PutItem":
                self.table.put(request)
            case "UpdateItem":
                self.table.update(request)
            case _ if fault == "conflict":
                raise conflict(len(request["TransactItems"]), 0)
            case _ if request["ClientRequestToken"] not in self._done:
                self.table.transact(request["TransactItems"])
                self._done.add(request["ClientRequestToken"])
        return {}


class _Server(ThreadingHTTPServer):
    request_queue_size = 128

    daemon_threads = True

    def __init__(self, aws: Aws) -> None:
        self.aws = aws
        self._connections: set[socket.socket] = set()
        super().__init__(("127.0.0.1", 0), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Close only: an orderly shutdown would turn a reset into an ordinary end."""
        self._connections.discard(request)
        self.close_request(request)

    def server_close(self) -> None:
        super().server_close()
        for connection in list(self._connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), OSError):  # which is a client that did not wait for its answer
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True
    server: _Server

    def setup(self) -> None:
        super().setup()
        self._opened_at = time.monotonic()

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_POST(self) -> None:
        aws = self.server.aws
        if self._opened_at < aws._thawed_at:
            self._reset()
            return
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        fault = aws._draw()
        if fault == "reset":
            self._reset()
            return
        answer = aws._carry_out(self.headers["X-Amz-Target"].partition(".")[2], request, fault)
        if fault == "reset after":
            self._reset()
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
        self.wfile.write(body)

    def _reset(self) -> None:
        # Closing a socket that does not linger resets the connection.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True

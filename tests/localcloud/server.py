"""Servers on a free port of the loopback interface, and one that answers each POST with JSON."""

from __future__ import annotations

import json
import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, NamedTuple, Self


class Reply(NamedTuple):
    """What is answered; a body of None is empty."""

    status: int
    body: Any
    headers: Mapping[str, str] = {}


class LoopbackServer(ABC):
    """Up for as long as the `with` block lasts; `_stopping` tells those who wait that it ends."""

    def __init__(self) -> None:
        self._stopping = threading.Event()

    def __enter__(self) -> Self:
        self._server = self._listen()
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @abstractmethod
    def _listen(self) -> ThreadingHTTPServer:
        """The server, on a port of its own."""


class _Server(ThreadingHTTPServer):
    request_queue_size = 128  # with five, a batch's connections wait for a second


class JsonServer(LoopbackServer):
    """Answers each POST with JSON, after a delay that the end of the `with` block cuts short."""

    content_type = "application/json"

    def __init__(self) -> None:
        super().__init__()
        self.delay = 0.0

    def _listen(self) -> ThreadingHTTPServer:
        return _Server(("127.0.0.1", 0), _handler_of(self))

    @abstractmethod
    def _receive(self, path: str, headers: Message, body: bytes) -> Reply | None:
        """The reply to a request; None hangs up."""


def _handler_of(server: JsonServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1

        def do_POST(self) -> None:
            request = self.rfile.read(int(self.headers["Content-Length"]))
            reply = server._receive(self.path, self.headers, request)
            if reply is None:
                self.close_connection = True
                return
            body = b"" if reply.body is None else json.dumps(reply.body).encode()
            self.send_response(reply.status)
            for name, value in {"Content-Type": server.content_type, **reply.headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    return Handler

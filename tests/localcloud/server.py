"""HTTP servers on a free port of the loopback interface."""

from __future__ import annotations

import json
import socket
import struct
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple, Self


class Reply(NamedTuple):
    """The response to a request; a body of None is empty."""

    status: int
    body: Any
    headers: Mapping[str, str] = {}


class LoopbackServer(ABC):
    """Runs until the end of the `with` block, which sets `_stopping`."""

    def __init__(self) -> None:
        self._stopping = threading.Event()

    def __enter__(self) -> Self:
        self._server = self._listen()
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stopping.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @abstractmethod
    def _listen(self) -> ThreadingHTTPServer:
        """The server, on a free port."""


class ConnectionTrackingServer(ThreadingHTTPServer):
    """Closes all connections when it is closed. Its handlers may `reset` a connection."""

    # The default of 5 drops connection attempts of a burst, and each dropped one costs its client a second.
    request_queue_size = 128

    def __init__(self, handler: type[BaseHTTPRequestHandler]) -> None:
        self._connections: set[socket.socket] = set()
        super().__init__(("127.0.0.1", 0), handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Close only: the orderly shutdown of the base class would turn a reset into an ordinary end."""
        self._connections.discard(request)
        self.close_request(request)

    def server_close(self) -> None:
        super().server_close()
        for connection in list(self._connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), OSError):  # an OSError is a client that has closed the connection
            super().handle_error(request, client_address)


def reset(handler: BaseHTTPRequestHandler) -> None:
    """Reset the connection, as closing a socket that does not linger does."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.close_connection = True


class JsonServer(LoopbackServer):
    """Answers each POST with JSON, after a delay that the end of the `with` block cuts short."""

    content_type = "application/json"

    def __init__(self) -> None:
        super().__init__()
        self.delay = 0.0

    def _listen(self) -> ThreadingHTTPServer:
        return ConnectionTrackingServer(_handler_of(self))

    @abstractmethod
    def _receive(self, path: str, headers: Message, body: bytes) -> Reply | None:
        """The reply to a request; None closes the connection."""


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

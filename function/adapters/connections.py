"""HTTP connections with a deadline, for the clients of both clouds.

A thread sets its exchange before it sends a request, because neither urllib3 nor the SDK has an argument for it.
"""

import io
import math
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from http.client import HTTPResponse
from typing import Any, Final

from urllib3 import PoolManager
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from function.domain.deadline import Deadline

# NAT gateways and load balancers drop an idle connection after a few minutes, without notifying either side.
MAX_IDLE_SECONDS: Final = 60.0

# SO_LINGER with a timeout of zero: closing the connection resets it.
_RESET: Final = struct.pack("ii", 1, 0)


class DeadlinePassedError(Exception):
    """Nothing more may be sent. Not an OSError, because urllib3 would replace it."""


@dataclass(eq=False, repr=False, kw_only=True)
class Exchange:
    """One request and its reply.

    Attributes:
        deadline: nothing is sent after it, and the reply must end by it.
        read_seconds: for the whole reply, however slowly it arrives.
        requires_new_connection: must not reuse a connection.
        reuses_connection: got a reused connection.
        sent: a part of the request may have been sent.
    """

    deadline: Deadline
    read_seconds: float = math.inf
    requires_new_connection: bool = False
    reuses_connection: bool = False
    sent: bool = False


# Of this thread.
current_exchange: Final[ContextVar[Exchange]] = ContextVar("current_exchange")


@contextmanager
def exchange_scope(exchange: Exchange) -> Iterator[None]:
    """Requests of this thread in this scope belong to this exchange."""
    scope = current_exchange.set(exchange)
    try:
        yield
    finally:
        current_exchange.reset(scope)


def use_deadlines(manager: PoolManager) -> None:
    """Make the connections of a pool manager obey the deadline of their exchange."""
    manager.pool_classes_by_scheme = {"http": _HttpPool, "https": _HttpsPool}


class _DeadlineReader(io.RawIOBase):
    """Limits the time of a whole reply; a socket's own timeout starts again with each byte."""

    def __init__(self, raw: io.RawIOBase, sock: Any, deadline: Deadline) -> None:
        self._raw = raw
        self._sock = sock
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        seconds = self._deadline.remaining()
        if seconds <= 0:
            raise TimeoutError
        self._sock.settimeout(seconds)
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Response(HTTPResponse):
    def __init__(self, sock: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        exchange = current_exchange.get()
        deadline = exchange.deadline.within(exchange.read_seconds)
        self.fp = io.BufferedReader(_DeadlineReader(self.fp.detach(), sock, deadline))


class _Connection:
    """Sends nothing after the deadline, and records whether a part of the request may have been sent."""

    response_class: Any = _Response
    kept_since: float = 0.0
    awaits_reply: bool = False
    request_parts: list[bytes] | None = None

    def request(self, *args: Any, **kwargs: Any) -> None:
        """Send head and body together: apart, they would be two packets, and a freeze could come between them."""
        parts: list[bytes] = []
        self.request_parts = parts
        try:
            super().request(*args, **kwargs)  # type: ignore[misc]
        finally:
            self.request_parts = None
        self.send(b"".join(parts))

    def send(self, data: Any) -> None:
        if self.request_parts is not None:
            self.request_parts.append(data)
            return
        # Before the deadline is checked: a name lookup has no timeout, and Lambda may freeze the environment meanwhile.
        if self.sock is None:  # type: ignore[attr-defined]
            self.connect()  # type: ignore[attr-defined]
        exchange = current_exchange.get()
        if exchange.deadline.remaining() <= 0:
            raise DeadlinePassedError
        exchange.sent = self.awaits_reply = True
        super().send(data)  # type: ignore[misc]

    def getresponse(self) -> Any:
        response = super().getresponse()  # type: ignore[misc]
        self.awaits_reply = False
        return response

    def close(self) -> None:
        if self.awaits_reply and self.sock is not None:  # type: ignore[attr-defined]
            # Else the kernel would retransmit an unacknowledged request for minutes.
            with suppress(OSError):
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)  # type: ignore[attr-defined]
        self.awaits_reply = False
        super().close()  # type: ignore[misc]


class _HttpConnection(_Connection, HTTPConnection):
    """Without TLS, for a custom endpoint."""


class _HttpsConnection(_Connection, HTTPSConnection):
    """With verified TLS."""


class _Pool:
    """Closes idle connections, by a clock that continues while the environment is frozen."""

    def _get_conn(self, timeout: float | None = None) -> Any:
        connection = super()._get_conn(timeout)  # type: ignore[misc]
        exchange = current_exchange.get()
        if not connection.is_closed:
            idle = exchange.deadline.now() - connection.kept_since
            if exchange.requires_new_connection or not 0 <= idle < MAX_IDLE_SECONDS:
                connection.close()  # urllib3 reopens it
        exchange.reuses_connection = not connection.is_closed
        return connection

    def _put_conn(self, conn: Any) -> None:
        if conn is not None:
            conn.kept_since = current_exchange.get().deadline.now()
        super()._put_conn(conn)  # type: ignore[misc]


class _HttpPool(_Pool, HTTPConnectionPool):
    ConnectionCls = _HttpConnection


class _HttpsPool(_Pool, HTTPSConnectionPool):
    ConnectionCls = _HttpsConnection

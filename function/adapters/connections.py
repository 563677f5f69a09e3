"""HTTP connections that keep a deadline, beneath the clients of both clouds.

A thread sets its exchange before it makes a request, since neither urllib3 nor the SDK has an argument for it.
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

# NAT gateways and load balancers drop an idle connection after some minutes, without a word to either side.
MAX_IDLE_SECONDS: Final = 60.0

# SO_LINGER on, for no time: the connection is reset when it is closed.
_RESET: Final = struct.pack("ii", 1, 0)


class DeadlinePassedError(Exception):
    """Nothing more may be sent. No OSError, which urllib3 would replace."""


@dataclass(slots=True, kw_only=True)
class Exchange:
    """One request and its reply.

    Attributes:
        deadline: nothing is sent after it, and the reply ends by it.
        read_seconds: of the whole reply, however slowly its bytes come.
        requires_new_connection: must not use a kept connection.
        reuses_connection: was given a kept connection.
        sent: a part of the request may have left.
    """

    deadline: Deadline
    read_seconds: float = math.inf
    requires_new_connection: bool = False
    reuses_connection: bool = False
    sent: bool = False


_current: Final[ContextVar[Exchange]] = ContextVar("_current")


@contextmanager
def exchange_scope(exchange: Exchange) -> Iterator[None]:
    """What this thread sends within belongs to this exchange."""
    scope = _current.set(exchange)
    try:
        yield
    finally:
        _current.reset(scope)


def current_exchange() -> Exchange:
    """Of this thread."""
    return _current.get()


def use_deadlines(manager: PoolManager) -> None:
    """Let the connections of a pool manager keep the deadline of their exchange."""
    manager.pool_classes_by_scheme = {"http": _HttpPool, "https": _HttpsPool}


class _DeadlineReader(io.RawIOBase):
    """Ends a reply by its deadline; a socket's own timeout starts again with each byte."""

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
        exchange = _current.get()
        deadline = exchange.deadline.within(exchange.read_seconds)
        self.fp = io.BufferedReader(_DeadlineReader(self.fp.detach(), sock, deadline))


class _Connection:
    """Sends nothing after the deadline, and records whether a part of the request may have left."""

    response_class: Any = _Response
    kept_since: float = 0.0
    awaits_reply: bool = False

    def send(self, data: Any) -> None:
        # A name look-up has no timeout, and Lambda may freeze an environment at any point.
        if self.sock is None:  # type: ignore[attr-defined]
            self.connect()  # type: ignore[attr-defined]
        exchange = _current.get()
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
            # Else the kernel would retransmit a request without an acknowledgement for minutes.
            with suppress(OSError):
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)  # type: ignore[attr-defined]
        self.awaits_reply = False
        super().close()  # type: ignore[misc]


class _HttpConnection(_Connection, HTTPConnection):
    """Without TLS, for another endpoint."""


class _HttpsConnection(_Connection, HTTPSConnection):
    """With TLS, verified."""


class _Pool:
    """Closes idle connections, by a clock that goes on while the environment is frozen."""

    def _get_conn(self, timeout: float | None = None) -> Any:
        connection = super()._get_conn(timeout)  # type: ignore[misc]
        exchange = _current.get()
        if not connection.is_closed:
            idle = exchange.deadline.now() - connection.kept_since
            if exchange.requires_new_connection or not 0 <= idle < MAX_IDLE_SECONDS:
                connection.close()  # urllib3 opens it again
        exchange.reuses_connection = not connection.is_closed
        return connection

    def _put_conn(self, conn: Any) -> None:
        if conn is not None:
            conn.kept_since = _current.get().deadline.now()
        super()._put_conn(conn)  # type: ignore[misc]


class _HttpPool(_Pool, HTTPConnectionPool):
    ConnectionCls = _HttpConnection


class _HttpsPool(_Pool, HTTPSConnectionPool):
    ConnectionCls = _HttpsConnection

"""Clients of the local Huawei Cloud."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from function.adapters.huawei.credentials import Credentials, CredentialsProvider
from function.adapters.huawei.endpoint_services import HuaweiEndpointServices
from function.domain.deadline import Deadline
from function.domain.failures import Failure, RenameFailedError
from function.domain.model import Target
from function.domain.ports import Reply
from tests.deadlines import within
from tests.fakes.environment import ENVIRONMENT
from tests.fakes.failures import failed
from tests.fakes.identifiers import PROJECT, REGION, SERVICE
from tests.fakes.raw_server import RawServer, receive_request

KEY = Credentials(ENVIRONMENT["HUAWEICLOUD_SDK_AK"], ENVIRONMENT["HUAWEICLOUD_SDK_SK"], None, PROJECT)
TARGET = Target(REGION, PROJECT, SERVICE)
SHORT = 0.3
LONG = 10.0


@dataclass
class Keys:
    """The key that calls get, which a test may replace.

    Attributes:
        key: or why there is none.
        next: replaces a key that is invalidated; None if it stays.
        after_get: called by each ``get`` that has read the key.
    """

    key: Credentials | Failure = KEY
    next: Credentials | Failure | None = None
    after_get: Callable[[], object] = lambda: None
    invalidated: list[Credentials] = field(default_factory=list)

    def get(self, deadline: Deadline) -> Credentials:
        key = self.key
        self.after_get()
        if isinstance(key, Failure):
            raise RenameFailedError(key)
        return key

    def invalidate(self, key: Credentials) -> None:
        self.invalidated.append(key)
        self.key = self.next or self.key


def adapter(
    url: str | dict[str, str],
    credentials: CredentialsProvider | None = None,
    *,
    on_call: Callable[[float], None] = lambda _: None,
    now: Callable[[], float] = time.time,
) -> HuaweiEndpointServices:
    endpoints = {REGION: url} if isinstance(url, str) else url
    return HuaweiEndpointServices(
        credentials or Keys(),
        region=REGION,
        regions=set(endpoints) or {REGION},
        endpoints=endpoints,
        pool_size=10,
        on_call=on_call,
        now=now,
    )


def rename(
    vpcep: HuaweiEndpointServices, name: str = "orders", *, target: Target = TARGET, seconds: float = LONG
) -> Reply:
    return vpcep.rename(target, name, within(seconds))


def rename_failure(vpcep: HuaweiEndpointServices, seconds: float = LONG) -> Failure:
    return failed(vpcep.rename, TARGET, "orders", within(seconds))


def unconfirmed(call: Callable[[], Reply]) -> Reply | Failure:
    """The result of a call whose reply has neither an error nor the new name: either is fine, if it is no success."""
    try:
        reply = call()
    except RenameFailedError as error:
        failure = error.failure
    else:
        assert reply.name is None or "orders" not in reply.name
        return reply
    assert failure.in_doubt
    assert failure.retryable
    return failure


def http_reply(status: str, body: bytes = b"", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", "X-Request-Id: raw-1", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


RENAMED = http_reply("200 OK", b'{"endpoint_service_name":"orders"}')


def replying(reply: bytes, tls: ssl.SSLContext | None = None) -> RawServer:
    """A server that answers the first request of each connection with these bytes, and closes it."""

    def serve(connection: socket.socket) -> None:
        receive_request(connection)
        connection.sendall(reply)

    return RawServer(serve, tls)


def failure_with(server: RawServer, seconds: float = LONG) -> Failure:
    """What the first rename fails with that this server answers, on one connection."""
    with server:
        failure = rename_failure(adapter(server.url), seconds)
    assert server.connections == 1
    return failure


def closed_port() -> str:
    """The URL of a port of the loopback interface where no server listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


def in_parallel(count: int, call: Callable[[int], Any]) -> list[Any]:
    def outcome(number: int) -> Any:
        try:
            return call(number)
        except RenameFailedError as error:
            return error.failure

    with ThreadPoolExecutor(max_workers=count) as pool:
        return list(pool.map(outcome, range(count)))

"""Connections to Huawei Cloud that fail, hang or last longer than their deadline."""

from __future__ import annotations

import os
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
import trustme

from function.adapters.huawei.endpoint_services import HuaweiEndpointServices
from function.adapters.tls import ssl_context
from function.domain.deadline import Deadline
from tests.deadlines import lasting_less_than
from tests.fakes.clock import MovedClock
from tests.fakes.failures import failed
from tests.fakes.raw_server import RawServer, receive_request
from tests.localcloud.huawei import HuaweiCloud
from tests.unit.adapters.huawei.clients import (
    LONG,
    RENAMED,
    SHORT,
    TARGET,
    adapter,
    closed_port,
    failure_with,
    http_reply,
    in_parallel,
    rename,
    rename_failure,
    replying,
    unconfirmed,
)

pytestmark = pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning")


@pytest.fixture
def trusted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ssl.SSLContext:
    """The context of a server that the function trusts."""
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    client_context = ssl_context(str(tmp_path / "ca.pem"))
    monkeypatch.setattr("function.adapters.huawei.transport.ssl_context", lambda: client_context)
    return context


# ---- No reply


def test_rename_without_a_reply_in_time_is_in_doubt(cloud: HuaweiCloud, vpcep: HuaweiEndpointServices) -> None:
    cloud.fail(kind="hang", applied=True)

    with lasting_less_than(SHORT + 1):
        failure = rename_failure(vpcep, SHORT)

    assert (failure.code, failure.in_doubt, failure.retryable) == ("Rename.Timeout", True, True)


@pytest.mark.parametrize("is_reset", [True, False], ids=["reset", "closed"])
@pytest.mark.parametrize(
    "read", [lambda connection: connection.recv(1), receive_request], ids=["part", "whole request"]
)
def test_connection_that_ends_without_a_reply_is_in_doubt(
    read: Callable[[socket.socket], object], is_reset: bool
) -> None:
    def serve(connection: socket.socket) -> None:
        read(connection)
        if is_reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    failure = failure_with(RawServer(serve))

    assert (failure.code, failure.in_doubt) == ("Rename.ConnectionFailed", True)


def test_truncated_reply_is_no_success_and_keeps_the_request_id(
    cloud: HuaweiCloud, vpcep: HuaweiEndpointServices
) -> None:
    cloud.fail(kind="truncate", applied=True)

    result = unconfirmed(lambda: rename(vpcep))

    assert result.huawei_request_id == cloud.calls[0].request_id


def test_truncated_chunked_reply_is_in_doubt() -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

    assert failure_with(replying(head + b'100\r\n{"endpoint_service_name":')).in_doubt


@pytest.mark.parametrize(("body", "code"), [(b'{"error_code":"EndPoint.2002"}', "EndPoint.2002"), (b'{"error_', None)])
def test_truncated_error_reply_keeps_a_code_that_was_received(body: bytes, code: str | None) -> None:
    head = b"HTTP/1.1 400 Bad Request\r\nTransfer-Encoding: chunked\r\n\r\n"

    failure = failure_with(replying(head + b"%x\r\n%b\r\n" % (len(body), body)))

    assert (failure.code, failure.http_status) == (code or "Rename.Refused", 400)


def test_refused_connection_is_not_in_doubt() -> None:
    failure = rename_failure(adapter(closed_port()))

    assert (failure.code, failure.in_doubt, failure.retryable) == ("Rename.ConnectionFailed", False, True)


def test_unresolved_host_is_not_in_doubt(monkeypatch: pytest.MonkeyPatch) -> None:
    # given: no resolver is asked, for that may take its time where there is no network
    def getaddrinfo(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)

    failure = rename_failure(adapter("https://vpcep.invalid"))

    assert (failure.code, failure.in_doubt, failure.retryable) == ("Rename.ConnectionFailed", False, True)


def test_connection_timeout_is_not_in_doubt() -> None:
    # given: a listener with a full backlog, which drops what else comes
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        address = listener.getsockname()
        waiting = [socket.socket() for _ in range(8)]
        for client in waiting:
            client.setblocking(False)
            client.connect_ex(address)

        failure = rename_failure(adapter(f"http://127.0.0.1:{address[1]}"), SHORT)

        for client in waiting:
            client.close()
    assert (failure.code, failure.in_doubt, failure.retryable) == ("Rename.Timeout", False, True)


def test_server_without_tls_is_not_in_doubt() -> None:
    def serve(connection: socket.socket) -> None:
        connection.recv(1)
        connection.sendall(http_reply("400 Bad Request"))

    with RawServer(serve) as server:
        failure = rename_failure(adapter(server.url.replace("http:", "https:")))

    assert (failure.code, failure.in_doubt, failure.retryable) == ("Rename.ConnectionFailed", False, True)


def test_untrusted_certificate_is_not_in_doubt() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)

    failure = failure_with(RawServer(receive_request, context))

    assert (failure.code, failure.in_doubt) == ("Rename.ConnectionFailed", False)


def test_tls_error_after_the_request_is_in_doubt(trusted: ssl.SSLContext) -> None:
    # given: a trusted server that reads the request, and then sends what is no TLS
    requests_read = []

    def serve(connection: socket.socket) -> None:
        requests_read.append(receive_request(connection))
        socket.socket(fileno=connection.detach()).sendall(b"HTTP/1.1 200 OK\r\n\r\n" * 20)

    assert failure_with(RawServer(serve, trusted)).in_doubt
    assert requests_read


def test_trusted_certificates_are_read_once_for_all_connections(
    trusted: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    reply = http_reply("200 OK", b'{"endpoint_service_name": "orders"}', "Connection: close")
    readings = []
    monkeypatch.setattr(ssl.SSLContext, "load_verify_locations", lambda *_, **__: readings.append(1))

    with replying(reply, trusted) as server:
        vpcep = adapter(server.url)
        for _ in range(2):
            rename(vpcep)

    assert (server.connections, readings) == (2, [])


# ---- The deadline holds for the whole call, not for each byte of it


def test_deadline_holds_for_a_body_that_trickles_in(cloud: HuaweiCloud, vpcep: HuaweiEndpointServices) -> None:
    cloud.fail(kind="drip", body=b" " * 60, pace=0.05, applied=True)

    with lasting_less_than(SHORT + 1):
        failure = rename_failure(vpcep, SHORT)

    assert (failure.code, failure.in_doubt) == ("Rename.Timeout", True)
    assert failure.huawei_request_id == cloud.calls[0].request_id


def test_deadline_holds_for_headers_that_trickle_in() -> None:
    def serve(connection: socket.socket) -> None:
        receive_request(connection)
        for byte in http_reply("200 OK"):
            connection.sendall(bytes([byte]))
            time.sleep(0.05)

    with lasting_less_than(SHORT + 1):
        failure = failure_with(RawServer(serve), SHORT)

    assert (failure.code, failure.in_doubt) == ("Rename.Timeout", True)


def test_deadline_is_not_extended_by_the_headers() -> None:
    seconds = 1.0

    def serve(connection: socket.socket) -> None:
        receive_request(connection)
        time.sleep(0.9 * seconds)
        connection.sendall(http_reply("200 OK", b" " * 10)[:-5])
        connection.recv(1)

    with lasting_less_than(1.6 * seconds):
        failure = failure_with(RawServer(serve), seconds)

    assert (failure.code, failure.in_doubt) == ("Rename.Timeout", True)


def test_no_call_is_made_after_the_deadline(cloud: HuaweiCloud, vpcep: HuaweiEndpointServices) -> None:
    failure = rename_failure(vpcep, -1.0)

    assert (failure.code, failure.in_doubt, failure.counts_as_attempt) == ("Rename.NoTimeLeft", False, False)
    assert cloud.calls == []


def test_no_call_is_made_if_the_deadline_is_near_after_the_wait_for_the_probe(
    cloud: HuaweiCloud, vpcep: HuaweiEndpointServices
) -> None:
    cloud.fail(kind="hang")
    with ThreadPoolExecutor(10) as pool:
        probe = pool.submit(rename_failure, vpcep, 2 * SHORT)
        while not cloud.calls:
            time.sleep(0.01)

        # when: nine wait, and have a moment left after it
        others = list(pool.map(lambda _: rename_failure(vpcep, 2 * SHORT), range(9)))

        assert {(failure.code, failure.counts_as_attempt) for failure in others} == {("Rename.NoTimeLeft", False)}
        assert probe.result().counts_as_attempt
    assert len(cloud.calls) == 1


# ---- A thread that outlives its invocation sends nothing


class SilentServer(RawServer):
    """Keeps what it receives, and answers no request but the first few.

    Attributes:
        answers: how many.
    """

    def __init__(self, tls: ssl.SSLContext | None) -> None:
        super().__init__(self._listen, tls)
        self.received = b""
        self.answers = 0
        self._done = threading.Event()

    def _listen(self, connection: socket.socket) -> None:
        for _ in range(self.answers):
            self.received += receive_request(connection)
            connection.sendall(RENAMED)
        try:
            while data := connection.recv(65_536):
                self.received += data
        finally:
            self._done.set()

    def received_until_closed(self) -> bytes:
        """What was received until the client closed the connection."""
        if self.connections:
            assert self._done.wait(LONG)
        return self.received


@pytest.fixture(params=["http", "https"])
def server(request: pytest.FixtureRequest) -> Iterator[SilentServer]:
    with SilentServer(request.getfixturevalue("trusted") if request.param == "https" else None) as server:
        yield server


def hook(
    monkeypatch: pytest.MonkeyPatch,
    owner: Any,
    name: str,
    *,
    before: Callable[[], object] = lambda: None,
    after: Callable[[], object] = lambda: None,
) -> None:
    """Call something before or after a function of the standard library."""
    function = getattr(owner, name)

    def hooked(*arguments: Any, **more: Any) -> Any:
        before()
        result = function(*arguments, **more)
        after()
        return result

    monkeypatch.setattr(owner, name, hooked)


def freeze(clock: MovedClock) -> Callable[[], None]:
    """The environment is frozen for an hour."""
    return lambda: setattr(clock, "ahead", 3_600.0)


def by(clock: MovedClock) -> Deadline:
    return Deadline(clock() + LONG, clock() + LONG + 4.0, clock)


def test_lookup_that_hangs_delays_the_calls_of_the_next_invocation_for_a_moment_only(
    cloud: HuaweiCloud, vpcep: HuaweiEndpointServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given: the first call of a key is stuck in a lookup beyond its deadline
    hangs, may_end = threading.Event(), threading.Event()

    def first_hangs() -> None:
        if not hangs.is_set():
            hangs.set()
            may_end.wait(LONG)

    hook(monkeypatch, socket, "getaddrinfo", before=first_hangs)
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(rename_failure, vpcep, SHORT)
        hangs.wait(LONG)
        time.sleep(SHORT)

        with lasting_less_than(2.0):
            replies = in_parallel(10, lambda _: rename(vpcep, "billing"))

        assert [reply.name for reply in replies] == ["billing"] * 10
        may_end.set()
        assert (first.result().code, first.result().in_doubt) == ("Rename.Timeout", False)
    assert len(cloud.calls) == 10


def test_connection_is_reset_after_a_timeout(trusted: ssl.SSLContext) -> None:
    """A request that was not acknowledged would be sent again for minutes, by a connection that ends in order."""
    ends: list[bytes | type[OSError]] = []
    ended = threading.Event()

    def serve(connection: socket.socket) -> None:
        receive_request(connection)
        # Below TLS, for not every version of ssl reports a reset as one.
        with socket.socket(fileno=os.dup(connection.fileno())) as tcp:
            tcp.settimeout(LONG)
            try:
                ends.append(tcp.recv(1))
            except OSError as error:
                ends.append(type(error))
        ended.set()

    for tls in (None, trusted):
        with RawServer(serve, tls) as server:
            assert rename_failure(adapter(server.url), SHORT).in_doubt
            assert ended.wait(LONG)
        ended.clear()

    assert ends == [ConnectionResetError] * 2


def test_nothing_is_sent_after_a_freeze_during_the_lookup(
    server: SilentServer, monkeypatch: pytest.MonkeyPatch, clock: MovedClock
) -> None:
    hook(monkeypatch, socket, "getaddrinfo", before=freeze(clock))

    failure = failed(adapter(server.url).rename, TARGET, "orders", by(clock))

    assert (failure.code, failure.in_doubt) == ("Rename.Timeout", False)
    assert server.received_until_closed() == b""


@pytest.mark.parametrize(("method", "when"), [("putrequest", "before"), ("endheaders", "after")])
def test_nothing_is_sent_after_a_freeze_before_the_request(
    server: SilentServer, monkeypatch: pytest.MonkeyPatch, clock: MovedClock, method: str, when: str
) -> None:
    server.answers = 1
    vpcep = adapter(server.url)
    assert vpcep.rename(TARGET, "orders", by(clock)).name == "orders"
    before = server.received
    hook(monkeypatch, HTTPConnection, method, **{when: freeze(clock)})

    failure = failed(vpcep.rename, TARGET, "billing", by(clock))

    assert (failure.code, failure.in_doubt) == ("Rename.Timeout", False)
    assert server.received_until_closed() == before


# ---- Connections after a freeze: what was idle for a minute by the wall clock may be dead


def answer_each(connection: socket.socket) -> None:
    while True:
        receive_request(connection)
        connection.sendall(RENAMED)


@pytest.mark.parametrize(("ahead", "connections"), [(0, 1), (59, 1), (61, 2), (3_600, 2), (-3_600, 2)])
def test_connection_is_kept_for_a_minute(clock: MovedClock, ahead: float, connections: int) -> None:
    with RawServer(answer_each) as server:
        vpcep = adapter(server.url)
        vpcep.rename(TARGET, "orders", by(clock))

        clock.ahead += ahead
        vpcep.rename(TARGET, "orders", by(clock))

        assert server.connections == connections

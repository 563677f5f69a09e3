"""Connections to Huawei Cloud that fail, hang or outlive their deadline."""

from __future__ import annotations

import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
import trustme

from function.adapters.huawei.endpoint_services import HuaweiEndpointServices
from function.adapters.tls import ssl_context
from function.domain.deadline import Deadline
from tests.deadlines import within
from tests.fakes.clock import MovedClock
from tests.fakes.failures import failed
from tests.fakes.identifiers import SERVICE
from tests.fakes.raw_server import RawServer, receive_request
from tests.localcloud.huawei import HuaweiCloud
from tests.unit.adapters.huawei.clients import (
    LONG,
    SHORT,
    TARGET,
    adapter,
    http_reply,
    in_parallel,
    proves_nothing,
    rename_failure,
)

pytestmark = pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning")


def of_a_trusted_server(monkeypatch: pytest.MonkeyPatch, directory: Path) -> ssl.SSLContext:
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(directory / "ca.pem")
    trusted = ssl_context(str(directory / "ca.pem"))
    monkeypatch.setattr("function.adapters.huawei.transport.ssl_context", lambda: trusted)
    return context


class TestNoReply:
    def test_in_time_leaves_doubt(self, cloud: HuaweiCloud, vpcep: HuaweiEndpointServices) -> None:
        cloud.fail(kind="hang", applied=True)
        began = time.monotonic()

        failure = rename_failure(vpcep, SHORT)

        assert (failure.code, failure.in_doubt, failure.retryable) == ("Rename.Timeout", True, True)
        assert time.monotonic() - began < SHORT + 1

    def test_to_a_read_in_time_is_told_the_same_way(self, cloud: HuaweiCloud, vpcep: HuaweiEndpointServices) -> None:
        cloud.fail(kind="hang", on="read")

        assert failed(vpcep.read, TARGET, within(SHORT)).code == "Rename.Timeout"

    def test_but_a_reset_leaves_doubt(self, cloud: HuaweiCloud, vpcep: HuaweiEndpointServices) -> None:
        for applied in (False, True):
            cloud.fail(kind="reset", applied=applied)

            failure = rename_failure(vpcep)

            assert (failure.code, failure.in_doubt) == ("Rename.ConnectionFailed", True)
        assert cloud.name_of(SERVICE) == "orders"
        assert len(cloud.calls) == 2

    def test_but_a_reset_before_the_request_was_read_leaves_doubt(self) -> None:
        def serve(connection: socket.socket) -> None:
            connection.recv(1)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

        with RawServer(serve) as server:
            failure = rename_failure(adapter(server.url))

        assert (failure.code, failure.in_doubt) == ("Rename.ConnectionFailed", True)

    def test_but_the_end_of_the_connection_leaves_doubt(self) -> None:
        with RawServer(receive_request) as server:
            failure = rename_failure(adapter(server.url))

        assert (failure.code, failure.in_doubt) == ("Rename.ConnectionFailed", True)

    def test_but_a_truncated_one_proves_nothing_and_keeps_the_request_id(
        self, cloud: HuaweiCloud, vpcep: HuaweiEndpointServices
    ) -> None:
        cloud.fail(kind="truncate", applied=True)

        result = proves_nothing(lambda: vpcep.rename(TARGET, "orders", within(LONG)))

        assert result.huawei_request_id == cloud.calls[0].request_id

    def test_but_a_chunked_one_that_breaks_off_leaves_doubt(self) -> None:
        def serve(connection: socket.socket) -> None:
            receive_request(connection)
            connection.sendall(b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n100\r\n{"endpoint_service_name":')

        with RawServer(serve) as server:
            failure = rename_failure(adapter(server.url))

        assert failure.in_doubt

    @pytest.mark.parametrize(
        ("body", "code"), [(b'{"error_code":"EndPoint.2002"}', "EndPoint.2002"), (b'{"error_', None)]
    )
    def test_error_reply_that_breaks_off_keeps_a_code_that_had_come(self, body: bytes, code: str | None) -> None:
        def serve(connection: socket.socket) -> None:
            receive_request(connection)
            head = b"HTTP/1.1 400 Bad Request\r\nTransfer-Encoding: chunked\r\n\r\n"
            connection.sendall(head + b"%x\r\n%b\r\n" % (len(body), body))

        with RawServer(serve) as server:
            failure = rename_failure(adapter(server.url))

        assert (failure.code, failure.http_status) == (code or "Rename.Refused", 400)

    def test_for_lack_of_a_listener_leaves_no_doubt(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]

        failure = rename_failure(adapter(f"http://127.0.0.1:{port}"))

        assert (failure.code, failure.in_doubt, failure.retryable) == ("Rename.ConnectionFailed", False, True)

    def test_for_lack_of_an_address_leaves_no_doubt(self, monkeypatch: pytest.MonkeyPatch) -> None:
        # given: no resolver is asked, for that may take its time where there is no network
        def getaddrinfo(*_: Any, **__: Any) -> Any:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)

        failure = rename_failure(adapter("https://vpcep.invalid"))

        assert (failure.code, failure.in_doubt, failure.retryable) == ("Rename.ConnectionFailed", False, True)

    def test_for_lack_of_a_connection_in_time_leaves_no_doubt(self) -> None:
        # given: a listener with a full backlog, which drops what else comes
        with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
            address = listener.getsockname()
            waiting = [socket.socket() for _ in range(8)]
            for one in waiting:
                one.setblocking(False)
                one.connect_ex(address)

            failure = rename_failure(adapter(f"http://127.0.0.1:{address[1]}"), SHORT)

            for one in waiting:
                one.close()
        assert (failure.code, failure.in_doubt, failure.retryable) == ("Rename.Timeout", False, True)

    def test_over_tls_where_none_is_spoken_leaves_no_doubt(self) -> None:
        def serve(connection: socket.socket) -> None:
            connection.recv(1)
            connection.sendall(http_reply("400 Bad Request"))

        with RawServer(serve) as server:
            failure = rename_failure(adapter(server.url.replace("http:", "https:")))

        assert (failure.code, failure.in_doubt, failure.retryable) == ("Rename.ConnectionFailed", False, True)

    def test_of_a_server_that_nobody_vouches_for_leaves_no_doubt(self) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        trustme.CA().issue_cert("127.0.0.1").configure_cert(context)

        with RawServer(receive_request, context) as server:
            failure = rename_failure(adapter(server.url))

        assert (failure.code, failure.in_doubt) == ("Rename.ConnectionFailed", False)

    def test_when_tls_breaks_after_the_request_leaves_doubt(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        # given: a trusted server that reads the request, and then sends what is no TLS
        context = of_a_trusted_server(monkeypatch, tmp_path)
        requests_read = []

        def serve(connection: socket.socket) -> None:
            requests_read.append(receive_request(connection))
            socket.socket(fileno=connection.detach()).sendall(b"HTTP/1.1 200 OK\r\n\r\n" * 20)

        with RawServer(serve, context) as server:
            failure = rename_failure(adapter(server.url))

        assert requests_read
        assert failure.in_doubt

    def test_reads_the_trusted_certificates_once_for_all_connections(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        context = of_a_trusted_server(monkeypatch, tmp_path)
        body = b'{"endpoint_service_name": "orders"}'

        def serve(connection: socket.socket) -> None:
            receive_request(connection)
            connection.sendall(http_reply("200 OK", body, "Connection: close"))

        readings = []
        monkeypatch.setattr(ssl.SSLContext, "load_verify_locations", lambda *_, **__: readings.append(1))
        with RawServer(serve, context) as server:
            vpcep = adapter(server.url)
            for _ in range(2):
                vpcep.rename(TARGET, "orders", within(LONG))

        assert (server.connections, readings) == (2, [])


class TestDeadline:
    """It holds for the whole call, not for each byte of it."""

    def test_holds_against_a_body_that_drips(self, cloud: HuaweiCloud, vpcep: HuaweiEndpointServices) -> None:
        cloud.fail(kind="drip", body=b" " * 60, pace=0.05, applied=True)
        began = time.monotonic()

        failure = rename_failure(vpcep, SHORT)

        assert time.monotonic() - began < SHORT + 1
        assert (failure.code, failure.in_doubt) == ("Rename.Timeout", True)
        assert failure.huawei_request_id == cloud.calls[0].request_id

    def test_holds_against_headers_that_drip(self) -> None:
        def serve(connection: socket.socket) -> None:
            receive_request(connection)
            for byte in http_reply("200 OK"):
                connection.sendall(bytes([byte]))
                time.sleep(0.05)

        with RawServer(serve) as server:
            began = time.monotonic()

            failure = rename_failure(adapter(server.url), SHORT)

            assert time.monotonic() - began < SHORT + 1
        assert (failure.code, failure.in_doubt) == ("Rename.Timeout", True)

    def test_is_not_put_off_by_the_headers_arrival(self) -> None:
        seconds = 1.0

        def serve(connection: socket.socket) -> None:
            receive_request(connection)
            time.sleep(0.9 * seconds)
            connection.sendall(http_reply("200 OK", b" " * 10)[:-5])
            connection.recv(1)

        with RawServer(serve) as server:
            began = time.monotonic()

            failure = rename_failure(adapter(server.url), seconds)

            assert time.monotonic() - began < 1.6 * seconds
        assert (failure.code, failure.in_doubt) == ("Rename.Timeout", True)

    def test_holds_while_another_call_proves_the_key(self, cloud: HuaweiCloud, vpcep: HuaweiEndpointServices) -> None:
        # given: the first call of a key hangs, and nobody else may try it
        cloud.fail(kind="hang")
        with ThreadPoolExecutor(max_workers=1) as pool:
            first = pool.submit(rename_failure, vpcep, 4 * SHORT)
            while not cloud.calls:
                time.sleep(0.01)

            # when
            failure = rename_failure(vpcep, SHORT)

            # then: it was never sent
            assert (failure.code, failure.in_doubt, failure.counts_as_attempt) == ("Rename.Timeout", False, False)
            assert (first.result().in_doubt, first.result().counts_as_attempt) == (True, True)
        assert len(cloud.calls) == 1

    def test_that_has_passed_leaves_no_call_to_make(self, cloud: HuaweiCloud, vpcep: HuaweiEndpointServices) -> None:
        failure = rename_failure(vpcep, -1.0)

        assert (failure.code, failure.in_doubt, failure.counts_as_attempt) == ("Rename.Timeout", False, False)
        assert cloud.calls == []

    def test_that_is_near_when_the_wait_is_over_leaves_no_call_to_make(
        self, cloud: HuaweiCloud, vpcep: HuaweiEndpointServices
    ) -> None:
        cloud.fail(kind="hang")
        with ThreadPoolExecutor(max_workers=10) as pool:
            first = pool.submit(rename_failure, vpcep, 2 * SHORT)
            while not cloud.calls:
                time.sleep(0.01)

            # when: nine wait, and have a moment left after it
            others = list(pool.map(lambda _: rename_failure(vpcep, 2 * SHORT), range(9)))

            # then
            assert {(failure.code, failure.counts_as_attempt) for failure in others} == {("Rename.Timeout", False)}
            assert first.result().counts_as_attempt
        assert len(cloud.calls) == 1


class TestAThreadThatOutlivesItsInvocation:
    """Whenever it wakes up, it sends nothing any more."""

    @pytest.fixture(params=["http", "https"])
    def server(
        self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> Iterator[SilentServer]:
        context = of_a_trusted_server(monkeypatch, tmp_path) if request.param == "https" else None
        with SilentServer(context) as server:
            yield server

    def test_after_a_look_up_that_hung_until_its_deadline(
        self, server: SilentServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        look_up(monkeypatch, lambda: time.sleep(2 * SHORT))

        failure = rename_failure(adapter(server.url), SHORT)

        assert (failure.code, failure.in_doubt) == ("Rename.Timeout", False)
        assert server.stops_listening() == b""

    def test_holds_up_the_calls_of_the_next_one_for_a_moment_at_the_most(
        self, cloud: HuaweiCloud, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # given: the first call of a key is stuck in a look-up beyond its deadline
        stuck, goes_on = threading.Event(), threading.Event()

        def first_hangs() -> None:
            if not stuck.is_set():
                stuck.set()
                goes_on.wait(LONG)

        look_up(monkeypatch, first_hangs)
        vpcep = adapter(cloud.url)
        with ThreadPoolExecutor(1) as threads:
            straggler = threads.submit(rename_failure, vpcep, SHORT)
            stuck.wait(LONG)
            time.sleep(SHORT)
            began = time.monotonic()

            # when
            replies = in_parallel(10, lambda _: vpcep.rename(TARGET, "billing", within(LONG)))

            # then
            assert [reply.name for reply in replies] == ["billing"] * 10
            assert time.monotonic() - began < 2.0
            goes_on.set()
            assert (straggler.result().code, straggler.result().in_doubt) == ("Rename.Timeout", False)
        assert len(cloud.calls) == 10

    def test_leaves_nothing_that_the_kernel_would_repeat(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """A request that was not acknowledged would be sent again for minutes, by a connection that ends in order."""
        ends: list[bytes | type[OSError]] = []
        ended = threading.Event()

        def serve(connection: socket.socket) -> None:
            receive_request(connection)
            try:
                ends.append(connection.recv(1))
            except OSError as error:
                ends.append(type(error))
            ended.set()

        for tls in (None, of_a_trusted_server(monkeypatch, tmp_path)):
            with RawServer(serve, tls) as server:
                assert rename_failure(adapter(server.url), SHORT).in_doubt
                assert ended.wait(LONG)
            ended.clear()

        assert ends == [ConnectionResetError] * 2

    def test_after_a_freeze_during_the_look_up(
        self, server: SilentServer, monkeypatch: pytest.MonkeyPatch, clock: MovedClock
    ) -> None:
        def freeze() -> None:
            clock.ahead = 3_600.0

        look_up(monkeypatch, freeze)

        failure = failed(adapter(server.url).rename, TARGET, "orders", on(clock, LONG))

        assert (failure.code, failure.in_doubt) == ("Rename.Timeout", False)
        assert server.stops_listening() == b""

    def test_after_a_freeze_that_began_when_the_connection_was_taken(
        self, server: SilentServer, monkeypatch: pytest.MonkeyPatch, clock: MovedClock
    ) -> None:
        server.answers = 1
        vpcep = adapter(server.url)
        assert vpcep.rename(TARGET, "orders", on(clock, LONG)).name == "orders"
        before = server.received
        putrequest = HTTPConnection.putrequest

        def freeze(*arguments: Any, **more: Any) -> None:
            clock.ahead = 3_600.0
            putrequest(*arguments, **more)

        monkeypatch.setattr(HTTPConnection, "putrequest", freeze)

        failure = failed(vpcep.rename, TARGET, "billing", on(clock, LONG))

        assert (failure.code, failure.in_doubt) == ("Rename.Timeout", False)
        assert server.stops_listening() == before

    def test_after_a_freeze_amid_the_request_leaves_doubt(
        self, server: SilentServer, monkeypatch: pytest.MonkeyPatch, clock: MovedClock
    ) -> None:
        endheaders = HTTPConnection.endheaders

        def freeze(*arguments: Any, **more: Any) -> None:
            endheaders(*arguments, **more)
            clock.ahead = 3_600.0

        monkeypatch.setattr(HTTPConnection, "endheaders", freeze)

        failure = failed(adapter(server.url).rename, TARGET, "orders", on(clock, LONG))

        # then: a request without its body changes nothing, but who knows how it was cut
        assert (failure.code, failure.in_doubt) == ("Rename.Timeout", True)
        assert b"endpoint_service_name" not in server.stops_listening()


class SilentServer(RawServer):
    """Keeps what it receives; answers the first few requests, where it is told to."""

    def __init__(self, tls: ssl.SSLContext | None) -> None:
        super().__init__(self._listen, tls)
        self.received = b""
        self.answers = 0
        self._done = threading.Event()

    def _listen(self, connection: socket.socket) -> None:
        for _ in range(self.answers):
            self.received += receive_request(connection)
            connection.sendall(http_reply("200 OK", b'{"endpoint_service_name":"orders"}'))
        try:
            while data := connection.recv(65_536):
                self.received += data
        finally:
            self._done.set()

    def stops_listening(self) -> bytes:
        """What was received until the client closed the connection."""
        if self.connections:
            assert self._done.wait(LONG)
        return self.received


def look_up(monkeypatch: pytest.MonkeyPatch, meanwhile: Callable[[], object]) -> None:
    """Something happens before the name of a host is resolved."""
    getaddrinfo = socket.getaddrinfo

    def slow(*arguments: Any, **more: Any) -> Any:
        meanwhile()
        return getaddrinfo(*arguments, **more)

    monkeypatch.setattr(socket, "getaddrinfo", slow)


def on(clock: MovedClock, seconds: float) -> Deadline:
    """So many seconds from now on, by another clock."""
    return Deadline(clock() + seconds, clock() + seconds + 4.0, clock)


class TestConnectionsAfterAFreeze:
    """What was idle for a minute by the wall clock may be dead, and neither side knows."""

    def serve(self, connection: socket.socket) -> None:
        while True:
            receive_request(connection)
            connection.sendall(http_reply("200 OK", b'{"endpoint_service_name":"orders"}'))

    @pytest.mark.parametrize(("ahead", "connections"), [(0, 1), (59, 1), (61, 2), (3_600, 2), (-3_600, 2)])
    def test_are_kept_for_a_minute(self, clock: MovedClock, ahead: float, connections: int) -> None:
        with RawServer(self.serve) as server:
            vpcep = adapter(server.url)
            vpcep.rename(TARGET, "orders", on(clock, LONG))

            clock.ahead += ahead
            vpcep.rename(TARGET, "orders", on(clock, LONG))

            assert server.connections == connections

    def test_are_not_used_by_any_of_ten_threads(self, clock: MovedClock) -> None:
        # given: ten kept connections, each of which is reset at its next use after a freeze
        frozen, ten = threading.Event(), threading.Barrier(10)

        def serve(connection: socket.socket) -> None:
            born_before = not frozen.is_set()
            while True:
                receive_request(connection)
                if frozen.is_set() and born_before:
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    return
                if born_before and proven.is_set():
                    with suppress(threading.BrokenBarrierError):
                        ten.wait(SHORT)
                connection.sendall(http_reply("200 OK", b'{"endpoint_service_name":"orders"}'))

        proven = threading.Event()
        with RawServer(serve) as server:
            vpcep = adapter(server.url)
            vpcep.rename(TARGET, "orders", on(clock, LONG))  # which proves the key
            proven.set()
            in_parallel(10, lambda _: vpcep.rename(TARGET, "orders", on(clock, LONG)))
            assert server.connections == 10

            # when
            frozen.set()
            clock.ahead += 400
            replies = in_parallel(10, lambda _: vpcep.rename(TARGET, "orders", on(clock, LONG)))

        # then
        assert [reply.name for reply in replies] == ["orders"] * 10
